//! Links, addresses and routes (rtnetlink(7)).

use crate::definition::{DEFAULT, Definition, Route};
use crate::netlink::{ACK, CREATE, DUMP, EXCL, Messages, REPLACE, Reply, Socket, attribute, text};
use crate::subnet::Subnet;
use fault::{Explain, Fault, Result};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridgePort, InfoData, InfoKind, InfoPortData,
    InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_GROUP: u16 = 27;
const IFF_UP: u32 = 1;
const LINK_HEADER: usize = 16;
/// linux/rtnetlink.h, of routes.
pub const ROUTE_HEADER: usize = 12;
pub const RTA_OIF: u16 = 4;
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
    /// Links of one network that share no bridge share this number.
    pub group: u32,
    pub up: bool,
}

/// The pair to make for an attachment.
pub struct Veth<'a> {
    /// On the host.
    pub name: &'a str,
    /// In the container.
    pub peer: &'a str,
    pub namespace: BorrowedFd<'a>,
    pub mac: [u8; 6],
    pub mtu: Option<u32>,
    pub end: End,
}

/// What the host's end of a pair is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Port {
        bridge: u32,
        /// The container may reach itself through the host: frames may leave by the port they came in.
        hairpin: bool,
        /// It does not reach other ports of the bridge that are so, too.
        isolated: bool,
    },
    /// An interface of the host's own, see [`crate::routed`].
    Routed {
        group: u32,
        /// Of the host's end: what containers send to the gateway.
        mac: [u8; 6],
    },
}

/// Name on the host of a container's interface on a network: as many digits as fit of its id on the default network, of
/// a digest of both on others.
pub fn host_interface(id: &str, network: &str) -> String {
    if network == DEFAULT {
        return format!("{PREFIX}{}", id.get(..12).unwrap_or(id));
    }
    // FNV-1a: ids are random, so that this only has to carry that on.
    let bytes = id.bytes().chain([0]).chain(network.bytes());
    let digest = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{PREFIX}{:012x}", digest >> 16)
}

/// docker's way to make an address for the hardware out of the one for IP: neighbours' tables stay right when an
/// address goes to another container.
pub fn mac_of(address: IpAddr) -> [u8; 6] {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            [0x02, 0x42, a, b, c, d]
        }
        IpAddr::V6(v6) => {
            let o = v6.octets();
            // A digest of the upper half in the second byte; the lower one differs between neighbours.
            let upper = o[..12].iter().fold(0_u8, |sum, byte| sum.rotate_left(3) ^ byte);
            [0x02, upper, o[12], o[13], o[14], o[15]]
        }
    }
}

pub fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut bytes = [0_u8; 6];
    let mut parts = text.split(['-', ':']);
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    // Multicast addresses are no interface's.
    (parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6]).then_some(bytes)
}

pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// What the kernel uses of a veth in any case. Left to itself it makes one per processor, then takes the others away
/// again, and waits for all processors to have seen it.
const ONE_QUEUE: [LinkAttribute; 2] = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];

/// Makes a pair, one end on the host, on the bridge and up if there is one, the other in the container, in one request. The other cannot be up
/// at once, because the kernel makes it before it has something to be connected with. Nor may one be that is not on a bridge, see
/// [`crate::routed::lead_to`].
///
/// The error is the kernel's: `EEXIST` when one of the names is taken, `ENODEV` when the bridge is gone.
pub fn make_veth(host: &Socket, veth: &Veth<'_>) -> io::Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes.push(LinkAttribute::IfName(veth.peer.to_owned()));
    peer.attributes.push(LinkAttribute::Address(veth.mac.to_vec()));
    peer.attributes.push(LinkAttribute::NetNsFd(veth.namespace.as_raw_fd()));
    peer.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    peer.attributes.extend(ONE_QUEUE);
    let mut link = match veth.end {
        End::Port { .. } => link_up(),
        End::Routed { .. } => LinkMessage::default(),
    };
    link.attributes.push(LinkAttribute::IfName(veth.name.to_owned()));
    match veth.end {
        End::Port { bridge, .. } => link.attributes.push(LinkAttribute::Controller(bridge)),
        End::Routed { group, mac } => {
            link.attributes.extend([LinkAttribute::Group(group), LinkAttribute::Address(mac.to_vec())]);
        }
    }
    link.attributes.extend(veth.mtu.map(LinkAttribute::Mtu));
    link.attributes.extend(ONE_QUEUE);
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ]));
    let mut messages = Messages::new();
    messages.push_route(ACK | CREATE | EXCL, Message::NewLink(link));
    if let End::Port { hairpin, isolated, .. } = veth.end {
        let port = [(hairpin, InfoBridgePort::HairpinMode(true)), (isolated, InfoBridgePort::Isolated(true))];
        for (_, property) in port.into_iter().filter(|(has, _)| *has) {
            messages.push_route(ACK, Message::NewLink(bridge_port(veth.name, property)));
        }
    }
    // A port needs no address. With one, each would tell all others of it, and add a route to those the kernel goes through.
    // There may be no IPv6, on this machine or on links with so small packets.
    let mut no_address = LinkMessage::default();
    no_address.attributes.push(LinkAttribute::IfName(veth.name.to_owned()));
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    no_address.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![mode])]));
    messages.push_route(ACK, Message::SetLink(no_address)).optional();
    host.request(&messages)
}

/// Lets a container whose ports are published after all reach itself through them.
pub fn set_hairpin(host: &Socket, name: &str) -> io::Result<()> {
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::NewLink(bridge_port(name, InfoBridgePort::HairpinMode(true))));
    host.request(&messages)
}

/// Puts a link that is there on a bridge, as it was when it was made.
pub fn put_on_bridge(host: &Socket, name: &str, bridge: u32, hairpin_mode: bool) -> io::Result<()> {
    let mut link = link_up();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::Controller(bridge));
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::NewLink(link));
    if hairpin_mode {
        messages.push_route(ACK, Message::NewLink(bridge_port(name, InfoBridgePort::HairpinMode(true))));
    }
    host.request(&messages)
}

/// Keeps a container and its neighbours apart, or lets them meet.
pub fn set_isolated(host: &Socket, name: &str, isolated: bool) -> io::Result<()> {
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::NewLink(bridge_port(name, InfoBridgePort::Isolated(isolated))));
    host.request(&messages)
}

fn bridge_port(name: &str, property: InfoBridgePort) -> LinkMessage {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![property])),
    ]));
    link
}

/// What an interface in a container is to have.
pub struct Setup<'a> {
    /// Its name once it is configured; the same as now, mostly.
    pub interface: &'a str,
    /// With prefix lengths and, of the pool, broadcast addresses.
    pub addresses: &'a [(IpAddr, u8)],
    /// What is reached at once where nothing else is: the hosts there, and what leads on to others.
    pub on_link: &'a [OnLink],
    /// Ways out, one of a family at the most.
    pub gateways: &'a [IpAddr],
    /// Further ways.
    pub routes: &'a [Route],
    pub mtu: Option<u32>,
}

/// A host at the other end of a pair, and what lies behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnLink {
    pub host: IpAddr,
    pub mac: [u8; 6],
    pub behind: Option<Subnet>,
}

/// Inside the container: loopback up, the interface's addresses, the ways out. One packet.
pub fn configure(inside: &Socket, setup: &Setup<'_>) -> Result<()> {
    let what = || format!("configure {} in the container", setup.interface);
    let index = index_of(inside, setup.interface)
        .explain(what)?
        .ok_or_else(|| Fault::failed(format!("{} vanished from the container", setup.interface)))?;
    let mut loopback = link_up();
    loopback.header.index = LOOPBACK_INDEX;
    let mut interface_up = link_up();
    interface_up.header.index = index;
    interface_up.attributes.extend(setup.mtu.map(LinkAttribute::Mtu));
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::SetLink(loopback));
    messages.push_route(ACK, Message::SetLink(interface_up));
    for (address, prefix) in setup.addresses {
        let message = address_message(index, *address, *prefix);
        messages.push_route(ACK | CREATE | REPLACE, Message::NewAddress(message));
    }
    for one in setup.on_link {
        push_on_link(&mut messages, index, one, None, REPLACE);
    }
    for gateway in setup.gateways {
        messages.push_route(ACK | CREATE | REPLACE, Message::NewRoute(default_route(index, *gateway)));
    }
    for route in setup.routes {
        messages.push_route(ACK | CREATE | REPLACE, Message::NewRoute(route_message(index, route)));
    }
    inside.request(&messages).explain(what)
}

/// Leads packets for a host at the other end of a link there, and by it what lies behind; nobody has to ask who it is. With `source`
/// this host's own packets to it bear that address. `how` is [`REPLACE`], or [`EXCL`] to fail with `EEXIST` where it is led there.
pub fn push_on_link(messages: &mut Messages, index: u32, one: &OnLink, source: Option<IpAddr>, how: u16) {
    let mut neighbour = NeighbourMessage::default();
    neighbour.header.family = family(one.host);
    neighbour.header.ifindex = index;
    neighbour.header.state = NeighbourState::Permanent;
    neighbour.attributes = vec![
        NeighbourAttribute::Destination(match one.host {
            IpAddr::V4(v4) => NeighbourAddress::Inet(v4),
            IpAddr::V6(v6) => NeighbourAddress::Inet6(v6),
        }),
        NeighbourAttribute::LinkLayerAddress(one.mac.to_vec()),
    ];
    messages.push_route(ACK | CREATE | REPLACE, Message::NewNeighbour(neighbour));
    let mut route = RouteMessage::default();
    route.header.address_family = family(one.host);
    route.header.table = MAIN_TABLE;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = if one.host.is_ipv6() { RouteScope::Universe } else { RouteScope::Link };
    route.header.kind = RouteType::Unicast;
    route.header.destination_prefix_length = if one.host.is_ipv6() { 128 } else { 32 };
    route.attributes = vec![RouteAttribute::Destination(route_address(one.host)), RouteAttribute::Oif(index)];
    route.attributes.extend(source.map(|source| RouteAttribute::PrefSource(route_address(source))));
    messages.push_route(ACK | CREATE | how, Message::NewRoute(route));
    if let Some(destination) = one.behind {
        let route = Route { destination, gateway: one.host, metric: None };
        messages.push_route(ACK | CREATE | REPLACE, Message::NewRoute(route_message(index, &route)));
    }
}

/// A namespace with loopback alone.
pub fn set_loopback_up(inside: &Socket) -> Result<()> {
    let mut loopback = link_up();
    loopback.header.index = LOOPBACK_INDEX;
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::SetLink(loopback));
    inside.request(&messages).explain(|| "set up lo in the container".into())
}

/// Gives an interface of the container, already there, the container's ways out, or takes them from it.
pub fn set_default_routes(inside: &Socket, interface: &str, gateways: &[IpAddr]) -> Result<()> {
    let what = || format!("change the container's way out to {interface}");
    let Some(index) = index_of(inside, interface).explain(what)? else { return Ok(()) };
    let mut messages = Messages::new();
    for gateway in gateways {
        messages.push_route(ACK | CREATE | REPLACE, Message::NewRoute(default_route(index, *gateway)));
    }
    inside.request(&messages).explain(what)
}

/// Makes the bridge if there is none, not up yet; returns its index.
pub fn make_bridge(host: &Socket, network: &Definition) -> Result<u32> {
    let what = || format!("make bridge {}", network.device);
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(network.device.clone()));
    // Without an address of its own a bridge takes that of a port, and changes it when the port goes.
    link.attributes.extend(bridge_mac(network).map(|mac| LinkAttribute::Address(mac.to_vec())));
    link.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]));
    let mut messages = Messages::new();
    messages.push_route(ACK | CREATE | EXCL, Message::NewLink(link));
    match host.request(&messages) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error).explain(what),
        _ => {}
    }
    Ok(find_bridge(host, network)?.ok_or_else(|| Fault::failed(what()))?.index)
}

/// Gives the bridge its addresses and its largest packet, and sets it up. `ours` is a bridge that was made for a network,
/// whose definition may have been another one: it is known by its hardware address, which follows its first subnet.
pub fn configure_bridge(host: &Socket, network: &Definition, index: u32, ours: bool) -> Result<()> {
    let mut up = link_up();
    up.header.index = index;
    up.attributes.extend(network.mtu.map(LinkAttribute::Mtu));
    if ours {
        up.attributes.extend(bridge_mac(network).map(|mac| LinkAttribute::Address(mac.to_vec())));
    }
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::SetLink(up));
    for pool in &network.pools {
        let address = address_message(index, pool.gateway, pool.subnet.prefix);
        messages.push_route(ACK | CREATE | REPLACE, Message::NewAddress(address));
    }
    host.request(&messages).explain(|| format!("configure bridge {}", network.device))
}

/// Takes an address from an interface that may not have it.
pub fn remove_address(host: &Socket, index: u32, address: IpAddr, prefix: u8) -> io::Result<()> {
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::DelAddress(address_message(index, address, prefix)));
    match host.request(&messages) {
        Err(error) if error.raw_os_error() != Some(rustix::io::Errno::ADDRNOTAVAIL.raw_os_error()) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// By which a bridge is known for one of ours.
pub fn bridge_mac(network: &Definition) -> Option<[u8; 6]> {
    network.pools.first().map(|pool| mac_of(pool.gateway))
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

/// Index of the link by which this host sends to an address; `None` if it does not.
pub fn way_to(socket: &Socket, address: IpAddr) -> Option<u32> {
    let mut question = RouteMessage::default();
    question.header.address_family = family(address);
    question.header.destination_prefix_length = if address.is_ipv6() { 128 } else { 32 };
    question.attributes.push(RouteAttribute::Destination(route_address(address)));
    let mut messages = Messages::new();
    messages.push_route(0, Message::GetRoute(question));
    let replies = socket.ask(&messages).ok()?;
    let attributes = replies.first()?.body.get(ROUTE_HEADER..)?;
    attribute(attributes, RTA_OIF).and_then(|index| Some(u32::from_ne_bytes(index.try_into().ok()?)))
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
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    let index = number(reply.body.get(4..8)?)?;
    let flags = number(reply.body.get(8..12)?)?;
    let attributes = reply.body.get(LINK_HEADER..)?;
    let info = attribute(attributes, IFLA_LINKINFO).unwrap_or_default();
    Some(Link {
        index,
        name: text(attribute(attributes, IFLA_IFNAME)?).to_owned(),
        kind: attribute(info, IFLA_INFO_KIND).map(text).unwrap_or_default().to_owned(),
        master: attribute(attributes, IFLA_MASTER).and_then(number),
        mac: attribute(attributes, IFLA_ADDRESS).and_then(|v| v.try_into().ok()),
        group: attribute(attributes, IFLA_GROUP).and_then(number).unwrap_or_default(),
        up: flags & IFF_UP != 0,
    })
}

pub fn link_up() -> LinkMessage {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    match address {
        IpAddr::V4(_) => {
            message.header.family = AddressFamily::Inet;
            // Of a single address it would be the same.
            let broadcast = (prefix < 31).then(|| Subnet::around(address, prefix).broadcast()).flatten();
            message.attributes.extend(broadcast.map(AddressAttribute::Broadcast));
        }
        IpAddr::V6(_) => {
            message.header.family = AddressFamily::Inet6;
            // Leases see to it that nobody else has it, and until the kernel has made sure it could not be used.
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
    }
    message
}

fn route_message(index: u32, way: &Route) -> RouteMessage {
    let mut route = default_route(index, way.gateway);
    route.header.destination_prefix_length = way.destination.prefix;
    route.attributes.push(RouteAttribute::Destination(route_address(way.destination.base())));
    route.attributes.extend(way.metric.map(RouteAttribute::Priority));
    route
}

fn default_route(index: u32, gateway: IpAddr) -> RouteMessage {
    let mut route = RouteMessage::default();
    route.header.address_family = family(gateway);
    route.header.table = MAIN_TABLE;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    route.attributes = vec![RouteAttribute::Gateway(route_address(gateway)), RouteAttribute::Oif(index)];
    route
}

fn route_address(address: IpAddr) -> RouteAddress {
    match address {
        IpAddr::V4(v4) => RouteAddress::Inet(v4),
        IpAddr::V6(v6) => RouteAddress::Inet6(v6),
    }
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet }
}
