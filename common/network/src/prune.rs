//! Removing what containers that are gone left behind.

use crate::address;
use crate::claim::Claims;
use crate::definition::Definition;
use crate::host::Host;
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
    let mut pruned = Vec::new();
    let mut networks = Vec::new();
    for name in host.store.networks()? {
        networks.push(Definition::load(host.store, &name)?);
    }
    for network in &networks {
        leases(host, network, &mut pruned)?;
    }
    claims(host, &mut pruned)?;
    for network in &networks {
        host.retire(network, || {
            rules(host, network, &mut pruned)?;
            interfaces(host, network, &mut pruned)?;
            unused(host, network, &mut pruned)
        })?;
    }
    Ok(pruned)
}

fn leases(host: &Host<'_>, network: &Definition, pruned: &mut Vec<Pruned>) -> Result<()> {
    let leases = host.store.leases(&network.name)?;
    for address in leases.addresses()? {
        let IpAddr::V4(v4) = address else { continue };
        let Some(lease) = leases.read(address)? else { continue };
        let removed = if host.store.is_looked_after(&lease.container) {
            // Left by an attach that was killed: the container lives but knows nothing of it.
            forgotten(host, &lease.container, |attachments| {
                !attachments.iter().flat_map(addresses_of).any(|known| known == address)
            })?
            .is_some_and(|_lock| release::lease(host, network, v4, &lease).is_ok())
        } else {
            reclaim(host, network, v4, &lease)?
        };
        if removed {
            pruned.push(Pruned {
                kind: "lease",
                name: address.to_string(),
                container: Some(lease.container).filter(|id| !id.is_empty()),
            });
        }
    }
    Ok(())
}

/// A killed tool's lock may outlive it by the moment a child it was starting needs to let go of it.
fn reclaim(host: &Host<'_>, network: &Definition, address: Ipv4Addr, lease: &Lease) -> Result<bool> {
    for _ in 0..10 {
        if address::reclaim(host, network, address, lease)? {
            return Ok(true);
        }
        if host.store.is_looked_after(&lease.container) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(false)
}

fn claims(host: &Host<'_>, pruned: &mut Vec<Pruned>) -> Result<()> {
    let claims = Claims::new(host.store);
    for (name, at, holder) in claims.all() {
        let remains = host.store.claim_remains(&holder);
        let orphan = match &remains {
            Some(_) => None,
            None => forgotten(host, &holder, |attachments| !lists(attachments, &name, at))?,
        };
        if remains.is_none() && orphan.is_none() {
            continue;
        }
        let _lock = claims.lock()?;
        claims.remove(&name, at, &holder);
        let at = at.map(|at| format!("{at}:")).unwrap_or_default();
        pruned.push(Pruned { kind: "port", name: format!("{at}{name}"), container: Some(holder) });
    }
    claims.remove_empty();
    Ok(())
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
    attachments.iter().flat_map(|attachment| &attachment.ports).any(|port| {
        let first = port.host.unwrap_or(0);
        let last = first.saturating_add(port.count.unwrap_or(1).max(1) - 1);
        port.protocol == protocol && port.ip == at && (first..=last).contains(&number)
    })
}

/// Elements that lead into the network without a lease that lists them. Nothing is being attached meanwhile.
fn rules(host: &Host<'_>, network: &Definition, pruned: &mut Vec<Pruned>) -> Result<()> {
    let leases = host.store.leases(&network.name)?;
    let mut stale = Vec::new();
    let present = host.firewall()?.all().explain(|| "list published ports".into())?;
    for element in present {
        let Some(target) = element.target().filter(|target| network.subnet.contains(*target)) else {
            continue;
        };
        let ports = leases.read(target.into())?.map(|lease| lease.ports).unwrap_or_default();
        let mut meant = ports.iter().filter_map(|port| firewall::elements(port, target).ok()).flatten();
        if !meant.any(|meant| meant == element) {
            pruned.push(Pruned { kind: "rule", name: element.to_string(), container: None });
            stale.push(element);
        }
    }
    host.firewall()?.remove(&stale)
}

/// Interfaces named as ours, on our bridge or none, that belong to no attached container.
fn interfaces(host: &Host<'_>, network: &Definition, pruned: &mut Vec<Pruned>) -> Result<()> {
    let route = host.route()?;
    let bridge = link::index_of(route, &network.device).explain(|| format!("look up {}", network.device))?;
    let mut attached = None;
    for found in link::all(route)? {
        let ours = found.kind == "veth"
            && found.name.strip_prefix(link::PREFIX).is_some_and(|id| id.len() == 12 && is_hex(id))
            && (found.master.is_none() || found.master == bridge);
        if !ours {
            continue;
        }
        if attached.is_none() {
            attached = Some(attached_interfaces(host)?);
        }
        if attached.as_ref().is_some_and(|names| names.contains(&found.name)) {
            continue;
        }
        // One that is already going with its namespace is not found any more.
        if link::remove(route, &found.name)? {
            pruned.push(Pruned { kind: "interface", name: found.name, container: None });
        }
    }
    Ok(())
}

fn attached_interfaces(host: &Host<'_>) -> Result<HashSet<String>> {
    let mut names = HashSet::new();
    for container in host.store.containers()?.iter().filter(|container| container.has_shim()) {
        // A record that cannot be read may tell of an attachment.
        if container.load().and_then(|record| record.networks()).is_ok_and(|networks| networks.is_empty()) {
            continue;
        }
        names.insert(link::host_interface(&container.id));
    }
    Ok(names)
}

/// Bridge and table of a network with neither leases nor interfaces.
fn unused(host: &Host<'_>, network: &Definition, pruned: &mut Vec<Pruned>) -> Result<bool> {
    if !host.store.leases(&network.name)?.addresses()?.is_empty() {
        return Ok(false);
    }
    let route = host.route()?;
    if let Some(bridge) =
        link::find(route, &network.device).explain(|| format!("look up {}", network.device))?
    {
        // Made by us, by its hardware address, and without a port.
        let ours = bridge.kind == "bridge" && bridge.mac == Some(link::mac_of(network.gateway));
        if !ours || link::all(route)?.iter().any(|link| link.master == Some(bridge.index)) {
            return Ok(false);
        }
        link::remove(route, &network.device)?;
        pruned.push(Pruned { kind: "bridge", name: network.device.clone(), container: None });
    }
    if host.firewall()?.remove_table()? {
        pruned.push(Pruned { kind: "table", name: firewall::TABLE.into(), container: None });
    }
    Ok(true)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}
