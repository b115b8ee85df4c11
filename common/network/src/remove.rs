//! Removing networks.
//!
//! What is in the kernel goes first, then the definition with its leases in one renaming: killed in between, a network
//! is left that is there as before and that nobody is attached to.

use crate::create;
use crate::definition::{Definition, Driver, File, path, unknown};
use crate::host::Host;
use crate::inspect::{Attached, attached};
use crate::prune::Pruner;
use crate::signals::Uninterrupted;
use crate::{cni, foreign, release};
use fault::{Explain, Fault, Kind, Result};
use serde::Serialize;
use store::{Lock, Scratch, is_id};

/// One step of a removal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Removal {
    Detach { network: String, container: String },
    RemoveNetwork { network: String },
}

/// Removes a network with its bridge, leases and firewall elements.
///
/// Containers that are attached are a conflict, or with `force` are detached from it first. Half of a network, and with
/// `force` one whose definition is damaged, is removed as far as it can be found.
pub fn remove(host: &Host<'_>, name: &str, force: bool) -> Result<()> {
    let network = look(host, name, force)?;
    for _ in 0..8 {
        for one in refuse_attached(host, &network, force)? {
            match detach(host, &one.id, &network) {
                Err(fault) if force && matches!(network.driver, Driver::Cni(_)) => {
                    give_up(host, &network, &one.id, &fault)?;
                    detach(host, &one.id, &network)?;
                }
                done => done?,
            }
        }
        // Plugins are run with no lock held but their own.
        match Pruner::new(host).plugins(&network) {
            Err(fault) if force => {
                let ids = host.store.attached_by_plugins(&network.name)?;
                if ids.is_empty() {
                    host.note(format!("its plugins have not given back what they hold: {fault}"));
                }
                for id in ids {
                    // The first that failed has kept others from their turn.
                    if let Err(fault) = cni::release(host, &network.name, &id) {
                        give_up(host, &network, &id, &fault)?;
                    }
                }
            }
            Err(fault) => {
                return Err(
                    fault.hint("--force removes it all the same: what its plugins have made may stay then")
                );
            }
            Ok(()) => {}
        }
        match take_away(host, &network) {
            // Another container came between.
            Err(fault) if force && fault.kind() == Kind::Conflict => {}
            other => return other,
        }
    }
    Err(Fault::retryable("containers are attached to it faster than they can be detached").on(name))
}

/// What plugins cannot undo is theirs.
fn give_up(host: &Host<'_>, network: &Definition, id: &str, fault: &Fault) -> Result<()> {
    let short = id.get(..12).unwrap_or(id);
    host.note(format!("what its plugins made for container {short} may be there still: {fault}"));
    cni::abandon(host, &network.name, id)
}

/// What [`remove`] would do. Changes nothing.
pub fn plan_remove(host: &Host<'_>, name: &str, force: bool) -> Result<Vec<Removal>> {
    let network = look(host, name, force)?;
    let attached = refuse_attached(host, &network, force)?.into_iter();
    let mut steps: Vec<Removal> =
        attached.map(|one| Removal::Detach { network: name.to_owned(), container: one.id }).collect();
    steps.push(Removal::RemoveNetwork { network: name.to_owned() });
    Ok(steps)
}

fn look(host: &Host<'_>, name: &str, force: bool) -> Result<Definition> {
    match create::check_name(name) {
        Err(fault) if fault.kind() == Kind::Conflict => {
            return Err(Fault::conflict("the default network stays")
                .on(name)
                .hint("net-prune removes its bridge when nobody is attached"));
        }
        other => other?,
    }
    // Without a definition there may be leases, and nothing else.
    let nothing = || File { name: name.to_owned(), driver: "none".into(), ..File::default() }.check();
    match File::find(host.store, name).and_then(|file| file.map(File::check_named).transpose()) {
        Ok(Some(network)) => Ok(network),
        Ok(None) if host.store.network_dir(name).is_dir() => nothing(),
        Ok(None) => Err(unknown(host.store, name)),
        Err(fault) if fault.kind() == Kind::Input && force => nothing(),
        Err(fault) if fault.kind() == Kind::Input => {
            Err(fault.hint("--force removes it, without the bridge and the rules it may have"))
        }
        Err(fault) => Err(fault),
    }
}

fn refuse_attached(host: &Host<'_>, network: &Definition, force: bool) -> Result<Vec<Attached>> {
    let present = attached(host.store, network)?;
    if present.is_empty() || force {
        return Ok(present);
    }
    let names: Vec<&str> = present
        .iter()
        .map(|one| if one.name.is_empty() { one.id.get(..12).unwrap_or(&one.id) } else { one.name.as_str() })
        .collect();
    Err(Fault::conflict(format!("attached to it: {}", names.join(", ")))
        .on(network.name.as_str())
        .hint("net-detach detaches them, --force does so first"))
}

/// From this network alone.
fn detach(host: &Host<'_>, id: &str, network: &Definition) -> Result<()> {
    if !is_id(id) {
        return Ok(());
    }
    let container = host.store.container_dir(id);
    if !container.exists() {
        return foreign::delete_id(host, id).map(drop);
    }
    match release::detach_from(host, &container, std::slice::from_ref(&network.name)) {
        Err(fault) if fault.kind() == Kind::NotFound => {}
        other => drop(other.map_err(|fault| fault.on(id))?),
    }
    // Of an attach that was killed before the record was saved.
    let _lock = Lock::exclusive(&container.bundle)?;
    let _whole = Uninterrupted::begin();
    let leases = host.store.leases(&network.name)?;
    for address in leases.addresses()? {
        if let Some(lease) = leases.read(address)?.filter(|lease| lease.container == id) {
            release::lease(host, network, address, &lease)?;
        }
    }
    Ok(())
}

fn take_away(host: &Host<'_>, network: &Definition) -> Result<()> {
    let store = host.store;
    let networks = store.root().join("networks");
    let _networks = Lock::directory(&networks)?;
    let dir = store.network_dir(&network.name);
    if !dir.is_dir() {
        return Err(unknown(store, &network.name));
    }
    let _whole = Uninterrupted::begin();
    host.retire_for_good(network, || {
        // Nobody attaches any more, and those who did meanwhile are to be told of.
        refuse_attached(host, network, false)?;
        if let Some(id) = store.attached_by_plugins(&network.name)?.first() {
            let short = id.get(..12).unwrap_or(id);
            return Err(Fault::conflict(format!("its plugins have not detached container {short} yet"))
                .on(network.name.as_str())
                .hint("net-prune has them do it"));
        }
        let mut pruner = Pruner::new(host);
        pruner.leases(network)?;
        if network.driver.has_device() {
            pruner.rules(network)?;
            pruner.interfaces(network)?;
            pruner.bridge(network)?;
        } else {
            pruner.parent(network)?;
        }
        let scratch = Scratch::new(store)?;
        std::fs::rename(&dir, scratch.path()).explain(|| format!("move {} away", dir.display()))
    })?;
    crate::prune::table(host)?;
    Ok(())
}

/// Removes a network's directory if there is no definition in it and nothing is leased: of a creation that was cut off, or
/// of an attachment that was being made while the network was removed.
pub fn remove_half(host: &Host<'_>, name: &str) -> Result<bool> {
    let networks = host.store.root().join("networks");
    let _networks = Lock::directory(&networks)?;
    if path(host.store, name)?.exists() || !host.store.leases(name)?.addresses()?.is_empty() {
        return Ok(false);
    }
    let dir = host.store.network_dir(name);
    let scratch = Scratch::new(host.store)?;
    match std::fs::rename(&dir, scratch.path()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).explain(|| format!("move {} away", dir.display())),
    }
}
