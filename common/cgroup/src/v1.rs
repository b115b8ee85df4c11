//! Version 1: a hierarchy for each controller, or for a few mounted together.

use crate::files::{Made, make_directory, unmake, write_file};
use crate::limits::Setting;
use crate::place::Place;
use crate::{
    CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, Cgroup, MOUNT, TRACKING, UNIFIED, V1_CONTROLLERS, Version,
    devices, is_for_tracking, is_version_1, magic,
};
use fault::{Explain, Result};
use oci_spec::runtime::LinuxDeviceCgroup;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::OwnedFd;
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
    roots.extend(tracking());
    roots
}

/// The group's directory in version 2's hierarchy beside version 1's, made beforehand: a process that is made in it (clone3(2),
/// `CLONE_INTO_CGROUP`) does not have to wait for the kernel's global lock, as one has to that joins it.
#[derive(Debug)]
pub struct Unified(Made);

impl Unified {
    /// `None` where there is no such hierarchy, or none to make groups in: no limit depends on it.
    pub fn make(path: &str) -> Option<Unified> {
        let root = Path::new(MOUNT).join(UNIFIED);
        if magic(&root) != Some(CGROUP2_SUPER_MAGIC) {
            return None;
        }
        let place = Place::of(path).ok()?;
        let base = place.base(Version::V1, &root).ok()?;
        // Somebody may remove the empty parent group just then.
        (0..3).find_map(|_| make_below(&base, place.relative(), &root).ok()).map(Unified)
    }

    /// For clone3(2).
    pub fn open(&self) -> Option<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat(CWD, &self.0.path, flags, Mode::empty()).ok()
    }

    /// For what has failed to begin.
    pub fn remove(self) {
        unmake(&[self.0]);
    }
}

impl Cgroup {
    /// With the directory in that hierarchy as well.
    #[must_use]
    pub fn with(mut self, unified: Option<Unified>) -> Cgroup {
        if let Some(Unified(made)) = unified {
            self.new.push(made.new);
            self.directories.push(made.path);
        }
        self
    }
}

/// Those without controllers.
fn tracking() -> impl Iterator<Item = PathBuf> {
    let mounted = |(name, _, kind): &(&str, &str, u64)| {
        let root = Path::new(MOUNT).join(name);
        (magic(&root) == Some(*kind)).then_some(root)
    };
    TRACKING.iter().filter_map(mounted)
}

/// Makes the directories, or none.
pub fn make(place: &Place, settings: &[Setting]) -> Result<Vec<Made>> {
    let mut made = Vec::new();
    let roots = hierarchies().into_iter().filter(|root| is_version_1(root));
    for root in roots.chain(asked_for(settings)) {
        let one = place.base(Version::V1, &root).and_then(|base| make_below(&base, place.relative(), &root));
        match one {
            Ok(one) => made.push(one),
            // No limit depends on it.
            Err(_) if is_for_tracking(Version::V1, &root) => {}
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

/// What it has made is gone again if it fails.
fn make_below(base: &Path, relative: &Path, root: &Path) -> Result<Made> {
    let cpuset =
        root.file_name().is_some_and(|name| name.to_string_lossy().split(',').any(|c| c == "cpuset"));
    let full = base.join(relative);
    if !cpuset && std::fs::create_dir(&full).is_ok() {
        return Ok(Made { path: full, new: 1 });
    }
    let mut made = Made { path: base.to_path_buf(), new: 0 };
    for component in relative.components() {
        if let Err(fault) = make_one(&mut made, component.as_ref(), cpuset) {
            unmake(&[made]);
            return Err(fault);
        }
    }
    Ok(made)
}

fn make_one(made: &mut Made, name: &Path, cpuset: bool) -> Result<()> {
    let directory = made.path.join(name);
    let new = make_directory(&directory)?;
    let parent = std::mem::replace(&mut made.path, directory);
    // What is below something new is new as well.
    made.new += usize::from(new);
    if cpuset { inherit_cpuset(&parent, &made.path) } else { Ok(()) }
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
