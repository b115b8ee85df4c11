//! Links and firewall, tried out in a network namespace that is thrown away.

use crate::{Row, text};
use nix::sched::{CloneFlags, unshare};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{recv, sendto, socket_with};

pub fn rows() -> Vec<Row> {
    // A thread of its own: a network namespace belongs to a thread and ends with it.
    let tried = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| Errno::from_raw_os_error(error as i32))?;
        Ok((make_link("veth"), make_link("bridge"), ask_firewall()))
    })
    .join()
    .unwrap_or(Err(Errno::IO));
    let mut rows = if let Ok((veth, bridge, firewall)) = tried {
        vec![
            judge("link-veth", veth, "load it: modprobe veth"),
            judge("link-bridge", bridge, "load it: modprobe bridge"),
            judge("nftables", firewall, "load it: modprobe nf_tables"),
        ]
    } else {
        let hint = "run sys-check as root to see; without, use --network none or host";
        ["link-veth", "link-bridge", "nftables"]
            .map(|name| Row::warn(name, "not allowed to try", hint))
            .into()
    };
    rows.push(forwarding());
    rows.push(other_firewalls());
    rows
}

/// A packet has to pass all firewalls there are.
fn other_firewalls() -> Row {
    const NAME: &str = "other-firewalls";
    let Ok(obstacles) = ::network::obstacles() else {
        return Row::warn(NAME, "not allowed to look", "run sys-check as root to see");
    };
    if obstacles.is_empty() {
        return Row::ok(NAME, "none drops packets of containers");
    }
    let chains: Vec<&str> = obstacles.iter().map(|one| one.chain.as_str()).collect();
    let mut remedies: Vec<&str> = obstacles.iter().map(|one| one.remedy.as_str()).collect();
    remedies.dedup();
    let what = format!("packets are dropped unless a rule accepts them: {}", chains.join(", "));
    Row::warn(NAME, what, remedies.join("; "))
}

fn judge(name: &'static str, tried: Result<(), Errno>, hint: &str) -> Row {
    match tried {
        Ok(()) => Row::ok(name, "works"),
        Err(Errno::OPNOTSUPP | Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT | Errno::INVAL) => {
            Row::missing(name, "not in this kernel", format!("{hint}; without, use --network none or host"))
        }
        Err(error) => {
            Row::missing(name, error.to_string(), format!("{hint}; without, use --network none or host"))
        }
    }
}

fn forwarding() -> Row {
    const NAME: &str = "ip-forward";
    const FILE: &str = "/proc/sys/net/ipv4/ip_forward";
    match text(FILE).as_deref() {
        Some("1") => Row::ok(NAME, "on"),
        Some(_) => Row::warn(
            NAME,
            "off",
            "containers on a bridge need it; net-attach turns it on (as sysctl -w net.ipv4.ip_forward=1 does)",
        ),
        None => Row::missing(
            NAME,
            "no IPv4",
            format!("mount /proc, or use a kernel with IPv4 ({FILE} is not there)"),
        ),
    }
}

// rtnetlink(7), netlink(7), linux/if_link.h, linux/netfilter/nf_tables.h
const RTM_NEWLINK: u16 = 16;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_GETGEN: u16 = 16;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const NLA_F_NESTED: u16 = 0x8000;

/// Makes a link of this kind; it goes with the namespace.
fn make_link(kind: &str) -> Result<(), Errno> {
    let kind = attribute(IFLA_INFO_KIND, kind.as_bytes());
    // struct ifinfomsg, all zero: any index, no flags.
    let mut body = vec![0; 16];
    body.extend(attribute(IFLA_LINKINFO | NLA_F_NESTED, &kind));
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    // NETLINK_ROUTE is protocol 0, the default.
    request(None, RTM_NEWLINK, flags, &body)
}

/// Asks nftables for the number of its rule set's generation.
fn ask_firewall() -> Result<(), Errno> {
    // struct nfgenmsg: any family, version 0, no resource.
    let kind = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN;
    request(Some(netlink::NETFILTER), kind, NLM_F_REQUEST, &[0; 4])
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = (4 + value.len()) as u16;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends one request and returns the error of the answer, if it is one.
fn request(protocol: Option<Protocol>, kind: u16, flags: u16, body: &[u8]) -> Result<(), Errno> {
    let socket: OwnedFd =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
    let mut message = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    // Sequence number 1, the kernel's own port 0.
    message.extend(1_u32.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(body);
    sendto(&socket, &message, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0_u8; 4096];
    let (length, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    error_of(answer.get(..length).unwrap_or_default())
}

/// The error an answer carries: none, if it is data or an error of 0.
fn error_of(answer: &[u8]) -> Result<(), Errno> {
    let is_error = answer.get(4..6).is_some_and(|kind| kind == NLMSG_ERROR.to_ne_bytes());
    if !is_error {
        return Ok(());
    }
    let number: [u8; 4] = answer.get(16..20).and_then(|n| n.try_into().ok()).ok_or(Errno::IO)?;
    match i32::from_ne_bytes(number) {
        0 => Ok(()),
        number => Err(Errno::from_raw_os_error(number.wrapping_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_but_tell_their_true_length() {
        let attribute = attribute(1, b"veth1");
        assert_eq!(attribute.len(), 12);
        assert_eq!(attribute[..2], 9_u16.to_ne_bytes());
    }

    #[test]
    fn a_short_answer_is_no_success() {
        assert!(error_of(&[0, 0, 0, 0, 2, 0, 0, 0]).is_err() || cfg!(target_endian = "big"));
    }
}
