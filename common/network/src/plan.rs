//! What attaching and detaching would do, for `--dry-run`: looks, and changes nothing.

use crate::address;
use crate::attach::{Request, all, chosen_first, missing, namespace_of, of_name, published_on, wishes};
use crate::claim::Claims;
use crate::definition::{Definition, Driver};
use crate::host::{Host, Namespace};
use crate::port::{Wish, bound};
use crate::wanted::{self, Wanted};
use crate::work::{Work, taken_inside};
use crate::{cni, dns, link, release, vlan};
use fault::{Explain, Result};
use record::{Attachment, Port, Record};
use serde::Serialize;
use std::net::IpAddr;
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
        addresses: Vec<String>,
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
        address: IpAddr,
        of: String,
    },
    LeaseAddress {
        network: String,
        address: IpAddr,
    },
    /// List further ports in the lease.
    ExtendLease {
        network: String,
        address: IpAddr,
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
        /// None where the host routes between containers.
        #[serde(skip_serializing_if = "String::is_empty")]
        bridge: String,
        addresses: Vec<String>,
        gateways: Vec<IpAddr>,
        mac: String,
    },
    /// A link in the container's namespace on top of one of the host's, which is made if it is missing and ours to make.
    MakeLink {
        interface: String,
        driver: &'static str,
        parent: String,
        addresses: Vec<String>,
        gateways: Vec<IpAddr>,
        mac: Option<String>,
    },
    /// Run the network's CNI plugins in this order.
    RunPlugins {
        network: String,
        command: &'static str,
        plugins: Vec<String>,
    },
    /// Lead ports of the host to the address.
    PublishPorts {
        addresses: Vec<IpAddr>,
        ports: Vec<Port>,
    },
    /// Start the resolver of a network with names, where none runs.
    StartResolver {
        network: String,
    },
    WriteFiles {
        files: Vec<&'static str>,
    },
}

/// What [`crate::attach`] would do; nothing for a container that has it all. With `set_up` the container is set up
/// before. Fails as attaching would, where that can be told before.
pub fn plan(host: &Host<'_>, request: &Request<'_>, set_up: bool) -> Result<Vec<Step>> {
    let ports = wishes(request)?;
    let mut steps = if set_up { vec![Step::SetUp] } else { Vec::new() };
    let mut wanted = Vec::new();
    for wish in wanted::wishes(request, &ports)? {
        let load = |name: &str| {
            let (network, missing) = Definition::preview(host.store, name)?;
            steps.extend(missing.map(|path| Step::MakeNetwork { network: network.name.clone(), path }));
            Ok(network)
        };
        wanted.push(Wanted::load(wish, load)?);
    }
    if wanted.is_empty() {
        return Ok(steps);
    }
    let record = request.container.load()?;
    let namespace = if set_up { None } else { Some(namespace_of(host, request.container)?) };
    let attachments = record.networks()?;
    if set_up && !request.networks.is_empty() {
        // Those of an earlier run come back first.
        let asked = |one: &&Attachment| wanted.iter().all(|other: &Wanted| other.network.name != one.name);
        let back = attachments.iter().filter(asked);
        let mut back: Vec<Wanted> =
            back.filter_map(|one| wanted::attached(host.store, one, request.config)).collect();
        back.append(&mut wanted);
        wanted = back;
    }
    let all = all(host.store, request, &attachments, &wanted);
    let ways = wanted::ways(&all);
    let published_on = published_on(&ways, &all, &ports)?;
    let ports = bound(of_name(&all, published_on.as_deref()), &ports);
    for one in &wanted {
        let here = published_on.as_deref() == Some(one.network.name.as_str());
        let (of_network, bridge) = match one.network.driver {
            Driver::Bridge | Driver::Routed => host.preview(&one.network)?,
            _ => (Vec::new(), None),
        };
        steps.extend(of_network);
        let present = attachments.iter().find(|other| other.name == one.network.name);
        let mut work = Work {
            host,
            request,
            one,
            interface: wanted::interface(&one.wish, &attachments, &wanted)?,
            ways: &ways,
            ports: if here { &ports } else { &[] },
        };
        match (present, &namespace) {
            (Some(present), Some(namespace)) if work.holds(present, namespace, bridge)? => {
                if let Some(interface) = &present.interface {
                    work.interface.clone_from(interface);
                }
                steps.extend(other_ports(&work, present)?);
            }
            (present, namespace) => steps.extend(attachment(&work, &record, present, namespace.as_ref())?),
        }
    }
    let without = all.iter().filter(|one| dns::is_missing(host, &one.network));
    steps.extend(without.map(|one| Step::StartResolver { network: one.network.name.clone() }));
    let is_new = |step: &Step| {
        matches!(
            step,
            Step::MakeInterface { .. } | Step::MakeLink { .. } | Step::RunPlugins { command: "ADD", .. }
        )
    };
    if steps.iter().any(is_new) {
        steps.extend(write_files(request.container, &["hosts", "resolv.conf"]));
    }
    Ok(steps)
}

fn attachment(
    work: &Work<'_>,
    record: &Record,
    before: Option<&Attachment>,
    namespace: Option<&Namespace>,
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let network = &work.one.network;
    if let Driver::Cni(_) = network.driver {
        return plugins(work);
    }
    if network.driver == Driver::None {
        return Ok(vec![Step::SaveRecord]);
    }
    if let Some(before) = before {
        let ports = release::held(work.host, work.id(), before)?;
        steps.extend(unpublish(ports));
    }
    let ports = claims(work, work.ports, &[])?;
    steps.extend(claim(&ports));
    let mut addresses = Vec::new();
    for (address, holder) in address::preview(work.host, network, &work.addresses(record, &ports, before)?)? {
        steps.extend(holder.map(|of| Step::ReleaseRemains { network: network.name.clone(), address, of }));
        steps.push(Step::LeaseAddress { network: network.name.clone(), address });
        addresses.push(address);
    }
    steps.push(Step::SaveRecord);
    let made = work.attachment(&addresses, ports)?;
    if let Some((_, parent)) = vlan::Kind::of(network)? {
        steps.push(Step::MakeLink {
            interface: work.interface.clone(),
            driver: network.driver.name(),
            parent: vlan::parent_interface(network, parent),
            addresses: made.addresses,
            gateways: work.routes(&addresses),
            mac: made.mac,
        });
        return Ok(steps);
    }
    steps.extend(make_way(work, namespace)?);
    steps.push(Step::MakeInterface {
        interface: work.interface.clone(),
        host_interface: made.host_interface.unwrap_or_default(),
        bridge: if network.driver == Driver::Bridge { network.device.clone() } else { String::new() },
        addresses: made.addresses,
        gateways: work.routes(&addresses),
        mac: made.mac.unwrap_or_default(),
    });
    steps.extend(publish(addresses, made.ports));
    Ok(steps)
}

fn plugins(work: &Work<'_>) -> Result<Vec<Step>> {
    let network = &work.one.network;
    let mut steps = undo_plugins(work.host, &network.name, work.id())?;
    steps.extend(claim(&claims(work, work.ports, &[])?));
    steps.push(Step::SaveRecord);
    steps.push(run_plugins(network, "ADD")?);
    Ok(steps)
}

fn run_plugins(network: &Definition, command: &'static str) -> Result<Step> {
    let plugins = cni::plugins(network, command)?;
    Ok(Step::RunPlugins { network: network.name.clone(), command, plugins })
}

/// What plugins have begun for a container is undone.
fn undo_plugins(host: &Host<'_>, network: &str, id: &str) -> Result<Vec<Step>> {
    if !host.store.plugins_attachment(network, id)?.exists() {
        return Ok(Vec::new());
    }
    Ok(vec![run_plugins(&Definition::preview(host.store, network)?.0, "DEL")?])
}

/// An interface of an earlier run goes, with its other end; one that is not ours stays.
fn make_way(work: &Work<'_>, namespace: Option<&Namespace>) -> Result<Option<Step>> {
    let interface = work.host_interface();
    let outside = link::index_of(work.host.route()?, &interface);
    if outside.explain(|| format!("look up {interface}"))?.is_some() {
        return Ok(Some(Step::RemoveInterface { interface }));
    }
    let Some(namespace) = namespace else { return Ok(None) };
    let inside = link::index_of(&work.host.socket_inside(namespace)?, &work.interface);
    match inside.explain(|| "look up the interface in the container".into())? {
        Some(_) => Err(taken_inside(&work.interface)),
        None => Ok(None),
    }
}

fn other_ports(work: &Work<'_>, present: &Attachment) -> Result<Vec<Step>> {
    let dropped = work.request.dropped(&present.ports, work.ports);
    let ports = claims(work, &missing(work.ports, &present.ports), &present.ports)?;
    let addresses: Vec<IpAddr> = addresses_of(present).collect();
    let mut steps: Vec<Step> = unpublish(dropped).collect();
    if ports.is_empty() || addresses.is_empty() {
        return Ok(steps);
    }
    steps.extend(claim(&ports));
    let network = &work.one.network.name;
    let extend = |address: &IpAddr| Step::ExtendLease { network: network.clone(), address: *address };
    steps.extend(addresses.iter().map(extend));
    steps.push(Step::SaveRecord);
    steps.extend(publish(addresses, ports));
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
        if attachment.cni.is_some() {
            undo_plugins(host, &attachment.name, &container.id)?.into_iter().for_each(&mut add);
            continue;
        }
        unpublish(release::held(host, &container.id, attachment)?).for_each(&mut add);
        if let Some(interface) = release::interface_of(host, &container.id, &attachment.name)? {
            add(Step::RemoveInterface { interface });
        }
        let Ok(leases) = host.store.leases(&attachment.name) else { continue };
        for address in addresses_of(attachment) {
            if leases.read(address)?.is_some_and(|lease| lease.container == container.id) {
                add(Step::ReleaseAddress { network: attachment.name.clone(), address });
            }
        }
    }
    if attachments.is_empty() {
        for network in cni::begun_on(host.store, &container.id)? {
            undo_plugins(host, &network, &container.id)?.into_iter().for_each(&mut add);
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

fn publish(addresses: Vec<IpAddr>, ports: Vec<Port>) -> impl Iterator<Item = Step> {
    (!ports.is_empty()).then_some(Step::PublishPorts { addresses, ports }).into_iter()
}

fn unpublish(ports: Vec<Port>) -> impl Iterator<Item = Step> {
    (!ports.is_empty()).then_some(Step::UnpublishPorts { ports }).into_iter()
}

/// Only those that are there are written.
fn write_files(container: &ContainerDir, names: &[&'static str]) -> impl Iterator<Item = Step> {
    let files: Vec<_> = names.iter().copied().filter(|name| container.bundle.join(name).exists()).collect();
    (!files.is_empty()).then_some(Step::WriteFiles { files }).into_iter()
}
