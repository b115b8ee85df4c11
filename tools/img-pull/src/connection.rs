//! How registries are talked to, as flags: the same for every tool that does.

use clap::{ArgAction, Args};
use cli::{Fault, Result};
use registry::{Client, Options};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, Args)]
pub struct Connection {
    /// Check certificates, and speak plain HTTP to registries on this machine only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value_t = true,
          default_missing_value = "true", action = ArgAction::Set)]
    pub tls_verify: bool,

    /// Use the certificates in this directory in place of those in certs.d
    #[arg(long, value_name = "DIR")]
    pub cert_dir: Option<PathBuf>,

    /// Give up on a registry that is silent for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0)]
    pub timeout: f64,

    /// Try this often again when a connection breaks or the registry is busy
    #[arg(long, value_name = "COUNT", default_value_t = 4)]
    pub retry: u32,
}

impl Connection {
    /// # Errors
    /// [`cli::Kind::Usage`] for a timeout that is none.
    pub fn client(&self) -> Result<Client> {
        Ok(Client::with_certificates(self.options()?, self.cert_dir.clone()))
    }

    pub(crate) fn options(&self) -> Result<Options> {
        // Also false for what is not a number.
        if !(0.01..=86_400.0).contains(&self.timeout) {
            return Err(Fault::usage(format!(
                "--timeout {}: not between 0.01 and 86400 seconds",
                self.timeout
            )));
        }
        let timeout = Duration::from_secs_f64(self.timeout);
        Ok(Options { tls_verify: self.tls_verify, timeout, retries: self.retry })
    }
}

/// The same for tools that carry images to or from registries.
#[derive(Clone, Debug, Args)]
pub struct Transfer {
    #[command(flatten)]
    pub connection: Connection,

    /// Move this many blobs at once
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    parallel: u8,
}

impl Transfer {
    /// Blobs at once.
    pub fn lanes(&self) -> usize {
        usize::from(self.parallel)
    }
}
