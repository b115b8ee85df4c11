//! Which layers have to be read to find paths.

use cli::{Fault, Result};
use contents::{Opened, scan_layers};
use layer::view::Miss;
use layer::{Budget, Item, ItemKind, Node, View};
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

/// Reads layers from the highest down until it is certain what is at each of the paths.
pub fn tree<'a>(opened: &'a Opened<'_>, paths: &[OsString]) -> Result<Tree<'a>> {
    let name = opened.image.reference.as_str();
    let all = opened.image.layers.as_slice();
    let budget = Budget::default();
    let read = |layers: &[Layer]| scan_layers(opened.source.as_ref(), name, layers, &budget, false);
    let mut lists: Vec<Arc<Vec<Item>>> = Vec::new();
    let mut unseen: BTreeSet<Vec<u8>> = paths.iter().map(|path| plain(path.as_bytes())).collect();
    let mut attempts = 0;
    for below in (1..all.len()).rev() {
        lists.splice(0..0, read(&all[below..=below])?);
        for item in lists[0].iter().filter(|item| item.kind != ItemKind::Directory) {
            unseen.remove(&*item.path);
        }
        // Trees cost time, too: one is made when every path was seen.
        if !unseen.is_empty() || attempts >= ATTEMPTS {
            continue;
        }
        attempts += 1;
        let Some(view) = View::of_upper(&lists, &budget).map_err(|fault| fault.within(name))? else {
            attempts = ATTEMPTS;
            continue;
        };
        if paths.iter().all(|path| view.find(path.as_bytes(), true).err() != Some(Miss::Open)) {
            return Ok(Tree { view, layers: &all[below..] });
        }
    }
    if let Some(lowest) = all.first() {
        lists.splice(0..0, read(std::slice::from_ref(lowest))?);
    }
    Ok(Tree { view: contents::view(name, &lists, &budget)?, layers: all })
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
