//! What is taken already: subnets and interface names, of our networks and of the host.

use crate::definition::{DEFAULT, Definition, File};
use crate::link::{self, ROUTE_HEADER, RTA_OIF};
use crate::netlink::{DUMP, Messages, Reply, Socket, attribute};
use crate::routed;
use crate::subnet::Subnet;
use fault::{Explain, Fault, Result};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::AddressMessage;
use rtnetlink::packet_route::route::RouteMessage;
use std::collections::HashSet;
use std::net::IpAddr;
use store::Store;

// linux/rtnetlink.h, linux/if_addr.h
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const ADDRESS_HEADER: usize = 8;
const RTA_DST: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTN_UNICAST: u8 = 1;
const RTN_BLACKHOLE: u8 = 6;
const RTN_PROHIBIT: u8 = 8;
const RT_TABLE_LOCAL: u8 = 255;
const RTM_F_CLONED: u32 = 0x200;

/// Wider routes are ways out, as the default route and those by which VPNs stand in for it (0.0.0.0/1, 2000::/3).
const WIDEST: u8 = 8;

/// Part of the addresses the host reaches by an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reached {
    pub subnet: Subnet,
    /// The interface's index, where there is one.
    pub by: Option<u32>,
}

/// Subnets the host has addresses in or routes to.
pub fn reached(route: &Socket) -> Result<Vec<Reached>> {
    let dump = |message| {
        let mut messages = Messages::new();
        messages.push_route(DUMP, message);
        route.ask(&messages)
    };
    let addresses = dump(Message::GetAddress(AddressMessage::default()))
        .explain(|| "list the host's addresses".into())?;
    let routes =
        dump(Message::GetRoute(RouteMessage::default())).explain(|| "list the host's routes".into())?;
    Ok(addresses.iter().filter_map(of_address).chain(routes.iter().filter_map(of_route)).collect())
}

fn of_address(reply: &Reply) -> Option<Reached> {
    let prefix = *reply.body.get(1).filter(|_| reply.kind == NEW_ADDRESS)?;
    let index = u32::from_ne_bytes(reply.body.get(4..8)?.try_into().ok()?);
    let attributes = reply.body.get(ADDRESS_HEADER..)?;
    let address = ip(attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?)?;
    seen(Subnet::around(address, prefix), Some(index))
}

fn of_route(reply: &Reply) -> Option<Reached> {
    let header = reply.body.get(..ROUTE_HEADER).filter(|_| reply.kind == NEW_ROUTE)?;
    let (prefix, table, kind) = (header[1], header[4], header[7]);
    let flags = u32::from_ne_bytes(header.get(8..12)?.try_into().ok()?);
    let counts = kind == RTN_UNICAST || (RTN_BLACKHOLE..=RTN_PROHIBIT).contains(&kind);
    if !counts || table == RT_TABLE_LOCAL || flags & RTM_F_CLONED != 0 || prefix < WIDEST {
        return None;
    }
    let attributes = reply.body.get(ROUTE_HEADER..)?;
    let by =
        attribute(attributes, RTA_OIF).and_then(|index| Some(u32::from_ne_bytes(index.try_into().ok()?)));
    seen(Subnet::around(ip(attribute(attributes, RTA_DST)?)?, prefix), by)
}

/// Link-local addresses of IPv6 are on every interface.
fn seen(subnet: Subnet, by: Option<u32>) -> Option<Reached> {
    let everywhere =
        matches!(subnet.base(), IpAddr::V6(v6) if v6.is_unicast_link_local() || v6.is_multicast());
    (!everywhere).then_some(Reached { subnet, by })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

/// All that a new network must keep clear of.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Of our other networks, by name.
    pub networks: Vec<(String, Subnet)>,
    pub host: Vec<Subnet>,
    /// Name servers of the host: none of them may come to lie in a subnet that is chosen.
    pub servers: Vec<Subnet>,
    pub devices: HashSet<String>,
    /// Networks whose definition cannot be read, and why: what they have taken is unknown.
    pub damaged: Vec<String>,
}

impl Taken {
    /// For a network of this name.
    pub fn look(store: &Store, route: &Socket, name: &str) -> Result<Taken> {
        let mut taken = Taken::default();
        for other in others(store, name)? {
            match other {
                Ok(other) => {
                    taken.networks.extend(other.pools.iter().map(|p| (other.name.clone(), p.subnet)));
                    taken.devices.insert(other.device);
                }
                Err(fault) => taken.damaged.push(fault.to_string()),
            }
        }
        taken.host = reached(route)?.into_iter().map(|reached| reached.subnet).collect();
        taken.devices.extend(link::all(route)?.into_iter().map(|link| link.name));
        let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        taken.servers = servers(&resolv_conf).collect();
        Ok(taken)
    }

    /// Everything a subnet nobody asked for by number keeps clear of.
    pub fn subnets(&self) -> Vec<Subnet> {
        let of_networks = self.networks.iter().map(|(_, subnet)| *subnet);
        of_networks.chain(self.host.iter().copied()).chain(self.servers.iter().copied()).collect()
    }
}

fn servers(resolv_conf: &str) -> impl Iterator<Item = Subnet> {
    let words = resolv_conf.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    words.filter_map(|word| {
        let address: IpAddr = word.trim().split('%').next()?.parse().ok()?;
        Some(Subnet::around(address, if address.is_ipv6() { 128 } else { 32 }))
    })
}

/// The networks beside the one of this name; the default one is always there.
pub fn others(store: &Store, name: &str) -> Result<Vec<Result<Definition>>> {
    let mut names = store.networks()?;
    if !names.iter().any(|other| other == DEFAULT) {
        names.push(DEFAULT.to_owned());
    }
    names.retain(|other| other != name);
    names.sort();
    let there = names.into_iter().filter_map(|other| match File::find(store, &other) {
        Ok(None) if other == DEFAULT => Some(Ok(File::default_bridge())),
        // Half of one, made or removed, has nothing.
        found => found.transpose(),
    });
    Ok(there.map(|file| file.and_then(File::check_named)).collect())
}

/// Fails with a conflict when the network's subnets lie where the host or another network of ours reaches somebody else:
/// one of the two would be unreachable. `device` is the index of the network's own bridge, if that is there.
pub fn check_overlap(store: &Store, route: &Socket, network: &Definition, device: Option<u32>) -> Result<()> {
    let clash = |subnet: Subnet| network.pools.iter().find(|pool| pool.subnet.overlaps(subnet));
    let refused = |subnet: Subnet, by: String| {
        Err(Fault::conflict(format!("subnet {subnet} is in use {by}"))
            .on(network.name.as_str())
            .hint(format!("choose another subnet in networks/{}/network.json", network.name)))
    };
    // What a damaged one has is unknown, which keeps nobody from his own.
    for other in others(store, &network.name)?.into_iter().flatten() {
        if let Some(pool) = other.pools.iter().find_map(|pool| clash(pool.subnet)) {
            return refused(pool.subnet, format!("by network {}", other.name));
        }
    }
    let present = reached(route)?;
    let elsewhere = present.iter().filter(|reached| reached.by.is_none() || reached.by != device);
    let mut hits = elsewhere.filter_map(|reached| Some((clash(reached.subnet)?, reached))).peekable();
    if hits.peek().is_none() {
        return Ok(());
    }
    let links = link::all(route)?;
    let leases = store.leases(&network.name)?;
    for (pool, there) in hits {
        let found = links.iter().find(|link| Some(link.index) == there.by);
        // To containers of its own: those whose link was given another group have their lease.
        if let Some(link) = found {
            let holder = || leases.read(there.subnet.base());
            let is_of = |id: &str| link.name == link::host_interface(id, &network.name);
            if link.group == routed::group_of(&network.device)
                || holder()?.is_some_and(|lease| is_of(&lease.container))
            {
                continue;
            }
        }
        let name = found.map_or("a route", |link| link.name.as_str());
        return refused(pool.subnet, format!("on {name}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(kind: u16, body: Vec<u8>) -> Reply {
        Reply { kind, sequence: 1, body }
    }

    fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in list {
            bytes.extend(((value.len() + 4) as u16).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(*value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    #[test]
    fn routes_are_what_they_lead_to() {
        let route = |prefix: u8, table: u8, kind: u8, dst: [u8; 4]| {
            let mut body = vec![2, prefix, 0, 0, table, 3, 0, kind, 0, 0, 0, 0];
            body.extend(attributes(&[(RTA_DST, &dst), (RTA_OIF, &7_u32.to_ne_bytes())]));
            of_route(&reply(NEW_ROUTE, body))
        };
        let found = route(16, 254, 1, [10, 4, 0, 0]).unwrap();
        assert_eq!((found.subnet.to_string().as_str(), found.by), ("10.4.0.0/16", Some(7)));
        // Another table's counts, too; the host's own addresses, broadcasts and ways out do not.
        assert!(route(24, 100, 7, [10, 4, 1, 0]).is_some());
        for (prefix, table, kind) in [(32, 255, 2), (32, 254, 3), (1, 254, 1), (0, 254, 1)] {
            assert_eq!(route(prefix, table, kind, [128, 0, 0, 0]), None);
        }
        let address = |family: u8, prefix: u8, bytes: &[u8]| {
            let mut body = vec![family, prefix, 0, 0, 3, 0, 0, 0];
            body.extend(attributes(&[(IFA_ADDRESS, bytes)]));
            of_address(&reply(NEW_ADDRESS, body)).map(|found| found.subnet.to_string())
        };
        assert_eq!(address(2, 24, &[192, 168, 7, 9]).unwrap(), "192.168.7.0/24");
        assert_eq!(address(10, 64, &[0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]), None);
        assert_eq!(address(2, 24, &[1, 2, 3]), None);
    }

    #[test]
    fn cut_off_replies_tell_of_nothing() {
        let mut body = vec![2, 16, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
        body.extend(attributes(&[(RTA_DST, &[10, 4, 0, 0]), (RTA_OIF, &7_u32.to_ne_bytes())]));
        for length in 0..body.len() {
            for kind in [NEW_ADDRESS, NEW_ROUTE] {
                let cut = reply(kind, body[..length].to_vec());
                let _ = (of_route(&cut), of_address(&cut));
            }
        }
    }

    #[test]
    fn name_servers_are_found() {
        let text =
            "# nameserver 1.1.1.1\nnameserver 10.90.0.53\nnameserver fe80::1%eth0\nnameserver x\nsearch a\n";
        let found: Vec<String> = servers(text).map(|server| server.to_string()).collect();
        assert_eq!(found, ["10.90.0.53/32", "fe80::1/128"]);
    }
}
