//! Networks made whole again: bridge, kernel parameters, firewall table and elements, out of the files that tell of them.
//!
//! After `nft flush ruleset`, a firewall daemon's reload or somebody's change to a bridge. Everything is compared first, so that
//! what is right is not touched and no connection notices.

use crate::claim::Claims;
use crate::definition::Definition;
use crate::firewall::{self, Element};
use crate::host::Host;
use crate::{link, routed};
use fault::{Explain, Fault, Kind, Result};
use std::collections::HashSet;
use std::net::IpAddr;
use store::Lease;

/// What became of a network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    pub network: String,
    /// The bridge.
    pub device: String,
    /// Attached ones that are looked after.
    pub containers: usize,
    /// Elements of the firewall that were missing.
    pub published: usize,
    /// Elements that led to nobody.
    pub unpublished: usize,
    /// Interfaces that were put on the bridge again, or led to.
    pub connected: usize,
}

/// Makes these networks whole, or all that anything is attached to.
///
/// Fails with not found for a network that is not there, and with input for one that is not a bridge of ours, before
/// anything is changed.
pub fn reload(host: &Host<'_>, names: &[String]) -> Result<Vec<Reloaded>> {
    let all = host.store.networks()?;
    let mut networks = Vec::new();
    for name in if names.is_empty() { &all } else { names } {
        let named = !names.is_empty();
        let network = match Definition::preview(host.store, name) {
            Ok((network, _)) => network,
            // One that is being made, or was removed since it was listed.
            Err(fault) if !named && fault.kind() == Kind::NotFound => continue,
            Err(fault) => return Err(fault),
        };
        if !network.driver.has_device() {
            if named {
                return Err(Fault::input("not a network with a bridge of ours: there is nothing to reload")
                    .on(name.as_str())
                    .hint("restart its containers to have their links made again"));
            }
            continue;
        }
        if !networks.iter().any(|other: &Definition| other.name == network.name) {
            networks.push(network);
        }
    }
    networks.sort_by(|one, other| one.name.cmp(&other.name));
    let mut done = Vec::new();
    for network in &networks {
        let leases = leases(host, network)?;
        // Without anybody attached the next attachment makes it all.
        if !names.is_empty() || !leases.is_empty() {
            done.push(one(host, network)?);
        }
    }
    Ok(done)
}

fn one(host: &Host<'_>, network: &Definition) -> Result<Reloaded> {
    host.remake(network, |bridge| {
        // Read again: nobody is being attached now.
        let leases = leases(host, network)?;
        let containers: HashSet<&str> = leases.iter().map(|(_, lease)| lease.container.as_str()).collect();
        let (published, unpublished) = publish(host, network)?;
        Ok(Reloaded {
            network: network.name.clone(),
            device: network.device.clone(),
            containers: containers.len(),
            published,
            unpublished,
            connected: connect(host, network, bridge, &leases)?,
        })
    })
}

/// Leases of containers that are looked after.
fn leases(host: &Host<'_>, network: &Definition) -> Result<Vec<(IpAddr, Lease)>> {
    let leases = host.store.leases(&network.name)?;
    let mut found = Vec::new();
    for address in leases.addresses()? {
        let lease = leases.read(address)?;
        found.extend(
            lease.filter(|lease| host.store.is_looked_after(&lease.container)).map(|one| (address, one)),
        );
    }
    Ok(found)
}

/// How many elements were added, and how many removed.
fn publish(host: &Host<'_>, network: &Definition) -> Result<(usize, usize)> {
    let claims = Claims::new(host.store);
    // Whoever gives ports back holds it: what is claimed now keeps its elements.
    let _lock = claims.lock()?;
    let mut meant: Vec<Element> = Vec::new();
    for (address, lease) in leases(host, network)? {
        for port in lease.ports.iter().filter(|port| claims.has(&lease.container, port)) {
            meant.extend(firewall::elements(port, &[address])?);
        }
    }
    let firewall = host.firewall()?;
    let present = firewall.all().explain(|| "list published ports".into())?;
    let (present_keys, meant_keys): (HashSet<&Element>, HashSet<&Element>) =
        (present.iter().collect(), meant.iter().collect());
    let of_network = |element: &Element| element.target().is_some_and(|to| network.pool_of(to).is_some());
    let stale = present.iter().filter(|element| of_network(element) && !meant_keys.contains(element));
    let stale: Vec<Element> = stale.cloned().collect();
    let missing = meant.iter().filter(|element| !present_keys.contains(element));
    let missing: Vec<Element> = missing.cloned().collect();
    firewall.remove(&stale)?;
    firewall.add(&missing).explain(|| "publish ports".into())?;
    Ok((missing.len(), stale.len()))
}

/// Puts the containers' interfaces on the bridge; how many were not.
fn connect(host: &Host<'_>, network: &Definition, bridge: u32, leases: &[(IpAddr, Lease)]) -> Result<usize> {
    let route = host.route()?;
    // Of a container's two addresses one may be led to.
    let mut connected = HashSet::new();
    for (address, lease) in leases {
        let name = link::host_interface(&lease.container, &network.name);
        // Of a container's second address it is where it belongs by now.
        let found = link::find(route, &name).explain(|| format!("look up {name}"))?;
        let Some(found) = found else { continue };
        if routed::group(network).is_some() {
            let mac = mac_of(host, &lease.container, &network.name, *address)?;
            let missing = routed::lead_again(route, network, &found, *address, mac);
            if missing.explain(|| format!("lead to {name}"))? {
                connected.insert(name.clone());
            }
            if address.is_ipv4() && !lease.ports.is_empty() {
                crate::sysctl::let_loopback_by(&name)?;
            }
            continue;
        }
        if found.master != Some(bridge) {
            link::put_on_bridge(route, &name, bridge, !lease.ports.is_empty())
                .explain(|| format!("put {name} on {}", network.device))?;
            connected.insert(name.clone());
        }
        // The definition may have been another one when it was made.
        link::set_isolated(route, &name, network.no_icc).explain(|| format!("set up {name}"))?;
    }
    Ok(connected.len())
}

/// Hardware address of a container that has this address.
fn mac_of(host: &Host<'_>, id: &str, network: &str, address: IpAddr) -> Result<[u8; 6]> {
    let attachments = match host.store.foreign(id)? {
        Some(foreign) => vec![foreign.attachment],
        None => host.store.container_dir(id).load()?.networks()?,
    };
    let told = attachments.iter().find(|one| one.name == network).and_then(|one| one.mac.as_deref());
    Ok(told.and_then(link::parse_mac).unwrap_or_else(|| link::mac_of(address)))
}
