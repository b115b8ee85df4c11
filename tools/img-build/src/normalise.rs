//! What a step has left in its upper directory, made into a layer's content: without the places that were made for mounts, and
//! with times that are the same in every build.

use cli::{Explain, Fault, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fstat, openat, statat,
    unlinkat, utimensat,
};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Directories in one another; the kernel's longest path holds no more.
const MAX_DEPTH: usize = 2048;

/// Removes what was made to mount something on: paths with no slash in front, inner ones too, through links below if need be. What is
/// in a layer below at such a path was not made, and what was put into it stays.
///
/// # Errors
/// What cannot be looked at or removed.
pub fn remove_mount_points(upper: BorrowedFd<'_>, lower: &OwnedFd, mounted_on: &[Vec<u8>]) -> Result<()> {
    let mut paths: Vec<Vec<u8>> = mounted_on.iter().filter_map(|path| made_at(lower, path)).collect();
    // What is in another comes first.
    paths.sort_unstable_by(|a, b| b.cmp(a));
    for path in &paths {
        let mut path = path.as_slice();
        loop {
            if !remove_empty(upper, lower, path)? {
                break;
            }
            // The directories on the way were made for it, too, if nothing else is in them.
            match path.iter().rposition(|byte| *byte == b'/') {
                Some(slash) => path = &path[..slash],
                None => break,
            }
        }
    }
    Ok(())
}

/// Where a mount point was made: `lib/x` at `usr/lib/x`, if `lib` is a link. `None` where it was there already.
fn made_at(lower: &OwnedFd, path: &[u8]) -> Option<Vec<u8>> {
    // Where nothing can be mounted, nothing was made.
    let found = context::resolve(lower.as_fd(), path).ok().filter(|found| !found.is_blocked)?;
    if found.missing.is_empty() || found.missing.iter().any(|name| name == b"..") {
        return None;
    }
    let there = Some(found.path).filter(|path| !path.is_empty());
    Some(there.into_iter().chain(found.missing).collect::<Vec<_>>().join(&b'/'))
}

/// Whether an empty file or directory that no lower layer has was there, and is gone.
fn remove_empty(upper: BorrowedFd<'_>, lower: &OwnedFd, path: &[u8]) -> Result<bool> {
    let failed = || format!("remove /{}", String::from_utf8_lossy(path));
    let Some((parent, name)) = parent(upper, path).explain(failed)? else { return Ok(false) };
    let Ok(status) = statat(&parent, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) else { return Ok(false) };
    let below = statat(lower, Path::new(OsStr::from_bytes(path)), AtFlags::SYMLINK_NOFOLLOW);
    if below.is_ok() {
        return Ok(false);
    }
    let flags = match FileType::from_raw_mode(status.st_mode) {
        FileType::RegularFile if status.st_size == 0 => AtFlags::empty(),
        FileType::Directory => AtFlags::REMOVEDIR,
        _ => return Ok(false),
    };
    match unlinkat(&parent, name.as_c_str(), flags) {
        Ok(()) => Ok(true),
        Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT) => Ok(false),
        Err(error) => Err(error).explain(failed),
    }
}

/// The directory a path is in, and its last name. `None` where a link is on the way or nothing is there.
fn parent(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<Option<(OwnedFd, CString)>> {
    let mut dir = openat(root, c".", directory(), Mode::empty())?;
    let mut names = path.split(|byte| *byte == b'/').peekable();
    while let Some(name) = names.next() {
        let Ok(name) = CString::new(name) else { return Ok(None) };
        if names.peek().is_none() {
            return Ok(Some((dir, name)));
        }
        dir = match openat(&dir, name.as_c_str(), directory(), Mode::empty()) {
            Ok(dir) => dir,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error),
        };
    }
    Ok(None)
}

/// Gives everything that was changed after `latest` that time (seconds since 1970); what is older keeps its own.
///
/// # Errors
/// What cannot be looked at or changed.
pub fn clamp_times(upper: BorrowedFd<'_>, latest: i64) -> Result<()> {
    let dir = openat(upper, c".", directory(), Mode::empty()).explain(|| "open a layer".into())?;
    clamp_directory(&dir, latest, 0)
}

fn clamp_directory(dir: &OwnedFd, latest: i64, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Fault::input(format!("the layer has more than {MAX_DEPTH} directories in one another")));
    }
    let failed = |name: &CStr| format!("set the times of {}", name.to_string_lossy());
    let mut entries = Dir::read_from(dir).explain(|| "read a directory of a layer".into())?;
    while let Some(entry) = entries.read() {
        let entry = entry.explain(|| "read a directory of a layer".into())?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let status = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).explain(|| failed(name))?;
        if FileType::from_raw_mode(status.st_mode) == FileType::Directory {
            let inner = openat(dir, name, directory(), Mode::empty()).explain(|| failed(name))?;
            clamp_directory(&inner, latest, depth + 1)?;
        } else if is_later(&status, latest) {
            utimensat(dir, name, &at(latest), AtFlags::SYMLINK_NOFOLLOW).explain(|| failed(name))?;
        }
    }
    let status = fstat(dir.as_fd()).explain(|| failed(c"a directory"))?;
    if is_later(&status, latest) {
        rustix::fs::futimens(dir, &at(latest)).explain(|| failed(c"a directory"))?;
    }
    Ok(())
}

fn is_later(status: &Stat, latest: i64) -> bool {
    (status.st_mtime, status.st_mtime_nsec) > (latest, 0)
}

fn at(seconds: i64) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: 0 },
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// Opens a directory of our own; its path may be a descriptor's in `/proc`.
///
/// # Errors
/// When it is not there.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, directory() - OFlags::NOFOLLOW, Mode::empty())
        .explain(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_was_made_for_mounts_goes_and_late_times_are_clamped() {
        let place = testkit::Place::new();
        let (upper, lower) = (place.path().join("upper"), place.path().join("lower"));
        for dir in [
            "upper/etc",
            "upper/run/secrets",
            "upper/var/cache/apt",
            "upper/mnt",
            "upper/usr/lib/x/y",
            "upper/bin",
            "lower/mnt",
            "lower/usr/lib",
        ] {
            std::fs::create_dir_all(place.path().join(dir)).unwrap();
        }
        for file in ["etc/resolv.conf", "run/secrets/key", "etc/kept", "bin/key"] {
            std::fs::write(upper.join(file), "").unwrap();
        }
        // `sbin` leads out of the root, but for who stays in it.
        for (name, target) in [("lib", "usr/lib"), ("sbin", "/../bin"), ("circle", "circle")] {
            std::os::unix::fs::symlink(target, lower.join(name)).unwrap();
        }
        std::fs::write(upper.join("etc/hosts"), "written to").unwrap();
        std::os::unix::fs::symlink("/nowhere", upper.join("link")).unwrap();
        let mounted: Vec<Vec<u8>> = [
            "etc/resolv.conf",
            "etc/hosts",
            "run/secrets/key",
            "var/cache/apt",
            "mnt",
            "link/x",
            "lib/x/y",
            "sbin/key",
            "circle/x",
        ]
        .map(|path| path.as_bytes().to_vec())
        .to_vec();
        let (open, below) = (open_directory(&upper).unwrap(), open_directory(&lower).unwrap());
        remove_mount_points(open.as_fd(), &below, &mounted).unwrap();
        let there = |path: &str| upper.join(path).symlink_metadata().is_ok();
        for gone in ["etc/resolv.conf", "run", "var", "usr/lib/x", "bin"] {
            assert!(!there(gone), "{gone}");
        }
        for kept in ["etc/hosts", "etc/kept", "mnt", "link", "usr/lib"] {
            assert!(there(kept), "{kept}");
        }
        let old = std::time::UNIX_EPOCH + std::time::Duration::new(1000, 5);
        std::fs::File::options().write(true).open(upper.join("etc/kept")).unwrap().set_modified(old).unwrap();
        clamp_times(open.as_fd(), 2000).unwrap();
        let time = |path: &str| {
            let status = upper.join(path).symlink_metadata().unwrap();
            (status.mtime(), status.mtime_nsec())
        };
        assert_eq!(time("etc/kept"), (1000, 5));
        for clamped in ["etc/hosts", "etc", "mnt", "link", "."] {
            assert_eq!(time(clamped), (2000, 0), "{clamped}");
        }
    }
}
