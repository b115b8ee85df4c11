//! Version 2: one hierarchy.

use crate::files::{Made, make_directory, unmake, write_file};
use crate::limits::Setting;
use crate::place::Place;
use crate::{MOUNT, Version};
use fault::{Fault, Result};
use std::path::Path;

/// Makes the directories, or none, and hands the controllers the limits need (all there are, if none) down to the last one.
pub fn make(place: &Place, settings: &[Setting]) -> Result<Vec<Made>> {
    let mut needed: Vec<&Setting> =
        settings.iter().filter(|setting| !setting.optional && !setting.controller.is_empty()).collect();
    needed.sort_unstable_by_key(|setting| &setting.controller);
    needed.dedup_by_key(|setting| &setting.controller);
    let mut made = Made { path: place.base(Version::V2, Path::new(MOUNT))?, new: 0 };
    for component in place.relative().components() {
        let one = enable_controllers(&made.path, &needed).and_then(|()| {
            let directory = made.path.join(component);
            make_directory(&directory).map(|new| (directory, new))
        });
        match one {
            Ok((directory, new)) => {
                made.path = directory;
                // What is below something new is new as well.
                made.new += usize::from(new);
            }
            Err(fault) => {
                unmake(&[made]);
                return Err(fault);
            }
        }
    }
    Ok(vec![made])
}

/// Controllers worth having in every container: what `ctr-stats` reads and limits act on.
const WANTED: [&str; 7] = ["cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma"];

fn enable_controllers(directory: &Path, needed: &[&Setting]) -> Result<()> {
    let available = std::fs::read_to_string(directory.join("cgroup.controllers")).unwrap_or_default();
    let file = directory.join("cgroup.subtree_control");
    let enabled = std::fs::read_to_string(&file).unwrap_or_default();
    let has = |list: &str, controller: &str| list.split_whitespace().any(|c| c == controller);
    let asking = |controller: &str| needed.iter().find(|setting| setting.controller == controller);
    let further =
        needed.iter().map(|setting| setting.controller.as_str()).filter(|name| !WANTED.contains(name));
    for controller in WANTED.into_iter().chain(further) {
        if has(&enabled, controller) || !has(&available, controller) {
            continue;
        }
        let set = write_file(&file, &format!("+{controller}"));
        if let (Err(fault), Some(setting)) = (set, asking(controller)) {
            return Err(fault.within(format!("linux.resources.{}", setting.member)));
        }
    }
    match needed.iter().find(|setting| !has(&available, &setting.controller)) {
        Some(Setting { member, controller, .. }) => Err(Fault::failed(format!(
            "linux.resources.{member}: the {controller} controller is not available in {}",
            directory.display()
        ))
        .hint("sys-check tells what this machine offers")),
        None => Ok(()),
    }
}
