//! What was chosen, written into a root.

mod destination;
mod unpack;

use crate::Chmod;
use crate::content::{Known, attributes};
use crate::files::{Bytes, reopen};
use crate::resolve::Opener;
use crate::select::{Pick, Selection};
use crate::walk::{Entry, Facts};
use destination::{Destination, Place};
use fault::{Explain, Fault, Result};
use layer::pack::Member;
use layer::scan::Xattr;
use layer::{ItemKind, Time};
use rootfs::{Content, Manner, Placer, Sink, failed, show};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, fstat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;

/// Whose the files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// As chosen: a local context's are root's, those of stages and images keep theirs, archives' too.
    #[default]
    Keep,
    /// Directories made on the way, too.
    To { uid: u32, gid: u32 },
}

/// When they were modified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    #[default]
    Keep,
    /// Seconds since 1970 for everything that is written or made (`SOURCE_DATE_EPOCH`).
    At(i64),
}

impl Times {
    fn of(self, mtime: Time) -> Time {
        match self {
            Times::Keep => mtime,
            Times::At(seconds) => Time { seconds, nanoseconds: 0 },
        }
    }
}

/// Where files go, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The layer's root: an overlay, or an empty directory for `--link`. Open for reading.
    pub root: BorrowedFd<'a>,
    /// From the root on; a slash (or `/.`) at its end says that it is a directory.
    pub destination: &'a [u8],
    pub ownership: Ownership,
    pub chmod: Option<&'a Chmod>,
    pub times: Times,
    /// ADD: files that are archives are unpacked into the destination.
    pub unpack: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files, directories and all else.
    pub files: u64,
    pub bytes: u64,
    /// Archives that were unpacked.
    pub unpacked: u64,
    /// What is not copied: sockets; devices, where they cannot be made. With the first of them.
    pub skipped: u64,
    pub example: Option<String>,
    /// Files that were not any more what the selection's digest says: what was written must not be kept under it.
    pub changed: Vec<String>,
}

impl Selection {
    /// Puts the files into a root, by docker's rules of where they go. Nothing outside of it is touched, wherever links in it lead.
    ///
    /// # Errors
    /// [`fault::Kind::Conflict`] for a file where a directory is and a directory where a file is; what the system says.
    pub fn write(&self, target: &Target<'_>) -> Result<Written> {
        if let (Ownership::To { .. }, false) = (target.ownership, may_chown()) {
            return Err(Fault::denied("only root may give files away")
                .hint("as an ordinary user, build in a user namespace or without --chown"));
        }
        if let Ownership::To { uid: u32::MAX, .. } | Ownership::To { gid: u32::MAX, .. } = target.ownership {
            // To chown(2) it means that nothing is to be changed.
            return Err(Fault::input(format!("{} is nobody's id", u32::MAX)));
        }
        let destination = Destination::new(target);
        let mut writer = Writer { selection: self, target, destination, written: Written::default() };
        let mut is_taken = false;
        for (number, pick) in self.picks.iter().enumerate() {
            writer.pick(number, pick, &mut is_taken)?;
        }
        writer.destination.finish()?;
        Ok(writer.written)
    }
}

/// In a user namespace its root counts.
fn may_chown() -> bool {
    rustix::process::geteuid().is_root()
}

fn manner() -> Manner<'static> {
    let privileged = may_chown();
    Manner { owners: privileged, xattrs: true, devices: privileged, set_id: true, ..Manner::default() }
}

struct Writer<'a> {
    selection: &'a Selection,
    target: &'a Target<'a>,
    destination: Destination<'a>,
    written: Written,
}

impl Writer<'_> {
    /// `is_taken`: a file of this selection has the destination's own name.
    fn pick(&mut self, number: usize, pick: &Pick, is_taken: &mut bool) -> Result<()> {
        let Some(top) = pick.entries.first() else { return Ok(()) };
        let known = self.selection.read.get().map(|read| read[number].as_slice());
        if self.target.unpack && top.kind == Some(ItemKind::File) && self.unpack(pick, known)? {
            return Ok(());
        }
        match self.destination.of(pick)? {
            Place::Directory(dir) => self.tree(pick, known, dir, top),
            Place::Inside(dir) => self.single(pick, known, dir, &pick.name),
            Place::Name(dir, name) => {
                if std::mem::replace(is_taken, true) {
                    let shown = show(self.target.destination);
                    return Err(Fault::conflict(format!(
                        "several files go to {shown}, which is no directory: the last would replace the others"
                    ))
                    .hint(format!("a directory is made if it ends in a slash: {shown}/")));
                }
                self.single(pick, known, dir, &name)
            }
        }
    }

    /// A directory's contents.
    fn tree(&mut self, pick: &Pick, known: Option<&[Known]>, dir: OwnedFd, top: &Entry) -> Result<()> {
        let again = dir.try_clone().explain(|| "open the destination".into())?;
        let mut placer = Placer::new(dir, manner());
        let mut source = Source::of(self.selection, pick, known);
        for number in 1..pick.entries.len() {
            self.entry(&mut source, number, &pick.entries[number].path, &mut placer)?;
        }
        self.done(placer)?;
        self.destination.date(&again, self.target.times.of(top.facts.mtime))
    }

    fn single(&mut self, pick: &Pick, known: Option<&[Known]>, dir: OwnedFd, name: &[u8]) -> Result<()> {
        let mut placer = Placer::new(dir, manner());
        let mut source = Source::of(self.selection, pick, known);
        self.entry(&mut source, 0, name, &mut placer)?;
        self.done(placer)
    }

    fn done(&mut self, placer: Placer<'_>) -> Result<()> {
        let tally = placer.finish()?;
        self.written.files += tally.files;
        self.written.bytes += tally.bytes;
        self.written.skipped += tally.skipped;
        if self.written.example.is_none() {
            self.written.example = tally.example;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        source: &mut Source<'_>,
        number: usize,
        path: &[u8],
        placer: &mut Placer<'_>,
    ) -> Result<()> {
        let entry = &source.pick.entries[number];
        let Some(kind) = entry.kind else {
            placer.tally.skip(path);
            return Ok(());
        };
        let open = source.open(number)?;
        if open.has_changed {
            self.written.changed.push(show(&source.pick.whole(entry)));
        }
        let facts = open.facts;
        let (uid, gid) = self.owner(&facts);
        let mode = match self.target.chmod {
            Some(chmod) if kind != ItemKind::Symlink => chmod.apply(facts.mode, kind == ItemKind::Directory),
            _ => facts.mode,
        };
        let member = Member {
            kind,
            path,
            link: &entry.link,
            mode,
            uid,
            gid,
            size: if kind == ItemKind::File { facts.size } else { 0 },
            mtime: self.target.times.of(facts.mtime),
            device: facts.number,
            xattrs: &open.xattrs,
        };
        if kind == ItemKind::File && facts.links > 1 {
            let inode = (facts.device, facts.inode);
            if let Some(first) = source.links.get(&inode) {
                let link = Member { kind: ItemKind::HardLink, link: first, size: 0, xattrs: &[], ..member };
                return placer.add(&link, Content::Nothing);
            }
            source.links.insert(inode, path.into());
        }
        let mut given: &[u8] = match source.pick.given.as_ref().map(|given| &given.bytes) {
            Some(Bytes::Here(bytes)) => bytes,
            _ => &[],
        };
        let content = match &open.file {
            Some(file) if kind == ItemKind::File => Content::File(file),
            None if kind == ItemKind::File => Content::Stream(&mut given, None),
            _ => Content::Nothing,
        };
        placer.add(&member, content)
    }

    fn owner(&self, facts: &Facts) -> (u32, u32) {
        match self.target.ownership {
            Ownership::To { uid, gid } => (uid, gid),
            Ownership::Keep if self.selection.place.as_ref().is_some_and(|inner| !inner.is_local) => {
                (facts.uid, facts.gid)
            }
            Ownership::Keep => (0, 0),
        }
    }
}

/// The files of one pick, opened one after the other.
struct Source<'a> {
    pick: &'a Pick,
    known: Option<&'a [Known]>,
    opener: Option<Opener<'a>>,
    /// First names of files that have several.
    links: HashMap<(u64, u64), Box<[u8]>>,
}

struct Opened {
    facts: Facts,
    xattrs: Vec<Xattr>,
    /// A regular file.
    file: Option<File>,
    has_changed: bool,
}

impl<'a> Source<'a> {
    fn of(selection: &'a Selection, pick: &'a Pick, known: Option<&'a [Known]>) -> Source<'a> {
        let opener = selection.place.as_ref().map(|inner| Opener::new(inner.root.as_fd()));
        Source { pick, known, opener, links: HashMap::new() }
    }

    /// What an entry is now.
    fn open(&mut self, number: usize) -> Result<Opened> {
        let entry = &self.pick.entries[number];
        let mut opened = Opened { facts: entry.facts, xattrs: Vec::new(), file: None, has_changed: false };
        let flags = match entry.kind {
            Some(ItemKind::File) => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
            Some(ItemKind::Directory) => OFlags::RDONLY | OFlags::DIRECTORY,
            _ => return Ok(opened),
        };
        let Some(opener) = &mut self.opener else {
            if let Some(Bytes::File(file, ..)) = self.pick.given.as_ref().map(|given| &given.bytes) {
                opened.file = Some(reopen(file)?);
            }
            return Ok(opened);
        };
        let path = self.pick.whole(entry);
        let fd = opener.open(&path, flags).map_err(|error| vanished(&path, error))?;
        let stat = fstat(&fd).map_err(|error| failed("look at", &path, error))?;
        if rootfs::kind_of(&stat) != entry.kind {
            return Err(vanished(&path, Errno::NOENT));
        }
        opened.facts = Facts::of(&stat);
        opened.xattrs = attributes(fd.as_fd(), &path)?;
        let known = self.known.map(|known| known[number].facts);
        if entry.kind == Some(ItemKind::File) {
            opened.has_changed = known.is_some_and(|known| !known.is_same(&opened.facts));
            opened.file = Some(fd.into());
        } else {
            let rights = |facts: &Facts| (facts.mode, facts.uid, facts.gid);
            opened.has_changed = known.is_some_and(|known| rights(&known) != rights(&opened.facts));
        }
        Ok(opened)
    }
}

fn vanished(path: &[u8], error: Errno) -> Fault {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO => {
            Fault::conflict(format!("{} became something else while it was copied", show(path)))
                .hint("build again when nothing writes to the context")
        }
        error => failed("open", path, error),
    }
}
