use crate::Transfer;
use clap::{Parser, ValueEnum};
use cli::{Common, ProgressArgs, Result};
use oci::Platform;

/// Pull images from a registry into the store
///
/// Prints one record per image, with the section `image`: digest, platform, configuration and layers. What is in the
/// store already is not downloaded again.
#[derive(Debug, Parser)]
#[command(name = "img-pull", version, args_override_self = true)]
#[command(after_help = "Examples:
  img-pull debian:12 | img-unpack | ctr-create -- cat /etc/os-release | ctr-start --attach
  img-pull --policy missing localhost:5000/app:v1 | jq .image.config.config.Env
  img-pull --all-tags registry.example/app | jq -r .image.digest
  img-pull --platform linux/arm64 alpine | jq -r '.image.layers[].digest'
  img-pull --progress-fd 3 debian:12 3>&2 >image.json")]
pub struct Args {
    /// Images to pull, as docker writes them: debian, debian:12, ghcr.io/a/b:c, name@sha256:…
    ///
    /// Without any, records are read from stdin and `image.reference` of each is pulled.
    #[arg(value_name = "REF")]
    pub references: Vec<String>,

    /// Pull every tag of the repositories named, one record each
    #[arg(short, long)]
    pub all_tags: bool,

    /// Choose the image for this platform where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms")]
    pub platform: Option<String>,

    /// Pull the images for all platforms; the record tells of this machine's
    #[arg(long, visible_alias = "all")]
    pub all_platforms: bool,

    /// Unpack layers while they download, as img-unpack does afterwards
    #[arg(long, conflicts_with = "dry_run")]
    pub unpack: bool,

    /// When to ask the registry
    #[arg(long, value_enum, value_name = "POLICY", default_value_t)]
    pub policy: Policy,

    #[command(flatten)]
    pub transfer: Transfer,

    /// Print what would be downloaded and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print only the digests of the images
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub progress: ProgressArgs,

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

cli::tool!(Args, "img-pull", common, quiet);

impl Args {
    /// The platform wanted, and whether somebody asked for it.
    pub fn wanted_platform(&self) -> Result<(Platform, bool)> {
        match &self.platform {
            Some(text) => Ok((Platform::parse(text)?, true)),
            None => Ok((Platform::host(), false)),
        }
    }
}
