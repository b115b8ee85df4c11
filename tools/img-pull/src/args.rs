use clap::{ArgAction, Parser, ValueEnum};
use cli::{Common, Fault, Result, Tool};
use oci::Platform;
use std::path::PathBuf;
use std::time::Duration;

/// Pull images from a registry into the store
///
/// Prints one record per image, with the section `image`: digest, platform, configuration and layers. What is in the
/// store already is not downloaded again.
#[derive(Debug, Parser)]
#[command(name = "img-pull", version, args_override_self = true)]
#[command(after_help = "Examples:
  img-pull debian:12 | img-unpack | ctr-create -- cat /etc/os-release | ctr-start --attach
  img-pull --policy missing localhost:5000/app:v1 | jq .image.config.config.Env
  img-pull --platform linux/arm64 alpine | jq -r '.image.layers[].digest'
  img-pull --progress-fd 3 debian:12 3>&2 >image.json")]
pub struct Args {
    /// Images to pull, as docker writes them: debian, debian:12, ghcr.io/a/b:c, name@sha256:…
    ///
    /// Without any, records are read from stdin and `image.reference` of each is pulled.
    #[arg(value_name = "REF")]
    pub references: Vec<String>,

    /// Choose the image for this platform where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,

    /// When to ask the registry
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    pub policy: Policy,

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

    /// Download this many layers at once
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub parallel: u8,

    /// Print what would be downloaded and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print only the digests of the images
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Write progress to this descriptor, one JSON object a line
    #[arg(long, value_name = "FD", help_heading = "Output")]
    pub progress_fd: Option<i32>,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// Ask what the tag stands for now, download what is new
    #[default]
    Always,
    /// Ask only if the image is not in the store
    Missing,
    /// Never ask: fail if the image is not in the store
    Never,
    /// As always, but use what is in the store if the registry cannot be reached
    Newer,
}

impl Tool for Args {
    const NAME: &'static str = "img-pull";

    fn common(&self) -> &Common {
        &self.common
    }

    fn quiet(&self) -> bool {
        self.quiet
    }
}

impl Args {
    /// The platform wanted, and whether somebody asked for it.
    pub fn wanted_platform(&self) -> Result<(Platform, bool)> {
        match &self.platform {
            Some(text) => Ok((Platform::parse(text)?, true)),
            None => Ok((Platform::host(), false)),
        }
    }

    pub fn registry_options(&self) -> Result<registry::Options> {
        // Also false for what is not a number.
        if !(0.01..=86_400.0).contains(&self.timeout) {
            return Err(Fault::usage(format!(
                "--timeout {}: not between 0.01 and 86400 seconds",
                self.timeout
            )));
        }
        let timeout = Duration::from_secs_f64(self.timeout);
        Ok(registry::Options { tls_verify: self.tls_verify, timeout, retries: self.retry })
    }
}
