//! `cache/`: what can be made again. Nobody waits for anything in it, so what is removed is missed by nobody.

use crate::{Lock, Scratch, Store, remove_tree};
use fault::{Explain, Kind, Result};
use std::fs::{DirEntry, Metadata};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What nobody has read for so long is of a profile, or a version of the tools, that is not in use any more. Kernels note the
/// first reading of a day (`relatime`).
const UNUSED_FOR: Duration = Duration::from_hours(30 * 24);
/// What is being written has a name of its own, for a moment.
const BEING_WRITTEN_FOR: Duration = Duration::from_hours(1);

/// A file of the cache.
#[derive(Clone, Debug)]
pub struct Cached {
    pub path: PathBuf,
    /// Bytes on disk.
    pub bytes: u64,
    /// Of no use any more: made of something that has changed, left half written, or not read for a month.
    pub is_stale: bool,
}

impl Store {
    /// The files of the cache.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn cached(&self) -> Result<Vec<Cached>> {
        let mut found = Vec::new();
        let top = self.root().join("cache");
        for (entry, status) in entries(&top)? {
            let path = entry.path();
            if !status.is_dir() {
                let is_stale = match entry.file_name().to_str() {
                    Some("images") => crate::index::cache::is_stale(self),
                    _ => is_unused(&path, &status),
                };
                found.push(Cached { bytes: on_disk(&status), is_stale, path });
                continue;
            }
            let inside = entries(&path)?;
            for (entry, status) in &inside {
                // Directories in it are nobody's.
                let is_stale = is_unused(&entry.path(), status);
                found.push(Cached { bytes: on_disk(status), is_stale, path: entry.path() });
            }
        }
        Ok(found)
    }

    /// Removes a file of the cache, or a directory that nobody has locked; says whether it was there.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove_cached(&self, cached: &Cached) -> Result<bool> {
        let what = || format!("remove {}", cached.path.display());
        match std::fs::remove_file(&cached.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) if error.kind() == ErrorKind::IsADirectory => self.remove_directory(&cached.path),
            Err(error) => Err(error).explain(what),
        }
    }

    /// A command may have it mounted. It goes at once, so that who waits for the lock finds that it is gone.
    fn remove_directory(&self, path: &Path) -> Result<bool> {
        let lock = match Lock::try_directory(path) {
            Ok(Some(lock)) => lock,
            Ok(None) => return Ok(false),
            Err(fault) if fault.kind() == Kind::NotFound => return Ok(false),
            Err(fault) => return Err(fault),
        };
        let aside = Scratch::new(self)?;
        std::fs::rename(path, aside.path()).explain(|| format!("remove {}", path.display()))?;
        drop(lock);
        remove_tree(aside.path()).map(|_| true)
    }
}

/// Not by what a name promises: a program whose profile changes has another name, and the old file stays.
fn is_unused(path: &Path, status: &Metadata) -> bool {
    let limit = if is_temporary(path) { BEING_WRITTEN_FOR } else { UNUSED_FOR };
    let old = |time: std::io::Result<SystemTime>| {
        time.ok().and_then(|time| time.elapsed().ok()).is_some_and(|age| age > limit)
    };
    old(status.modified()) && old(status.accessed())
}

/// `.images.PID-N`, `<digits>.PID`.
fn is_temporary(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().contains('.'))
}

fn on_disk(status: &Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    status.blocks().saturating_mul(512)
}

fn entries(dir: &Path) -> Result<Vec<(DirEntry, Metadata)>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => Ok(entries
            .flatten()
            .filter_map(|entry| {
                let status = entry.path().symlink_metadata().ok()?;
                Some((entry, status))
            })
            .collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).explain(|| format!("read {}", dir.display())),
    }
}
