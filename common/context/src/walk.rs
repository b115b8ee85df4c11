//! Going through a tree: what is there and which of it counts.

use crate::ignore::rules::{Above, Rules};
use crate::resolve::{open_dir, push};
use fault::{Fault, Result};
use layer::{ItemKind, Time};
use rootfs::{failed, kind_of};
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Stat, readlinkat, statat};
use rustix::io::Errno;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

/// Directories waiting to be read for which another thread is worth starting.
const MANY: usize = 16;
const MAX_THREADS: usize = 4;

/// A directory that is to be read.
struct Task {
    /// Its place among the directories.
    number: usize,
    whole: Vec<u8>,
    path: Vec<u8>,
    state: State,
}

/// What was found in a directory, by name.
#[derive(Default)]
struct Listing {
    entries: Vec<Entry>,
    /// Of entries that are directories: which, the number of their own listing, and whether they go should nothing in them count.
    below: Vec<(usize, usize, bool)>,
    /// It was there a moment ago.
    is_gone: bool,
}

#[derive(Default)]
struct Shared {
    waiting: Vec<Task>,
    /// Directories that are being read.
    busy: usize,
    listings: Vec<Listing>,
    count: usize,
    failure: Option<Fault>,
}

/// Everything below the directory `start` (a path of the root without links) that counts, and that directory first. Directories come before
/// what is in them, names in byte order. Nothing if that directory is ignored and nothing in it is not.
///
/// # Errors
/// What cannot be read, and more than is reasonable.
pub fn walk(root: BorrowedFd<'_>, start: &[u8], filter: &Filter<'_>) -> Result<Vec<Entry>> {
    let dir = open_dir(root, start).map_err(|error| failed("open", start, error))?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| failed("look at", start, error))?;
    drop(dir);
    let top = Entry {
        path: Box::default(),
        kind: Some(ItemKind::Directory),
        facts: Facts::of(&stat),
        link: Box::default(),
    };
    let (ignored, state) = filter.enter(start);
    let first = Task { number: 0, whole: start.to_vec(), path: Vec::new(), state };
    let shared = Shared { waiting: vec![first], listings: vec![Listing::default()], ..Shared::default() };
    let walk = Walk { root, filter, shared: Mutex::new(shared), more: Condvar::new() };
    walk.run();
    let shared = walk.shared.into_inner().unwrap_or_else(PoisonError::into_inner);
    match shared.failure {
        Some(fault) => Err(fault),
        None => Ok(in_order(top, ignored, shared.listings)),
    }
}

struct Walk<'a> {
    root: BorrowedFd<'a>,
    filter: &'a Filter<'a>,
    shared: Mutex<Shared>,
    more: Condvar,
}

impl Walk<'_> {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads directories until there are none left; others help when there are many.
    fn run(&self) {
        std::thread::scope(|scope| {
            let mut helpers = 0;
            let most = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
            while let Some(task) = self.next() {
                self.read(task);
                while helpers + 1 < most && self.lock().waiting.len() > MANY * (helpers + 1) {
                    let help = || {
                        while let Some(task) = self.next() {
                            self.read(task);
                        }
                    };
                    // Where no thread is to be had, there is this one.
                    let _ = std::thread::Builder::new().name("walk".into()).spawn_scoped(scope, help);
                    helpers += 1;
                }
            }
        });
    }

    /// The next directory, when there is one; `None` when there will be none.
    fn next(&self) -> Option<Task> {
        let mut shared = self.lock();
        loop {
            if shared.failure.is_some() {
                return None;
            }
            if let Some(task) = shared.waiting.pop() {
                shared.busy += 1;
                return Some(task);
            }
            if shared.busy == 0 {
                return None;
            }
            shared = self.more.wait(shared).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn read(&self, task: Task) {
        let number = task.number;
        let outcome = self.list(task);
        let mut shared = self.lock();
        shared.busy -= 1;
        match outcome {
            Ok((mut listing, tasks)) => {
                // Only now it is known how many directories there are by other threads' doing.
                let base = shared.listings.len();
                for (at, below) in listing.below.iter_mut().enumerate() {
                    below.1 = base + at;
                }
                shared.count += listing.entries.len();
                let numbered =
                    tasks.into_iter().enumerate().map(|(at, task)| Task { number: base + at, ..task });
                shared.waiting.extend(numbered);
                let total = base + listing.below.len();
                shared.listings.resize_with(total, Listing::default);
                shared.listings[number] = listing;
                if shared.count > MAX_ENTRIES {
                    let fault = Fault::input(format!("there are more than {MAX_ENTRIES} files"));
                    shared.failure.get_or_insert(fault);
                }
            }
            Err(fault) => {
                shared.failure.get_or_insert(fault);
            }
        }
        drop(shared);
        self.more.notify_all();
    }

    /// What counts in a directory, and the directories to go on with.
    fn list(&self, task: Task) -> Result<(Listing, Vec<Task>)> {
        let Task { mut whole, mut path, state, .. } = task;
        let dir = match open_dir(self.root, &whole) {
            Ok(dir) => dir,
            // It was there a moment ago.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return Ok((Listing { is_gone: true, ..Listing::default() }, Vec::new()));
            }
            Err(error) => return Err(failed("open", &whole, error)),
        };
        let (mut listing, mut tasks) = (Listing::default(), Vec::new());
        let lengths = (whole.len(), path.len());
        for name in rootfs::names(&dir).map_err(|error| failed("read the directory", &whole, error))? {
            whole.truncate(lengths.0);
            path.truncate(lengths.1);
            push(&mut whole, name.to_bytes())?;
            push(&mut path, name.to_bytes())?;
            let stat = match statat(&dir, name.as_c_str(), AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed("look at", &whole, error)),
            };
            let kind = kind_of(&stat);
            let (verdict, below) = match kind {
                _ if self.filter.is_open() => (Verdict::Kept, State::default()),
                Some(ItemKind::Directory) => self.filter.directory(&whole, &path, &state),
                _ if self.filter.file(&whole, &path, &state) => (Verdict::Kept, State::default()),
                _ => continue,
            };
            if matches!(verdict, Verdict::Dropped) {
                continue;
            }
            let link = match kind {
                Some(ItemKind::Symlink) => match readlinkat(&dir, name.as_c_str(), Vec::new()) {
                    Ok(link) => link.into_bytes(),
                    Err(Errno::NOENT | Errno::INVAL) => continue,
                    Err(error) => return Err(failed("read", &whole, error)),
                },
                _ => Vec::new(),
            };
            if kind == Some(ItemKind::Directory) {
                listing.below.push((listing.entries.len(), 0, matches!(verdict, Verdict::Perhaps)));
                tasks.push(Task { number: 0, whole: whole.clone(), path: path.clone(), state: below });
            }
            listing.entries.push(Entry {
                path: path.as_slice().into(),
                kind,
                facts: Facts::of(&stat),
                link: link.into(),
            });
        }
        Ok((listing, tasks))
    }
}

/// A listing on its way into the order: what is still to come of it.
struct Frame {
    entries: std::iter::Enumerate<std::vec::IntoIter<Entry>>,
    below: std::iter::Peekable<std::vec::IntoIter<(usize, usize, bool)>>,
    /// Where its directory is, if that goes should nothing in it count.
    perhaps: Option<usize>,
}

fn in_order(top: Entry, is_perhaps: bool, mut listings: Vec<Listing>) -> Vec<Entry> {
    let mut found = vec![top];
    let frame = |listing: Listing, perhaps| Frame {
        entries: listing.entries.into_iter().enumerate(),
        below: listing.below.into_iter().peekable(),
        perhaps,
    };
    let mut frames = vec![frame(std::mem::take(&mut listings[0]), is_perhaps.then_some(0))];
    while let Some(last) = frames.last_mut() {
        let Some((at, entry)) = last.entries.next() else {
            if last.perhaps.is_some_and(|perhaps| found.len() == perhaps + 1) {
                found.pop();
            }
            frames.pop();
            continue;
        };
        let Some((_, number, is_perhaps)) = last.below.next_if(|(of, ..)| *of == at) else {
            found.push(entry);
            continue;
        };
        let listing = std::mem::take(&mut listings[number]);
        if !listing.is_gone {
            let perhaps = is_perhaps.then_some(found.len());
            found.push(entry);
            frames.push(frame(listing, perhaps));
        }
    }
    found
}
