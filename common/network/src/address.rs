//! Choosing an address.

use crate::definition::Definition;
use crate::host::Host;
use crate::release;
use fault::{Fault, Result};
use record::Port;
use std::net::Ipv4Addr;
use store::{Lease, Lock};

/// Leases an address: the preferred one, or the first free one from a place that follows from the container's id,
/// so that containers seldom meet and the same container comes back to the same address.
///
/// Fails with a conflict when all are leased to living containers.
pub fn take(
    host: &Host<'_>,
    network: &Definition,
    id: &str,
    interface: &str,
    ports: &[Port],
    preferred: Option<Ipv4Addr>,
) -> Result<Ipv4Addr> {
    let leases = host.store.leases(&network.name)?;
    let lease = lease(id, interface, ports);
    for address in candidates(network, id, preferred) {
        // Twice at the most: a dead holder's address is free the second time.
        for _ in 0..2 {
            if leases.take(host.store, address.into(), &lease)? {
                return Ok(address);
            }
            let Some(holder) = leases.read(address.into())? else { continue };
            if holder.container == id {
                leases.rewrite(address.into(), &lease)?;
                return Ok(address);
            }
            if !reclaim(host, network, address, &holder)? {
                break;
            }
        }
    }
    Err(none_free(network))
}

/// The address [`take`] would lease now, and the holder it would take it from, one nobody looks after.
pub fn preview(
    host: &Host<'_>,
    network: &Definition,
    id: &str,
    preferred: Option<Ipv4Addr>,
) -> Result<(Ipv4Addr, Option<String>)> {
    let leases = host.store.leases(&network.name)?;
    for address in candidates(network, id, preferred) {
        match leases.read(address.into())? {
            None => return Ok((address, None)),
            Some(holder) if holder.container == id => return Ok((address, None)),
            Some(holder) if host.store.claim_remains(&holder.container).is_some() => {
                return Ok((address, Some(holder.container)));
            }
            Some(_) => {}
        }
    }
    Err(none_free(network))
}

fn candidates(network: &Definition, id: &str, preferred: Option<Ipv4Addr>) -> impl Iterator<Item = Ipv4Addr> {
    let start = id.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    let (subnet, gateway) = (network.subnet, network.gateway);
    let around = (0..subnet.hosts()).map(move |n| subnet.host(start.wrapping_add(n)));
    preferred.into_iter().chain(around).filter(move |address| subnet.is_host(*address) && *address != gateway)
}

fn none_free(network: &Definition) -> Fault {
    Fault::conflict(format!("no free address in {}", network.subnet))
        .on(network.name.as_str())
        .hint(format!("remove containers, or give networks/{}/network.json a larger subnet", network.name))
}

/// Changes the ports listed in a lease the container holds.
pub fn relist(
    host: &Host<'_>,
    network: &Definition,
    id: &str,
    interface: &str,
    address: Ipv4Addr,
    ports: &[Port],
) -> Result<()> {
    host.store.leases(&network.name)?.rewrite(address.into(), &lease(id, interface, ports))
}

/// Frees an address whose container nobody looks after, with all that leads to it; `false` if somebody does.
pub fn reclaim(host: &Host<'_>, network: &Definition, address: Ipv4Addr, holder: &Lease) -> Result<bool> {
    let Some(_remains) = host.store.claim_remains(&holder.container) else { return Ok(false) };
    let leases = host.store.leases(&network.name)?;
    // Of two that found the same dead holder, the second must not take the first one's new lease for it.
    let _lock = Lock::exclusive(&host.store.network_dir(&network.name))?;
    if leases.read(address.into())?.as_ref() != Some(holder) {
        return Ok(true);
    }
    release::lease(host, network, address, holder)?;
    Ok(true)
}

fn lease(id: &str, interface: &str, ports: &[Port]) -> Lease {
    Lease { container: id.into(), interface: interface.into(), ports: ports.to_vec(), ..Lease::default() }
}
