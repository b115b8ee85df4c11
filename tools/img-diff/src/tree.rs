//! Two trees, name by name.

use crate::What;
use contents::Pattern;
use layer::{ItemKind, Node, View};
use record::Layer;

/// The layers on both sides.
#[derive(Clone, Copy, Debug)]
pub struct Sides<'a> {
    pub old: &'a [Layer],
    pub new: &'a [Layer],
}

/// A path that is not the same in both. Where only one has it, there is only that.
#[derive(Debug)]
pub struct Change<'a> {
    /// Without a slash in front.
    pub path: Vec<u8>,
    pub old: Option<Node<'a>>,
    pub new: Option<Node<'a>>,
    /// In what, where both have it.
    pub what: Vec<What>,
}

struct Comparison<'a, 'b> {
    sides: Sides<'b>,
    patterns: &'b [Pattern],
    ignore: &'b [What],
    changes: Vec<Change<'a>>,
}

/// All differences, a directory before what is in it, names in byte order.
pub fn compare<'a>(
    old: &'a View,
    new: &'a View,
    sides: Sides<'_>,
    patterns: &[Pattern],
    ignore: &[What],
) -> Vec<Change<'a>> {
    let mut comparison = Comparison { sides, patterns, ignore, changes: Vec::new() };
    comparison.both(&mut Vec::new(), old.root(), new.root());
    comparison.changes
}

impl<'a> Comparison<'a, '_> {
    fn note(&mut self, path: &[u8], old: Option<Node<'a>>, new: Option<Node<'a>>, what: Vec<What>) {
        if self.patterns.is_empty() || self.patterns.iter().any(|pattern| pattern.fits(path)) {
            self.changes.push(Change { path: path.to_vec(), old, new, what });
        }
    }

    /// As deep as a path can be long, no deeper.
    fn both(&mut self, path: &mut Vec<u8>, old: Node<'a>, new: Node<'a>) {
        let mut what = self.differences(old, new);
        what.retain(|one| !self.ignore.contains(one));
        if !what.is_empty() {
            self.note(path, Some(old), Some(new), what);
        }
        let (mut olds, mut news) = (old.children().peekable(), new.children().peekable());
        let length = path.len();
        loop {
            let name = match (olds.peek(), news.peek()) {
                (Some((one, _)), Some((other, _))) => *one.min(other),
                (Some((one, _)), None) => *one,
                (None, Some((other, _))) => *other,
                (None, None) => break,
            };
            let old = olds.next_if(|(own, _)| *own == name).map(|(_, node)| node);
            let new = news.next_if(|(own, _)| *own == name).map(|(_, node)| node);
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name);
            match (old, new) {
                (Some(old), Some(new)) => self.both(path, old, new),
                (old, new) => self.one(path, old, new),
            }
            path.truncate(length);
        }
    }

    /// What only one of them has, with all that is in it.
    fn one(&mut self, path: &[u8], old: Option<Node<'a>>, new: Option<Node<'a>>) {
        let Some(node) = old.or(new) else { return };
        let walked: Result<(), ()> = node.walk(path, |path, node| {
            self.note(path, old.map(|_| node), new.map(|_| node), Vec::new());
            Ok(())
        });
        debug_assert!(walked.is_ok());
    }

    fn differences(&self, old: Node<'_>, new: Node<'_>) -> Vec<What> {
        let layer = |node: Node<'_>, layers: &[Layer]| Some(layers.get(node.layer()?)?.digest.clone());
        let number = |node: Node<'_>| node.item().map(|item| item.number);
        // Of the root the attributes of several layers count.
        if number(old) == number(new)
            && layer(old, self.sides.old) == layer(new, self.sides.new)
            && old.xattrs() == new.xattrs()
        {
            return Vec::new();
        }
        let (one, other) = (old.item(), new.item());
        let link = |node: Node<'_>| {
            (node.kind() == ItemKind::Symlink).then(|| node.item().map(|item| item.link.to_vec()))
        };
        let device = |node: Node<'_>| {
            let is_device = matches!(node.kind(), ItemKind::CharDevice | ItemKind::BlockDevice);
            is_device.then(|| node.item().map(|item| item.device))
        };
        let content =
            one.and_then(|item| item.content.as_ref()) != other.and_then(|item| item.content.as_ref());
        let checks = [
            (What::Type, old.kind() != new.kind()),
            (What::Content, content),
            (What::Size, old.size() != new.size()),
            (What::Mode, old.mode() != new.mode()),
            (What::Owner, (old.uid(), old.gid()) != (new.uid(), new.gid())),
            (What::Mtime, old.mtime() != new.mtime()),
            (What::Link, link(old) != link(new)),
            (What::Device, device(old) != device(new)),
            (What::Xattrs, sorted(old) != sorted(new)),
        ];
        checks.into_iter().filter(|(_, different)| *different).map(|(what, _)| what).collect()
    }
}

fn sorted(node: Node<'_>) -> Vec<&(Vec<u8>, Vec<u8>)> {
    let mut all: Vec<_> = node.xattrs().iter().collect();
    all.sort_unstable();
    all
}
