//! Writing to `/proc` where what is mounted on `/proc` may be anybody's (CVE-2025-52881).

use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, FsWord, Mode, OFlags, ResolveFlags, fstat, fstatfs, openat2};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use std::os::fd::OwnedFd;

const PROC_SUPER_MAGIC: FsWord = 0x9fa0;
/// Inode of a procfs's root.
const PROC_ROOT_INODE: u64 = 1;

/// A procfs nobody else has, so that nothing can be mounted over what is written to. Where none may be mounted (in a user
/// namespace that sees none whole), the one on `/proc`, if it is one; [`write_proc`] does not cross into what lies on it.
pub fn private_proc() -> Result<OwnedFd> {
    new_proc().or_else(|error| existing_proc().map_err(|_| error)).explain(|| "open a procfs".into())
}

fn new_proc() -> std::io::Result<OwnedFd> {
    let context = fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

fn existing_proc() -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat2(CWD, "/proc", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)
        .explain(|| "open /proc".into())?;
    let is_proc = fstatfs(&fd).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC)
        && fstat(&fd).is_ok_and(|stat| stat.st_ino == PROC_ROOT_INODE);
    if is_proc { Ok(fd) } else { Err(Fault::denied("/proc is not a procfs")) }
}

/// Writes to a file of a private procfs, in one write(2).
pub fn write_proc(proc: &OwnedFd, file: &str, value: &str) -> Result<()> {
    // `self` is a link, so links are allowed; leaving the file system is not.
    let fd = openat2(
        proc,
        file,
        OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
    )
    .explain(|| format!("open /proc/{file}"))?;
    rustix::io::write(&fd, value.as_bytes()).explain(|| format!("write {value:?} to /proc/{file}"))?;
    Ok(())
}
