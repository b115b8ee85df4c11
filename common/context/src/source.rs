//! What a build's argument, or a source of ADD, means.

use crate::git::GitUrl;
use crate::web::Web;
use fault::{Fault, Result};
use std::io::Read;
use std::path::PathBuf;
use store::{Scratch, Store};

/// Where a whole context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `-`: an archive, or a Dockerfile and nothing else.
    Stdin,
    Directory(PathBuf),
    Git(GitUrl),
    /// An archive, or a Dockerfile and nothing else.
    Url(String),
}

impl Source {
    /// What an argument means.
    ///
    /// # Errors
    /// As [`GitUrl::parse`].
    pub fn of(_argument: &str) -> Result<Source> {
        Ok(Source::Stdin)
    }

    /// Brings it here.
    ///
    /// # Errors
    /// When that fails, or it is too large.
    pub fn fetch(&self, _with: Fetching<'_>) -> Result<Fetched> {
        Err(Fault::failed("contexts are not there yet"))
    }
}

/// What fetching takes.
pub struct Fetching<'a> {
    pub store: &'a Store,
    pub web: &'a Web,
    pub stdin: &'a mut dyn Read,
}

/// A context that is here.
#[derive(Debug)]
pub enum Fetched {
    /// A directory, which is removed with its scratch if it has one. Ignore files in it count.
    Directory { path: PathBuf, scratch: Option<Scratch>, commit: Option<String> },
    /// A Dockerfile's text; the context is empty.
    Dockerfile(Vec<u8>),
}

/// Where a source of ADD is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddSource {
    Local,
    Url,
    Git(GitUrl),
}

impl AddSource {
    /// What a source of ADD means. COPY takes local ones only.
    ///
    /// # Errors
    /// As [`GitUrl::parse`].
    pub fn of(_source: &str) -> Result<AddSource> {
        Ok(AddSource::Local)
    }
}
