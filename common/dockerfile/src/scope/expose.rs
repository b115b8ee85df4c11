//! Ports of `EXPOSE`: `[[ip:]host:]port[-last][/protocol]`, of which the container's part counts.

use crate::lint::Rule;
use crate::{Finding, Lines, Problem, limits};
use std::net::IpAddr;

/// `80/tcp`, ranges written out.
pub fn ports(words: &[String], lines: Lines, findings: &mut Vec<Finding>) -> Result<Vec<String>, Problem> {
    let mut ports = Vec::new();
    for word in words {
        let port = Port::parse(word)?;
        if port.protocol != port.protocol.to_ascii_lowercase() {
            let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
            findings.push(Rule::ExposeProtoCasing.finding(lines, message));
        }
        if port.is_mapping {
            let message = format!(
                "EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'"
            );
            findings.push(Rule::ExposeInvalidFormat.finding(lines, message));
        }
        if ports.len() + usize::from(port.last - port.first) >= limits::PORTS {
            return Err(Problem::new("EXPOSE has more ports than there are"));
        }
        let protocol = port.protocol.to_ascii_lowercase();
        ports.extend((port.first..=port.last).map(|number| format!("{number}/{protocol}")));
    }
    Ok(ports)
}

struct Port<'a> {
    first: u16,
    last: u16,
    protocol: &'a str,
    is_mapping: bool,
}

impl Port<'_> {
    fn parse(word: &str) -> Result<Port<'_>, Problem> {
        let bad = |what: &str| {
            Problem::new(format!("EXPOSE {}: {what}", crate::problem::shorten(word)))
                .hint("a port or a range, a protocol: 80, 8000-8010/udp")
        };
        let (host, container) = word.rsplit_once(':').unwrap_or(("", word));
        let (address, host) = host.rsplit_once(':').unwrap_or(("", host));
        let (range, protocol) = container.split_once('/').unwrap_or((container, ""));
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        if !matches!(protocol.to_ascii_lowercase().as_str(), "tcp" | "udp" | "sctp") {
            return Err(bad("the protocol is tcp, udp or sctp"));
        }
        let (first, last) = self::range(range).ok_or_else(|| bad("no port from 0 to 65535"))?;
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
            return Err(bad("malformed IP address"));
        }
        if !host.is_empty() {
            let (host_first, host_last) =
                self::range(host).ok_or_else(|| bad("malformed port of the host"))?;
            if first != last && host_last - host_first != last - first {
                return Err(bad("the ranges differ in length"));
            }
        }
        Ok(Port { first, last, protocol, is_mapping: !address.is_empty() || !host.is_empty() })
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| {
        let digits = text.strip_prefix('+').unwrap_or(text);
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last),
    }
}
