//! `RUN` with its flags.

use super::flags::{Flags, Kind};
use super::{Command, Device, Network, Run, Security};
use crate::parser::Node;
use crate::{Problem, mount, suggest};

const FLAGS: [(&str, Kind); 4] =
    [("mount", Kind::Many), ("network", Kind::One), ("security", Kind::One), ("device", Kind::Many)];

pub fn run(node: &Node, command: Command) -> Result<Run, Problem> {
    let mut flags = Flags::read(&node.flags, &FLAGS)?;
    if command == Command::Exec(Vec::new()) {
        return Err(Problem::new("RUN has an empty command"));
    }
    Ok(Run {
        command,
        heredocs: node.heredocs.clone(),
        mounts: flags.many("mount").iter().map(|text| mount::Flag::read(text)).collect::<Result<_, _>>()?,
        network: network(flags.many("network").pop().as_deref())?,
        security: security(flags.many("security").pop().as_deref())?,
        devices: flags.many("device").iter().map(|text| device(text)).collect::<Result<_, _>>()?,
    })
}

fn network(mode: Option<&str>) -> Result<Network, Problem> {
    match mode {
        None | Some("default") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => {
            Err(Problem::new(format!("--network={}: no such mode", crate::problem::shorten(other)))
                .hint("default, none or host"))
        }
    }
}

fn security(mode: Option<&str>) -> Result<Security, Problem> {
    match mode {
        None | Some("sandbox") => Ok(Security::Sandbox),
        Some("insecure") => Ok(Security::Insecure),
        Some(other) => {
            Err(Problem::new(format!("--security={}: no such mode", crate::problem::shorten(other)))
                .hint("sandbox or insecure"))
        }
    }
}

/// `[name=]vendor/class=device[,required]`: the name of a CDI device has a `=` itself.
fn device(text: &str) -> Result<Device, Problem> {
    let mut device = Device { name: String::new(), required: false };
    for field in mount::fields(text)? {
        let (key, value) = match field.split_once('=') {
            Some((key, value)) => (key.to_ascii_lowercase(), Some(value)),
            None => (field.to_ascii_lowercase(), None),
        };
        match (key.as_str(), value) {
            ("required", None) => device.required = true,
            ("required", Some(value)) => {
                device.required = mount::boolean(value)
                    .ok_or_else(|| Problem::new(format!("{value:?} is no value for required")))?;
            }
            ("name", Some(value)) if device.name.is_empty() => value.clone_into(&mut device.name),
            ("name", Some(_)) => {
                return Err(Problem::new(format!("the device's name is already {:?}", device.name)));
            }
            _ if device.name.is_empty() => device.name = field,
            _ => {
                let problem = Problem::new(format!("unexpected key {key:?} in --device={text}"));
                return Err(match suggest::hint(&key, ["name", "required"]) {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                });
            }
        }
    }
    if device.name.is_empty() {
        return Err(Problem::new("--device names no device"));
    }
    Ok(device)
}
