//! One file, directory or whatever else: what it is, without following it anywhere.

use fault::{Fault, Kind, Result};
use layer::archive::sparse::Sparse;
use layer::pack::Member;
use layer::scan::Xattr;
use layer::{ItemKind, Time};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Read;

/// Longest path that is gone into, in bytes: the kernel's `PATH_MAX` without its NUL.
pub const MAX_PATH: usize = 4095;

/// The kernel lists no more names of extended attributes, in bytes (listxattr(2), `XATTR_LIST_MAX`).
const MAX_NAMES: usize = 64 << 10;

/// Extended attributes that are this machine's business and mean nothing elsewhere.
const OF_THE_MACHINE: [&[u8]; 4] =
    [b"security.selinux", b"security.ima", b"security.evm", b"security.apparmor"];

/// Where a member's content comes from.
pub enum Content<'a> {
    Nothing,
    File(&'a File),
    /// Out of an archive; of a sparse file only what is no hole.
    Stream(&'a mut dyn Read, Option<&'a Sparse>),
}

/// What takes members one after the other, a directory before what is in it.
pub trait Sink {
    /// # Errors
    /// What ends the walk.
    fn add(&mut self, member: &Member<'_>, content: Content<'_>) -> Result<()>;
}

/// What went through, and what did not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Members of all kinds.
    pub files: u64,
    /// Of content, holes included.
    pub bytes: u64,
    /// Sockets, and devices that are not to be made; with the first of them.
    pub skipped: u64,
    pub example: Option<String>,
    /// Files that were shorter at their end than at their beginning.
    pub shrunk: u64,
}

impl Tally {
    pub fn skip(&mut self, path: &[u8]) {
        self.skipped += 1;
        self.example.get_or_insert_with(|| show(path));
    }
}

/// What is at a descriptor.
#[derive(Debug)]
pub struct Looked {
    /// `None` for sockets, which have no life without the process that made them.
    pub kind: Option<ItemKind>,
    pub stat: Stat,
    /// Text of a symbolic link.
    pub link: Vec<u8>,
    pub xattrs: Vec<Xattr>,
    /// A regular file, open for reading.
    pub file: Option<File>,
}

/// Opens a name in a directory, whatever it is, for nothing but to look at it: no link is followed, no device asked.
pub fn open_at(dir: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The directory at an `O_PATH` descriptor, to be listed.
pub fn open_listed(fd: impl AsFd) -> rustix::io::Result<OwnedFd> {
    openat(fd, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

pub fn kind_of(stat: &Stat) -> Option<ItemKind> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => ItemKind::File,
        FileType::Directory => ItemKind::Directory,
        FileType::Symlink => ItemKind::Symlink,
        FileType::CharacterDevice => ItemKind::CharDevice,
        FileType::BlockDevice => ItemKind::BlockDevice,
        FileType::Fifo => ItemKind::Fifo,
        _ => return None,
    })
}

impl Looked {
    /// `fd` is an `O_PATH` descriptor. The very inode it stands for is read, whatever has its name by now.
    pub fn at(fd: BorrowedFd<'_>) -> rustix::io::Result<Looked> {
        let stat = fstat(fd)?;
        let kind = kind_of(&stat);
        let by_number = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let mut looked = Looked { kind, stat, link: Vec::new(), xattrs: Vec::new(), file: None };
        match kind {
            Some(ItemKind::Symlink) => looked.link = readlinkat(fd, c"", Vec::new())?.into_bytes(),
            Some(ItemKind::File) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                looked.file = Some(openat(CWD, by_number.as_str(), flags, Mode::empty())?.into());
            }
            None => return Ok(looked),
            _ => {}
        }
        looked.xattrs = xattrs(&by_number)?;
        Ok(looked)
    }

    /// As a member of an archive. Sockets are none.
    pub fn member<'a>(&'a self, path: &'a [u8]) -> Option<Member<'a>> {
        let kind = self.kind?;
        let stat = &self.stat;
        let is_device = matches!(kind, ItemKind::CharDevice | ItemKind::BlockDevice);
        Some(Member {
            kind,
            path,
            link: &self.link,
            mode: if kind == ItemKind::Symlink { 0o777 } else { stat.st_mode & 0o7777 },
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: if kind == ItemKind::File { stat.st_size as u64 } else { 0 },
            mtime: time(stat),
            device: if is_device {
                (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
            } else {
                (0, 0)
            },
            xattrs: &self.xattrs,
        })
    }

    pub fn content(&self) -> Content<'_> {
        self.file.as_ref().map_or(Content::Nothing, Content::File)
    }
}

pub fn time(stat: &Stat) -> Time {
    Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 }
}

/// Attributes in the order of their names, but for overlayfs' own and the machine's. `path` is followed if it is a link, as one of
/// `/proc/self/fd` has to be.
fn xattrs(path: &str) -> rustix::io::Result<Vec<Xattr>> {
    gather(|names| rustix::fs::listxattr(path, names), |name, value| rustix::fs::getxattr(path, name, value))
}

/// The same of a file or directory that is open, and not by `O_PATH`.
///
/// # Errors
/// What the kernel says.
pub fn xattrs_of(fd: BorrowedFd<'_>) -> rustix::io::Result<Vec<Xattr>> {
    gather(|names| rustix::fs::flistxattr(fd, names), |name, value| rustix::fs::fgetxattr(fd, name, value))
}

fn gather(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Xattr>> {
    let mut few = [0; 1024];
    let mut many = Vec::new();
    let names = match list(&mut few[..]) {
        Ok(length) => &few[..length],
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(Errno::RANGE) => {
            many.resize(MAX_NAMES, 0);
            let length = list(&mut many[..])?;
            &many[..length]
        }
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty() && !is_dropped(name)) {
        let mut value = vec![0; 64 << 10];
        match get(name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                value.shrink_to_fit();
                found.push((name.to_vec(), value));
            }
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

fn is_dropped(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || OF_THE_MACHINE.contains(&name)
}

/// The value of one of overlayfs' own attributes of a directory or file in an upper directory.
pub fn overlay_mark(fd: BorrowedFd<'_>, name: &str) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 4096];
    match rustix::fs::getxattr(format!("/proc/self/fd/{}", fd.as_raw_fd()), name, &mut value[..]) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        // A redirect may be as long as a path, and is one then.
        Err(Errno::RANGE) => Ok(Some(value)),
        Err(error) => Err(error),
    }
}

/// The names in a directory, in byte order, so that the same tree is always walked in the same way.
pub fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// A path with another component.
pub fn push(path: &mut Vec<u8>, name: &[u8]) -> Result<()> {
    if path.len() + 1 + name.len() > MAX_PATH {
        return Err(Fault::input(format!("a path below it is longer than {MAX_PATH} bytes")).on(show(path)));
    }
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    Ok(())
}

/// A path for people.
pub fn show(path: &[u8]) -> String {
    String::from_utf8_lossy(&path[..path.len().min(MAX_PATH)]).into_owned()
}

/// A failed system call on a path.
pub fn failed(action: &str, path: &[u8], error: Errno) -> Fault {
    let what = format!("{action} {}", if path.is_empty() { ".".to_owned() } else { show(path) });
    let because = std::io::Error::from(error);
    match error {
        Errno::ROFS => Fault::denied(what).because(because),
        Errno::ACCESS | Errno::PERM => Fault::new(Kind::Denied, what).because(because),
        Errno::NOENT | Errno::NOTDIR => Fault::not_found(what).because(because),
        Errno::MFILE => {
            Fault::failed(what).because(because).hint("ulimit -Hn is what bounds the depth of directories")
        }
        _ => Fault::failed(what).because(because),
    }
}
