//! Removing what containers that are gone left behind.

use crate::address;
use crate::claim::Claims;
use crate::definition::Definition;
use crate::firewall::Element;
use crate::host::Host;
use crate::port::numbers;
use crate::{firewall, link, release};
use fault::{Explain, Result};
use record::Attachment;
use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use store::leases::addresses_of;
use store::{Lease, Lock, is_id};

/// One thing that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pruned {
    /// `lease`, `port`, `rule`, `interface`, `bridge` or `table`.
    pub kind: &'static str,
    pub name: String,
    /// The container it was of, where that is known.
    pub container: Option<String>,
}

/// Removes leases, claims, firewall elements and interfaces whose container is not looked after, and a network's
/// bridge and the firewall table once nothing is attached.
pub fn prune(host: &Host<'_>) -> Result<Vec<Pruned>> {
    Pruner { host, plan: None, pruned: Vec::new() }.run()
}

/// What [`prune`] would remove. Changes nothing.
pub fn plan_prune(host: &Host<'_>) -> Result<Vec<Pruned>> {
    Pruner { host, plan: Some(Plan::default()), pruned: Vec::new() }.run()
}

struct Pruner<'h> {
    host: &'h Host<'h>,
    /// If it is there, nothing is removed, and what would be gone by now is looked past.
    plan: Option<Plan>,
    pruned: Vec<Pruned>,
}

/// What would be gone.
#[derive(Default)]
struct Plan {
    leases: HashSet<IpAddr>,
    /// Protocol and port, address, as of [`Claims::all`].
    claims: HashSet<(String, Option<Ipv4Addr>)>,
    elements: Vec<Element>,
    interfaces: HashSet<String>,
}

impl Pruner<'_> {
    fn run(mut self) -> Result<Vec<Pruned>> {
        let (host, plans) = (self.host, self.plan.is_some());
        let mut networks = Vec::new();
        for name in host.store.networks()? {
            networks.push(if plans {
                Definition::preview(host.store, &name)?.0
            } else {
                Definition::load(host.store, &name)?
            });
        }
        for network in &networks {
            self.leases(network)?;
        }
        self.claims()?;
        for network in &networks {
            let mut retire = || {
                self.rules(network)?;
                self.interfaces(network)?;
                self.unused(network)
            };
            if plans {
                retire()?
            } else {
                host.retire(network, retire)?
            };
        }
        Ok(self.pruned)
    }

    fn note(&mut self, kind: &'static str, name: String, container: Option<String>) {
        self.pruned.push(Pruned { kind, name, container });
    }

    fn leases(&mut self, network: &Definition) -> Result<()> {
        let host = self.host;
        let leases = host.store.leases(&network.name)?;
        for address in leases.addresses()? {
            let IpAddr::V4(v4) = address else { continue };
            let Some(lease) = leases.read(address)? else { continue };
            let removed = if host.store.is_looked_after(&lease.container) {
                // Left by an attach that was killed: the container lives but knows nothing of it.
                let lock = forgotten(host, &lease.container, |attachments| {
                    !attachments.iter().flat_map(addresses_of).any(|known| known == address)
                })?;
                lock.is_some() && self.release(network, v4, &lease).is_ok()
            } else {
                self.reclaim(network, v4, &lease)?
            };
            if removed {
                let container = Some(lease.container).filter(|id| !id.is_empty());
                self.note("lease", address.to_string(), container);
            }
        }
        Ok(())
    }

    /// The caller has made sure that the container does not need it.
    fn release(&mut self, network: &Definition, address: Ipv4Addr, lease: &Lease) -> Result<()> {
        match &mut self.plan {
            Some(plan) => plan.release(self.host, address, lease),
            None => release::lease(self.host, network, address, lease),
        }
    }

    /// A killed tool's lock may outlive it by the moment a child it was starting needs to let go of it.
    fn reclaim(&mut self, network: &Definition, address: Ipv4Addr, lease: &Lease) -> Result<bool> {
        let host = self.host;
        for _ in 0..10 {
            let reclaimed = match &mut self.plan {
                None => address::reclaim(host, network, address, lease)?,
                Some(plan) => match host.store.claim_remains(&lease.container) {
                    Some(_remains) => plan.release(host, address, lease).map(|()| true)?,
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
    fn rules(&mut self, network: &Definition) -> Result<()> {
        let firewall = self.host.firewall()?;
        let leases = self.host.store.leases(&network.name)?;
        let mut stale = Vec::new();
        let present = firewall.all().explain(|| "list published ports".into())?;
        for element in present {
            let Some(target) = element.target().filter(|target| network.subnet.contains(*target)) else {
                continue;
            };
            if self.plan.as_ref().is_some_and(|plan| plan.elements.contains(&element)) {
                continue;
            }
            let ports = match &self.plan {
                Some(plan) if plan.leases.contains(&target.into()) => Vec::new(),
                _ => leases.read(target.into())?.map(|lease| lease.ports).unwrap_or_default(),
            };
            let mut meant = ports.iter().filter_map(|port| firewall::elements(port, target).ok()).flatten();
            if !meant.any(|meant| meant == element) {
                self.note("rule", element.to_string(), None);
                stale.push(element);
            }
        }
        if self.plan.is_some() { Ok(()) } else { firewall.remove(&stale) }
    }

    /// Interfaces named as ours, on our bridge or none, that belong to no attached container.
    fn interfaces(&mut self, network: &Definition) -> Result<()> {
        let route = self.host.route()?;
        let bridge =
            link::index_of(route, &network.device).explain(|| format!("look up {}", network.device))?;
        let mut attached = None;
        for found in link::all(route)? {
            let ours = found.kind == "veth"
                && found.name.strip_prefix(link::PREFIX).is_some_and(|id| id.len() == 12 && is_hex(id))
                && (found.master.is_none() || found.master == bridge);
            if !ours {
                continue;
            }
            if attached.is_none() {
                attached = Some(attached_interfaces(self.host)?);
            }
            if attached.as_ref().is_some_and(|names| names.contains(&found.name)) {
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

    /// Bridge and table of a network with neither leases nor interfaces.
    fn unused(&mut self, network: &Definition) -> Result<bool> {
        let gone = self.plan.as_ref();
        let leases = self.host.store.leases(&network.name)?.addresses()?;
        if leases.iter().any(|address| gone.is_none_or(|plan| !plan.leases.contains(address))) {
            return Ok(false);
        }
        let route = self.host.route()?;
        if let Some(bridge) =
            link::find(route, &network.device).explain(|| format!("look up {}", network.device))?
        {
            let stays = |link: &link::Link| {
                link.master == Some(bridge.index)
                    && gone.is_none_or(|plan| !plan.interfaces.contains(&link.name))
            };
            // Made by us, by its hardware address, and without a port.
            let ours = bridge.kind == "bridge" && bridge.mac == Some(link::mac_of(network.gateway));
            if !ours || link::all(route)?.iter().any(stays) {
                return Ok(false);
            }
            if self.plan.is_none() {
                link::remove(route, &network.device)?;
            }
            self.note("bridge", network.device.clone(), None);
        }
        let firewall = self.host.firewall()?;
        let table = if self.plan.is_some() { firewall.has_table()? } else { firewall.remove_table()? };
        if table {
            self.note("table", firewall::TABLE.into(), None);
        }
        Ok(true)
    }
}

impl Plan {
    /// What [`release::lease`] would remove.
    fn release(&mut self, host: &Host<'_>, address: Ipv4Addr, lease: &Lease) -> Result<()> {
        let claims = Claims::new(host.store);
        for port in lease.ports.iter().filter(|port| claims.has(&lease.container, port)) {
            self.elements.extend(firewall::elements(port, address)?);
            let at = port.ip.as_deref().and_then(|ip| ip.parse().ok());
            let numbers = numbers(port).map(|number| (format!("{}-{number}", port.protocol), at));
            self.claims.extend(numbers);
        }
        self.interfaces.insert(link::host_interface(&lease.container));
        self.leases.insert(address.into());
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

fn lists(attachments: &[Attachment], name: &str, at: Option<Ipv4Addr>) -> bool {
    let Some((protocol, number)) = name.split_once('-') else { return false };
    let Ok(number) = number.parse::<u16>() else { return false };
    let at = at.map(|at| at.to_string());
    attachments
        .iter()
        .flat_map(|attachment| &attachment.ports)
        .any(|port| port.protocol == protocol && port.ip == at && numbers(port).contains(&number))
}

fn attached_interfaces(host: &Host<'_>) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for container in host.store.containers()?.iter().filter(|container| container.is_alive()) {
        // A record that cannot be read may tell of an attachment.
        if container.load().and_then(|record| record.networks()).is_ok_and(|networks| networks.is_empty()) {
            continue;
        }
        names.insert(link::host_interface(&container.id));
    }
    Ok(names)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
