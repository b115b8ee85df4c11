//! Removing what containers that are gone left behind.

mod others;

use crate::address;
use crate::claim::Claims;
use crate::definition::{DEFAULT, Definition, File};
use crate::firewall::Element;
use crate::host::Host;
use crate::port::numbers;
use crate::remove::remove_half;
use crate::{firewall, link, release, routed};
use fault::{Explain, Fault, Kind, Result};
use record::Attachment;
use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;
use store::leases::addresses_of;
use store::{Lease, Lock, is_id};

/// One thing that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// `lease`, `port`, `rule`, `interface`, `bridge`, `table`, `network`, or `attachment` by CNI plugins to a network.
    pub kind: &'static str,
    pub name: String,
    /// The container it was of, where that is known.
    pub container: Option<String>,
}

/// Removes leases, claims, firewall elements and interfaces whose container is not looked after, a network's bridge once
/// nothing is attached to it, the firewall table once that holds of all, and halves of networks. Networks whose
/// definition is damaged are left alone, which [`Host::take_notes`] tells. What CNI plugins cannot undo is handed to `failed`, and
/// keeps nothing else from being removed.
pub fn prune(host: &Host<'_>, failed: impl FnMut(Fault)) -> Result<Vec<Pruned>> {
    Pruner::new(host).run(failed)
}

/// What [`prune`] would remove. Changes nothing.
pub fn plan_prune(host: &Host<'_>, failed: impl FnMut(Fault)) -> Result<Vec<Pruned>> {
    Pruner { host, plan: Some(Plan::default()), pruned: Vec::new() }.run(failed)
}

pub(crate) struct Pruner<'h> {
    host: &'h Host<'h>,
    /// If it is there, nothing is removed, and what would be gone by now is looked past.
    plan: Option<Plan>,
    pruned: Vec<Pruned>,
}

/// What would be gone.
#[derive(Default)]
struct Plan {
    /// Network and address: networks made by hand may have the same subnet.
    leases: HashSet<(String, IpAddr)>,
    /// Protocol and port, address, as of [`Claims::all`].
    claims: HashSet<(String, Option<IpAddr>)>,
    elements: Vec<Element>,
    interfaces: HashSet<String>,
}

impl<'h> Pruner<'h> {
    pub(crate) fn new(host: &'h Host<'h>) -> Pruner<'h> {
        Pruner { host, plan: None, pruned: Vec::new() }
    }

    fn run(mut self, mut failed: impl FnMut(Fault)) -> Result<Vec<Pruned>> {
        let (host, plans) = (self.host, self.plan.is_some());
        let mut networks = Vec::new();
        let mut halves = Vec::new();
        let mut names = host.store.networks()?;
        names.sort();
        for name in names {
            match File::find(host.store, &name).and_then(|file| file.map(File::check_named).transpose()) {
                Ok(Some(network)) => networks.push(network),
                Ok(None) => halves.push(name),
                Err(fault) if fault.kind() == Kind::Input => host.note(format!("left alone: {fault}")),
                Err(fault) => return Err(fault),
            }
        }
        for network in &networks {
            if let Err(fault) = self.plugins(network) {
                failed(fault);
            }
            self.leases(network)?;
        }
        self.claims()?;
        let mut in_use = false;
        self.foreigners()?;
        for network in &networks {
            let mut retire = || {
                if !network.driver.has_device() {
                    return self.parent(network);
                }
                self.rules(network)?;
                self.interfaces(network)?;
                self.unused(network)
            };
            let unused = if plans { retire()? } else { host.retire(network, retire)? };
            in_use |= !unused;
        }
        for name in &halves {
            self.half(name)?;
        }
        for name in host.known() {
            if !networks.iter().any(|network| network.name == name) && !host.store.network_dir(&name).exists()
            {
                in_use |= !self.orphan(&name)?;
            }
        }
        if plans {
            let firewall = host.firewall()?;
            if !in_use && firewall.has_table()? && !firewall.has_user_rules()? {
                self.note("table", firewall::TABLE.into(), None);
            }
        } else if table(host)? {
            self.note("table", firewall::TABLE.into(), None);
        }
        Ok(self.pruned)
    }

    /// A directory without a definition: of a creation that was cut off, or of an attachment that was being made while the
    /// network was removed.
    fn half(&mut self, name: &str) -> Result<()> {
        let network = File { name: name.to_owned(), driver: "none".into(), ..File::default() }.check()?;
        self.leases(&network)?;
        let removed = match &self.plan {
            Some(plan) => {
                let leases = self.host.store.leases(name)?.addresses()?;
                leases.iter().all(|address| plan.leases.contains(&(name.to_owned(), *address)))
            }
            None => remove_half(self.host, name)?,
        };
        if removed {
            self.note("network", name.to_owned(), None);
        }
        Ok(())
    }

    /// What was made for a network whose directory somebody removed, known by what it was made as; `false` if it stays.
    fn orphan(&mut self, name: &str) -> Result<bool> {
        let host = self.host;
        let Some(network) = host.made_as(name) else { return Ok(true) };
        if self.plan.is_some() {
            self.interfaces(&network)?;
            return self.bridge(&network);
        }
        let retired = host.retire_for_good(&network, || {
            if network.is_there(host.store) {
                return Err(Fault::conflict("the network was made again").on(name));
            }
            self.interfaces(&network)?;
            if self.bridge(&network)? {
                Ok(())
            } else {
                Err(Fault::conflict("somebody is on the network").on(name))
            }
        });
        match retired {
            Err(fault) if fault.kind() == Kind::Conflict => Ok(false),
            other => other.map(|()| true),
        }
    }

    fn note(&mut self, kind: &'static str, name: String, container: Option<String>) {
        self.pruned.push(Pruned { kind, name, container });
    }

    pub(crate) fn leases(&mut self, network: &Definition) -> Result<()> {
        let host = self.host;
        let leases = host.store.leases(&network.name)?;
        for address in leases.addresses()? {
            let Some(lease) = leases.read(address)? else { continue };
            let removed = if host.store.is_looked_after(&lease.container) {
                // Left by an attach that was killed: the container lives but knows nothing of it.
                let lock = forgotten(host, &lease.container, |attachments| {
                    !attachments.iter().flat_map(addresses_of).any(|known| known == address)
                })?;
                lock.is_some() && self.release(network, address, &lease).is_ok()
            } else {
                self.reclaim(network, address, &lease)?
            };
            if removed {
                let container = Some(lease.container).filter(|id| !id.is_empty());
                self.note("lease", address.to_string(), container);
            }
        }
        Ok(())
    }

    /// The caller has made sure that the container does not need it.
    fn release(&mut self, network: &Definition, address: IpAddr, lease: &Lease) -> Result<()> {
        match &mut self.plan {
            Some(plan) => plan.release(self.host, network, address, lease),
            None => release::lease(self.host, network, address, lease),
        }
    }

    /// A killed tool's lock may outlive it by the moment a child it was starting needs to let go of it.
    fn reclaim(&mut self, network: &Definition, address: IpAddr, lease: &Lease) -> Result<bool> {
        let host = self.host;
        for _ in 0..10 {
            let reclaimed = match &mut self.plan {
                None => address::reclaim(host, network, address, lease)?,
                Some(plan) => match host.store.claim_remains(&lease.container) {
                    Some(_remains) => plan.release(host, network, address, lease).map(|()| true)?,
                    None => false,
                },
            };
            if reclaimed {
                return Ok(true);
            }
            if host.store.is_looked_after(&lease.container) {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(false)
    }

    fn claims(&mut self) -> Result<()> {
        let claims = Claims::new(self.host.store);
        for (name, at, holder) in claims.all() {
            if self.plan.as_ref().is_some_and(|plan| plan.claims.contains(&(name.clone(), at))) {
                continue;
            }
            let remains = self.host.store.claim_remains(&holder);
            let orphan = match &remains {
                Some(_) => None,
                None => forgotten(self.host, &holder, |attachments| !lists(attachments, &name, at))?,
            };
            if remains.is_none() && orphan.is_none() {
                continue;
            }
            if self.plan.is_none() {
                let _lock = claims.lock()?;
                claims.remove(&name, at, &holder);
            }
            let at = at.map(|at| format!("{at}:")).unwrap_or_default();
            self.note("port", format!("{at}{name}"), Some(holder));
        }
        if self.plan.is_none() {
            claims.remove_empty();
        }
        Ok(())
    }

    /// Elements that lead into the network without a lease that lists them. Nothing is being attached meanwhile.
    pub(crate) fn rules(&mut self, network: &Definition) -> Result<()> {
        let firewall = self.host.firewall()?;
        let leases = self.host.store.leases(&network.name)?;
        let mut stale = Vec::new();
        let present = firewall.all().explain(|| "list published ports".into())?;
        for element in present {
            let Some(target) = element.target().filter(|target| network.pool_of(*target).is_some()) else {
                continue;
            };
            if self.plan.as_ref().is_some_and(|plan| plan.elements.contains(&element)) {
                continue;
            }
            let ports = match &self.plan {
                Some(plan) if plan.leases.contains(&(network.name.clone(), target)) => Vec::new(),
                _ => leases.read(target)?.map(|lease| lease.ports).unwrap_or_default(),
            };
            let mut meant =
                ports.iter().filter_map(|port| firewall::elements(port, &[target]).ok()).flatten();
            if !meant.any(|meant| meant == element) {
                self.note("rule", element.to_string(), None);
                stale.push(element);
            }
        }
        if self.plan.is_some() { Ok(()) } else { firewall.remove(&stale) }
    }

    /// Interfaces named as ours, on our bridge, in our group, or in none, that belong to no attached container. Nothing is being attached to
    /// this network meanwhile.
    pub(crate) fn interfaces(&mut self, network: &Definition) -> Result<()> {
        if !network.driver.has_device() {
            return Ok(());
        }
        let route = self.host.route()?;
        let bridge =
            link::index_of(route, &network.device).explain(|| format!("look up {}", network.device))?;
        let leased = self.leased(network)?;
        let mut recorded = None;
        for found in link::all(route)? {
            if !is_of(&found, network, bridge) || leased.contains(&found.name) {
                continue;
            }
            if recorded.is_none() {
                recorded = Some(attached_interfaces(self.host)?);
            }
            if recorded.as_ref().is_some_and(|names| names.contains(&found.name)) {
                continue;
            }
            let removed = match &mut self.plan {
                Some(plan) => plan.interfaces.insert(found.name.clone()),
                // One that is already going with its namespace is not found any more.
                None => link::remove(route, &found.name)?,
            };
            if removed {
                self.note("interface", found.name, None);
            }
        }
        Ok(())
    }

    /// Interfaces of those who hold a lease of the network that stays.
    fn leased(&self, network: &Definition) -> Result<HashSet<String>> {
        let leases = self.host.store.leases(&network.name)?;
        let mut names = HashSet::new();
        for address in leases.addresses()? {
            if self.is_going(network, address) {
                continue;
            }
            if let Some(lease) = leases.read(address)? {
                names.insert(link::host_interface(&lease.container, &network.name));
            }
        }
        Ok(names)
    }

    fn is_going(&self, network: &Definition, address: IpAddr) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.leases.contains(&(network.name.clone(), address)))
    }

    /// Whether nobody is on a network, with its bridge gone by now.
    fn unused(&mut self, network: &Definition) -> Result<bool> {
        let leases = self.host.store.leases(&network.name)?.addresses()?;
        if leases.iter().any(|address| !self.is_going(network, *address)) {
            return Ok(false);
        }
        self.bridge(network)
    }

    /// The bridge, if it was made by us, which its hardware address tells, and has no ports; `false` if it stays.
    pub(crate) fn bridge(&mut self, network: &Definition) -> Result<bool> {
        if !network.driver.has_device() {
            return Ok(true);
        }
        let route = self.host.route()?;
        let found = link::find(route, &network.device);
        let Some(bridge) = found.explain(|| format!("look up {}", network.device))? else {
            // Removed by hand, or by a tool that was killed before it came to the firewall.
            if self.plan.is_none() && self.host.was_made(network) {
                self.host.firewall()?.forget(network)?;
            }
            return Ok(true);
        };
        let gone = self.plan.as_ref();
        let stays = |link: &link::Link| {
            // Of either kind: the definition may have been another one when it was made.
            let is_of = link.master == Some(bridge.index) || link.group == routed::group_of(&network.device);
            is_of && gone.is_none_or(|plan| !plan.interfaces.contains(&link.name))
        };
        let ours = bridge.kind == "bridge" && bridge.mac == link::bridge_mac(network);
        if !ours || link::all(route)?.iter().any(stays) {
            return Ok(false);
        }
        if self.plan.is_none() {
            link::remove(route, &network.device)?;
            self.host.firewall()?.forget(network)?;
        }
        self.note("bridge", network.device.clone(), None);
        Ok(true)
    }
}

/// Removes the firewall table if no network is ready, all of which share it; `false` if there is none, or it is needed.
pub(crate) fn table(host: &Host<'_>) -> Result<bool> {
    host.when_none_is_ready(|| host.firewall()?.remove_table())
}

impl Plan {
    /// What [`release::lease`] would remove.
    fn release(
        &mut self,
        host: &Host<'_>,
        network: &Definition,
        address: IpAddr,
        lease: &Lease,
    ) -> Result<()> {
        let claims = Claims::new(host.store);
        for port in lease.ports.iter().filter(|port| claims.has(&lease.container, port)) {
            self.elements.extend(firewall::elements(port, &[address])?);
            let at = port.ip.as_deref().and_then(|ip| ip.parse().ok());
            let numbers = numbers(port).map(|number| (format!("{}-{number}", port.protocol), at));
            self.claims.extend(numbers);
        }
        self.interfaces.insert(link::host_interface(&lease.container, &network.name));
        self.leases.insert((network.name.clone(), address));
        Ok(())
    }
}

/// The container's lock, if it is not being worked on and its record says so.
fn forgotten(host: &Host<'_>, id: &str, says_so: impl FnOnce(&[Attachment]) -> bool) -> Result<Option<Lock>> {
    if !is_id(id) {
        return Ok(None);
    }
    let container = host.store.container_dir(id);
    if !container.exists() {
        return Ok(None);
    }
    let Some(lock) = Lock::try_exclusive(&container.bundle)? else { return Ok(None) };
    let attachments = container.load()?.networks()?;
    Ok(Some(lock).filter(|_| says_so(&attachments)))
}

fn lists(attachments: &[Attachment], name: &str, at: Option<IpAddr>) -> bool {
    let Some((protocol, number)) = name.split_once('-') else { return false };
    let Ok(number) = number.parse::<u16>() else { return false };
    let at = at.map(|at| at.to_string());
    attachments
        .iter()
        .flat_map(|attachment| &attachment.ports)
        .any(|port| port.protocol == protocol && port.ip == at && numbers(port).contains(&number))
}

fn attached_interfaces(host: &Host<'_>) -> Result<HashSet<String>> {
    let mut names: HashSet<String> = others::foreign_interfaces(host)?.into_iter().collect();
    for container in host.store.containers()?.iter().filter(|container| container.is_alive()) {
        // A record that cannot be read may tell of an attachment.
        match container.load().and_then(|record| record.networks()) {
            Ok(networks) => {
                names.extend(networks.iter().map(|one| link::host_interface(&container.id, &one.name)));
            }
            Err(_) => drop(names.insert(link::host_interface(&container.id, DEFAULT))),
        }
    }
    Ok(names)
}

/// Whether a link may be a container's of this network, or is nobody's. Those of other networks, also of other stores, are on their
/// bridge or in their group.
fn is_of(link: &link::Link, network: &Definition, bridge: Option<u32>) -> bool {
    link.kind == "veth"
        && link.name.strip_prefix(link::PREFIX).is_some_and(|id| id.len() == 12 && is_hex(id))
        && match link.master {
            None => link.group == 0 || link.group == routed::group_of(&network.device),
            master => master == bridge,
        }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::FileSubnet;

    #[test]
    fn links_of_other_networks_are_left_alone() {
        let network = |driver: &str| {
            let subnets = vec![FileSubnet { subnet: "10.90.0.0/24".into(), ..FileSubnet::default() }];
            let (name, device) = ("web".to_owned(), "staves1".to_owned());
            File { name, driver: driver.into(), device, subnets, ..File::default() }.check().unwrap()
        };
        let link = |master, group| link::Link {
            name: "stv0123456789ab".into(),
            kind: "veth".into(),
            master,
            group,
            ..link::Link::default()
        };
        for driver in ["bridge", "routed"] {
            let is_ours = |link: &link::Link, bridge| is_of(link, &network(driver), bridge);
            let (own, others) = (routed::group_of("staves1"), routed::group_of("staves2"));
            assert!(is_ours(&link(None, own), Some(7)) && is_ours(&link(Some(7), 0), Some(7)));
            // What a killed net-attach left, or one whose bridge has gone.
            assert!(is_ours(&link(None, 0), Some(7)) && is_ours(&link(None, 0), None));
            // Of another network, which may be another store's.
            assert!(!is_ours(&link(None, others), Some(7)) && !is_ours(&link(None, others), None));
            assert!(!is_ours(&link(Some(8), 0), Some(7)) && !is_ours(&link(Some(8), 0), None));
            let named = |name: &str| link::Link { name: name.into(), ..link(None, own) };
            assert!(!is_ours(&named("stv0123456789"), None) && !is_ours(&named("eth0"), None));
        }
    }
}
