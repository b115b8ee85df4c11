//! git repositories as sources.

use fault::{Fault, Result};
use store::{Scratch, Store};

/// A repository and what of it (`URL#ref:subdir`, `URL?ref=…&subdir=…`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitUrl {
    /// What git is told.
    pub remote: String,
    /// Branch, tag, full reference or commit; `None`: the default branch.
    pub reference: Option<String>,
    pub subdir: Option<String>,
    /// Start of the commit's hash that is demanded.
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
}

impl GitUrl {
    /// `None` for what does not mean a repository.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] for one with a query that is not understood.
    pub fn parse(_text: &str) -> Result<Option<GitUrl>> {
        Ok(None)
    }
}

/// Files of one commit.
#[derive(Debug)]
pub struct Checkout {
    /// The whole directory; removed when this is dropped.
    pub scratch: Scratch,
    /// In it, what was asked for.
    pub path: std::path::PathBuf,
    /// The commit's hash.
    pub commit: String,
}

/// The commit a URL stands for now, without fetching files where the server tells: the cache key.
///
/// # Errors
/// When git is missing, or says no.
pub fn resolve(_url: &GitUrl) -> Result<String> {
    Err(Fault::failed("git is not there yet"))
}

/// Fetches one commit, no more history than is needed.
///
/// # Errors
/// As [`resolve`]; [`fault::Kind::Input`] when the commit is not the one demanded.
pub fn checkout(_store: &Store, _url: &GitUrl) -> Result<Checkout> {
    Err(Fault::failed("git is not there yet"))
}
