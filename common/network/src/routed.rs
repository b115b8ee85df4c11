//! Networks of driver `routed`: a pair of links for each container, between which the host routes.
//!
//! Containers share no wire. One sends to another as it does to anybody: to the host, whose address on the network is the
//! gateway's. That address is on an interface of its own, a bridge nothing is ever put on, and both ends of a pair are told who is at the
//! other: nobody asks for neighbours, so that nobody can answer for another. All host's ends of a network have one group number, by
//! which the firewall's rules know them, however many there are.

use crate::definition::{Definition, Driver};
use crate::link::{self, End, Link, OnLink};
use crate::netlink::{ACK, EXCL, Messages, REPLACE, Socket};
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::link::LinkAttribute;
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;

/// Group of the links of a network with this device. The second highest bit keeps clear of the numbers people give
/// (`/etc/iproute2/group`) and of 0, in which all other links are; with the highest one ip(8) would show it as less than nothing, and
/// not take it.
pub fn group_of(device: &str) -> u32 {
    // FNV-1a; a new network's device is not one whose number another one has.
    let digest =
        device.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (digest ^ digest >> 31) & 0x7fff_ffff | 1 << 30
}

/// The group of a network's links, if it is a routed one.
pub fn group(network: &Definition) -> Option<u32> {
    (network.driver == Driver::Routed).then(|| group_of(&network.device))
}

/// The host's end of a pair.
pub fn end(network: &Definition) -> End {
    End::Routed { group: group_of(&network.device), mac: host_mac(network) }
}

/// The same on all pairs of a network, and not kept anywhere.
fn host_mac(network: &Definition) -> [u8; 6] {
    link::bridge_mac(network).unwrap_or([2, 0, 0, 0, 0, 1])
}

/// What a container with these addresses reaches at once: the gateways, and by each the rest of its subnet.
pub fn gateways(network: &Definition, addresses: &[IpAddr]) -> Vec<OnLink> {
    let has_family = |gateway: IpAddr| addresses.iter().any(|ip| ip.is_ipv6() == gateway.is_ipv6());
    let pools = network.pools.iter().filter(|pool| has_family(pool.gateway));
    pools
        .map(|pool| OnLink { host: pool.gateway, mac: host_mac(network), behind: Some(pool.subnet) })
        .collect()
}

/// Leads the host's packets for the addresses to the container at the other end of `name`, which comes up by this.
///
/// The error is the kernel's: `ENODEV` when the link is gone, `EINVAL` when the host has lost the gateways' addresses.
pub fn lead_to(
    host: &Socket,
    network: &Definition,
    name: &str,
    addresses: &[IpAddr],
    mac: [u8; 6],
) -> io::Result<()> {
    let index = link::index_of(host, name)?.ok_or_else(|| io::Error::from(Errno::NODEV))?;
    crate::sysctl::close_to_routers(name, network.has_ipv6())?;
    let mut messages = Messages::new();
    let mut up = link::link_up();
    up.header.index = index;
    messages.push_route(ACK, Message::SetLink(up));
    push_ways(&mut messages, network, index, addresses, mac, REPLACE);
    host.request(&messages)
}

/// The same for a link that is there, whatever was done to it; whether it was not led to.
pub fn lead_again(
    host: &Socket,
    network: &Definition,
    found: &Link,
    address: IpAddr,
    mac: [u8; 6],
) -> io::Result<bool> {
    crate::sysctl::close_to_routers(&found.name, network.has_ipv6())?;
    let mut messages = Messages::new();
    let mut up = link::link_up();
    up.header.index = found.index;
    up.attributes.push(LinkAttribute::Group(group_of(&network.device)));
    up.attributes.extend(found.master.map(|_| LinkAttribute::Controller(0)));
    messages.push_route(ACK, Message::SetLink(up));
    push_ways(&mut messages, network, found.index, &[address], mac, EXCL);
    match host.request(&messages) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            lead_to(host, network, &found.name, &[address], mac)?;
            Ok(found.group != group_of(&network.device) || found.master.is_some())
        }
        done => done.map(|()| true),
    }
}

fn push_ways(
    messages: &mut Messages,
    network: &Definition,
    index: u32,
    addresses: &[IpAddr],
    mac: [u8; 6],
    how: u16,
) {
    for address in addresses {
        let gateway = network.pool_of(*address).map(|pool| pool.gateway);
        let one = OnLink { host: *address, mac, behind: None };
        link::push_on_link(messages, index, &one, gateway, how);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::{File, FileSubnet};

    #[test]
    fn groups_are_of_one_network_and_nobody_elses() {
        let of = |device: &str| group_of(device);
        assert_eq!(of("staves1"), of("staves1"));
        let numbers: std::collections::HashSet<u32> =
            (0..50_000).map(|n| of(&format!("staves{n}"))).collect();
        assert_eq!(numbers.len(), 50_000);
        // What ip(8) takes and shows as it is.
        assert!(numbers.iter().all(|number| (1 << 30..1 << 31).contains(number)));
    }

    #[test]
    fn a_container_reaches_the_gateways_of_its_families() {
        let subnet = |text: &str| FileSubnet { subnet: text.into(), ..FileSubnet::default() };
        let file = File {
            name: "web".into(),
            driver: "routed".into(),
            device: "staves1".into(),
            subnets: vec![subnet("10.90.0.0/24"), subnet("fd00:90::/64"), subnet("10.91.0.0/24")],
            ..File::default()
        };
        let network = file.check().unwrap();
        let reached = |addresses: &[&str]| {
            let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
            let hosts = gateways(&network, &addresses).into_iter();
            hosts.map(|one| format!("{} {}", one.host, one.behind.unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(reached(&["10.90.0.5"]), ["10.90.0.1 10.90.0.0/24", "10.91.0.1 10.91.0.0/24"]);
        assert_eq!(reached(&["fd00:90::5"]), ["fd00:90::1 fd00:90::/64"]);
        assert_eq!(reached(&[]), Vec::<String>::new());
    }
}
