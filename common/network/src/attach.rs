//! Attaching a container to a network.
//!
//! In this order, so that a process killed at any point leaves nothing unaccounted for: ports claimed, address
//! leased (the lease lists the ports), record saved, then link and firewall. Whatever exists is thus named by a file
//! of its container; the next attach, net-detach or net-prune finds it there.

use crate::address;
use crate::claim::Claims;
use crate::definition::{DEFAULT, Definition};
use crate::firewall;
use crate::host::{Host, InUse, Namespace};
use crate::link::{self, Veth};
use crate::port::{HostPort, Wish, merge};
use crate::signals::Uninterrupted;
use crate::{files, release};
use fault::{Explain, Fault, Result};
use oci::wishes::Resolver;
use oci::wishes::names::{add_host, gateway_names};
use record::{Attachment, Config, Port, PortWish, Record};
use rustix::io::Errno;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use store::{ContainerDir, Lock, leases::addresses_of};

pub(crate) const INTERFACE: &str = "eth0";

/// What is asked for.
pub struct Request<'r> {
    pub container: &'r ContainerDir,
    /// From the record that came in, or the container's own.
    pub config: &'r Config,
    /// `--network`, over the record's.
    pub network: Option<&'r str>,
    /// `--publish`, added to the record's ports.
    pub publish: &'r [String],
}

impl Request<'_> {
    /// The record's ports and the flags', as a record says them.
    pub fn ports(&self) -> Vec<PortWish> {
        let mut ports = self.config.ports.clone();
        for text in self.publish {
            let there = Wish::parse(text).is_ok_and(|flag| {
                ports.iter().any(|port| Wish::from_record(port).is_ok_and(|port| port == flag))
            });
            if !there {
                ports.push(PortWish::Text(text.clone()));
            }
        }
        ports
    }
}

/// Attaches a container that is set up; one that is attached already gets the ports it lacks.
///
/// Empty when its record asks for a network that is not ours to make: `none`, `host`, `container:…`. Fails with a
/// conflict if the container is not set up or a port is taken, and then leaves everything as it was.
pub fn attach(host: &Host<'_>, request: &Request<'_>) -> Result<Vec<Attachment>> {
    let wishes = wishes(request)?;
    let Some(name) = wanted_network(request, &wishes)? else { return Ok(Vec::new()) };
    let network = Definition::load(host.store, name)?;
    let container = request.container;
    // Held to the end: of two tools at the same container the second finds the work of the first done.
    let _lock = Lock::exclusive(&container.bundle)?;
    let _whole = Uninterrupted::begin();
    let stored = container.load()?;
    let namespace = namespace_of(host, container)?;
    let in_use = host.ready(&network)?;
    let work = Work { host, network: &network, request, wishes: &wishes };
    let present = stored.networks()?.into_iter().find(|attachment| attachment.name == network.name);
    let attachment = match present {
        Some(present) if work.holds(&present, &namespace, in_use.ready.ifindex)? => {
            work.add_ports(stored, present, in_use)?
        }
        present => work.attach(stored, present.as_ref(), &namespace, in_use)?,
    };
    Ok(vec![attachment])
}

pub(crate) fn wishes(request: &Request<'_>) -> Result<Vec<Wish>> {
    let of_record = request.config.ports.iter().map(Wish::from_record).collect::<Result<Vec<_>>>()?;
    let of_flags = request
        .publish
        .iter()
        .map(|text| Wish::parse(text).map_err(|fault| Fault::usage(format!("--publish {text}: {fault}"))))
        .collect::<Result<Vec<_>>>()?;
    merge(&of_record, &of_flags)
}

/// `None` for a container that has its network from elsewhere.
pub(crate) fn wanted_network<'r>(request: &Request<'r>, wishes: &[Wish]) -> Result<Option<&'r str>> {
    let asked = request.network.or(request.config.network.as_deref()).unwrap_or(DEFAULT);
    match asked {
        "" | "private" | "default" => Ok(Some(DEFAULT)),
        "none" | "host" => no_ports(asked, wishes).map(|()| None),
        _ if asked.starts_with("container:") => no_ports(asked, wishes).map(|()| None),
        name => Ok(Some(name)),
    }
}

fn no_ports(network: &str, wishes: &[Wish]) -> Result<()> {
    match wishes.first() {
        None => Ok(()),
        Some(wish) => {
            Err(Fault::input(format!("with network {network} there is nothing to publish {wish} from"))
                .hint("leave out the port, or attach the container to a bridge"))
        }
    }
}

/// The network namespace of the container's init, and no other: the process id may have gone to a stranger.
pub(crate) fn namespace_of(host: &Host<'_>, container: &ContainerDir) -> Result<Namespace> {
    let not_set_up = || {
        Fault::conflict("the container is not set up: it has no network namespace")
            .on(container.id.as_str())
            .hint(format!("ctr-start {} sets it up", container.id.get(..12).unwrap_or(&container.id)))
    };
    let state = container.live_state()?.filter(|state| state.pid > 0).ok_or_else(not_set_up)?;
    if !container.is_alive() {
        return Err(not_set_up());
    }
    let namespace =
        Namespace::open(&format!("/proc/{}/ns/net", state.pid)).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => not_set_up(),
            _ => Fault::new(fault::Kind::of_io(&error), "open the container's network namespace")
                .because(error),
        })?;
    // After opening: what is open now was that process's if it still is the same.
    if store::start_time(state.pid) != Some(state.pid_started) {
        return Err(not_set_up());
    }
    if namespace.is(host.namespace()) {
        return Err(Fault::conflict("the container uses the host's network").on(container.id.as_str()));
    }
    Ok(namespace)
}

/// One attachment being made.
pub(crate) struct Work<'w> {
    pub host: &'w Host<'w>,
    pub network: &'w Definition,
    pub request: &'w Request<'w>,
    pub wishes: &'w [Wish],
}

impl Work<'_> {
    pub fn id(&self) -> &str {
        &self.request.container.id
    }

    /// Whether what the record tells of is there: the lease, both ends of the link, the bridge.
    pub fn holds(&self, present: &Attachment, namespace: &Namespace, bridge: u32) -> Result<bool> {
        let leases = self.host.store.leases(&self.network.name)?;
        let Some(address) = address_of(present) else { return Ok(false) };
        if leases.read(address.into())?.is_none_or(|lease| lease.container != self.id()) {
            return Ok(false);
        }
        let outside = link::find(self.host.route()?, &link::host_interface(self.id()))
            .explain(|| "look up the container's interface".into())?;
        if outside.is_none_or(|link| link.master != Some(bridge)) {
            return Ok(false);
        }
        let inside = link::find(&self.host.socket_inside(namespace)?, INTERFACE)
            .explain(|| "look up the interface in the container".into())?;
        Ok(inside.is_some_and(|link| link.mac == Some(link::mac_of(address))))
    }

    fn attach(
        &self,
        stored: Record,
        before: Option<&Attachment>,
        namespace: &Namespace,
        in_use: InUse,
    ) -> Result<Attachment> {
        if let Some(before) = before {
            // Of an earlier run, or of an attach that was killed.
            release::ports(self.host, self.id(), before)?;
        }
        let ports = self.claim(self.wishes, &[])?;
        let preferred = before.and_then(address_of);
        let address = address::take(self.host, self.network, self.id(), INTERFACE, &ports, preferred)
            .inspect_err(|_| self.unclaim(&ports))?;
        let attachment = self.attachment(address, ports);
        let made = self
            .save(stored.clone(), Some(&attachment))
            .and_then(|()| self.connect(address, &attachment.ports, namespace, in_use))
            .and_then(|()| self.write_files(&stored, address));
        match made {
            Ok(()) => Ok(attachment),
            Err(fault) => {
                // What failed first is what the user has to hear of.
                let _ = release::all(self.host, self.id(), &attachment);
                let _ = self.save(stored, None);
                Err(fault)
            }
        }
    }

    /// The container stays attached as it is; ports it lacks are added.
    fn add_ports(&self, stored: Record, mut present: Attachment, in_use: InUse) -> Result<Attachment> {
        let missing = missing(self.wishes, &present.ports);
        let Some(address) = address_of(&present).filter(|_| !missing.is_empty()) else { return Ok(present) };
        let added = self.claim(&missing, &present.ports)?;
        let before = present.clone();
        present.ports.extend(added.iter().cloned());
        let made = address::relist(self.host, self.network, self.id(), INTERFACE, address, &present.ports)
            .and_then(|()| self.save(stored.clone(), Some(&present)))
            .and_then(|()| {
                link::set_hairpin(self.host.route()?, &link::host_interface(self.id()))
                    .explain(|| "let the container reach its own ports".into())
            })
            .and_then(|()| self.publish(address, &added, in_use));
        match made {
            Ok(()) => Ok(present),
            Err(fault) => {
                let only_added = Attachment { ports: added, ..before.clone() };
                let _ = release::ports(self.host, self.id(), &only_added);
                let _ =
                    address::relist(self.host, self.network, self.id(), INTERFACE, address, &before.ports);
                let _ = self.save(stored, Some(&before));
                Err(fault)
            }
        }
    }

    /// All of the ports, or none; beside those that are there.
    fn claim(&self, wishes: &[Wish], present: &[Port]) -> Result<Vec<Port>> {
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

    pub fn attachment(&self, address: Ipv4Addr, ports: Vec<Port>) -> Attachment {
        Attachment {
            name: self.network.name.clone(),
            interface: Some(INTERFACE.into()),
            host_interface: Some(link::host_interface(self.id())),
            addresses: vec![format!("{address}/{}", self.network.subnet.prefix)],
            gateway: Some(self.network.gateway.to_string()),
            mac: Some(link::mac_text(link::mac_of(address))),
            ports,
            ..Attachment::default()
        }
    }

    /// The container's record with this attachment, or without one, and with the ports asked for: what restarts
    /// the container finds them there.
    fn save(&self, mut stored: Record, attachment: Option<&Attachment>) -> Result<()> {
        let mut networks = stored.networks()?;
        networks.retain(|other| other.name != self.network.name);
        networks.extend(attachment.cloned());
        stored.set("networks", &networks)?;
        let mut config = stored.config()?;
        let ports = self.request.ports();
        if attachment.is_some() && config.ports != ports {
            config.ports = ports;
            stored.set("config", &config)?;
        }
        self.request.container.save(&stored)
    }

    fn connect(
        &self,
        address: Ipv4Addr,
        ports: &[Port],
        namespace: &Namespace,
        mut in_use: InUse,
    ) -> Result<()> {
        let inside = self.host.socket_inside(namespace)?;
        let route = self.host.route()?;
        let name = link::host_interface(self.id());
        for attempt in 0..4 {
            let veth = Veth {
                name: &name,
                peer: INTERFACE,
                namespace: namespace.file().as_fd(),
                bridge: in_use.ready.ifindex,
                mac: link::mac_of(address),
                hairpin: !ports.is_empty(),
            };
            let Err(error) = link::make_veth(route, &veth) else {
                link::configure(&inside, INTERFACE, address, self.network)?;
                // Until the kernel's work on changes of carriers has run, which may be seconds on a busy machine, neither end passes
                // anything on, and first packets are lost. Asking for a link runs it for that link (rtnl_getlink(), Linux 6.8).
                for (socket, end) in [(&inside, INTERFACE), (route, name.as_str())] {
                    link::find(socket, end).explain(|| format!("look at {end}"))?;
                }
                return if ports.is_empty() { Ok(()) } else { self.publish(address, ports, in_use) };
            };
            match Errno::from_io_error(&error) {
                // Of an earlier run: its namespace may take a while to go.
                // It may have gone between the two, so that its name says nothing yet.
                Some(Errno::EXIST) if link::remove(route, &name)? || attempt < 2 => {}
                Some(Errno::EXIST) => return Err(taken_inside()),
                Some(Errno::NODEV | Errno::INVAL) => in_use = self.host.repair(self.network, in_use)?,
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

    fn publish(&self, address: Ipv4Addr, ports: &[Port], in_use: InUse) -> Result<()> {
        let mut elements = Vec::new();
        for port in ports {
            elements.extend(firewall::elements(port, address)?);
        }
        let firewall = self.host.firewall()?;
        let added = match firewall.add(&elements) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let _in_use = self.host.repair(self.network, in_use)?;
                firewall.add(&elements)
            }
            added => added,
        };
        added.explain(|| "publish ports".into())?;
        crate::conntrack::forget(ports)
    }

    fn write_files(&self, stored: &Record, address: Ipv4Addr) -> Result<()> {
        let bundle = &self.request.container.bundle;
        let names = names(stored, self.request.config, self.id());
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        files::write_hosts(bundle, self.network.subnet, Some(address), &names)?;
        let config = self.request.config;
        let hosts: Vec<_> = config.add_host.iter().map(|text| add_host(text)).collect::<Result<_>>()?;
        let of_host = gateway_names(&hosts);
        if !of_host.is_empty() {
            let of_host: Vec<&str> = of_host.iter().map(String::as_str).collect();
            files::write_hosts(bundle, self.network.subnet, Some(self.network.gateway), &of_host)?;
        }
        files::write_resolv_conf(bundle, &Resolver::parse(config)?)
    }
}

pub(crate) fn taken_inside() -> Fault {
    Fault::conflict(format!("the container has an interface {INTERFACE} already"))
}

/// What the container is called: its host name, then its own where that is another one.
pub fn names(stored: &Record, config: &Config, id: &str) -> Vec<String> {
    let usable =
        |name: &String| !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control());
    let hostname = config.hostname.clone().filter(usable);
    let mut names = vec![hostname.unwrap_or_else(|| id.get(..12).unwrap_or(id).to_owned())];
    let name = stored.container().ok().flatten().map(|container| container.name);
    names.extend(name.filter(usable).filter(|name| *name != names[0]));
    names
}

/// Ports chosen by number first: a free one found for another wish must not be one of them.
pub(crate) fn chosen_first(wishes: &[Wish]) -> impl Iterator<Item = &Wish> {
    let chosen = |wish: &&Wish| matches!(wish.host, HostPort::At(_));
    wishes.iter().filter(chosen).chain(wishes.iter().filter(move |wish| !chosen(wish)))
}

/// Wishes that none of the ports meets; each port meets one.
pub(crate) fn missing(wishes: &[Wish], ports: &[Port]) -> Vec<Wish> {
    let mut left: Vec<&Port> = ports.iter().collect();
    let mut missing = Vec::new();
    for wish in chosen_first(wishes) {
        match left.iter().position(|port| wish.is_met_by(port)) {
            Some(index) => drop(left.swap_remove(index)),
            None => missing.push(*wish),
        }
    }
    missing
}

pub(crate) fn address_of(attachment: &Attachment) -> Option<Ipv4Addr> {
    addresses_of(attachment).find_map(|address| match address {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    })
}
