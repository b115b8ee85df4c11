//! Putting processes into a group.

use crate::{Cgroup, MOUNT, TRACKING, UNIFIED, Version};
use fault::{Explain, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The way into one directory of a group, opened beforehand: from inside a container the group may be out of reach.
#[derive(Debug)]
pub struct Entry {
    file: File,
    /// The group the container's first process has gone into.
    instead: Option<File>,
    is_for_tracking: bool,
    is_unified: bool,
}

impl Entry {
    /// Whether it is of version 2's hierarchy beside version 1's.
    pub fn is_unified(&self) -> bool {
        self.is_unified
    }

    /// Moves the calling process, which must have one thread only.
    pub fn enter(self) -> Result<()> {
        self.put(0)
    }

    /// Moves a process of one thread; 0 is the calling one.
    pub fn put(mut self, pid: i32) -> Result<()> {
        let pid = pid.to_string();
        let joined = self.file.write_all(pid.as_bytes());
        let joined = match (joined, &mut self.instead) {
            (Err(_), Some(instead)) => instead.write_all(pid.as_bytes()),
            // No limit depends on it.
            (Err(_), None) if self.is_for_tracking => Ok(()),
            (joined, _) => joined,
        };
        joined.explain(|| "join the control group".into())
    }
}

impl Cgroup {
    /// The directory of a version 2 group, for `CLONE_INTO_CGROUP`.
    pub fn v2_directory(&self) -> Result<Option<OwnedFd>> {
        match (self.version, self.directories.first()) {
            (Version::V2, Some(directory)) => {
                openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map(Some)
                    .explain(|| format!("open {}", directory.display()))
            }
            _ => Ok(None),
        }
    }

    /// The directory in version 2's hierarchy beside version 1's, for clone3(2).
    pub fn unified_directory(&self) -> Option<OwnedFd> {
        let mut directories = self.directories.iter();
        let directory = directories.find(|one| self.version == Version::V1 && !is_version_1(one))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, directory, flags, Mode::empty()).ok()
    }

    /// The ways into its directories, opened beforehand.
    pub fn join_files(&self) -> Result<Vec<Entry>> {
        self.openable().map(|directory| self.entry(directory, None)).collect()
    }

    fn entry(&self, directory: &Path, instead: Option<File>) -> Result<Entry> {
        Ok(Entry {
            file: open(&join_file(self.version, directory))?,
            instead,
            is_for_tracking: is_for_tracking(self.version, directory),
            is_unified: self.version == Version::V1 && !is_version_1(directory),
        })
    }

    /// Those for tracking only where they can be joined: somebody may have removed them.
    fn openable(&self) -> impl Iterator<Item = &PathBuf> {
        self.directories
            .iter()
            .filter(|directory| !is_for_tracking(self.version, directory) || directory.exists())
    }

    /// The same for a further process of a container, beside its first one (`init`, a pidfd).
    ///
    /// A container may have made groups in its own, gone into one and handed controllers down: then no process can join the one
    /// above any more (cgroups(7), "no internal processes" rule), and further processes go where the first one is, unless the
    /// group was asked for [exactly](Cgroup::exactly).
    pub fn entries(&self, init: BorrowedFd<'_>) -> Result<Vec<Entry>> {
        self.openable().map(|directory| self.entry(directory, self.instead_of(directory, init))).collect()
    }

    /// Best effort: it is needed only if the group itself cannot be joined, and that failure is the one to tell.
    fn instead_of(&self, directory: &Path, init: BorrowedFd<'_>) -> Option<File> {
        // Each directory in it counts as a link.
        if self.exact || self.version == Version::V1 || std::fs::metadata(directory).ok()?.nlink() <= 2 {
            return None;
        }
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", init.as_raw_fd())).ok()?;
        let pid = text.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
        let own = Cgroup::of_process(pid).ok()?;
        let below = own.directories.first().filter(|own| *own != directory && own.starts_with(directory))?;
        open(&join_file(self.version, below)).ok()
    }

    /// The group itself and no other: [`Cgroup::entries`] has no way round.
    #[must_use]
    pub fn exactly(mut self) -> Cgroup {
        self.exact = true;
        self
    }
}

/// The file of a group's directory that a process joins it by, writing its id or "0" for itself.
///
/// In version 1 `tasks`: a process of one thread moves itself without the kernel's global lock.
pub fn join_file(version: Version, directory: &Path) -> PathBuf {
    directory.join(if version == Version::V1 && is_version_1(directory) { "tasks" } else { "cgroup.procs" })
}

/// Whether it is in a hierarchy without controllers beside version 1's.
pub fn is_for_tracking(version: Version, directory: &Path) -> bool {
    version == Version::V1
        && hierarchy(directory).is_some_and(|name| TRACKING.iter().any(|(tracking, ..)| name == *tracking))
}

/// Whether it is in a hierarchy of version 1, on a machine that uses it.
pub fn is_version_1(directory: &Path) -> bool {
    hierarchy(directory) != Some(UNIFIED)
}

fn hierarchy(directory: &Path) -> Option<&str> {
    directory.strip_prefix(MOUNT).ok()?.components().next()?.as_os_str().to_str()
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).open(path).explain(|| format!("open {}", path.display()))
}
