//! Names: domains, what goes into `/etc/hosts` and `/etc/resolv.conf`, time zones, exposed ports.

use fault::{Fault, Result};
use record::Config;
use std::net::IpAddr;

/// What `--add-host` says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostAddress {
    Is(IpAddr),
    /// The host, as the container sees it.
    Gateway,
}

/// `NAME:ADDRESS`, `NAME=ADDRESS`, `NAME:host-gateway`; several names have `;` between them, as podman's.
pub fn add_host(text: &str) -> Result<(Vec<String>, HostAddress)> {
    let wrong = |why: &str| {
        Fault::input(format!("\"{text}\" is not a host and its address: {why}"))
            .hint("as db:10.0.0.2, or host.internal:host-gateway")
    };
    // An IPv6 address has colons too, so the first one separates.
    let at = text.find([':', '=']).ok_or_else(|| wrong("there is no \":\""))?;
    let (names, address) = (&text[..at], &text[at + 1..]);
    let plain = |name: &str| {
        !name.is_empty()
            && name.len() <= 253
            && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#')
    };
    let names: Vec<String> = names.split(';').map(str::to_owned).collect();
    if !names.iter().all(|name| plain(name)) {
        return Err(wrong("the name is none"));
    }
    let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    match address {
        "host-gateway" => Ok((names, HostAddress::Gateway)),
        address => Ok((names, HostAddress::Is(address.parse().map_err(|_| wrong("the address is none"))?))),
    }
}

/// A name server.
pub fn name_server(text: &str) -> Result<IpAddr> {
    text.trim().parse().map_err(|_| Fault::input(format!("\"{text}\" is not the address of a name server")))
}

/// A domain to search, or `.` for none.
pub fn search_domain(text: &str) -> Result<String> {
    let text = text.trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.len() <= 253 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Fault::input(format!("\"{text}\" is not a domain")))
}

/// An option of resolv.conf(5).
pub fn resolver_option(text: &str) -> Result<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ':' | '.');
    if !text.is_empty() && text.len() <= 64 && text.chars().all(plain) {
        return Ok(text.to_owned());
    }
    Err(Fault::input(format!("\"{text}\" is not an option of resolv.conf"))
        .hint("as ndots:2, see resolv.conf(5)"))
}

/// What is wished for `/etc/resolv.conf`; what is empty is the host's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<IpAddr>,
    pub search: Vec<String>,
    pub options: Vec<String>,
}

impl Resolver {
    pub fn parse(config: &Config) -> Result<Resolver> {
        Ok(Resolver {
            servers: config.dns.iter().map(|text| name_server(text)).collect::<Result<_>>()?,
            search: config.dns_search.iter().map(|text| search_domain(text)).collect::<Result<_>>()?,
            options: config.dns_option.iter().map(|text| resolver_option(text)).collect::<Result<_>>()?,
        })
    }

    /// What `wished` says, and this where it says nothing.
    #[must_use]
    pub fn unless(self, wished: Resolver) -> Resolver {
        let or = |wished: Vec<String>, this| if wished.is_empty() { this } else { wished };
        Resolver {
            servers: if wished.servers.is_empty() { self.servers } else { wished.servers },
            search: or(wished.search, self.search),
            options: or(wished.options, self.options),
        }
    }

    /// A resolv.conf with what is wished for in place of what it has of that kind.
    pub fn apply(&self, base: &str) -> String {
        let replaced = |line: &str| match line.split_whitespace().next() {
            Some("nameserver") => !self.servers.is_empty(),
            Some("search" | "domain") => !self.search.is_empty(),
            Some("options") => !self.options.is_empty(),
            _ => false,
        };
        let mut text = String::with_capacity(base.len() + 64);
        for line in base.lines().filter(|line| !replaced(line)) {
            text.push_str(line);
            text.push('\n');
        }
        for server in &self.servers {
            text.extend(["nameserver ", &server.to_string(), "\n"]);
        }
        let search: Vec<&str> = self.search.iter().map(String::as_str).filter(|name| *name != ".").collect();
        if !search.is_empty() {
            text.extend(["search ", &search.join(" "), "\n"]);
        }
        if !self.options.is_empty() {
            text.extend(["options ", &self.options.join(" "), "\n"]);
        }
        text
    }
}

/// Lines of `/etc/hosts` for those whose addresses are known.
pub fn host_lines(hosts: &[(Vec<String>, HostAddress)]) -> Vec<String> {
    let line = |(names, address): &(Vec<String>, HostAddress)| match address {
        HostAddress::Is(address) => Some(format!("{address}\t{}", names.join(" "))),
        HostAddress::Gateway => None,
    };
    hosts.iter().filter_map(line).collect()
}

/// Names that stand for the host.
pub fn gateway_names(hosts: &[(Vec<String>, HostAddress)]) -> Vec<String> {
    let of_gateway = hosts.iter().filter(|(_, address)| *address == HostAddress::Gateway);
    of_gateway.flat_map(|(names, _)| names.clone()).collect()
}

/// A name below zoneinfo, or `local`.
pub fn time_zone(text: &str) -> Result<String> {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+' | b'.'))
    };
    if text.len() <= 128 && text.split('/').all(part) {
        return Ok(text.to_owned());
    }
    Err(Fault::input(format!("\"{text}\" is not a time zone")).hint("as Europe/Paris, or local"))
}

/// An exposed port: number, protocol. `80`, `53/udp`; ranges become several.
pub fn exposed(text: &str) -> Result<Vec<(u16, String)>> {
    let wrong = || Fault::input(format!("\"{text}\" is not a port")).hint("as 80, 53/udp, 8000-8010");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(wrong());
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0).ok_or_else(wrong);
    let (first, last) = (number(first)?, number(last)?);
    if first > last {
        return Err(wrong());
    }
    Ok((first..=last).map(|number| (number, protocol.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let names = |text: &str| add_host(text).unwrap();
        assert_eq!(names("db:10.0.0.2"), (vec!["db".into()], HostAddress::Is("10.0.0.2".parse().unwrap())));
        assert_eq!(names("a;b:::1"), (vec!["a".into(), "b".into()], HostAddress::Is("::1".parse().unwrap())));
        assert_eq!(names("x=[::1]").1, HostAddress::Is("::1".parse().unwrap()));
        assert_eq!(names("h:host-gateway").1, HostAddress::Gateway);
        for wrong in ["", "db", "db:", ":1.2.3.4", "d b:1.2.3.4", "db:x", "a\nb:1.2.3.4", "a;:1.1.1.1"] {
            assert!(add_host(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn resolvers_take_the_place_of_the_hosts() {
        let config = r#"{"dns":["9.9.9.9"],"dns_search":["a.b"]}"#;
        let resolver = Resolver::parse(&serde_json::from_str(config).unwrap()).unwrap();
        let base = "nameserver 1.1.1.1\nsearch x\noptions edns0\n";
        assert_eq!(resolver.apply(base), "options edns0\nnameserver 9.9.9.9\nsearch a.b\n");
        let none = Resolver { search: vec![".".into()], ..Resolver::default() };
        assert_eq!(none.apply(base), "nameserver 1.1.1.1\noptions edns0\n");
        assert_eq!(Resolver::default().apply(base), base);
        let hosts = [add_host("a:1.2.3.4").unwrap(), add_host("h;i:host-gateway").unwrap()];
        assert_eq!(host_lines(&hosts), ["1.2.3.4\ta"]);
        assert_eq!(gateway_names(&hosts), ["h", "i"]);
    }

    #[test]
    fn the_rest() {
        assert!(name_server("9.9.9.9").is_ok() && name_server("x").is_err());
        assert!(
            search_domain(".").is_ok() && search_domain("a b").is_err() && search_domain("a\nb").is_err()
        );
        assert!(resolver_option("ndots:2").is_ok() && resolver_option("a b").is_err());
        assert!(time_zone("Europe/Paris").is_ok() && time_zone("Etc/GMT+1").is_ok());
        for wrong in ["", "/etc/passwd", "../x", "a//b", "a/..", "a b"] {
            assert!(time_zone(wrong).is_err(), "{wrong}");
        }
        assert_eq!(exposed("80").unwrap(), [(80, "tcp".to_owned())]);
        assert_eq!(exposed("53-54/UDP").unwrap().len(), 2);
        for wrong in ["", "0", "80/x", "9-8", "70000", "a"] {
            assert!(exposed(wrong).is_err(), "{wrong}");
        }
    }
}
