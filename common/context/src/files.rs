//! Contexts: directories of files.

use crate::{Ignore, Memory, Options, Selection};
use fault::{Fault, Result};
use rustix::fd::OwnedFd;
use std::path::Path;

/// Files to choose from. Cheap to clone: all clones share one memory.
#[derive(Clone, Debug)]
pub struct Context {}

impl Context {
    /// A directory of the user's. Everything in it counts as root's, as with docker.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn directory(_path: &Path, _ignore: Ignore, _memory: Memory) -> Result<Context> {
        Err(Fault::failed("contexts are not there yet"))
    }

    /// The root of a stage, an image or a named context: owners are kept, absolute links lead to places in it.
    pub fn root(_root: OwnedFd) -> Context {
        Context {}
    }

    /// Files that are given with their names and contents, as heredocs are: mode 0644.
    pub fn inline(_files: Vec<(Vec<u8>, Vec<u8>)>) -> Context {
        Context {}
    }

    /// No files.
    pub fn empty() -> Context {
        Context {}
    }

    /// What COPY's sources mean.
    ///
    /// # Errors
    /// [`fault::Kind::NotFound`] for one that is not there (and says so if the ignore file hides it), [`fault::Kind::Input`] for a
    /// malformed pattern.
    pub fn select<S: AsRef<[u8]>>(&self, _sources: &[S], _options: &Options) -> Result<Selection> {
        Err(Fault::failed("selections are not there yet"))
    }

    /// A file's content, resolved in the context, whether ignored or not (Dockerfiles are read so); `None` if there is none.
    ///
    /// # Errors
    /// When it is longer than `limit` bytes, no file, or cannot be read.
    pub fn read(&self, _path: &str, _limit: u64) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Keeps what was learnt of the files for later builds.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&self) -> Result<()> {
        Ok(())
    }
}
