//! What attaching and detaching would do, for `--dry-run`: looks, and changes nothing.

use crate::address;
use crate::attach::{INTERFACE, Request, Work};
use crate::attach::{address_of, chosen_first, missing, namespace_of, taken_inside, wanted_network, wishes};
use crate::claim::Claims;
use crate::definition::Definition;
use crate::host::{Host, Namespace};
use crate::port::Wish;
use crate::{link, release};
use fault::{Explain, Result};
use record::{Attachment, Port};
use serde::Serialize;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use store::ContainerDir;
use store::leases::addresses_of;

/// One step, in the order in which they are done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Start ctr-shim: the container has ended, or the machine was started anew.
    SetUp,
    /// Write `network.json`.
    MakeNetwork {
        network: String,
        path: PathBuf,
    },
    /// Make the bridge unless it is there, with its address, and up.
    SetUpBridge {
        device: String,
        address: String,
    },
    SetSysctl {
        name: String,
        value: &'static str,
    },
    /// Make the firewall table unless it is there, with its rules.
    SetUpTable {
        table: &'static str,
    },
    /// Take published ports back: out of the firewall, and free for others.
    UnpublishPorts {
        ports: Vec<Port>,
    },
    ClaimPorts {
        ports: Vec<Port>,
    },
    /// Undo what a container nobody looks after left of an address.
    ReleaseRemains {
        network: String,
        address: Ipv4Addr,
        of: String,
    },
    LeaseAddress {
        network: String,
        address: Ipv4Addr,
    },
    /// List further ports in the lease.
    ExtendLease {
        network: String,
        address: Ipv4Addr,
    },
    ReleaseAddress {
        network: String,
        address: IpAddr,
    },
    /// The container's record, saved.
    SaveRecord,
    RemoveInterface {
        interface: String,
    },
    MakeInterface {
        interface: String,
        host_interface: String,
        bridge: String,
        address: String,
        gateway: Ipv4Addr,
        mac: String,
    },
    /// Lead ports of the host to the address.
    PublishPorts {
        address: Ipv4Addr,
        ports: Vec<Port>,
    },
    WriteFiles {
        files: Vec<&'static str>,
    },
}

/// What [`crate::attach`] would do; nothing for a container that has it all. With `set_up` the container is set up
/// before. Fails as attaching would, where that can be told before.
pub fn plan(host: &Host<'_>, request: &Request<'_>, set_up: bool) -> Result<Vec<Step>> {
    let wishes = wishes(request)?;
    let mut steps = if set_up { vec![Step::SetUp] } else { Vec::new() };
    let Some(name) = wanted_network(request, &wishes)? else { return Ok(steps) };
    let (network, missing_file) = Definition::preview(host.store, name)?;
    steps.extend(missing_file.map(|path| Step::MakeNetwork { network: network.name.clone(), path }));
    let stored = request.container.load()?;
    let namespace = if set_up { None } else { Some(namespace_of(host, request.container)?) };
    let (of_network, bridge) = host.preview(&network)?;
    steps.extend(of_network);
    let work = Work { host, network: &network, request, wishes: &wishes };
    let present = stored.networks()?.into_iter().find(|attachment| attachment.name == network.name);
    match (present, &namespace, bridge) {
        (Some(present), Some(namespace), Some(bridge)) if work.holds(&present, namespace, bridge)? => {
            steps.extend(more_ports(&work, &present)?);
        }
        (present, namespace, _) => {
            steps.extend(attachment(&work, present.as_ref(), namespace.as_ref())?);
        }
    }
    Ok(steps)
}

fn attachment(
    work: &Work<'_>,
    before: Option<&Attachment>,
    namespace: Option<&Namespace>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    if let Some(before) = before {
        let ports = release::held(work.host, work.id(), before)?;
        steps.extend(unpublish(ports));
    }
    let ports = claims(work, work.wishes, &[])?;
    steps.extend(claim(&ports));
    let network = &work.network.name;
    let preferred = before.and_then(address_of);
    let (address, holder) = address::preview(work.host, work.network, work.id(), preferred)?;
    steps.extend(holder.map(|of| Step::ReleaseRemains { network: network.clone(), address, of }));
    steps.push(Step::LeaseAddress { network: network.clone(), address });
    steps.push(Step::SaveRecord);
    let made = work.attachment(address, ports);
    steps.extend(make_way(work, namespace)?);
    steps.push(Step::MakeInterface {
        interface: INTERFACE.to_owned(),
        host_interface: made.host_interface.unwrap_or_default(),
        bridge: work.network.device.clone(),
        address: made.addresses.concat(),
        gateway: work.network.gateway,
        mac: made.mac.unwrap_or_default(),
    });
    steps.extend(publish(address, made.ports));
    steps.extend(write_files(work.request.container, &["hosts", "resolv.conf"]));
    Ok(steps)
}

/// An interface of an earlier run goes, with its other end; one that is not ours stays.
fn make_way(work: &Work<'_>, namespace: Option<&Namespace>) -> Result<Option<Step>> {
    let interface = link::host_interface(work.id());
    let outside = link::index_of(work.host.route()?, &interface);
    if outside.explain(|| format!("look up {interface}"))?.is_some() {
        return Ok(Some(Step::RemoveInterface { interface }));
    }
    let Some(namespace) = namespace else { return Ok(None) };
    let inside = link::index_of(&work.host.socket_inside(namespace)?, INTERFACE);
    match inside.explain(|| "look up the interface in the container".into())? {
        Some(_) => Err(taken_inside()),
        None => Ok(None),
    }
}

fn more_ports(work: &Work<'_>, present: &Attachment) -> Result<Vec<Step>> {
    let ports = claims(work, &missing(work.wishes, &present.ports), &present.ports)?;
    let Some(address) = address_of(present).filter(|_| !ports.is_empty()) else { return Ok(Vec::new()) };
    let mut steps: Vec<Step> = claim(&ports).collect();
    steps.push(Step::ExtendLease { network: work.network.name.clone(), address });
    steps.push(Step::SaveRecord);
    steps.extend(publish(address, ports));
    Ok(steps)
}

fn claims(work: &Work<'_>, wishes: &[Wish], present: &[Port]) -> Result<Vec<Port>> {
    let claims = Claims::new(work.host.store);
    let mut ports = present.to_vec();
    for wish in chosen_first(wishes) {
        ports.push(claims.preview(work.id(), wish, &ports)?);
    }
    Ok(ports.split_off(present.len()))
}

/// What [`crate::detach`] would do; nothing for a container that is attached to nothing.
pub fn plan_detach(host: &Host<'_>, container: &ContainerDir, told: &[Attachment]) -> Result<Vec<Step>> {
    let stored = if container.exists() { Some(container.load()?) } else { None };
    let mut attachments = told.to_vec();
    if let Some(stored) = &stored {
        attachments.extend(stored.networks()?);
    }
    let mut steps = Vec::new();
    // What the record told and what is stored may be the same.
    let mut add = |step: Step| {
        if !steps.contains(&step) {
            steps.push(step);
        }
    };
    for attachment in &attachments {
        unpublish(release::held(host, &container.id, attachment)?).for_each(&mut add);
        if let Some(interface) = release::interface_of(host, &container.id)? {
            add(Step::RemoveInterface { interface });
        }
        let Ok(leases) = host.store.leases(&attachment.name) else { continue };
        for address in addresses_of(attachment) {
            if leases.read(address)?.is_some_and(|lease| lease.container == container.id) {
                add(Step::ReleaseAddress { network: attachment.name.clone(), address });
            }
        }
    }
    if stored.is_some_and(|stored| stored.raw("networks").is_some_and(|raw| raw != "[]")) {
        add(Step::SaveRecord);
        write_files(container, &["hosts"]).for_each(&mut add);
    }
    Ok(steps)
}

fn claim(ports: &[Port]) -> impl Iterator<Item = Step> {
    let step = (!ports.is_empty()).then(|| Step::ClaimPorts { ports: ports.to_vec() });
    step.into_iter()
}

fn publish(address: Ipv4Addr, ports: Vec<Port>) -> impl Iterator<Item = Step> {
    (!ports.is_empty()).then_some(Step::PublishPorts { address, ports }).into_iter()
}

fn unpublish(ports: Vec<Port>) -> impl Iterator<Item = Step> {
    (!ports.is_empty()).then_some(Step::UnpublishPorts { ports }).into_iter()
}

/// Only those that are there are written.
fn write_files(container: &ContainerDir, names: &[&'static str]) -> impl Iterator<Item = Step> {
    let files: Vec<_> = names.iter().copied().filter(|name| container.bundle.join(name).exists()).collect();
    (!files.is_empty()).then_some(Step::WriteFiles { files }).into_iter()
}
