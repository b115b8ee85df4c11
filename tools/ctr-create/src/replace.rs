//! `--replace`: the container that has the name makes way.

use cli::{Kind, Result};
use ctr_rm::{Options, remove};
use store::Store;

/// Removes the container of exactly this name, running or not, with its volumes that have no name. None is fine.
pub fn make_way(store: &Store, name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    store::check_name(name)?;
    // A prefix of somebody's id is no name.
    if std::fs::symlink_metadata(store.root().join("names").join(name)).is_err() {
        return Ok(());
    }
    let removed = store
        .find_container(name)
        .and_then(|dir| remove(store, &dir, Options { force: true, volumes: true }));
    match removed {
        Err(fault) if fault.kind() != Kind::NotFound => Err(fault.within(format!("replace {name}"))),
        _ => Ok(()),
    }
}
