//! Freezing, and what is in a group.

use crate::{Cgroup, Version};
use fault::{Explain, Fault, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the kernel may take to stop every process.
const LONGEST_FREEZE: Duration = Duration::from_secs(10);
/// After this, processes that fork all the time may have to be let run for a moment to be stopped at last.
const ROUND: Duration = Duration::from_millis(50);

impl Cgroup {
    /// Stops every process of the group and waits until all have stopped.
    ///
    /// Fails if that takes 10 s; the group runs again then.
    pub fn freeze(&self) -> Result<()> {
        let deadline = Instant::now() + LONGEST_FREEZE;
        loop {
            self.set_frozen(true)?;
            let round = Instant::now() + ROUND;
            let mut pause = Duration::from_micros(20);
            while Instant::now() < round {
                if self.is_frozen() {
                    return Ok(());
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            if self.version == Version::V1 {
                // The kernel's freezer does not catch a process that is being made just then (version 1).
                self.set_frozen(false)?;
            }
            if Instant::now() > deadline {
                let _ = self.set_frozen(false);
                return Err(Fault::failed("the container's processes could not be stopped within 10 s"));
            }
        }
    }

    /// Lets the processes run again.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        match self.version {
            Version::V1 => self.set("freezer", "freezer.state", if frozen { "FROZEN" } else { "THAWED" }),
            Version::V2 => self.set("", "cgroup.freeze", if frozen { "1" } else { "0" }),
        }
    }

    /// Whether every process is stopped.
    pub fn is_frozen(&self) -> bool {
        match self.version {
            Version::V1 => self.read("freezer", "freezer.state").is_some_and(|text| text.trim() == "FROZEN"),
            Version::V2 => {
                self.read("", "cgroup.events").is_some_and(|text| text.lines().any(|line| line == "frozen 1"))
            }
        }
    }

    /// Whether somebody has asked for it to be stopped, and not for it to run again.
    pub fn is_to_be_frozen(&self) -> bool {
        match self.version {
            Version::V1 => self
                .read("freezer", "freezer.state")
                .is_some_and(|text| matches!(text.trim(), "FROZEN" | "FREEZING")),
            Version::V2 => self.read("", "cgroup.freeze").is_some_and(|text| text.trim() == "1"),
        }
    }

    /// Process ids in the group and in those below it.
    pub fn all_processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for directory in &self.directories {
            collect(directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// A file of a controller; `None` where there is none.
    pub(crate) fn read(&self, controller: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.directory_of(controller)?.join(file)).ok()
    }
}

fn collect(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let path = directory.join("cgroup.procs");
    match std::fs::read_to_string(&path) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|p| *p > 0)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        // A version 2 group of threads: its processes are listed further up.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {}
        Err(error) => return Err(error).explain(|| format!("read {}", path.display())),
    }
    for child in children(directory) {
        collect(&child, pids)?;
    }
    Ok(())
}

fn children(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
