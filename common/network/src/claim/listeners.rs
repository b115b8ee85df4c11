//! Programs of the host that have a port.

use crate::definition::Definition;
use crate::port::{Protocol, Wish};
use fault::{Explain, Fault, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, ipproto, socket_with};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use store::Store;

/// Where resolvers listen.
const RESOLVER: u16 = 53;

/// A bound socket would not see what the firewall sends past it, so both sides ask before.
pub(super) fn nobody_listens(store: &Store, wish: &Wish, port: u16) -> Result<()> {
    let every = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let addresses = wish.address.as_ref().map_or(&every[..], std::slice::from_ref);
    for address in addresses {
        let at = SocketAddr::new(*address, port);
        match try_bind(wish.protocol, at) {
            Err(Errno::ADDRINUSE)
                if address.is_unspecified() && is_only_resolvers(store, wish.protocol, *address, port) => {}
            Err(Errno::ADDRINUSE) => {
                let who = listener(wish.protocol.name(), port).map_or_else(
                    || "in use on the host".to_owned(),
                    |(pid, name)| format!("in use by process {pid} ({name}) of the host"),
                );
                return Err(Fault::conflict(format!("{port} is {who}"))
                    .hint("choose another port, or stop that program"));
            }
            // Without a family or a protocol in the kernel nobody can listen either.
            Ok(()) | Err(Errno::AFNOSUPPORT | Errno::PROTONOSUPPORT | Errno::SOCKTNOSUPPORT) => {}
            Err(Errno::ADDRNOTAVAIL) if address.is_unspecified() => {}
            Err(Errno::ADDRNOTAVAIL) => {
                return Err(Fault::input(format!("{address} is no address of this host")).hint(
                    "`ip address` lists those it has; without an address a port is published on all of them",
                ));
            }
            Err(error) => return Err(error).explain(|| format!("bind {at}")),
        }
    }
    Ok(())
}

fn try_bind(protocol: Protocol, at: SocketAddr) -> std::result::Result<(), Errno> {
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, None),
        Protocol::Udp => (SocketType::DGRAM, None),
        Protocol::Sctp => (SocketType::STREAM, Some(ipproto::SCTP)),
    };
    let family = if at.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, number)?;
    if at.is_ipv6() {
        // Each family is asked for by itself.
        set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // As a server would: waiting ends of old connections are no hindrance, listening sockets are.
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &at)
}

/// Whether nobody but the resolvers of networks has this port. They have it at their bridges' addresses, for the containers there,
/// whose questions our rules lead nowhere else.
fn is_only_resolvers(store: &Store, protocol: Protocol, family: IpAddr, port: u16) -> bool {
    if port != RESOLVER {
        return false;
    }
    let names = store.networks().unwrap_or_default();
    let networks = names.iter().filter_map(|name| Definition::preview(store, name).ok());
    let gateways: Vec<IpAddr> = networks
        .filter(|(network, _)| network.dns.enabled)
        .flat_map(|(network, _)| network.pools.into_iter().map(|pool| pool.gateway))
        .collect();
    let version = if family.is_ipv6() { "6" } else { "" };
    let table =
        std::fs::read_to_string(format!("/proc/net/{}{version}", protocol.name())).unwrap_or_default();
    let at = bound(&table, protocol, port);
    !at.is_empty() && at.iter().all(|address| gateways.contains(address))
}

/// The addresses that are bound at a port, of a table of sockets as `/proc/net` has them.
fn bound(table: &str, protocol: Protocol, port: u16) -> Vec<IpAddr> {
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, number) = fields.get(1)?.rsplit_once(':')?;
        let is_there = protocol != Protocol::Tcp || *fields.get(3)? == "0A";
        (is_there && u16::from_str_radix(number, 16) == Ok(port)).then(|| address.to_owned())
    };
    // What cannot be read is somebody else's.
    let parse = |text: String| address_of_hex(&text).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    table.lines().skip(1).filter_map(of_line).map(parse).collect()
}

/// Each four bytes of an address are a number of this machine's order.
fn address_of_hex(text: &str) -> Option<IpAddr> {
    let fours = text
        .as_bytes()
        .chunks(8)
        .map(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
    let bytes: Vec<u8> =
        fours.collect::<Option<Vec<u32>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => Some(Ipv4Addr::from(four).into()),
        Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
    }
}

/// The process that has a port, looked for only to name it in an error.
fn listener(protocol: &str, port: u16) -> Option<(u32, String)> {
    let sockets: Vec<String> = ["", "6"]
        .iter()
        .filter_map(|version| std::fs::read_to_string(format!("/proc/net/{protocol}{version}")).ok())
        .flat_map(|table| {
            let of_port = table.lines().skip(1).filter_map(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (_, local) = fields.get(1)?.rsplit_once(':')?;
                // 0A is LISTEN, 07 an unconnected UDP socket.
                let listens = matches!(*fields.get(3)?, "0A" | "07");
                let here = u16::from_str_radix(local, 16) == Ok(port);
                (here && listens).then(|| format!("socket:[{}]", fields.get(9).unwrap_or(&"")))
            });
            of_port.collect::<Vec<_>>()
        })
        .collect();
    let has_one = |pid: u32| -> io::Result<bool> {
        Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.flatten().any(|fd| {
            std::fs::read_link(fd.path()).is_ok_and(|to| sockets.iter().any(|socket| to == Path::new(socket)))
        }))
    };
    let pids =
        std::fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(|pid| has_one(*pid).unwrap_or(false))?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some((pid, name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_told_by_their_addresses() {
        let four = format!("{:08X}", u32::from_ne_bytes([10, 89, 0, 1]));
        let six = [0xfd00_0089u32, 0, 0, 1]
            .map(|part| format!("{:08X}", u32::from_ne_bytes(part.to_be_bytes())))
            .concat();
        let table = format!(
            "  sl  local_address\n 0: {four}:0035 00000000:0000 07 0\n 1: {six}:0035 0:0 0A 0\n 2: x:0035 0:0 0A\n 3: {four}:0036 0:0 07\n"
        );
        let of = |protocol| bound(&table, protocol, 53).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of(Protocol::Udp), ["10.89.0.1", "fd00:89::1", "0.0.0.0"]);
        assert_eq!(of(Protocol::Tcp), ["fd00:89::1", "0.0.0.0"]);
    }
}
