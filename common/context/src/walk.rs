//! Going through a tree: what is there and which of it counts.

use crate::ignore::rules::{Above, Rules};
use crate::resolve::{open_dir, push};
use fault::{Fault, Result};
use layer::{ItemKind, Time};
use rootfs::{failed, kind_of};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Stat, readlinkat, statat};
use rustix::io::Errno;
use std::ffi::CString;

/// Files of one selection; each costs whoever gets them an inode.
const MAX_ENTRIES: usize = 10_000_000;

/// What a file was when it was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub device: u64,
    pub inode: u64,
    pub links: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
    /// Of devices.
    pub number: (u32, u32),
}

impl Facts {
    pub fn of(stat: &Stat) -> Facts {
        Facts {
            device: stat.st_dev,
            inode: stat.st_ino,
            links: stat.st_nlink,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
            ctime: Time { seconds: stat.st_ctime, nanoseconds: stat.st_ctime_nsec as u32 },
            number: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        }
    }

    /// Whether this is the same file with the same content.
    pub fn is_same(&self, other: &Facts) -> bool {
        (self.device, self.inode, self.size, self.ctime)
            == (other.device, other.inode, other.size, other.ctime)
    }
}

/// Something that was chosen.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Relative to where the walk began; empty for that itself.
    pub path: Box<[u8]>,
    /// `None`: a socket, which has no life without the process that made it.
    pub kind: Option<ItemKind>,
    pub facts: Facts,
    /// Of a symbolic link.
    pub link: Box<[u8]>,
}

/// Which files count. Of `ignore` paths are relative to the root, of the others to where the walk begins.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    pub ignore: &'a Rules,
    pub exclude: &'a Rules,
    /// Only what these match; `None`: everything.
    pub include: Option<&'a Rules>,
}

#[derive(Clone, Debug, Default)]
struct State {
    ignore: Above,
    exclude: Above,
    include: Above,
}

enum Verdict {
    Kept,
    /// A directory that counts only if something in it does.
    Perhaps,
    Dropped,
}

impl Filter<'_> {
    fn is_open(&self) -> bool {
        self.ignore.is_empty() && self.exclude.is_empty() && self.include.is_none()
    }

    fn file(&self, whole: &[u8], path: &[u8], above: &State) -> bool {
        self.ignore.matched(whole, &above.ignore).is_none()
            && self.exclude.matched(path, &above.exclude).is_none()
            && self.include.is_none_or(|include| include.matched(path, &above.include).is_some())
    }

    fn directory(&self, whole: &[u8], path: &[u8], above: &State) -> (Verdict, State) {
        let (ignored, ignore) = self.ignore.below(whole, &above.ignore);
        let (excluded, exclude) = self.exclude.below(path, &above.exclude);
        let (included, include) = match self.include {
            Some(rules) => {
                let (matched, below) = rules.below(path, &above.include);
                (matched.is_some(), below)
            }
            None => (true, Above::default()),
        };
        let hopeless = ignored.is_some() && !self.ignore.excepts_below(whole)
            || excluded.is_some() && !self.exclude.excepts_below(path)
            || !included && !self.include.is_some_and(|rules| rules.matches_below(path));
        let verdict = match (hopeless, ignored.is_none() && excluded.is_none() && included) {
            (true, _) => Verdict::Dropped,
            (false, true) => Verdict::Kept,
            (false, false) => Verdict::Perhaps,
        };
        (verdict, State { ignore, exclude, include })
    }

    /// What holds below a path of the root, and whether that path itself is ignored.
    fn enter(&self, whole: &[u8]) -> (bool, State) {
        let mut state = State::default();
        let mut ignored = false;
        for (at, _) in whole.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            state.ignore = self.ignore.below(&whole[..at], &state.ignore).1;
        }
        if !whole.is_empty() {
            let (matched, below) = self.ignore.below(whole, &state.ignore);
            (ignored, state.ignore) = (matched.is_some(), below);
        }
        (ignored, state)
    }
}

/// Directories kept open on the way down. Deeper ones are opened again when they are gone on with.
const MAX_OPEN: usize = 64;

/// A directory on the way: what is still to be seen of it.
struct Frame {
    entries: std::vec::IntoIter<(CString, Stat)>,
    dir: Option<OwnedFd>,
    state: State,
    /// Lengths of its paths.
    whole: usize,
    path: usize,
    /// Where it is among the entries, if it goes should nothing in it count.
    perhaps: Option<usize>,
}

/// Everything below the directory `start` (a path of the root without links) that counts, and that directory first. Directories come before
/// what is in them, names in byte order. Nothing if that directory is ignored and nothing in it is not.
///
/// # Errors
/// What cannot be read, and more than is reasonable.
pub fn walk(root: BorrowedFd<'_>, start: &[u8], filter: &Filter<'_>) -> Result<Vec<Entry>> {
    let dir = open_dir(root, start).map_err(|error| failed("open", start, error))?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| failed("look at", start, error))?;
    let (ignored, state) = filter.enter(start);
    let mut walk = Walk { root, filter, whole: start.to_vec(), path: Vec::new(), found: Vec::new() };
    walk.found.push(Entry {
        path: Box::default(),
        kind: Some(ItemKind::Directory),
        facts: Facts::of(&stat),
        link: Box::default(),
    });
    let mut frames = vec![walk.open(dir, state, ignored.then_some(0))?];
    while let Some(frame) = frames.last_mut() {
        let Some((name, stat)) = frame.entries.next() else {
            if let Some(perhaps) = frame.perhaps
                && walk.found.len() == perhaps + 1
            {
                walk.found.pop();
            }
            frames.pop();
            continue;
        };
        walk.whole.truncate(frame.whole);
        walk.path.truncate(frame.path);
        if let Some(below) = walk.see(frame, &name, &stat)? {
            frames.push(below);
            if frames.len() > MAX_OPEN {
                let above = frames.len() - 2;
                frames[above].dir = None;
            }
        }
    }
    Ok(walk.found)
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    filter: &'a Filter<'a>,
    whole: Vec<u8>,
    path: Vec<u8>,
    found: Vec<Entry>,
}

impl Walk<'_> {
    fn open(&self, dir: OwnedFd, state: State, perhaps: Option<usize>) -> Result<Frame> {
        let entries = list(&dir).map_err(|error| failed("read the directory", &self.whole, error))?;
        Ok(Frame {
            entries: entries.into_iter(),
            dir: Some(dir),
            state,
            whole: self.whole.len(),
            path: self.path.len(),
            perhaps,
        })
    }

    /// Takes what has a name in a directory; gives the directory to go on with, if it is one.
    fn see(&mut self, frame: &mut Frame, name: &CString, stat: &Stat) -> Result<Option<Frame>> {
        let dir = match frame.dir.take() {
            Some(dir) => dir,
            None => open_dir(self.root, &self.whole).map_err(|error| failed("open", &self.whole, error))?,
        };
        let dir = frame.dir.insert(dir);
        push(&mut self.whole, name.to_bytes())?;
        push(&mut self.path, name.to_bytes())?;
        let kind = kind_of(stat);
        let (verdict, state) = match kind {
            _ if self.filter.is_open() => (Verdict::Kept, State::default()),
            Some(ItemKind::Directory) => self.filter.directory(&self.whole, &self.path, &frame.state),
            _ if self.filter.file(&self.whole, &self.path, &frame.state) => (Verdict::Kept, State::default()),
            _ => return Ok(None),
        };
        let perhaps = match verdict {
            Verdict::Dropped => return Ok(None),
            Verdict::Kept => None,
            Verdict::Perhaps => Some(self.found.len()),
        };
        let link = match kind {
            Some(ItemKind::Symlink) => match readlinkat(&*dir, name.as_c_str(), Vec::new()) {
                Ok(link) => link.into_bytes(),
                Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
                Err(error) => return Err(failed("read", &self.whole, error)),
            },
            _ => Vec::new(),
        };
        if self.found.len() >= MAX_ENTRIES {
            return Err(Fault::input(format!("there are more than {MAX_ENTRIES} files")));
        }
        self.found.push(Entry {
            path: self.path.as_slice().into(),
            kind,
            facts: Facts::of(stat),
            link: link.into(),
        });
        if kind != Some(ItemKind::Directory) {
            return Ok(None);
        }
        match sys::fs::open_dir(&*dir, name.as_c_str()) {
            Ok(dir) => self.open(dir, state, perhaps).map(Some),
            // It was there a moment ago.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                self.found.pop();
                Ok(None)
            }
            Err(error) => Err(failed("open", &self.whole, error)),
        }
    }
}

/// What is in a directory, by name.
fn list(dir: &OwnedFd) -> rustix::io::Result<Vec<(CString, Stat)>> {
    let mut found = Vec::new();
    for name in rootfs::names(dir)? {
        match statat(dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => found.push((name, stat)),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}
