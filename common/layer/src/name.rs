//! What the name of an entry makes of it: a whiteout, a mark, or a name (layer.md, "Whiteouts").

use fault::{Fault, Result};

const WHITEOUT: &[u8] = b".wh.";
/// Marks of AUFS itself, in very old images; `.wh..wh..opq` is the one with a meaning.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// An entry by its name.
#[derive(Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// What it seems to be; the last component.
    Plain(&'a [u8]),
    /// `.wh.NAME` hides `NAME` of lower layers in the directory.
    Whiteout { dir: &'a [u8], hidden: &'a [u8] },
    /// `.wh..wh..opq` hides all that lower layers have in the directory.
    Opaque { dir: &'a [u8] },
    /// No part of any image's file system.
    Ignored,
}

/// `path` is clean.
pub fn read(path: &[u8]) -> Result<Name<'_>> {
    let (dir, name) = split(path);
    if dir.split(|b| *b == b'/').any(|component| component.starts_with(AUFS)) {
        return Ok(Name::Ignored);
    }
    if dir.split(|b| *b == b'/').any(|component| component.starts_with(WHITEOUT)) {
        return Err(Fault::input("it lies in a directory named like a whiteout"));
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(Name::Plain(name)) };
    if name == OPAQUE {
        return Ok(Name::Opaque { dir });
    }
    if name.starts_with(AUFS) {
        return Ok(Name::Ignored);
    }
    // What would be hidden is the directory itself, or what it lies in.
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(Fault::input("it is a whiteout that names nothing"));
    }
    Ok(Name::Whiteout { dir, hidden })
}

/// Where a symbolic link points is nobody's business: it is never followed out of the root. But it has to point.
pub fn check_symlink(to: &[u8]) -> Result<()> {
    if to.is_empty() || to.contains(&0) || to.len() > crate::limits::MAX_PATH {
        return Err(Fault::input("it is a symbolic link to nothing a link can point to"));
    }
    Ok(())
}

/// Parent and last component.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// A path in a directory; the root is the empty path.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(dir.len() + name.len() + 1);
    path.extend_from_slice(dir);
    if !dir.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Whether these attributes belong to overlayfs: an image has no say in those.
pub fn is_overlays(xattr: &[u8]) -> bool {
    xattr.starts_with(b"trusted.overlay.") || xattr.starts_with(b"user.overlay.")
}
