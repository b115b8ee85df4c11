//! A directory tree written by descriptors.
//!
//! No path is ever given to the kernel to resolve from outside the root: the parent of an entry is reached component by
//! component with `O_NOFOLLOW`, and remembered, because archives list a directory's entries one after the other. A
//! component that is a symbolic link is resolved by `openat2(RESOLVE_IN_ROOT)`, so that it leads where it would in a
//! container (as in containers-storage, docker and umoci) and cannot lead out.

use crate::limits::MAX_PATH;
use crate::name::{is_overlays, split};
use fault::{Fault, Kind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, UTIME_OMIT, Uid,
    XattrFlags, fchmod, fchown, fsetxattr, fstat, futimens, mkdirat, openat, openat2, statat,
};
use rustix::io::Errno;

/// Directories kept open. Deeper ones are walked to again from the deepest that is.
const MAX_OPEN: usize = 48;

/// What a directory that is made along the way gets.
const IMPLIED_MODE: u32 = 0o755;

/// How whiteouts are written down, and what stays of an ordinary user's rights.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The layer goes under an overlay: a directory that replaces something else hides what lower layers have there.
    pub overlay: bool,
    /// May set owners.
    pub privileged: bool,
}

struct Frame {
    fd: OwnedFd,
    /// Length of the path this directory has.
    end: usize,
    /// Set again when the directory is left, because making entries changes them.
    times: Option<Timestamps>,
}

/// What was left out, because it could not be kept or must not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Devices that may not be made here, and those overlayfs would take for deletions.
    pub devices: u64,
    /// Extended attributes the file system or the kernel does not take from us.
    pub xattrs: u64,
    /// Attributes that belong to overlayfs: an image has no say in those.
    pub overlay_xattrs: u64,
    /// The first thing left out, for the message.
    pub example: Option<String>,
}

impl Skipped {
    pub fn note(&mut self, count: impl FnOnce(&mut Skipped) -> &mut u64, path: &[u8], name: &[u8]) {
        *count(self) += 1;
        self.example.get_or_insert_with(|| match name {
            b"" => show(path),
            name => format!("{} of {}", show(name), show(path)),
        });
    }

    pub fn add(&mut self, other: &Skipped) {
        self.devices += other.devices;
        self.xattrs += other.xattrs;
        self.overlay_xattrs += other.overlay_xattrs;
        if self.example.is_none() {
            self.example.clone_from(&other.example);
        }
    }
}

pub struct Tree {
    /// The first is the root.
    frames: Vec<Frame>,
    /// Path of the last frame.
    path: Vec<u8>,
    /// The present parent was reached through a symbolic link.
    through_link: bool,
    pub manner: Manner,
    pub skipped: Skipped,
    umask: u32,
}

/// The metadata entries of all kinds have.
pub struct Metadata<'a> {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub times: Timestamps,
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl Tree {
    pub fn new(root: OwnedFd, manner: Manner) -> Tree {
        let root = Frame { fd: root, end: 0, times: None };
        Tree {
            frames: vec![root],
            path: Vec::new(),
            through_link: false,
            manner,
            skipped: Skipped::default(),
            umask: sys::fs::umask(),
        }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.frames[0].fd.as_fd()
    }

    /// Leaves all directories. Only then do they all have their times.
    pub fn finish(&mut self) -> Result<()> {
        self.leave_to(0)?;
        settle(&self.frames[0])
    }

    /// Goes to the directory that holds `path`, made if need be. `path` is clean and not the root.
    pub fn enter_parent(&mut self, path: &[u8]) -> Result<()> {
        self.enter(split(path).0)
    }

    fn top(&self) -> BorrowedFd<'_> {
        // The root is never left.
        self.frames[self.frames.len() - 1].fd.as_fd()
    }

    /// The directory gone to last.
    pub fn here(&self) -> BorrowedFd<'_> {
        self.top()
    }

    /// Makes `dir` the last frame.
    fn enter(&mut self, dir: &[u8]) -> Result<()> {
        if self.through_link {
            // What was done there may have replaced directories that are open by their other name.
            self.through_link = false;
            self.leave_to(0)?;
        }
        let mut depth = self.frames.len() - 1;
        while !is_prefix(&self.path[..self.frames[depth].end], dir) {
            depth -= 1;
        }
        self.leave_to(depth)?;
        let mut at = self.frames[depth].end;
        while at < dir.len() {
            let start = if at == 0 { 0 } else { at + 1 };
            let end = dir[start..].iter().position(|b| *b == b'/').map_or(dir.len(), |length| start + length);
            self.step(dir, start, end)?;
            at = end;
        }
        Ok(())
    }

    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.frames.len() > depth + 1 {
            if let Some(frame) = self.frames.pop() {
                settle(&frame)?;
            }
        }
        let end = self.frames[self.frames.len() - 1].end;
        self.path.truncate(end);
        Ok(())
    }

    /// Enters the component `dir[start..end]` of the last frame.
    fn step(&mut self, dir: &[u8], start: usize, end: usize) -> Result<()> {
        let name = &dir[start..end];
        let path = &dir[..end];
        match sys::fs::open_dir(self.top(), name) {
            Ok(fd) => {
                let times = times_of(&fstat(&fd).map_err(|e| os("read", path, e))?);
                self.push(fd, path, Some(times))
            }
            Err(Errno::NOENT) => {
                let fd = self.make_implied(name, path)?;
                self.push(fd, path, None)
            }
            Err(Errno::NOTDIR | Errno::LOOP) => self.step_odd(name, path),
            Err(error) => Err(os("open", path, error)),
        }
    }

    /// What stands in the way is a symbolic link or no directory at all.
    fn step_odd(&mut self, name: &[u8], path: &[u8]) -> Result<()> {
        let stat = stat(self.top(), name).map_err(|e| os("read", path, e))?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            let fd = self.resolve(path)?;
            let times = times_of(&fstat(&fd).map_err(|e| os("read", path, e))?);
            self.push(fd, path, Some(times))?;
            self.through_link = true;
            return Ok(());
        }
        if self.manner.overlay && is_whiteout(&stat) {
            self.clear(name, path)?;
            let fd = self.make_implied(name, path)?;
            set_opaque(&fd, self.manner).map_err(|e| os("mark as opaque", path, e))?;
            return self.push(fd, path, None);
        }
        Err(Fault::input("something that is no directory stands where a directory is needed").on(show(path)))
    }

    fn push(&mut self, fd: OwnedFd, path: &[u8], times: Option<Timestamps>) -> Result<()> {
        if self.frames.len() > MAX_OPEN
            && let Some(frame) = self.frames.pop()
        {
            settle(&frame)?;
        }
        self.path.clear();
        self.path.extend_from_slice(path);
        self.frames.push(Frame { fd, end: path.len(), times });
        Ok(())
    }

    fn make_implied(&self, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
        mkdirat(self.top(), name, Mode::from_raw_mode(IMPLIED_MODE))
            .map_err(|e| os("make directory", path, e))?;
        let fd = sys::fs::open_dir(self.top(), name).map_err(|e| os("open", path, e))?;
        if self.umask & IMPLIED_MODE != 0 {
            fchmod(&fd, Mode::from_raw_mode(IMPLIED_MODE)).map_err(|e| os("set the mode of", path, e))?;
        }
        Ok(fd)
    }

    /// Opens a directory below the root, following symbolic links inside it.
    pub fn resolve(&self, path: &[u8]) -> Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(self.root(), path, flags, Mode::empty(), how).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG => {
                Fault::input("it leads through a symbolic link to no directory of this layer").on(show(path))
            }
            error => os("open", path, error),
        })
    }

    /// Removes whatever `name` in the present parent is.
    pub fn clear(&self, name: &[u8], path: &[u8]) -> Result<()> {
        sys::fs::remove_tree(self.top(), name).map_err(|e| os("replace", path, e))
    }

    /// A new file in the present parent, open for writing.
    pub fn create(&self, name: &[u8], path: &[u8], mode: u32) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        self.replacing(name, path, "create", |dir| {
            openat(dir, name, flags, Mode::from_raw_mode(mode & 0o777))
        })
    }

    /// Makes something new at `name`; what is there already goes.
    pub fn replacing<T>(
        &self,
        name: &[u8],
        path: &[u8],
        action: &str,
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make(self.top()) {
            Err(Errno::EXIST) => {
                self.clear(name, path)?;
                make(self.top()).map_err(|e| os(action, path, e))
            }
            other => other.map_err(|e| os(action, path, e)),
        }
    }

    /// A directory entry: made, or taken over if there is a directory; it becomes the last frame.
    pub fn directory(&mut self, path: &[u8], metadata: &Metadata<'_>) -> Result<()> {
        let (dir, name) = split(path);
        self.enter(dir)?;
        let mode = Mode::from_raw_mode(metadata.mode & 0o777 | 0o700);
        let (mut existed, mut opaque) = (false, false);
        match mkdirat(self.top(), name, mode) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let there = stat(self.top(), name).map_err(|e| os("read", path, e))?;
                if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                    existed = true;
                } else {
                    self.clear(name, path)?;
                    mkdirat(self.top(), name, mode).map_err(|e| os("make directory", path, e))?;
                    opaque = self.manner.overlay;
                }
            }
            Err(error) => return Err(os("make directory", path, error)),
        }
        let fd = sys::fs::open_dir(self.top(), name).map_err(|e| os("open", path, e))?;
        if opaque {
            set_opaque(&fd, self.manner).map_err(|e| os("mark as opaque", path, e))?;
        }
        if existed && !self.manner.overlay {
            drop_xattrs(fd.as_fd(), metadata.xattrs).map_err(|e| os("take attributes from", path, e))?;
        }
        self.dress_dir(fd.as_fd(), metadata, path)?;
        self.push(fd, path, Some(metadata.times.clone()))
    }

    /// The entry for the root itself.
    pub fn dress_root(&mut self, metadata: &Metadata<'_>) -> Result<()> {
        let root =
            self.frames[0].fd.try_clone().map_err(|e| Fault::failed("duplicate a descriptor").because(e))?;
        self.dress_dir(root.as_fd(), metadata, b".")?;
        self.frames[0].times = Some(metadata.times.clone());
        Ok(())
    }

    fn dress_dir(&mut self, fd: BorrowedFd<'_>, metadata: &Metadata<'_>, path: &[u8]) -> Result<()> {
        // An ordinary user could not fill a directory without these rights.
        let mode = if self.manner.privileged { metadata.mode } else { metadata.mode | 0o700 };
        self.dress(fd, &Metadata { mode, times: metadata.times.clone(), ..*metadata }, path)?;
        set_xattrs(metadata.xattrs, path, &mut self.skipped, |name, value| {
            fsetxattr(fd, name, value, XattrFlags::empty())
        })
    }

    /// Owner, then mode (chown takes set-uid away), of a file or directory that is open.
    fn dress(&self, fd: BorrowedFd<'_>, metadata: &Metadata<'_>, path: &[u8]) -> Result<()> {
        let stat = fstat(fd).map_err(|e| os("read", path, e))?;
        if self.manner.privileged && (stat.st_uid != metadata.uid || stat.st_gid != metadata.gid) {
            let (owner, group) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            fchown(fd, Some(owner), Some(group)).map_err(|e| os("set the owner of", path, e))?;
        }
        if stat.st_mode & 0o7777 != metadata.mode {
            fchmod(fd, Mode::from_raw_mode(metadata.mode)).map_err(|e| os("set the mode of", path, e))?;
        }
        Ok(())
    }

    /// Everything about a file that was written: the times last.
    pub fn dress_file(&mut self, fd: BorrowedFd<'_>, metadata: &Metadata<'_>, path: &[u8]) -> Result<()> {
        self.dress(fd, metadata, path)?;
        // After chown and after the last write: both take security.capability away.
        set_xattrs(metadata.xattrs, path, &mut self.skipped, |name, value| {
            fsetxattr(fd, name, value, XattrFlags::empty())
        })?;
        futimens(fd, &metadata.times).map_err(|e| os("set the times of", path, e))
    }

    /// Owner, mode and times of what cannot be opened: symbolic links, devices, pipes.
    pub fn dress_special(
        &mut self,
        name: &[u8],
        metadata: &Metadata<'_>,
        mode: bool,
        path: &[u8],
    ) -> Result<()> {
        let dir = self.frames[self.frames.len() - 1].fd.as_fd();
        if self.manner.privileged {
            let (owner, group) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            rustix::fs::chownat(dir, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| os("set the owner of", path, e))?;
        }
        if mode {
            // Made a moment ago and no symbolic link, so there is none to follow.
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())
                .map_err(|e| os("set the mode of", path, e))?;
        }
        if !metadata.xattrs.is_empty() {
            // A link is not followed by lsetxattr, and the last component is never `..`.
            let mut by_path = format!("/proc/self/fd/{}/", rustix::fd::AsRawFd::as_raw_fd(&dir)).into_bytes();
            by_path.extend_from_slice(name);
            set_xattrs(metadata.xattrs, path, &mut self.skipped, |name, value| {
                rustix::fs::lsetxattr(by_path.as_slice(), name, value, XattrFlags::empty())
            })?;
        }
        rustix::fs::utimensat(dir, name, &metadata.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| os("set the times of", path, e))
    }

    /// A hard link at `name` in the present parent to something already in the tree.
    pub fn hard_link(&self, target: &[u8], name: &[u8], path: &[u8]) -> Result<()> {
        let missing = || {
            Fault::input(format!("it is a hard link to {}, which is not in this layer", show(target)))
                .on(show(path))
        };
        let (target_dir, target_name) = split(target);
        if target_name.is_empty() {
            return Err(missing());
        }
        // Another parent than the present one, which stays as it is.
        let same = target_dir == &self.path[..] && !self.through_link;
        let opened = if same { None } else { Some(self.resolve(target_dir).map_err(|_| missing())?) };
        let from = opened.as_ref().map_or(self.top(), OwnedFd::as_fd);
        let there = match stat(from, target_name) {
            Err(Errno::NOENT) => return Err(missing()),
            other => other.map_err(|e| os("read", target, e))?,
        };
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory || is_whiteout(&there) {
            return Err(missing());
        }
        if let Ok(here) = stat(self.top(), name)
            && (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
        {
            return Ok(());
        }
        // Flags empty: a symbolic link is linked itself, never what it points to.
        self.replacing(name, path, "link", |dir| {
            rustix::fs::linkat(from, target_name, dir, name, AtFlags::empty())
        })
    }

    /// Hides what lower layers have at `name` in the present parent. What this layer itself has there stays; a directory
    /// of this layer starts empty.
    pub fn hide(&self, name: &[u8], path: &[u8]) -> Result<()> {
        let dir = self.top();
        match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) => {
                let there = stat(dir, name).map_err(|e| os("read", path, e))?;
                if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
                    let fd = sys::fs::open_dir(dir, name).map_err(|e| os("open", path, e))?;
                    set_opaque(&fd, self.manner).map_err(|e| os("mark as opaque", path, e))?;
                    // A new attribute changes no modification time.
                }
                Ok(())
            }
            Err(error) => Err(os("make a whiteout for", path, error)),
        }
    }

    /// Marks `dir` (its path; it is made if need be) as hiding everything lower layers have in it.
    pub fn hide_all(&mut self, dir: &[u8]) -> Result<()> {
        self.enter(dir)?;
        set_opaque(self.top(), self.manner).map_err(|e| os("mark as opaque", dir, e))
    }

    /// Goes to `dir` if it is a directory already; nothing is made.
    pub fn try_enter(&mut self, dir: &[u8]) -> Result<bool> {
        if self.resolve(dir).is_err() {
            return Ok(false);
        }
        self.enter(dir)?;
        Ok(true)
    }
}

/// What is at a name, the link itself if it is one.
pub fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Stat> {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Overlayfs' mark for a deleted name: a character device 0:0.
pub fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// The attribute overlayfs reads; an ordinary user's overlay (option `userxattr`) has its own.
pub fn opaque_attribute(privileged: bool) -> &'static str {
    if privileged { "trusted.overlay.opaque" } else { "user.overlay.opaque" }
}

fn set_xattrs(
    xattrs: &[(Vec<u8>, Vec<u8>)],
    path: &[u8],
    skipped: &mut Skipped,
    set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
) -> Result<()> {
    for (name, value) in xattrs {
        if is_overlays(name) {
            skipped.note(|s| &mut s.overlay_xattrs, path, name);
            continue;
        }
        match set(name, value) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {
                skipped.note(|s| &mut s.xattrs, path, name);
            }
            // ext4 says the disk is full when attributes do not fit into their one block.
            Err(error @ (Errno::NOSPC | Errno::TOOBIG | Errno::RANGE | Errno::INVAL)) => {
                let what =
                    format!("set the attribute {} of {} ({} bytes)", show(name), show(path), value.len());
                return Err(Fault::input(what).because(io(error)));
            }
            Err(error) => return Err(os(&format!("set the attribute {} of", show(name)), path, error)),
        }
    }
    Ok(())
}

/// A directory of an upper layer has its own attributes, not those of the lower one it lies over.
fn drop_xattrs(fd: BorrowedFd<'_>, keep: &[(Vec<u8>, Vec<u8>)]) -> rustix::io::Result<()> {
    let mut buffer = [0u8; 1024];
    let names = match rustix::fs::flistxattr(fd, &mut buffer) {
        Ok(length) => &buffer[..length],
        // Without support there are none; with more than fit, they are the file system's own.
        Err(_) => return Ok(()),
    };
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if !keep.iter().any(|(kept, _)| kept == name) && !name.starts_with(b"security.selinux") {
            match rustix::fs::fremovexattr(fd, name) {
                Ok(()) | Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn set_opaque(fd: impl AsFd, manner: Manner) -> rustix::io::Result<()> {
    fsetxattr(fd, opaque_attribute(manner.privileged), b"y", XattrFlags::empty())
}

fn settle(frame: &Frame) -> Result<()> {
    match &frame.times {
        Some(times) => futimens(&frame.fd, times)
            .map_err(|error| Fault::failed("set a directory's times").because(io(error))),
        None => Ok(()),
    }
}

pub fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as i64 },
    }
}

/// Whether `path` is `prefix` or below it.
fn is_prefix(prefix: &[u8], path: &[u8]) -> bool {
    prefix.is_empty() || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// A path from an archive, for an error message.
pub fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(MAX_PATH)]).into_owned()
}

fn io(error: Errno) -> std::io::Error {
    error.into()
}

/// A failed system call on an entry: full disks get a way out, and names the file system cannot hold are the
/// layer's fault.
pub fn os(action: &str, path: &[u8], error: Errno) -> Fault {
    let path = show(path);
    match error {
        Errno::NOSPC | Errno::DQUOT => Fault::failed(format!("{action} {path}: the disk is full"))
            .because(io(error))
            .hint("img-prune removes what no image and no container uses"),
        Errno::NAMETOOLONG | Errno::ILSEQ => Fault::input(format!("{action} {path}")).because(io(error)),
        Errno::ACCESS | Errno::PERM => {
            Fault::new(Kind::Denied, format!("{action} {path}")).because(io(error))
        }
        _ => Fault::failed(format!("{action} {path}")).because(io(error)),
    }
}
