//! Elements of the maps that published ports are looked up in.

use super::{DATA, KEY, KEY_END, VALUE};
use crate::netlink::{Attributes, attribute};
use crate::port::{Protocol, address_of, numbers};
use fault::{Fault, Result};
use record::Port;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The maps of one family of addresses.
pub(super) struct Maps {
    /// Single ports on every address: protocol . port → address . port.
    pub ports: &'static str,
    /// Single ports on one address: address . protocol . port → address . port.
    pub ports_at: &'static str,
    /// Ranges that keep their numbers, however long: address . protocol . ports → address.
    pub ranges: &'static str,
}

pub(super) const V4: Maps = Maps { ports: "ports", ports_at: "ports_at", ranges: "ranges" };
pub(super) const V6: Maps = Maps { ports: "ports6", ports_at: "ports6_at", ranges: "ranges6" };

/// Names of all maps.
pub(super) const ALL: [&str; 6] = [V4.ports, V4.ports_at, V4.ranges, V6.ports, V6.ports_at, V6.ranges];

/// One element of one of the maps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Element {
    pub(super) map: &'static str,
    key: Vec<u8>,
    /// Of a range: its last key.
    key_end: Vec<u8>,
    data: Vec<u8>,
}

/// The elements that lead a published port of the host to a container's addresses, one of a family at the most. Traffic of
/// a family that the container has no address of, or that the port's own address is not of, is led nowhere.
///
/// Fails with input for what is no published port.
pub fn elements(port: &Port, to: &[IpAddr]) -> Result<Vec<Element>> {
    let protocol = Protocol::parse(&port.protocol)?;
    let first = port.host.ok_or_else(|| Fault::input("a published port without a port of the host"))?;
    let at = address_of(port)?;
    let mut elements = Vec::new();
    for ipv6 in [false, true] {
        let of_family = |address: &IpAddr| address.is_ipv6() == ipv6;
        let Some(to) = to.iter().copied().find(of_family) else { continue };
        if at.is_none_or(|at| of_family(&at)) {
            of_one_family(&mut elements, port, (protocol, first), at, to);
        }
    }
    Ok(elements)
}

fn of_one_family(
    into: &mut Vec<Element>,
    port: &Port,
    (protocol, first): (Protocol, u16),
    at: Option<IpAddr>,
    to: IpAddr,
) {
    let (maps, every) = match to {
        IpAddr::V4(_) => (&V4, (Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into())),
        IpAddr::V6(_) => (&V6, (Ipv6Addr::UNSPECIFIED.into(), Ipv6Addr::from(u128::MAX).into())),
    };
    let at = at.filter(|at| !at.is_unspecified());
    let hosts = numbers(port);
    if first == port.container && hosts.end() > hosts.start() {
        let (low, high) = at.map_or(every, |at| (at, at));
        into.push(Element {
            map: maps.ranges,
            key: key(Some(low), protocol, first),
            key_end: key(Some(high), protocol, *hosts.end()),
            data: octets(to),
        });
        return;
    }
    into.extend(hosts.zip(port.container..=u16::MAX).map(|(host, container)| Element {
        map: if at.is_some() { maps.ports_at } else { maps.ports },
        key: key(at, protocol, host),
        key_end: Vec::new(),
        data: [&octets(to)[..], &container.to_be_bytes(), &[0, 0]].concat(),
    }));
}

/// Fields of a key in network byte order, each filled up to a multiple of four bytes.
fn key(address: Option<IpAddr>, protocol: Protocol, port: u16) -> Vec<u8> {
    let address = address.map(octets).unwrap_or_default();
    [&address[..], &[protocol.number(), 0, 0, 0], &port.to_be_bytes(), &[0, 0]].concat()
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

impl Element {
    /// As the kernel tells of it; `None` for what is no element of the map.
    pub(super) fn parse(map: &'static str, bytes: &[u8]) -> Option<Element> {
        let value = |kind| attribute(attribute(bytes, kind)?, VALUE).map(<[u8]>::to_vec);
        Some(Element {
            map,
            key: value(KEY)?,
            key_end: value(KEY_END).unwrap_or_default(),
            data: value(DATA)?,
        })
    }

    /// Where traffic is led to.
    pub fn target(&self) -> Option<IpAddr> {
        if [V6.ports, V6.ports_at, V6.ranges].contains(&self.map) {
            return Some(Ipv6Addr::from(<[u8; 16]>::try_from(self.data.get(..16)?).ok()?).into());
        }
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.data.get(..4)?).ok()?).into())
    }

    /// Addresses, protocol and ports as (low, high) of each four bytes of the key. An address of IPv6 is one or all, so
    /// that its parts can be looked at one by one.
    fn bounds(&self) -> Vec<([u8; 4], [u8; 4])> {
        let high = if self.key_end.is_empty() { &self.key } else { &self.key_end };
        let fours =
            |bytes: &[u8]| bytes.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect::<Vec<[u8; 4]>>();
        fours(&self.key).into_iter().zip(fours(high)).collect()
    }

    pub(super) fn overlaps(&self, other: &Element) -> bool {
        self.map == other.map
            && self.bounds().iter().zip(other.bounds()).all(|((a, b), (c, d))| *a <= d && c <= *b)
    }

    pub(super) fn attributes(&self) -> Attributes {
        let value = |bytes: &[u8]| Attributes::new().with(VALUE, bytes);
        let mut element = Attributes::new().with_nested(KEY, &value(&self.key));
        if !self.key_end.is_empty() {
            element = element.with_nested(KEY_END, &value(&self.key_end));
        }
        element.with_nested(DATA, &value(&self.data))
    }
}

impl std::fmt::Display for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bounds = self.bounds();
        let port = |four: [u8; 4]| u16::from_be_bytes([four[0], four[1]]);
        let ports = bounds.last().map_or((0, 0), |(low, high)| (port(*low), port(*high)));
        match ports {
            (low, high) if low == high => write!(f, "{low}")?,
            (low, high) => write!(f, "{low}-{high}")?,
        }
        write!(f, " -> {}", self.target().unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::ELEMENT;
    use super::*;
    use crate::netlink::Messages;
    use crate::port::{HostPort, Wish};

    const FOUR: &str = "10.89.0.2";
    const SIX: &str = "fd00:89::2";

    fn to(port: &str, addresses: &[&str]) -> Vec<Element> {
        let wish = Wish::parse(port).unwrap();
        let HostPort::At(host) = wish.host else { panic!("{port}") };
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        elements(&wish.at(host), &addresses).unwrap()
    }

    fn of(port: &str) -> Vec<Element> {
        to(port, &[FOUR])
    }

    #[test]
    fn a_range_that_keeps_its_numbers_is_one_element() {
        assert_eq!(of("8000-8999:8000-8999").len(), 1);
        assert_eq!(of("8000-8999:9000-9999").len(), 1000);
        assert_eq!(to("8000-8999:8000-8999", &[FOUR, SIX]).len(), 2);
        assert_eq!(to("8000-8999:9000-9999", &[FOUR, SIX]).len(), 2000);
        assert_eq!(of("80:80")[0].key, [6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(of("80:80/sctp")[0].key, [132, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(of("80:81/udp")[0].data, [10, 89, 0, 2, 0, 81, 0, 0]);
        let range = &of("127.0.0.1:80-81:80-81")[0];
        assert_eq!((range.key.len(), range.target()), (12, Some(FOUR.parse().unwrap())));
        let range = &to("80-81:80-81", &[SIX])[0];
        assert_eq!((range.key.len(), range.key_end[..16].to_vec()), (24, vec![0xff; 16]));
        assert_eq!(range.target(), Some(SIX.parse().unwrap()));
    }

    #[test]
    fn a_port_leads_to_addresses_of_its_own_family() {
        let maps = |port: &str, addresses: &[&str]| {
            to(port, addresses).iter().map(|element| element.map).collect::<Vec<_>>()
        };
        assert_eq!(maps("80:80", &[FOUR, SIX]), ["ports", "ports6"]);
        assert_eq!(maps("0.0.0.0:80:80", &[FOUR, SIX]), ["ports"]);
        assert_eq!(maps("[::]:80:80", &[FOUR, SIX]), ["ports6"]);
        assert_eq!(maps("127.0.0.1:80:80", &[FOUR, SIX]), ["ports_at"]);
        assert_eq!(maps("[2001:db8::1]:80:80", &[FOUR, SIX]), ["ports6_at"]);
        assert_eq!(maps("[2001:db8::1]:80-81:80-81", &[SIX]), ["ranges6"]);
        assert!(
            maps("[2001:db8::1]:80:80", &[FOUR]).is_empty() && maps("127.0.0.1:80:80", &[SIX]).is_empty()
        );
        assert!(maps("80:80", &[]).is_empty());
    }

    #[test]
    fn overlapping_is_told_by_every_field() {
        let one = |text: &str| to(text, &[SIX, FOUR]).remove(0);
        assert!(one("80-90:80-90").overlaps(&one("127.0.0.1:90-91:90-91")));
        assert!(!one("80-90:80-90").overlaps(&one("91-92:91-92")));
        assert!(!one("80-90:80-90/udp").overlaps(&one("80-90:80-90")));
        assert!(!one("127.0.0.1:80-90:80-90").overlaps(&one("127.0.0.2:80-90:80-90")));
        assert!(one("80:80").overlaps(&one("80:81")));
        assert!(one("[::]:80-90:80-90").overlaps(&one("[2001:db8::1]:80-90:80-90")));
        assert!(!one("[2001:db8::2]:80-90:80-90").overlaps(&one("[2001:db8::1]:80-90:80-90")));
        assert!(!one("[::]:80-90:80-90").overlaps(&one("80-90:80-90")));
    }

    #[test]
    fn elements_read_back_as_written() {
        for text in ["80:80", "127.0.0.1:80:81/udp", "80-90:80-90", "[2001:db8::1]:80:81/sctp"] {
            for element in to(text, &[FOUR, SIX]) {
                let bytes = Attributes::new().with_nested(ELEMENT, &element.attributes());
                let mut messages = Messages::new();
                messages.push(0, 0, &[], &bytes);
                let inner = messages.body_for_tests();
                assert_eq!(Element::parse(element.map, attribute(&inner, ELEMENT).unwrap()), Some(element));
            }
        }
        assert_eq!(Element::parse("ports", &[]), None);
    }
}
