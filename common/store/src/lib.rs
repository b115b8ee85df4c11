//! State on disk: plain files that `ls`, `cat` and `jq` can read. The layout and the rules of trust are in
//! ARCHITECTURE.md, "State on disk".
#![forbid(unsafe_code)]

pub mod atomic;
mod blobs;
mod cache;
mod container;
mod download;
mod events;
mod foreign;
mod holds;
mod ids;
pub mod index;
mod layers;
pub mod leases;
mod lock;
mod names;
mod scratch;
pub mod settle;
mod steps;
mod subject;
mod survivor;
mod tree;
mod usage;

pub use blobs::{BlobWriter, UnnamedBlob};
pub use cache::Cached;
pub use container::{ContainerDir, LastRun, LiveState, Status, StoppedBy, Version, check_name, is_id};
pub use download::Download;
pub use events::{EventLog, LONGEST_LINE as LONGEST_EVENT, Who};
pub use foreign::Foreign;
pub use holds::{Holding, Holds};
pub use ids::{IdLease, IdRange};
pub use index::{Entry, NewEntry, NewImage, Swept};
pub use layers::{LayerInfo, NewLayer, SweptLayers, UNSET};
pub use leases::{Lease, Leases, needs_net_detach, release_all};
pub use lock::Lock;
pub use scratch::{Scratch, of_process, owner_lives, start_time};
pub use settle::{Settle, boot_id};
pub use steps::Step;
pub use subject::Subject;
pub use tree::remove_tree;
pub use usage::{ImageDetails, ImageUser, ImageUsers};

use fault::{Explain, Fault, Result};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The two state directories. Cheap to make; nothing is read until asked for.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    run: PathBuf,
}

impl Store {
    /// From `STAVES_ROOT` and `STAVES_RUN`, or their defaults for this user.
    pub fn from_env() -> Result<Store> {
        let ordinary_user = !rustix::process::geteuid().is_root();
        let root = directory("STAVES_ROOT", "/var/lib/staves", ordinary_user, || {
            std::env::var_os("XDG_DATA_HOME")
                .map(PathBuf::from)
                .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share")))
                .map(|base| base.join("staves"))
        })?;
        let run = directory("STAVES_RUN", "/run/staves", ordinary_user, || {
            std::env::var_os("XDG_RUNTIME_DIR").map(|base| PathBuf::from(base).join("staves"))
        })?;
        Ok(Store { root, run })
    }

    pub fn at(root: impl Into<PathBuf>, run: impl Into<PathBuf>) -> Store {
        Store { root: root.into(), run: run.into() }
    }

    /// `$STAVES_ROOT`: what survives a reboot.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `$STAVES_RUN`: what does not.
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// Makes a directory below the root with its parents, for root's (the user's) eyes only at the top.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        make_dirs(path)
    }
}

/// Makes a directory and its parents, mode 0700 as container content may be set-uid.
pub(crate) fn make_dirs(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .explain(|| format!("make directory {}", path.display()))
}

fn directory(
    variable: &str,
    default: &str,
    ordinary_user: bool,
    of_user: impl FnOnce() -> Option<PathBuf>,
) -> Result<PathBuf> {
    let path = match std::env::var_os(variable).filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None if !ordinary_user => PathBuf::from(default),
        None => of_user().ok_or_else(|| {
            Fault::failed("no place for state").hint(format!("set {variable} to a directory of your own"))
        })?,
    };
    if path.is_absolute() {
        return Ok(path);
    }
    // Records carry absolute paths, so a relative root is made absolute once, here.
    let here = std::env::current_dir().explain(|| "find the current directory".into())?;
    Ok(here.join(path))
}
