//! Freezing, killing, and what is in a group.

use crate::files::{descendants, write_file};
use crate::{Cgroup, MOUNT, Version};
use fault::{Explain, Fault, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long the kernel may take to stop every process.
const LONGEST_FREEZE: Duration = Duration::from_secs(10);
/// After this, processes that fork all the time may have to be let run for a moment to be stopped at last.
const ROUND: Duration = Duration::from_millis(50);
/// How long processes are looked for that were made while others were killed.
const LONGEST_KILL: Duration = Duration::from_secs(1);

impl Cgroup {
    /// Stops every process of the group and waits until all have stopped.
    ///
    /// Fails if that takes 10 s. After a failure the group runs: half stopped it would be of no use to anybody.
    pub fn freeze(&self) -> Result<()> {
        let frozen = self.freeze_within(LONGEST_FREEZE);
        if frozen.is_err() {
            let _ = self.set_frozen(false);
        }
        frozen
    }

    fn freeze_within(&self, longest: Duration) -> Result<()> {
        let deadline = Instant::now() + longest;
        loop {
            let round = Instant::now() + ROUND;
            let mut pause = Duration::from_micros(20);
            self.set_frozen(true)?;
            while Instant::now() < round {
                if self.is_frozen() {
                    return Ok(());
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
                if self.version == Version::V1 {
                    // Asked again, the kernel looks for processes made since.
                    self.set_frozen(true)?;
                }
            }
            if self.version == Version::V1 {
                // The kernel's freezer does not catch a process that is being made just then (version 1).
                self.set_frozen(false)?;
            }
            if Instant::now() > deadline {
                return Err(Fault::failed("the container's processes could not be stopped within 10 s"));
            }
        }
    }

    /// Lets the processes run again.
    ///
    /// Fails with a conflict if they still do not, because a group above this one is frozen.
    pub fn thaw(&self) -> Result<()> {
        self.set_frozen(false)?;
        if self.is_frozen_from_above() {
            return Err(Fault::conflict(
                "the container's processes still do not run: a control group above is frozen",
            )
            .hint("let that one run again"));
        }
        Ok(())
    }

    fn set_frozen(&self, frozen: bool) -> Result<()> {
        match self.version {
            Version::V1 => self.set("freezer", "freezer.state", if frozen { "FROZEN" } else { "THAWED" }),
            Version::V2 => self.set("", "cgroup.freeze", if frozen { "1" } else { "0" }),
        }
    }

    /// Whether every process is stopped, and not only because those of a group above are.
    pub fn is_frozen(&self) -> bool {
        match self.version {
            Version::V1 => {
                self.read("freezer", "freezer.state").is_some_and(|text| text.trim() == "FROZEN")
                    && self.is_to_be_frozen()
            }
            Version::V2 => {
                self.is_to_be_frozen()
                    && self
                        .read("", "cgroup.events")
                        .is_some_and(|text| text.lines().any(|line| line == "frozen 1"))
            }
        }
    }

    /// Whether somebody has asked for it to be stopped, and not for it to run again.
    pub fn is_to_be_frozen(&self) -> bool {
        match self.version {
            // "FREEZING" and "FROZEN" are said of groups below a frozen one as well.
            Version::V1 => match self.read("freezer", "freezer.self_freezing") {
                Some(text) => text.trim() == "1",
                None => self
                    .read("freezer", "freezer.state")
                    .is_some_and(|text| matches!(text.trim(), "FROZEN" | "FREEZING")),
            },
            Version::V2 => self.read("", "cgroup.freeze").is_some_and(|text| text.trim() == "1"),
        }
    }

    /// Whether a group above is to be stopped, and with it this one.
    pub fn is_frozen_from_above(&self) -> bool {
        match self.version {
            Version::V1 => {
                self.read("freezer", "freezer.parent_freezing").is_some_and(|text| text.trim() == "1")
            }
            Version::V2 => {
                let above =
                    self.directories.first().into_iter().flat_map(|directory| directory.ancestors().skip(1));
                above.take_while(|directory| directory.starts_with(MOUNT)).any(|directory| {
                    std::fs::read_to_string(directory.join("cgroup.freeze"))
                        .is_ok_and(|text| text.trim() == "1")
                })
            }
        }
    }

    /// Process ids in the group.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        for directory in &self.directories {
            // One that cannot be read has none.
            let _ = collect(directory, &mut pids);
        }
        sorted(pids)
    }

    /// Kills every process in the group and in those below it. They may take a moment to end.
    pub fn kill(&self) {
        if self.version == Version::V2
            && let Some(directory) = self.directories.first()
            && std::fs::write(directory.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        // A fork between reading and killing is caught by the next round.
        let deadline = Instant::now() + LONGEST_KILL;
        let mut pause = Duration::from_micros(200);
        loop {
            let pids = self.all_processes().unwrap_or_default();
            if pids.is_empty() || Instant::now() > deadline {
                return;
            }
            for pid in pids.into_iter().filter_map(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
            if self.is_to_be_frozen() {
                // What is stopped does not end.
                let _ = self.set_frozen(false);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// Process ids in the group and in those below it.
    pub fn all_processes(&self) -> Result<Vec<i32>> {
        let mut pids = Vec::new();
        for directory in &self.directories {
            collect(directory, &mut pids)?;
            for below in descendants(directory) {
                collect(&below, &mut pids)?;
            }
        }
        Ok(sorted(pids))
    }

    /// A file of a controller; `None` where there is none.
    pub(crate) fn read(&self, controller: &str, file: &str) -> Option<String> {
        std::fs::read_to_string(self.directory_of(controller)?.join(file)).ok()
    }

    /// Writes what somebody asked for.
    pub(crate) fn set(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        let directory = self.directory_of(controller).ok_or_else(|| {
            Fault::failed(format!("set {file}: the {controller} controller is not available"))
                .hint("sys-check tells what this machine offers")
        })?;
        write_file(&directory.join(file), value)
    }
}

fn collect(directory: &Path, pids: &mut Vec<i32>) -> Result<()> {
    let path = directory.join("cgroup.procs");
    match std::fs::read_to_string(&path) {
        Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|p| *p > 0)),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        // It was removed while it was read.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error()) => {}
        // A version 2 group of threads: its processes are listed further up.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {}
        Err(error) => return Err(error).explain(|| format!("read {}", path.display())),
    }
    Ok(())
}

fn sorted(mut pids: Vec<i32>) -> Vec<i32> {
    pids.sort_unstable();
    pids.dedup();
    pids
}
