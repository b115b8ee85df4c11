//! `tmpcopyup`: what a tmpfs is about to hide is copied into it.

use fault::{Explain, Fault, Result};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    fchmod, fchown, fgetxattr, flistxattr, fsetxattr, fstat, futimens, mkdirat, mknodat, openat, readlinkat,
    statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories in each other. Every level takes three descriptors.
const MAX_DEPTH: usize = 200;
/// Longest value of an extended attribute (xattr(7)).
const MAX_XATTR: usize = 64 << 10;

/// Copies all there is in a directory, and its mode and owner. Trees are hostile: no link is followed.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd, path: &Path) -> Result<()> {
    // What was opened to be mounted on cannot be read.
    let open = |fd: &OwnedFd| openat(fd, ".", sys::fs::DIRECTORY, Mode::empty());
    let copied = open(from).and_then(|from| copy_directory(from.as_fd(), open(to)?.as_fd(), 0));
    copied
        .map_err(std::io::Error::from)
        .explain(|| format!("copy what is in {} to the tmpfs mounted there", path.display()))
        .map_err(|fault: Fault| match fault.os_error() {
            Some(libc::ENOSPC) => fault.hint("the options size and nr_inodes bound what it can hold"),
            _ => fault,
        })
}

fn copy_directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: usize) -> rustix::io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(Errno::NAMETOOLONG);
    }
    sys::fs::each_name(from, |name, _| copy_entry(from, to, name, depth))?;
    let stat = fstat(from)?;
    set_owner_and_mode(to, &stat)?;
    copy_xattrs(from, to);
    futimens(to, &times(&stat))
}

fn copy_entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: usize) -> rustix::io::Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            mkdirat(to, name, Mode::RWXU)?;
            let (from, to) = (sys::fs::open_dir(from, name)?, sys::fs::open_dir(to, name)?);
            return copy_directory(from.as_fd(), to.as_fd(), depth + 1);
        }
        FileType::RegularFile => return copy_file(from, to, name),
        FileType::Symlink => symlinkat(&readlinkat(from, name, Vec::new())?, to, name)?,
        kind => {
            mknodat(to, name, kind, mode, stat.st_rdev)?;
            // mknod(2) applies the umask. Nobody else knows of the tmpfs, so it is still what was made.
            chmodat(to, name, mode, AtFlags::empty())?;
        }
    }
    let (uid, gid) = owner(&stat);
    chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)
}

fn copy_file(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    // Something else may lie there by now: a FIFO would block.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let source = openat(from, name, flags, Mode::empty())?;
    let stat = fstat(&source)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::AGAIN);
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let (mut reader, mut writer) = (std::fs::File::from(source), std::fs::File::from(target));
    std::io::copy(&mut reader, &mut writer)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    // The owner first: a change of owner takes away capabilities and the set-user-ID bit.
    set_owner_and_mode(writer.as_fd(), &stat)?;
    copy_xattrs(reader.as_fd(), writer.as_fd());
    futimens(&writer, &times(&stat))
}

fn set_owner_and_mode(fd: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    let (uid, gid) = owner(stat);
    fchown(fd, uid, gid)?;
    fchmod(fd, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn owner(stat: &Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

/// File capabilities among them. A tmpfs does not take all there are, and not all may be set by everybody.
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) {
    let mut names = vec![0u8; MAX_XATTR];
    let Ok(length) = flistxattr(from, &mut names[..]) else { return };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        value.resize(MAX_XATTR, 0);
        if let Ok(length) = fgetxattr(from, name, &mut value[..]) {
            let _ = fsetxattr(to, name, &value[..length], XattrFlags::empty());
        }
    }
}
