//! `hosts` and `resolv.conf` of a container, which are bound over the files in its `/etc`: rewritten in place,
//! because a renamed file would not be the bound one.

use crate::subnet::Subnet;
use fault::{Explain, Result};
use oci::wishes::Resolver;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::IpAddr;
use std::path::Path;

/// docker's choice for hosts that only know a resolver on their own loopback.
const FALLBACK: &str = "nameserver 8.8.8.8\nnameserver 8.8.4.4\n";

const LOCAL_HOSTS: &str = "127.0.0.1\tlocalhost\n\
    ::1\tlocalhost ip6-localhost ip6-loopback\n\
    fe00::\tip6-localnet\n\
    ff00::\tip6-mcastprefix\n\
    ff02::1\tip6-allnodes\n\
    ff02::2\tip6-allrouters\n";

/// The container writes to these files too, and nobody's names take more.
const LONGEST: u64 = 1 << 20;

/// Puts the container's addresses and names into its `hosts`, in the place of those of the same subnets; without addresses
/// takes them out. No file, nothing to do.
pub fn write_hosts(bundle: &Path, subnets: &[Subnet], addresses: &[IpAddr], names: &[&str]) -> Result<()> {
    change(&bundle.join("hosts"), |old| hosts(old, subnets, addresses, names))
}

/// Gives the container its resolvers. No file, nothing to do.
///
/// Those of its networks (`resolvers`) if it is on any with names: what `wished` says of servers is theirs to ask then. Otherwise
/// the host's, those of IPv6 if the container has such addresses; what `wished` says takes the place of the host's.
pub fn write_resolv_conf(bundle: &Path, wished: &Resolver, resolvers: &[IpAddr], ipv6: bool) -> Result<()> {
    change(&bundle.join("resolv.conf"), |_| {
        let host = read_host("/etc/resolv.conf");
        if resolvers.is_empty() {
            let base = resolv_conf(&host, ipv6, || read_host("/run/systemd/resolve/resolv.conf"));
            return wished.apply(&base);
        }
        of_networks(&host, wished, resolvers)
    })
}

/// The host's domains and options, or those wished for, with the networks' resolvers in front.
fn of_networks(host: &str, wished: &Resolver, resolvers: &[IpAddr]) -> String {
    let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
    let kept = host.lines().filter(|line| {
        first(line).is_some_and(|word| matches!(word.as_str(), "search" | "domain" | "options" | "sortlist"))
    });
    let kept = kept.fold(String::new(), |text, line| text + line + "\n");
    let text = Resolver { servers: Vec::new(), ..wished.clone() }.apply(&kept);
    let servers =
        resolvers.iter().fold(String::new(), |text, ip| text + "nameserver " + &ip.to_string() + "\n");
    let is_ndots = |line: &str| {
        first(line).is_some_and(|word| word == "options")
            && line.split_whitespace().any(|word| word.starts_with("ndots:"))
    };
    // A name without a dot is a container's before it is anybody's in a search domain.
    let ndots = if text.lines().any(is_ndots) { "" } else { "options ndots:0\n" };
    servers + &text + ndots
}

fn read_host(path: &str) -> String {
    let mut text = String::new();
    if let Ok(file) = File::open(path) {
        // Half a file is better than no resolver.
        let _ = file.take(LONGEST).read_to_string(&mut text);
    }
    text
}

/// Lines for other addresses stay; ours is the last.
fn hosts(old: &str, subnets: &[Subnet], addresses: &[IpAddr], names: &[&str]) -> String {
    let ours = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = fields.next().and_then(|field| field.parse().ok());
        let of_network = address.is_some_and(|ip| subnets.iter().any(|subnet| subnet.contains(ip)));
        of_network && fields.any(|name| names.contains(&name))
    };
    let mut text = String::with_capacity(old.len() + 256);
    if !old.lines().any(|line| line.split_whitespace().skip(1).any(|name| name == "localhost")) {
        text.push_str(LOCAL_HOSTS);
    }
    for line in old.lines().filter(|line| !ours(line)) {
        text.push_str(line);
        text.push('\n');
    }
    for address in addresses {
        text.extend([&address.to_string(), "\t", &names.join(" "), "\n"]);
    }
    text
}

/// The host's file without name servers the container cannot reach: those on the host's own loopback or one of its links, and
/// those of IPv6 where it has no such address.
fn resolv_conf(host: &str, ipv6: bool, of_systemd: impl FnOnce() -> String) -> String {
    let server = |line: &str| {
        let mut fields = line.split_whitespace();
        (fields.next() == Some("nameserver")).then(|| fields.next().unwrap_or_default().to_owned())
    };
    let reachable = |text: &str| {
        server(text).is_none_or(|ip| match ip.parse() {
            Ok(IpAddr::V4(ip)) => !ip.is_loopback(),
            Ok(IpAddr::V6(ip)) => ipv6 && !ip.is_loopback() && !ip.is_unicast_link_local(),
            // With the name of one of the host's links.
            Err(_) => false,
        })
    };
    let servers = |text: &str| text.lines().any(|line| server(line).is_some() && reachable(line));
    let kept = |text: &str| {
        let lines = text.lines().filter(|line| reachable(line) && !line.trim_start().starts_with(['#', ';']));
        lines.fold(String::new(), |text, line| text + line + "\n")
    };
    if servers(host) {
        return kept(host);
    }
    let of_systemd = of_systemd();
    if servers(&of_systemd) { kept(&of_systemd) } else { kept(host) + FALLBACK }
}

fn change(path: &Path, edit: impl FnOnce(&str) -> String) -> Result<()> {
    let what = || format!("write {}", path.display());
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let mut file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(descriptor) => File::from(descriptor),
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error).explain(what),
    };
    let mut bytes = Vec::new();
    Read::by_ref(&mut file).take(LONGEST).read_to_end(&mut bytes).explain(what)?;
    let old = String::from_utf8_lossy(&bytes);
    let new = edit(&old);
    if new == old {
        return Ok(());
    }
    file.rewind()
        .and_then(|()| file.write_all(new.as_bytes()))
        .and_then(|()| file.set_len(new.len() as u64))
        .explain(what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_one_line_for_the_container() {
        let subnet = &[Subnet::parse("10.89.0.0/16").unwrap()];
        let address = |last| IpAddr::from([10, 89, 0, last]);
        let first = hosts("", subnet, &[address(2)], &["web", "web1"]);
        assert!(first.starts_with("127.0.0.1\tlocalhost\n::1\t"));
        assert!(first.ends_with("10.89.0.2\tweb web1\n"));
        let mine = first.clone() + "10.89.0.9\tdb\n1.2.3.4\tweb";
        let again = hosts(&mine, subnet, &[address(3)], &["web", "web1"]);
        assert!(!again.contains("10.89.0.2\t"));
        assert!(again.contains("10.89.0.9\tdb\n1.2.3.4\tweb\n10.89.0.3\tweb web1\n"));
        assert_eq!(hosts(&first, subnet, &[address(2)], &["web", "web1"]), first);
        assert_eq!(hosts(&first, subnet, &[], &["web"]), LOCAL_HOSTS);
    }

    #[test]
    fn resolvers_the_container_cannot_reach_are_replaced() {
        let none = String::new;
        let host = "# made by\nnameserver 127.0.0.53\nnameserver 10.1.1.1\nnameserver ::1\nsearch a b\noptions edns0\n";
        assert_eq!(resolv_conf(host, false, none), "nameserver 10.1.1.1\nsearch a b\noptions edns0\n");
        let stub = "nameserver 127.0.0.53\nsearch a\n";
        let behind = || "nameserver 9.9.9.9\nsearch b\n".to_owned();
        assert_eq!(resolv_conf(stub, false, behind), "nameserver 9.9.9.9\nsearch b\n");
        assert_eq!(resolv_conf(stub, false, none), "search a\n".to_owned() + FALLBACK);
        assert_eq!(resolv_conf("", false, none), FALLBACK);
    }

    #[test]
    fn name_servers_of_ipv6_are_for_those_who_have_it() {
        let host = "nameserver 2001:db8::1\nnameserver fe80::1\nnameserver fe80::1%eth0\nnameserver ::1\nnameserver 10.1.1.1\n";
        assert_eq!(resolv_conf(host, false, String::new), "nameserver 10.1.1.1\n");
        assert_eq!(resolv_conf(host, true, String::new), "nameserver 2001:db8::1\nnameserver 10.1.1.1\n");
    }

    #[test]
    fn a_network_with_names_is_asked_first() {
        let host = "# x\nnameserver 10.1.1.1\nsearch a b\noptions edns0\n";
        let resolvers = ["10.90.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let servers = "nameserver 10.90.0.1\nnameserver fd00::1\n";
        let conf = |wished: &Resolver| of_networks(host, wished, &resolvers);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let nothing = Resolver::default();
        assert_eq!(conf(&nothing), servers.to_owned() + "search a b\noptions edns0\noptions ndots:0\n");
        let wished = Resolver {
            servers: vec!["9.9.9.9".parse().unwrap()],
            search: words(&["."]),
            options: words(&["ndots:2", "rotate"]),
        };
        assert_eq!(conf(&wished), servers.to_owned() + "options ndots:2 rotate\n");
        assert_eq!(of_networks("", &nothing, &resolvers[..1]), "nameserver 10.90.0.1\noptions ndots:0\n");
    }
}
