//! Undoing attachments.

use crate::attach::names;
use crate::claim::Claims;
use crate::definition::Definition;
use crate::host::Host;
use crate::signals::Uninterrupted;
use crate::{files, firewall, link};
use fault::{Explain, Result};
use record::{Attachment, Port};
use std::net::{IpAddr, Ipv4Addr};
use store::leases::addresses_of;
use store::{ContainerDir, Lease, Lock, is_id};

/// Detaches a container from all networks, whatever state it is in; what is not there is not missed.
///
/// `told` is what a record says of its attachments, for containers whose own record is gone.
pub fn detach(host: &Host<'_>, container: &ContainerDir, told: &[Attachment]) -> Result<()> {
    if !container.bundle.is_dir() {
        let _whole = Uninterrupted::begin();
        return told.iter().try_for_each(|attachment| all(host, &container.id, attachment));
    }
    let _lock = Lock::exclusive(&container.bundle)?;
    let _whole = Uninterrupted::begin();
    let mut attachments = told.to_vec();
    let stored = if container.exists() { Some(container.load()?) } else { None };
    if let Some(stored) = &stored {
        attachments.extend(stored.networks()?);
    }
    for attachment in &attachments {
        all(host, &container.id, attachment)?;
    }
    let Some(mut stored) = stored.filter(|stored| stored.raw("networks").is_some_and(|raw| raw != "[]"))
    else {
        return Ok(());
    };
    stored.set("networks", &Vec::<Attachment>::new())?;
    container.save(&stored)?;
    let names = names(&stored, &stored.config()?, &container.id);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for attachment in &attachments {
        if let Ok(network) = Definition::load(host.store, &attachment.name) {
            files::write_hosts(&container.bundle, network.subnet, None, &names)?;
        }
    }
    Ok(())
}

/// Gives back all an ended container held of its networks. Its record keeps the attachments, by which its next start attaches it
/// again: where it was, as far as that is free.
pub fn release(host: &Host<'_>, container: &ContainerDir) -> Result<()> {
    let _lock = Lock::exclusive(&container.bundle)?;
    let _whole = Uninterrupted::begin();
    let attachments = container.load()?.networks()?;
    attachments.iter().try_for_each(|attachment| all(host, &container.id, attachment))
}

/// Everything of one attachment: ports first, that others can have them, the address last, when nothing uses it.
/// Leaves alone what is not this container's, whatever the attachment says.
pub fn all(host: &Host<'_>, id: &str, attachment: &Attachment) -> Result<()> {
    ports(host, id, attachment)?;
    interface(host, id)?;
    let Ok(leases) = host.store.leases(&attachment.name) else { return Ok(()) };
    for address in addresses_of(attachment) {
        leases.release(address, id)?;
    }
    Ok(())
}

/// The published ports of an attachment: those it tells of, and those its lease lists.
pub fn ports(host: &Host<'_>, id: &str, attachment: &Attachment) -> Result<()> {
    let Ok(leases) = host.store.leases(&attachment.name) else { return Ok(()) };
    for address in addresses_of(attachment) {
        let IpAddr::V4(v4) = address else { continue };
        unpublish(host, id, v4, &attachment.ports)?;
        if let Some(lease) = leases.read(address)?.filter(|lease| lease.container == id) {
            unpublish(host, id, v4, &lease.ports)?;
        }
    }
    Ok(())
}

/// Of the ports [`ports`] looks at, those this container has.
pub fn held(host: &Host<'_>, id: &str, attachment: &Attachment) -> Result<Vec<Port>> {
    let Ok(leases) = host.store.leases(&attachment.name) else { return Ok(Vec::new()) };
    let claims = Claims::new(host.store);
    let mut held: Vec<Port> = Vec::new();
    for address in addresses_of(attachment).filter(IpAddr::is_ipv4) {
        let lease = leases.read(address)?.filter(|lease| lease.container == id);
        let listed = lease.map(|lease| lease.ports).unwrap_or_default();
        for port in attachment.ports.iter().chain(&listed) {
            if claims.has(id, port) && !held.contains(port) {
                held.push(port.clone());
            }
        }
    }
    Ok(held)
}

/// A lease with all that depends on it. The caller has made sure that its container does not.
pub fn lease(host: &Host<'_>, network: &Definition, address: Ipv4Addr, lease: &Lease) -> Result<()> {
    unpublish(host, &lease.container, address, &lease.ports)?;
    interface(host, &lease.container)?;
    host.store.leases(&network.name)?.remove(address.into())
}

/// The container's interface. With the container it goes by itself, unless another container shares the namespace.
fn interface(host: &Host<'_>, id: &str) -> Result<()> {
    match interface_of(host, id)? {
        Some(name) => link::remove(host.route()?, &name).map(drop),
        None => Ok(()),
    }
}

/// The container's interface on the host, if it is there.
pub fn interface_of(host: &Host<'_>, id: &str) -> Result<Option<String>> {
    let name = link::host_interface(id);
    let route = host.route()?;
    let there = is_id(id) && link::index_of(route, &name).explain(|| format!("look up {name}"))?.is_some();
    Ok(there.then_some(name))
}

/// The elements of ports this container has, then the claims: a claim says whose an element is.
fn unpublish(host: &Host<'_>, id: &str, address: Ipv4Addr, ports: &[Port]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let claims = Claims::new(host.store);
    let _lock = claims.lock()?;
    let ours: Vec<&Port> = ports.iter().filter(|port| claims.has(id, port)).collect();
    let mut elements = Vec::new();
    for port in &ours {
        elements.extend(firewall::elements(port, address)?);
    }
    if !elements.is_empty() {
        host.firewall()?.remove(&elements)?;
    }
    for port in ours {
        claims.release(id, port);
    }
    Ok(())
}
