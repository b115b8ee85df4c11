//! Files from HTTP servers.

use crate::Context;
use fault::{Fault, Result};
use oci::Digest;
use std::path::PathBuf;
use store::Store;

/// Servers, and what was got from them before (`cache/`).
#[derive(Clone, Debug)]
pub struct Web {
    _client: registry::Client,
    _store: Store,
}

/// A file that was fetched.
#[derive(Clone, Debug)]
pub struct Page {
    /// The name it has for ADD: of the URL's path or of Content-Disposition.
    pub name: String,
    pub digest: Digest,
    /// Last-Modified, in seconds since 1970.
    pub modified: Option<i64>,
    pub size: u64,
    /// Its content, in the cache.
    pub path: PathBuf,
}

impl Web {
    pub fn new(store: &Store, client: registry::Client) -> Web {
        Web { _client: client, _store: store.clone() }
    }

    /// Fetches a URL, or finds that what was fetched before is still what it is.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] if it has another digest than demanded or is too long, [`fault::Kind::NotFound`] and the like as the server says.
    pub fn fetch(&self, _url: &str, _checksum: Option<&Digest>) -> Result<Page> {
        Err(Fault::failed("HTTP is not there yet"))
    }
}

impl Page {
    /// As a context of one file, mode 0600: what ADD copies. Its source is [`Page::name`].
    pub fn context(&self) -> Result<Context> {
        Ok(Context::empty())
    }
}
