//! Control groups, version 1, hybrid and version 2, behind one type (cgroups(7), the kernel's
//! `admin-guide/cgroup-v1` and `cgroup-v2.rst`).
//!
//! On a hybrid machine the controllers are version 1's; its `unified` hierarchy has none and is left alone.
#![forbid(unsafe_code)]

mod devices;
pub mod limits;
mod state;
pub mod stats;
mod v1;
mod v2;

pub use oci_spec::runtime::LinuxResources;

use fault::{Explain, Fault, Result};
use limits::Setting;
use rustix::fs::{CWD, Mode, OFlags, openat, statfs};
use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// Where control groups are mounted on every system this project knows.
pub const MOUNT: &str = "/sys/fs/cgroup";

const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
const CGROUP_SUPER_MAGIC: u64 = 0x0027_e0eb;

/// Controllers of version 1 a container is put under when they are mounted.
const V1_CONTROLLERS: [&str; 10] =
    ["devices", "memory", "pids", "cpu", "cpuacct", "cpuset", "freezer", "blkio", "hugetlb", "rdma"];

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
}

impl Cgroup {
    /// Makes the group at `path` below every hierarchy's root (a path that is not absolute: below the caller's own group) and
    /// applies the limits. What was made is removed again if a later step fails.
    ///
    /// Fails with input if the path leaves the hierarchy, with a conflict if a group that is there has processes or is
    /// frozen, and if a limit asked for cannot be set.
    pub fn create(path: &str, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        let version = version().ok_or_else(|| {
            Fault::failed("no control groups are mounted").hint(format!("mount -t cgroup2 none {MOUNT}"))
        })?;
        let place = Place::of(path)?;
        let settings = settings(version, resources)?;
        let make = || match version {
            Version::V2 => v2::make(&place, &settings),
            Version::V1 => v1::make(&place, &settings),
        };
        let mut made = make();
        // Somebody removed the empty parent group just as it was to be used (see `remove_parent`).
        for _ in 0..3 {
            if made.as_ref().err().and_then(Fault::os_error) != Some(rustix::io::Errno::NOENT.raw_os_error())
            {
                break;
            }
            made = make();
        }
        let made = made?;
        let cgroup = Cgroup { version, directories: made.iter().map(|one| one.path.clone()).collect() };
        let unused = if made.iter().all(|one| one.new) { Ok(()) } else { cgroup.check_unused() };
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
        Ok(())
    }

    /// An existing group, from what [`Cgroup::directories`] said when it was made. Directories outside the mount
    /// point are refused: the list comes from a file.
    pub fn open(directories: &[PathBuf]) -> Result<Cgroup> {
        for directory in directories {
            let inside = directory.strip_prefix(MOUNT).is_ok_and(|rest| {
                rest.components().count() > 1 && rest.components().all(|c| matches!(c, Component::Normal(_)))
            });
            if !inside {
                return Err(Fault::input(format!("{} is not a control group", directory.display())));
            }
        }
        Ok(Cgroup { version: version().unwrap_or(Version::V2), directories: directories.to_vec() })
    }

    /// The group a process is in, from `/proc/<pid>/cgroup` (cgroups(7)).
    pub fn of_process(pid: i32) -> Result<Cgroup> {
        let path = format!("/proc/{pid}/cgroup");
        let text = std::fs::read_to_string(&path).explain(|| format!("read {path}"))?;
        let version = version().unwrap_or(Version::V2);
        let mut directories = Vec::new();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let inside = relative_path(path).unwrap_or_default();
            let root = match version {
                Version::V2 if controllers.is_empty() => PathBuf::from(MOUNT),
                Version::V1 if V1_CONTROLLERS.iter().any(|c| controllers.split(',').any(|o| o == *c)) => {
                    Path::new(MOUNT).join(controllers)
                }
                _ => continue,
            };
            directories.push(root.join(inside));
        }
        Ok(Cgroup { version, directories })
    }

    /// Absolute directories, for a record.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Sets limits, on a new group or a running one.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        if self.version == Version::V2 {
            self.check_before_update(resources)?;
        }
        self.set_limits(&settings(self.version, Some(resources))?, Some(resources))
    }

    fn set_limits(&self, settings: &[Setting], resources: Option<&LinuxResources>) -> Result<()> {
        if let Some(rules) = resources.and_then(|resources| resources.devices().as_deref())
            && !rules.is_empty()
        {
            match self.version {
                Version::V1 => v1::apply_devices(self, rules)?,
                Version::V2 => devices::attach_v2(self, rules)?,
            }
        }
        let mut settings = settings.iter();
        while let Some(setting) = settings.next() {
            let Err(fault) = self.apply_one(setting) else { continue };
            match settings.next().filter(|_| setting.or_after_next) {
                Some(next) if self.apply_one(next).is_ok() => self.apply_one(setting)?,
                _ => return Err(fault),
            }
        }
        Ok(())
    }

    fn apply_one(&self, setting: &Setting) -> Result<()> {
        let named = |fault: Fault| fault.within(format!("linux.resources.{}", setting.member));
        let Some(directory) = self.directory_of(&setting.controller) else {
            if setting.optional {
                return Ok(());
            }
            return Err(named(
                Fault::failed(format!("the {} controller is not available", setting.controller))
                    .hint("sys-check tells what this machine offers"),
            ));
        };
        let missing = |fault: &Fault| fault.os_error() == Some(rustix::io::Errno::NOENT.raw_os_error());
        match (write_file(&directory.join(&setting.file), &setting.value), &setting.instead) {
            (Err(fault), Some((file, value))) if missing(&fault) => {
                write_file(&directory.join(file), value).map_err(named)
            }
            (Err(fault), _) if setting.optional && missing(&fault) => Ok(()),
            (Err(fault), _) if missing(&fault) => {
                Err(named(fault.hint("this kernel, or this machine's set of controllers, has no such file")))
            }
            (written, _) => written.map_err(named),
        }
    }

    /// `memory.checkBeforeUpdate`: version 1 refuses by itself what version 2 would kill for.
    fn check_before_update(&self, resources: &LinuxResources) -> Result<()> {
        let Some(memory) = resources.memory().as_ref().filter(|m| m.check_before_update() == Some(true))
        else {
            return Ok(());
        };
        let usage = self.read("", "memory.current").and_then(|text| text.trim().parse::<i64>().ok());
        match (memory.limit(), usage) {
            (Some(limit), Some(usage)) if limit > 0 && usage > limit => Err(Fault::conflict(format!(
                "linux.resources.memory.limit: {limit} is less than the {usage} bytes in use"
            ))),
            _ => Ok(()),
        }
    }

    /// The directory of a version 2 group, for `CLONE_INTO_CGROUP`.
    pub fn v2_directory(&self) -> Result<Option<OwnedFd>> {
        match (self.version, self.directories.first()) {
            (Version::V2, Some(directory)) => {
                openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                    .map(Some)
                    .explain(|| format!("open {}", directory.display()))
            }
            _ => Ok(None),
        }
    }

    /// Files that a process joins the group by writing "0" to, opened beforehand.
    ///
    /// In version 1 `tasks`: a single-threaded process moves itself without the kernel's global lock.
    pub fn join_files(&self) -> Result<Vec<std::fs::File>> {
        let name = match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        };
        self.directories
            .iter()
            .map(|directory| {
                let path = directory.join(name);
                OpenOptions::new().write(true).open(&path).explain(|| format!("open {}", path.display()))
            })
            .collect()
    }

    /// Process ids in the group.
    pub fn processes(&self) -> Vec<i32> {
        let mut pids: Vec<i32> = self
            .directories
            .iter()
            .filter_map(|directory| std::fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<i32>>())
            .filter(|pid| *pid > 0)
            .collect();
        pids.sort_unstable();
        pids.dedup();
        pids
    }

    /// Kills every process in the group.
    pub fn kill(&self) {
        if self.version == Version::V2
            && let Some(directory) = self.directories.first()
            && std::fs::write(directory.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        // A fork between reading and killing is caught by the next round.
        for _ in 0..50 {
            let pids = self.all_processes().unwrap_or_default();
            if pids.is_empty() {
                return;
            }
            for pid in pids {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            }
            if self.is_to_be_frozen() {
                // What is stopped does not end.
                let _ = self.thaw();
            }
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
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

    /// Removes the group and the groups its processes made below it. Processes must be gone; the last one may take a
    /// moment to leave.
    pub fn remove(&self) -> Result<()> {
        let mut last = Ok(());
        for directory in &self.directories {
            if let Err(fault) = remove_directory(directory) {
                last = Err(fault);
            }
        }
        last
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

    /// Writes a limit that somebody asked for.
    pub(crate) fn set(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        let directory = self.directory_of(controller).ok_or_else(|| {
            Fault::failed(format!("set {file}: the {controller} controller is not available"))
                .hint("sys-check tells what this machine offers")
        })?;
        write_file(&directory.join(file), value)
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
    Ok(groups.into_iter().map(|(name, directories)| (name, Cgroup { version, directories })).collect())
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

/// A group's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Made {
    path: PathBuf,
    /// It was not there before.
    new: bool,
}

/// Best effort: the failure being reported is the one that matters. What was there before stays.
pub(crate) fn unmake(made: &[Made]) {
    for one in made.iter().filter(|one| one.new) {
        let _ = std::fs::remove_dir(&one.path);
    }
}

fn settings(version: Version, resources: Option<&LinuxResources>) -> Result<Vec<Setting>> {
    if let Some(rules) = resources.and_then(|resources| resources.devices().as_deref()) {
        devices::check(rules)?;
    }
    match (resources, version) {
        (None, _) => Ok(Vec::new()),
        (Some(resources), Version::V1) => limits::version_1(resources),
        (Some(resources), Version::V2) => limits::version_2(resources),
    }
}

/// Where a group is to be.
#[derive(Debug)]
pub(crate) enum Place {
    BelowRoot(PathBuf),
    /// Below the caller's own group.
    BelowOwn(PathBuf),
}

impl Place {
    fn of(path: &str) -> Result<Place> {
        let relative = relative_path(path)?;
        Ok(if path.starts_with('/') { Place::BelowRoot(relative) } else { Place::BelowOwn(relative) })
    }

    pub(crate) fn relative(&self) -> &Path {
        match self {
            Place::BelowRoot(path) | Place::BelowOwn(path) => path,
        }
    }

    /// The directory it is below of, in the hierarchy at `root`.
    pub(crate) fn base(&self, root: &Path) -> Result<PathBuf> {
        match self {
            Place::BelowRoot(_) => Ok(root.to_path_buf()),
            Place::BelowOwn(_) => {
                let own = Cgroup::of_process(std::process::id() as i32)?;
                // In the hierarchy's root itself it is in nothing.
                Ok(own
                    .directories
                    .into_iter()
                    .find(|dir| dir.starts_with(root))
                    .unwrap_or(root.to_path_buf()))
            }
        }
    }
}

/// `cgroupsPath` as a path below something. `..` would make groups outside of it.
fn relative_path(path: &str) -> Result<PathBuf> {
    let mut relative = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => relative.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Fault::input(format!("control group path {path:?} leaves its hierarchy")));
            }
        }
    }
    if relative.as_os_str().is_empty() {
        return Err(Fault::input("the control group path is empty"));
    }
    Ok(relative)
}

pub(crate) fn write_file(path: &Path, value: &str) -> Result<()> {
    // One write(2): the kernel takes each as one setting.
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .explain(|| format!("write {value:?} to {}", path.display()))
}

/// Makes a directory that may be there already; whether it was not.
pub(crate) fn make_directory(path: &Path) -> Result<bool> {
    match std::fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error).explain(|| format!("make control group {}", path.display())),
    }
}

fn remove_directory(directory: &Path) -> Result<()> {
    const TRIES: u32 = 12;
    for attempt in 0.. {
        let error = match std::fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => error,
        };
        if attempt == TRIES {
            return Err(error).explain(|| format!("remove control group {}", directory.display()));
        }
        // Groups made inside go first, deepest first; a process that has just ended may still be leaving.
        if let Ok(entries) = std::fs::read_dir(directory) {
            for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
                let _ = remove_directory(&entry.path());
            }
        }
        if attempt > 0 {
            std::thread::sleep(std::time::Duration::from_micros(100 << attempt.min(8)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        assert_eq!(relative_path("/staves/ab").unwrap(), Path::new("staves/ab"));
        assert_eq!(relative_path("staves//./ab").unwrap(), Path::new("staves/ab"));
        for bad in ["", "/", "../x", "/staves/../../x", "a/.."] {
            assert_eq!(relative_path(bad).unwrap_err().kind(), fault::Kind::Input, "{bad}");
        }
        assert!(Cgroup::open(&[PathBuf::from("/sys/fs/cgroup/memory")]).is_err());
        assert!(Cgroup::open(&[PathBuf::from("/sys/fs/cgroup/memory/../../x")]).is_err());
        assert!(Cgroup::open(&[PathBuf::from("/etc/x/y")]).is_err());
    }
}
