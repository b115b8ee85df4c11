//! Where things go: docker's rules, and the directories made on the way.

use super::{Ownership, Target, Times};
use crate::resolve::{Resolved, open_dir, push, resolve, split};
use crate::select::Pick;
use fault::{Fault, Result};
use layer::Time;
use rootfs::{failed, show};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    FileType, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, fchmod, fchown, futimens, mkdirat,
};
use rustix::io::Errno;

/// Where one pick goes.
pub enum Place {
    /// A directory's contents go into this one.
    Directory(OwnedFd),
    /// A file goes in here, by its own name.
    Inside(OwnedFd),
    /// A file goes in here, by this name.
    Name(OwnedFd, Vec<u8>),
}

pub struct Destination<'a> {
    target: &'a Target<'a>,
    /// Ends in a slash.
    is_directory: bool,
    /// Directories that were made, outermost first; dated when all is in them.
    made: Vec<OwnedFd>,
}

impl Destination<'_> {
    pub fn new<'a>(target: &'a Target<'a>) -> Destination<'a> {
        let path = target.destination;
        let is_directory = path.is_empty() || path == b"." || path.ends_with(b"/") || path.ends_with(b"/.");
        Destination { target, is_directory, made: Vec::new() }
    }

    pub fn of(&mut self, pick: &Pick) -> Result<Place> {
        if pick.is_directory() {
            return self.directory().map(Place::Directory);
        }
        let found = self.resolve()?;
        if self.is_directory || found.kind == Some(FileType::Directory) {
            return self.make_all(found).map(Place::Inside);
        }
        if found.kind.is_some() {
            let (dir, name) = split(&found.path);
            let dir = open_dir(self.target.root, dir).map_err(|error| failed("open", dir, error))?;
            return Ok(Place::Name(dir, name.to_vec()));
        }
        let mut found = found;
        // A path something is missing of has a name for it.
        let name = found.missing.pop().unwrap_or_default();
        if name == b".." {
            return Err(self.conflict("leads up from a directory that is not there"));
        }
        self.make_all(found).map(|dir| Place::Name(dir, name))
    }

    /// The destination as a directory, made if it is not there.
    pub fn directory(&mut self) -> Result<OwnedFd> {
        let found = self.resolve()?;
        self.make_all(found)
    }

    fn resolve(&self) -> Result<Resolved> {
        // By its text first, as docker does: `/no/such/../x` is `/x`.
        let path = crate::ignore::rules::clean(&[b"/", self.target.destination].concat());
        let found =
            resolve(self.target.root, &path).map_err(|fault| fault.on(show(self.target.destination)))?;
        if found.is_blocked {
            return Err(self.conflict(&format!("leads through {}, which is no directory", show(&found.path))));
        }
        Ok(found)
    }

    fn conflict(&self, what: &str) -> Fault {
        Fault::conflict(format!("the destination {} {what}", show(self.target.destination)))
    }

    fn make_all(&mut self, found: Resolved) -> Result<OwnedFd> {
        if found.kind.is_some_and(|kind| kind != FileType::Directory) {
            return Err(self.conflict("is there and no directory, but one is needed"));
        }
        let mut path = found.path;
        let mut dir = open_dir(self.target.root, &path).map_err(|error| failed("open", &path, error))?;
        for name in &found.missing {
            if name == b".." {
                return Err(self.conflict("leads up from a directory that is not there"));
            }
            push(&mut path, name)?;
            dir = self.make(&dir, name, &path)?;
        }
        Ok(dir)
    }

    fn make(&mut self, dir: &OwnedFd, name: &[u8], path: &[u8]) -> Result<OwnedFd> {
        let mode = Mode::from_raw_mode(self.target.chmod.map_or(0o755, crate::Chmod::of_new_directory));
        match mkdirat(dir, name, Mode::RWXU) {
            // Somebody else was faster: theirs is as good.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(failed("make the directory", path, error)),
        }
        let made = sys::fs::open_dir(dir, name).map_err(|error| failed("open", path, error))?;
        if let Ownership::To { uid, gid } = self.target.ownership {
            fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|error| failed("set the owner of", path, error))?;
        }
        fchmod(&made, mode).map_err(|error| failed("set the mode of", path, error))?;
        if let Times::At(_) = self.target.times {
            let again =
                made.try_clone().map_err(|error| Fault::failed("open the destination").because(error))?;
            self.made.push(again);
        }
        Ok(made)
    }

    /// Sets when a directory was modified.
    pub fn date(&self, dir: &OwnedFd, time: Time) -> Result<()> {
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
        };
        futimens(dir.as_fd(), &times)
            .map_err(|error| failed("set the times of", self.target.destination, error))
    }

    /// Now that everything is in them, directories that were made get their times.
    pub fn finish(&self) -> Result<()> {
        let Times::At(seconds) = self.target.times else { return Ok(()) };
        self.made.iter().try_for_each(|dir| self.date(dir, Time { seconds, nanoseconds: 0 }))
    }
}
