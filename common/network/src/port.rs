//! Wishes for published ports: docker's `-p` grammar, numbers, objects.

use crate::definition::Definition;
use fault::{Fault, Result};
use record::{Port, PortWish};
use std::net::IpAddr;
use std::ops::RangeInclusive;

const GRAMMAR: &str = "[ip:][host[-range]:]container[-range][/tcp|udp|sctp]";

/// Which ports of the host a wish is content with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostPort {
    /// Any free one.
    Any,
    /// From this on, as many as the container's.
    At(u16),
    /// One free one from this range, ends included.
    Within(u16, u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

/// One port or range to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// `None` means every address of the host; `0.0.0.0` and `::` every one of their family.
    pub address: Option<IpAddr>,
    pub host: HostPort,
    pub container: u16,
    /// At least 1; neither range passes 65535.
    pub count: u16,
    pub protocol: Protocol,
}

impl Protocol {
    pub const fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }

    /// Number of the protocol in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }

    pub fn parse(text: &str) -> Result<Protocol> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Ok(Protocol::Tcp),
            "udp" => Ok(Protocol::Udp),
            "sctp" => Ok(Protocol::Sctp),
            _ => {
                Err(Fault::input(format!("protocol \"{text}\" cannot be published")).hint("tcp, udp or sctp"))
            }
        }
    }
}

impl Wish {
    /// `[[ip:][host[-range]]:]container[-range][/tcp|/udp|/sctp]`, an IPv6 address in brackets.
    pub fn parse(text: &str) -> Result<Wish> {
        parse(text).map_err(|fault| fault.on(text))
    }

    pub fn from_record(wish: &PortWish) -> Result<Wish> {
        match wish {
            PortWish::Text(text) => Wish::parse(text),
            PortWish::Number(port) => Wish::parse(&port.to_string()),
            PortWish::Port(port) => {
                from_object(port).map_err(|fault| fault.on(format!("port {}", port.container)))
            }
        }
    }

    /// Whether `port` is what this asks for.
    pub fn is_met_by(&self, port: &Port) -> bool {
        let host = port.host.unwrap_or(0);
        port.container == self.container
            && port.count.unwrap_or(1) == self.count
            && port.protocol == self.protocol.name()
            && port.ip == self.address.map(|ip| ip.to_string())
            && match self.host {
                HostPort::Any => true,
                HostPort::At(first) => host == first,
                HostPort::Within(first, last) => (first..=last).contains(&host),
            }
    }

    /// What this is once the host's port is known.
    pub fn at(&self, host: u16) -> Port {
        Port {
            ip: self.address.map(|ip| ip.to_string()),
            host: Some(host),
            container: self.container,
            protocol: self.protocol.name().to_owned(),
            count: Some(self.count).filter(|count| *count > 1),
            ..Port::default()
        }
    }

    /// Whether this, from `first` of the host on, has a port in common with another.
    pub fn meets(&self, first: u16, other: &Port) -> bool {
        let theirs = numbers(other);
        other.protocol == self.protocol.name()
            && first <= *theirs.end()
            && *theirs.start() <= first.saturating_add(self.count - 1)
            && meet(self.address, address_of(other).ok().flatten())
    }

    fn overlaps(&self, other: &Wish) -> bool {
        let (HostPort::At(a), HostPort::At(b)) = (self.host, other.host) else { return false };
        self.protocol == other.protocol
            && meet(self.address, other.address)
            && u32::from(a) < u32::from(b) + u32::from(other.count)
            && u32::from(b) < u32::from(a) + u32::from(self.count)
    }
}

/// The ports of the host that a published one takes.
pub fn numbers(port: &Port) -> RangeInclusive<u16> {
    let first = port.host.unwrap_or(0);
    first..=first.saturating_add(port.count.unwrap_or(1).max(1) - 1)
}

/// Where a published port is: `None` on every address. Fails with input for what is no address.
pub fn address_of(port: &Port) -> Result<Option<IpAddr>> {
    let Some(text) = &port.ip else { return Ok(None) };
    text.parse().map(Some).map_err(|error| Fault::input(format!("address \"{text}\"")).because(error))
}

/// Whether what is published at the one is, somewhere, at the other too.
pub fn meet(one: Option<IpAddr>, other: Option<IpAddr>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return true };
    one.is_ipv6() == other.is_ipv6() && (one == other || one.is_unspecified() || other.is_unspecified())
}

/// Ports that are published on a network: those without an address are on the one it has for them.
pub fn bound(network: Option<&Definition>, wishes: &[Wish]) -> Vec<Wish> {
    let binding = network.and_then(|network| network.host_binding);
    wishes.iter().map(|wish| Wish { address: wish.address.or(binding), ..*wish }).collect()
}

/// Whether a network has an address for each of these ports to lead to. Fails with input naming the first that cannot be.
pub fn check_for(network: &Definition, wishes: &[Wish]) -> Result<()> {
    let has = |ipv6: bool| network.pools.iter().any(|pool| pool.subnet.is_ipv6() == ipv6);
    for wish in wishes {
        let Some(address) = wish.address else { continue };
        // A network without subnets has its addresses from elsewhere.
        if !network.pools.is_empty() && !has(address.is_ipv6()) {
            let family = if address.is_ipv6() { "IPv6" } else { "IPv4" };
            return Err(Fault::input(format!(
                "port {wish} would lead to an {family} address, and the network has none"
            ))
            .on(network.name.as_str())
            .hint(format!("publish it on another address, or give the network an {family} subnet")));
        }
    }
    Ok(())
}

impl std::fmt::Display for Wish {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(IpAddr::V4(address)) => write!(f, "{address}:")?,
            Some(IpAddr::V6(address)) => write!(f, "[{address}]:")?,
            None => {}
        }
        match self.host {
            HostPort::At(first) if self.count > 1 => {
                write!(f, "{first}-{}", u32::from(first) + u32::from(self.count) - 1)?;
            }
            HostPort::At(port) => write!(f, "{port}")?,
            HostPort::Within(first, last) => write!(f, "{first}-{last}")?,
            HostPort::Any => write!(f, ":{}", self.container)?,
        }
        write!(f, "/{}", self.protocol.name())
    }
}

/// The record's wishes and the flags', which add to them. A flag that repeats what the record says is one wish.
///
/// Fails when two want the same port of the host.
pub fn merge(record: &[Wish], flags: &[Wish]) -> Result<Vec<Wish>> {
    let mut merged: Vec<Wish> = Vec::with_capacity(record.len() + flags.len());
    for (index, wish) in record.iter().chain(flags).enumerate() {
        if index >= record.len() && record.contains(wish) {
            continue;
        }
        if let Some(other) = merged.iter().find(|other| other.overlaps(wish)) {
            return Err(Fault::input(format!("two wishes for a port of the host: {other} and {wish}")));
        }
        merged.push(*wish);
    }
    Ok(merged)
}

fn parse(text: &str) -> Result<Wish> {
    let (ports, protocol) = match text.rsplit_once('/') {
        Some((ports, protocol)) => (ports, Protocol::parse(protocol)?),
        None => (text, Protocol::Tcp),
    };
    let (address, ports) = match ports.strip_prefix('[') {
        Some(rest) => bracketed(rest)?,
        None if ports.matches(':').count() > 2 => {
            return Err(
                Fault::input("more than two colons").hint(format!("{GRAMMAR}; IPv6 addresses in brackets"))
            );
        }
        None => match ports.rsplitn(3, ':').nth(2) {
            Some(address) => (parse_address(address)?, &ports[address.len() + 1..]),
            None => (None, ports),
        },
    };
    let (host, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (first, last) = range(container)?;
    let count = last - first + 1;
    let host = if host.is_empty() || host == "0" {
        HostPort::Any
    } else if host.parse::<IpAddr>().is_ok() {
        return Err(Fault::input(format!("the address {host} without a port of the host"))
            .hint(format!("{host}::{container} for any free one")));
    } else {
        match range(host)? {
            (from, to) if to - from + 1 == count => HostPort::At(from),
            (from, to) if count == 1 => HostPort::Within(from, to),
            (from, to) => {
                return Err(Fault::input(format!("{from}-{to} are not as many ports as {first}-{last}")));
            }
        }
    };
    Ok(Wish { address, host, container: first, count, protocol })
}

/// What follows a bracket: an IPv6 address, its end, then `host:container` or `:container`.
fn bracketed(rest: &str) -> Result<(Option<IpAddr>, &str)> {
    let parts = rest.split_once("]:").filter(|(_, ports)| ports.matches(':').count() == 1);
    let Some((address, ports)) = parts else {
        return Err(Fault::input("an address in brackets, but not [ip]:[host]:container").hint(GRAMMAR));
    };
    match parse_address(address)? {
        Some(IpAddr::V4(_)) | None => {
            Err(Fault::input(format!("\"{address}\" is no IPv6 address")).hint(GRAMMAR))
        }
        address => Ok((address, ports)),
    }
}

fn from_object(port: &Port) -> Result<Wish> {
    let count = port.count.unwrap_or(1);
    let fits = |first: u16| count > 0 && u32::from(first) + u32::from(count) <= 65536;
    if port.container == 0 || !fits(port.container) || !fits(port.host.unwrap_or(1)) {
        return Err(Fault::input("ports are 1 to 65535"));
    }
    let host = match (port.host.filter(|host| *host != 0), port.host_last) {
        (None, None) => HostPort::Any,
        (Some(host), None) => HostPort::At(host),
        (Some(first), Some(last)) if first < last && count == 1 => HostPort::Within(first, last),
        (Some(first), Some(last)) if first == last && count == 1 => HostPort::At(first),
        _ => {
            return Err(Fault::input("\"host_last\" ends a range that begins with \"host\", for one port"));
        }
    };
    Ok(Wish {
        address: port.ip.as_deref().map(parse_address).transpose()?.flatten(),
        host,
        container: port.container,
        count,
        protocol: Protocol::parse(&port.protocol)?,
    })
}

fn parse_address(text: &str) -> Result<Option<IpAddr>> {
    if text.is_empty() {
        return Ok(None);
    }
    let address = text
        .parse::<IpAddr>()
        .map_err(|_| Fault::input(format!("\"{text}\" is no IP address")).hint(GRAMMAR))?;
    match address.to_canonical() {
        // The kernel routes what comes back to ::1 by the interface it came from, which is not loopback
        // (rt6_need_strict(), net/ipv6/route.c); of IPv4 route_localnet is the way around.
        IpAddr::V6(v6) if v6.is_loopback() => {
            Err(Fault::input("ports of ::1 cannot be published, those of 127.0.0.1 can")
                .hint("the kernel has no route_localnet for IPv6"))
        }
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            Err(Fault::input(format!("{v6} is an address of one link, and of each of them"))
                .hint("publish the port on an address of the host that is not link-local"))
        }
        address if is_of_many(address) => Err(Fault::input(format!("{address} is no address of one host"))
            .hint("publish the port on an address of this host, or without one on all of them")),
        address => Ok(Some(address)),
    }
}

/// Multicast and broadcast: connections to these are not ours to lead anywhere.
fn is_of_many(address: IpAddr) -> bool {
    address.is_multicast() || matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}

fn range(text: &str) -> Result<(u16, u16)> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && !text.starts_with('+') => Ok(port),
        _ => Err(Fault::input(format!("\"{text}\" is no port: 1 to 65535")).hint(GRAMMAR)),
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    if last < first {
        return Err(Fault::input(format!("the range {text} ends before it begins")));
    }
    Ok((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(address: Option<&str>, host: HostPort, container: u16, count: u16, protocol: Protocol) -> Wish {
        Wish { address: address.map(|a| a.parse().unwrap()), host, container, count, protocol }
    }

    #[test]
    fn reads_the_whole_grammar() {
        use HostPort::{Any, At, Within};
        use Protocol::{Sctp, Tcp, Udp};
        let local = Some("127.0.0.1");
        let six = Some("2001:db8::1");
        for (text, expected) in [
            ("80", wish(None, Any, 80, 1, Tcp)),
            ("8080:80", wish(None, At(8080), 80, 1, Tcp)),
            ("8080:80/udp", wish(None, At(8080), 80, 1, Udp)),
            ("8080:80/TCP", wish(None, At(8080), 80, 1, Tcp)),
            ("127.0.0.1:8080:80", wish(local, At(8080), 80, 1, Tcp)),
            ("127.0.0.1::80", wish(local, Any, 80, 1, Tcp)),
            ("127.0.0.1:0:80", wish(local, Any, 80, 1, Tcp)),
            ("0.0.0.0:8080:80", wish(Some("0.0.0.0"), At(8080), 80, 1, Tcp)),
            ("8080:80/sctp", wish(None, At(8080), 80, 1, Sctp)),
            ("[2001:db8::1]:8080:80", wish(six, At(8080), 80, 1, Tcp)),
            ("[2001:db8:0::1]::80/udp", wish(six, Any, 80, 1, Udp)),
            ("[2001:db8::1]:8000-8009:9000-9009", wish(six, At(8000), 9000, 10, Tcp)),
            ("[::]:8080:80", wish(Some("::"), At(8080), 80, 1, Tcp)),
            (":8080:80", wish(None, At(8080), 80, 1, Tcp)),
            (":80", wish(None, Any, 80, 1, Tcp)),
            ("8000-8009:9000-9009", wish(None, At(8000), 9000, 10, Tcp)),
            ("8000-8009:80", wish(None, Within(8000, 8009), 80, 1, Tcp)),
            ("8000-8009", wish(None, Any, 8000, 10, Tcp)),
            ("1-65535:1-65535", wish(None, At(1), 1, 65535, Tcp)),
        ] {
            assert_eq!(Wish::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_port() {
        for text in [
            "",
            ":",
            "x",
            "80:",
            "0",
            "65536",
            "-1",
            "+80",
            "80-",
            "90-80",
            "80:0",
            "80/icmp",
            "80/",
            "[::1]:80:80",
            "::1:80:80",
            "[fe80::1]:80:80",
            "[2001:db8::1]:80",
            "[2001:db8::1]80:80",
            "[2001:db8::1:80:80",
            "[127.0.0.1]:80:80",
            "[::ffff:127.0.0.1]:80:80",
            "[]:80:80",
            "[2001:db8::1]:1:80:80",
            "[[::]]:80:80",
            "1.2.3:80:80",
            "host:80:80",
            "127.0.0.1:80",
            "224.0.0.1:80:80",
            "255.255.255.255:80:80",
            "[ff02::1]:80:80",
            "8000-8001:80-82",
            "80-82:80-81",
            "a:b:c:d",
            " 80",
        ] {
            let fault = Wish::parse(text).unwrap_err();
            assert_eq!(fault.kind(), fault::Kind::Input, "{text}");
        }
    }

    #[test]
    fn objects_and_numbers_say_the_same() {
        let from = |json: &str| Wish::from_record(&serde_json::from_str::<PortWish>(json).unwrap());
        assert_eq!(from("80").unwrap(), Wish::parse("80").unwrap());
        assert_eq!(from("\"53:53/udp\"").unwrap(), Wish::parse("53:53/udp").unwrap());
        let object = r#"{"ip":"127.0.0.1","host":8000,"container":9000,"count":3}"#;
        assert_eq!(from(object).unwrap(), Wish::parse("127.0.0.1:8000-8002:9000-9002").unwrap());
        for wrong in
            [r#"{"container":0}"#, r#"{"container":65535,"count":2}"#, r#"{"container":1,"count":0}"#]
        {
            assert!(from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_port_twice_is_an_error() {
        let wishes = |texts: &[&str]| texts.iter().map(|t| Wish::parse(t).unwrap()).collect::<Vec<_>>();
        let all = |texts: &[&str]| merge(&wishes(texts), &[]);
        assert!(all(&["80:80", "80:80/udp", "81:80", "80", "80"]).is_ok());
        assert!(all(&["127.0.0.1:80:80", "127.0.0.2:80:80"]).is_ok());
        assert!(all(&["0.0.0.0:80:80", "[::]:80:80"]).is_ok());
        for twice in [["0.0.0.0:80:80", "127.0.0.1:80:81"], ["[::]:80:80", "80:80"]] {
            assert_eq!(all(&twice).unwrap_err().kind(), fault::Kind::Input);
        }
        for twice in
            [["80:80", "80:81"], ["80:80", "80:80"], ["127.0.0.1:80:80", "80:80"], ["70-90:70-90", "80:1"]]
        {
            assert_eq!(all(&twice).unwrap_err().kind(), fault::Kind::Input);
        }
        // A flag may repeat the record, not itself.
        assert_eq!(merge(&wishes(&["80:80", "81"]), &wishes(&["80:80", "81", "82"])).unwrap().len(), 3);
        assert!(merge(&[], &wishes(&["80:80", "80:80"])).is_err());
    }

    #[test]
    fn a_network_must_be_able_to_publish_it() {
        let network =
            |json: &str| serde_json::from_str::<crate::definition::File>(json).unwrap().check().unwrap();
        let both = r#""name":"n","driver":"bridge","device":"n0","subnets":[{"subnet":"10.90.0.0/24"}"#;
        let old = network(&format!("{{{both}]}}"));
        let new = network(&format!("{{{both},{{\"subnet\":\"fd00:90::/64\"}}]}}"));
        let may =
            |network: &Definition, text: &str| check_for(network, &[Wish::parse(text).unwrap()]).is_ok();
        assert!(may(&old, "80:80") && may(&old, "127.0.0.1:80:80") && !may(&old, "[::]:80:80"));
        assert!(may(&new, "80:80") && may(&new, "[2001:db8::1]:80:80"));
    }

    #[test]
    fn a_made_port_meets_its_wish() {
        for text in [
            "80",
            "8080:80",
            "8000-8009:9000-9009",
            "8079-8081:80",
            "127.0.0.1:8080:80/udp",
            "[2001:db8::1]:80:80",
        ] {
            let wish = Wish::parse(text).unwrap();
            let host = if let HostPort::At(port) = wish.host { port } else { 8080 };
            assert!(wish.is_met_by(&wish.at(host)), "{text}");
            assert!(!Wish::parse("1:1").unwrap().is_met_by(&wish.at(host)));
        }
    }
}
