//! Other limits for a group that has some.

use crate::{Cgroup, Version};
use fault::Result;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};
use std::collections::HashMap;
use std::path::Path;

/// What the kernel gives a group nobody asked anything for.
const CPU_SHARES: u64 = 1024;
/// Microseconds.
const CPU_PERIOD: u64 = 100_000;
const BFQ_WEIGHT: u16 = 100;
const IO_WEIGHT: &str = "default 100";
/// Memory or processes without a limit.
const NONE: i64 = -1;

impl Cgroup {
    /// Sets the limits `new` in place of `old`: what `old` limits and `new` does not is unlimited afterwards. Rules for
    /// devices are left as they are.
    ///
    /// After a failure those of `old` are set again, as far as the kernel lets them.
    pub fn replace(&self, old: &LinuxResources, new: &LinuxResources) -> Result<()> {
        let applied = self.apply(&self.completed(old, new));
        if applied.is_err() {
            let _ = self.apply(&self.completed(new, old));
        }
        applied
    }

    /// `new` with what takes away the limits that only `old` has.
    fn completed(&self, old: &LinuxResources, new: &LinuxResources) -> LinuxResources {
        let mut unified = HashMap::new();
        let mut all = LinuxResources::default();
        all.set_memory(self.memory(old.memory().as_ref(), new.memory().as_ref(), &mut unified))
            .set_cpu(self.cpu(old.cpu().as_ref(), new.cpu().as_ref(), &mut unified))
            .set_block_io(self.block_io(old.block_io().as_ref(), new.block_io().as_ref(), &mut unified))
            .set_pids(pids(old.pids().as_ref(), new.pids().as_ref()));
        if !unified.is_empty() {
            all.set_unified(Some(unified));
        }
        all
    }

    fn memory(
        &self,
        old: Option<&LinuxMemory>,
        new: Option<&LinuxMemory>,
        unified: &mut HashMap<String, String>,
    ) -> Option<LinuxMemory> {
        let Some(old) = old else { return new.copied() };
        let mut memory = new.copied().unwrap_or_default();
        if old.limit().is_some() && memory.limit().is_none() {
            memory.set_limit(Some(NONE));
        }
        if old.swap().is_some() && memory.swap().is_none() {
            memory.set_swap(Some(NONE));
        }
        if old.reservation().is_some() && memory.reservation().is_none() {
            match self.version() {
                Version::V1 => {
                    memory.set_reservation(Some(NONE));
                }
                // Without a limit version 2 would keep all of its memory for it.
                Version::V2 => {
                    unified.insert("memory.low".to_owned(), "0".to_owned());
                }
            }
        }
        Some(memory)
    }

    fn cpu(
        &self,
        old: Option<&LinuxCpu>,
        new: Option<&LinuxCpu>,
        unified: &mut HashMap<String, String>,
    ) -> Option<LinuxCpu> {
        let Some(old) = old else { return new.cloned() };
        let mut cpu = new.cloned().unwrap_or_default();
        if old.shares().is_some() && cpu.shares().is_none() {
            cpu.set_shares(Some(CPU_SHARES));
        }
        if old.quota().is_some() && cpu.quota().is_none() {
            cpu.set_quota(Some(NONE));
        }
        if old.period().is_some() && cpu.period().is_none() {
            cpu.set_period(Some(CPU_PERIOD));
        }
        if old.cpus().is_some() && cpu.cpus().is_none() {
            cpu.set_cpus(self.every("cpuset.cpus", unified));
        }
        if old.mems().is_some() && cpu.mems().is_none() {
            cpu.set_mems(self.every("cpuset.mems", unified));
        }
        Some(cpu)
    }

    /// All that the group above has: version 1 wants a list, version 2 gives them for none.
    fn every(&self, file: &str, unified: &mut HashMap<String, String>) -> Option<String> {
        if self.version() == Version::V2 {
            unified.insert(file.to_owned(), String::new());
            return None;
        }
        let above = self.directory_of("cpuset").and_then(Path::parent)?;
        Some(std::fs::read_to_string(above.join(file)).ok()?.trim().to_owned())
    }

    fn block_io(
        &self,
        old: Option<&LinuxBlockIo>,
        new: Option<&LinuxBlockIo>,
        unified: &mut HashMap<String, String>,
    ) -> Option<LinuxBlockIo> {
        let Some(old) = old else { return new.cloned() };
        let mut io = new.cloned().unwrap_or_default();
        if old.weight().is_some() && io.weight().is_none() {
            if self.version() == Version::V2 && self.read("", "io.bfq.weight").is_none() {
                unified.insert("io.weight".to_owned(), IO_WEIGHT.to_owned());
            } else {
                io.set_weight(Some(BFQ_WEIGHT));
            }
        }
        Some(io)
    }
}

fn pids(old: Option<&LinuxPids>, new: Option<&LinuxPids>) -> Option<LinuxPids> {
    let mut none = LinuxPids::default();
    none.set_limit(NONE);
    new.copied().or_else(|| old.map(|_| none))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn resources(json: &str) -> LinuxResources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn what_is_limited_no_more_is_unlimited() {
        let scratch = Scratch::new("replace");
        let files =
            ["memory.max", "memory.low", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max", "io.weight"];
        let group = scratch.group(&files.map(|file| (file, "x")));
        let old = resources(
            r#"{"memory":{"limit":100,"reservation":5},"cpu":{"shares":512,"quota":1000,"period":2000,"cpus":"0"},
                "pids":{"limit":7},"blockIO":{"weight":500}}"#,
        );
        group.replace(&resources("{}"), &old).unwrap();
        assert_eq!(files.map(|file| scratch.text(file)), ["100", "5", "1000 2000", "59", "0", "7", "4950"]);
        group.replace(&old, &resources(r#"{"memory":{"limit":200}}"#)).unwrap();
        let left = files.map(|file| scratch.text(file));
        assert_eq!(left, ["200", "0", "max 100000", "100", "", "max", "default 100"]);
    }

    #[test]
    fn a_failure_leaves_what_was() {
        let scratch = Scratch::new("undo");
        let group = scratch.group(&[("memory.max", "x"), ("pids.max", "x")]);
        let old = resources(r#"{"pids":{"limit":7}}"#);
        group.apply(&old).unwrap();
        // There is no cpu.max.
        let wrong = resources(r#"{"memory":{"limit":100},"cpu":{"quota":5},"pids":{"limit":8}}"#);
        assert!(group.replace(&old, &wrong).is_err());
        assert_eq!((scratch.text("memory.max"), scratch.text("pids.max")), ("max".into(), "7".into()));
    }
}
