//! Whiteouts carried out, when layers are applied one over the other to a plain directory.
//!
//! A whiteout hides what lower layers have, never what its own layer has, in whatever order the archive lists the two
//! (layer.md, "Whiteouts"). So what the layer wrote is remembered.

use crate::tree::{Tree, os, stat};
use fault::{Fault, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::FileType;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

/// Deeper directories of one's own in a directory with a whiteout are refused; each costs a descriptor.
pub const MAX_DEPTH: usize = 256;

/// The paths one layer wrote, and the directories above them. As hashes under a secret key, eight bytes each: that a file
/// would be spared by accident has a chance of one to 10^7 in a layer with a million of each.
#[derive(Default)]
pub struct Written {
    paths: HashSet<u64>,
    key: RandomState,
    /// Directories, by device and inode, that nothing of lower layers is left in: a layer may ask for it again and again.
    emptied: HashSet<(u64, u64)>,
}

impl Written {
    pub fn note(&mut self, path: &[u8]) {
        let mut path = path;
        // Once a directory is known, those above it are.
        while !path.is_empty() && self.paths.insert(self.key.hash_one(path)) {
            path = &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)];
        }
    }

    pub fn has(&self, path: &[u8]) -> bool {
        self.paths.contains(&self.key.hash_one(path))
    }
}

/// `.wh.NAME`: removes `path` as far as lower layers made it.
pub fn remove(tree: &mut Tree, path: &[u8], written: &mut Written) -> Result<()> {
    let slash = path.iter().rposition(|b| *b == b'/');
    let name = &path[slash.map_or(0, |at| at + 1)..];
    if !tree.try_enter(&path[..slash.unwrap_or(0)])? {
        return Ok(());
    }
    if !written.has(path) {
        return tree.clear(name, path);
    }
    match stat(tree.here(), name) {
        Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Directory => {
            empty(tree, path, written)
        }
        _ => Ok(()),
    }
}

/// `.wh..wh..opq`: removes what lower layers made in `dir`.
pub fn empty(tree: &mut Tree, dir: &[u8], written: &mut Written) -> Result<()> {
    if !tree.try_enter(dir)? {
        return Ok(());
    }
    let there = rustix::fs::fstat(tree.here()).map_err(|e| os("read", dir, e))?;
    if !written.emptied.insert((there.st_dev, there.st_ino)) {
        return Ok(());
    }
    let mut path = dir.to_vec();
    Purge { tree, written, given: dir }.purge(tree.here(), &mut path, 0)
}

struct Purge<'a> {
    tree: &'a Tree,
    written: &'a Written,
    /// The directory it began in, as the archive names it.
    given: &'a [u8],
}

impl Purge<'_> {
    fn purge(&self, dir: BorrowedFd<'_>, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        let written = self.written;
        if depth > MAX_DEPTH {
            return Err(Fault::input("directories lie too deep below a whiteout"));
        }
        let mut names = Vec::new();
        sys::fs::each_name(dir, |name, kind| {
            names.push((name.to_owned(), kind));
            Ok(())
        })
        .map_err(|e| os("read", path, e))?;
        let length = path.len();
        for (name, kind) in names {
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.to_bytes());
            if !written.has(path) {
                sys::fs::remove_tree(dir, name.as_c_str()).map_err(|e| os("remove", path, e))?;
                self.tree.forget(|| {
                    let below = &path[self.given.len()..];
                    let below = below.strip_prefix(b"/").unwrap_or(below);
                    crate::name::join(&self.tree.real_here(self.given), below).into()
                })?;
            } else if kind == FileType::Directory {
                let sub = sys::fs::open_dir(dir, name.as_c_str()).map_err(|e| os("open", path, e))?;
                let before = rustix::fs::fstat(&sub).map_err(|e| os("read", path, e))?;
                self.purge(sub.as_fd(), path, depth + 1)?;
                // What the layer said about this directory stays, its time included.
                rustix::fs::futimens(&sub, &crate::tree::times_of(&before))
                    .map_err(|e| os("set the times of", path, e))?;
            }
            path.truncate(length);
        }
        Ok(())
    }
}
