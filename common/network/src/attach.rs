//! Attaching a container to networks.
//!
//! In this order, so that a process killed at any point leaves nothing unaccounted for: ports claimed, addresses
//! leased (the leases list the ports), record saved, then link and firewall. Whatever exists is thus named by a file
//! of its container; the next attach, net-detach or net-prune finds it there.

use crate::definition::{Definition, Driver};
use crate::host::{Host, Namespace};
use crate::port::{HostPort, Wish, bound, check_for, merge};
use crate::signals::Uninterrupted;
use crate::wanted::{self, Wanted, Ways};
use crate::work::Work;
use crate::{cni, dns, files, link, release, vlan};
use fault::{Fault, Result};
use oci::wishes::Resolver;
use oci::wishes::names::{add_host, gateway_names};
use record::{Attachment, Config, NetworkWish, Port, PortWish, Record};
use std::net::IpAddr;
use store::leases::addresses_of;
use store::{ContainerDir, Lock, Store};

/// What is asked for.
pub struct Request<'r> {
    pub container: &'r ContainerDir,
    /// From the record that came in, or the container's own.
    pub config: &'r Config,
    /// `--network`, instead of the record's; those the container is attached to already stay.
    pub networks: &'r [NetworkWish],
    /// `--publish`, added to the record's ports.
    pub publish: &'r [String],
    /// The attachments the record that came in tells of: a port there that is not asked for any more was taken out on purpose.
    pub told: &'r [Attachment],
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

    /// Ports the record tells of and does not ask for.
    pub(crate) fn dropped(&self, present: &[Port], wishes: &[Wish]) -> Vec<Port> {
        let told = |port: &Port| self.told.iter().any(|one| one.ports.contains(port));
        let asked = |port: &Port| wishes.iter().any(|wish| wish.is_met_by(port));
        present.iter().filter(|port| told(port) && !asked(port)).cloned().collect()
    }
}

/// Attaches a container that is set up to the networks asked for, and tells of all it is attached to. Where it is attached
/// already it stays as it is, and gets the ports it lacks.
///
/// Empty when its record asks for a network that is not ours to make: `none`, `host`, `container:…`, `ns:…`. Fails with a
/// conflict if the container is not set up or a port or an address is taken, and then leaves everything as it was.
pub fn attach(host: &Host<'_>, request: &Request<'_>) -> Result<Vec<Attachment>> {
    let ports = wishes(request)?;
    let load = |wish| Wanted::load(wish, |name| Definition::load(host.store, name));
    let wanted: Vec<Wanted> =
        wanted::wishes(request, &ports)?.into_iter().map(load).collect::<Result<_>>()?;
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    // Held to the end: of two tools at the same container the second finds the work of the first done.
    let _lock = Lock::exclusive(&request.container.bundle)?;
    let _whole = Uninterrupted::begin();
    let record = request.container.load()?;
    let namespace = namespace_of(host, request.container)?;
    let mut job =
        Job { host, request, attachments: record.networks()?, record, namespace, fresh: Vec::new() };
    let (before, config) = (job.attachments.clone(), job.record.config()?);
    match job.run(&wanted, &ports) {
        Ok(()) => Ok(job.attachments),
        Err(fault) => {
            // What failed first is what the user has to hear of.
            job.undo(before, &config);
            Err(fault)
        }
    }
}

/// The work on one container.
struct Job<'j> {
    host: &'j Host<'j>,
    request: &'j Request<'j>,
    /// As saved.
    record: Record,
    attachments: Vec<Attachment>,
    namespace: Namespace,
    /// Names of the networks it was attached to by this.
    fresh: Vec<String>,
}

impl Job<'_> {
    fn run(&mut self, wanted: &[Wanted], ports: &[Wish]) -> Result<()> {
        let wanted = &[self.drop_stale(wanted)?, wanted.to_vec()].concat();
        let all = all(self.host.store, self.request, &self.attachments, wanted);
        let ways = wanted::ways(&all);
        let published_on = published_on(&ways, &all, ports)?;
        let ports = &bound(of_name(&all, published_on.as_deref()), ports);
        self.move_ports(published_on.as_deref())?;
        for one in wanted {
            let here = published_on.as_deref() == Some(one.network.name.as_str());
            self.one(one, wanted, &ways, if here { ports } else { &[] })?;
            if let Driver::Cni(_) = one.network.driver
                && !self.fresh.contains(&one.network.name)
            {
                cni::check(self.host, &one.network.name, &self.request.container.id)?;
            }
        }
        // It may be attached to the one that publishes already, and other networks be asked for.
        let elsewhere = published_on.filter(|name| wanted.iter().all(|one| one.network.name != *name));
        if let Some(one) = elsewhere.and_then(|name| all.iter().find(|one| one.network.name == name)) {
            self.one(one, wanted, &ways, ports)?;
        }
        self.save(true)?;
        for one in &all {
            dns::ensure(self.host, &one.network)?;
        }
        self.write_files(&all, &ways)
    }

    /// Attachments of an earlier run to networks nobody asks for any more, or that are gone, are undone. Those that flags only add to
    /// come back: a container that has ended is still on its networks, as it is for its next start.
    fn drop_stale(&mut self, wanted: &[Wanted]) -> Result<Vec<Wanted>> {
        let (host, request) = (self.host, self.request);
        let mut back = Vec::new();
        for attachment in self.attachments.clone() {
            if wanted.iter().any(|one| one.network.name == attachment.name) {
                continue;
            }
            let one = wanted::attached(host.store, &attachment, request.config);
            let stands = match &one {
                Some(one) => {
                    let bridge = host.look(&one.network)?.map(|in_use| in_use.ready.ifindex);
                    let work = Work::of(host, request, one, &attachment);
                    work.holds(&attachment, &self.namespace, bridge)?
                }
                None => false,
            };
            match one.filter(|_| !request.networks.is_empty()) {
                _ if stands => {}
                Some(one) => back.push(one),
                None => {
                    release::all(host, &request.container.id, &attachment)?;
                    self.attachments.retain(|other| other.name != attachment.name);
                }
            }
        }
        Ok(back)
    }

    /// Ports follow the way out.
    fn move_ports(&mut self, published_on: Option<&str>) -> Result<()> {
        let (host, id) = (self.host, &self.request.container.id);
        let moves = |one: &Attachment| !one.ports.is_empty() && Some(one.name.as_str()) != published_on;
        let moving: Vec<Attachment> = self.attachments.iter().filter(|one| moves(one)).cloned().collect();
        if moving.is_empty() {
            return Ok(());
        }
        for attachment in &mut self.attachments {
            if moving.iter().any(|one| one.name == attachment.name) {
                attachment.ports.clear();
            }
        }
        // The leases still list them, should this be the last that is done.
        self.save(false)?;
        for attachment in &moving {
            release::ports(host, id, attachment)?;
            let leases = host.store.leases(&attachment.name)?;
            for address in addresses_of(attachment) {
                if let Some(lease) = leases.read(address)?.filter(|lease| lease.container == *id) {
                    leases.rewrite(address, &store::Lease { ports: Vec::new(), ..lease })?;
                }
            }
        }
        Ok(())
    }

    /// One network, with the ports to be published there.
    fn one(&mut self, one: &Wanted, wanted: &[Wanted], ways: &Ways, ports: &[Wish]) -> Result<()> {
        let (host, request) = (self.host, self.request);
        // Held to the end, whatever the driver: the network is not removed meanwhile.
        let ready = host.ready(&one.network)?;
        let (in_use, _held) = if one.network.driver.has_device() {
            (Some(ready), None)
        } else {
            vlan::make_ready(host, &one.network)?;
            (None, Some(ready))
        };
        let present = self.attachments.iter().find(|other| other.name == one.network.name).cloned();
        let mut work = Work {
            host,
            request,
            one,
            interface: wanted::interface(&one.wish, &self.attachments, wanted)?,
            ways,
            ports,
        };
        let bridge = in_use.as_ref().map(|in_use| in_use.ready.ifindex);
        if let Some(present) = &present
            && work.holds(present, &self.namespace, bridge)?
        {
            if let Some(interface) = &present.interface {
                work.interface.clone_from(interface);
            }
            return self.ports_of(&work, present.clone(), in_use);
        }
        if let Driver::Cni(_) = one.network.driver {
            return self.by_plugins(&work);
        }
        if one.network.driver == Driver::None {
            return self.nowhere(one);
        }
        if let Some(present) = &present {
            // Of an earlier run, or of an attach that was killed.
            release::ports(host, work.id(), present)?;
        }
        let attachment = work.lease(&self.record, present.as_ref())?;
        self.put(attachment.clone());
        self.fresh.push(attachment.name.clone());
        self.save(false)?;
        work.connect(&attachment, &self.namespace, in_use)
    }

    /// By the plugins of the network, who do it all. What they did in an earlier run, or when an attach was killed, is undone first.
    fn by_plugins(&mut self, work: &Work<'_>) -> Result<()> {
        cni::release(self.host, &work.one.network.name, work.id())?;
        let begun = cni::begin(work, &self.namespace)?;
        self.put(begun.clone());
        self.fresh.push(begun.name.clone());
        self.save(false)?;
        self.put(cni::add(work, &self.namespace, &begun)?);
        Ok(())
    }

    /// A network without a way anywhere: a name in the record, and loopback.
    fn nowhere(&mut self, one: &Wanted) -> Result<()> {
        self.put(Attachment { name: one.network.name.clone(), ..Attachment::default() });
        self.fresh.push(one.network.name.clone());
        self.save(false)?;
        link::set_loopback_up(&self.host.socket_inside(&self.namespace)?)
    }

    /// The container stays attached as it is; ports it lacks are added, those taken out of the record are removed.
    fn ports_of(
        &mut self,
        work: &Work<'_>,
        mut present: Attachment,
        in_use: Option<crate::host::InUse>,
    ) -> Result<()> {
        let dropped = self.request.dropped(&present.ports, work.ports);
        let missing = missing(work.ports, &present.ports);
        let addresses: Vec<IpAddr> = addresses_of(&present).collect();
        let in_use = match in_use {
            Some(in_use) => Some(work.publish_again(&addresses, &present.ports, in_use)?),
            None => None,
        };
        if dropped.is_empty() && missing.is_empty() {
            return Ok(());
        }
        if let Driver::Cni(_) = work.one.network.driver {
            return Err(Fault::conflict("plugins publish ports only when they attach a container")
                .on(present.name)
                .hint("net-detach it, and attach it again with all of its ports"));
        }
        if !dropped.is_empty() {
            present.ports.retain(|port| !dropped.contains(port));
            self.put(present.clone());
            // The lease still lists them, should this be the last that is done.
            self.save(false)?;
            release::some_ports(self.host, work.id(), &present.name, &addresses, &dropped)?;
            work.relist(&self.record, &addresses, &present.ports)?;
        }
        let before = present.clone();
        let added = work.claim(&missing, &present.ports)?;
        present.ports.extend(added.iter().cloned());
        self.put(present.clone());
        let made = work
            .relist(&self.record, &addresses, &present.ports)
            .and_then(|()| self.save(false))
            .and_then(|()| work.add_ports(&addresses, &added, in_use));
        made.inspect_err(|_| {
            let _ = release::some_ports(self.host, work.id(), &before.name, &addresses, &added);
            let _ = work.relist(&self.record, &addresses, &before.ports);
            self.put(before);
        })
    }

    fn put(&mut self, attachment: Attachment) {
        match self.attachments.iter_mut().find(|other| other.name == attachment.name) {
            Some(present) => *present = attachment,
            None => self.attachments.push(attachment),
        }
    }

    /// The container's record with its attachments; with `asked` also what is asked for, which what restarts the container
    /// finds there.
    fn save(&mut self, asked: bool) -> Result<()> {
        self.record.set("networks", &self.attachments)?;
        let mut config = self.record.config()?;
        let before = config.clone();
        config.ports = self.request.ports();
        if asked {
            if self.request.networks.is_empty() {
                config.network.clone_from(&self.request.config.network);
                config.networks.clone_from(&self.request.config.networks);
            } else {
                wanted::put(&mut config, &self.attachments, self.request.networks);
            }
        }
        if config != before {
            self.record.set("config", &config)?;
        }
        self.request.container.save(&self.record)
    }

    /// Takes back what this has done, as far as it can be. Attachments of an earlier run stay in the record, as what to
    /// attach to at the next start.
    fn undo(&mut self, before: Vec<Attachment>, config: &Config) {
        for name in &self.fresh {
            if let Some(made) = self.attachments.iter().find(|attachment| attachment.name == *name) {
                let _ = release::all(self.host, &self.request.container.id, made);
            }
        }
        let stayed: Vec<Attachment> = before
            .into_iter()
            .map(|old| {
                let now = self.attachments.iter().find(|now| now.name == old.name);
                now.filter(|now| !self.fresh.contains(&now.name)).cloned().unwrap_or(old)
            })
            .collect();
        if let Ok(stored) = self.request.container.load() {
            self.record = stored;
            self.attachments = stayed;
            let saved = self.record.set("networks", &self.attachments);
            // Ports that could not be had are not asked for at the next start either.
            let is_same = self.record.config().is_ok_and(|now| now == *config);
            let saved = saved.and_then(|()| if is_same { Ok(()) } else { self.record.set("config", config) });
            let _ = saved.and_then(|()| self.request.container.save(&self.record));
        }
    }

    /// `hosts` and `resolv.conf` in the bundle.
    fn write_files(&self, all: &[Wanted], ways: &Ways) -> Result<()> {
        let bundle = &self.request.container.bundle;
        let config = self.request.config;
        let names = names_in_hosts(&self.record, config, &self.request.container.id);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let subnets: Vec<_> = all.iter().flat_map(|one| &one.network.pools).map(|pool| pool.subnet).collect();
        let addresses: Vec<IpAddr> = self.attachments.iter().flat_map(addresses_of).collect();
        files::write_hosts(bundle, &subnets, &addresses, &names)?;
        let hosts: Vec<_> = config.add_host.iter().map(|text| add_host(text)).collect::<Result<_>>()?;
        let of_host = gateway_names(&hosts);
        if !of_host.is_empty() {
            let of_host: Vec<&str> = of_host.iter().map(String::as_str).collect();
            files::write_hosts(bundle, &subnets, &gateways(all, ways), &of_host)?;
        }
        let resolvers = dns::resolvers(all.iter().map(|one| &one.network), &addresses);
        let ipv6 = addresses.iter().any(IpAddr::is_ipv6);
        let wished = cni::resolver(&self.attachments).unless(Resolver::parse(config)?);
        files::write_resolv_conf(bundle, &wished, &resolvers, ipv6)
    }
}

/// Gives a running container the ways out its networks have, after one of them has gone.
pub(crate) fn lead_out(
    host: &Host<'_>,
    container: &ContainerDir,
    config: &Config,
    attachments: &[Attachment],
) -> Result<()> {
    let all: Vec<Wanted> =
        attachments.iter().filter_map(|one| wanted::attached(host.store, one, config)).collect();
    let ways = wanted::ways(&all);
    let inside = host.socket_inside(&namespace_of(host, container)?)?;
    for ipv6 in [false, true] {
        let leads = |one: &&Attachment| ways.is_way_out(&one.name, ipv6);
        let Some(attachment) = attachments.iter().find(leads) else { continue };
        let gateway = if ipv6 { &attachment.gateway6 } else { &attachment.gateway };
        let gateway: Option<IpAddr> = gateway.as_ref().and_then(|text| text.parse().ok());
        if let (Some(interface), Some(gateway)) = (&attachment.interface, gateway) {
            link::set_default_routes(&inside, interface, &[gateway])?;
        }
    }
    Ok(())
}

/// What the container is attached to and what it is to be attached to, in this order.
pub(crate) fn all(
    store: &Store,
    request: &Request<'_>,
    attachments: &[Attachment],
    wanted: &[Wanted],
) -> Vec<Wanted> {
    let find = |name: &str| wanted.iter().find(|one| one.network.name == name).cloned();
    let there = attachments
        .iter()
        .filter_map(|one| find(&one.name).or_else(|| wanted::attached(store, one, request.config)));
    let mut all: Vec<Wanted> = there.collect();
    for one in wanted {
        if all.iter().all(|other| other.network.name != one.network.name) {
            all.push(one.clone());
        }
    }
    all
}

/// The host's addresses, as seen by the ways out.
fn gateways(all: &[Wanted], ways: &Ways) -> Vec<IpAddr> {
    let of = |name: &Option<String>, ipv6: bool| {
        let one = all.iter().find(|one| Some(&one.network.name) == name.as_ref())?;
        one.network.pools.iter().find(|pool| pool.subnet.is_ipv6() == ipv6).map(|pool| pool.gateway)
    };
    of(&ways.v4, false).into_iter().chain(of(&ways.v6, true)).collect()
}

pub(crate) fn of_name<'w>(all: &'w [Wanted], name: Option<&str>) -> Option<&'w Definition> {
    all.iter().map(|one| &one.network).find(|network| Some(network.name.as_str()) == name)
}

/// Where the ports are published. Fails with input when there are some and no network can lead to them.
pub(crate) fn published_on(ways: &Ways, all: &[Wanted], ports: &[Wish]) -> Result<Option<String>> {
    let name = ways.published_on().map(str::to_owned);
    let Some(port) = ports.first() else { return Ok(name) };
    let network = of_name(all, name.as_deref());
    if let Some(network) = network {
        check_for(network, ports)?;
    }
    match network.map(|network| &network.driver) {
        Some(Driver::Bridge | Driver::Routed | Driver::Cni(_)) => Ok(name),
        Some(_) => Err(Fault::input(format!(
            "port {port} cannot be published: the container's way out is no bridge of this host"
        ))
        .hint("the container has an address of its own on that network: use that")),
        None => Err(Fault::input(format!("port {port} cannot be published: the networks have no way out"))
            .hint("attach the container to a network that is not internal, too")),
    }
}

pub(crate) fn wishes(request: &Request<'_>) -> Result<Vec<Wish>> {
    let of_record = request.config.ports.iter().map(Wish::from_record).collect::<Result<Vec<_>>>()?;
    let of_flags = request
        .publish
        .iter()
        .map(|text| {
            Wish::parse(text).map_err(|fault| {
                let usage = Fault::usage(format!("--publish {text}: {fault}"));
                match fault.hint_text() {
                    Some(hint) => usage.hint(hint),
                    None => usage,
                }
            })
        })
        .collect::<Result<Vec<_>>>()?;
    merge(&of_record, &of_flags)
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

/// What stands in `hosts`: as docker has it, the host name with its domain, then without, so that `hostname -f` and `hostname -s`
/// find theirs; then the container's own.
pub fn names_in_hosts(stored: &Record, config: &Config, id: &str) -> Vec<String> {
    let names = names(stored, config, id);
    let of_domain = |domain: &&String| !domain.is_empty() && !domain.contains(char::is_whitespace);
    let full = match (names.first(), config.domainname.as_ref().filter(of_domain)) {
        (Some(first), Some(domain)) => Some(format!("{first}.{domain}")),
        (first, _) => first.cloned(),
    };
    let bare = full.iter().filter_map(|full| full.split_once('.')).map(|(bare, _)| bare.to_owned());
    let mut in_hosts: Vec<String> = full.iter().cloned().collect();
    for name in bare.chain(names) {
        if !name.is_empty() && !in_hosts.contains(&name) {
            in_hosts.push(name);
        }
    }
    in_hosts
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_the_whole_name_first() {
        let named = |hostname: Option<&str>, domain: Option<&str>, name: &str| {
            let container = serde_json::json!({
                "id": "0123456789abcdef", "name": name, "status": "created", "bundle": "/b",
                "created_at": "2026-01-01T00:00:00Z", "stop_signal": 15,
            });
            let record = serde_json::json!({"staves": 1, "container": container}).to_string();
            let record = Record::parse(&record).unwrap();
            let config = Config {
                hostname: hostname.map(str::to_owned),
                domainname: domain.map(str::to_owned),
                ..Config::default()
            };
            names_in_hosts(&record, &config, "0123456789abcdef").join(" ")
        };
        assert_eq!(named(None, None, "web"), "0123456789ab web");
        assert_eq!(named(Some("foo"), None, "web"), "foo web");
        assert_eq!(named(Some("foo"), Some("ex.org"), "web"), "foo.ex.org foo web");
        assert_eq!(named(Some("foo.ex.org"), None, "web"), "foo.ex.org foo web");
        assert_eq!(named(Some("foo.ex.org"), None, "foo"), "foo.ex.org foo");
    }
}
