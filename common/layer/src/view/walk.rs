//! Finding a path in a view, as the kernel does below a root (path_resolution(7), openat2(2) `RESOLVE_IN_ROOT`).

use super::{GONE, Id, Node, ROOT, View};
use crate::scan::ItemKind;

/// Symbolic links followed on one way, as in the kernel.
const MAX_LINKS: usize = 40;

/// Why there is nothing at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// No such name.
    Missing,
    /// Something on the way is no directory.
    NotDirectory,
    /// Too many symbolic links, or some that lead in a circle.
    Loop,
    /// The layers below, which were not read, decide.
    Open,
}

impl View {
    /// What is at a path, absolute or from the root. `follow`: a symbolic link at its end is followed, too. Nothing leads out of the
    /// root: its parent is itself.
    pub fn find(&self, path: &[u8], follow: bool) -> Result<Node<'_>, Miss> {
        self.resolve(path, follow, &mut 0).map(|id| Node { view: self, id })
    }

    /// Adds the number of components it took to `steps`.
    fn resolve(&self, path: &[u8], follow: bool, steps: &mut u64) -> Result<Id, Miss> {
        let mut at = ROOT;
        let mut links = 0;
        // What is left of the path, and of the links that are being followed in it.
        let mut ahead: Vec<&[u8]> = vec![path];
        while let Some(rest) = ahead.pop() {
            let start = rest.iter().position(|b| *b != b'/').unwrap_or(rest.len());
            if start > 0 && self.inode(at).directory.is_none() {
                return Err(Miss::NotDirectory);
            }
            let rest = &rest[start..];
            if rest.is_empty() {
                continue;
            }
            *steps += 1;
            let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let (name, rest) = rest.split_at(end);
            if !rest.is_empty() {
                ahead.push(rest);
            }
            let directory = self.inode(at).directory.as_deref().ok_or(Miss::NotDirectory)?;
            let found = match name {
                b"." => at,
                b".." => directory.parent,
                name => match directory.children.get(name) {
                    Some(id) if *id != GONE => *id,
                    None if directory.open => return Err(Miss::Open),
                    _ => return Err(Miss::Missing),
                },
            };
            match self.item(found) {
                Some(item) if item.kind == ItemKind::Symlink && (follow || !ahead.is_empty()) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Miss::Loop);
                    }
                    if item.link.starts_with(b"/") {
                        at = ROOT;
                    }
                    ahead.push(&item.link);
                }
                _ => at = found,
            }
        }
        Ok(at)
    }

    /// The same for what has to be a directory.
    pub(super) fn resolve_directory(&self, path: &[u8], steps: &mut u64) -> Result<Id, Miss> {
        let id = self.resolve(path, true, steps)?;
        if self.inode(id).directory.is_some() { Ok(id) } else { Err(Miss::NotDirectory) }
    }
}
