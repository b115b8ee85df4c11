//! Removing trees that others filled: as deep, as wide and as locked as they liked.

use fault::{Explain, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, IFlags, Mode, OFlags, RawMode};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;

/// Directories held open at once. Deeper ones are moved up first, so that neither descriptors nor stack run out.
const MAX_DEPTH: usize = 64;

/// Removes a file or a directory with everything in it; returns the bytes this gave back. What is gone already is no
/// failure. Immutable and append-only marks (chattr(1)) are taken off where that is allowed.
///
/// Never follows a symbolic link. Does cross mount points: unmount first.
pub fn remove_tree(path: &Path) -> Result<u64> {
    let Some(Ok(name)) = path.file_name().map(|name| CString::new(name.as_encoded_bytes())) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput)).explain(|| what(path));
    };
    let parent = match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => rustix::fs::openat(CWD, parent, DIRECTORY, Mode::empty()),
        None => rustix::fs::openat(CWD, c".", DIRECTORY, Mode::empty()),
    };
    let parent = match parent {
        Err(Errno::NOENT) => return Ok(0),
        other => other.explain(|| what(path))?,
    };
    let mut removal = Removal { top: None, moved: 0, freed: 0 };
    removal.entry(parent.as_fd(), &name, 0).explain(|| what(path))?;
    Ok(removal.freed)
}

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn what(path: &Path) -> String {
    format!("remove {}", path.display())
}

struct Removal {
    /// The topmost directory, where what lies too deep is moved to.
    top: Option<OwnedFd>,
    moved: usize,
    freed: u64,
}

impl Removal {
    fn entry(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let stat = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            other => other?,
        };
        if !is_directory(stat.st_mode) {
            if stat.st_nlink == 1 {
                self.freed += stat.st_blocks as u64 * 512;
            }
            return unlink(parent, name, AtFlags::empty());
        }
        self.freed += stat.st_blocks as u64 * 512;
        // An empty directory needs no look inside; most of the deep ones are not, but leaves are many.
        match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(_) => {}
        }
        if depth >= MAX_DEPTH
            && let Some(top) = &self.top
        {
            self.moved += 1;
            let aside = CString::new(format!(".remove-{}-{}", std::process::id(), self.moved))?;
            if rustix::fs::renameat(parent, name, top, &aside).is_ok() {
                return Ok(());
            }
        }
        self.directory(parent, name, depth)
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &CStr, depth: usize) -> io::Result<()> {
        let fd = match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT) => return Ok(()),
            // An ordinary user's own directory without permission bits, such as overlay's work/work.
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?
            }
            other => other?,
        };
        if depth == 0 {
            self.top = Some(fd.try_clone()?);
        }
        // What was moved up meanwhile appears in the next round; a round that found nothing is the last.
        loop {
            let names = names_in(&fd)?;
            if names.is_empty() {
                break;
            }
            for name in names {
                self.entry(fd.as_fd(), &name, depth + 1)?;
            }
        }
        drop(fd);
        unlink(parent, name, AtFlags::REMOVEDIR)
    }
}

fn is_directory(mode: RawMode) -> bool {
    rustix::fs::FileType::from_raw_mode(mode).is_dir()
}

fn names_in(fd: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr, flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(parent, name, flags) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        // EPERM, not EACCES: the entry or its directory carries a mark.
        Err(Errno::PERM) => {
            unmark(parent);
            let open = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            // Only files and directories carry marks, and opening a device could do something.
            let plain = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
                let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
                kind.is_file() || kind.is_dir()
            });
            if plain && let Ok(fd) = rustix::fs::openat(parent, name, open, Mode::empty()) {
                unmark(fd.as_fd());
            }
            match rustix::fs::unlinkat(parent, name, flags) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn unmark(fd: BorrowedFd<'_>) {
    if let Ok(flags) = rustix::fs::ioctl_getflags(fd) {
        let marks = IFlags::IMMUTABLE | IFlags::APPEND;
        if flags.intersects(marks) {
            // Without the capability the removal that follows says why it failed.
            let _ = rustix::fs::ioctl_setflags(fd, flags - marks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("store-tree-{name}-{}", std::process::id()));
        let _ = remove_tree(&dir);
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn removes_what_is_deeper_than_any_path() {
        let dir = scratch("deep");
        let mut fd = rustix::fs::openat(CWD, &dir, DIRECTORY, Mode::empty()).unwrap();
        for level in 0..5000 {
            rustix::fs::mkdirat(&fd, "abcdef", Mode::RWXU).unwrap();
            let file = format!("file{level}");
            drop(rustix::fs::openat(&fd, file, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap());
            fd = rustix::fs::openat(&fd, "abcdef", DIRECTORY, Mode::empty()).unwrap();
        }
        drop(fd);
        remove_tree(&dir).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let dir = scratch("links");
        let kept = scratch("kept");
        fs::write(kept.join("precious"), b"x").unwrap();
        std::os::unix::fs::symlink(&kept, dir.join("link")).unwrap();
        std::os::unix::fs::symlink("/nonexistent", dir.join("dangling")).unwrap();
        fs::write(dir.join("file"), vec![1; 10_000]).unwrap();
        assert!(remove_tree(&dir).unwrap() >= 10_000);
        assert!(!dir.exists() && kept.join("precious").exists());
        assert_eq!(remove_tree(&dir).unwrap(), 0);
        // A link given as the path itself goes, not what it points to.
        let link = std::env::temp_dir().join(format!("store-tree-itself-{}", std::process::id()));
        std::os::unix::fs::symlink(&kept, &link).unwrap();
        remove_tree(&link).unwrap();
        assert!(kept.join("precious").exists() && link.symlink_metadata().is_err());
        remove_tree(&kept).unwrap();
    }
}
