//! Links, addresses and routes (rtnetlink(7)).

use crate::definition::Definition;
use crate::netlink::{ACK, CREATE, DUMP, EXCL, Messages, REPLACE, Reply, Socket, attribute, text};
use fault::{Explain, Fault, Result};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoKind, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const LINK_HEADER: usize = 16;
const MAIN_TABLE: u8 = 254;
const LOOPBACK_INDEX: u32 = 1;

/// Begins the host's interface names of ours.
pub const PREFIX: &str = "stv";

/// A link as the kernel tells of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub kind: String,
    pub master: Option<u32>,
    pub mac: Option<[u8; 6]>,
}

/// The pair to make for an attachment.
pub struct Veth<'a> {
    /// On the host.
    pub name: &'a str,
    /// In the container.
    pub peer: &'a str,
    pub namespace: BorrowedFd<'a>,
    pub bridge: u32,
    pub mac: [u8; 6],
    /// The container may reach itself through the host: frames may leave by the port they came in.
    pub hairpin: bool,
}

/// Name on the host of a container's interface: as many digits of its id as fit.
pub fn host_interface(id: &str) -> String {
    format!("{PREFIX}{}", id.get(..12).unwrap_or(id))
}

/// docker's way to make an address for the hardware out of the one for IP: neighbours' tables stay right when an
/// address goes to another container.
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}

pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What the kernel uses of a veth in any case. Left to itself it makes one per processor, then takes the others away
/// again, and waits for all processors to have seen it.
const ONE_QUEUE: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// Makes a pair, one end on the bridge and up, the other in the container, in one request. The other cannot be up
/// at once, because the kernel makes it before it has something to be connected with.
///
/// The error is the kernel's: `EEXIST` when one of the names is taken, `ENODEV` when the bridge is gone.
pub fn make_veth(host: &Socket, veth: &Veth<'_>) -> io::Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(veth.peer.to_owned()));
    peer.attributes.push(LinkAttribute::Address(veth.mac.to_vec()));
    peer.attributes.push(LinkAttribute::NetNsFd(veth.namespace.as_raw_fd()));
    peer.attributes.extend(ONE_QUEUE);
    let mut link = link_up();
    link.attributes.push(LinkAttribute::IfName(veth.name.to_owned()));
    link.attributes.push(LinkAttribute::Controller(veth.bridge));
    link.attributes.extend(ONE_QUEUE);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let mut messages = Messages::new();
    messages.push_route(ACK | CREATE | EXCL, Message::NewLink(link));
    if veth.hairpin {
        messages.push_route(ACK, Message::NewLink(hairpin(veth.name)));
    }
    host.request(&messages)
}

/// Lets a container whose ports are published after all reach itself through them.
pub fn set_hairpin(host: &Socket, name: &str) -> io::Result<()> {
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::NewLink(hairpin(name)));
    host.request(&messages)
}

fn hairpin(name: &str) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)])),
    ]));
    link
}

/// Inside the container: loopback up, the interface's address, the way out. One packet.
pub fn configure(inside: &Socket, interface: &str, address: Ipv4Addr, network: &Definition) -> Result<()> {
    let what = || format!("configure {interface} in the container");
    let index = index_of(inside, interface)
        .explain(what)?
        .ok_or_else(|| Fault::failed(format!("{interface} vanished from the container")))?;
    let mut loopback = link_up();
    loopback.header.index = LOOPBACK_INDEX;
    let mut interface_up = link_up();
    interface_up.header.index = index;
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::SetLink(loopback));
    messages.push_route(ACK, Message::SetLink(interface_up));
    messages
        .push_route(ACK | CREATE | REPLACE, Message::NewAddress(address_message(index, address, network)));
    messages.push_route(ACK | CREATE | REPLACE, Message::NewRoute(default_route(index, network.gateway)));
    inside.request(&messages).explain(what)
}

/// Makes the bridge if there is none, with its address; returns its index.
pub fn make_bridge(host: &Socket, network: &Definition) -> Result<u32> {
    let what = || format!("make bridge {}", network.device);
    let mut link = link_up();
    link.attributes.push(LinkAttribute::IfName(network.device.clone()));
    // Without an address of its own a bridge takes that of a port, and changes it when the port goes.
    link.attributes.push(LinkAttribute::Address(mac_of(network.gateway).to_vec()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    let mut messages = Messages::new();
    messages.push_route(ACK | CREATE | EXCL, Message::NewLink(link));
    match host.request(&messages) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).explain(what),
        _ => {}
    }
    let bridge = find_bridge(host, network)?.ok_or_else(|| Fault::failed(what()))?;
    let mut up = link_up();
    up.header.index = bridge.index;
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::SetLink(up));
    let address = address_message(bridge.index, network.gateway, network);
    messages.push_route(ACK | CREATE | REPLACE, Message::NewAddress(address));
    host.request(&messages).explain(what)?;
    Ok(bridge.index)
}

/// The network's bridge, if it is there. Fails with a conflict if something else has its name.
pub fn find_bridge(host: &Socket, network: &Definition) -> Result<Option<Link>> {
    let found = find(host, &network.device).explain(|| format!("look up {}", network.device))?;
    if found.as_ref().is_some_and(|link| link.kind != "bridge") {
        return Err(Fault::conflict("an interface of this name is no bridge")
            .on(network.device.as_str())
            .hint(format!("give network {} another device in its network.json", network.name)));
    }
    Ok(found)
}

/// Removes a link; `false` if there was none.
pub fn remove(host: &Socket, name: &str) -> Result<bool> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::DelLink(link));
    match host.request(&messages) {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(false),
        Err(error) => Err(error).explain(|| format!("remove interface {name}")),
    }
}

/// A link's index by its name, without waiting for the lock all changes of links take.
pub fn index_of(socket: &Socket, name: &str) -> io::Result<Option<u32>> {
    match rustix::net::netdevice::name_to_index(socket, name) {
        Ok(index) => Ok(Some(index)),
        Err(rustix::io::Errno::NODEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A link by its name.
pub fn find(socket: &Socket, name: &str) -> io::Result<Option<Link>> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut messages = Messages::new();
    messages.push_route(0, Message::GetLink(link));
    match socket.ask(&messages) {
        Ok(replies) => Ok(replies.iter().find_map(parse)),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All links. For the prune tools alone: it grows with them.
pub fn all(socket: &Socket) -> Result<Vec<Link>> {
    let mut messages = Messages::new();
    messages.push_route(DUMP, Message::GetLink(LinkMessage::default()));
    let replies = socket.ask(&messages).explain(|| "list interfaces".into())?;
    Ok(replies.iter().filter_map(parse).collect())
}

fn parse(reply: &Reply) -> Option<Link> {
    let index = u32::from_ne_bytes(reply.body.get(4..8)?.try_into().ok()?);
    let attributes = reply.body.get(LINK_HEADER..)?;
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    Some(Link {
        index,
        name: text(attribute(attributes, IFLA_IFNAME)?).to_owned(),
        kind: attribute(info, IFLA_INFO_KIND).map(text).unwrap_or_default().to_owned(),
        master: attribute(attributes, IFLA_MASTER).and_then(|v| Some(u32::from_ne_bytes(v.try_into().ok()?))),
        mac: attribute(attributes, IFLA_ADDRESS).and_then(|v| v.try_into().ok()),
    })
}

fn link_up() -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn address_message(index: u32, address: Ipv4Addr, network: &Definition) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = network.subnet.prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
        AddressAttribute::Broadcast(network.subnet.broadcast()),
    ];
    message
}

fn default_route(index: u32, gateway: Ipv4Addr) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = MAIN_TABLE;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    route
}
