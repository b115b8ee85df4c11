//! The container's control groups.

use super::bind::set_attributes;
use super::options::{MS_PRIVATE, Options};
use super::{Surroundings, filesystem};
use crate::root::{attach, clone_tree, open_host};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::Mount;
use rustix::fs::{Mode, OFlags, mkdirat, openat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use sys::mount::{MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSUID, MountAttributes};

/// Version 1: a tmpfs on an opened target, with the container's own directory of each hierarchy bound in it. That is also
/// what a control group namespace of its own would show.
pub(super) fn version_1(
    target: &OwnedFd,
    path: &Path,
    options: &Options,
    surroundings: &Surroundings<'_>,
) -> Result<OwnedFd> {
    let tmpfs = tmpfs().explain(|| "mount tmpfs".into())?;
    attach(&tmpfs, target, path)?;
    for directory in surroundings.cgroup.iter().filter(|directory| cgroup::is_version_1(directory)) {
        let hierarchy = directory
            .strip_prefix(cgroup::MOUNT)
            .ok()
            .and_then(|rest| rest.components().next())
            .ok_or_else(|| Fault::input(format!("{} is not a control group", directory.display())))?;
        let name = hierarchy.as_os_str();
        let failed = |error: Errno, what: &str| {
            Fault::failed(format!("{what} {}/{}", path.display(), name.display()))
                .because(std::io::Error::from(error))
        };
        mkdirat(&tmpfs, name, Mode::from_raw_mode(0o755)).map_err(|error| failed(error, "make"))?;
        let tree = clone_tree(open_host(directory)?, false)
            .explain(|| format!("take {} for a bind mount", directory.display()))?;
        let attributes = MountAttributes {
            set: options.of_new() | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
            clear: sys::mount::MOUNT_ATTR_ATIME,
            propagation: MS_PRIVATE,
        };
        set_attributes(&tree, false, attributes, path)?;
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let place = openat(&tmpfs, name, flags, Mode::empty()).map_err(|error| failed(error, "open"))?;
        attach(&tree, &place, path)?;
        // Controllers mounted together have a link each.
        for controller in together(name) {
            match symlinkat(name, &tmpfs, controller) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(error, "make a link to")),
            }
        }
    }
    Ok(tmpfs)
}

/// `cpu` and `cpuacct` of `cpu,cpuacct`.
fn together(name: &OsStr) -> impl Iterator<Item = &str> {
    name.to_str()
        .filter(|name| name.contains(','))
        .unwrap_or_default()
        .split(',')
        .filter(|one| !one.is_empty())
}

fn tmpfs() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "mode", "755")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

/// Version 2. Where it may not be mounted, in a user namespace whose control group namespace is the host's, the host's is
/// bound, or as much of it as the container's own namespace would show.
pub(super) fn version_2(
    mount: &Mount,
    options: &Options,
    surroundings: &Surroundings<'_>,
    own_namespace: bool,
) -> Result<OwnedFd> {
    match filesystem::new("cgroup2", mount, options, None) {
        Ok(made) => Ok(made),
        Err(filesystem::Refusal::Forbidden(fault)) => {
            let own = surroundings.cgroup.first().filter(|_| own_namespace);
            let source = own.map_or(Path::new(cgroup::MOUNT), AsRef::as_ref);
            stand_in(source, options, mount.destination()).map_err(|_| fault)
        }
        Err(refusal) => Err(refusal.into_fault()),
    }
}

/// A part of the host's tree in place of a file system that may not be mounted here, with the attributes that would have
/// had, on all that is mounted below as well.
fn stand_in(source: &Path, options: &Options, path: &Path) -> Result<OwnedFd> {
    let tree = clone_tree(open_host(source)?, true).explain(|| format!("take {}", source.display()))?;
    let attributes = MountAttributes { set: options.asked(), clear: 0, propagation: MS_PRIVATE };
    set_attributes(&tree, true, attributes, path)?;
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_mounted_together() {
        assert_eq!(together(OsStr::new("cpu,cpuacct")).collect::<Vec<_>>(), ["cpu", "cpuacct"]);
        assert_eq!(together(OsStr::new("memory")).count(), 0);
    }
}
