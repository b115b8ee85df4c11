//! Version 1: a hierarchy for each controller, or for a few mounted together.

use crate::{
    CGROUP_SUPER_MAGIC, Cgroup, LinuxResources, MOUNT, V1_CONTROLLERS, devices, magic, make_directory,
    write_file,
};
use fault::{Explain, Fault, Result};
use std::path::{Path, PathBuf};

/// Roots of the hierarchies that are mounted, each once: `cpu` may be a link to `cpu,cpuacct`.
pub fn hierarchies() -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    for controller in V1_CONTROLLERS {
        let path = Path::new(MOUNT).join(controller);
        let root = match std::fs::read_link(&path) {
            Ok(target) => Path::new(MOUNT).join(target.file_name().unwrap_or_default()),
            Err(_) => path,
        };
        if !roots.contains(&root) && magic(&root) == Some(CGROUP_SUPER_MAGIC) {
            roots.push(root);
        }
    }
    roots
}

pub fn make(relative: &Path) -> Result<Vec<PathBuf>> {
    let mut made = Vec::new();
    for root in hierarchies() {
        if let Err(fault) = make_below(&root, relative) {
            for directory in made {
                let _ = std::fs::remove_dir(directory);
            }
            return Err(fault);
        }
        made.push(root.join(relative));
    }
    Ok(made)
}

fn make_below(root: &Path, relative: &Path) -> Result<()> {
    let cpuset =
        root.file_name().is_some_and(|name| name.to_string_lossy().split(',').any(|c| c == "cpuset"));
    let full = root.join(relative);
    if !cpuset && std::fs::create_dir(&full).is_ok() {
        return Ok(());
    }
    let mut directory = root.to_path_buf();
    for component in relative.components() {
        let parent = directory.clone();
        directory.push(component);
        make_directory(&directory)?;
        if cpuset {
            inherit_cpuset(&parent, &directory)?;
        }
    }
    Ok(())
}

/// A new cpuset has no processors and no memory, and no process can join it, until it is given some.
fn inherit_cpuset(parent: &Path, directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(file);
        let present = std::fs::read_to_string(&own).explain(|| format!("read {}", own.display()))?;
        if present.trim().is_empty() {
            let path = parent.join(file);
            let value = std::fs::read_to_string(&path).explain(|| format!("read {}", path.display()))?;
            write_file(&own, value.trim())?;
        }
    }
    Ok(())
}

pub fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    if let Some(rules) = resources.devices().as_deref()
        && !rules.is_empty()
    {
        for (file, line) in devices::v1_lines(rules) {
            cgroup.set("devices", file, &line)?;
        }
    }
    apply_memory(cgroup, resources)?;
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares() {
            cgroup.set("cpu", "cpu.shares", &shares.to_string())?;
        }
        if let Some(period) = cpu.period() {
            cgroup.set("cpu", "cpu.cfs_period_us", &period.to_string())?;
        }
        if let Some(quota) = cpu.quota() {
            cgroup.set("cpu", "cpu.cfs_quota_us", &quota.to_string())?;
        }
    }
    Ok(())
}

fn apply_memory(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let limit = memory.limit();
    let swap = memory.swap();
    if let Some(limit) = limit {
        let set = cgroup.set("memory", "memory.limit_in_bytes", &limit.to_string());
        match (set, swap) {
            (Ok(()), _) => {}
            // The limit may not rise above memory+swap, so that one has to be raised first.
            (Err(_), Some(swap)) => {
                cgroup.set("memory", "memory.memsw.limit_in_bytes", &swap.to_string())?;
                cgroup.set("memory", "memory.limit_in_bytes", &limit.to_string())?;
            }
            (Err(fault), None) => return Err(fault),
        }
    }
    if let Some(swap) = swap {
        cgroup.set("memory", "memory.memsw.limit_in_bytes", &swap.to_string()).map_err(|fault| {
            fault.hint("limiting swap needs a kernel with swap accounting (boot option swapaccount=1)")
        })?;
    }
    if let Some(reservation) = memory.reservation() {
        cgroup.set("memory", "memory.soft_limit_in_bytes", &reservation.to_string())?;
    }
    if let Some(swappiness) = memory.swappiness() {
        if swappiness > 100 {
            return Err(Fault::input(format!("memory swappiness {swappiness} is above 100")));
        }
        cgroup.set("memory", "memory.swappiness", &swappiness.to_string())?;
    }
    if memory.disable_oom_killer() == Some(true) {
        cgroup.set("memory", "memory.oom_control", "1")?;
    }
    Ok(())
}
