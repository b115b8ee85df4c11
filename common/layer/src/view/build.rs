//! Layers put one over the other, item by item. What is done for an item is what the unpacker does for an entry
//! (`apply.rs`, `tree.rs`, `flat.rs`), on inodes in memory.

use super::{Directory, GONE, Id, Inode, Miss, ROOT, View};
use crate::flat::{MAX_DEPTH, Written};
use crate::limits::MAX_PATH;
use crate::name::{join, split};
use crate::scan::{Budget, Item, ItemKind};
use crate::tree::show;
use fault::{Fault, Result};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// What an inode without an item costs: a directory along the way.
const INODE_COST: u64 = 256;

/// Components that are gone through for entries behind symbolic links. With forty links of two thousand components each on the way to
/// every entry, a small layer would otherwise take hours.
const MAX_STEPS: u64 = 200_000_000;

/// Why building ended.
enum Halt {
    Fault(Fault),
    /// What an item does depends on layers that were not read.
    Open,
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Halt {
        Halt::Fault(fault)
    }
}

impl View {
    /// The tree of all layers of an image, the lowest first.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] for layers that cannot be unpacked one over the other either, with the path.
    pub fn of(layers: &[Arc<Vec<Item>>], budget: &Budget) -> Result<View> {
        match Builder::new(layers, false, budget).build() {
            Ok(view) => Ok(view),
            Err(Halt::Fault(fault)) => Err(fault),
            Err(Halt::Open) => Err(Fault::failed("a layer was left out")),
        }
    }

    /// The tree of the upper layers of an image, as far as it is certain whatever the layers below are: where they decide,
    /// [`View::find`] says [`Miss::Open`]. `None` when they decide where entries of the upper ones belong, as in layers that do not
    /// list the directories on the way to their files: one of them could be a symbolic link below.
    pub fn of_upper(layers: &[Arc<Vec<Item>>], budget: &Budget) -> Result<Option<View>> {
        match Builder::new(layers, true, budget).build() {
            Ok(view) => Ok(Some(view)),
            Err(Halt::Fault(fault)) => Err(fault),
            Err(Halt::Open) => Ok(None),
        }
    }
}

struct Builder<'a> {
    view: View,
    /// There are layers below that were not read.
    upper: bool,
    budget: &'a Budget,
    /// What the present layer wrote; its whiteouts spare it. `None` for the lowest layer.
    written: Option<Written>,
    /// Directories nothing of lower layers is left in.
    emptied: HashSet<Id>,
    /// Components gone through so far, of [`MAX_STEPS`].
    steps: u64,
    /// The directory entered last: archives list the entries of one together.
    last: Option<(Vec<u8>, Id)>,
}

impl<'a> Builder<'a> {
    fn new(layers: &[Arc<Vec<Item>>], upper: bool, budget: &'a Budget) -> Builder<'a> {
        let root = Directory { parent: ROOT, path_length: 0, children: BTreeMap::new(), open: upper };
        let inodes = vec![Inode { item: None, directory: Some(Box::new(root)), links: 1 }];
        let view = View { layers: layers.to_vec(), inodes, root_xattrs: Box::default() };
        Builder { view, upper, budget, written: None, emptied: HashSet::new(), steps: 0, last: None }
    }

    fn build(mut self) -> Result<View, Halt> {
        for layer in 0..self.view.layers.len() {
            let items = Arc::clone(&self.view.layers[layer]);
            self.written = (layer > 0 || self.upper).then(Written::default);
            self.emptied.clear();
            for (place, item) in items.iter().enumerate() {
                self.add(item, (layer as u32, place as u32)).map_err(|halt| match halt {
                    Halt::Fault(fault) => Halt::Fault(fault.on(show(&item.path))),
                    Halt::Open => Halt::Open,
                })?;
            }
        }
        Ok(self.view)
    }

    fn add(&mut self, item: &Item, at: (u32, u32)) -> Result<(), Halt> {
        match item.kind {
            ItemKind::Whiteout => return self.remove(&item.path),
            ItemKind::Opaque => return self.empty(&item.path),
            _ => {}
        }
        if let Some(written) = &mut self.written {
            written.note(&item.path);
        }
        if item.path.is_empty() {
            self.dress_root(item, at);
            return Ok(());
        }
        let (dir, name) = split(&item.path);
        let parent = self.enter(dir)?;
        // By way of a symbolic link a short name can have a long path, which whoever lists it holds in memory.
        let real = self.path_length(parent);
        self.budget.charge(2 * real.saturating_sub(dir.len()) as u64)?;
        match item.kind {
            ItemKind::Directory => self.directory(parent, name, at)?,
            ItemKind::HardLink => self.hard_link(parent, dir, name, &item.link)?,
            // To overlayfs this is a deletion, so it is left out.
            ItemKind::CharDevice if item.device == (0, 0) => {}
            _ => {
                let id = self.make(Inode { item: Some(at), directory: None, links: 0 })?;
                self.name(parent, name, id);
            }
        }
        Ok(())
    }

    fn dress_root(&mut self, item: &Item, at: (u32, u32)) {
        self.view.inodes[ROOT as usize].item = Some(at);
        let mut xattrs: BTreeMap<Vec<u8>, Vec<u8>> =
            std::mem::take(&mut self.view.root_xattrs).into_iter().collect();
        xattrs.extend(item.xattrs.iter().cloned());
        self.view.root_xattrs = xattrs.into_iter().collect();
    }

    fn is_directory(&self, id: Id) -> bool {
        self.view.inode(id).directory.is_some()
    }

    fn child(&self, dir: Id, name: &[u8]) -> Option<Id> {
        self.view.inode(dir).directory.as_deref()?.children.get(name).copied()
    }

    /// Whether layers that were not read may have something in a directory where those that were have nothing.
    fn is_open(&self, dir: Id) -> bool {
        self.view.inode(dir).directory.as_deref().is_some_and(|directory| directory.open)
    }

    fn make(&mut self, inode: Inode) -> Result<Id> {
        let id = Id::try_from(self.view.inodes.len()).ok().filter(|id| *id < GONE);
        let id = id.ok_or_else(|| Fault::input("the layers have too many entries"))?;
        self.view.inodes.push(inode);
        Ok(id)
    }

    fn make_directory(
        &mut self,
        parent: Id,
        name: &[u8],
        item: Option<(u32, u32)>,
        open: bool,
    ) -> Result<Id> {
        let above = self.path_length(parent);
        let path_length = above + usize::from(above > 0) + name.len();
        // By way of symbolic links directories can lie deeper than any path reaches.
        if path_length > MAX_PATH {
            return Err(Fault::input(format!("its real path is longer than {MAX_PATH} bytes")));
        }
        let directory =
            Directory { parent, path_length: path_length as u32, children: BTreeMap::new(), open };
        if item.is_none() {
            self.budget.charge(INODE_COST + 2 * path_length as u64)?;
        }
        let id = self.make(Inode { item, directory: Some(Box::new(directory)), links: 0 })?;
        self.name(parent, name, id);
        Ok(id)
    }

    /// Bytes of a directory's path.
    fn path_length(&self, dir: Id) -> usize {
        self.view.inode(dir).directory.as_deref().map_or(0, |directory| directory.path_length as usize)
    }

    /// Gives an inode a name; what has it goes.
    fn name(&mut self, dir: Id, name: &[u8], id: Id) {
        self.view.inodes[id as usize].links += 1;
        let old = self.view.inodes[dir as usize]
            .directory
            .as_deref_mut()
            .and_then(|directory| directory.children.insert(name.into(), id));
        if let Some(old) = old {
            self.bury(old);
        }
    }

    /// Takes a name away; where layers that were not read could have it, that is remembered.
    fn unname(&mut self, dir: Id, name: &[u8]) {
        let Some(directory) = self.view.inodes[dir as usize].directory.as_deref_mut() else { return };
        let old = if directory.open {
            directory.children.insert(name.into(), GONE)
        } else {
            directory.children.remove(name)
        };
        if let Some(old) = old {
            self.bury(old);
        }
    }

    /// What has lost a name, with all that is in it.
    fn bury(&mut self, id: Id) {
        if id == GONE {
            return;
        }
        // It may have been on the way there.
        self.last = None;
        let mut lost = vec![id];
        while let Some(id) = lost.pop() {
            let inode = &mut self.view.inodes[id as usize];
            inode.links = inode.links.saturating_sub(1);
            if let Some(directory) = inode.directory.as_deref_mut() {
                lost.extend(std::mem::take(&mut directory.children).into_values().filter(|id| *id != GONE));
            }
        }
    }

    /// The directory an entry belongs in, made if need be.
    fn enter(&mut self, dir: &[u8]) -> Result<Id, Halt> {
        if dir.is_empty() {
            return Ok(ROOT);
        }
        if let Some((last, id)) = &self.last
            && last == dir
        {
            return Ok(*id);
        }
        let mut at = ROOT;
        let mut start = 0;
        while start < dir.len() {
            let end = dir[start..].iter().position(|b| *b == b'/').map_or(dir.len(), |length| start + length);
            let name = &dir[start..end];
            at = match self.child(at, name) {
                Some(id) if id != GONE && self.is_directory(id) => id,
                Some(id) if id != GONE => self.through(id, &dir[..end])?,
                None if self.is_open(at) => return Err(Halt::Open),
                _ => self.make_directory(at, name, None, false)?,
            };
            start = end + 1;
        }
        self.last = Some((dir.to_owned(), at));
        Ok(at)
    }

    fn resolve(&mut self, dir: &[u8]) -> Result<Result<Id, Miss>> {
        let found = self.view.resolve_directory(dir, &mut self.steps);
        if self.steps > MAX_STEPS {
            return Err(Fault::input("the layers' symbolic links take too long to follow"));
        }
        Ok(found)
    }

    /// The directory a symbolic link on the way leads to.
    fn through(&mut self, id: Id, path: &[u8]) -> Result<Id, Halt> {
        if self.view.item(id).is_none_or(|item| item.kind != ItemKind::Symlink) {
            let what = "something that is no directory stands where a directory is needed";
            return Err(Fault::input(what).on(show(path)).into());
        }
        self.resolve(path)?.map_err(|miss| match miss {
            Miss::Open => Halt::Open,
            _ => Fault::input("it leads through a symbolic link to no directory of this layer")
                .on(show(path))
                .into(),
        })
    }

    fn directory(&mut self, parent: Id, name: &[u8], at: (u32, u32)) -> Result<()> {
        match self.child(parent, name) {
            Some(id) if id != GONE && self.is_directory(id) => {
                self.view.inodes[id as usize].item = Some(at);
                Ok(())
            }
            // In place of something else it begins empty.
            Some(_) => self.make_directory(parent, name, Some(at), false).map(|_| ()),
            None => self.make_directory(parent, name, Some(at), self.is_open(parent)).map(|_| ()),
        }
    }

    fn hard_link(&mut self, parent: Id, dir: &[u8], name: &[u8], target: &[u8]) -> Result<(), Halt> {
        let missing = || {
            Halt::from(Fault::input(format!(
                "it is a hard link to {}, which is not in this layer",
                show(target)
            )))
        };
        let (target_dir, target_name) = split(target);
        if target_name.is_empty() {
            return Err(missing());
        }
        let from = if target_dir == dir {
            parent
        } else {
            self.resolve(target_dir)?.map_err(|miss| match miss {
                Miss::Open => Halt::Open,
                _ => missing(),
            })?
        };
        let found = match self.child(from, target_name) {
            Some(id) if id != GONE && !self.is_directory(id) => id,
            None if self.is_open(from) => return Err(Halt::Open),
            _ => return Err(missing()),
        };
        if self.child(parent, name) == Some(found) {
            return Ok(());
        }
        // What it replaces can be a directory its target lies in.
        self.unname(parent, name);
        if self.child(from, target_name) != Some(found) {
            return Err(missing());
        }
        self.name(parent, name, found);
        Ok(())
    }

    /// The directory a whiteout is in, if lower layers have it.
    fn lower_directory(&mut self, dir: &[u8]) -> Result<Option<Id>, Halt> {
        match self.resolve(dir)? {
            Ok(id) => Ok(Some(id)),
            Err(Miss::Open) => Err(Halt::Open),
            Err(_) => Ok(None),
        }
    }

    /// `.wh.NAME`: removes `path` as far as lower layers made it.
    fn remove(&mut self, path: &[u8]) -> Result<(), Halt> {
        let Some(written) = self.written.take() else { return Ok(()) };
        let (dir, name) = split(path);
        let done = self.lower_directory(dir).and_then(|found| {
            let Some(parent) = found else { return Ok(()) };
            if !written.has(path) {
                self.unname(parent, name);
                return Ok(());
            }
            match self.child(parent, name) {
                Some(id) if id != GONE && self.is_directory(id) => Ok(self.clear(id, path, &written)?),
                _ => Ok(()),
            }
        });
        self.written = Some(written);
        done
    }

    /// `.wh..wh..opq`: removes what lower layers made in `dir`.
    fn empty(&mut self, dir: &[u8]) -> Result<(), Halt> {
        let Some(written) = self.written.take() else { return Ok(()) };
        let done = self.lower_directory(dir).and_then(|found| match found {
            Some(id) => Ok(self.clear(id, dir, &written)?),
            None => Ok(()),
        });
        self.written = Some(written);
        done
    }

    fn clear(&mut self, id: Id, path: &[u8], written: &Written) -> Result<()> {
        // A layer may ask for it again and again.
        if self.emptied.insert(id) { self.purge(id, path, written, 0) } else { Ok(()) }
    }

    fn purge(&mut self, id: Id, path: &[u8], written: &Written, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Fault::input("directories lie too deep below a whiteout"));
        }
        let Some(directory) = self.view.inodes[id as usize].directory.as_deref_mut() else { return Ok(()) };
        directory.open = false;
        let children: Vec<(Box<[u8]>, Id)> =
            directory.children.iter().map(|(name, id)| (name.clone(), *id)).collect();
        for (name, child) in children {
            let path = join(path, &name);
            if child == GONE || !written.has(&path) {
                self.unname(id, &name);
            } else if self.is_directory(child) && self.emptied.insert(child) {
                self.purge(child, &path, written, depth + 1)?;
            }
        }
        Ok(())
    }
}
