//! Links of containers on top of one of the host's: macvlan and ipvlan.
//!
//! Such a link is made in the container's namespace at once, and goes with it; the host keeps nothing of it. What it is on
//! top of is an interface of the host's, one for a VLAN on top of that (`eth0.50`), or a dummy where nothing is to lead
//! out. The latter two are made here when they are missing, and carry an alias by which they are known for ours.

use crate::definition::{Definition, Driver, Parent};
use crate::host::{Host, Namespace};
use crate::link;
use crate::netlink::{ACK, CREATE, EXCL, Messages, REPLACE, Socket, attribute, text};
use fault::{Explain, Fault, Kind as FaultKind, Result};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::RouteNetlinkMessage as Message;
use rtnetlink::packet_route::link::{
    InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoVlan, IpVlanMode, LinkAttribute, LinkFlags, LinkInfo,
    LinkMessage, MacVlanMode,
};
use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

const IFLA_IFALIAS: u16 = 20;
const LINK_HEADER: usize = 16;
const MAIN_TABLE: u8 = 254;

/// Alias of the interfaces made here.
const OURS: &str = "made by staves";

/// What sort of link a network's containers get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Macvlan(MacVlanMode),
    Ipvlan(IpVlanMode),
}

impl Kind {
    /// With what it is on top of; `None` for networks of other drivers. Fails with input for a mode there is not.
    pub fn of(network: &Definition) -> Result<Option<(Kind, &Parent)>> {
        let unknown = |driver: &str, mode: &str, modes: &str| {
            Fault::input(format!("{driver} has no mode \"{mode}\""))
                .on(network.name.as_str())
                .hint(format!("its modes are {modes}"))
        };
        match &network.driver {
            Driver::Macvlan(parent) => {
                let mode = match parent.mode.as_deref().unwrap_or("bridge") {
                    "bridge" => MacVlanMode::Bridge,
                    "private" => MacVlanMode::Private,
                    "vepa" => MacVlanMode::Vepa,
                    "passthru" => MacVlanMode::Passthrough,
                    mode => return Err(unknown("macvlan", mode, "bridge, private, vepa and passthru")),
                };
                Ok(Some((Kind::Macvlan(mode), parent)))
            }
            Driver::Ipvlan(parent) => {
                let mode = match parent.mode.as_deref().unwrap_or("l2") {
                    "l2" => IpVlanMode::L2,
                    "l3" => IpVlanMode::L3,
                    "l3s" => IpVlanMode::L3S,
                    mode => return Err(unknown("ipvlan", mode, "l2, l3 and l3s")),
                };
                Ok(Some((Kind::Ipvlan(mode), parent)))
            }
            Driver::Bridge | Driver::Routed | Driver::None | Driver::Cni(_) => Ok(None),
        }
    }

    /// Whether the link may have a hardware address of its own choosing.
    pub fn has_mac(self) -> bool {
        // In passthru mode it would become the parent's.
        matches!(self, Kind::Macvlan(mode) if mode != MacVlanMode::Passthrough)
    }

    /// Whether the container's packets are routed by the kernel and no neighbours are asked for.
    pub fn is_routed(self) -> bool {
        matches!(self, Kind::Ipvlan(IpVlanMode::L3 | IpVlanMode::L3S))
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Macvlan(_) => "macvlan",
            Kind::Ipvlan(_) => "ipvlan",
        }
    }

    fn info(self) -> Vec<LinkInfo> {
        match self {
            Kind::Macvlan(mode) => vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(mode)])),
            ],
            Kind::Ipvlan(mode) => vec![
                LinkInfo::Kind(InfoKind::IpVlan),
                LinkInfo::Data(InfoData::IpVlan(vec![InfoIpVlan::Mode(mode)])),
            ],
        }
    }
}

/// The host's interface a network's links are on top of.
pub fn parent_interface(network: &Definition, parent: &Parent) -> String {
    // As long as a bridge's ports are called, and of another kind.
    parent.interface.clone().unwrap_or_else(|| link::host_interface("parent", &network.name))
}

/// Makes what the network's links are on top of, if that is missing and ours to make.
pub fn make_ready(host: &Host<'_>, network: &Definition) -> Result<()> {
    match Kind::of(network)? {
        Some((_, parent)) => parent_index(host.route()?, network, parent).map(drop),
        None => Ok(()),
    }
}

/// Makes the link in the container's namespace, and its parent if that is missing and ours to make.
///
/// Fails with a conflict if the container has an interface of this name already.
pub fn make(
    host: &Host<'_>,
    network: &Definition,
    namespace: &Namespace,
    interface: &str,
    mac: Option<[u8; 6]>,
) -> Result<()> {
    let Some((kind, parent)) = Kind::of(network)? else { return Ok(()) };
    let on_top_of = parent_interface(network, parent);
    let route = host.route()?;
    for last in [false, true] {
        let index = parent_index(route, network, parent)?;
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(interface.to_owned()));
        link.attributes.push(LinkAttribute::Link(index));
        link.attributes.push(LinkAttribute::NetNsFd(namespace.file().as_fd().as_raw_fd()));
        link.attributes
            .extend(mac.filter(|_| kind.has_mac()).map(|mac| LinkAttribute::Address(mac.to_vec())));
        link.attributes.extend(network.mtu.map(LinkAttribute::Mtu));
        link.attributes.push(LinkAttribute::LinkInfo(kind.info()));
        let mut messages = Messages::new();
        messages.push_route(ACK | CREATE | EXCL, Message::NewLink(link));
        let Err(error) = route.request(&messages) else { return Ok(()) };
        let what = || format!("make a link of {} on top of {on_top_of}", kind.name());
        return Err(match Errno::from_io_error(&error) {
            // Ours to make, and removed by who saw nobody use it.
            Some(Errno::NODEV) if !last => continue,
            Some(Errno::EXIST) => {
                Fault::conflict(format!("the container has an interface {interface} already"))
            }
            Some(Errno::PERM) => Fault::denied(what()).because(error).hint("run it as root"),
            Some(Errno::BUSY) => Fault::conflict(what()).because(error).hint(
                "an interface can be under links of macvlan or of ipvlan, not both, and under one in mode passthru",
            ),
            Some(Errno::OPNOTSUPP) => Fault::failed(what())
                .because(error)
                .hint(format!("the kernel has no {0}: load it with modprobe {0}", kind.name())),
            // So the kernel says it of one in mode passthru, and of one that is too large.
            Some(Errno::INVAL) if matches!(kind, Kind::Macvlan(_)) => Fault::conflict(what())
                .because(error)
                .hint(format!(
                    "under one in mode passthru {on_top_of} can be under no other; and no link is given a larger MTU than it has"
                )),
            _ => Fault::new(FaultKind::of_io(&error), what()).because(error),
        });
    }
    Err(Fault::retryable(format!("{on_top_of} is removed as often as it is made")).on(network.name.as_str()))
}

/// Routes out that need no gateway, for IPv4 and, where it says so, IPv6: the kernel routes what is sent, whoever it is for.
pub fn add_device_routes(inside: &Socket, interface: &str, ipv6: &[bool]) -> Result<()> {
    let what = || format!("give the container a way out by {interface}");
    let Some(index) = link::index_of(inside, interface).explain(what)? else {
        return Err(Fault::failed(format!("{interface} vanished from the container")));
    };
    let mut messages = Messages::new();
    for ipv6 in ipv6 {
        let mut route = RouteMessage::default();
        route.header.address_family = if *ipv6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        route.header.table = MAIN_TABLE;
        route.header.protocol = RouteProtocol::Boot;
        route.header.scope = RouteScope::Link;
        route.header.kind = RouteType::Unicast;
        route.attributes = vec![RouteAttribute::Oif(index)];
        messages.push_route(ACK | CREATE | REPLACE, Message::NewRoute(route));
    }
    if ipv6.is_empty() { Ok(()) } else { inside.request(&messages).explain(what) }
}

/// The link in the container's namespace, if it is one of this network's kind.
pub fn find(inside: &Socket, network: &Definition, interface: &str) -> Result<Option<link::Link>> {
    let Some((kind, _)) = Kind::of(network)? else { return Ok(None) };
    let found = link::find(inside, interface).explain(|| "look up the interface in the container".into())?;
    Ok(found.filter(|link| link.kind == kind.name()))
}

/// Takes the link out of a namespace that is still there.
pub fn remove(host: &Host<'_>, network: &Definition, namespace: &Namespace, interface: &str) -> Result<()> {
    let inside = host.socket_inside(namespace)?;
    match find(&inside, network, interface)? {
        Some(_) => link::remove(&inside, interface).map(drop),
        None => Ok(()),
    }
}

/// Hardware address of what the links are on top of, which with ipvlan is that of the links.
pub fn parent_mac(host: &Host<'_>, network: &Definition) -> Result<Option<[u8; 6]>> {
    let Some((_, parent)) = Kind::of(network)? else { return Ok(None) };
    let name = parent_interface(network, parent);
    let found = link::find(host.route()?, &name).explain(|| format!("look up {name}"))?;
    Ok(found.and_then(|link| link.mac))
}

/// Removes what was made for the network's links to be on top of, its name. The caller has made sure that nobody is
/// attached; if another network has the same parent it stays.
pub fn remove_parent(host: &Host<'_>, network: &Definition, dry_run: bool) -> Result<Option<String>> {
    let Some((_, parent)) = Kind::of(network)? else { return Ok(None) };
    let name = parent_interface(network, parent);
    for other in host.store.networks()?.iter().filter(|other| **other != network.name) {
        // One that cannot be read may be on top of it, too, but has nobody attached who would not be told.
        let Ok((other, _)) = Definition::preview(host.store, other) else { continue };
        let shares = Kind::of(&other)?.is_some_and(|(_, parent)| parent_interface(&other, parent) == name);
        if shares && !host.store.leases(&other.name)?.addresses()?.is_empty() {
            return Ok(None);
        }
    }
    let route = host.route()?;
    if !is_ours(route, &name).explain(|| format!("look up {name}"))? {
        return Ok(None);
    }
    let removed = dry_run || link::remove(route, &name)?;
    Ok(removed.then_some(name))
}

fn parent_index(route: &Socket, network: &Definition, parent: &Parent) -> Result<u32> {
    let name = parent_interface(network, parent);
    let look = || link::index_of(route, &name).explain(|| format!("look up {name}"));
    if let Some(index) = look()? {
        return Ok(index);
    }
    let made = match &parent.interface {
        None => make_parent(route, &name, None, vec![LinkInfo::Kind(InfoKind::Dummy)]),
        Some(interface) => {
            let missing = || {
                Fault::not_found(format!("the host has no interface {interface}"))
                    .on(network.name.as_str())
                    .hint("`ip link` lists them; eth0.50 is made of eth0, for VLAN 50")
            };
            let (trunk, id) = vlan_of(interface).ok_or_else(missing)?;
            let trunk = link::index_of(route, trunk).explain(|| format!("look up {trunk}"))?;
            let info =
                vec![LinkInfo::Kind(InfoKind::Vlan), LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)]))];
            make_parent(route, &name, Some(trunk.ok_or_else(missing)?), info)
        }
    };
    match made {
        // Somebody else was first.
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            let what = format!("make interface {name}");
            return Err(match Errno::from_io_error(&error) {
                Some(Errno::PERM) => Fault::denied(what).because(error).hint("run it as root"),
                Some(Errno::OPNOTSUPP) => {
                    let module = if parent.interface.is_some() { "8021q" } else { "dummy" };
                    let hint = format!(
                        "the kernel cannot: load it with modprobe {module}, or give the network a parent there is"
                    );
                    Fault::failed(what).because(error).hint(hint)
                }
                _ => Fault::new(FaultKind::of_io(&error), what).because(error),
            });
        }
        _ => {}
    }
    look()?.ok_or_else(|| Fault::failed(format!("interface {name} went as soon as it was made")))
}

/// Up, and then with an alias, which the kernel takes only for a link there is. One packet with both would give ours to
/// the link of somebody who was first.
fn make_parent(route: &Socket, name: &str, trunk: Option<u32>, info: Vec<LinkInfo>) -> io::Result<()> {
    let mut link = LinkMessage::default();
    link.header.flags = LinkFlags::Up;
    link.header.change_mask = LinkFlags::Up;
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    link.attributes.extend(trunk.map(LinkAttribute::Link));
    link.attributes.push(LinkAttribute::LinkInfo(info));
    let mut alias = LinkMessage::default();
    alias.attributes.push(LinkAttribute::IfName(name.to_owned()));
    alias.attributes.push(LinkAttribute::IfAlias(OURS.to_owned()));
    let mut messages = Messages::new();
    messages.push_route(ACK | CREATE | EXCL, Message::NewLink(link));
    route.request(&messages)?;
    let mut messages = Messages::new();
    messages.push_route(ACK, Message::SetLink(alias));
    route.request(&messages)
}

fn is_ours(route: &Socket, name: &str) -> io::Result<bool> {
    let mut link = LinkMessage::default();
    link.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut messages = Messages::new();
    messages.push_route(0, Message::GetLink(link));
    let replies = match route.ask(&messages) {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NODEV) => return Ok(false),
        replies => replies?,
    };
    let alias =
        |body: &[u8]| attribute(body.get(LINK_HEADER..)?, IFLA_IFALIAS).map(|alias| text(alias) == OURS);
    Ok(replies.iter().any(|reply| alias(&reply.body) == Some(true)))
}

/// `eth0.50`: the interface and the number of the VLAN on it.
fn vlan_of(interface: &str) -> Option<(&str, u16)> {
    let (trunk, id) = interface.rsplit_once('.')?;
    let id = id.parse().ok().filter(|id| (1..=4094).contains(id))?;
    (!trunk.is_empty()).then_some((trunk, id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_vlans_are_told_from_others() {
        assert_eq!(vlan_of("eth0.50"), Some(("eth0", 50)));
        assert_eq!(vlan_of("eth0.1.4094"), Some(("eth0.1", 4094)));
        for other in ["eth0", "eth0.", ".5", "eth0.0", "eth0.4095", "eth0.x", "eth0.-1"] {
            assert_eq!(vlan_of(other), None, "{other}");
        }
    }
}
