//! Paths as an archive.
//!
//! Directories come first, then files in the order in which the layers have them, so that each layer is read once; then symbolic
//! links and devices, and last hard links, which refer to any of these. The same image gives the same bytes.

use crate::find::{self, Tree, plain};
use cli::{Fault, Result};
use contents::Opened;
use layer::pack::{Member, Packer};
use layer::scan::{Piece, contents};
use layer::{ItemKind, Limits, Node};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;

#[derive(Default)]
struct Plan<'a> {
    directories: Vec<(Vec<u8>, Node<'a>)>,
    /// By layer and entry, the first name.
    files: BTreeMap<usize, BTreeMap<u64, (Vec<u8>, Node<'a>)>>,
    /// Further names with the first one.
    links: Vec<(Vec<u8>, Node<'a>, Vec<u8>)>,
    others: Vec<(Vec<u8>, Node<'a>)>,
}

/// All of it or a failure: half an archive is none.
pub fn write(opened: &Opened<'_>, paths: &[OsString], out: &File) -> Result<()> {
    let tree = find::whole_tree(opened)?;
    let plan = plan(&tree, paths)?;
    let mut packer = Packer::new(out);
    for (path, node) in &plan.directories {
        packer.begin(&member(path, *node))?;
    }
    for (layer, files) in &plan.files {
        let layer = &tree.layers[*layer];
        let numbers: Vec<u64> = files.keys().copied().collect();
        let files: Vec<&(Vec<u8>, Node<'_>)> = files.values().collect();
        let blob = opened.source.open(layer)?;
        contents(blob, &Limits::default(), &numbers, &mut |index, piece| match piece {
            Piece::Start => packer.begin(&member(&files[index].0, files[index].1)),
            Piece::Data(bytes) => packer.data(bytes),
            Piece::End => Ok(()),
        })
        .map_err(|fault| fault.within(format!("layer {}", layer.digest)))?;
    }
    for (path, node) in &plan.others {
        packer.begin(&member(path, *node))?;
    }
    for (path, node, first) in &plan.links {
        let member =
            Member { kind: ItemKind::HardLink, link: first, size: 0, xattrs: &[], ..member(path, *node) };
        packer.begin(&member)?;
    }
    packer.finish().map(|_| ())
}

fn plan<'a>(tree: &'a Tree<'_>, paths: &[OsString]) -> Result<Plan<'a>> {
    let mut plan = Plan::default();
    let mut names = HashSet::new();
    let mut first: HashMap<u32, Vec<u8>> = HashMap::new();
    for path in paths {
        let node = tree.find(path, false).map_err(|fault| fault.on(path.to_string_lossy()))?;
        node.walk::<Fault>(&plain(path.as_bytes()), |path, node| {
            if names.insert(path.to_vec()) {
                add(&mut plan, &mut first, path, node);
            }
            Ok(())
        })?;
    }
    Ok(plan)
}

fn add<'a>(plan: &mut Plan<'a>, first: &mut HashMap<u32, Vec<u8>>, path: &[u8], node: Node<'a>) {
    let path = path.to_vec();
    if node.kind() == ItemKind::Directory {
        // Nobody listed a root that has no item.
        if !path.is_empty() || node.item().is_some() {
            plan.directories.push((path, node));
        }
        return;
    }
    if let Some(first) = first.get(&node.inode()) {
        plan.links.push((path, node, first.clone()));
        return;
    }
    if node.links() > 1 {
        first.insert(node.inode(), path.clone());
    }
    match (node.kind(), node.layer(), node.item()) {
        (ItemKind::File, Some(layer), Some(item)) => {
            plan.files.entry(layer).or_default().insert(item.number, (path, node));
        }
        _ => plan.others.push((path, node)),
    }
}

fn member<'a>(path: &'a [u8], node: Node<'a>) -> Member<'a> {
    let item = node.item();
    Member {
        kind: node.kind(),
        path,
        link: item.map_or(&[], |item| &item.link),
        mode: node.mode(),
        uid: node.uid(),
        gid: node.gid(),
        size: node.size(),
        mtime: node.mtime().unwrap_or_default(),
        device: item.map_or((0, 0), |item| item.device),
        xattrs: node.xattrs(),
    }
}
