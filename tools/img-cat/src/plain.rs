//! Contents one after the other.

use crate::find::{self, Tree};
use cli::{Context, Fault, Kind, Result};
use contents::Opened;
use layer::scan::{Piece, contents};
use layer::{ItemKind, Limits, Node};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Write};

/// Files that are printed one after the other out of one layer.
struct Run {
    layer: usize,
    /// In ascending order.
    numbers: Vec<u64>,
}

/// What cannot be printed is reported, the rest is.
pub fn write(opened: &Opened<'_>, paths: &[OsString], out: &File, context: &mut Context) -> Result<()> {
    let mut closed = false;
    let tree = match paths {
        [path] if opened.source.is_far() => {
            let passed = find::pass(opened, path, &mut |bytes| put(out, bytes, &mut closed));
            if closed {
                return Ok(());
            }
            let Some(tree) = passed? else { return Ok(()) };
            tree
        }
        _ => find::tree(opened, paths)?,
    };
    let mut runs: Vec<Run> = Vec::new();
    for path in paths {
        match file(&tree, path) {
            Ok((layer, number)) => match runs.last_mut() {
                Some(run) if run.layer == layer && run.numbers.last() < Some(&number) => {
                    run.numbers.push(number);
                }
                _ => runs.push(Run { layer, numbers: vec![number] }),
            },
            Err(fault) => context.report(&fault.on(path.to_string_lossy())),
        }
    }
    for run in runs {
        let layer = &tree.layers[run.layer];
        let blob = opened.source.open(layer)?;
        let copied = contents(blob, &Limits::default(), &run.numbers, &mut |_, piece| {
            let Piece::Data(bytes) = piece else { return Ok(()) };
            put(out, bytes, &mut closed)
        });
        if closed {
            // As cat's: whoever read it has seen enough.
            return Ok(());
        }
        copied.map_err(|fault| fault.within(format!("layer {}", layer.digest)))?;
    }
    Ok(())
}

fn put(mut out: &File, bytes: &[u8], closed: &mut bool) -> Result<()> {
    out.write_all(bytes).map_err(|error| {
        *closed = error.kind() == ErrorKind::BrokenPipe;
        Fault::new(Kind::of_io(&error), "write to stdout").because(error)
    })
}

/// The layer and the entry that have a path's content.
fn file(tree: &Tree<'_>, path: &OsStr) -> Result<(usize, u64)> {
    let node: Node<'_> = tree.find(path, true)?;
    match (node.kind(), node.layer(), node.item()) {
        (ItemKind::File, Some(layer), Some(item)) => Ok((layer, item.number)),
        (ItemKind::Directory, _, _) => {
            Err(Fault::input("it is a directory")
                .hint("img-files lists what is in it, --tar writes all of it"))
        }
        (kind, _, _) => Err(Fault::input(format!("it is no file but a {}", kind.name()))),
    }
}
