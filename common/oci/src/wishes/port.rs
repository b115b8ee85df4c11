//! `-p`: `[ip:][host[-range]:]container[-range][/tcp|udp|sctp]`.

use fault::{Fault, Result};
use record::{Port, PortWish};
use std::net::IpAddr;

/// A published port or range from any of the forms a record takes.
pub fn port(wish: &PortWish) -> Result<Port> {
    match wish {
        PortWish::Text(text) => parse_port(text),
        PortWish::Number(0) => Err(Fault::input("port 0 cannot be published")),
        PortWish::Number(number) => {
            Ok(Port { container: *number, protocol: "tcp".to_owned(), ..Port::default() })
        }
        PortWish::Port(port) => {
            check(port).map_err(|fault| fault.within(format!("port {}", port.container)))?;
            Ok(port.clone())
        }
    }
}

/// The grammar of `-p`.
pub fn parse_port(text: &str) -> Result<Port> {
    let wrong = |why: &str| {
        Fault::input(format!("\"{text}\" is not a port to publish: {why}")).hint(
            "[ip:][host[-last]:]container[-last][/tcp|udp|sctp]: 8080:80, 127.0.0.1:53:53/udp, 8000-8009:80-89",
        )
    };
    let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (ip, ports) = split_address(rest).ok_or_else(|| wrong("the address is not closed by \"]:\""))?;
    let (host, container) = match (ip, ports.split_once(':')) {
        (_, Some((host, container))) => (host, container),
        (None, None) => ("", ports),
        (Some(_), None) => {
            return Err(wrong(
                "after an address a host port or nothing, a colon, and a container port are needed",
            ));
        }
    };
    let (first, last) = range(container)
        .ok_or_else(|| wrong("the container port is not a number from 1 to 65535 or a range of them"))?;
    let (host, host_last) = match host {
        // As docker has it, any.
        "" | "0" => (None, None),
        host => {
            let (host_first, host_last) = range(host)
                .ok_or_else(|| wrong("the host port is not a number from 1 to 65535 or a range of them"))?;
            match host_last - host_first {
                more if more == last - first => (Some(host_first), None),
                // One of them is enough.
                _ if first == last => (Some(host_first), Some(host_last)),
                _ => return Err(wrong("the two ranges differ in length")),
            }
        }
    };
    let port = Port {
        ip: ip.map(str::to_owned),
        host,
        host_last,
        container: first,
        protocol,
        count: if last > first { Some(last - first + 1) } else { None },
        extra: record::Extra::default(),
    };
    check(&port).map_err(|fault| wrong(&fault.to_string()))?;
    Ok(port)
}

/// The address before the ports, IPv6 in brackets.
fn split_address(text: &str) -> Option<(Option<&str>, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, ports) = rest.split_once("]:")?;
        return Some((Some(ip), ports));
    }
    match text.split(':').count() {
        3 => text.split_once(':').map(|(ip, ports)| (Some(ip).filter(|ip| !ip.is_empty()), ports)),
        _ => Some((None, text)),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse::<u16>().ok())
            .flatten()
            .filter(|n| *n > 0)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

fn check(port: &Port) -> Result<()> {
    if port.container == 0 || port.host == Some(0) {
        return Err(Fault::input("ports go from 1 to 65535"));
    }
    if port.host_last.is_some_and(|last| port.host.is_none_or(|first| last < first)) {
        return Err(Fault::input("\"host_last\" is the end of a range that begins with \"host\""));
    }
    if port.host_last.is_some() && port.count.unwrap_or(1) > 1 {
        return Err(Fault::input("any port of a range is for one port of the container, not for several"));
    }
    let count = u32::from(port.count.unwrap_or(1));
    let highest = u32::from(port.container.max(port.host.unwrap_or(0)));
    if count == 0 || highest + count - 1 > 65535 {
        return Err(Fault::input(format!("a range of {count} ports does not fit")));
    }
    if !matches!(port.protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Fault::input(format!("the protocol \"{}\" is not tcp, udp or sctp", port.protocol)));
    }
    if let Some(ip) = &port.ip
        && ip.parse::<IpAddr>().is_err()
    {
        return Err(Fault::input(format!("\"{ip}\" is not an address")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_free_port_of_a_range() {
        let port = parse_port("127.0.0.1:8100-8102:80").unwrap();
        assert_eq!(
            (port.host, port.host_last, port.container, port.count),
            (Some(8100), Some(8102), 80, None)
        );
        assert_eq!(parse_port("8100-8100:80").unwrap().host_last, None);
        assert!(parse_port("8100-8103:80-81").is_err() && parse_port("8102-8100:80").is_err());
        for wrong in [(None, 1, None), (Some(9), 8, None), (Some(8), 9, Some(2))] {
            let (host, last, count) = wrong;
            let port = Port {
                host,
                host_last: Some(last),
                container: 80,
                protocol: "tcp".into(),
                count,
                ..Port::default()
            };
            assert!(super::port(&PortWish::Port(port)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_grammar() {
        for (text, ip, host, container, count, protocol) in [
            ("80", None, None, 80, None, "tcp"),
            ("8080:80", None, Some(8080), 80, None, "tcp"),
            ("8080:80/udp", None, Some(8080), 80, None, "udp"),
            ("8080:80/sctp", None, Some(8080), 80, None, "sctp"),
            ("8080:80/TCP", None, Some(8080), 80, None, "tcp"),
            ("127.0.0.1:8080:80", Some("127.0.0.1"), Some(8080), 80, None, "tcp"),
            ("127.0.0.1::80", Some("127.0.0.1"), None, 80, None, "tcp"),
            ("[::1]:8080:80", Some("::1"), Some(8080), 80, None, "tcp"),
            ("8000-8009:80-89", None, Some(8000), 80, Some(10), "tcp"),
            ("80-89", None, None, 80, Some(10), "tcp"),
            ("::80", None, None, 80, None, "tcp"),
            ("0:80", None, None, 80, None, "tcp"),
            ("127.0.0.1:0:80", Some("127.0.0.1"), None, 80, None, "tcp"),
        ] {
            let port = parse_port(text).unwrap();
            assert_eq!(
                (port.ip.as_deref(), port.host, port.container, port.count, port.protocol.as_str()),
                (ip, host, container, count, protocol),
                "{text}"
            );
        }
        for text in [
            "",
            ":",
            "0",
            "80:0",
            "65536",
            "80/icmp",
            "a:80",
            "8000-8002:80-81",
            "9-8",
            "1:2:3:4",
            "[::1]",
            "[::1]:80",
            "256.0.0.1:1:1",
            "+80",
            "80-",
            "-80",
            "65530-65535:65535-65540",
            "1:2:3/x/y",
        ] {
            assert!(parse_port(text).is_err(), "{text}");
        }
        assert!(port(&PortWish::Number(0)).is_err());
        assert!(port(&PortWish::Port(Port { container: 1, ..Port::default() })).is_err());
    }
}
