//! Mounts and ports in the words of flags.

use fault::{Fault, Result};
use oci::wishes::mount::{self, MountPlan};
use record::{Mount, MountWish, Port, Quantity};

/// One way to say a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Volume,
    Tmpfs,
    Mount,
}

/// The first form that says all of it.
///
/// # Errors
/// Input when the mount is wrong, or no flag can say it.
pub fn text(wish: &MountWish) -> Result<(Form, String)> {
    let plan = mount::mount(wish)?;
    let parsed;
    let wanted = match wish {
        MountWish::Mount(mount) => mount,
        MountWish::Text(text) => {
            parsed = mount::parse(text)?;
            &parsed
        }
    };
    let forms =
        [(Form::Tmpfs, tmpfs(wanted)), (Form::Volume, volume(wanted)), (Form::Mount, Some(fields(wanted)))];
    for (form, text) in forms {
        if let Some(text) = text.filter(|text| says(form, text, &plan)) {
            return Ok((form, text));
        }
    }
    Err(Fault::input(format!("no flag says the mount at \"{}\"", plan.target)))
}

fn says(form: Form, text: &str, plan: &MountPlan) -> bool {
    let parsed = match form {
        Form::Tmpfs => mount::parse_tmpfs(text),
        Form::Volume => mount::parse_volume(text),
        Form::Mount => mount::parse_mount(text),
    };
    parsed.and_then(|mount| mount::mount(&MountWish::Mount(mount))).is_ok_and(|said| said == *plan)
}

fn tmpfs(mount: &Mount) -> Option<String> {
    if mount.kind.as_deref() != Some("tmpfs") {
        return None;
    }
    let mut options = mount.options.clone();
    options.extend(mount.read_only.then(|| "ro".to_owned()));
    options.extend(mount.size.as_ref().map(|size| format!("size={}", quantity(size))));
    options.extend(mount.mode.as_ref().map(|mode| format!("mode={mode}")));
    Some(with_options(mount.target.clone(), &options))
}

fn volume(mount: &Mount) -> Option<String> {
    let mut options = mount.options.clone();
    options.extend(mount.read_only.then(|| "ro".to_owned()));
    options.extend(mount.propagation.clone());
    options.extend(mount.non_recursive.then(|| "bind".to_owned()));
    options.extend(mount.no_copy.then(|| "nocopy".to_owned()));
    options.extend(mount.chown.then(|| "U".to_owned()));
    options.extend(mount.overlay.then(|| "O".to_owned()));
    options.extend(mount.upper.as_ref().map(|path| format!("upperdir={path}")));
    options.extend(mount.work.as_ref().map(|path| format!("workdir={path}")));
    match &mount.source {
        Some(source) => Some(with_options(format!("{source}:{}", mount.target), &options)),
        // Options need a source before the target.
        None if options.is_empty() => Some(mount.target.clone()),
        None => None,
    }
}

fn with_options(place: String, options: &[String]) -> String {
    if options.is_empty() { place } else { format!("{place}:{}", options.join(",")) }
}

fn fields(mount: &Mount) -> String {
    let kind = mount.kind.as_deref().unwrap_or("volume");
    let mut fields = vec![format!("type={kind}")];
    let mut say =
        |key: &str, value: Option<&String>| fields.extend(value.map(|value| format!("{key}={value}")));
    say("source", mount.source.as_ref());
    say("target", Some(&mount.target));
    say(&format!("{kind}-subpath"), mount.subpath.as_ref());
    say("volume-driver", mount.driver.as_ref());
    say("bind-propagation", mount.propagation.as_ref());
    say("upperdir", mount.upper.as_ref());
    say("workdir", mount.work.as_ref());
    say("tmpfs-size", mount.size.as_ref().map(quantity).as_ref());
    say("tmpfs-mode", mount.mode.as_ref());
    for (key, value) in &mount.driver_options {
        say("volume-opt", Some(&format!("{key}={value}")));
    }
    for (key, value) in &mount.labels {
        say("volume-label", Some(&format!("{key}={value}")));
    }
    let switches = [
        ("readonly", mount.read_only),
        ("bind-recursive=disabled", mount.non_recursive),
        ("bind-create-src", mount.create_source),
        ("volume-nocopy", mount.no_copy),
        ("U", mount.chown),
        ("O", mount.overlay),
    ];
    fields.extend(switches.iter().filter(|(_, on)| *on).map(|(word, _)| (*word).to_owned()));
    fields.extend(mount.options.iter().map(|option| match option.as_str() {
        "ro" => "bind-recursive=writable".to_owned(),
        "rro" => "bind-recursive=readonly".to_owned(),
        other => other.to_owned(),
    }));
    let quoted = |field: &String| {
        if field.contains([',', '"']) { format!("\"{}\"", field.replace('"', "\"\"")) } else { field.clone() }
    };
    fields.iter().map(quoted).collect::<Vec<_>>().join(",")
}

/// As `-p` has it.
pub fn port(port: &Port) -> String {
    let range = |first: u16| match port.count {
        Some(count) if count > 1 => format!("{first}-{}", u32::from(first) + u32::from(count) - 1),
        _ => first.to_string(),
    };
    let ip = match &port.ip {
        Some(ip) if ip.contains(':') => format!("[{ip}]:"),
        Some(ip) => format!("{ip}:"),
        None => String::new(),
    };
    let host = match port.host {
        Some(host) => match port.host_last {
            Some(last) => format!("{host}-{last}:"),
            None => format!("{}:", range(host)),
        },
        // An address without a port still needs its colon.
        None if ip.is_empty() => String::new(),
        None => ":".to_owned(),
    };
    let protocol = if port.protocol == "tcp" { String::new() } else { format!("/{}", port.protocol) };
    format!("{ip}{host}{}{protocol}", range(port.container))
}

pub fn quantity(quantity: &Quantity) -> String {
    match quantity {
        Quantity::Integer(number) => number.to_string(),
        Quantity::Float(number) => number.to_string(),
        Quantity::Text(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_mount_in_its_shortest_form() {
        for (mount, form, expected) in [
            (json!("/srv:/data:ro"), Form::Volume, "/srv:/data:ro"),
            (json!("data:/d"), Form::Volume, "data:/d"),
            (json!({"type": "volume", "target": "/v"}), Form::Volume, "/v"),
            (
                json!({"type": "bind", "source": "/a b", "target": "/b"}),
                Form::Mount,
                "type=bind,source=/a b,target=/b",
            ),
            (
                json!({"type": "tmpfs", "target": "/t", "size": 5, "options": ["noexec"]}),
                Form::Tmpfs,
                "/t:noexec,size=5",
            ),
            (
                json!({"type": "volume", "source": "vol", "target": "/a:b", "subpath": "x,y"}),
                Form::Mount,
                "type=volume,source=vol,target=/a:b,\"volume-subpath=x,y\"",
            ),
        ] {
            let wish: MountWish = serde_json::from_value(mount).unwrap();
            assert_eq!(text(&wish).unwrap(), (form, expected.to_owned()), "{wish:?}");
        }
    }

    #[test]
    fn ports_as_they_are_asked_for() {
        for expected in
            ["80", "8080:80", "127.0.0.1::80", "127.0.0.1:53:53/udp", "[::1]:8000-8009:80-89", "8100-8102:80"]
        {
            assert_eq!(port(&oci::wishes::port::parse_port(expected).unwrap()), expected);
        }
    }
}
