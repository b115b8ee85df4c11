use clap::{Parser, ValueEnum};
use cli::{Common, Fault, ProgressArgs, Result};
use img_pull::Transfer;
use oci::Platform;
use oci::manifest::Compression;
use std::path::PathBuf;

/// Push images from the store to a registry
///
/// With one name, that is where the images of the records on stdin go; with two, the first says which image of the store.
/// Without any, every record's image goes where its `image.reference` says. What the registry has already is not sent. Prints
/// a record per image, with reference and digest as they are at the registry.
#[derive(Debug, Parser)]
#[command(
    name = "img-push",
    version,
    args_override_self = true,
    override_usage = "img-push [OPTIONS] IMAGE DESTINATION\n       ... | img-push [OPTIONS] [DESTINATION]"
)]
#[command(after_help = "Examples:
  img-push app:1 registry.example/team/app:1
  img-pull debian:12 | img-push localhost:5000/debian:12
  img-ls 'registry.example/*' --output json | img-push
  img-push --compression zstd --compression-level 19 app:1 registry.example/team/app:1-zstd
  img-push --all-platforms --digest-file digest app:1 registry.example/team/app:1")]
pub struct Args {
    /// The image, by reference, id or a beginning of it, and where it goes; or only where it goes
    ///
    /// One name alone is the destination of the records on stdin. Where none can come, since stdin is a terminal or /dev/null, it
    /// is the image of that name, and goes where its name says.
    #[arg(value_name = "IMAGE DESTINATION", num_args = 0..=2)]
    pub names: Vec<String>,

    /// How layers are packed that are packed otherwise; by default they stay as they are
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub compression: Option<Format>,

    /// How hard to try: 0 to 9 for gzip, 1 to 22 for zstd
    #[arg(long, value_name = "N", requires = "compression")]
    pub compression_level: Option<u8>,

    /// Pack layers anew even if they are packed so already
    #[arg(long, requires = "compression")]
    pub force_compression: bool,

    /// Push the image for this platform where the store has an index of several
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", conflicts_with = "all_platforms")]
    pub platform: Option<String>,

    /// Push the index and all images in it, all of which the store has to have
    #[arg(long)]
    pub all_platforms: bool,

    #[command(flatten)]
    pub transfer: Transfer,

    /// Write the digests of what was pushed to this file, one a line
    #[arg(long, value_name = "FILE")]
    pub digest_file: Option<PathBuf>,

    /// Ask the registry what it lacks, print what would be sent and send nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print only the digests at the registry
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub progress: ProgressArgs,

    #[command(flatten)]
    pub common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Gzip,
    Zstd,
    /// Plain tar
    None,
}

/// How layers are packed anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    pub compression: Compression,
    pub level: u8,
    /// Those too that are packed so already.
    pub all: bool,
}

/// Which of several platforms.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// The image as it has its name.
    Named,
    Platform(Platform),
    All,
}

cli::tool!(Args, "img-push", common, quiet);

impl Args {
    pub fn packing(&self) -> Result<Option<Packing>> {
        let Some(format) = self.compression else { return Ok(None) };
        let (compression, usual, levels) = match format {
            Format::Gzip => (Compression::Gzip, 6, 0..=9),
            Format::Zstd => (Compression::Zstd, 3, 1..=22),
            Format::None => (Compression::None, 0, 0..=0),
        };
        let level = self.compression_level.unwrap_or(usual);
        if !levels.contains(&level) {
            return Err(Fault::usage(format!(
                "--compression-level {level}: not between {} and {}",
                levels.start(),
                levels.end()
            )));
        }
        Ok(Some(Packing { compression, level, all: self.force_compression }))
    }

    pub fn wanted(&self) -> Result<Wanted> {
        match &self.platform {
            Some(text) => Ok(Wanted::Platform(Platform::parse(text)?)),
            None if self.all_platforms => Ok(Wanted::All),
            None => Ok(Wanted::Named),
        }
    }
}
