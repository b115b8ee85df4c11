//! Masked and read-only paths.

use crate::root::{Root, attach, clone_tree, inside_error, is_directory};
use fault::{Explain, Fault, Result};
use rustix::fs::{FileType, Mode, OFlags, fstat};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::collections::HashSet;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::mount::{MOUNT_ATTR_RDONLY, MountAttributes, mount_setattr};

/// Hides paths: files behind `/dev/null`, directories behind one empty read-only tmpfs that all share.
pub fn mask(root: &Root, paths: &[String]) -> Result<()> {
    let mut null: Option<OwnedFd> = None;
    let mut empty: Option<OwnedFd> = None;
    for path in each_once(paths) {
        let Some(target) = open_existing(root, path)? else { continue };
        let cover = if is_directory(&target) {
            let Some(empty) = &empty else {
                // The first is attached itself: before Linux 6.15 only what is attached can be cloned.
                let first = empty_tmpfs()?;
                attach(&first, &target, path)?;
                empty = Some(first);
                continue;
            };
            clone_tree(empty, false).explain(|| format!("mask {}", path.display()))?
        } else {
            let null = match &null {
                Some(null) => null,
                None => null.insert(real_null(root)?),
            };
            clone_tree(null, false).explain(|| format!("mask {}", path.display()))?
        };
        attach(&cover, &target, path)?;
    }
    Ok(())
}

/// Makes paths read-only by binding each over itself.
pub fn make_readonly(root: &Root, paths: &[String]) -> Result<()> {
    for path in each_once(paths) {
        let Some(target) = open_existing(root, path)? else { continue };
        let tree = clone_tree(&target, true).explain(|| format!("make {} read-only", path.display()))?;
        let readonly = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
        mount_setattr(tree.as_fd(), true, readonly)
            .explain(|| format!("make {} read-only", path.display()))?;
        attach(&tree, &target, path)?;
    }
    Ok(())
}

/// A path that is listed again would be covered again.
fn each_once(paths: &[String]) -> impl Iterator<Item = &Path> {
    let mut seen = HashSet::new();
    paths.iter().map(Path::new).filter(move |path| seen.insert(*path))
}

fn open_existing(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    match root.open(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(inside_error(path, error)),
    }
}

/// The container's `/dev/null`, after making sure that it is one: an image could have put anything there
/// (CVE-2025-31133).
fn real_null(root: &Root) -> Result<OwnedFd> {
    let path = Path::new("/dev/null");
    let fd = sys::fs::open_resolved(
        &root.fd,
        "dev/null",
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
        rustix::fs::ResolveFlags::IN_ROOT | rustix::fs::ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(|error| inside_error(path, error))?;
    let stat = fstat(&fd).explain(|| "look at /dev/null".into())?;
    let is_null = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
        && stat.st_rdev == rustix::fs::makedev(1, 3);
    if is_null {
        Ok(fd)
    } else {
        Err(Fault::denied("/dev/null in the container's root is not the null device"))
    }
}

/// Read-only, and nothing can be made in it.
pub(crate) fn empty_tmpfs() -> Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).explain(|| "mount tmpfs".into())?;
    // One inode: its root.
    rustix::mount::fsconfig_set_string(&context, "nr_inodes", "1").explain(|| "mount tmpfs".into())?;
    fsconfig_create(&context).explain(|| "mount tmpfs".into())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).explain(|| "mount tmpfs".into())
}
