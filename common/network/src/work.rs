//! One attachment being made: addresses leased, a link with both its ends, ports published.

use crate::address::{self, Wanted as Addresses};
use crate::attach::{Request, chosen_first, names};
use crate::claim::Claims;
use crate::definition::{Driver, Route};
use crate::host::{Host, InUse, Namespace};
use crate::link::{self, End, Setup, Veth};
use crate::port::Wish;
use crate::wanted::{Wanted, Ways};
use crate::{cni, firewall};
use crate::{routed, vlan};
use fault::{Explain, Fault, Result};
use record::{Attachment, Port, Record};
use rustix::io::Errno;
use std::net::IpAddr;
use std::os::fd::AsFd;
use store::Lease;
use store::leases::addresses_of;

/// One network a container is being attached to.
pub struct Work<'w> {
    pub host: &'w Host<'w>,
    pub request: &'w Request<'w>,
    pub one: &'w Wanted,
    /// The interface's name in the container.
    pub interface: String,
    pub ways: &'w Ways,
    /// To be published there.
    pub ports: &'w [Wish],
}

/// Of an attachment that is only looked at.
static NO_WAYS: Ways = Ways { v4: None, v6: None };

impl<'w> Work<'w> {
    /// To look at an attachment there is.
    pub fn of(host: &'w Host<'w>, request: &'w Request<'w>, one: &'w Wanted, there: &Attachment) -> Work<'w> {
        let interface = there.interface.clone().unwrap_or_default();
        Work { host, request, one, interface, ways: &NO_WAYS, ports: &[] }
    }

    pub fn id(&self) -> &str {
        &self.request.container.id
    }

    pub fn host_interface(&self) -> String {
        link::host_interface(self.id(), &self.one.network.name)
    }

    /// Whether what the record tells of is there: the leases, both ends of the link, the bridge.
    pub fn holds(&self, present: &Attachment, namespace: &Namespace, bridge: Option<u32>) -> Result<bool> {
        if let Driver::Cni(_) = self.one.network.driver {
            return cni::holds(self, present, namespace);
        }
        if self.one.network.driver == Driver::None {
            return Ok(true);
        }
        let leases = self.host.store.leases(&self.one.network.name)?;
        let mut leased = false;
        for address in addresses_of(present) {
            if leases.read(address)?.is_none_or(|lease| lease.container != self.id()) {
                return Ok(false);
            }
            leased = true;
        }
        let kind = vlan::Kind::of(&self.one.network)?.map(|(kind, _)| kind);
        if let Some(kind) = kind {
            let inside = self.host.socket_inside(namespace)?;
            let Some(interface) = present.interface.as_deref().filter(|_| leased) else { return Ok(false) };
            let found = vlan::find(&inside, &self.one.network, interface)?;
            let is_same = |link: link::Link| !kind.has_mac() || link.mac.map(link::mac_text) == present.mac;
            return Ok(found.is_some_and(is_same));
        }
        let outside = link::find(self.host.route()?, &self.host_interface())
            .explain(|| "look up the container's interface".into())?;
        let Some(outside) = outside.filter(|_| leased && bridge.is_some()) else { return Ok(false) };
        if !self.is_in_place(&outside, bridge, addresses_of(present))? {
            return Ok(false);
        }
        let Some(interface) = &present.interface else { return Ok(false) };
        let inside = link::find(&self.host.socket_inside(namespace)?, interface)
            .explain(|| "look up the interface in the container".into())?;
        // It is set up when all else of it has been.
        let inside = inside.filter(|link| link.up);
        let mac = inside.and_then(|link| link.mac).map(link::mac_text);
        Ok(mac.is_some() && mac == present.mac)
    }

    /// Whether the host's end of the pair is where the network has it.
    fn is_in_place(
        &self,
        outside: &link::Link,
        bridge: Option<u32>,
        mut addresses: impl Iterator<Item = IpAddr>,
    ) -> Result<bool> {
        let network = &self.one.network;
        let Some(group) = routed::group(network) else { return Ok(outside.master == bridge) };
        let route = self.host.route()?;
        let device = link::index_of(route, &network.device);
        let device = device.explain(|| format!("look up {}", network.device))?;
        let stands = (outside.master, outside.group) == (None, group) && device == bridge;
        Ok(stands && addresses.all(|address| link::way_to(route, address) == Some(outside.index)))
    }

    /// Claims the ports and leases the addresses, all or none; what the record is to say of it.
    pub fn lease(&self, record: &Record, before: Option<&Attachment>) -> Result<Attachment> {
        let ports = self.claim(self.ports, &[])?;
        let asked = self.addresses(record, &ports, before);
        let leased = asked.and_then(|asked| address::take(self.host, &self.one.network, &asked));
        let addresses = leased.inspect_err(|_| self.unclaim(&ports))?;
        self.attachment(&addresses, ports)
    }

    /// What is asked for of the network's addresses.
    pub fn addresses(
        &self,
        record: &Record,
        ports: &[Port],
        before: Option<&Attachment>,
    ) -> Result<Addresses<'_>> {
        Ok(Addresses {
            id: self.id(),
            lease: self.lease_of(record, ports),
            fixed: self.one.addresses()?,
            preferred: before.map(|before| addresses_of(before).collect()).unwrap_or_default(),
            without_ipv6: crate::sysctl::wished_ipv6(self.request.config) == Some(false),
        })
    }

    /// What a lease is to say.
    fn lease_of(&self, record: &Record, ports: &[Port]) -> Lease {
        let config = self.request.config;
        Lease {
            container: self.id().to_owned(),
            interface: self.interface.clone(),
            ports: ports.to_vec(),
            names: self.known_as(record),
            dns: config.dns.clone(),
            ..Lease::default()
        }
    }

    /// The container's name first, by which it is told of to others, then its short id, host name, aliases.
    fn known_as(&self, record: &Record) -> Vec<String> {
        let mut known = Vec::new();
        let hosts = names(record, self.request.config, self.id());
        let short = self.id().get(..12).unwrap_or(self.id()).to_owned();
        let named = hosts.last().cloned().into_iter();
        for name in named.chain([short]).chain(hosts).chain(self.one.wish.aliases.iter().cloned()) {
            if !known.contains(&name) {
                known.push(name);
            }
        }
        known
    }

    pub fn relist(&self, record: &Record, addresses: &[IpAddr], ports: &[Port]) -> Result<()> {
        address::relist(self.host, &self.one.network, addresses, &self.lease_of(record, ports))
    }

    /// All of the ports, or none; beside those that are there.
    pub fn claim(&self, wishes: &[Wish], present: &[Port]) -> Result<Vec<Port>> {
        let claims = Claims::new(self.host.store);
        let mut ports = present.to_vec();
        for wish in chosen_first(wishes) {
            match claims.take(self.id(), wish, &ports) {
                Ok(port) => ports.push(port),
                Err(fault) => {
                    self.unclaim(&ports[present.len()..]);
                    return Err(fault);
                }
            }
        }
        Ok(ports.split_off(present.len()))
    }

    fn unclaim(&self, ports: &[Port]) {
        let claims = Claims::new(self.host.store);
        for port in ports {
            claims.release(self.id(), port);
        }
    }

    pub fn attachment(&self, addresses: &[IpAddr], ports: Vec<Port>) -> Result<Attachment> {
        let gateway = |ipv6| {
            let gateway = self.gateways(addresses).find(|gateway| gateway.is_ipv6() == ipv6);
            gateway.map(|gateway| gateway.to_string())
        };
        let kind = vlan::Kind::of(&self.one.network)?.map(|(kind, _)| kind);
        let mac = match (self.one.mac()?, kind) {
            (Some(_), Some(kind)) if !kind.has_mac() => {
                return Err(Fault::input(
                    "links of this network have the hardware address of what they are on top of",
                )
                .on(self.one.network.name.as_str())
                .hint("leave out the hardware address"));
            }
            (None, Some(kind)) if !kind.has_mac() => vlan::parent_mac(self.host, &self.one.network)?,
            (asked, _) => asked.or_else(|| addresses.first().map(|address| link::mac_of(*address))),
        };
        Ok(Attachment {
            name: self.one.network.name.clone(),
            interface: Some(self.interface.clone()),
            host_interface: kind.is_none().then(|| self.host_interface()),
            addresses: addresses.iter().map(|ip| format!("{ip}/{}", self.prefix(*ip))).collect(),
            gateway: gateway(false),
            gateway6: gateway(true),
            mac: mac.map(link::mac_text),
            aliases: self.one.wish.aliases.clone(),
            ports,
            ..Attachment::default()
        })
    }

    fn prefix(&self, address: IpAddr) -> u8 {
        // What shares no wire with neighbours has none.
        if self.one.network.driver == Driver::Routed {
            return if address.is_ipv6() { 128 } else { 32 };
        }
        self.one.network.pool_of(address).map_or(0, |pool| pool.subnet.prefix)
    }

    /// The gateways these addresses have; an internal network has none.
    fn gateways(&self, addresses: &[IpAddr]) -> impl Iterator<Item = IpAddr> {
        let leads_out = match &self.one.network.driver {
            _ if self.one.network.internal || self.one.network.no_default_route => false,
            Driver::Macvlan(parent) => parent.interface.is_some(),
            // Where the kernel routes what containers send there is nobody to send it to.
            Driver::Ipvlan(parent) => parent.interface.is_some() && !self.is_routed(),
            _ => true,
        };
        let gateway = |address: &IpAddr| Some(self.one.network.pool_of(*address)?.gateway);
        addresses.iter().filter(move |_| leads_out).filter_map(gateway)
    }

    fn is_routed(&self) -> bool {
        vlan::Kind::of(&self.one.network).is_ok_and(|kind| kind.is_some_and(|(kind, _)| kind.is_routed()))
    }

    /// Those of the gateways the container is to go out by.
    pub fn routes(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let name = &self.one.network.name;
        self.gateways(addresses).filter(|gateway| self.ways.is_way_out(name, gateway.is_ipv6())).collect()
    }

    /// What has been leased and saved, made.
    pub fn connect(
        &self,
        attachment: &Attachment,
        namespace: &Namespace,
        in_use: Option<InUse>,
    ) -> Result<()> {
        match (&self.one.network.driver, in_use) {
            (Driver::Bridge | Driver::Routed, Some(in_use)) => {
                self.connect_to_host(attachment, namespace, in_use)
            }
            (Driver::Macvlan(_) | Driver::Ipvlan(_), _) => self.connect_to_parent(attachment, namespace),
            (driver, _) => {
                Err(Fault::input(format!("networks of driver {} cannot be attached to", driver.name()))
                    .on(self.one.network.name.as_str()))
            }
        }
    }

    fn connect_to_host(
        &self,
        attachment: &Attachment,
        namespace: &Namespace,
        mut in_use: InUse,
    ) -> Result<()> {
        let inside = self.host.socket_inside(namespace)?;
        let route = self.host.route()?;
        let network = &self.one.network;
        let name = self.host_interface();
        let addresses: Vec<IpAddr> = addresses_of(attachment).collect();
        let mac = attachment.mac.as_deref().and_then(link::parse_mac).unwrap_or_default();
        for attempt in 0..6 {
            let veth = Veth {
                name: &name,
                peer: &self.interface,
                namespace: namespace.file().as_fd(),
                mac,
                mtu: network.mtu,
                end: self.host_end(&in_use, attachment),
            };
            let made = link::make_veth(route, &veth).and_then(|()| match veth.end {
                End::Port { .. } => Ok(()),
                End::Routed { .. } => routed::lead_to(route, network, &name, &addresses, mac),
            });
            let Err(error) = made else {
                if network.driver == Driver::Routed && !attachment.ports.is_empty() {
                    self.let_reach_itself()?;
                }
                self.configure(namespace, &inside, &addresses)?;
                // Until the kernel's work on changes of carriers has run, which may be seconds on a busy machine, neither end passes
                // anything on, and first packets are lost. Asking for a link runs it for that link (rtnl_getlink(), Linux 6.8).
                for (socket, end) in [(&inside, self.interface.as_str()), (route, name.as_str())] {
                    link::find(socket, end).explain(|| format!("look at {end}"))?;
                }
                return self.publish(&addresses, &attachment.ports, in_use);
            };
            match Errno::from_io_error(&error) {
                // Of an earlier run: its namespace may take a while to go.
                // It may have gone between the two, so that its name says nothing yet.
                Some(Errno::EXIST) if link::remove(route, &name)? || attempt < 2 => {}
                Some(Errno::EXIST) => return Err(taken_inside(&self.interface)),
                Some(Errno::NODEV | Errno::INVAL | Errno::OPNOTSUPP) => {
                    in_use = self.host.repair(network, in_use)?;
                }
                Some(Errno::PERM) => {
                    return Err(Fault::denied("make the container's interface")
                        .because(error)
                        .hint("run it as root"));
                }
                _ => return Err(error).explain(|| "make the container's interface".into()),
            }
        }
        Err(Fault::failed("the container's interface is being removed as often as it is made"))
    }

    fn host_end(&self, in_use: &InUse, attachment: &Attachment) -> End {
        let network = &self.one.network;
        if network.driver == Driver::Routed {
            return routed::end(network);
        }
        End::Port {
            bridge: in_use.ready.ifindex,
            hairpin: !attachment.ports.is_empty(),
            isolated: network.no_icc,
        }
    }

    /// A link in the container's namespace on top of one of the host's.
    fn connect_to_parent(&self, attachment: &Attachment, namespace: &Namespace) -> Result<()> {
        let network = &self.one.network;
        let mac = attachment.mac.as_deref().and_then(link::parse_mac);
        let inside = self.host.socket_inside(namespace)?;
        match vlan::make(self.host, network, namespace, &self.interface, mac) {
            // Of an attach that was killed.
            Err(fault)
                if fault.kind() == fault::Kind::Conflict
                    && vlan::find(&inside, network, &self.interface)?.is_some() =>
            {
                link::remove(&inside, &self.interface)?;
                vlan::make(self.host, network, namespace, &self.interface, mac)?;
            }
            made => made?,
        }
        let addresses: Vec<IpAddr> = addresses_of(attachment).collect();
        self.configure(namespace, &inside, &addresses)?;
        if self.is_routed() && !network.no_default_route {
            let is_way_out = |ipv6: &bool| {
                addresses.iter().any(|ip| ip.is_ipv6() == *ipv6) && self.ways.is_way_out(&network.name, *ipv6)
            };
            let families: Vec<bool> = [false, true].into_iter().filter(is_way_out).collect();
            vlan::add_device_routes(&inside, &self.interface, &families)?;
        }
        Ok(())
    }

    /// Addresses and routes inside.
    fn configure(
        &self,
        namespace: &Namespace,
        inside: &crate::netlink::Socket,
        addresses: &[IpAddr],
    ) -> Result<()> {
        let sysctls = self.one.sysctls()?;
        let of_host = self.one.network.driver.has_device();
        let mut with_prefixes: Vec<_> = addresses.iter().map(|ip| (*ip, self.prefix(*ip))).collect();
        with_prefixes.extend(self.one.link_local()?);
        if of_host || !sysctls.is_empty() {
            // Before it is up: some are read then.
            self.host.inside(namespace, || {
                if of_host {
                    let has_address = with_prefixes.iter().any(|(ip, _)| ip.is_ipv6());
                    let wished = crate::sysctl::wished_ipv6(self.request.config) == Some(true);
                    crate::sysctl::set_ipv6(&self.interface, has_address || wished);
                }
                sysctls.iter().try_for_each(|one| one.set(&self.interface))
            })?;
        }
        // Who is the gateway itself has other ways, and the kernel refuses this one.
        let has = |route: &&Route| {
            addresses.iter().any(|ip| ip.is_ipv6() == route.gateway.is_ipv6())
                && !addresses.contains(&route.gateway)
        };
        let routes: Vec<Route> = self.one.network.routes.iter().filter(has).copied().collect();
        let is_routed = self.one.network.driver == Driver::Routed;
        let on_link = if is_routed { routed::gateways(&self.one.network, addresses) } else { Vec::new() };
        let setup = Setup {
            interface: &self.interface,
            on_link: &on_link,
            addresses: &with_prefixes,
            gateways: &self.routes(addresses),
            routes: &routes,
            mtu: self.one.network.mtu,
        };
        link::configure(inside, &setup)
    }

    /// Leads further ports to a container that is attached.
    pub fn add_ports(&self, addresses: &[IpAddr], ports: &[Port], in_use: Option<InUse>) -> Result<()> {
        let Some(in_use) = in_use.filter(|_| !ports.is_empty()) else { return Ok(()) };
        self.let_reach_itself()?;
        self.publish(addresses, ports, in_use)
    }

    /// Whose ports are published reaches them as others do, and so does the host from its loopback address.
    fn let_reach_itself(&self) -> Result<()> {
        let name = self.host_interface();
        match self.one.network.driver {
            Driver::Routed if !self.one.network.has_ipv4() => Ok(()),
            Driver::Routed => crate::sysctl::let_loopback_by(&name),
            _ => link::set_hairpin(self.host.route()?, &name)
                .explain(|| "let the container reach its own ports".into()),
        }
    }

    /// What the record tells of may not have been made, if who saved it was killed.
    pub fn publish_again(&self, addresses: &[IpAddr], ports: &[Port], in_use: InUse) -> Result<InUse> {
        if ports.is_empty() {
            return Ok(in_use);
        }
        self.let_reach_itself()?;
        self.add_elements(addresses, ports, in_use)
    }

    fn publish(&self, addresses: &[IpAddr], ports: &[Port], in_use: InUse) -> Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        self.add_elements(addresses, ports, in_use)?;
        crate::conntrack::forget_ports(ports)
    }

    fn add_elements(&self, addresses: &[IpAddr], ports: &[Port], mut in_use: InUse) -> Result<InUse> {
        let mut elements = Vec::new();
        for port in ports {
            elements.extend(firewall::elements(port, addresses)?);
        }
        let firewall = self.host.firewall()?;
        let added = match firewall.add(&elements) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                in_use = self.host.repair(&self.one.network, in_use)?;
                firewall.add(&elements)
            }
            added => added,
        };
        added.explain(|| "publish ports".into())?;
        Ok(in_use)
    }
}

pub fn taken_inside(interface: &str) -> Fault {
    Fault::conflict(format!("the container has an interface {interface} already"))
}
