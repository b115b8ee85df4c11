//! Which layers have to be read to find paths.

use cli::{Fault, Result};
use contents::{Opened, scan_layers};
use layer::scan::{Sought, seek};
use layer::view::Miss;
use layer::{Budget, Item, ItemKind, Limits, Node, View};
use record::Layer;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

/// How often it is looked whether the layers read so far are enough, before all are read at once.
const ATTEMPTS: usize = 4;

/// The tree of the layers that were read: all, or the uppermost.
pub struct Tree<'a> {
    pub view: View,
    /// Those the view is of, the lowest first.
    pub layers: &'a [Layer],
}

/// Lists the layer below those that were listed; `None` when nothing more is wanted.
type Read<'r> = dyn FnMut(&Layer, &[List]) -> Result<Option<List>> + 'r;
type List = Arc<Vec<Item>>;

/// Reads layers from the highest down until it is certain what is at each of the paths.
pub fn tree<'a>(opened: &'a Opened<'_>, paths: &[OsString]) -> Result<Tree<'a>> {
    let budget = Budget::default();
    let read = &mut |layer: &Layer, _: &[List]| scan_one(opened, layer, &budget).map(Some);
    look(opened, paths, &budget, read)?.ok_or_else(|| Fault::failed("a layer was not read"))
}

fn scan_one(opened: &Opened<'_>, layer: &Layer, budget: &Budget) -> Result<List> {
    let name = opened.image.reference.as_str();
    let lists = scan_layers(opened.source.as_ref(), name, std::slice::from_ref(layer), budget, false)?;
    lists.into_iter().next().ok_or_else(|| Fault::failed("a layer was not read"))
}

/// `None` when reading said that nothing more is wanted.
fn look<'a>(
    opened: &'a Opened<'_>,
    paths: &[OsString],
    budget: &Budget,
    read: &mut Read<'_>,
) -> Result<Option<Tree<'a>>> {
    let name = opened.image.reference.as_str();
    let all = opened.image.layers.as_slice();
    let mut lists: Vec<List> = Vec::new();
    let mut unseen: BTreeSet<Vec<u8>> = paths.iter().map(|path| plain(path.as_bytes())).collect();
    let mut attempts = 0;
    for below in (1..all.len()).rev() {
        let Some(list) = read(&all[below], &lists)? else { return Ok(None) };
        lists.insert(0, list);
        for item in lists[0].iter().filter(|item| item.kind != ItemKind::Directory) {
            unseen.remove(&*item.path);
        }
        // Trees cost time, too: one is made when every path was seen.
        if !unseen.is_empty() || attempts >= ATTEMPTS {
            continue;
        }
        attempts += 1;
        let Some(view) = View::of_upper(&lists, budget).map_err(|fault| fault.within(name))? else {
            attempts = ATTEMPTS;
            continue;
        };
        if paths.iter().all(|path| view.find(path.as_bytes(), true).err() != Some(Miss::Open)) {
            return Ok(Some(Tree { view, layers: &all[below..] }));
        }
    }
    if let Some(lowest) = all.first() {
        let Some(list) = read(lowest, &lists)? else { return Ok(None) };
        lists.insert(0, list);
    }
    Ok(Some(Tree { view: contents::view(name, &lists, budget)?, layers: all }))
}

/// Hands on a file's content the moment it comes by, where layers are far and reading one twice is dear. `None` when it did; else the tree to
/// find out from what is at the path.
pub fn pass<'a>(
    opened: &'a Opened<'_>,
    path: &OsStr,
    taker: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Option<Tree<'a>>> {
    let budget = Budget::default();
    let lowest = opened.image.layers.len();
    let mut hunt = Hunt { path, wanted: plain(path.as_bytes()), links: 0, attempts: 0 };
    let mut read = |layer: &Layer, above: &[List]| -> Result<Option<List>> {
        let is_lowest = above.len() + 1 == lowest;
        let blob = opened.source.open(layer)?;
        let mut is_it = |items: &[Item]| hunt.is_it(items, above, is_lowest, &budget);
        let sought = seek(blob, &Limits::default(), &budget, &mut is_it, taker);
        let name = opened.image.reference.as_str();
        match sought.map_err(|fault| fault.within(format!("{name}: layer {}", layer.digest)))? {
            Sought::Found => Ok(None),
            Sought::Listed(items) => Ok(Some(Arc::new(items))),
        }
    };
    look(opened, std::slice::from_ref(&path.to_os_string()), &budget, &mut read)
}

/// How many symbolic links are followed on the way to a file.
const MAX_LINKS: usize = 40;

/// A file that is looked for while a layer comes by.
struct Hunt<'a> {
    path: &'a OsStr,
    /// Where it has to be, as far as links were seen.
    wanted: Vec<u8>,
    links: usize,
    attempts: usize,
}

impl Hunt<'_> {
    /// Whether the last of the items is, for certain, what the image shows at the path.
    fn is_it(&mut self, items: &[Item], above: &[List], is_lowest: bool, budget: &Budget) -> Result<bool> {
        let Some(item) = items.last() else { return Ok(false) };
        if item.kind == ItemKind::Symlink {
            self.follow(item);
        }
        if item.kind != ItemKind::File || *item.path != *self.wanted || self.attempts >= ATTEMPTS {
            return Ok(false);
        }
        self.attempts += 1;
        let mut lists = vec![Arc::new(items.to_vec())];
        lists.extend(above.iter().cloned());
        let view = if is_lowest { Some(View::of(&lists, budget)?) } else { View::of_upper(&lists, budget)? };
        let Some(Ok(node)) = view.as_ref().map(|view| view.find(self.path.as_bytes(), true)) else {
            return Ok(false);
        };
        Ok(node.layer() == Some(0) && node.item().is_some_and(|found| found.number == item.number))
    }

    /// A guess only: what is found by it is looked up in the tree.
    fn follow(&mut self, link: &Item) {
        let Some(rest) = self.wanted.strip_prefix(&*link.path) else { return };
        if self.links >= MAX_LINKS || !(rest.is_empty() || rest.starts_with(b"/")) {
            return;
        }
        self.links += 1;
        let mut target = Vec::new();
        if !link.link.starts_with(b"/") {
            let parent = link.path.iter().rposition(|b| *b == b'/').unwrap_or(0);
            target.extend_from_slice(&link.path[..parent]);
            target.push(b'/');
        }
        target.extend_from_slice(&link.link);
        target.extend_from_slice(rest);
        self.wanted = plain(&target);
    }
}

/// The tree of all layers, read at once.
pub fn whole_tree<'a>(opened: &'a Opened<'_>) -> Result<Tree<'a>> {
    let name = opened.image.reference.as_str();
    let budget = Budget::default();
    let layers = opened.image.layers.as_slice();
    let lists = scan_layers(opened.source.as_ref(), name, layers, &budget, false)?;
    Ok(Tree { view: contents::view(name, &lists, &budget)?, layers })
}

impl Tree<'_> {
    /// # Errors
    /// [`fault::Kind::NotFound`].
    pub fn find(&self, path: &OsStr, follow: bool) -> Result<Node<'_>> {
        self.view.find(path.as_bytes(), follow).map_err(|miss| {
            Fault::not_found(match miss {
                Miss::NotDirectory => "something on the way is no directory",
                Miss::Loop => "too many symbolic links on the way",
                Miss::Missing | Miss::Open => "no such file or directory in the image",
            })
        })
    }
}

/// As a layer lists it.
pub fn plain(path: &[u8]) -> Vec<u8> {
    let mut plain: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if part == b".." {
            plain.pop();
        } else {
            plain.push(part);
        }
    }
    plain.join(&b'/')
}
