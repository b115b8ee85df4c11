//! What a container has changed against its image: its read-write layer (overlayfs' upper directory) beside the layers below it. Of a build's
//! steps: several such layers at once, as one.
//!
//! The marks are those of the kernel's documentation, `filesystems/overlayfs.rst`: a character device 0:0 is a whiteout, a directory with the
//! attribute `trusted.overlay.opaque` = `y` hides all that is below it.

use crate::look::{
    Content, Looked, MAX_PATH, failed, kind_of, names, open_at, open_listed, overlay_mark, push, show,
};
use fault::{Explain, Fault, Kind, Result};
use layer::ItemKind;
use layer::pack::Member;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, openat};
use rustix::io::Errno;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use store::ContainerDir;

const CHUNK: usize = 64 << 10;

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    /// Of a directory also: something in it was changed.
    Modified,
    /// In the read-write layer as it is below: opened for writing, and left as it was. Visitors are told of those alone that are in the place of
    /// what an opaque directory hides: without them it would be gone.
    Kept,
}

/// Takes the changes, a directory before what is in it, names in byte order. Paths have no slash in front.
pub trait Visitor {
    /// # Errors
    /// What ends it; so with the others.
    fn there(&mut self, change: Change, member: &Member<'_>, content: Content<'_>) -> Result<()>;
    /// Is not there any more. `hidden`: by an opaque directory, of which [`Visitor::opaque`] has told.
    fn deleted(&mut self, path: &[u8], hidden: bool) -> Result<()>;
    /// The directory hides all that lower layers have in it.
    fn opaque(&mut self, path: &[u8]) -> Result<()>;
}

/// A container's read-write layer.
#[derive(Debug)]
pub struct Changes {
    /// Topmost first; a container has one.
    uppers: Vec<Upper>,
    lower: OwnedFd,
    /// Paths something is mounted on. What is there but for that was made for it.
    mounted_on: HashSet<Vec<u8>>,
    /// The directories above those.
    above_mounts: HashSet<Vec<u8>>,
}

/// An upper directory.
#[derive(Debug)]
pub struct Upper {
    root: OwnedFd,
    /// The directories the layer made of it has; `None`: all that are in it.
    told: Option<HashSet<Vec<u8>>>,
}

struct Frame {
    /// The directories that are one here, topmost first, each with its place among [`Changes::uppers`].
    uppers: Vec<(usize, OwnedFd)>,
    lower: Option<OwnedFd>,
    names: std::collections::btree_map::IntoIter<CString, Side>,
    length: usize,
    /// Not told yet: it is only if something in it is.
    pending: Option<(Change, Looked)>,
    /// Nothing of the layers below is seen in it, by its own mark or that of a directory it is in.
    opaque: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Upper,
    Lower,
}

impl Changes {
    /// Of a container, whatever it is doing.
    ///
    /// # Errors
    /// [`Kind::Conflict`] for a container whose root is a plain directory: there is nothing to compare it with.
    pub fn of(dir: &ContainerDir) -> Result<Changes> {
        let record = dir.load()?;
        let rootfs = record.rootfs()?.ok_or_else(|| Fault::input("the container has no rootfs section"))?;
        if rootfs.driver != "overlay" {
            return Err(Fault::conflict(
                "its root file system is a plain directory: nothing tells what was changed in it",
            ));
        }
        let lower: Vec<PathBuf> = rootfs.layers.iter().map(PathBuf::from).collect();
        let lower = match lower.as_slice() {
            [] => return Err(Fault::input("rootfs.layers is empty")),
            // Overlayfs wants two.
            [only] => open_dir(only).map_err(|fault| fault.hint("img-unpack makes it again"))?,
            _ => sys::overlay::mount(&lower, None)?,
        };
        let upper = open_dir(&dir.bundle.join("upper"))?;
        let mounted_on = mounted_on(dir)?;
        let mut above_mounts = HashSet::new();
        for path in &mounted_on {
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            above_mounts.extend(ends.map(|end| path[..end].to_vec()));
        }
        Ok(Changes { uppers: vec![Upper::new(upper)], lower, mounted_on, above_mounts })
    }

    /// Of an upper directory on which nothing was mounted, against the root below it.
    pub fn between(lower: OwnedFd, upper: OwnedFd) -> Changes {
        Changes::merged(lower, vec![Upper::new(upper)])
    }

    /// Of several such directories, lowest first, each made on top of those before it: what all of them come to.
    pub fn merged(lower: OwnedFd, mut uppers: Vec<Upper>) -> Changes {
        uppers.reverse();
        Changes { uppers, lower, mounted_on: HashSet::new(), above_mounts: HashSet::new() }
    }

    /// Tells a visitor of all of them. What goes away meanwhile is left out.
    ///
    /// # Errors
    /// What cannot be read, and what the visitor says.
    pub fn visit(&self, visitor: &mut dyn Visitor) -> Result<()> {
        let mut walk =
            Walk { changes: self, visitor, path: Vec::new(), frames: Vec::new(), links: HashMap::new() };
        walk.root()?;
        while let Some(frame) = walk.frames.last_mut() {
            let length = frame.length;
            walk.path.truncate(length);
            match frame.names.next() {
                Some((name, side)) => {
                    push(&mut walk.path, name.to_bytes())?;
                    walk.entry(&name, side)?;
                }
                None => walk.leave()?,
            }
        }
        Ok(())
    }
}

impl Upper {
    /// One of which everything counts.
    pub fn new(root: OwnedFd) -> Upper {
        Upper { root, told: None }
    }

    /// One that was written to on top of `lower`. Directories in it that its own layer would not have, as they are what they were below,
    /// do not count for what is seen of them: their times may be other ones.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn on(lower: OwnedFd, root: OwnedFd) -> Result<Upper> {
        let changes = Changes::between(lower, root);
        let mut told = Directories::default();
        changes.visit(&mut told)?;
        let root = changes.uppers.into_iter().next().map(|upper| upper.root);
        let root = root.ok_or_else(|| Fault::failed("there is no upper directory"))?;
        Ok(Upper { root, told: Some(told.0) })
    }

    fn tells(&self, path: &[u8]) -> bool {
        self.told.as_ref().is_none_or(|told| told.contains(path))
    }
}

/// Notes the directories that are told of.
#[derive(Default)]
struct Directories(HashSet<Vec<u8>>);

impl Visitor for Directories {
    fn there(&mut self, _: Change, member: &Member<'_>, _: Content<'_>) -> Result<()> {
        if member.kind == ItemKind::Directory {
            self.0.insert(member.path.to_vec());
        }
        Ok(())
    }

    fn deleted(&mut self, _: &[u8], _: bool) -> Result<()> {
        Ok(())
    }

    fn opaque(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }
}

fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(|error| {
        let kind = if error == Errno::NOENT { Kind::NotFound } else { Kind::Failed };
        Fault::new(kind, format!("open {}", path.display())).because(std::io::Error::from(error))
    })
}

/// Where the specification mounts something, devices included; `/dev/pts` and the like are in a `/dev` that is a mount itself.
fn mounted_on(dir: &ContainerDir) -> Result<HashSet<Vec<u8>>> {
    let path = dir.bundle.join("config.json");
    let Some(content) = store::atomic::read(&path)? else { return Ok(HashSet::new()) };
    let spec: Value =
        serde_json::from_slice(&content).explain_as(Kind::Input, || format!("read {}", path.display()))?;
    let mut found = HashSet::new();
    for mount in spec["mounts"].as_array().into_iter().flatten() {
        let mut clean = Vec::new();
        if let Some(target) = mount["destination"].as_str()
            && target.len() <= MAX_PATH
            && layer::archive::clean(target.as_bytes(), &mut clean).is_ok()
            && !clean.is_empty()
        {
            found.insert(clean);
        }
    }
    Ok(found)
}

struct Walk<'a, 'v> {
    changes: &'a Changes,
    visitor: &'v mut dyn Visitor,
    path: Vec<u8>,
    frames: Vec<Frame>,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Box<[u8]>>,
}

/// What the layers below have at a path.
struct Below {
    stat: Stat,
    fd: OwnedFd,
}

impl Walk<'_, '_> {
    fn root(&mut self) -> Result<()> {
        let open = |dir: &OwnedFd| open_listed(dir).map_err(|error| failed("open", b"", error));
        let uppers = self.changes.uppers.iter().map(|upper| open(&upper.root));
        let uppers = uppers.enumerate().map(|(place, upper)| Ok((place, upper?))).collect::<Result<_>>()?;
        let lower = open(&self.changes.lower)?;
        self.push(uppers, Some(lower), None, false)
    }

    /// Goes into a directory. An opaque one has the names below that are gone, too. `cut`: what is below was taken away before it was made.
    fn push(
        &mut self,
        mut uppers: Vec<(usize, OwnedFd)>,
        lower: Option<OwnedFd>,
        pending: Option<(Change, Looked)>,
        cut: bool,
    ) -> Result<()> {
        let path = &self.path;
        let read = |error| failed("read the directory", path, error);
        let mut marked = cut;
        for place in 0..uppers.len() {
            let value = overlay_mark(uppers[place].1.as_fd(), layer::opaque_attribute(true)).map_err(read)?;
            if value.is_some_and(|value| value == b"y") {
                marked = true;
                uppers.truncate(place + 1);
                break;
            }
        }
        let within = self.frames.last().is_some_and(|frame| frame.opaque);
        let mut all = BTreeMap::new();
        for (_, upper) in &uppers {
            all.extend(names(upper).map_err(read)?.into_iter().map(|name| (name, Side::Upper)));
        }
        if let Some(lower) = lower.as_ref().filter(|_| marked || within) {
            for name in names(lower).map_err(read)? {
                all.entry(name).or_insert(Side::Lower);
            }
        }
        // The mark itself is nothing: an added directory hides what is not there.
        let hides = marked && !within && lower.is_some();
        self.frames.push(Frame {
            uppers,
            lower,
            names: all.into_iter(),
            length: self.path.len(),
            pending,
            opaque: marked || within,
        });
        if hides {
            self.flush()?;
            self.visitor.opaque(&self.path)?;
        }
        Ok(())
    }

    /// Tells of the directories on the way that were not told of yet.
    fn flush(&mut self) -> Result<()> {
        for frame in &mut self.frames {
            if let Some((change, looked)) = frame.pending.take()
                && let Some(member) = looked.member(&self.path[..frame.length])
            {
                let change = if change == Change::Kept { Change::Modified } else { change };
                self.visitor.there(change, &member, Content::Nothing)?;
            }
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let path = &self.path[..frame.length];
        match frame.pending {
            // A directory that was added and has nothing in it but what was made for mounts was made for these.
            Some((Change::Added, _)) if self.is_for_mounts(path) => Ok(()),
            // In use as it is below, or nothing in it was changed.
            Some((Change::Kept, _)) | None => Ok(()),
            Some((change, looked)) => {
                let path = path.to_vec();
                self.flush()?;
                match looked.member(&path) {
                    Some(member) => self.visitor.there(change, &member, Content::Nothing),
                    None => Ok(()),
                }
            }
        }
    }

    fn is_for_mounts(&self, path: &[u8]) -> bool {
        self.changes.mounted_on.contains(path) || self.changes.above_mounts.contains(path)
    }

    /// What lower layers have at a name of the present directory. A single lower layer has whiteouts of its own, which hide nothing.
    fn below(&self, name: &CStr) -> Result<Option<Below>> {
        let Some(frame) = self.frames.last() else { return Ok(None) };
        let Some(lower) = &frame.lower else { return Ok(None) };
        let open = || {
            let fd = open_at(lower, name)?;
            let stat = rustix::fs::fstat(&fd)?;
            Ok(Below { stat, fd })
        };
        match open() {
            Ok(below) if is_whiteout(&below.stat) => Ok(None),
            Ok(below) => Ok(Some(below)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG) => Ok(None),
            Err(error) => Err(failed("look at", &self.path, error)),
        }
    }

    fn entry(&mut self, name: &CStr, side: Side) -> Result<()> {
        let below = self.below(name)?;
        if side == Side::Lower {
            if below.is_some() {
                self.flush()?;
                self.visitor.deleted(&self.path, true)?;
            }
            return Ok(());
        }
        let Some((nth, fd)) = self.topmost(name)? else { return Ok(()) };
        let hidden = self.is_hidden();
        let looked = match Looked::at(fd.as_fd()) {
            Err(Errno::NOENT | Errno::STALE) => return Ok(()),
            other => other.map_err(|error| failed("read", &self.path, error))?,
        };
        if is_whiteout(&looked.stat) {
            if below.is_some() {
                self.flush()?;
                self.visitor.deleted(&self.path, hidden)?;
            }
            return Ok(());
        }
        let Some(kind) = looked.kind else { return Ok(()) };
        self.check_whole(&fd, kind)?;
        let change = match &below {
            None => Change::Added,
            Some(below) => self.compare(&looked, below)?,
        };
        if kind == ItemKind::Directory {
            let (uppers, cut) = self.directories(nth, &fd, name)?;
            if uppers.is_empty() {
                return Ok(());
            }
            let looked = self.telling(&uppers)?.unwrap_or(looked);
            return self.directory(uppers, looked, below, change, cut);
        }
        self.file(&looked, change)
    }

    /// Whether what is below the present directory is not seen in it.
    fn is_hidden(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.opaque)
    }

    /// What is seen of directories that are one: the topmost that counts, if that is not the topmost.
    fn telling(&self, uppers: &[(usize, OwnedFd)]) -> Result<Option<Looked>> {
        let tells = |(place, _): &&(usize, OwnedFd)| {
            self.changes.uppers.get(*place).is_some_and(|upper| upper.tells(&self.path))
        };
        match uppers.iter().find(tells) {
            Some((place, fd)) if uppers.first().is_some_and(|(first, _)| first != place) => {
                Looked::at(fd.as_fd()).map(Some).map_err(|error| failed("read", &self.path, error))
            }
            _ => Ok(None),
        }
    }

    /// What has a name in the topmost of the present directories that has it, and which of them that is.
    fn topmost(&self, name: &CStr) -> Result<Option<(usize, OwnedFd)>> {
        let Some(frame) = self.frames.last() else { return Ok(None) };
        for (nth, (_, upper)) in frame.uppers.iter().enumerate() {
            match open_at(upper, name) {
                Ok(fd) => return Ok(Some((nth, fd))),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("open", &self.path, error)),
            }
        }
        Ok(None)
    }

    /// The directories that are one with `top`, which is in the `nth`, itself first. Also whether they end because there was something
    /// else, or nothing any more: nothing of the layers below them is seen then. None of them: it went away.
    fn directories(&self, nth: usize, top: &OwnedFd, name: &CStr) -> Result<(Vec<(usize, OwnedFd)>, bool)> {
        let mut uppers = self.frames.last().into_iter().flat_map(|frame| &frame.uppers).skip(nth);
        let Some((place, _)) = uppers.next() else { return Ok((Vec::new(), false)) };
        let mut found = match open_listed(top) {
            Err(Errno::NOENT) => return Ok((Vec::new(), false)),
            other => vec![(*place, other.map_err(|error| failed("open", &self.path, error))?)],
        };
        for (place, upper) in uppers {
            let read = |error| failed("open", &self.path, error);
            let fd = match open_at(upper, name) {
                Err(Errno::NOENT) => continue,
                other => other.map_err(read)?,
            };
            let stat = rustix::fs::fstat(&fd).map_err(read)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok((found, true));
            }
            self.check_whole(&fd, ItemKind::Directory)?;
            found.push((*place, open_listed(&fd).map_err(read)?));
        }
        Ok((found, false))
    }

    /// What has an overlay's redirection, or only metadata, is not itself here: its content is somewhere else.
    fn check_whole(&self, fd: &OwnedFd, kind: ItemKind) -> Result<()> {
        let marks: &[&str] = match kind {
            ItemKind::Directory => &["trusted.overlay.redirect"],
            ItemKind::File => &["trusted.overlay.metacopy"],
            _ => &[],
        };
        for mark in marks {
            let found = overlay_mark(fd.as_fd(), mark).map_err(|error| failed("read", &self.path, error))?;
            if found.is_some() {
                return Err(Fault::failed(format!(
                    "{} was redirected by the kernel, which only it can follow",
                    show(&self.path)
                ))
                .hint(
                    "turn the overlay module's redirect_dir and metacopy off, and make the container again",
                ));
            }
        }
        Ok(())
    }

    fn directory(
        &mut self,
        uppers: Vec<(usize, OwnedFd)>,
        looked: Looked,
        below: Option<Below>,
        change: Change,
        cut: bool,
    ) -> Result<()> {
        let is_dir = |below: &Below| FileType::from_raw_mode(below.stat.st_mode) == FileType::Directory;
        let lower = match below.filter(is_dir) {
            Some(below) => Some(open_listed(&below.fd).map_err(|error| failed("open", &self.path, error))?),
            None => None,
        };
        let is_kept = change == Change::Kept;
        let later =
            (is_kept && !self.is_hidden()) || (change == Change::Added && self.is_for_mounts(&self.path));
        if later {
            return self.push(uppers, lower, Some((change, looked)), cut);
        }
        self.flush()?;
        if let Some(member) = looked.member(&self.path) {
            // It is another one, in the place of the one that is hidden.
            let change = if is_kept { Change::Modified } else { change };
            self.visitor.there(change, &member, Content::Nothing)?;
        }
        self.push(uppers, lower, None, cut)
    }

    fn file(&mut self, looked: &Looked, change: Change) -> Result<()> {
        let made_for_a_mount = change == Change::Added
            && looked.kind == Some(ItemKind::File)
            && looked.stat.st_size == 0
            && self.changes.mounted_on.contains(&self.path);
        if made_for_a_mount || (change == Change::Kept && !self.is_hidden()) {
            return Ok(());
        }
        self.flush()?;
        let Some(member) = looked.member(&self.path) else { return Ok(()) };
        if looked.stat.st_nlink > 1 {
            let inode = (looked.stat.st_dev, looked.stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let link = Member { kind: ItemKind::HardLink, link: first, size: 0, xattrs: &[], ..member };
                return self.visitor.there(change, &link, Content::Nothing);
            }
            self.links.insert(inode, self.path.clone().into());
        }
        self.visitor.there(change, &member, looked.content())
    }

    /// Times and sizes of directories say nothing: they change with what is in them.
    fn compare(&self, looked: &Looked, below: &Below) -> Result<Change> {
        let (new, old) = (&looked.stat, &below.stat);
        let read = |error| failed("read", &self.path, error);
        if new.st_mode != old.st_mode || (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid) {
            return Ok(Change::Modified);
        }
        let is_dir = kind_of(new) == Some(ItemKind::Directory);
        if !is_dir {
            let mtime = |stat: &Stat| (stat.st_mtime, stat.st_mtime_nsec);
            if mtime(new) != mtime(old) || new.st_size != old.st_size || new.st_rdev != old.st_rdev {
                return Ok(Change::Modified);
            }
            // A name more in this layer is a link to what is in it, too.
            if new.st_nlink > 1 && new.st_nlink != old.st_nlink {
                return Ok(Change::Modified);
            }
        }
        let old = Looked::at(below.fd.as_fd()).map_err(read)?;
        let same = looked.xattrs == old.xattrs
            && looked.link == old.link
            && match (&looked.file, &old.file) {
                (Some(new), Some(old)) => {
                    same_content(new, old).explain(|| format!("read {}", show(&self.path)))?
                }
                _ => true,
            };
        Ok(if same { Change::Kept } else { Change::Modified })
    }
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Byte by byte: whoever changes a file can set its times back.
fn same_content(one: &File, other: &File) -> std::io::Result<bool> {
    let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut at = 0;
    loop {
        let length = one.read_at(&mut a, at)?;
        if length == 0 {
            return Ok(other.read_at(&mut b, at)? == 0);
        }
        let same = other.read_exact_at(&mut b[..length], at);
        match same {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        }
        if a[..length] != b[..length] {
            return Ok(false);
        }
        at += length as u64;
    }
}
