//! `linux.intelRdt`: a share of caches and memory bandwidth (the kernel's resctrl file system).

use crate::spec::IntelRdt;
use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, FsWord, Mode, OFlags, ResolveFlags, mkdirat, openat2};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

const RDTGROUP_SUPER_MAGIC: FsWord = 0x0765_5821;
const DEFAULT_ROOT: &str = "/sys/fs/resctrl";

/// What was made for a container, kept until it is deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Where further processes of the container join.
    pub path: PathBuf,
    /// It was made for this container alone and goes with it.
    #[serde(default)]
    pub own: bool,
    /// Group of the container's own to be counted in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub monitor: Option<PathBuf>,
}

pub fn check(rdt: &IntelRdt) -> Result<()> {
    let bad = |member: &str, what: &str| Err(Fault::input(format!("linux.intelRdt.{member}: {what}")));
    let id = rdt.clos_id.as_str();
    if matches!(id, "." | "..") || (id != "/" && id.contains(['/', '\0', '\n'])) {
        return bad(
            "closID",
            &format!("invalid intelRdt.ClosID {id:?}: it must be the name of a directory, or \"/\""),
        );
    }
    if rdt.l3_cache_schema.contains('\n') {
        return bad("l3CacheSchema", "holds a newline");
    }
    if rdt.mem_bw_schema.contains('\n') {
        return bad("memBwSchema", "holds a newline");
    }
    if !rdt.mem_bw_schema.is_empty() && !rdt.mem_bw_schema.starts_with("MB:") {
        return bad("memBwSchema", "does not start with \"MB:\"");
    }
    if rdt.schemata.iter().any(|line| line.contains('\n')) {
        return bad("schemata", "an element holds a newline");
    }
    Ok(())
}

/// Where resctrl is mounted.
///
/// Fails where it is not: the hardware has none of it, or nobody has mounted it.
pub fn root() -> Result<PathBuf> {
    let is_resctrl =
        |path: &Path| rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == RDTGROUP_SUPER_MAGIC);
    if is_resctrl(Path::new(DEFAULT_ROOT)) {
        return Ok(DEFAULT_ROOT.into());
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            Some((fields.next()?, fields.next()?))
        })
        .filter(|(_, kind)| *kind == "resctrl")
        .map(|(path, _)| PathBuf::from(path))
        .find(|path| is_resctrl(path))
        .ok_or_else(|| {
            Fault::failed("intelRdt is specified in config, but Intel RDT is not enabled")
                .hint("mount -t resctrl resctrl /sys/fs/resctrl, if the processor has it")
        })
}

/// Puts a process into its group below `root`, which is made if it has to be, with the schemata asked for. `id` is the
/// container's. On failure nothing made here is left.
pub fn apply(root: &Path, rdt: &IntelRdt, id: &str, pid: i32) -> Result<Group> {
    check_available(root, rdt)?;
    let own = rdt.clos_id.is_empty();
    let name = if own { id } else { &rdt.clos_id };
    let path = if name == "/" { root.to_owned() } else { root.join(plain(name)?) };
    let has_schemata =
        !(rdt.l3_cache_schema.is_empty() && rdt.mem_bw_schema.is_empty() && rdt.schemata.is_empty());
    let made = if own || has_schemata {
        make(&path)?
    } else if path.is_dir() {
        false
    } else {
        return Err(Fault::not_found(format!(
            "linux.intelRdt.closID: clos dir {} not accessible",
            path.display()
        ))
        .hint("it must be there beforehand when l3CacheSchema, memBwSchema and schemata are empty"));
    };
    let group = Group { own: own && made, monitor: None, path };
    fill(root, rdt, id, pid, group.clone(), made).inspect_err(|_| {
        if made {
            let _ = std::fs::remove_dir(&group.path);
        }
    })
}

fn fill(root: &Path, rdt: &IntelRdt, id: &str, pid: i32, mut group: Group, made: bool) -> Result<Group> {
    let schemas = [&rdt.l3_cache_schema, &rdt.mem_bw_schema].into_iter().filter(|schema| !schema.is_empty());
    if !rdt.clos_id.is_empty() && !made {
        // Others may be in the group: what they have must be what is asked for.
        let there = read(&group.path.join("schemata"))?;
        for schema in schemas.clone() {
            agree(schema, &there, granularity(root))?;
        }
    }
    // One after the other, as the specification has it. In the group that exists the first two change nothing.
    let lines: Vec<&String> = schemas.chain(&rdt.schemata).filter(|line| !line.is_empty()).collect();
    for line in lines {
        write(root, &group.path.join("schemata"), &format!("{line}\n"))?;
    }
    write(root, &group.path.join("tasks"), &pid.to_string())?;
    if rdt.enable_monitoring {
        let monitor = group.path.join("mon_groups").join(plain(id)?);
        make(&monitor).map_err(|fault| last_status(root, fault))?;
        if let Err(fault) = write(root, &monitor.join("tasks"), &pid.to_string()) {
            let _ = std::fs::remove_dir(&monitor);
            return Err(fault);
        }
        group.monitor = Some(monitor);
    }
    Ok(group)
}

/// Other schemata for a group that exists (`update --l3-cache-schema`, `--mem-bw-schema`).
pub fn update(root: &Path, group: &Group, rdt: &IntelRdt) -> Result<()> {
    check(rdt)?;
    check_available(root, rdt)?;
    for line in [&rdt.l3_cache_schema, &rdt.mem_bw_schema].into_iter().chain(&rdt.schemata) {
        if !line.is_empty() {
            write(root, &group.path.join("schemata"), &format!("{line}\n"))?;
        }
    }
    Ok(())
}

impl Group {
    /// Puts another process of the container into it. A group that is gone is nobody's any more.
    pub fn join(&self, pid: i32) -> Result<()> {
        for path in [Some(&self.path), self.monitor.as_ref()].into_iter().flatten() {
            let tasks = path.join("tasks");
            match write_existing(&tasks, &pid.to_string()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => {
                    return Err(std::io::Error::from(error))
                        .explain(|| format!("intelRdt: write {}", tasks.display()));
                }
            }
        }
        Ok(())
    }

    /// Removes what was made for the container.
    pub fn remove(&self) -> Result<()> {
        let own = self.own.then_some(&self.path);
        // A group's monitoring groups go with it, but one that is shared stays.
        for path in [self.monitor.as_ref(), own].into_iter().flatten() {
            match std::fs::remove_dir(path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).explain(|| format!("intelRdt: remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn check_available(root: &Path, rdt: &IntelRdt) -> Result<()> {
    for (member, schema, resource) in
        [("l3CacheSchema", &rdt.l3_cache_schema, "L3"), ("memBwSchema", &rdt.mem_bw_schema, "MB")]
    {
        // With code and data apart there is L3CODE instead of L3.
        let info = root.join("info");
        if !schema.is_empty()
            && !info.join(resource).exists()
            && !info.join(format!("{resource}CODE")).exists()
        {
            return Err(Fault::failed(format!(
                "linux.intelRdt.{member} is specified in config, but this machine does not control {resource}"
            )));
        }
    }
    Ok(())
}

/// The name of a directory and nothing else.
fn plain(name: &str) -> Result<&str> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\0']) {
        return Err(Fault::input(format!("intelRdt: {name:?} is no name for a group")));
    }
    Ok(name)
}

/// Whether it was not there before.
fn make(path: &Path) -> Result<bool> {
    match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(error) => Err(std::io::Error::from(error))
            .explain(|| format!("intelRdt: make {}", path.display()))
            .map_err(|fault| match fault.os_error() {
                Some(libc::ENOSPC) => fault.hint("the processor has no further class of service"),
                _ => fault,
            }),
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).explain(|| format!("intelRdt: read {}", path.display()))
}

fn write(root: &Path, path: &Path, text: &str) -> Result<()> {
    write_existing(path, text)
        .map_err(std::io::Error::from)
        .explain(|| format!("intelRdt: write {:?} to {}", text.trim_end(), path.display()))
        .map_err(|fault| last_status(root, fault))
}

fn write_existing(path: &Path, text: &str) -> rustix::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file: OwnedFd = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    rustix::io::write(&file, text.as_bytes()).map(drop)
}

/// With what the kernel says about it in words.
fn last_status(root: &Path, fault: Fault) -> Fault {
    match std::fs::read_to_string(root.join("info/last_cmd_status")) {
        Ok(status) if !matches!(status.trim(), "" | "ok") => {
            fault.hint(format!("last_cmd_status: {}", status.trim()))
        }
        _ => fault,
    }
}

/// Steps in which memory bandwidth is given.
fn granularity(root: &Path) -> u64 {
    let text = std::fs::read_to_string(root.join("info/MB/bandwidth_gran")).unwrap_or_default();
    text.trim().parse().ok().filter(|step| *step > 0).unwrap_or(1)
}

/// Compares a schema with the lines of a group's file. Each writes numbers its own way: bit masks with or without zeros in
/// front, domains in any order, bandwidth rounded up to the next step.
fn agree(schema: &str, there: &str, step: u64) -> Result<()> {
    let mismatch = || {
        Err(Fault::conflict(format!(
            "linux.intelRdt: {schema:?} is not what the group of the closID has: {there:?}"
        ))
        .hint("use another closID, or the group's schemata"))
    };
    let Some((resource, wanted)) = parse(schema, step) else {
        return Err(Fault::input(format!(
            "linux.intelRdt: {schema:?} is not of the form RESOURCE:ID=VALUE;…"
        )));
    };
    let found = there.lines().filter_map(|line| parse(line, step)).find(|(name, _)| *name == resource);
    match found {
        Some((_, found)) if wanted.iter().all(|(domain, value)| found.get(domain) == Some(value)) => Ok(()),
        _ => mismatch(),
    }
}

/// Resource, and its values by domain.
fn parse(line: &str, step: u64) -> Option<(&str, BTreeMap<u64, u64>)> {
    let (resource, values) = line.trim().split_once(':')?;
    let bandwidth = resource == "MB";
    let mut parsed = BTreeMap::new();
    for pair in values.split(';').filter(|pair| !pair.trim().is_empty()) {
        let (domain, value) = pair.split_once('=')?;
        let value = value.trim();
        let value = if bandwidth {
            value.parse::<u64>().ok()?.checked_next_multiple_of(step)?
        } else {
            u64::from_str_radix(value, 16).ok()?
        };
        parsed.insert(domain.trim().parse().ok()?, value);
    }
    Some((resource, parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_schemata_are_checked() {
        let rdt = |json: &str| check(&serde_json::from_str(json).unwrap());
        rdt(r#"{"closID":"guaranteed","schemata":["L3:0=7f0;1=1f","MB:0=20;1=70"]}"#).unwrap();
        rdt(r#"{"closID":"/"}"#).unwrap();
        for (json, member) in [
            (r#"{"closID":".."}"#, "closID"),
            (r#"{"closID":"a/b"}"#, "closID"),
            (r#"{"closID":"//"}"#, "closID"),
            (r#"{"l3CacheSchema":"L3:0=f\nL3:1=f"}"#, "l3CacheSchema"),
            (r#"{"memBwSchema":"MB:0=20\n"}"#, "memBwSchema"),
            (r#"{"memBwSchema":"L3:0=f"}"#, "memBwSchema"),
            (r#"{"schemata":["L3:0=f\n"]}"#, "schemata"),
        ] {
            let fault = rdt(json).unwrap_err().to_string();
            assert!(fault.contains(member), "{fault}");
        }
    }

    #[test]
    fn schemata_are_compared_by_value() {
        let there = "    MB:0= 30;1= 70\n    L3:0=007f0;1=0001f\n";
        for schema in ["L3:0=7f0;1=1f", "L3:1=1f", "MB:1=70;0=30", "MB:0=25"] {
            agree(schema, there, 10).unwrap();
        }
        for schema in ["L3:0=7f1", "L3:2=1f", "MB:0=20", "L2:0=f"] {
            assert_eq!(agree(schema, there, 10).unwrap_err().kind(), fault::Kind::Conflict, "{schema}");
        }
        assert_eq!(agree("nonsense", there, 10).unwrap_err().kind(), fault::Kind::Input);
    }

    /// A directory with the files the kernel makes, except that it does not look at what is written to them.
    struct Resctrl(PathBuf);

    impl Resctrl {
        fn new(name: &str) -> Resctrl {
            let root = std::env::temp_dir().join(format!("runtime-rdt-{name}-{}", std::process::id()));
            std::fs::create_dir_all(root.join("info/L3")).unwrap();
            let resctrl = Resctrl(root);
            resctrl.group("");
            resctrl
        }

        fn group(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            std::fs::create_dir_all(path.join("mon_groups")).unwrap();
            for file in ["tasks", "schemata"] {
                std::fs::write(path.join(file), "").unwrap();
            }
            path
        }
    }

    impl Drop for Resctrl {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn rdt(json: &str) -> IntelRdt {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_group_that_is_there_is_joined_and_left_there() {
        let resctrl = Resctrl::new("join");
        let path = resctrl.group("guaranteed");
        let group = apply(&resctrl.0, &rdt(r#"{"closID":"guaranteed"}"#), "c1", 4711).unwrap();
        assert_eq!(group, Group { path: path.clone(), own: false, monitor: None });
        let read = |file: &str| std::fs::read_to_string(path.join(file)).unwrap();
        assert_eq!((read("tasks").as_str(), read("schemata").as_str()), ("4711", ""));
        std::fs::write(path.join("schemata"), "L3:0=0f\n").unwrap();
        apply(&resctrl.0, &rdt(r#"{"closID":"guaranteed","l3CacheSchema":"L3:0=f"}"#), "c1", 4711).unwrap();
        let other = rdt(r#"{"closID":"guaranteed","l3CacheSchema":"L3:0=1"}"#);
        assert_eq!(apply(&resctrl.0, &other, "c1", 4711).unwrap_err().kind(), fault::Kind::Conflict);
        update(&resctrl.0, &group, &rdt(r#"{"l3CacheSchema":"L3:0=3"}"#)).unwrap();
        assert_eq!(read("schemata"), "L3:0=3\n\n");
        group.join(4712).unwrap();
        assert_eq!(read("tasks"), "4712");
        group.remove().unwrap();
        assert!(path.is_dir());
    }

    #[test]
    fn the_root_is_a_group_and_a_missing_one_is_an_error() {
        let resctrl = Resctrl::new("root");
        assert_eq!(apply(&resctrl.0, &rdt(r#"{"closID":"/"}"#), "c1", 1).unwrap().path, resctrl.0);
        let missing = apply(&resctrl.0, &rdt(r#"{"closID":"none"}"#), "c1", 1).unwrap_err();
        assert_eq!(missing.kind(), fault::Kind::NotFound);
        let bandwidth = apply(&resctrl.0, &rdt(r#"{"memBwSchema":"MB:0=10"}"#), "c1", 1).unwrap_err();
        assert!(bandwidth.to_string().contains("memBwSchema"), "{bandwidth}");
        assert!(apply(&resctrl.0, &rdt("{}"), "..", 1).is_err());
    }

    #[test]
    fn what_was_made_is_removed_when_it_fails() {
        let resctrl = Resctrl::new("undo");
        // Nobody makes the files of a new directory here.
        apply(&resctrl.0, &rdt(r#"{"l3CacheSchema":"L3:0=f"}"#), "c1", 1).unwrap_err();
        assert!(!resctrl.0.join("c1").exists());
        let group = Group { path: resctrl.0.join("c2"), own: true, monitor: None };
        std::fs::create_dir(&group.path).unwrap();
        group.remove().unwrap();
        assert!(!group.path.exists());
        group.remove().unwrap();
        group.join(1).unwrap();
    }
}
