//! `RUN --mount=type=cache`: plain directories, `cache/mounts/<name>`, that outlive builds.

use crate::copy::{self, Part};
use crate::stage::Stage;
use cli::{Explain, Kind, Result};
use dockerfile::mount::{Ownership, Sharing};
use oci::Digest;
use rustix::fd::AsFd;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use store::{Lock, Scratch, Store};

/// A cache in use.
#[derive(Debug)]
pub struct Held {
    pub path: PathBuf,
    /// Alone where only one command may have it; nobody removes it meanwhile.
    _lock: Lock,
}

/// Finds or makes a cache; waits where it is locked by another command. `fill`: what it has in it to begin with.
pub fn hold(
    stage: &Stage<'_, '_>,
    id: &str,
    sharing: Sharing,
    mut fill: Option<Part>,
    ownership: Option<&Ownership>,
) -> Result<Held> {
    let store = stage.builder.store;
    let begins_with = fill.as_mut().map(|part| part.digest(stage)).transpose()?;
    let mut copy_number = 0;
    loop {
        let path = place(store, id, ownership, begins_with.as_ref(), copy_number);
        make(stage, store, &path, fill.as_mut(), ownership)?;
        let locked = match sharing {
            Sharing::Shared => Lock::shared_directory(&path).map(Some),
            Sharing::Locked => Lock::directory(&path).map(Some),
            Sharing::Private => Lock::try_directory(&path),
        };
        let lock = match locked {
            Ok(Some(lock)) => lock,
            Ok(None) => {
                copy_number += 1;
                continue;
            }
            // Removed in this moment, as it was not in use.
            Err(fault) if fault.kind() == Kind::NotFound => continue,
            Err(fault) => return Err(fault),
        };
        if !is_at(&lock, &path)? {
            continue;
        }
        // Used now: what nobody uses for a month is pruned.
        if let Ok(dir) = std::fs::File::open(&path) {
            let _ = dir.set_modified(std::time::SystemTime::now());
        }
        return Ok(Held { path, _lock: lock });
    }
}

/// Whether what is locked still has that path: it may have been removed while it was waited for.
fn is_at(lock: &Lock, path: &Path) -> Result<bool> {
    let inode = |status: std::fs::Metadata| (status.dev(), status.ino());
    let locked = lock.file().metadata().explain(|| format!("look at {}", path.display()))?;
    Ok(path.symlink_metadata().is_ok_and(|there| inode(there) == inode(locked)))
}

/// Named so that people find it, and by a digest, as ids are paths. As with docker, one with another owner or mode is another cache: who
/// asks for one of his own could not write to that of somebody else. So is one that begins with other files: it would never have them.
fn place(
    store: &Store,
    id: &str,
    ownership: Option<&Ownership>,
    begins_with: Option<&Digest>,
    copy_number: u32,
) -> PathBuf {
    let readable: String =
        id.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    let mut identity = id.to_owned();
    if let Some(Ownership { uid, gid, mode }) = ownership {
        identity = format!("{identity}\0{uid}:{gid} {mode:o}");
    }
    if let Some(digest) = begins_with {
        identity = format!("{identity}\0{digest}");
    }
    let digest = Digest::of(identity.as_bytes());
    let mut name = format!("{}-{}", readable.trim_matches('-'), &digest.hex()[..16]);
    if copy_number > 0 {
        name = format!("{name}-{copy_number}");
    }
    store.root().join("cache/mounts").join(name)
}

/// Appears whole, with what it begins with.
fn make(
    stage: &Stage<'_, '_>,
    store: &Store,
    path: &Path,
    fill: Option<&mut Part>,
    ownership: Option<&Ownership>,
) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        store.make_dir(parent)?;
    }
    let scratch = Scratch::new(store)?;
    let new = scratch.path();
    let failed = || format!("make the cache {}", path.display());
    std::fs::create_dir(new).explain(failed)?;
    if let Some(part) = fill {
        let root = crate::normalise::open_directory(new)?;
        copy::materialise(stage, part, root.as_fd(), "/")?;
    }
    let (uid, gid, mode) = ownership.map_or((0, 0, 0o755), |wanted| (wanted.uid, wanted.gid, wanted.mode));
    std::os::unix::fs::chown(new, Some(uid), Some(gid))
        .and_then(|()| std::fs::set_permissions(new, std::fs::Permissions::from_mode(mode)))
        .explain(failed)?;
    // rename(2) would put it in place of an empty one that another build holds the lock of.
    match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => {
            scratch.keep();
            Ok(())
        }
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error).explain(failed),
    }
}
