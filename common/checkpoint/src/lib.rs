//! Containers that criu has saved: where they are kept, and the archive in which they move from one machine to another.
//!
//! The archive is a tar, plain or packed with gzip or zstd, with these members in this order:
//!
//! | member | |
//! | --- | --- |
//! | `checkpoint.json` | [`Head`]: what this is |
//! | `container.json` | the container's record |
//! | `checkpoint/NAME` | criu's images |
//! | `rootfs-diff.tar` | what the container changed in its files, as a layer with whiteouts (OCI image spec, `layer.md`); not if it was left out |
//! | `logs/log.json`, `logs/log.json.N`, `logs/log.json.N.gz` | its log |
//!
//! Images are trusted: who writes them decides what the restored processes do, and the record says what of the machine they get. What is
//! guarded against here is an archive that would be written elsewhere than into the container's bundle, or take memory without bound.
#![forbid(unsafe_code)]

mod difference;
mod read;
mod write;

pub use difference::difference;
pub use read::{Incoming, Placed};
pub use write::{Compression, Contents, write};

use fault::{Explain, Fault, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::{Path, PathBuf};
use store::ContainerDir;

/// The directory of criu's images in a bundle; the shim restores from it.
pub const IMAGES: &str = "checkpoint";
/// While they are written.
const UNFINISHED: &str = "checkpoint.new";
/// Members of the archive.
const HEAD: &str = "checkpoint.json";
const RECORD: &str = "container.json";
const DIFFERENCE: &str = "rootfs-diff.tar";
const LOGS: &str = "logs";
const LOG: &str = "log.json";
/// Of the format.
const VERSION: u64 = 1;

/// `checkpoint.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Version of the format.
    pub staves_checkpoint: u64,
    /// RFC 3339.
    pub created_at: String,
    /// Whether there is a `rootfs-diff.tar`.
    pub rootfs: bool,
    /// How many images there are, and files of the log: an archive that was cut between two members lacks some.
    pub images: usize,
    pub logs: usize,
}

/// What criu leaves in its working directory beside the images.
const LEFT: [&str; 4] = ["dump.log", "restore.log", "stats-dump", "stats-restore"];

/// Where images of a container are written, empty.
///
/// # Errors
/// When it cannot be made.
pub fn begin(dir: &ContainerDir) -> Result<PathBuf> {
    let path = unfinished(dir);
    // Of one that was killed.
    store::remove_tree(&path)?;
    Ok(path)
}

/// Where they are until [`commit`].
pub fn unfinished(dir: &ContainerDir) -> PathBuf {
    dir.bundle.join(UNFINISHED)
}

/// They are whole and take the place of older ones.
///
/// # Errors
/// When they cannot be given their name.
pub fn commit(dir: &ContainerDir) -> Result<()> {
    let images = dir.bundle.join(IMAGES);
    store::remove_tree(&images)?;
    std::fs::rename(unfinished(dir), &images).explain(|| format!("rename what became {}", images.display()))
}

/// Nothing came of them.
pub fn abandon(dir: &ContainerDir) {
    // Best effort: the next one removes what is left.
    let _ = store::remove_tree(&unfinished(dir));
}

/// Whether there is something to restore.
pub fn is_there(dir: &ContainerDir) -> bool {
    dir.bundle.join(IMAGES).is_dir()
}

/// Removes the images of a container that goes on: they would not fit what it has written since.
///
/// # Errors
/// When they cannot be removed.
pub fn remove(dir: &ContainerDir) -> Result<()> {
    store::remove_tree(&dir.bundle.join(IMAGES)).map(drop)
}

/// Removes criu's logs and statistics.
pub fn remove_traces(dir: &ContainerDir) {
    for name in LEFT {
        // There need be none.
        let _ = std::fs::remove_file(dir.bundle.join(name));
    }
}

/// The files of a container's log that are in its bundle, the newest first.
fn log_files(bundle: &Path) -> Result<Vec<(String, File)>> {
    let failed = || format!("read {}", bundle.display());
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(bundle).explain(failed)? {
        let name = entry.explain(failed)?.file_name();
        names.extend(name.into_string().ok().filter(|name| is_log(name)));
    }
    names.sort_unstable();
    let directory = directory(bundle)?;
    let open = |name: String| match file_in(&directory, &name) {
        Ok(file) => Ok(Some((name, file))),
        // Rotated away meanwhile.
        Err(fault) if fault.os_error() == Some(rustix::io::Errno::NOENT.raw_os_error()) => Ok(None),
        Err(fault) => Err(fault),
    };
    names.into_iter().filter_map(|name| open(name).transpose()).collect()
}

/// `log.json`, `log.json.7`, `log.json.7.gz`.
fn is_log(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(LOG) else { return false };
    let Some(number) = rest.strip_prefix('.') else { return rest.is_empty() };
    let number = number.strip_suffix(".gz").unwrap_or(number);
    (1..=6).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// What criu calls its images.
fn is_image(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    first
        && name.len() <= 128
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn directory(path: &Path) -> Result<rustix::fd::OwnedFd> {
    use rustix::fs::{CWD, Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).explain(|| format!("open {}", path.display()))
}

/// A regular file and no link to one.
fn file_in(directory: &rustix::fd::OwnedFd, name: &str) -> Result<File> {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let what = || format!("open {name}");
    let file = File::from(openat(directory, name, flags, Mode::empty()).explain(what)?);
    if file.metadata().explain(what)?.is_file() {
        return Ok(file);
    }
    Err(Fault::input(format!("{name} is no regular file")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_names() {
        for name in ["log.json", "log.json.1", "log.json.12.gz"] {
            assert!(is_log(name), "{name}");
        }
        for name in [
            "log.json.",
            "log.jsonx",
            "log.json.gz",
            "log.json.1.gz.gz",
            "log.json.1234567",
            "../log.json",
            "",
            "log.json.-1",
        ] {
            assert!(!is_log(name), "{name}");
        }
        for name in
            ["core-1.img", "pages-1.img", "descriptors.json", "tmpfs-dev-66.tar.gz.img", "netdev-9.img"]
        {
            assert!(is_image(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", ".img", "-x", "a b", "a\0", "ä"] {
            assert!(!is_image(name), "{name}");
        }
        assert!(!is_image(&"a".repeat(129)));
    }
}
