//! What an edited record would change about a container that exists, for `--dry-run`: looks, and changes nothing.

use crate::facts::{identity, specification};
use crate::hooks;
use cli::{Explain, Fault, Kind, Result};
use record::{Config, Container, Record};
use serde_json::Value;
use std::path::PathBuf;
use store::{ContainerDir, Status, Store};

/// How a record differs from the one a bundle was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Difference {
    Nothing,
    /// In the ports that are wished for: net-attach's business, which changes nothing in the bundle.
    Ports,
    Bundle,
}

/// Compares a record, whose wishes are `config`, with the stored one. `config` gets the name the container has if it wishes for
/// none: that is no wish for another one.
pub fn difference(stored: &Record, record: &Record, config: &mut Config) -> Result<Difference> {
    let mut old = stored.config()?;
    let container: Container = stored.require("container")?;
    config.name.get_or_insert_with(|| container.name.clone());
    old.name.get_or_insert(container.name);
    let same_spec = record.raw("spec").is_none_or(|spec| stored.raw("spec") == Some(spec));
    let ports = std::mem::replace(&mut old.ports, config.ports.clone());
    Ok(if !same_spec || *config != old {
        Difference::Bundle
    } else if ports != config.ports {
        Difference::Ports
    } else {
        Difference::Nothing
    })
}

/// A wish that cannot be fulfilled while the container runs.
pub fn refuse_running(dir: &ContainerDir) -> Result<()> {
    if matches!(dir.status()?, Status::Running | Status::Paused | Status::Restarting) {
        return Err(Fault::conflict("the record was changed, but the container is running")
            .hint("pipe it into ctr-restart, or create another with --name"));
    }
    Ok(())
}

/// What [`crate::update`] would do.
#[derive(Debug)]
pub enum Edit {
    Nothing,
    /// Save the ports that are wished for: net-attach's business, which changes nothing in the bundle.
    Ports,
    Bundle(Box<Rewrite>),
}

/// A bundle that would be written anew.
#[derive(Debug)]
pub struct Rewrite {
    /// Host directories that would be made because they are missing.
    pub make_directories: Vec<PathBuf>,
    /// Volumes that would be made because they are missing.
    pub make_volumes: Vec<String>,
    /// `config.json`.
    pub spec: Value,
}

/// Fails with a conflict if the wishes are others than those the bundle was made from and the container runs.
pub fn edit(
    store: &Store,
    dir: &ContainerDir,
    record: &Record,
    mut config: Config,
    warn: &mut dyn FnMut(&str),
) -> Result<Edit> {
    crate::from::expand(store, &mut config)?;
    let mut stored = dir.load()?;
    match difference(&stored, record, &mut config)? {
        Difference::Nothing => return Ok(Edit::Nothing),
        Difference::Ports => return Ok(Edit::Ports),
        Difference::Bundle => refuse_running(dir)?,
    }
    if let Some(spec) = record.raw("spec") {
        stored.set_raw("spec", spec.to_owned())?;
    }
    rewrite(store, dir, &stored, &config, warn).map(Box::new).map(Edit::Bundle)
}

/// What [`crate::refresh`] would do; `None` if that is nothing.
pub fn refreshed(store: &Store, dir: &ContainerDir, warn: &mut dyn FnMut(&str)) -> Result<Option<Rewrite>> {
    let stored = dir.load()?;
    let config = stored.config()?;
    let joins = [&config.network, &config.pid, &config.ipc, &config.uts, &config.userns];
    if joins.into_iter().flatten().any(|mode| mode.starts_with("container:")) {
        return rewrite(store, dir, &stored, &config, warn).map(Some);
    }
    Ok(None)
}

fn rewrite(
    store: &Store,
    dir: &ContainerDir,
    record: &Record,
    config: &Config,
    warn: &mut dyn FnMut(&str),
) -> Result<Rewrite> {
    let name = config.name.clone().unwrap_or_default();
    let generated = specification(store, record, config, &identity(store, &dir.id, &name))?;
    for warning in &generated.warnings {
        warn(warning);
    }
    let spec = match record.raw("spec") {
        Some(text) => {
            generated.settle(serde_json::from_str(text).explain_as(Kind::Input, || "spec".into())?)?
        }
        None => generated.json()?,
    };
    let spec = hooks::apply(spec, config, !generated.binds.is_empty())?;
    let missing = |path: &PathBuf| std::fs::symlink_metadata(path).is_err();
    let binds = generated.binds.into_iter().filter(|bind| bind.create).map(|bind| bind.source);
    let volumes = generated.volumes.into_iter().filter(|volume| missing(&volume.path));
    Ok(Rewrite {
        make_directories: binds.filter(missing).collect(),
        make_volumes: volumes.map(|volume| volume.name).collect(),
        spec,
    })
}
