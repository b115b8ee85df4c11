//! Copying a directory with all that is in it: owners, modes, times, extended attributes, hard links, holes. Where both are on a
//! file system that can, blocks are shared and not copied (ioctl_ficlone(2)).

use fault::{Explain, Fault, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, SeekFrom, Stat, Timestamps, Uid, XattrFlags,
    chmodat, chownat, fgetxattr, flistxattr, fsetxattr, ftruncate, ioctl_ficlone, linkat, mkdirat, mknodat,
    openat, openat2, readlinkat, seek, statat, symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Deepest directory copied; deeper ones are no image's.
const MAX_DEPTH: usize = 1000;

/// Copies what is in one directory, and how it is itself, to another that is empty. Never leaves either of them: both may be in
/// use by containers meanwhile.
pub fn copy_tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut copy = Copy { links: HashMap::new(), root: to, clones: true };
    copy.directory(from, to, Path::new(""), 0)
}

struct Copy<'a> {
    /// Inodes with several names that were copied, and where.
    links: HashMap<(u64, u64), PathBuf>,
    root: BorrowedFd<'a>,
    /// Blocks can be shared, as far as is known.
    clones: bool,
}

impl Copy<'_> {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &Path,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Fault::input("directories are too deep"));
        }
        let entries = Dir::read_from(from).explain(|| format!("read {}", path.display()))?;
        for entry in entries {
            let entry = entry.explain(|| format!("read {}", path.display()))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                let inside = path.join(OsStr::from_bytes(name.to_bytes()));
                match self.entry(from, to, name, &inside, depth) {
                    // Removed while this was at work.
                    Err(fault) if fault.os_error() == Some(Errno::NOENT.raw_os_error()) => {}
                    other => other.map_err(|fault| fault.on(inside.display().to_string()))?,
                }
            }
        }
        copy_attributes(from, to)?;
        let stat = rustix::fs::fstat(from).explain(|| "look at it".into())?;
        set_owner_mode_times(to, c".", &stat)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> Result<()> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).explain(|| "look at it".into())?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                return self.link(first, to, name);
            }
            self.links.insert(inode, path.to_path_buf());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::from_raw_mode(0o700)).explain(|| "make it".into())?;
                let source = openat(from, name, flags | OFlags::DIRECTORY, Mode::empty())
                    .explain(|| "open it".into())?;
                let target = openat(to, name, flags | OFlags::DIRECTORY, Mode::empty())
                    .explain(|| "open it".into())?;
                return self.directory(source.as_fd(), target.as_fd(), path, depth + 1);
            }
            FileType::RegularFile => {
                let source = openat(from, name, flags, Mode::empty()).explain(|| "open it".into())?;
                let create =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let target =
                    openat(to, name, create, Mode::from_raw_mode(0o600)).explain(|| "make it".into())?;
                self.content(&source, &target)?;
                let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                rustix::fs::fchown(&target, Some(owner.0), Some(owner.1))
                    .explain(|| "set its owner".into())?;
                // After the owner: changing that clears file capabilities.
                copy_attributes(source.as_fd(), target.as_fd())?;
                // By its descriptor: a container may have put something else under its name.
                rustix::fs::fchmod(&target, Mode::from_raw_mode(stat.st_mode & 0o7777))
                    .explain(|| "set its mode".into())?;
                return rustix::fs::futimens(&target, &times_of(&stat)).explain(|| "set its times".into());
            }
            FileType::Symlink => {
                let link: CString = readlinkat(from, name, Vec::new()).explain(|| "read the link".into())?;
                symlinkat(&link, to, name).explain(|| "make the link".into())?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
                    .explain(|| "make it".into())?;
            }
            // A socket has no life without the process that made it.
            _ => return Ok(()),
        }
        set_owner_mode_times(to, name, &stat)
    }

    /// A container may have put a symbolic link in the way meanwhile.
    fn link(&self, first: &Path, to: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        let failed = || "link it".to_owned();
        let file = first.file_name().unwrap_or_default();
        let parent = match first.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            None => self.root.try_clone_to_owned().explain(failed)?,
            Some(parent) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
                openat2(self.root, parent, flags, Mode::empty(), resolve).explain(failed)?
            }
        };
        linkat(&parent, file, to, name, AtFlags::empty()).explain(failed)
    }

    fn content(&mut self, source: &OwnedFd, target: &OwnedFd) -> Result<()> {
        if self.clones {
            match ioctl_ficlone(target, source) {
                Ok(()) => return Ok(()),
                // Another file system, or one that cannot.
                Err(_) => self.clones = false,
            }
        }
        let length = seek(source, SeekFrom::End(0)).explain(|| "look at it".into())?;
        for (start, end) in extents(source.as_fd(), length)? {
            copy_range(source, target, start, end)?;
        }
        // A hole at its end.
        ftruncate(target, length).explain(|| "copy it".into())
    }
}

/// Where a file is not a hole, as far as its file system tells (lseek(2), `SEEK_DATA`).
pub fn extents(file: BorrowedFd<'_>, length: u64) -> Result<Vec<(u64, u64)>> {
    let mut extents = Vec::new();
    let mut at = 0;
    while at < length {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            Err(Errno::INVAL) => return Ok(vec![(0, length)]),
            Err(error) => return Err(error).explain(|| "look for holes".into()),
        };
        let end = seek(file, SeekFrom::Hole(start)).explain(|| "look for holes".into())?.min(length);
        if end <= start {
            break;
        }
        extents.push((start, end));
        at = end;
    }
    Ok(extents)
}

fn copy_range(source: &OwnedFd, target: &OwnedFd, start: u64, end: u64) -> Result<()> {
    let failed = || "copy it".to_owned();
    seek(source, SeekFrom::Start(start)).explain(failed)?;
    seek(target, SeekFrom::Start(start)).explain(failed)?;
    let mut source = File::from(source.try_clone().explain(failed)?).take(end - start);
    let mut target = File::from(target.try_clone().explain(failed)?);
    std::io::copy(&mut source, &mut target).explain(failed)?;
    Ok(())
}

fn set_owner_mode_times(dir: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(dir, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
        .explain(|| "set its owner".into())?;
    if !is_link {
        // After the owner: changing that clears the set-uid bit.
        chmodat(dir, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())
            .explain(|| "set its mode".into())?;
    }
    utimensat(dir, name, &times_of(stat), AtFlags::SYMLINK_NOFOLLOW).explain(|| "set its times".into())
}

fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: rustix::fs::Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    for (name, value) in attributes(from)? {
        let Ok(name) = CString::new(name) else { continue };
        fsetxattr(to, &name, &value, XattrFlags::empty())
            .explain(|| format!("set extended attribute {}", name.to_string_lossy()))?;
    }
    Ok(())
}

/// Names and values of extended attributes, but for overlayfs's own.
pub fn attributes(file: BorrowedFd<'_>) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    // The kernel has no more (listxattr(2), getxattr(2)).
    let mut names = vec![0u8; 64 << 10];
    let length = match flistxattr(file, &mut names[..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Ok(length) => length,
        Err(error) => return Err(std::io::Error::from(error)).explain(|| "list extended attributes".into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let mut value = vec![0u8; 64 << 10];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Taken off meanwhile.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error).explain(|| "read an extended attribute".into()),
        }
        found.push((name.to_vec(), value));
    }
    Ok(found)
}
