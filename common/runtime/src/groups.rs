//! The container's control groups, and doing without where they are closed to the caller.

use crate::create::Manners;
use crate::mappings;
use crate::namespaces::Namespaces;
use crate::spec::Spec;
use cgroup::{Cgroup, LinuxResources, Unified, Version, systemd};
use fault::{Fault, Result};
use oci_spec::runtime::{LinuxNamespaceType as Kind, Mount};
use std::borrow::Cow;
use std::os::fd::AsFd;
use std::path::Path;

/// Whether a container whose control groups may not be made is made without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rootless {
    #[default]
    No,
    Yes,
    /// If the caller is an ordinary user, or the superuser of a user namespace that is not the machine's.
    Auto,
}

impl Rootless {
    /// Whether it holds for the caller; to be asked outside the container.
    pub fn holds(self) -> bool {
        match self {
            Rootless::No => false,
            Rootless::Yes => true,
            Rootless::Auto => is_rootless(),
        }
    }
}

/// An ordinary user, or the superuser of a user namespace that is not the machine's.
pub fn is_rootless() -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    // The first user namespace has a number of its own (linux/proc_ns.h, PROC_USER_INIT_INO).
    let is_first =
        std::fs::read_link("/proc/self/ns/user").is_ok_and(|link| link == Path::new("user:[4026531837]"));
    !is_first
        && std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().ne(["0", "0", "4294967295"]))
}

/// For want of permission in the wider sense, as runc has it.
pub fn is_closed(fault: &Fault) -> bool {
    matches!(fault.os_error(), Some(libc::EPERM | libc::EACCES | libc::EROFS))
}

/// The part of it that is made before the process, where there is one beside version 1's groups.
pub fn make_unified(id: &str, spec: &Spec) -> Option<Unified> {
    Unified::make(&path(id, spec))
}

fn path<'a>(id: &str, spec: &'a Spec) -> Cow<'a, str> {
    let asked = spec.linux.cgroups_path.as_deref().filter(|path| !path.is_empty());
    asked.map_or_else(|| Cow::Owned(format!("/staves/{id}")), Cow::Borrowed)
}

/// What systemd is to make.
pub fn of_systemd(manager: systemd::Manager, spec: &Spec) -> Result<systemd::Wanted> {
    let path = spec.linux.cgroups_path.as_deref().unwrap_or_default();
    systemd::Wanted::parse(manager, path, &spec.annotations)
}

/// Makes them. For a rootless container that names none and limits nothing there are none (a [`Cgroup`] without directories)
/// where the caller may not make any, and device rules are left out where only those may not be set: devices take privileges
/// it does not have.
pub fn make(id: &str, spec: &Spec, manners: Manners) -> Result<Cgroup> {
    let path = &*path(id, spec);
    let resources = spec.linux.resources.as_ref();
    let fault = match Cgroup::create(path, resources) {
        Err(fault) if is_closed(&fault) && manners.rootless.holds() => fault,
        made => return made,
    };
    let mut rest = resources.cloned().unwrap_or_default();
    let limits = if rest.devices().as_ref().is_some_and(|rules| !rules.is_empty()) {
        rest.set_devices(None);
        match Cgroup::create(path, Some(&rest)) {
            Err(fault) if is_closed(&fault) => limited(&rest),
            made => return made,
        }
    } else {
        limited(&rest)
    };
    if limits.is_empty() && manners.default_group {
        return Cgroup::open(&[]);
    }
    let fault = if limits.is_empty() {
        fault.within("linux.cgroupsPath")
    } else {
        fault.within(format!("cannot set {}", limits.join(", ")))
    };
    // The words are runc's, whose callers know them.
    Err(fault.within("rootless needs no limits + no cgrouppath when no permission is granted for cgroups"))
}

/// Makes the user of the container's process the owner of its group, where that is its own to arrange things in: a cgroup namespace is
/// made for it, and the group mounted to be written to (config-linux.md, "Cgroup ownership").
pub fn hand_over(group: &Cgroup, spec: &Spec, namespaces: &Namespaces, manners: Manners) -> Result<()> {
    let is_writable = |mount: &Mount| {
        let is_readonly = |option: &String| option == "ro" || option == "rro";
        mount.source().as_deref() == Some(Path::new("cgroup"))
            && mount.destination().components().eq(Path::new(cgroup::MOUNT).components())
            && !mount.options().iter().flatten().any(is_readonly)
    };
    if group.version() == Version::V1
        || !namespaces.owns(Kind::Cgroup)
        || !spec.mounts.iter().any(is_writable)
    {
        return Ok(());
    }
    let inside = spec.process()?.user.uid;
    let outside = match namespaces.joined(Kind::User) {
        Some(user) => mappings::outside(&mappings::of_namespace(user.as_fd())?.0, inside),
        None if namespaces.owns(Kind::User) => mappings::outside(&spec.linux.uid_mappings, inside),
        None => Some(inside),
    };
    // A user that is not mapped is told of when the process is to become it.
    let Some(uid) = outside.filter(|uid| *uid != rustix::process::geteuid().as_raw()) else { return Ok(()) };
    match group.hand_to(uid) {
        // The mappings of an ordinary user were made with somebody else's privileges.
        Err(fault) if manners.rootless.holds() && is_closed(&fault) => Ok(()),
        given => given.map_err(|fault| fault.within("hand over the control group")),
    }
}

/// The members that ask for something.
fn limited(resources: &LinuxResources) -> Vec<String> {
    let is_empty = |value: &serde_json::Value| match value {
        serde_json::Value::Null => true,
        serde_json::Value::Array(list) => list.is_empty(),
        serde_json::Value::Object(members) => members.values().all(serde_json::Value::is_null),
        _ => false,
    };
    let Ok(serde_json::Value::Object(members)) = serde_json::to_value(resources) else { return Vec::new() };
    let asking = members.into_iter().filter(|(_, value)| !is_empty(value));
    asking.map(|(name, _)| format!("linux.resources.{name}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_limited_is_named() {
        let of = |json: &str| limited(&serde_json::from_str(json).unwrap());
        assert!(of(r#"{"devices": [], "memory": {}, "hugepageLimits": [], "unified": {}}"#).is_empty());
        let named = of(r#"{"memory": {"limit": 1}, "pids": {"limit": 7}, "unified": {"a": "1"}}"#);
        assert_eq!(named, ["memory", "pids", "unified"].map(|name| format!("linux.resources.{name}")));
    }
}
