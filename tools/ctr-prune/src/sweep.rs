//! What killed tools left behind. Nothing here may belong to a container that is being made right now: of such a one
//! there is a bundle, whose lock ctr-create holds until the record is written, before there is anything else.

use crate::groups;
use cli::{Explain, Result};
use shim::{Client, Orphan};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::{ContainerDir, Lock, Store, is_id, remove_tree};

/// For so long a directory may be there before the tool that made it has its lock.
const BETWEEN_STEPS: Duration = Duration::from_secs(1);
/// How long processes may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

/// One step of the sweep.
#[derive(Debug)]
pub enum Step {
    /// A bundle without a record.
    Bundle(ContainerDir),
    /// What stands where only bundles belong.
    Stray(PathBuf),
    /// A run directory without a bundle, and the shim or init that may still be there.
    RunDirectory(ContainerDir),
    /// An address leased to a container that is gone.
    Lease { network: String, address: IpAddr, container: String },
    /// A control group without a container that lives, and processes that may be left in it.
    Group(groups::Remains),
}

/// Directories of containers that are none.
pub fn directories(store: &Store) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    // Looked at before the bundles: a bundle is made before, and removed before, its run directory.
    let run_directories = names_in(&store.run().join("containers"))?;
    for name in names_in(&store.root().join("containers"))?.into_iter().filter(|name| is_id(name)) {
        let dir = store.container_dir(&name);
        if !dir.bundle.is_dir() {
            steps.push(Step::Stray(dir.bundle));
        } else if !dir.exists() && !dir.has_shim() && !Lock::is_held(&dir.bundle) {
            steps.push(Step::Bundle(dir));
        }
    }
    for name in run_directories.into_iter().filter(|name| is_id(name)) {
        let dir = store.container_dir(&name);
        if !dir.bundle.exists() {
            steps.push(Step::RunDirectory(dir));
        }
    }
    Ok(steps)
}

/// What is held in the name of containers that are gone; after their directories are.
pub fn holdings(store: &Store) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for network in store.networks()? {
        let leases = store.leases(&network)?;
        for address in leases.addresses()? {
            let Some(lease) = leases.read(address)? else { continue };
            // Where ports are published the firewall has to forget them first: net-prune does that.
            let gone = is_id(&lease.container)
                && !store.container_dir(&lease.container).bundle.exists()
                && !store.is_foreign_alive(&lease.container);
            if gone && lease.ports.is_empty() {
                steps.push(Step::Lease { network: network.clone(), address, container: lease.container });
            }
        }
    }
    steps.extend(groups::list()?.into_iter().filter(|group| group.is_left_behind(store)).map(Step::Group));
    Ok(steps)
}

impl Step {
    pub fn describe(&self) -> String {
        let step = match self {
            Step::Bundle(dir) => serde_json::json!({"step": "remove_unfinished", "path": dir.bundle}),
            Step::Stray(path) => serde_json::json!({"step": "remove_unfinished", "path": path}),
            Step::RunDirectory(dir) => serde_json::json!({"step": "remove_run_directory", "path": dir.run}),
            Step::Lease { network, address, container } => serde_json::json!({
                "step": "release_address", "network": network, "address": address, "container": container
            }),
            Step::Group(group) => serde_json::json!({"step": "remove_cgroup", "paths": group.directories()}),
        };
        format!("{step}\n")
    }

    /// Looks again first, because the plan may be old. Returns the bytes this gave back.
    pub fn apply(&self, store: &Store) -> Result<u64> {
        match self {
            Step::Bundle(dir) => remove_unfinished(store, dir),
            Step::Stray(path) => {
                crate::wait_for_age(path, BETWEEN_STEPS);
                if path.is_dir() { Ok(0) } else { remove_tree(path) }
            }
            Step::RunDirectory(dir) => remove_run_directory(dir),
            Step::Lease { network, address, container } => {
                store.leases(network)?.release(*address, container)?;
                Ok(0)
            }
            Step::Group(group) => {
                if group.is_left_behind(store) {
                    group.remove(store)?;
                }
                Ok(0)
            }
        }
    }
}

fn remove_unfinished(store: &Store, dir: &ContainerDir) -> Result<u64> {
    crate::wait_for_age(&dir.bundle, BETWEEN_STEPS);
    let lock = match Lock::try_directory(&dir.bundle) {
        Ok(Some(lock)) => lock,
        // Being made, or gone.
        Ok(None) => return Ok(0),
        Err(_) if !dir.bundle.exists() => return Ok(0),
        Err(fault) => return Err(fault),
    };
    if dir.exists() || dir.has_shim() {
        return Ok(0);
    }
    let freed = ctr_rm::discard(store, &dir.bundle)?;
    drop(lock);
    remove_tree(&dir.run)?;
    Ok(freed)
}

fn remove_run_directory(dir: &ContainerDir) -> Result<u64> {
    // Ids are never used again, so what has no bundle now will not get one.
    if dir.bundle.exists() || !dir.run.exists() {
        return Ok(0);
    }
    if dir.has_shim() && Client::connect(dir)?.is_none() {
        // ctr-rm at work: it holds the lock and removes the directory itself.
        return Ok(0);
    }
    if dir.has_shim() || Orphan::of(dir).ok().flatten().is_some() {
        drop(shim::end(dir, PATIENCE)?);
    }
    groups::remove_of(dir)?;
    remove_tree(&dir.run)
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).explain(|| format!("read {}", dir.display())),
    }
}
