//! Volumes, and what is on its way, left over or can be made again.

use crate::{Row, walk};
use cli::{Context, Result};
use fault::Explain;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use store::{Lock, Store};

pub fn volumes(
    store: &Store,
    uses: &BTreeMap<String, u64>,
    verbose: bool,
    context: &mut Context,
) -> Result<Row> {
    each(&store.root().join("volumes"), verbose, context, |row, name, size| {
        let containers = uses.get(name).copied().unwrap_or(0);
        row.add(size, containers > 0, || json!({"name": name, "size": size, "containers": containers}));
    })
}

/// Blobs on their way here; those that nobody is at were cut, and the next pull goes on with them.
pub fn downloads(store: &Store, verbose: bool) -> Result<Row> {
    let mut row = Row::new(verbose);
    for (name, path) in entries(&store.root().join("partial"))? {
        let Ok(status) = path.symlink_metadata() else { continue };
        let size = status.len();
        let active = status.is_file() && Lock::is_held(&path);
        row.add(
            size,
            active,
            || json!({"digest": name.replacen('-', ":", 1), "size": size, "active": active}),
        );
    }
    Ok(row)
}

/// `tmp/`: each entry is named after the process that owns it.
pub fn unfinished(store: &Store, verbose: bool, context: &mut Context) -> Result<Row> {
    each(&store.root().join("tmp"), verbose, context, |row, name, size| {
        let active = store::owner_lives(name) == Some(true);
        row.add(size, active, || json!({"name": name, "size": size, "active": active}));
    })
}

/// All of it can be given back; what is stale is of no use any more.
pub fn cache(store: &Store, verbose: bool, context: &mut Context) -> Result<Row> {
    let top = store.root().join("cache");
    let mut stale: BTreeMap<String, u64> = BTreeMap::new();
    for cached in store.cached()?.iter().filter(|cached| cached.is_stale) {
        let name = cached.path.strip_prefix(&top).ok().and_then(|path| path.components().next());
        if let Some(name) = name {
            *stale.entry(name.as_os_str().to_string_lossy().into_owned()).or_default() += cached.bytes;
        }
    }
    each(&top, verbose, context, |row, name, size| {
        let stale = stale.get(name).copied().unwrap_or(0);
        row.add(size, false, || json!({"name": name, "size": size, "stale": stale}));
    })
}

fn each(
    folder: &Path,
    verbose: bool,
    context: &mut Context,
    mut add: impl FnMut(&mut Row, &str, u64),
) -> Result<Row> {
    let mut row = Row::new(verbose);
    for (name, path) in entries(folder)? {
        match walk::disk_bytes(&path) {
            Ok(size) => add(&mut row, &name, size),
            Err(fault) => context.report(&fault),
        }
    }
    Ok(row)
}

/// By name, in order.
fn entries(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error).explain(|| format!("read {}", folder.display())),
    }
}
