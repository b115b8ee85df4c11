//! Undoing attachments.

use crate::attach::{self, Request, names_in_hosts, namespace_of};
use crate::claim::Claims;
use crate::definition::Definition;
use crate::host::Host;
use crate::port::Wish;
use crate::signals::Uninterrupted;
use crate::wanted::Wanted;
use crate::{cni, conntrack, files, firewall, link, vlan, wanted};
use fault::{Explain, Fault, Result};
use oci::wishes::Resolver;
use record::{Attachment, Config, Port, Record};
use std::net::IpAddr;
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
    // Of an attach that failed, and could not be undone then. Only here are all networks looked at: beside others that are
    // attached it is left to net-prune.
    if attachments.is_empty() {
        for network in cni::begun_on(host.store, &container.id)? {
            cni::release(host, &network, &container.id)?;
        }
    }
    let Some(mut stored) = stored.filter(|stored| stored.raw("networks").is_some_and(|raw| raw != "[]"))
    else {
        return Ok(());
    };
    stored.set("networks", &Vec::<Attachment>::new())?;
    container.save(&stored)?;
    forget_in_files(host, container, &stored, &attachments)
}

/// Detaches a container from some of its networks, and gives those that stay what these had: the way out, the published
/// ports. Its record does not ask for them any more. What is left.
///
/// Fails with not found for a network it is not attached to, and then detaches it from none.
pub fn detach_from(host: &Host<'_>, container: &ContainerDir, names: &[String]) -> Result<Vec<Attachment>> {
    let lock = Lock::exclusive(&container.bundle)?;
    let whole = Uninterrupted::begin();
    let mut stored = container.load()?;
    let (gone, stay): (Vec<_>, Vec<_>) =
        stored.networks()?.into_iter().partition(|attachment| names.contains(&attachment.name));
    if let Some(missing) = names.iter().find(|name| gone.iter().all(|one| one.name != **name)) {
        return Err(Fault::not_found("the container is not attached to this network").on(missing.as_str()));
    }
    for attachment in &gone {
        all(host, &container.id, attachment)?;
    }
    let mut config = stored.config()?;
    if !stay.is_empty() {
        wanted::put(&mut config, &stay, &[]);
        drop_unreachable(host, &mut config, &stay);
        stored.set("config", &config)?;
    }
    stored.set("networks", &stay)?;
    container.save(&stored)?;
    forget_in_files(host, container, &stored, &gone)?;
    drop(whole);
    drop(lock);
    if stay.is_empty() || !container.is_alive() {
        return Ok(stay);
    }
    let request = Request { container, config: &config, networks: &[], publish: &[], told: &[] };
    let attached = attach::attach(host, &request)?;
    attach::lead_out(host, container, &config, &attached)?;
    Ok(attached)
}

/// Takes out the ports that the networks that are left lead to no more: asked for at the next start they would keep the container
/// from starting. The user hears of it.
fn drop_unreachable(host: &Host<'_>, config: &mut Config, stay: &[Attachment]) {
    let all: Vec<Wanted> = stay.iter().filter_map(|one| wanted::attached(host.store, one, config)).collect();
    let ways = wanted::ways(&all);
    config.ports.retain(|port| {
        let Ok(wish) = Wish::from_record(port) else { return true };
        let Err(fault) = attach::published_on(&ways, &all, &[wish]) else { return true };
        host.note(format!("{fault}; it is not asked for any more, net-attach -p asks again"));
        false
    });
}

/// In `hosts` what the networks that are gone gave, and after the last one its resolver too.
fn forget_in_files(
    host: &Host<'_>,
    container: &ContainerDir,
    stored: &Record,
    gone: &[Attachment],
) -> Result<()> {
    let config = stored.config()?;
    let names = names_in_hosts(stored, &config, &container.id);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for attachment in gone {
        if let Ok(network) = Definition::load(host.store, &attachment.name) {
            let subnets: Vec<_> = network.pools.iter().map(|pool| pool.subnet).collect();
            files::write_hosts(&container.bundle, &subnets, &[], &names)?;
        }
    }
    if gone.is_empty() || !stored.networks()?.is_empty() {
        return Ok(());
    }
    // The networks' resolvers are out of reach.
    files::write_resolv_conf(&container.bundle, &Resolver::parse(&config)?, &[], false)
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
    if attachment.cni.is_some() {
        return cni::release(host, &attachment.name, id);
    }
    ports(host, id, attachment)?;
    interface(host, id, &attachment.name)?;
    link_inside(host, id, attachment)?;
    let Ok(leases) = host.store.leases(&attachment.name) else { return Ok(()) };
    for address in addresses_of(attachment) {
        leases.release(address, id)?;
    }
    Ok(())
}

/// The link of an attachment without another end on the host. With the container's namespace it goes by itself.
fn link_inside(host: &Host<'_>, id: &str, attachment: &Attachment) -> Result<()> {
    // As they are: one that is damaged or gone is no reason to keep an address.
    let (None, Some(interface)) = (&attachment.host_interface, &attachment.interface) else { return Ok(()) };
    let Ok((network, _)) = Definition::preview(host.store, &attachment.name) else { return Ok(()) };
    let Ok(Some(_)) = vlan::Kind::of(&network) else { return Ok(()) };
    let Ok(namespace) = namespace_of(host, &host.store.container_dir(id)) else { return Ok(()) };
    let leases = host.store.leases(&attachment.name)?;
    for address in addresses_of(attachment) {
        if leases.read(address)?.is_some_and(|lease| lease.container == id) {
            return vlan::remove(host, &network, &namespace, interface);
        }
    }
    Ok(())
}

/// The published ports of an attachment: those it tells of, and those its lease lists.
pub fn ports(host: &Host<'_>, id: &str, attachment: &Attachment) -> Result<()> {
    let Ok(leases) = host.store.leases(&attachment.name) else { return Ok(()) };
    let addresses: Vec<IpAddr> = addresses_of(attachment).collect();
    let mut ports = attachment.ports.clone();
    for address in &addresses {
        let lease = leases.read(*address)?.filter(|lease| lease.container == id);
        ports.extend(lease.map(|lease| lease.ports).unwrap_or_default());
    }
    unpublish(host, id, &addresses, &ports)
}

/// These ports of a container, whose addresses on a network they lead to.
pub fn some_ports(
    host: &Host<'_>,
    id: &str,
    network: &str,
    addresses: &[IpAddr],
    ports: &[Port],
) -> Result<()> {
    // The name is one of a record's.
    host.store.leases(network)?;
    unpublish(host, id, addresses, ports)
}

/// Of the ports [`ports`] looks at, those this container has.
pub fn held(host: &Host<'_>, id: &str, attachment: &Attachment) -> Result<Vec<Port>> {
    let Ok(leases) = host.store.leases(&attachment.name) else { return Ok(Vec::new()) };
    let claims = Claims::new(host.store);
    let mut held: Vec<Port> = Vec::new();
    for address in addresses_of(attachment) {
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
pub fn lease(host: &Host<'_>, network: &Definition, address: IpAddr, lease: &Lease) -> Result<()> {
    unpublish(host, &lease.container, &[address], &lease.ports)?;
    interface(host, &lease.container, &network.name)?;
    host.store.leases(&network.name)?.remove(address)
}

/// The container's interface. With the container it goes by itself, unless another container shares the namespace.
fn interface(host: &Host<'_>, id: &str, network: &str) -> Result<()> {
    match interface_of(host, id, network)? {
        Some(name) => link::remove(host.route()?, &name).map(drop),
        None => Ok(()),
    }
}

/// The container's interface on the host for a network, if it is there.
pub fn interface_of(host: &Host<'_>, id: &str, network: &str) -> Result<Option<String>> {
    let name = link::host_interface(id, network);
    let route = host.route()?;
    let there = is_id(id) && link::index_of(route, &name).explain(|| format!("look up {name}"))?.is_some();
    Ok(there.then_some(name))
}

/// The elements of ports this container has and the connections through them, then the claims: a claim says whose an element is.
fn unpublish(host: &Host<'_>, id: &str, addresses: &[IpAddr], ports: &[Port]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    let claims = Claims::new(host.store);
    let _lock = claims.lock()?;
    let ours: Vec<&Port> = ports.iter().filter(|port| claims.has(id, port)).collect();
    let mut elements = Vec::new();
    for port in &ours {
        elements.extend(firewall::elements(port, addresses)?);
    }
    if !elements.is_empty() {
        host.firewall()?.remove(&elements)?;
        conntrack::forget_led_to(addresses, &ours)?;
    }
    for port in ours {
        claims.release(id, port);
    }
    Ok(())
}
