//! How much a tree takes, whoever filled it.

use fault::{Explain, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::CString;
use std::path::Path;

const DIRECTORY: OFlags = OFlags::DIRECTORY
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::RDONLY)
    .union(OFlags::NOATIME);

/// A directory on the way down: which it is, and its directories that were not looked into yet.
struct Level {
    device: u64,
    inode: u64,
    waiting: Vec<CString>,
}

/// Bytes on disk of everything at a path: each inode once, other file systems not at all. What disappears meanwhile is not
/// counted; there may be nothing.
///
/// A container may make trees as deep as it likes, so one descriptor is open at a time, and neither paths nor the stack grow:
/// the way back up is `..`, if that still leads where the way down began.
pub fn disk_bytes(path: &Path) -> Result<u64> {
    let what = || format!("look through {}", path.display());
    let stat = match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => return Ok(0),
        other => other.map_err(std::io::Error::from).explain(what)?,
    };
    let mut sum = Sum { bytes: 0, device: stat.st_dev, linked: HashSet::new() };
    sum.add(&stat);
    if FileType::from_raw_mode(stat.st_mode).is_dir() {
        sum.below(path).map_err(std::io::Error::from).explain(what)?;
    }
    Ok(sum.bytes)
}

struct Sum {
    bytes: u64,
    device: u64,
    /// Inodes with several names that were counted.
    linked: HashSet<u64>,
}

impl Sum {
    fn add(&mut self, stat: &Stat) {
        let is_dir = FileType::from_raw_mode(stat.st_mode).is_dir();
        if is_dir || stat.st_nlink < 2 || self.linked.insert(stat.st_ino) {
            self.bytes = self.bytes.saturating_add((stat.st_blocks as u64).saturating_mul(512));
        }
    }

    fn below(&mut self, path: &Path) -> rustix::io::Result<()> {
        let Some(mut here) = open(CWD, path)? else { return Ok(()) };
        let mut levels = vec![self.level(&here)?];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.waiting.pop() {
                let Some(child) = open(&here, name.as_c_str())? else { continue };
                let stat = rustix::fs::fstat(&child)?;
                if stat.st_dev != self.device {
                    continue;
                }
                levels.push(self.level(&child)?);
                here = child;
                continue;
            }
            levels.pop();
            let Some(parent) = levels.last() else { break };
            let Some(up) = open(&here, c"..")? else { break };
            let stat = rustix::fs::fstat(&up)?;
            if (stat.st_dev, stat.st_ino) != (parent.device, parent.inode) {
                // Moved meanwhile: there is no way back to the rest.
                break;
            }
            here = up;
        }
        Ok(())
    }

    /// Counts what is in a directory; its directories wait.
    fn level(&mut self, directory: &OwnedFd) -> rustix::io::Result<Level> {
        let own = rustix::fs::fstat(directory)?;
        let mut level = Level { device: own.st_dev, inode: own.st_ino, waiting: Vec::new() };
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            if stat.st_dev != self.device {
                continue;
            }
            self.add(&stat);
            if FileType::from_raw_mode(stat.st_mode).is_dir() {
                level.waiting.push(name.to_owned());
            }
        }
        Ok(level)
    }
}

/// `None` for what is gone, is no directory any more, or is locked to this user.
fn open<P: rustix::path::Arg + Copy>(
    at: impl rustix::fd::AsFd,
    name: P,
) -> rustix::io::Result<Option<OwnedFd>> {
    let mut found = rustix::fs::openat(&at, name, DIRECTORY, Mode::empty());
    if found.as_ref().is_err_and(|error| *error == Errno::PERM) {
        // Of another owner.
        found = rustix::fs::openat(&at, name, DIRECTORY.difference(OFlags::NOATIME), Mode::empty());
    }
    match found {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn every_inode_once_however_deep() {
        let dir = std::env::temp_dir().join(format!("sys-df-walk-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        assert_eq!(disk_bytes(&dir.join("nothing")).unwrap(), 0);
        let empty = disk_bytes(&dir).unwrap();
        std::fs::write(dir.join("file"), vec![1; 100_000]).unwrap();
        std::fs::hard_link(dir.join("file"), dir.join("same")).unwrap();
        std::os::unix::fs::symlink("/usr", dir.join("out")).unwrap();
        let file = dir.join("file").metadata().unwrap().blocks() * 512;
        let link = dir.join("out").symlink_metadata().unwrap().blocks() * 512;
        assert_eq!(disk_bytes(&dir).unwrap(), empty + file + link);
        assert_eq!(disk_bytes(&dir.join("file")).unwrap(), file);
        // Deeper than a path may be long, and than there are descriptors.
        let mut here = rustix::fs::openat(CWD, &dir, DIRECTORY, Mode::empty()).unwrap();
        let mut expected = 0;
        for _ in 0..1100 {
            rustix::fs::mkdirat(&here, "deep", Mode::RWXU).unwrap();
            here = rustix::fs::openat(&here, "deep", DIRECTORY, Mode::empty()).unwrap();
            expected += rustix::fs::fstat(&here).unwrap().st_blocks as u64 * 512;
        }
        assert_eq!(disk_bytes(&dir).unwrap(), empty + file + link + expected);
        store::remove_tree(&dir).unwrap();
    }
}
