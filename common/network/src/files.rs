//! `hosts` and `resolv.conf` of a container, which are bound over the files in its `/etc`: rewritten in place,
//! because a renamed file would not be the bound one.

use crate::definition::Subnet;
use fault::{Explain, Result};
use oci::wishes::Resolver;
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{IpAddr, Ipv4Addr};
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

/// Puts the container's address and names into its `hosts`, or takes them out. No file, nothing to do.
pub fn write_hosts(bundle: &Path, subnet: Subnet, address: Option<Ipv4Addr>, names: &[&str]) -> Result<()> {
    change(&bundle.join("hosts"), |old| hosts(old, subnet, address, names))
}

/// Gives the container the host's resolvers. No file, nothing to do.
///
/// What `wished` says takes the place of the host's.
pub fn write_resolv_conf(bundle: &Path, wished: &Resolver) -> Result<()> {
    change(&bundle.join("resolv.conf"), |_| {
        let host = read_host("/etc/resolv.conf");
        wished.apply(&resolv_conf(&host, || read_host("/run/systemd/resolve/resolv.conf")))
    })
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
fn hosts(old: &str, subnet: Subnet, address: Option<Ipv4Addr>, names: &[&str]) -> String {
    let ours = |line: &str| {
        let mut fields = line.split_whitespace();
        let of_network = fields.next().and_then(|f| f.parse().ok()).is_some_and(|ip| subnet.contains(ip));
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
    if let Some(address) = address {
        text.extend([&address.to_string(), "\t", &names.join(" "), "\n"]);
    }
    text
}

/// The host's file without name servers the container cannot reach: those on the host's own loopback, and IPv6
/// ones, as there is no way out for IPv6.
fn resolv_conf(host: &str, of_systemd: impl FnOnce() -> String) -> String {
    let server = |line: &str| {
        let mut fields = line.split_whitespace();
        (fields.next() == Some("nameserver")).then(|| fields.next().unwrap_or_default().to_owned())
    };
    let reachable = |text: &str| {
        server(text)
            .is_none_or(|ip| ip.parse().is_ok_and(|ip| matches!(ip, IpAddr::V4(v4) if !v4.is_loopback())))
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
        let subnet = Subnet::parse("10.89.0.0/16").unwrap();
        let address = |last| Some(Ipv4Addr::new(10, 89, 0, last));
        let first = hosts("", subnet, address(2), &["web", "web1"]);
        assert!(first.starts_with("127.0.0.1\tlocalhost\n::1\t"));
        assert!(first.ends_with("10.89.0.2\tweb web1\n"));
        let mine = first.clone() + "10.89.0.9\tdb\n1.2.3.4\tweb";
        let again = hosts(&mine, subnet, address(3), &["web", "web1"]);
        assert!(!again.contains("10.89.0.2\t"));
        assert!(again.contains("10.89.0.9\tdb\n1.2.3.4\tweb\n10.89.0.3\tweb web1\n"));
        assert_eq!(hosts(&first, subnet, address(2), &["web", "web1"]), first);
        assert_eq!(hosts(&first, subnet, None, &["web"]), LOCAL_HOSTS);
    }

    #[test]
    fn resolvers_the_container_cannot_reach_are_replaced() {
        let none = String::new;
        let host = "# made by\nnameserver 127.0.0.53\nnameserver 10.1.1.1\nnameserver ::1\nsearch a b\noptions edns0\n";
        assert_eq!(resolv_conf(host, none), "nameserver 10.1.1.1\nsearch a b\noptions edns0\n");
        let stub = "nameserver 127.0.0.53\nsearch a\n";
        let behind = || "nameserver 9.9.9.9\nsearch b\n".to_owned();
        assert_eq!(resolv_conf(stub, behind), "nameserver 9.9.9.9\nsearch b\n");
        assert_eq!(resolv_conf(stub, none), "search a\n".to_owned() + FALLBACK);
        assert_eq!(resolv_conf("", none), FALLBACK);
    }
}
