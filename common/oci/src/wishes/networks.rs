//! `--network`: docker's `name=web,alias=…`, podman's `web:alias=…,ip=…`, a network's name, a mode's word.

use fault::{Fault, Result};
use record::NetworkWish;

/// One `--network`. Of a mode's word (`none`, `host`, `container:ID`, `ns:PATH`…) the name is that word.
///
/// Fails with input for an option there is not.
pub fn network(text: &str) -> Result<NetworkWish> {
    parse(text).map_err(|fault| fault.within(format!("network {text}")))
}

/// What [`network`] reads as this.
pub fn network_text(wish: &NetworkWish) -> String {
    let mut options: Vec<String> = wish.aliases.iter().map(|alias| format!("alias={alias}")).collect();
    let singles = [("ip", &wish.ip), ("ip6", &wish.ip6), ("mac", &wish.mac), ("ifname", &wish.interface)];
    options.extend(singles.into_iter().filter_map(|(key, value)| Some(format!("{key}={}", value.as_ref()?))));
    options.extend(wish.gw_priority.map(|priority| format!("gw-priority={priority}")));
    options.extend(wish.link_local_ips.iter().map(|address| format!("link-local-ip={address}")));
    options.extend(wish.driver_opts.iter().map(|(name, value)| format!("driver-opt={name}={value}")));
    if options.is_empty() { wish.name.clone() } else { format!("{}:{}", wish.name, options.join(",")) }
}

fn parse(text: &str) -> Result<NetworkWish> {
    let plain = |name: &str| NetworkWish { name: name.to_owned(), ..NetworkWish::default() };
    if text.starts_with("container:") || text.starts_with("ns:") {
        return Ok(plain(text));
    }
    // Of docker's form every part has a name, the network's too.
    let before_equals = text.split_once('=').map(|(key, _)| key);
    let (name, options) = match text.split_once(':') {
        Some((name, options)) if before_equals.is_none_or(|key| key.contains(':')) => (name, options),
        _ if before_equals.is_some() => ("", text),
        _ => (text, ""),
    };
    let mut wish = plain(name);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let (key, value) = option
            .split_once('=')
            .ok_or_else(|| Fault::input(format!("\"{option}\" is no option: KEY=VALUE")))?;
        if value.is_empty() {
            return Err(Fault::input(format!("{key}= has no value")));
        }
        put(&mut wish, key, value)?;
    }
    if wish.name.is_empty() {
        return Err(Fault::input("names no network"));
    }
    let mode = matches!(wish.name.as_str(), "none" | "host");
    if mode && wish != plain(&wish.name) {
        return Err(Fault::input(format!("{} has no options", wish.name)));
    }
    if !is_name(&wish.name) {
        return Err(Fault::input(format!("\"{}\" is no network's name", wish.name)));
    }
    Ok(wish)
}

fn put(wish: &mut NetworkWish, key: &str, value: &str) -> Result<()> {
    let value = || value.to_owned();
    match key {
        "name" if wish.name.is_empty() => wish.name = value(),
        "alias" => wish.aliases.push(value()),
        "ip" => set(&mut wish.ip, key, value())?,
        "ip6" => set(&mut wish.ip6, key, value())?,
        "mac" | "mac-address" => set(&mut wish.mac, key, value())?,
        "ifname" | "interface" | "interface_name" => set(&mut wish.interface, key, value())?,
        "link-local-ip" => wish.link_local_ips.push(value()),
        "gw-priority" => {
            let number = value().parse().map_err(|error| Fault::input("gw-priority").because(error))?;
            wish.gw_priority = Some(number);
        }
        "driver-opt" | "opt" => {
            let text = value();
            let (name, of) =
                text.split_once('=').ok_or_else(|| Fault::input(format!("{key}={text}: NAME=VALUE")))?;
            // docker's way to name the interface.
            if name == "com.docker.network.endpoint.ifname" {
                set(&mut wish.interface, name, of.to_owned())?;
            } else {
                wish.driver_opts.insert(name.to_owned(), of.to_owned());
            }
        }
        _ => {
            return Err(Fault::input(format!("there is no option {key}"))
                .hint("name, alias, ip, ip6, mac, ifname, link-local-ip, gw-priority, driver-opt"));
        }
    }
    Ok(())
}

fn set(member: &mut Option<String>, key: &str, value: String) -> Result<()> {
    match member.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::input(format!("{key} is given twice"))),
    }
}

/// What containers, networks and secrets can be called: docker's rule, and short enough for a file's name.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
        && name.len() <= 200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_say_the_same() {
        let docker = "name=web,alias=a,alias=b,ip=10.0.0.5,ip6=fd00::5,mac-address=02:00:00:00:00:05,gw-priority=-2,link-local-ip=169.254.1.1";
        let podman = "web:alias=a,alias=b,ip=10.0.0.5,ip6=fd00::5,mac=02:00:00:00:00:05,gw-priority=-2,link-local-ip=169.254.1.1";
        let wish = network(docker).unwrap();
        assert_eq!(wish, network(podman).unwrap());
        assert_eq!(wish, network(&network_text(&wish)).unwrap());
        assert_eq!(wish.name, "web");
        assert_eq!(wish.aliases, ["a", "b"]);
        assert_eq!(wish.ip6.as_deref(), Some("fd00::5"));
        assert_eq!(wish.gw_priority, Some(-2));
        let names = ["bridge", "none", "host", "container:web", "ns:/run/netns/a=b,c", "private"];
        for name in names {
            assert_eq!(network_text(&network(name).unwrap()), name);
            assert_eq!(network(name).unwrap(), NetworkWish { name: name.into(), ..NetworkWish::default() });
        }
        let wish = network("bridge:ifname=up0,driver-opt=a=b").unwrap();
        assert_eq!(wish.interface.as_deref(), Some("up0"));
        assert_eq!(wish.driver_opts["a"], "b");
        assert_eq!(network_text(&wish), "bridge:ifname=up0,driver-opt=a=b");
        let wish = network("name=a,driver-opt=com.docker.network.endpoint.ifname=x1").unwrap();
        assert_eq!((wish.interface.as_deref(), wish.driver_opts.len()), (Some("x1"), 0));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for wrong in [
            "",
            "alias=a",
            "name=",
            "web:alias",
            "web:colour=red",
            "web:ip=1.1.1.1,ip=1.1.1.2",
            "web:gw-priority=high",
            "web:driver-opt=x",
            "host:ip=10.0.0.1",
            "../web",
            "we b",
            "name=a,name=b",
        ] {
            assert_eq!(network(wrong).unwrap_err().kind(), fault::Kind::Input, "{wrong}");
        }
    }
}
