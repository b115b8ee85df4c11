//! Client of the OCI distribution API: manifests and blobs of a repository, checked before they are handed out; uploads,
//! taken up again where they were cut; lists.
//!
//! Everything a registry says is hostile: sizes are bounded and counted, digests computed, redirects followed
//! without credentials, waiting limited. Nothing is set up before it is needed: a plain connection to a registry
//! on this machine loads no certificates.
#![forbid(unsafe_code)]

mod auth;
mod auth_file;
mod blob;
mod certificates;
mod credentials;
mod endpoint;
mod forward;
mod hosts_toml;
mod listing;
pub mod login;
mod paths;
mod proxy;
mod reader;
mod referrers;
mod registries_conf;
mod repository;
mod retry;
mod route;
mod scope;
mod transport;
mod upload;
mod web;

pub use blob::Sink;
pub use listing::Referrer;
pub use reader::BlobReader;
pub use repository::{Fetched, Repository, still_wrong};
pub use upload::{Mount, Session, Stored};
pub use web::{Page, percent_decoded};

use fault::Result;
use oci::Reference;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How registries are talked to.
#[derive(Clone, Debug)]
pub struct Options {
    /// Certificates are checked and plain connections made to this machine only.
    pub tls_verify: bool,
    /// How long a registry may be silent: while connecting, before an answer, within one.
    pub timeout: Duration,
    /// How often a request that failed for a passing reason is sent again without anything having come.
    pub retries: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { tls_verify: true, timeout: Duration::from_secs(15), retries: 4 }
    }
}

/// Connections shared by the repositories of a process.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<transport::Transport>,
}

impl Client {
    pub fn new(options: Options) -> Client {
        Client { transport: Arc::new(transport::Transport::new(options)) }
    }

    /// The same with the certificates of one folder for every host, in place of those in `certs.d`.
    pub fn with_certificates(options: Options, folder: Option<PathBuf>) -> Client {
        let mut transport = transport::Transport::new(options);
        transport.cert_dir = folder;
        Client { transport: Arc::new(transport) }
    }

    /// The repository a reference is in, for reading: mirrors are asked first. Nothing is sent yet.
    pub fn repository(&self, reference: &Reference) -> Repository {
        Repository::new(Arc::clone(&self.transport), reference)
    }

    /// The same at the registry itself, whatever mirrors have and wherever one reads from in its place.
    /// [`Repository::for_writing`] says in addition that it is going to be written to.
    pub fn repository_itself(&self, reference: &Reference) -> Repository {
        Repository::itself(Arc::clone(&self.transport), reference.domain(), reference.path())
    }

    /// The names of a registry's repositories (distribution spec, "Catalog"; many registries do not tell).
    ///
    /// # Errors
    /// As [`Repository::tags`].
    pub fn catalog(&self, domain: &str) -> Result<Vec<String>> {
        Repository::itself(Arc::clone(&self.transport), domain, "").catalog()
    }
}
