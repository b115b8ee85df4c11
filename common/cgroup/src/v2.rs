//! Version 2: one hierarchy.

use crate::{Cgroup, LinuxResources, MOUNT, devices, make_directory, write_file};
use fault::{Fault, Result};
use std::path::{Path, PathBuf};

/// Makes the directories and hands the controllers the limits need (all there are, if none) down to the last one.
pub fn make(relative: &Path, resources: Option<&LinuxResources>) -> Result<PathBuf> {
    let full = Path::new(MOUNT).join(relative);
    let needed = resources.map(needed_controllers).unwrap_or_default();
    let mut directory = PathBuf::from(MOUNT);
    for component in relative.components() {
        enable_controllers(&directory, &needed)?;
        directory.push(component);
        make_directory(&directory)?;
    }
    Ok(full)
}

fn needed_controllers(resources: &LinuxResources) -> Vec<&'static str> {
    let mut needed = Vec::new();
    if resources.memory().is_some() {
        needed.push("memory");
    }
    if resources.pids().is_some() {
        needed.push("pids");
    }
    if let Some(cpu) = resources.cpu() {
        if cpu.shares().is_some() || cpu.quota().is_some() || cpu.period().is_some() {
            needed.push("cpu");
        }
        if cpu.cpus().is_some() || cpu.mems().is_some() {
            needed.push("cpuset");
        }
    }
    needed
}

/// Controllers worth having in every container: what `ctr-stats` reads and limits act on.
const WANTED: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];

fn enable_controllers(directory: &Path, needed: &[&str]) -> Result<()> {
    let available = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let file = directory.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&file).unwrap_or_default();
    let has = |list: &str, controller: &str| list.split_whitespace().any(|c| c == controller);
    for controller in WANTED {
        if has(&enabled, controller) || !has(&available, controller) {
            continue;
        }
        let set = write_file(&file, &format!("+{controller}"));
        if needed.contains(&controller) {
            set?;
        }
    }
    match needed.iter().find(|controller| !has(&available, controller)) {
        Some(missing) => Err(Fault::failed(format!(
            "the {missing} controller is not available in {}",
            directory.display()
        ))
        .hint("sys-check tells what this machine offers")),
        None => Ok(()),
    }
}

pub fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    if let Some(rules) = resources.devices().as_deref()
        && !rules.is_empty()
    {
        devices::attach_v2(cgroup, rules)?;
    }
    apply_memory(cgroup, resources)?;
    if let Some(cpu) = resources.cpu() {
        if let Some(shares) = cpu.shares() {
            cgroup.set("cpu", "cpu.weight", &weight_of_shares(shares).to_string())?;
        }
        if cpu.quota().is_some() || cpu.period().is_some() {
            let quota =
                cpu.quota().filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
            let period = cpu.period().unwrap_or(100_000);
            cgroup.set("cpu", "cpu.max", &format!("{quota} {period}"))?;
        }
    }
    if let Some(unified) = resources.unified() {
        for (file, value) in unified {
            if file.contains('/') {
                return Err(Fault::input(format!("unified: {file:?} is not a file name")));
            }
            cgroup.set("", file, value)?;
        }
    }
    Ok(())
}

fn apply_memory(cgroup: &Cgroup, resources: &LinuxResources) -> Result<()> {
    let Some(memory) = resources.memory() else { return Ok(()) };
    let text = |bytes: i64| if bytes < 0 { "max".to_owned() } else { bytes.to_string() };
    if let Some(limit) = memory.limit() {
        cgroup.set("memory", "memory.max", &text(limit))?;
    }
    if let Some(swap) = memory.swap() {
        // The runtime specification counts memory and swap together, version 2 swap alone.
        let limit = memory.limit().unwrap_or(0);
        let alone = if swap < 0 { swap } else { (swap - limit.max(0)).max(0) };
        cgroup.set("memory", "memory.swap.max", &text(alone))?;
    }
    if let Some(reservation) = memory.reservation() {
        cgroup.set("memory", "memory.low", &text(reservation))?;
    }
    if memory.disable_oom_killer() == Some(true) || memory.swappiness().is_some() {
        return Err(Fault::failed(
            "the OOM killer and swappiness cannot be set with version 2 control groups",
        ));
    }
    Ok(())
}

/// Version 1's 2 to 262144 mapped onto 1 to 10000, so that the default of one is the default of the other
/// (1024 gives 100), as the OCI runtimes agreed on in 2025: a quadratic in the logarithms.
fn weight_of_shares(shares: u64) -> u64 {
    if shares <= 2 {
        return 1;
    }
    if shares >= 262_144 {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent)).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::weight_of_shares;

    #[test]
    fn default_shares_are_the_default_weight() {
        assert_eq!(weight_of_shares(1024), 100);
        assert_eq!(weight_of_shares(0), 1);
        assert_eq!(weight_of_shares(2), 1);
        assert_eq!(weight_of_shares(262_144), 10_000);
        assert!(weight_of_shares(512) < 100 && weight_of_shares(2048) > 100);
    }
}
