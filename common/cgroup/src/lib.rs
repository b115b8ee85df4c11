//! Control groups, version 1, hybrid and version 2, behind one type (cgroups(7), the kernel's
//! `admin-guide/cgroup-v1` and `cgroup-v2.rst`).
//!
//! Where the controllers are version 1's, hierarchies without any (systemd's own, and `unified` on a hybrid machine) are joined as
//! well, for whoever tells by them what a process belongs to.
#![forbid(unsafe_code)]

mod apply;
mod delegate;
mod devices;
mod files;
mod join;
pub mod limits;
mod place;
mod replace;
#[cfg(test)]
mod scratch;
mod state;
pub mod stats;
pub mod systemd;
mod v1;
mod v2;

pub use join::{Entry, is_for_tracking, is_version_1, join_file};
pub use oci_spec::runtime::LinuxResources;

pub use v1::Unified;

use fault::{Explain, Fault, Result};
use files::{Made, remove_tree, unmake};
use place::{Place, inside, relative_path};
use rustix::fs::statfs;
use rustix::io::Errno;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// Where control groups are mounted on every system this project knows.
pub const MOUNT: &str = "/sys/fs/cgroup";

/// How long the last processes of a group may take to leave it.
const LONGEST_REMOVAL: Duration = Duration::from_secs(2);

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;

/// Controllers of version 1 a container is put under when they are mounted.
const V1_CONTROLLERS: [&str; 10] =
    ["devices", "memory", "pids", "cpu", "cpuacct", "cpuset", "freezer", "blkio", "hugetlb", "rdma"];

/// Beside them: a hierarchy's directory, its line in `/proc/PID/cgroup`, its file system.
const TRACKING: [(&str, &str, u64); 2] =
    [("systemd", "name=systemd", CGROUP_SUPER_MAGIC), (UNIFIED, "", CGROUP2_SUPER_MAGIC)];

/// Version 2 beside version 1.
const UNIFIED: &str = "unified";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The version whose controllers are in use; `None` when no control groups are mounted.
pub fn version() -> Option<Version> {
    match magic(Path::new(MOUNT)) {
        Some(CGROUP2_SUPER_MAGIC) => Some(Version::V2),
        Some(_)
            if V1_CONTROLLERS
                .iter()
                .any(|c| magic(&Path::new(MOUNT).join(c)) == Some(CGROUP_SUPER_MAGIC)) =>
        {
            Some(Version::V1)
        }
        _ => None,
    }
}

fn magic(path: &Path) -> Option<u64> {
    statfs(path).ok().map(|stat| stat.f_type as u64)
}

/// One container's control group: a directory in version 2, one for each hierarchy in version 1.
#[derive(Clone, Debug)]
pub struct Cgroup {
    version: Version,
    directories: Vec<PathBuf>,
    /// How many of the last components of each were not there before.
    new: Vec<usize>,
    /// Whoever asks for it wants no other (see [`Cgroup::exactly`]).
    exact: bool,
    /// systemd's, where that made it.
    unit: Option<systemd::Unit>,
}

impl Cgroup {
    /// Makes the group at `path` below every hierarchy's root and applies the limits. A path that is not absolute is below the
    /// caller's own group in version 1, beside it in version 2, as runc has it. What was made is removed again if a later step
    /// fails.
    ///
    /// Fails with input if the path leaves the hierarchy, with a conflict if a group that is there has processes or is
    /// frozen, and if a limit asked for cannot be set.
    pub fn create(path: &str, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        let version = version().ok_or_else(|| {
            Fault::failed("no control groups are mounted").hint(format!("mount -t cgroup2 none {MOUNT}"))
        })?;
        let place = Place::of(path)?;
        let settings = apply::settings(version, resources)?;
        let make = || match version {
            Version::V2 => v2::make(&place, &settings),
            Version::V1 => v1::make(&place, &settings),
        };
        let mut made = make();
        // Somebody removed the empty parent group just as it was to be used (see `remove_parent`).
        let gone = [Errno::NOENT, Errno::NODEV].map(|errno| Some(errno.raw_os_error()));
        let is_gone = |fault: &Fault| gone.contains(&fault.os_error());
        for _ in 0..3 {
            if !made.as_ref().is_err_and(is_gone) {
                break;
            }
            made = make();
        }
        let made = made?;
        let mut cgroup = Cgroup::at(version, made.iter().map(|one| one.path.clone()).collect());
        cgroup.new = made.iter().map(|one| one.new).collect();
        let unused = if made.iter().all(|one| one.new > 0) { Ok(()) } else { cgroup.check_unused() };
        if let Err(fault) = unused.and_then(|()| cgroup.set_limits(&settings, resources)) {
            unmake(&made);
            return Err(fault);
        }
        Ok(cgroup)
    }

    /// The words are runc's, whose callers know them.
    fn check_unused(&self) -> Result<()> {
        let processes = self.all_processes()?.len();
        if processes > 0 {
            return Err(Fault::conflict(format!(
                "container's cgroup is not empty: {processes} process(es) found"
            ))
            .hint("end them, or give another cgroupsPath"));
        }
        if self.is_to_be_frozen() {
            return Err(Fault::conflict("container's cgroup unexpectedly frozen")
                .hint("let it run again, or give another cgroupsPath"));
        }
        if self.is_frozen_from_above() {
            return Err(Fault::conflict("container's cgroup unexpectedly frozen: one above it is")
                .hint("let that run again, or give another cgroupsPath"));
        }
        Ok(())
    }

    fn at(version: Version, directories: Vec<PathBuf>) -> Cgroup {
        Cgroup { version, directories, new: Vec::new(), exact: false, unit: None }
    }

    /// An existing group, from what [`Cgroup::directories`] said when it was made. Directories outside the mount
    /// point are refused: the list comes from a file.
    pub fn open(directories: &[PathBuf]) -> Result<Cgroup> {
        let version = version().unwrap_or(Version::V2);
        if let Some(other) = directories.iter().find(|directory| !is_group(directory, version)) {
            return Err(Fault::input(format!("{} is not a control group", other.display())));
        }
        Ok(Cgroup::at(version, directories.to_vec()))
    }

    /// The group a process is in, from `/proc/<pid>/cgroup` (cgroups(7)).
    ///
    /// Fails with input if that is outside of the caller's control group namespace: it has no directory then.
    pub fn of_process(pid: i32) -> Result<Cgroup> {
        let path = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&path).explain(|| format!("read {path}"))?;
        let version = version().unwrap_or(Version::V2);
        let mut directories = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };

            let root = match version {
                Version::V2 if controllers.is_empty() => PathBuf::from(MOUNT),
                Version::V1 if V1_CONTROLLERS.iter().any(|c| controllers.split(',').any(|o| o == *c)) => {
                    Path::new(MOUNT).join(controllers)
                }
                Version::V1 => match TRACKING.iter().find(|(_, line, _)| *line == controllers) {
                    Some((name, _, kind)) if magic(&Path::new(MOUNT).join(name)) == Some(*kind) => {
                        Path::new(MOUNT).join(name)
                    }
                    _ => continue,
                },
                Version::V2 => continue,
            };
            directories.push(root.join(inside(path).map_err(|fault| fault.on(format!("process {pid}")))?));
        }
        Ok(Cgroup::at(version, directories))
    }

    /// Absolute directories, for a record.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// systemd's unit, for a record.
    pub fn unit(&self) -> Option<&systemd::Unit> {
        self.unit.as_ref()
    }

    /// The same as a group that systemd made: [`Cgroup::apply`] and [`Cgroup::remove`] tell it.
    #[must_use]
    pub fn of_unit(self, unit: Option<systemd::Unit>) -> Cgroup {
        Cgroup { unit, ..self }
    }

    /// Removes the group if no process and no group is in it, without waiting; whether it is gone.
    pub fn remove_if_empty(&self) -> bool {
        let gone = |directory: &PathBuf| match std::fs::remove_dir(directory) {
            Ok(()) => true,
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        };
        // Each is tried, whatever became of the others.
        self.directories.iter().filter(|directory| !gone(directory)).count() == 0
    }

    /// Removes the group and the groups its processes made below it. Processes must be gone or going (see [`Cgroup::kill`]): the
    /// last one is waited for, for 2 s at most in all hierarchies together.
    pub fn remove(&self) -> Result<()> {
        let mut last = self.unit.as_ref().map_or(Ok(()), systemd::Unit::stop);
        let deadline = Instant::now() + LONGEST_REMOVAL;
        for directory in &self.directories {
            if let Err(fault) = remove_tree(directory, deadline) {
                last = Err(fault);
            }
        }
        last
    }

    /// The same, and the groups above that were made for it, as far as nobody else uses them. For what has failed to begin.
    pub fn remove_with_new_parents(&self) -> Result<()> {
        self.remove()?;
        for (directory, new) in self.directories.iter().zip(&self.new) {
            unmake(&[Made {
                path: directory.parent().unwrap_or(directory).to_owned(),
                new: new.saturating_sub(1),
            }]);
        }
        Ok(())
    }

    /// How often the kernel killed a process of the group for want of memory.
    pub fn oom_kills(&self) -> u64 {
        let (controller, file) = match self.version {
            Version::V1 => ("memory", "memory.oom_control"),
            Version::V2 => ("", "memory.events"),
        };
        self.directory_of(controller)
            .and_then(|directory| std::fs::read_to_string(directory.join(file)).ok())
            .and_then(|text| {
                text.lines()
                    .find_map(|line| line.strip_prefix("oom_kill ").and_then(|n| n.trim().parse().ok()))
            })
            .unwrap_or(0)
    }

    /// The directory of a controller; of version 2 there is only one.
    pub(crate) fn directory_of(&self, controller: &str) -> Option<&Path> {
        match self.version {
            Version::V2 => self.directories.first().map(PathBuf::as_path),
            Version::V1 => self
                .directories
                .iter()
                .find(|directory| {
                    let hierarchy =
                        directory.strip_prefix(MOUNT).ok().and_then(|rest| rest.components().next());
                    let Some(Component::Normal(name)) = hierarchy else { return false };
                    name.to_str().is_some_and(|name| name.split(',').any(|c| c == controller))
                })
                .map(PathBuf::as_path),
        }
    }
}

/// Every group of ours that is there, as the name below `/staves` and its directories: for the prune tools.
pub fn list(parent: &str) -> Result<Vec<(String, Cgroup)>> {
    let relative = relative_path(parent)?;
    let Some(version) = version() else { return Ok(Vec::new()) };
    let roots = match version {
        Version::V2 => vec![Path::new(MOUNT).join(&relative)],
        Version::V1 => v1::hierarchies().into_iter().map(|root| root.join(&relative)).collect(),
    };
    let mut groups: std::collections::BTreeMap<String, Vec<PathBuf>> = std::collections::BTreeMap::new();
    for root in roots {
        let Ok(entries) = std::fs::read_dir(&root) else { continue };
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            if let Ok(name) = entry.file_name().into_string() {
                groups.entry(name).or_default().push(entry.path());
            }
        }
    }
    Ok(groups.into_iter().map(|(name, directories)| (name, Cgroup::at(version, directories))).collect())
}

/// Removes the group all of ours are in where it is empty; whoever needs it makes it again.
pub fn remove_parent(parent: &str) -> Result<()> {
    let relative = relative_path(parent)?;
    let roots = match version() {
        Some(Version::V2) => vec![PathBuf::from(MOUNT)],
        Some(Version::V1) => v1::hierarchies(),
        None => Vec::new(),
    };
    for root in roots {
        // In use it stays.
        let _ = std::fs::remove_dir(root.join(&relative));
    }
    Ok(())
}

/// Whether a directory can be a group below the root of its hierarchy. What is right below the mount point is one in version 2,
/// and a hierarchy's root in version 1.
fn is_group(directory: &Path, version: Version) -> bool {
    let above = match version {
        Version::V1 => 1,
        Version::V2 => 0,
    };
    directory.strip_prefix(MOUNT).is_ok_and(|rest| {
        rest.components().count() > above && rest.components().all(|c| matches!(c, Component::Normal(_)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_are_opened() {
        for (path, version_1, version_2) in [
            ("/sys/fs/cgroup/memory", false, true),
            ("/sys/fs/cgroup/memory/x", true, true),
            ("/sys/fs/cgroup", false, false),
            ("/sys/fs/cgroup/memory/../../x", false, false),
            ("/etc/x/y", false, false),
            ("x/y", false, false),
        ] {
            assert_eq!(is_group(Path::new(path), Version::V1), version_1, "{path}");
            assert_eq!(is_group(Path::new(path), Version::V2), version_2, "{path}");
        }
        assert!(Cgroup::open(&[PathBuf::from("/etc/x/y")]).is_err());
    }
}
