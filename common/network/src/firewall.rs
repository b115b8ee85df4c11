//! The nftables table `staves`: rules made once since boot by nft(8), elements for published ports by netlink.

use crate::definition::Definition;
use crate::netlink::{ACK, Attributes, CREATE, DUMP, Messages, REQUEST, Socket, attribute, attributes, text};
use crate::port::Protocol;
use fault::{Explain, Fault, Kind, Result};
use record::Port;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};

pub const TABLE: &str = "staves";

/// Single ports on every address: protocol . port → address . port.
const PORTS: &str = "ports";
/// Single ports on one address: address . protocol . port → address . port.
const PORTS_AT: &str = "ports_at";
/// Ranges that keep their numbers, however long: address . protocol . ports → address.
const RANGES: &str = "ranges";

// linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const SUBSYSTEM: u16 = 10;
const fn message(number: u16) -> u16 {
    (SUBSYSTEM << 8) + number
}
const NEW_ELEMENTS: u16 = message(12);
const GET_ELEMENTS: u16 = message(13);
const DELETE_ELEMENTS: u16 = message(14);
const GET_TABLE: u16 = message(1);
const DELETE_TABLE: u16 = message(2);
const FAMILY_INET: u8 = 1;
const NAME: u16 = 1;
const LIST_TABLE: u16 = 1;
const LIST_SET: u16 = 2;
const LIST_ELEMENTS: u16 = 3;
const ELEMENT: u16 = 1;
const KEY: u16 = 1;
const DATA: u16 = 2;
const KEY_END: u16 = 10;
const VALUE: u16 = 1;

/// Elements in one message: the list's length is a 16 bit number.
const CHUNK: usize = 400;

/// One element of one of the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Element {
    map: &'static str,
    key: Vec<u8>,
    /// Of a range: its last key.
    key_end: Vec<u8>,
    data: Vec<u8>,
}

/// The elements that lead a published port of the host to an address.
pub fn elements(port: &Port, to: Ipv4Addr) -> Result<Vec<Element>> {
    let protocol = Protocol::parse(&port.protocol)?;
    let first = port.host.ok_or_else(|| Fault::input("a published port without a port of the host"))?;
    let at = match &port.ip {
        Some(ip) => Some(ip.parse::<Ipv4Addr>().explain_as(Kind::Input, || format!("address {ip}"))?),
        None => None,
    };
    let count = port.count.unwrap_or(1).max(1);
    let last = first.saturating_add(count - 1);
    if count > 1 && first == port.container {
        let (low, high) = at.map_or((Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST), |ip| (ip, ip));
        return Ok(vec![Element {
            map: RANGES,
            key: key(Some(low), protocol, first),
            key_end: key(Some(high), protocol, last),
            data: to.octets().to_vec(),
        }]);
    }
    let pairs = (first..=last).zip(port.container..=u16::MAX);
    Ok(pairs
        .map(|(host, container)| Element {
            map: if at.is_some() { PORTS_AT } else { PORTS },
            key: key(at, protocol, host),
            key_end: Vec::new(),
            data: [&to.octets()[..], &container.to_be_bytes(), &[0, 0]].concat(),
        })
        .collect())
}

/// Fields of a key in network byte order, each filled up to four bytes.
fn key(address: Option<Ipv4Addr>, protocol: Protocol, port: u16) -> Vec<u8> {
    let address = address.map(|ip| ip.octets().to_vec()).unwrap_or_default();
    [&address[..], &[protocol.number(), 0, 0, 0], &port.to_be_bytes(), &[0, 0]].concat()
}

impl Element {
    /// Where traffic is led to.
    pub fn target(&self) -> Option<Ipv4Addr> {
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(self.data.get(..4)?).ok()?))
    }

    /// Addresses, protocol and ports as (low, high) of each four bytes of the key.
    fn bounds(&self) -> Vec<([u8; 4], [u8; 4])> {
        let high = if self.key_end.is_empty() { &self.key } else { &self.key_end };
        let fours =
            |bytes: &[u8]| bytes.chunks_exact(4).map(|c| [c[0], c[1], c[2], c[3]]).collect::<Vec<[u8; 4]>>();
        fours(&self.key).into_iter().zip(fours(high)).collect()
    }

    fn overlaps(&self, other: &Element) -> bool {
        self.map == other.map
            && self.bounds().iter().zip(other.bounds()).all(|((a, b), (c, d))| *a <= d && c <= *b)
    }

    fn attributes(&self) -> Attributes {
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
        write!(f, " -> {}", self.target().unwrap_or(Ipv4Addr::UNSPECIFIED))
    }
}

/// The table's elements, through one socket.
pub struct Firewall(Socket);

impl Firewall {
    pub fn open() -> Result<Firewall> {
        Socket::netfilter().map(Firewall)
    }

    /// Adds elements, all or none. Those of dead containers in their way are removed: the caller has claimed the
    /// ports, so nobody living can have put them there.
    ///
    /// The inner error is `ENOENT` when the table or a map is missing.
    pub fn add(&self, elements: &[Element]) -> io::Result<()> {
        match self.change(NEW_ELEMENTS, CREATE, elements) {
            Err(error) if in_the_way(&error) => {
                let present = self.all()?;
                let stale: Vec<Element> =
                    present.into_iter().filter(|old| elements.iter().any(|new| new.overlaps(old))).collect();
                self.change(DELETE_ELEMENTS, 0, &stale)?;
                self.change(NEW_ELEMENTS, CREATE, elements)
            }
            outcome => outcome,
        }
    }

    /// Removes those of the elements that are there. No table, no elements.
    pub fn remove(&self, elements: &[Element]) -> Result<()> {
        let gone = |error: &io::Error| error.raw_os_error() == Some(Errno::NOENT.raw_os_error());
        match self.change(DELETE_ELEMENTS, 0, elements) {
            Err(error) if gone(&error) => {}
            outcome => return outcome.explain(|| "unpublish ports".into()),
        }
        for element in elements {
            match self.change(DELETE_ELEMENTS, 0, std::slice::from_ref(element)) {
                Err(error) if !gone(&error) => return Err(error).explain(|| "unpublish ports".into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// All elements of all maps of ours; none if there is no table.
    pub fn all(&self) -> io::Result<Vec<Element>> {
        let mut found = Vec::new();
        for map in [PORTS, PORTS_AT, RANGES] {
            let names = Attributes::new().with_text(LIST_TABLE, TABLE).with_text(LIST_SET, map);
            let mut messages = Messages::new();
            messages.push(GET_ELEMENTS, REQUEST | DUMP, &general(FAMILY_INET, 0), &names);
            let replies = match self.0.ask(&messages) {
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => continue,
                replies => replies?,
            };
            for reply in &replies {
                let list =
                    attribute(reply.body.get(4..).unwrap_or_default(), LIST_ELEMENTS).unwrap_or_default();
                found.extend(attributes(list).filter_map(|(_, bytes)| parse(map, bytes)));
            }
        }
        Ok(found)
    }

    pub fn has_table(&self) -> Result<bool> {
        let mut messages = Messages::new();
        let name = Attributes::new().with_text(NAME, TABLE);
        messages.push(GET_TABLE, REQUEST, &general(FAMILY_INET, 0), &name);
        match self.0.ask(&messages) {
            Ok(found) => Ok(!found.is_empty()),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(false),
            Err(error) => Err(error).explain(|| format!("look up firewall table {TABLE}")),
        }
    }

    /// Removes the table with all that is in it; `false` if there was none.
    pub fn remove_table(&self) -> Result<bool> {
        let mut messages = Messages::new();
        begin(&mut messages);
        let name = Attributes::new().with_text(NAME, TABLE);
        messages.push(DELETE_TABLE, REQUEST | ACK, &general(FAMILY_INET, 0), &name);
        end(&mut messages);
        match self.0.request(&messages) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => Ok(false),
            Err(error) => Err(error).explain(|| format!("remove firewall table {TABLE}")),
        }
    }

    /// One transaction.
    fn change(&self, what: u16, flags: u16, elements: &[Element]) -> io::Result<()> {
        if elements.is_empty() {
            return Ok(());
        }
        let mut messages = Messages::new();
        begin(&mut messages);
        for map in [PORTS, PORTS_AT, RANGES] {
            let of_map: Vec<&Element> = elements.iter().filter(|element| element.map == map).collect();
            for chunk in of_map.chunks(CHUNK) {
                let list = chunk.iter().fold(Attributes::new(), |list, element| {
                    list.with_nested(ELEMENT, &element.attributes())
                });
                let all = Attributes::new()
                    .with_text(LIST_TABLE, TABLE)
                    .with_text(LIST_SET, map)
                    .with_nested(LIST_ELEMENTS, &list);
                messages.push(what, REQUEST | ACK | flags, &general(FAMILY_INET, 0), &all);
            }
        }
        end(&mut messages);
        self.0.request(&messages)
    }
}

fn in_the_way(error: &io::Error) -> bool {
    [Errno::EXIST, Errno::BUSY, Errno::NOTEMPTY]
        .iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

fn general(family: u8, resource: u16) -> [u8; 4] {
    let resource = resource.to_be_bytes();
    [family, 0, resource[0], resource[1]]
}

fn begin(messages: &mut Messages) {
    messages.push(BATCH_BEGIN, REQUEST, &general(0, SUBSYSTEM), &Attributes::new());
}

fn end(messages: &mut Messages) {
    messages.push(BATCH_END, REQUEST, &general(0, SUBSYSTEM), &Attributes::new());
}

fn parse(map: &'static str, bytes: &[u8]) -> Option<Element> {
    let value = |kind| attribute(attribute(bytes, kind)?, VALUE).map(<[u8]>::to_vec);
    Some(Element { map, key: value(KEY)?, key_end: value(KEY_END).unwrap_or_default(), data: value(DATA)? })
}

/// Makes the table, or brings the rules of one that is there up to date without touching its elements.
///
/// `lock` guards the network; nft(8) holds it too, so that one whose caller was killed is waited for.
pub fn make_table(network: &Definition, lock: &File) -> Result<()> {
    nft(&script(network), lock).map_err(|fault| fault.within(format!("make firewall table {TABLE}")))
}

/// The rules, for one network after the other: networks differ only in what the sets hold.
fn script(network: &Definition) -> String {
    let (device, subnet) = (&network.device, network.subnet);
    format!(
        r#"add table inet {TABLE}
add set inet {TABLE} bridges {{ type ifname; }}
add set inet {TABLE} subnets {{ type ipv4_addr; flags interval; auto-merge; }}
add map inet {TABLE} {PORTS} {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {TABLE} {PORTS_AT} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
add map inet {TABLE} {RANGES} {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr; flags interval; }}
add chain inet {TABLE} guard {{ type filter hook prerouting priority -300; }}
add chain inet {TABLE} prerouting {{ type nat hook prerouting priority -100; }}
add chain inet {TABLE} output {{ type nat hook output priority -100; }}
add chain inet {TABLE} postrouting {{ type nat hook postrouting priority 100; }}
add chain inet {TABLE} forward {{ type filter hook forward priority 0; }}
add chain inet {TABLE} publish
flush chain inet {TABLE} guard
flush chain inet {TABLE} prerouting
flush chain inet {TABLE} output
flush chain inet {TABLE} postrouting
flush chain inet {TABLE} forward
flush chain inet {TABLE} publish
add rule inet {TABLE} guard iifname @bridges ip daddr 127.0.0.0/8 drop
add rule inet {TABLE} publish meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @{PORTS_AT}
add rule inet {TABLE} publish meta l4proto {{ tcp, udp }} dnat ip to meta l4proto . th dport map @{PORTS}
add rule inet {TABLE} publish meta l4proto {{ tcp, udp }} dnat ip to ip daddr . meta l4proto . th dport map @{RANGES}
add rule inet {TABLE} prerouting ip daddr != 127.0.0.0/8 fib daddr type local jump publish
add rule inet {TABLE} output meta nfproto ipv4 fib daddr type local jump publish
add rule inet {TABLE} postrouting ip saddr @subnets oifname != @bridges masquerade
add rule inet {TABLE} postrouting ip saddr 127.0.0.0/8 oifname @bridges masquerade
add rule inet {TABLE} postrouting ip saddr @subnets oifname @bridges ct status dnat masquerade
add rule inet {TABLE} forward iifname @bridges oifname @bridges accept
add rule inet {TABLE} forward oifname @bridges ct state established,related accept
add rule inet {TABLE} forward oifname @bridges ct status dnat accept
add rule inet {TABLE} forward oifname @bridges drop
add element inet {TABLE} bridges {{ "{device}" }}
add element inet {TABLE} subnets {{ {subnet} }}
"#
    )
}

fn nft(script: &str, lock: &File) -> Result<()> {
    let held = || lock.try_clone().map(Stdio::from);
    let run = |program: &str| {
        Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(held()?)
            .stderr(Stdio::piped())
            .spawn()
    };
    // An ordinary PATH lacks the directory it lives in on some systems.
    let mut child = run("nft").or_else(|_| run("/usr/sbin/nft")).map_err(|error| {
        Fault::failed("run nft")
            .because(error)
            .hint("install nftables: containers reach other networks through it")
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // If nft ended early, its own words tell more than the broken pipe.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().explain(|| "run nft".into())?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(Fault::failed(format!("nft: {}", text(words.lines().next().unwrap_or("failed").as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::port::Wish;

    fn of(text: &str) -> Vec<Element> {
        let wish = Wish::parse(text).unwrap();
        let crate::port::HostPort::At(host) = wish.host else { panic!("{text}") };
        elements(&wish.at(host), Ipv4Addr::new(10, 89, 0, 2)).unwrap()
    }

    #[test]
    fn a_range_that_keeps_its_numbers_is_one_element() {
        assert_eq!(of("8000-8999:8000-8999").len(), 1);
        assert_eq!(of("8000-8999:9000-9999").len(), 1000);
        assert_eq!(of("80:80")[0].key, [6, 0, 0, 0, 0, 80, 0, 0]);
        assert_eq!(of("80:81/udp")[0].data, [10, 89, 0, 2, 0, 81, 0, 0]);
        let range = &of("127.0.0.1:80-81:80-81")[0];
        assert_eq!((range.key.len(), range.target()), (12, Some(Ipv4Addr::new(10, 89, 0, 2))));
    }

    #[test]
    fn overlapping_is_told_by_every_field() {
        let one = |text: &str| of(text).remove(0);
        assert!(one("80-90:80-90").overlaps(&one("127.0.0.1:90-91:90-91")));
        assert!(!one("80-90:80-90").overlaps(&one("91-92:91-92")));
        assert!(!one("80-90:80-90/udp").overlaps(&one("80-90:80-90")));
        assert!(!one("127.0.0.1:80-90:80-90").overlaps(&one("127.0.0.2:80-90:80-90")));
        assert!(one("80:80").overlaps(&one("80:81")));
    }

    #[test]
    fn elements_read_back_as_written() {
        for text in ["80:80", "127.0.0.1:80:81/udp", "80-90:80-90"] {
            let element = of(text).remove(0);
            let bytes = Attributes::new().with_nested(ELEMENT, &element.attributes());
            let mut messages = Messages::new();
            messages.push(0, 0, &[], &bytes);
            let inner = messages.body_for_tests();
            assert_eq!(parse(element.map, attribute(&inner, ELEMENT).unwrap()), Some(element));
        }
    }
}
