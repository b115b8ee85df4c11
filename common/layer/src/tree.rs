//! A directory tree written by descriptors.
//!
//! No path is ever given to the kernel to resolve from outside the root: the parent of an entry is reached component by
//! component with `O_NOFOLLOW`, and remembered, because archives list a directory's entries one after the other. A
//! component that is a symbolic link is resolved by `openat2(RESOLVE_IN_ROOT)`, so that it leads where it would in a
//! container (as in containers-storage, docker and umoci) and cannot lead out.

mod dress;

use crate::limits::MAX_PATH;
use crate::name::split;
use crate::scan::ItemKind;
use crate::unset::{Line, Unset};
use fault::{Fault, Kind, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags, fchmod, fsetxattr,
    fstat, futimens, mkdirat, openat, statat,
};
use rustix::io::Errno;
use std::borrow::Cow;
use std::cell::RefCell;

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
    /// Devices an ordinary user has as empty files.
    pub stand_ins: u64,
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
        self.stand_ins += other.stand_ins;
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
    /// Where what cannot be set is written down.
    unset: RefCell<Option<Unset>>,
}

/// The metadata entries of all kinds have.
pub struct Metadata<'a> {
    pub kind: ItemKind,
    /// Major, minor.
    pub device: (u32, u32),
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
            unset: RefCell::default(),
        }
    }

    /// From now on what cannot be set is written down there.
    pub fn record(&mut self, unset: Unset) {
        self.unset = RefCell::new(Some(unset));
    }

    /// Lines written down so far.
    pub fn recorded(&self) -> u64 {
        self.unset.borrow().as_ref().map_or(0, Unset::lines)
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.frames[0].fd.as_fd()
    }

    /// Leaves all directories. Only then do they all have their times.
    pub fn finish(&mut self) -> Result<()> {
        self.leave_to(0)?;
        settle(&self.frames[0])?;
        self.unset.borrow_mut().as_mut().map_or(Ok(()), Unset::flush)
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
        self.imply(fd.as_fd(), path)?;
        Ok(fd)
    }

    /// Opens a directory below the root, following symbolic links inside it.
    pub fn resolve(&self, path: &[u8]) -> Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        sys::fs::open_in_root(self.root(), path, flags).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV | Errno::NAMETOOLONG => {
                Fault::input("it leads through a symbolic link to no directory of this layer").on(show(path))
            }
            error => os("open", path, error),
        })
    }

    /// Removes whatever `name` in the present parent is.
    pub fn clear(&self, name: &[u8], path: &[u8]) -> Result<()> {
        sys::fs::remove_tree(self.top(), name).map_err(|e| os("replace", path, e))?;
        self.forget(|| self.real_path(path))
    }

    /// Writes down that what was written down of a path, and of what is below it, holds no more.
    pub fn forget<'a>(&self, path: impl FnOnce() -> Cow<'a, [u8]>) -> Result<()> {
        match self.unset.borrow_mut().as_mut().filter(|unset| unset.lines() > 0) {
            Some(unset) => unset.write(&Line::removed(&path())),
            None => Ok(()),
        }
    }

    /// `path`, of something in the present parent, as it is without the symbolic links on the way.
    fn real_path<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        if !self.through_link {
            return path.into();
        }
        let (dir, name) = split(path);
        crate::name::join(&self.real_dir(self.top(), dir), name).into()
    }

    /// The same of the directory gone to last.
    pub fn real_here<'a>(&self, dir: &'a [u8]) -> Cow<'a, [u8]> {
        if self.through_link { self.real_dir(self.top(), dir) } else { dir.into() }
    }

    fn real_dir<'a>(&self, fd: BorrowedFd<'_>, path: &'a [u8]) -> Cow<'a, [u8]> {
        let place = |fd: BorrowedFd<'_>| {
            let link = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&fd));
            rustix::fs::readlink(link, Vec::new()).map(std::ffi::CString::into_bytes)
        };
        // Of one that is too long to be told the archive's name has to do.
        let (Ok(root), Ok(dir)) = (place(self.root()), place(fd)) else { return path.into() };
        let root = root.strip_suffix(b"/").unwrap_or(&root);
        match dir.strip_prefix(root) {
            Some([b'/', rest @ ..]) => rest.to_vec().into(),
            Some([]) => Cow::Borrowed(&[]),
            _ => path.into(),
        }
    }

    /// A new file in the present parent, open for writing.
    pub fn create(&self, name: &[u8], path: &[u8], mode: u32) -> Result<OwnedFd> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // An ordinary user has to be allowed to write to it even to give it attributes.
        let least = if self.manner.privileged { 0 } else { 0o600 };
        self.replacing(name, path, "create", |dir| {
            openat(dir, name, flags, Mode::from_raw_mode(mode & 0o777 | least))
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
            dress::drop_xattrs(fd.as_fd(), metadata.xattrs)
                .map_err(|e| os("take attributes from", path, e))?;
        }
        self.dress_dir(fd.as_fd(), metadata, path, existed)?;
        self.push(fd, path, Some(metadata.times.clone()))
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
        })?;
        match self.unset.borrow_mut().as_mut() {
            // What was written down of the other name is to be found by this one, too.
            Some(unset) if !self.manner.privileged || unset.lines() > 0 => {
                let dir = if same { target_dir.into() } else { self.real_dir(from, target_dir) };
                let target = crate::name::join(&dir, target_name);
                unset.write(&Line::hard_link(&self.real_path(path), &target))
            }
            _ => Ok(()),
        }
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
