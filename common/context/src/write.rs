//! What was chosen, written into a root.

use crate::{Chmod, Selection};
use fault::{Fault, Result};
use rustix::fd::BorrowedFd;

/// Whose the files are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ownership {
    /// As chosen: a local context's are root's, those of stages and images keep theirs.
    #[default]
    Keep,
    To {
        uid: u32,
        gid: u32,
    },
}

/// When they were modified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Times {
    #[default]
    Keep,
    /// Seconds since 1970 for everything that is written or made (`SOURCE_DATE_EPOCH`).
    At(i64),
}

/// Where files go, and as what.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The layer's root: an overlay, or an empty directory for `--link`.
    pub root: BorrowedFd<'a>,
    /// From the root on; a slash at its end (or `.`) means a directory.
    pub destination: &'a [u8],
    pub ownership: Ownership,
    pub chmod: Option<&'a Chmod>,
    pub times: Times,
    /// ADD: files that are archives are unpacked into the destination.
    pub unpack: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files, directories and all else.
    pub files: u64,
    pub bytes: u64,
    /// What is no file to copy: sockets.
    pub skipped: u64,
    /// Files that were not any more what the selection's digest says: what was written must not be kept under it.
    pub changed: Vec<String>,
}

impl Selection {
    /// Puts the files into a root. Nothing outside of it is touched, wherever links in it lead.
    ///
    /// # Errors
    /// [`fault::Kind::Conflict`] for a file where a directory is and a directory where a file is; what the system says.
    pub fn write(&self, _target: &Target<'_>) -> Result<Written> {
        Err(Fault::failed("writing is not there yet"))
    }
}
