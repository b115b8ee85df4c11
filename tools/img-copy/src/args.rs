use clap::{ArgAction, Parser, ValueEnum};
use cli::{Common, ProgressArgs, Result};
use image::{Choice, Format, Location};
use img_pull::{Connection, Transfer};
use oci::Platform;
use std::path::PathBuf;

/// Copy images between registries, layouts, archives, directories and the store
///
/// Blobs go straight from one place to the other, several at a time, each hashed on its way; those that are there are not copied
/// again, and between repositories of one registry they are mounted without passing through here. Manifests keep their bytes, so
/// the copy has the same digest.
#[derive(Debug, Parser)]
#[command(name = "img-copy", version, args_override_self = true)]
#[command(after_help = "Places:
  docker://REF                  a registry
  NAME, store:NAME              the store
  oci:DIR[:NAME]                an OCI image layout
  oci-archive:FILE[:NAME]       the same in a tar; FILE - is stdout
  docker-archive:FILE[:REF]     what docker save writes
  dir:DIR                       a file for each blob

Examples:
  img-copy docker://debian:12 docker://registry.example/base:12
  img-copy --platform linux/arm64 docker://debian:12 oci:debian:arm64
  img-copy --all-tags docker://localhost:5000/app docker://registry.example/app
  img-copy oci-archive:app.tar docker://localhost:5000/app:1
  img-copy docker://debian:12 docker-archive:-:debian:12 | docker load
  img-ls -q 'team/*' | xargs -I{} img-copy {} docker://registry.example/{}")]
pub struct Args {
    /// Where the image is
    #[arg(value_name = "SOURCE")]
    pub source: String,

    /// Where it goes to; a place without a name takes the image's own
    #[arg(value_name = "DESTINATION")]
    pub destination: String,

    /// Of several images, copy the one for this platform
    ///
    /// By default all are copied; into the store and into docker's archives, which have one image under a name, it is this machine's.
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms")]
    pub platform: Option<String>,

    /// Copy the images for all platforms, into the store too
    #[arg(short = 'a', long, visible_alias = "all")]
    pub all_platforms: bool,

    /// Copy every tag of the source's repository to the destination's
    #[arg(long)]
    pub all_tags: bool,

    /// Write manifests in this format, which changes their digests
    #[arg(short = 'f', long, value_enum, value_name = "FORMAT")]
    pub format: Option<FormatName>,

    #[command(flatten)]
    pub transfer: Transfer,

    /// As --tls-verify, for the source only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub src_tls_verify: Option<bool>,

    /// As --tls-verify, for the destination only
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", action = ArgAction::Set)]
    pub dest_tls_verify: Option<bool>,

    /// Write the digest of what was copied to this file
    #[arg(long, value_name = "FILE")]
    pub digest_file: Option<PathBuf>,

    /// Print what would be copied and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// No progress bars; print only digests
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub progress: ProgressArgs,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatName {
    Oci,
    /// Docker's image manifest version 2, schema 2
    #[value(alias = "v2s2")]
    Docker,
}

cli::tool!(Args, "img-copy", common, quiet);

impl Args {
    pub fn choice(&self, destination: &Location) -> Result<Choice> {
        Ok(match &self.platform {
            Some(text) => Choice::One(Platform::parse(text)?),
            None if destination.holds_one_platform() && !self.all_platforms => Choice::One(Platform::host()),
            None => Choice::All,
        })
    }

    pub fn format(&self) -> Option<Format> {
        self.format.map(|format| match format {
            FormatName::Oci => Format::Oci,
            FormatName::Docker => Format::Docker,
        })
    }

    /// For one side, which may have its own word on certificates.
    pub fn client(&self, tls_verify: Option<bool>) -> Result<registry::Client> {
        let tls_verify = tls_verify.unwrap_or(self.transfer.connection.tls_verify);
        Connection { tls_verify, ..self.transfer.connection.clone() }.client()
    }
}
