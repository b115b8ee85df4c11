//! `linux.netDevices`: interfaces of the host moved into the container's network namespace.

use crate::namespaces::is_own;
use crate::netlink::{
    NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Reply, Request, Socket, attributes, i32_at, u32_at,
};
use crate::spec::NetDevice;
use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// With the NUL at its end a name fills 16 bytes at most.
const MAX_NAME_BYTES: usize = 15;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const LINK_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 8;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_FLAGS: u16 = 8;
/// Address, local address, broadcast address, priority of the route, origin. The label is the old name's.
const IFA_KEPT: [u16; 5] = [1, 2, 4, 9, 11];
const IFA_F_PERMANENT: u32 = 0x80;
/// What whoever set the address chose: no duplicate address detection, home address, no prefix route, and the like.
const IFA_F_CHOSEN: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
const RT_SCOPE_UNIVERSE: u8 = 0;

pub fn check(devices: &BTreeMap<String, NetDevice>) -> Result<()> {
    let mut taken = BTreeSet::new();
    for (name, device) in devices {
        let inside = inside_name(name, device);
        for (what, name) in [("", name.as_str()), (".name", inside)] {
            if !is_valid(name) {
                return Err(Fault::input(format!(
                    "linux.netDevices{what}: invalid network device name {name:?}"
                ))
                .hint("a name has 1 to 15 characters, none of them a slash, colon or space"));
            }
        }
        if !taken.insert(inside) && !inside.contains('%') {
            return Err(Fault::input(format!("linux.netDevices: two devices are to be named {inside:?}")));
        }
    }
    Ok(())
}

fn inside_name<'a>(name: &'a str, device: &'a NetDevice) -> &'a str {
    if device.name.is_empty() { name } else { &device.name }
}

/// As the kernel's dev_valid_name().
fn is_valid(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(['/', ':', '\0', ' ', '\t', '\n', '\u{b}', '\u{c}', '\r'])
}

/// Moves devices out of this process's network namespace into another, keeps the addresses the specification wants kept, and
/// brings them up. Takes CAP_NET_ADMIN here and CAP_SYS_ADMIN; the caller must have one thread.
///
/// What was moved before a failure stays in the namespace: the kernel gives devices back when that ends, as the
/// specification has it.
pub fn move_into(devices: &BTreeMap<String, NetDevice>, namespace: BorrowedFd<'_>) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    if is_own(namespace, "net") {
        return Err(Fault::input(
            "linux.netDevices: the container's network namespace is the one they are in",
        ));
    }
    let here = Network(Socket::open().explain(|| "open a netlink socket".into())?);
    let there = Network(open_in(namespace)?);
    for (name, device) in devices {
        move_one(&here, &there, name, inside_name(name, device), namespace)
            .map_err(|fault| fault.within(format!("linux.netDevices: move {name}")))?;
    }
    Ok(())
}

fn move_one(
    here: &Network,
    there: &Network,
    name: &str,
    inside: &str,
    namespace: BorrowedFd<'_>,
) -> Result<()> {
    let link =
        here.link(name)?.ok_or_else(|| Fault::not_found(format!("there is no network device {name:?}")))?;
    let numbered = inside.contains('%');
    if !numbered && there.link(inside)?.is_some() {
        return Err(Fault::conflict(format!("the container has a network device {inside:?} already"))
            .hint("give another name, or one with %d for the kernel to number"));
    }
    let addresses = here.addresses(link)?;
    let before = if numbered { there.links()? } else { Vec::new() };
    here.move_link(link, inside, namespace)?;
    let moved = if numbered {
        there.links()?.into_iter().find(|index| !before.contains(index))
    } else {
        there.link(inside)?
    };
    let moved = moved.ok_or_else(|| Fault::failed("it has not arrived"))?;
    for address in &addresses {
        there.add_address(moved, address)?;
    }
    there.bring_up(moved)
}

/// The socket of another namespace, which is entered for a moment.
fn open_in(namespace: BorrowedFd<'_>) -> Result<Socket> {
    let own = openat(CWD, "/proc/thread-self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .explain(|| "open the own network namespace".into())?;
    let enter = |fd: BorrowedFd<'_>| move_into_link_name_space(fd, Some(LinkNameSpaceType::Network));
    enter(namespace).explain(|| "enter the container's network namespace".into())?;
    let socket = Socket::open();
    enter(own.as_fd()).explain(|| "return to the own network namespace".into())?;
    socket.explain(|| "open a netlink socket".into())
}

/// An address as it will be set again.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    flags: u32,
    attributes: Vec<(u16, Vec<u8>)>,
}

struct Network(Socket);

impl Network {
    fn ask(&self, request: Request, what: impl FnOnce() -> String) -> Result<Vec<Reply>> {
        self.0.ask(request).map_err(std::io::Error::from).explain(what)
    }

    /// Index of a link.
    fn link(&self, name: &str) -> Result<Option<i32>> {
        let request =
            Request::new(RTM_GETLINK, 0, &link_header(0, 0, 0)).attribute(IFLA_IFNAME, &c_string(name));
        match self.0.ask(request) {
            Ok(replies) => Ok(indexes(&replies).next()),
            Err(Errno::NODEV) => Ok(None),
            Err(error) => {
                Err(std::io::Error::from(error)).explain(|| format!("look for the network device {name:?}"))
            }
        }
    }

    fn links(&self) -> Result<Vec<i32>> {
        let request = Request::new(RTM_GETLINK, NLM_F_DUMP, &link_header(0, 0, 0));
        Ok(indexes(&self.ask(request, || "list the network devices".into())?).collect())
    }

    /// Those of a link that go with it.
    fn addresses(&self, link: i32) -> Result<Vec<Address>> {
        let request = Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_BYTES]);
        let replies = self.ask(request, || "list the addresses".into())?;
        Ok(replies.iter().filter_map(|reply| kept_address(reply, link)).collect())
    }

    /// Into another namespace and to another name at once, so that it has at no time a name that is taken.
    fn move_link(&self, link: i32, name: &str, namespace: BorrowedFd<'_>) -> Result<()> {
        let request = Request::new(RTM_SETLINK, 0, &link_header(link, 0, 0))
            .attribute(IFLA_IFNAME, &c_string(name))
            .attribute(IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        self.ask(request, || "move it into the container's network namespace".into()).map(drop).map_err(
            |fault| match fault.os_error() {
                Some(libc::EPERM) => fault.hint("it takes CAP_NET_ADMIN in both namespaces"),
                Some(libc::EINVAL) => {
                    fault.hint("some devices cannot be moved, as bridges' ports and loopback")
                }
                _ => fault,
            },
        )
    }

    fn add_address(&self, link: i32, address: &Address) -> Result<()> {
        let mut header = [0; ADDRESS_BYTES];
        header[..2].copy_from_slice(&[address.family, address.prefix]);
        header[4..].copy_from_slice(&link.to_ne_bytes());
        let mut request = Request::new(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &header)
            .attribute(IFA_FLAGS, &address.flags.to_ne_bytes());
        for (kind, value) in &address.attributes {
            request = request.attribute(*kind, value);
        }
        self.ask(request, || "set an address again".into()).map(drop)
    }

    fn bring_up(&self, link: i32) -> Result<()> {
        let request = Request::new(RTM_SETLINK, 0, &link_header(link, IFF_UP, IFF_UP));
        self.ask(request, || "bring it up".into()).map(drop)
    }
}

/// `struct ifinfomsg`.
fn link_header(index: i32, flags: u32, change: u32) -> [u8; LINK_BYTES] {
    let mut header = [0; LINK_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&change.to_ne_bytes());
    header
}

fn indexes(replies: &[Reply]) -> impl Iterator<Item = i32> {
    replies.iter().filter(|reply| reply.kind == RTM_NEWLINK).filter_map(|reply| i32_at(&reply.body, 4))
}

fn c_string(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// An address of the link that is permanent and of global scope.
fn kept_address(reply: &Reply, link: i32) -> Option<Address> {
    let header = reply.body.get(..ADDRESS_BYTES).filter(|_| reply.kind == RTM_NEWADDR)?;
    let (family, prefix, scope) = (header[0], header[1], header[3]);
    if i32_at(header, 4)? != link || scope != RT_SCOPE_UNIVERSE {
        return None;
    }
    let all: Vec<(u16, &[u8])> = attributes(&reply.body, ADDRESS_BYTES).collect();
    // The header has room for eight of them only.
    let flags = all.iter().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, value)| u32_at(value, 0));
    let flags = flags.unwrap_or_else(|| u32::from(header[2]));
    if flags & IFA_F_PERMANENT == 0 {
        return None;
    }
    let attributes = all
        .into_iter()
        .filter(|(kind, _)| IFA_KEPT.contains(kind))
        .map(|(kind, value)| (kind, value.to_vec()))
        .collect();
    Some(Address { family, prefix, flags: flags & IFA_F_CHOSEN, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        let devices = |json: &str| check(&serde_json::from_str(json).unwrap());
        devices(r#"{"eth0":{},"eth1":{"name":"ctr_eth1"},"a":{"name":"eth%d"},"b":{"name":"eth%d"}}"#)
            .unwrap();
        for json in [
            r#"{"":{}}"#,
            r#"{"sixteen_bytes_xx":{}}"#,
            r#"{"eth0":{"name":"a/b"}}"#,
            r#"{"eth0":{"name":"a:b"}}"#,
            r#"{"eth0":{"name":".."}}"#,
            r#"{"eth0":{"name":"a b"}}"#,
            r#"{"eth0":{"name":"x"},"eth1":{"name":"x"}}"#,
            r#"{"eth0":{"name":"eth1"},"eth1":{}}"#,
        ] {
            assert!(devices(json).is_err(), "{json}");
        }
        let many: BTreeMap<String, NetDevice> =
            (0..200_000).map(|n| (format!("d{n}"), serde_json::from_str("{}").unwrap())).collect();
        let begun = std::time::Instant::now();
        check(&many).unwrap();
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }

    #[test]
    fn permanent_global_addresses_are_kept() {
        let reply = |scope: u8, flags: u32, link: i32| {
            let mut body = vec![2, 24, 0x80, scope];
            body.extend_from_slice(&link.to_ne_bytes());
            for (kind, value) in [(2u16, [10, 0, 0, 1]), (3, *b"eth\0"), (IFA_FLAGS, flags.to_ne_bytes())] {
                body.extend_from_slice(&8u16.to_ne_bytes());
                body.extend_from_slice(&kind.to_ne_bytes());
                body.extend_from_slice(&value);
            }
            Reply { kind: RTM_NEWADDR, body }
        };
        let kept = kept_address(&reply(0, 0x280, 7), 7).unwrap();
        let wanted =
            Address { family: 2, prefix: 24, flags: 0x200, attributes: vec![(2, vec![10, 0, 0, 1])] };
        assert_eq!(kept, wanted);
        assert_eq!(kept_address(&reply(0, 0x200, 7), 7), None, "not permanent");
        assert_eq!(kept_address(&reply(254, 0x80, 7), 7), None, "not global");
        assert_eq!(kept_address(&reply(0, 0x80, 8), 7), None, "another link's");
        let short = Reply { kind: RTM_NEWADDR, body: vec![2, 24] };
        assert_eq!(kept_address(&short, 7), None);
    }
}
