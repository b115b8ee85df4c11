//! Files and directories.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};
use std::ffi::CStr;

/// How a directory is opened whose name must not be a symbolic link.
pub const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the directory `name` in `dir`; `ENOTDIR` or `ELOOP` when it is anything else.
pub fn open_dir(dir: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd> {
    rustix::fs::openat(dir, name, DIRECTORY, Mode::empty())
}

/// openat2(2), again as long as a renaming or a mount anywhere on the machine makes a walk by `..` uncertain, of which the kernel tells by
/// `EAGAIN` where it may not leave a root.
pub fn open_resolved(
    root: impl AsFd,
    path: impl rustix::path::Arg + Copy,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd> {
    loop {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Opens a path as if `root` were the root of all: symbolic links in it lead nowhere else, and those of processes (`/proc/PID/root` …)
/// are not followed.
pub fn open_in_root(root: impl AsFd, path: impl rustix::path::Arg + Copy, flags: OFlags) -> Result<OwnedFd> {
    open_resolved(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}

/// Removes `name` in `dir`, whatever it is, with all that is in it. Not being there is fine.
///
/// Trees may be hostile: no symbolic link is followed, and a tree of any depth takes two descriptors and a stack of one
/// level, because directories found deeper are first moved up (a depth beyond the limit of open files is easily made).
pub fn remove_tree(dir: impl AsFd, name: impl rustix::path::Arg + Copy) -> Result<()> {
    let dir = dir.as_fd();
    match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EPERM is what POSIX has for directories.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let top = open_dir(dir, name)?;
    empty_dir(&top)?;
    rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Removes everything in a directory.
pub fn empty_dir(top: impl AsFd) -> Result<()> {
    let top = top.as_fd();
    let mut moved = 0u64;
    loop {
        let mut subdirectories = 0;
        each_name(top, |name, kind| {
            if !unlink_or_rmdir(top, name, kind)? {
                subdirectories += 1;
                let sub = open_dir(top, name)?;
                each_name(sub.as_fd(), |inner, kind| {
                    if unlink_or_rmdir(sub.as_fd(), inner, kind)? {
                        return Ok(());
                    }
                    move_up(sub.as_fd(), inner, top, &mut moved)
                })?;
                drop(sub);
                // Not empty if somebody put a file in meanwhile: the next round sees to it.
                match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
                    Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })?;
        if subdirectories == 0 {
            return Ok(());
        }
    }
}

/// Calls for each entry but `.` and `..`; entries made meanwhile may be seen or not.
pub fn each_name(dir: BorrowedFd<'_>, mut act: impl FnMut(&CStr, FileType) -> Result<()>) -> Result<()> {
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            act(name, entry.file_type())?;
        }
    }
    Ok(())
}

/// Whether it is gone; a directory with something in it is not.
fn unlink_or_rmdir(dir: BorrowedFd<'_>, name: &CStr, kind: FileType) -> Result<bool> {
    if kind != FileType::Directory {
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            // Some file systems do not tell the kind in their listings.
            Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
            Err(error) => return Err(error),
        }
    }
    match rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(error) => Err(error),
    }
}

fn move_up(from: BorrowedFd<'_>, name: &CStr, top: BorrowedFd<'_>, moved: &mut u64) -> Result<()> {
    loop {
        let unused = format!(".removing-{moved}");
        *moved += 1;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(from, name, top, unused.as_str(), flags) {
            Err(Errno::EXIST) => {}
            // Not every file system can promise not to replace; an empty directory replaced is no loss here.
            Err(Errno::INVAL) => return rustix::fs::renameat(from, name, top, unused.as_str()),
            other => return other,
        }
    }
}

/// The process's file mode creation mask (proc(5), `/proc/pid/status`); asking umask(2) would change it.
pub fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    // Unknown: as if it took everything, so that callers set modes themselves.
    value.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0o777)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::CWD;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("sys-fs-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn removes_what_is_there_and_nothing_beyond_links() {
        let dir = scratch("links");
        std::fs::create_dir_all(dir.join("tree/a/b/c")).unwrap();
        std::fs::create_dir_all(dir.join("kept/a")).unwrap();
        std::fs::write(dir.join("tree/a/b/file"), b"x").unwrap();
        std::fs::write(dir.join("tree/.removing-0"), b"x").unwrap();
        std::os::unix::fs::symlink(dir.join("kept"), dir.join("tree/a/link")).unwrap();
        remove_tree(CWD, dir.join("tree").as_path()).unwrap();
        remove_tree(CWD, dir.join("tree").as_path()).unwrap();
        assert!(!dir.join("tree").exists());
        assert!(dir.join("kept/a").exists());
        remove_tree(CWD, dir.as_path()).unwrap();
    }

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_goes_too() {
        let dir = scratch("deep");
        let mut at = open_dir(CWD, dir.as_path()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, c"d", Mode::RWXU).unwrap();
            at = open_dir(&at, c"d").unwrap();
        }
        drop(at);
        remove_tree(CWD, dir.as_path()).unwrap();
        assert!(!dir.exists());
    }
}
