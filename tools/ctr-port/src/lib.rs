//! Print which ports of the host lead to containers.
#![forbid(unsafe_code)]

use cli::{Context, Fault, Kind, OutputMode, Result};
use record::{Container, Port, Record};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;
use store::{ContainerDir, Status, Store, Subject};

/// Print which ports of the host lead to containers
///
/// On a terminal docker's lines, otherwise the record with a section "ports": an object for each port, ranges taken apart. One
/// that does not run has none.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-port",
    version,
    after_help = "Examples:\n  ctr-port web 80/tcp\n  curl $(ctr-port web 80 --output table | head -n 1)\n  ctr-ls | ctr-port | jq -r '.container.name as $n | .ports[] | [$n, .host, .container] | @tsv'"
)]
pub struct Args {
    /// Id, name, or beginning of an id; without it or with `-`, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub container: Option<String>,

    /// Port of the container; without it, all of them
    #[arg(value_name = "PORT[/PROTOCOL]")]
    pub port: Option<String>,

    /// Every container that runs
    #[arg(short, long, conflicts_with = "container")]
    pub all: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: cli::Common,
}

cli::tool!(Args, "ctr-port", common, quiet);

/// One port that is published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Published {
    /// In the container.
    container: u16,
    protocol: String,
    /// Address of the host; absent means every address.
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    host: u16,
    /// `ip`, or what stands for every address of the families the container has.
    #[serde(skip)]
    shown: BTreeSet<String>,
}

/// `80`, `80/udp` or `80/sctp`.
struct Wanted {
    port: u16,
    protocol: String,
}

impl Wanted {
    fn parse(text: &str) -> Result<Wanted> {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let number = port.bytes().all(|b| b.is_ascii_digit()).then(|| port.parse().ok()).flatten();
        let protocol = protocol.to_ascii_lowercase();
        match number.filter(|port| *port > 0) {
            Some(port) if matches!(protocol.as_str(), "tcp" | "udp" | "sctp") => {
                Ok(Wanted { port, protocol })
            }
            _ => Err(Fault::usage(format!("\"{text}\" is not a port of a container")).hint("80, 53/udp")),
        }
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let wanted = args.port.as_deref().map(Wanted::parse).transpose()?;
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = match args.container.as_deref() {
        _ if args.all => chosen::every(context, &store, |status| status == Status::Running)?,
        None | Some("-") => context.input(&[])?.into_subjects(),
        Some(name) => vec![Subject::from(name.to_owned())],
    };
    let several = args.all || subjects.len() > 1;
    context.each(subjects, |context, subject| {
        let dir = match subject.find(&store) {
            // Removed since they were listed.
            Err(fault) if args.all && fault.kind() == Kind::NotFound => return Ok(()),
            found => found?,
        };
        one(context, &dir, &subject, wanted.as_ref(), several).map_err(|fault| match &subject {
            Subject::Name(name) => fault.on(name.as_str()),
            Subject::Record(_) => fault.on(dir.id.as_str()),
        })
    });
    Ok(())
}

fn one(
    context: &mut Context,
    dir: &ContainerDir,
    subject: &Subject,
    wanted: Option<&Wanted>,
    several: bool,
) -> Result<()> {
    let mut ports = published(dir)?;
    if let Some(wanted) = wanted {
        ports.retain(|port| port.container == wanted.port && port.protocol == wanted.protocol);
        if ports.is_empty() {
            return Err(Fault::new(
                Kind::NotFound,
                format!("its port {}/{} is not published", wanted.port, wanted.protocol),
            )
            .hint("ctr-port without a port lists those that are"));
        }
    }
    let mut record: Record = subject.current(dir)?;
    match context.mode() {
        OutputMode::Json => {
            record.set("ports", &ports)?;
            context.print_record(&record)
        }
        OutputMode::Quiet => context.print(&format!("{}\n", dir.id)),
        OutputMode::Table => {
            let container: Container = record.require("container")?;
            let name = if several { Some(container.name.as_str()) } else { None };
            context.print(&lines(&ports, wanted.is_none(), name))
        }
    }
}

/// Those of a container that has a network now, in order.
fn published(dir: &ContainerDir) -> Result<Vec<Published>> {
    if dir.status()? == Status::Exited || !dir.is_alive() {
        return Ok(Vec::new());
    }
    let networks = dir.load()?.networks()?;
    let all = networks.iter().flat_map(|attachment| {
        attachment.ports.iter().flat_map(|port| single(port, &attachment.host_addresses(port)))
    });
    Ok(merged(all.collect()))
}

/// In order, each once: on several networks the same port is published several times.
fn merged(mut ports: Vec<Published>) -> Vec<Published> {
    ports.sort();
    let mut merged: Vec<Published> = Vec::new();
    for port in ports {
        match merged.last_mut() {
            Some(last) if (Published { shown: port.shown.clone(), ..last.clone() }) == port => {
                last.shown.extend(port.shown);
            }
            _ => merged.push(port),
        }
    }
    merged
}

/// A range taken apart; one that leaves the numbers there are ends with them.
fn single(port: &Port, shown: &[&str]) -> impl Iterator<Item = Published> + use<> {
    let (port, count) = (port.clone(), port.count.unwrap_or(1));
    let shown: BTreeSet<String> = shown.iter().map(|address| (*address).to_owned()).collect();
    (0..count).map_while(move |n| {
        Some(Published {
            container: port.container.checked_add(n)?,
            protocol: port.protocol.clone(),
            ip: port.ip.clone(),
            host: port.host?.checked_add(n)?,
            shown: shown.clone(),
        })
    })
}

fn lines(ports: &[Published], with_inside: bool, name: Option<&str>) -> String {
    let mut text = String::new();
    for (port, address) in ports.iter().flat_map(|port| port.shown.iter().map(move |address| (port, address)))
    {
        if let Some(name) = name {
            let _ = write!(text, "{name}\t");
        }
        if with_inside {
            let _ = write!(text, "{}/{} -> ", port.container, port.protocol);
        }
        let _ = if address.contains(':') {
            writeln!(text, "[{address}]:{}", port.host)
        } else {
            writeln!(text, "{address}:{}", port.host)
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_lines() {
        let port: Port =
            serde_json::from_str(r#"{"host":65534,"container":80,"count":9,"ip":"::1"}"#).unwrap();
        let ports: Vec<Published> = single(&port, &["::1"]).collect();
        assert_eq!(lines(&ports, true, None), "80/tcp -> [::1]:65534\n81/tcp -> [::1]:65535\n");
        // On two networks, of different families.
        let any = |address: &str| Published { ip: None, shown: [address.into()].into(), ..ports[0].clone() };
        let both = merged(vec![any("::"), any("0.0.0.0"), any("0.0.0.0")]);
        assert_eq!(both.len(), 1);
        assert_eq!(lines(&both, false, Some("web")), "web\t0.0.0.0:65534\nweb\t[::]:65534\n");
        // Not published: no port of the host.
        assert_eq!(single(&Port { container: 80, ..Port::default() }, &["0.0.0.0"]).count(), 0);
    }

    #[test]
    fn ports_as_people_write_them() {
        let wanted = Wanted::parse("53/UDP").unwrap();
        assert_eq!((wanted.port, wanted.protocol.as_str()), (53, "udp"));
        for text in ["", "0", "80/icmp", "x", "+80", "65536", "80-81"] {
            assert!(Wanted::parse(text).is_err(), "{text}");
        }
    }
}
