//! Version 1: a hierarchy for each controller, or for a few mounted together.

use crate::limits::Setting;
use crate::{
    CGROUP_SUPER_MAGIC, Cgroup, MOUNT, Made, Place, V1_CONTROLLERS, devices, magic, make_directory, unmake,
    write_file,
};
use fault::{Explain, Result};
use oci_spec::runtime::LinuxDeviceCgroup;
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

pub fn make(place: &Place, settings: &[Setting]) -> Result<Vec<Made>> {
    let mut made = Vec::new();
    for root in hierarchies().into_iter().chain(asked_for(settings)) {
        let base = place.base(&root)?;
        match make_below(&base, place.relative(), &root) {
            Ok(new) => made.push(Made { path: base.join(place.relative()), new }),
            Err(fault) => {
                unmake(&made);
                return Err(fault);
            }
        }
    }
    Ok(made)
}

/// Hierarchies only some containers are put under.
fn asked_for(settings: &[Setting]) -> Vec<PathBuf> {
    let mut roots: Vec<PathBuf> = Vec::new();
    for controller in ["net_cls", "net_prio"] {
        if settings.iter().any(|setting| setting.controller == controller) {
            let path = Path::new(MOUNT).join(controller);
            let root = std::fs::canonicalize(&path).unwrap_or(path);
            if !roots.contains(&root) && magic(&root) == Some(CGROUP_SUPER_MAGIC) {
                roots.push(root);
            }
        }
    }
    roots
}

fn make_below(base: &Path, relative: &Path, root: &Path) -> Result<bool> {
    let cpuset =
        root.file_name().is_some_and(|name| name.to_string_lossy().split(',').any(|c| c == "cpuset"));
    let full = base.join(relative);
    if !cpuset && std::fs::create_dir(&full).is_ok() {
        return Ok(true);
    }
    let mut directory = base.to_path_buf();
    let mut new = false;
    for component in relative.components() {
        let parent = directory.clone();
        directory.push(component);
        new = make_directory(&directory)?;
        if cpuset {
            inherit_cpuset(&parent, &directory)?;
        }
    }
    Ok(new)
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

pub fn apply_devices(cgroup: &Cgroup, rules: &[LinuxDeviceCgroup]) -> Result<()> {
    devices::v1_lines(rules).into_iter().try_for_each(|(file, line)| {
        cgroup.set("devices", file, &line).map_err(|fault| fault.within("linux.resources.devices"))
    })
}
