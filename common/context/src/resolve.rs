//! Paths inside a root, whatever links on the way say.
//!
//! The kernel could do it in one call (`openat2`, `RESOLVE_IN_ROOT`), but would not tell by which links it went: of a context these must not
//! be ignored, and of a destination the part that is not there yet has to be known.

use fault::{Fault, Result};
use rootfs::{failed, show};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;
use std::collections::VecDeque;

/// Links that are followed for one path, as in the kernel.
const MAX_LINKS: usize = 40;
const LOOK: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Where a path leads.
#[derive(Debug, Default)]
pub struct Resolved {
    /// Without links, relative to the root; empty for the root itself.
    pub path: Vec<u8>,
    /// What it is; `None` if something of the path is missing.
    pub kind: Option<FileType>,
    /// Names that are not there.
    pub missing: Vec<Vec<u8>>,
    /// Something that is no directory was met where one is needed; `path` is that.
    pub is_blocked: bool,
    /// Links that were followed, each as a path of this kind.
    pub links: Vec<Vec<u8>>,
}

/// Follows a path in a root, its last component as well.
///
/// # Errors
/// For circles of links, and what the kernel says.
pub fn resolve(root: BorrowedFd<'_>, path: &[u8]) -> Result<Resolved> {
    let mut found = Resolved::default();
    let mut rest: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
    let mut at = open_dir(root, b"").map_err(|error| failed("open", b"", error))?;
    let mut kind = FileType::Directory;
    while let Some(name) = rest.pop_front() {
        if name == b".." {
            pop(&mut found.path);
            (at, kind) =
                (open_dir(root, &found.path).map_err(|e| failed("open", path, e))?, FileType::Directory);
            continue;
        }
        if kind != FileType::Directory {
            found.is_blocked = true;
            return Ok(found);
        }
        let next = match openat(&at, name.as_slice(), LOOK, Mode::empty()) {
            Ok(next) => next,
            Err(Errno::NOENT) => {
                found.missing.push(name);
                found.missing.extend(rest);
                return Ok(found);
            }
            Err(error) => return Err(failed("look at", path, error)),
        };
        let stat = fstat(&next).map_err(|error| failed("look at", path, error))?;
        let mut whole = found.path.clone();
        push(&mut whole, &name)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
            (at, kind, found.path) = (next, FileType::from_raw_mode(stat.st_mode), whole);
            continue;
        }
        found.links.push(whole);
        if found.links.len() > MAX_LINKS {
            return Err(Fault::input("its symbolic links lead in circles").on(show(path)));
        }
        let link =
            readlinkat(&next, c"", Vec::new()).map_err(|error| failed("read", path, error))?.into_bytes();
        if link.first() == Some(&b'/') {
            found.path.clear();
            at = open_dir(root, b"").map_err(|error| failed("open", path, error))?;
        }
        for name in components(&link).collect::<Vec<_>>().into_iter().rev() {
            rest.push_front(name.to_vec());
        }
    }
    found.kind = Some(kind);
    Ok(found)
}

/// The names in a path, without those that say nothing.
pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !matches!(*name, b"" | b"."))
}

pub fn push(path: &mut Vec<u8>, name: &[u8]) -> Result<()> {
    if path.len() + 1 + name.len() > rootfs::MAX_PATH {
        let whole = Fault::input(format!("a path below it is longer than {} bytes", rootfs::MAX_PATH));
        return Err(whole.on(show(path)));
    }
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    Ok(())
}

fn pop(path: &mut Vec<u8>) {
    let end = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
    path.truncate(end);
}

/// What is before the last slash, and what is behind it.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Opens what has a path without links, and fails with `ELOOP` where there is one by now.
pub fn open_plain(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), how) {
            // A renaming somewhere made the kernel unsure of having stayed inside.
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

pub fn open_dir(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    open_plain(root, path, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Files out of one directory after the other: the last one stays open.
#[derive(Debug)]
pub struct Opener<'a> {
    root: BorrowedFd<'a>,
    dir: Option<(Vec<u8>, OwnedFd)>,
}

impl<'a> Opener<'a> {
    pub fn new(root: BorrowedFd<'a>) -> Opener<'a> {
        Opener { root, dir: None }
    }

    /// Opens a file or directory for reading, if it still is what it was.
    pub fn open(&mut self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let (dir, name) = split(path);
        if name.is_empty() {
            return open_plain(self.root, path, flags);
        }
        if self.dir.as_ref().is_none_or(|(open, _)| open != dir) {
            self.dir = Some((dir.to_vec(), open_plain(self.root, dir, OFlags::PATH | OFlags::DIRECTORY)?));
        }
        let Some((_, open)) = &self.dir else { return Err(Errno::NOENT) };
        openat(open.as_fd(), name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    }
}
