//! The tree that layers make one over the other, in memory: what unpacking them to a plain directory would give, by the
//! same rules ([`crate::apply`] on a [`crate::Target::flat`]), without their content.
//!
//! It is a small file system: directories with names that lead to inodes, symbolic links followed as the kernel does inside a
//! root, hard links as two names of one inode. So a layer that reaches a directory by another name, as layers of tools that
//! know no lower layers do, changes the same file here as there.

mod build;
mod walk;

pub use walk::Miss;

use crate::scan::{Item, ItemKind, Time, Xattr};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of an inode; the root's is 0.
type Id = u32;

const ROOT: Id = 0;
/// Where lower layers that were not read may have something, and what was read says there is nothing.
const GONE: Id = Id::MAX;

#[derive(Debug)]
struct Inode {
    /// Layer and place in its list; `None` for directories that no layer lists.
    item: Option<(u32, u32)>,
    /// Of directories only; `None` for everything else.
    directory: Option<Box<Directory>>,
    /// Names it has.
    links: u32,
}

#[derive(Debug)]
struct Directory {
    parent: Id,
    /// Bytes of its path.
    path_length: u32,
    children: BTreeMap<Box<[u8]>, Id>,
    /// Layers that were not read may have more in it.
    open: bool,
}

/// The merged tree of an image's layers.
#[derive(Debug)]
pub struct View {
    layers: Vec<Arc<Vec<Item>>>,
    inodes: Vec<Inode>,
    /// Unpacking adds to the root's attributes, layer by layer, and takes none away.
    root_xattrs: Box<[Xattr]>,
}

/// A file, directory or whatever else in a [`View`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'a> {
    view: &'a View,
    id: Id,
}

impl View {
    /// The root directory, which is always there.
    pub fn root(&self) -> Node<'_> {
        Node { view: self, id: ROOT }
    }

    fn inode(&self, id: Id) -> &Inode {
        &self.inodes[id as usize]
    }

    fn item(&self, id: Id) -> Option<&Item> {
        let (layer, place) = self.inode(id).item?;
        self.layers.get(layer as usize)?.get(place as usize)
    }
}

impl<'a> Node<'a> {
    /// Never a hard link, a whiteout or a mark.
    pub fn kind(self) -> ItemKind {
        self.item().map_or(ItemKind::Directory, |item| item.kind)
    }

    /// The entry it comes from; `None` for directories that no layer lists.
    pub fn item(self) -> Option<&'a Item> {
        self.view.item(self.id)
    }

    /// Which of the view's layers it comes from, the lowest is 0.
    pub fn layer(self) -> Option<usize> {
        self.view.inode(self.id).item.map(|(layer, _)| layer as usize)
    }

    /// The same for two names of one file, and for nothing else.
    pub fn inode(self) -> u32 {
        self.id
    }

    /// Names it has; of directories 1.
    pub fn links(self) -> u32 {
        self.view.inode(self.id).links
    }

    /// Permission bits with set-uid, set-gid and sticky. Symbolic links have all, directories no layer lists 0755.
    pub fn mode(self) -> u32 {
        match self.item() {
            Some(item) if item.kind == ItemKind::Symlink => 0o777,
            Some(item) => item.mode,
            None => 0o755,
        }
    }

    pub fn uid(self) -> u32 {
        self.item().map_or(0, |item| item.uid)
    }

    pub fn gid(self) -> u32 {
        self.item().map_or(0, |item| item.gid)
    }

    /// Bytes of content; of everything but files 0.
    pub fn size(self) -> u64 {
        self.item().map_or(0, |item| item.size)
    }

    /// `None` for directories that no layer lists: they are made when the image is unpacked.
    pub fn mtime(self) -> Option<Time> {
        self.item().map(|item| item.mtime)
    }

    pub fn xattrs(self) -> &'a [Xattr] {
        if self.id == ROOT {
            return &self.view.root_xattrs;
        }
        self.item().map_or(&[], |item| &item.xattrs)
    }

    /// The names in a directory and what they lead to, in byte order.
    pub fn children(self) -> impl Iterator<Item = (&'a [u8], Node<'a>)> {
        let directory = self.view.inode(self.id).directory.as_deref();
        let children = directory.into_iter().flat_map(|directory| &directory.children);
        children
            .filter(|(_, id)| **id != GONE)
            .map(move |(name, id)| (&**name, Node { view: self.view, id: *id }))
    }

    /// Calls `each` for this node and all below it, a directory before what is in it, names in byte order. Paths begin with `path`,
    /// which this node is called.
    ///
    /// # Errors
    /// What `each` returns, which ends it.
    pub fn walk<E>(
        self,
        path: &[u8],
        mut each: impl FnMut(&[u8], Node<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut path = path.to_vec();
        each(&path, self)?;
        // The children still to be seen of each directory on the way, and how long its own path is.
        let mut open = vec![(self.children(), path.len())];
        while let Some((children, length)) = open.last_mut() {
            path.truncate(*length);
            let Some((name, node)) = children.next() else {
                open.pop();
                continue;
            };
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            each(&path, node)?;
            if node.kind() == ItemKind::Directory {
                open.push((node.children(), path.len()));
            }
        }
        Ok(())
    }
}
