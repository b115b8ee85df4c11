//! Putting processes into a group.

use crate::{Cgroup, Version};
use fault::{Explain, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The way into one directory of a group, opened beforehand: from inside a container the group may be out of reach.
#[derive(Debug)]
pub struct Entry {
    file: File,
    /// The group the container's first process has gone into.
    instead: Option<File>,
}

impl Entry {
    /// Moves the calling process, which must have one thread only.
    pub fn enter(mut self) -> Result<()> {
        let joined = self.file.write_all(b"0");
        let joined = match (joined, &mut self.instead) {
            (Err(_), Some(instead)) => instead.write_all(b"0"),
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

    /// Files that a process joins the group by writing "0" to, opened beforehand.
    ///
    /// In version 1 `tasks`: a single-threaded process moves itself without the kernel's global lock.
    pub fn join_files(&self) -> Result<Vec<File>> {
        let name = self.join_file();
        self.directories.iter().map(|directory| open(&directory.join(name))).collect()
    }

    /// The same for a further process of a container, beside its first one (`init`, a pidfd).
    ///
    /// A container may have made groups in its own, gone into one and handed controllers down: then no process can join the one
    /// above any more (cgroups(7), "no internal processes" rule), and further processes go where the first one is, unless the
    /// group was asked for [exactly](Cgroup::exactly).
    pub fn entries(&self, init: BorrowedFd<'_>) -> Result<Vec<Entry>> {
        let name = self.join_file();
        let entry = |directory: &std::path::PathBuf| {
            Ok(Entry { file: open(&directory.join(name))?, instead: self.instead_of(directory, init) })
        };
        self.directories.iter().map(entry).collect()
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
        open(&below.join(self.join_file())).ok()
    }

    /// The group itself and no other: [`Cgroup::entries`] has no way round.
    #[must_use]
    pub fn exactly(mut self) -> Cgroup {
        self.exact = true;
        self
    }

    fn join_file(&self) -> &'static str {
        match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        }
    }
}

fn open(path: &Path) -> Result<File> {
    OpenOptions::new().write(true).open(path).explain(|| format!("open {}", path.display()))
}
