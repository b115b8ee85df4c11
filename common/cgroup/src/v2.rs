//! Version 2: one hierarchy.

use crate::limits::Setting;
use crate::{MOUNT, Made, Place, make_directory, write_file};
use fault::{Fault, Result};
use std::path::Path;

/// Makes the directories and hands the controllers the limits need (all there are, if none) down to the last one.
pub fn make(place: &Place, settings: &[Setting]) -> Result<Vec<Made>> {
    let mut needed: Vec<&str> = settings
        .iter()
        .filter(|setting| !setting.optional)
        .map(|setting| setting.controller.as_str())
        .filter(|controller| !controller.is_empty())
        .collect();
    needed.sort_unstable();
    needed.dedup();
    let mut directory = place.base(Path::new(MOUNT))?;
    let mut new = false;
    for component in place.relative().components() {
        enable_controllers(&directory, &needed)?;
        directory.push(component);
        new = make_directory(&directory)?;
    }
    Ok(vec![Made { path: directory, new }])
}

/// Controllers worth having in every container: what `ctr-stats` reads and limits act on.
const WANTED: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];

fn enable_controllers(directory: &Path, needed: &[&str]) -> Result<()> {
    let available = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let file = directory.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&file).unwrap_or_default();
    let has = |list: &str, controller: &str| list.split_whitespace().any(|c| c == controller);
    let further = needed.iter().copied().filter(|controller| !WANTED.contains(controller));
    for controller in WANTED.into_iter().chain(further) {
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
