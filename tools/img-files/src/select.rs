//! Which files are listed.

use cli::{Fault, Result};
use contents::Pattern;
use layer::view::Miss;
use layer::{Item, ItemKind, Node, View};
use std::collections::HashSet;
use std::sync::Arc;

/// What the image shows below the paths and of what fits the patterns, each once; without any, everything. The root is listed when a
/// layer lists it.
///
/// # Errors
/// [`fault::Kind::NotFound`] for a path that is not there. That nothing fits a pattern is no failure.
pub fn shown<'a>(view: &'a View, patterns: &[Pattern]) -> Result<Vec<(Vec<u8>, Node<'a>)>> {
    let mut files = Vec::new();
    let (paths, globs): (Vec<&Pattern>, Vec<&Pattern>) = patterns.iter().partition(|one| one.is_literal());
    for path in paths {
        add_path(view, path.text(), &mut files)?;
    }
    if patterns.is_empty() || !globs.is_empty() {
        view.root().walk::<Fault>(b"", |path, node| {
            let listed = !path.is_empty() || node.item().is_some();
            if listed && (globs.is_empty() || globs.iter().any(|glob| glob.fits(path))) {
                files.push((path.to_vec(), node));
            }
            Ok(())
        })?;
    }
    if patterns.len() > 1 {
        let mut seen = HashSet::new();
        files.retain(|(path, _)| seen.insert(path.clone()));
    }
    Ok(files)
}

/// A path leads through symbolic links, but a link at its end is what is asked for.
fn add_path<'a>(view: &'a View, text: &[u8], files: &mut Vec<(Vec<u8>, Node<'a>)>) -> Result<()> {
    let shown = String::from_utf8_lossy(text).into_owned();
    let node = view.find(text, false).map_err(|miss| not_there(miss, &shown))?;
    let mut path = Vec::new();
    for part in text.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".") {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(part);
    }
    node.walk::<Fault>(&path, |path, node| {
        files.push((path.to_vec(), node));
        Ok(())
    })
}

fn not_there(miss: Miss, path: &str) -> Fault {
    let why = match miss {
        Miss::NotDirectory => "something on the way is no directory",
        Miss::Loop => "too many symbolic links on the way",
        Miss::Missing | Miss::Open => "no such file or directory",
    };
    Fault::not_found(format!("{path}: {why}"))
}

/// What layers list and the image does not show, by layer and in its archive's order: with its whiteouts and marks.
pub fn hidden<'a>(view: &View, lists: &'a [Arc<Vec<Item>>]) -> Vec<(usize, &'a Item)> {
    let mut seen: HashSet<(usize, u64)> = HashSet::new();
    let walked = view.root().walk::<Fault>(b"", |_, node| {
        if let (Some(layer), Some(item)) = (node.layer(), node.item()) {
            seen.insert((layer, item.number));
        }
        Ok(())
    });
    debug_assert!(walked.is_ok());
    let items = lists.iter().enumerate().flat_map(|(layer, list)| list.iter().map(move |item| (layer, item)));
    items
        .filter(|(layer, item)| match item.kind {
            // Of a directory every layer may tell anew; nothing is lost by that.
            ItemKind::Directory | ItemKind::HardLink => false,
            _ => !seen.contains(&(*layer, item.number)),
        })
        .collect()
}
