//! Going through a tree, from a descriptor.

use crate::look::{self, Content, Looked, Sink, Tally, failed, names, open_at, open_listed};
use crate::owners::Owners;
use fault::{Fault, Result};
use layer::ItemKind;
use layer::pack::Member;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;

/// Members of one walk; each costs whoever gets them an inode.
const MAX_ENTRIES: u64 = 10_000_000;

/// How to go through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Walk<'a> {
    /// What the start is called: members' paths begin with it. Empty, it is no member itself and its entries are by their own names.
    pub name: &'a [u8],
    /// Numbers of file systems that are not gone into: the container's `/proc`, `/dev` and the like.
    pub closed: &'a [u64],
    /// Device and inode of a directory that is not to be met: where everything is copied to.
    pub destination: Option<(u64, u64)>,
    /// How owners are told; `None`: as they are seen.
    pub owners: Option<&'a Owners>,
}

struct Frame {
    dir: OwnedFd,
    names: std::vec::IntoIter<CString>,
    /// Length of its path.
    length: usize,
}

struct Walker<'a, 's> {
    walk: Walk<'a>,
    sink: &'s mut dyn Sink,
    tally: &'s mut Tally,
    path: Vec<u8>,
    frames: Vec<Frame>,
    /// The first names of files that have several.
    links: HashMap<(u64, u64), Box<[u8]>>,
}

/// Hands what is at `start` (`O_PATH`), and all below it, to `sink`: a directory before what is in it, names in byte order. What goes
/// away meanwhile is left out.
///
/// # Errors
/// What cannot be read, and what the sink says.
pub fn walk(start: BorrowedFd<'_>, walk: Walk<'_>, sink: &mut dyn Sink, tally: &mut Tally) -> Result<()> {
    let mut walker =
        Walker { walk, sink, tally, path: walk.name.to_vec(), frames: Vec::new(), links: HashMap::new() };
    walker.enter(start, true)?;
    while let Some(frame) = walker.frames.last_mut() {
        let length = frame.length;
        walker.path.truncate(length);
        let Some(name) = frame.names.next() else {
            walker.frames.pop();
            continue;
        };
        let opened = open_at(&frame.dir, &name);
        look::push(&mut walker.path, name.to_bytes())?;
        match opened {
            Ok(fd) => walker.enter(fd.as_fd(), false)?,
            Err(Errno::NOENT) => {}
            Err(error) => return Err(failed("open", &walker.path, error)),
        }
    }
    Ok(())
}

impl Walker<'_, '_> {
    /// What has the present path: handed on, and if it is a directory gone into.
    fn enter(&mut self, fd: BorrowedFd<'_>, is_start: bool) -> Result<()> {
        let looked = match Looked::at(fd) {
            Err(Errno::NOENT | Errno::STALE) => return Ok(()),
            other => other.map_err(|error| failed("read", &self.path, error))?,
        };
        let path = self.path.clone();
        let Some(mut member) = looked.member(&path) else {
            self.tally.skip(&self.path);
            return Ok(());
        };
        if let Some(owners) = self.walk.owners {
            (member.uid, member.gid) = owners.inside(member.uid, member.gid);
        }
        if !(is_start && self.path.is_empty()) {
            self.tally.files += 1;
            if self.tally.files > MAX_ENTRIES {
                return Err(Fault::input(format!("there are more than {MAX_ENTRIES} files")));
            }
            self.hand_on(&looked, &member)?;
        }
        let inode = (looked.stat.st_dev, looked.stat.st_ino);
        if member.kind == ItemKind::Directory && self.walk.destination == Some(inode) {
            return Err(Fault::conflict("it is what is copied to: a directory cannot be copied into itself")
                .on(look::show(&path)));
        }
        if member.kind == ItemKind::Directory && (is_start || !self.walk.closed.contains(&looked.stat.st_dev))
        {
            let open = || {
                let dir = open_listed(fd)?;
                let names = names(&dir)?.into_iter();
                Ok(Frame { dir, names, length: self.path.len() })
            };
            match open() {
                Ok(frame) => self.frames.push(frame),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed("read the directory", &self.path, error)),
            }
        }
        Ok(())
    }

    fn hand_on(&mut self, looked: &Looked, member: &Member<'_>) -> Result<()> {
        let stat = &looked.stat;
        if stat.st_nlink > 1 && member.kind != ItemKind::Directory {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let link = Member { kind: ItemKind::HardLink, link: first, size: 0, xattrs: &[], ..*member };
                return self.sink.add(&link, Content::Nothing);
            }
            self.links.insert(inode, self.path.clone().into());
        }
        self.tally.bytes += member.size;
        self.sink.add(member, looked.content())
    }
}
