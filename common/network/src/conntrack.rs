//! Connection tracking: flows the kernel remembers from before a port was published (linux/netfilter/nfnetlink_conntrack.h).

use crate::netlink::{ACK, Attributes, DUMP, Messages, REQUEST, Socket, attribute};
use crate::port::{Protocol, numbers};
use crate::subnet::Subnet;
use fault::{Explain, Result};
use record::Port;
use rustix::io::Errno;
use std::io;
use std::net::IpAddr;

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const NESTED: u16 = 0x8000;
/// Of both families, as a question.
const ANY_FAMILY: u8 = 0;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const IPV4_SOURCE: u16 = 1;
const IPV4_DESTINATION: u16 = 2;
const IPV6_SOURCE: u16 = 3;
const IPV6_DESTINATION: u16 = 4;
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const DESTINATION_PORT: u16 = 3;

/// Makes the kernel forget UDP and SCTP flows to published ports: a client that keeps sending, or asking for an
/// association, would keep going where it went before, past the new rule. TCP flows end by themselves.
pub fn forget_ports(ports: &[Port]) -> Result<()> {
    let lasting: Vec<&Port> = ports.iter().filter(|port| port.protocol != Protocol::Tcp.name()).collect();
    if lasting.is_empty() {
        return Ok(());
    }
    forget(&Socket::netfilter()?, |flow| {
        let tuple = attribute(flow, TUPLE_ORIGINAL).unwrap_or_default();
        lasting.iter().any(|port| leads_to(tuple, port))
    })
    .explain(|| "forget earlier flows to the ports".into())
}

/// Makes the kernel forget the flows that ports of the host led to a container: what is let pass because it was let pass before
/// would reach whoever has the address next, at ports nobody published.
pub fn forget_led_to(addresses: &[IpAddr], ports: &[&Port]) -> Result<()> {
    if addresses.is_empty() || ports.is_empty() || there_are_none() {
        return Ok(());
    }
    forget(&Socket::netfilter()?, |flow| {
        let tuple = attribute(flow, TUPLE_ORIGINAL).unwrap_or_default();
        ports.iter().any(|port| leads_to(tuple, port))
            && attribute(flow, TUPLE_REPLY).and_then(source).is_some_and(|from| addresses.contains(&from))
    })
    .explain(|| "end the connections through the ports".into())
}

/// Makes the kernel forget all flows from and to a network: what our rules let pass because it was let pass before is judged
/// anew.
pub fn forget_network(subnets: &[Subnet]) -> Result<()> {
    if there_are_none() {
        return Ok(());
    }
    forget(&Socket::netfilter()?, |flow| {
        let tuples = [TUPLE_ORIGINAL, TUPLE_REPLY].into_iter().filter_map(|kind| attribute(flow, kind));
        tuples.flat_map(addresses).any(|address| subnets.iter().any(|subnet| subnet.contains(address)))
    })
    .explain(|| "forget the network's earlier flows".into())
}

/// A walk through the kernel's table costs milliseconds, however few are in it.
fn there_are_none() -> bool {
    std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")
        .is_ok_and(|count| count.trim() == "0")
}

/// `meant` is asked with the attributes of each flow.
fn forget(socket: &Socket, meant: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let mut all = Messages::new();
    all.push(GET, REQUEST | DUMP, &[ANY_FAMILY, 0, 0, 0], &Attributes::new());
    for flow in socket.ask(&all)? {
        let told = flow.body.get(4..).unwrap_or_default();
        let Some(tuple) = attribute(told, TUPLE_ORIGINAL).filter(|_| meant(told)) else { continue };
        let family = flow.body.first().copied().unwrap_or(ANY_FAMILY);
        let mut one = Messages::new();
        one.push(
            DELETE,
            REQUEST | ACK,
            &[family, 0, 0, 0],
            &Attributes::new().with(TUPLE_ORIGINAL | NESTED, tuple),
        );
        match socket.request(&one) {
            // Gone by itself meanwhile.
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Source and destination of one direction of a flow.
fn addresses(tuple: &[u8]) -> impl Iterator<Item = IpAddr> {
    let of = attribute(tuple, TUPLE_IP).unwrap_or_default();
    let four = |kind| Some(<[u8; 4]>::try_from(attribute(of, kind)?).ok()?.into());
    let six = |kind| Some(<[u8; 16]>::try_from(attribute(of, kind)?).ok()?.into());
    let found: [Option<IpAddr>; 4] =
        [four(IPV4_SOURCE), four(IPV4_DESTINATION), six(IPV6_SOURCE), six(IPV6_DESTINATION)];
    found.into_iter().flatten()
}

/// Whom the packets of one direction come from.
fn source(tuple: &[u8]) -> Option<IpAddr> {
    let of = attribute(tuple, TUPLE_IP)?;
    let four = attribute(of, IPV4_SOURCE).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok());
    let six = attribute(of, IPV6_SOURCE).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    four.map(IpAddr::from).or(six.map(IpAddr::from))
}

fn leads_to(tuple: &[u8], port: &Port) -> bool {
    let Some(protocol) = attribute(tuple, TUPLE_PROTOCOL) else { return false };
    let number = attribute(protocol, PROTOCOL_NUMBER).and_then(|value| value.first());
    let to =
        attribute(protocol, DESTINATION_PORT).and_then(|value| value.try_into().ok()).map(u16::from_be_bytes);
    let meant = Protocol::parse(&port.protocol).ok().map(Protocol::number);
    meant.is_some() && number.copied() == meant && to.is_some_and(|to| numbers(port).contains(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_are_read() {
        let tuple = |fields: &[(u16, &[u8])]| {
            let of = fields.iter().fold(Attributes::new(), |of, (kind, bytes)| of.with(*kind, bytes));
            let mut messages = Messages::new();
            messages.push(0, 0, &[], &Attributes::new().with_nested(TUPLE_IP, &of));
            messages.body_for_tests()
        };
        let read =
            |fields: &[(u16, &[u8])]| addresses(&tuple(fields)).map(|a| a.to_string()).collect::<Vec<_>>();
        assert_eq!(
            read(&[(IPV4_SOURCE, &[10, 89, 0, 2]), (IPV4_DESTINATION, &[192, 0, 2, 1])]),
            ["10.89.0.2", "192.0.2.1"]
        );
        let mut six = [0; 16];
        (six[0], six[15]) = (0xfd, 7);
        assert_eq!(read(&[(IPV6_SOURCE, &six), (IPV6_DESTINATION, &[1, 2])]), ["fd00::7"]);
        assert_eq!(addresses(&[]).count(), 0);
        let from = |fields: &[(u16, &[u8])]| source(&tuple(fields)).map(|a| a.to_string());
        assert_eq!(
            from(&[(IPV4_SOURCE, &[10, 89, 0, 2]), (IPV4_DESTINATION, &[192, 0, 2, 1])]).unwrap(),
            "10.89.0.2"
        );
        assert_eq!(from(&[(IPV6_SOURCE, &six), (IPV6_DESTINATION, &[0; 16])]).unwrap(), "fd00::7");
        assert_eq!(from(&[(IPV4_DESTINATION, &[192, 0, 2, 1])]), None);
    }

    #[test]
    fn only_flows_to_the_port_are_meant() {
        let tuple = |number: u8, port: u16| {
            let protocol = Attributes::new()
                .with(PROTOCOL_NUMBER, &[number])
                .with(DESTINATION_PORT, &port.to_be_bytes());
            let mut messages = Messages::new();
            messages.push(0, 0, &[], &Attributes::new().with_nested(TUPLE_PROTOCOL, &protocol));
            messages.body_for_tests()
        };
        let port = Port { host: Some(53), count: Some(2), protocol: "udp".into(), ..Port::default() };
        assert!(leads_to(&tuple(17, 53), &port) && leads_to(&tuple(17, 54), &port));
        let other = Port { protocol: "sctp".into(), ..port.clone() };
        assert!(leads_to(&tuple(132, 53), &other) && !leads_to(&tuple(17, 53), &other));
        assert!(!leads_to(&tuple(17, 55), &port) && !leads_to(&tuple(6, 53), &port) && !leads_to(&[], &port));
    }
}
