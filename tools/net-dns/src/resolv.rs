//! The name servers of `resolv.conf` (resolv.conf(5)).

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

const PORT: u16 = 53;

/// As many as the C library asks (MAXNS).
const MOST_SERVERS: usize = 3;

const LONGEST: u64 = 64 << 10;

/// The host's name servers, read again when the file is another one.
#[derive(Debug)]
pub struct HostServers {
    path: PathBuf,
    version: Option<Version>,
    servers: Vec<SocketAddr>,
}

/// Device, inode, and time of the last change.
type Version = (u64, u64, i64, i64);

impl HostServers {
    pub fn new(path: impl Into<PathBuf>) -> HostServers {
        HostServers { path: path.into(), version: None, servers: default_servers() }
    }

    pub fn current(&mut self) -> &[SocketAddr] {
        // A look at the file costs less than what is going to be sent. A link is followed: systemd-resolved replaces what it leads to.
        let version = std::fs::metadata(&self.path)
            .ok()
            .map(|file| (file.dev(), file.ino(), file.ctime(), file.ctime_nsec()));
        if version != self.version {
            self.version = version;
            let mut text = Vec::new();
            if let Ok(file) = File::open(&self.path) {
                // Half a file is better than no name server.
                let _ = file.take(LONGEST).read_to_end(&mut text);
            }
            self.servers = servers(&String::from_utf8_lossy(&text));
        }
        &self.servers
    }
}

/// What the C library asks when it is told of none.
fn default_servers() -> Vec<SocketAddr> {
    vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))]
}

pub fn servers(text: &str) -> Vec<SocketAddr> {
    let of_line = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        (fields.next() == Some("nameserver")).then(|| fields.next()).flatten().and_then(server)
    };
    let servers: Vec<_> = text.lines().filter_map(of_line).take(MOST_SERVERS).collect();
    if servers.is_empty() { default_servers() } else { servers }
}

/// `192.0.2.1`, `2001:db8::1`, `fe80::1%eth0` or with the interface's number behind the sign.
pub fn server(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::from((address, PORT)));
    }
    let (address, scope) = text.split_once('%')?;
    let address: Ipv6Addr = address.parse().ok()?;
    let scope = scope.parse().ok().or_else(|| index_of(scope))?;
    Some(SocketAddr::V6(SocketAddrV6::new(address, PORT, 0, scope)))
}

/// The number of one of the host's interfaces.
pub fn index_of(interface: &str) -> Option<u32> {
    let any = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    rustix::net::netdevice::name_to_index(any.ok()?, interface).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_of_a_file() {
        let text = "# nameserver 1.1.1.1\nsearch a\nnameserver 9.9.9.9 x\nnameserver\nnameserver nonsense\n\tnameserver ::1\n";
        let found: Vec<_> = servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["9.9.9.9:53", "[::1]:53"]);
        assert_eq!(servers("nameserver fe80::1%7")[0].to_string(), "[fe80::1%7]:53");
        assert_eq!(servers("nameserver fe80::1%lo")[0].to_string(), "[fe80::1%1]:53");
        assert_eq!(servers("nameserver fe80::1%no-such-one"), default_servers());
        assert_eq!(servers(&"nameserver 1.1.1.1\n".repeat(5)).len(), 3);
    }

    #[test]
    fn a_changed_file_is_seen() {
        let path = std::env::temp_dir().join(format!("net-dns-resolv-{}", std::process::id()));
        let mut host = HostServers::new(&path);
        assert_eq!(host.current(), default_servers());
        std::fs::write(&path, "nameserver 192.0.2.1\n").unwrap();
        assert_eq!(host.current()[0].to_string(), "192.0.2.1:53");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(host.current(), default_servers());
    }
}
