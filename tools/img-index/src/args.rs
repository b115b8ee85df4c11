use clap::Parser;
use cli::{Common, Fault, ProgressArgs, Result};
use image::Format;
use img_copy::FormatName;
use img_pull::Transfer;
use oci::Platform;

/// Make one image of several, one for each platform
///
/// An index (docker's manifest list) under NAME in the store, of images that are there or anywhere else; what is missing is copied in, and nothing is
/// changed in the images, unless --format says so. Platforms are those of the images' configurations. An image for a platform the index has
/// already takes the other's place. Everything is there before the name is given.
#[derive(Debug, Parser)]
#[command(
    name = "img-index",
    version,
    override_usage = "img-index [OPTIONS] NAME IMAGE...\n       img-index [OPTIONS] NAME --add IMAGE | --remove ENTRY | --annotate ENTRY ...\n       ... | img-index [OPTIONS] NAME"
)]
#[command(after_help = "An ENTRY is a platform, a digest, or a beginning of one.

Examples:
  img-index app:1 app:1-amd64 app:1-arm64
  img-index app:1 docker://localhost:5000/app:amd64 oci:build/arm64
  img-index base:12 --platform linux/amd64,linux/arm64 docker://debian:12
  img-index app:1 --add oci-archive:riscv.tar --remove linux/386
  img-index app:1 --annotate linux/arm --variant v6 --annotation org.opencontainers.image.version=1
  img-inspect app:1 | jq .image.platforms
  img-copy -a app:1 docker://registry.example/app:1")]
pub struct Args {
    /// What the index is called in the store
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Images to make it of: names, ids, docker://REF, oci:DIR and others of img-copy's places; without any, and without changes, they are
    /// read from stdin as records
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Put another image into the index there is
    #[arg(long, value_name = "IMAGE")]
    pub add: Vec<String>,

    /// Take an image out of it
    #[arg(long, value_name = "ENTRY")]
    pub remove: Vec<String>,

    /// Go on with the index that has the name, if one has
    #[arg(long, conflicts_with = "replace")]
    pub amend: bool,

    /// Take the name from what has it
    #[arg(long)]
    pub replace: bool,

    /// Of an image for several platforms, those for these; by default the one for this machine
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',', conflicts_with = "all_platforms")]
    pub platform: Vec<String>,

    /// Of an image for several platforms, all
    #[arg(short = 'a', long, visible_alias = "all")]
    pub all_platforms: bool,

    /// Write the index and its images' manifests in this format, which changes the digests of those that have the other
    ///
    /// By default images stay as they are, and the index is docker's list if all of them are docker's, and OCI's index else.
    #[arg(short = 'f', long, value_enum, value_name = "FORMAT")]
    pub format: Option<FormatName>,

    /// Give the index this annotation; without a value, take it away
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub annotation: Vec<String>,

    /// The entry the following are about; without, they are about what is put in
    #[arg(long, value_name = "ENTRY", help_heading = "Of an entry")]
    pub annotate: Vec<String>,

    /// Operating system
    #[arg(long, help_heading = "Of an entry")]
    pub os: Option<String>,

    /// Architecture, Go's name of it
    #[arg(long, help_heading = "Of an entry")]
    pub arch: Option<String>,

    /// Variant of the architecture; empty for none
    #[arg(long, help_heading = "Of an entry")]
    pub variant: Option<String>,

    /// Version of the operating system
    #[arg(long, value_name = "VERSION", help_heading = "Of an entry")]
    pub os_version: Option<String>,

    /// What the operating system has to have
    #[arg(long, value_name = "FEATURE", value_delimiter = ',', help_heading = "Of an entry")]
    pub os_features: Vec<String>,

    /// What the processor has to have
    #[arg(long, value_name = "FEATURE", value_delimiter = ',', help_heading = "Of an entry")]
    pub features: Vec<String>,

    /// Give the entry this annotation; without a value, take it away
    #[arg(long, value_name = "KEY[=VALUE]", help_heading = "Of an entry")]
    pub entry_annotation: Vec<String>,

    #[command(flatten)]
    pub transfer: Transfer,

    /// Print what would be done as one step a line, and change nothing
    #[arg(long)]
    pub dry_run: bool,

    /// No progress bars; print only the digest of the index
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub progress: ProgressArgs,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-index", common, quiet);

/// What becomes of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing may have it.
    New,
    /// An index may have it, which is gone on with.
    Amend,
    /// An index has to have it.
    Change,
    Replace,
}

impl Args {
    /// # Errors
    /// [`cli::Kind::Usage`] for options that contradict each other.
    pub fn start(&self) -> Result<Start> {
        let changes = !(self.add.is_empty() && self.remove.is_empty() && self.annotate.is_empty());
        let bare = self.images.is_empty() && (self.format.is_some() || !self.annotation.is_empty());
        let start = match (changes || bare, self.amend, self.replace) {
            (_, _, true) if changes => {
                return Err(Fault::usage("--replace makes a new index, in which there is nothing to change"));
            }
            (_, _, true) => Start::Replace,
            (_, true, _) => Start::Amend,
            (true, ..) if !self.images.is_empty() => {
                return Err(Fault::usage("images to make an index of and changes of one that is there")
                    .hint("--add IMAGE puts another one in; --amend takes both"));
            }
            (true, ..) => Start::Change,
            _ => Start::New,
        };
        Ok(start)
    }

    /// Whether images come from stdin.
    pub fn reads_records(&self) -> bool {
        let changes = [&self.add, &self.remove, &self.annotate, &self.annotation];
        self.images.is_empty()
            && (self.replace || changes.iter().all(|list| list.is_empty()) && self.format.is_none())
    }

    pub fn platforms(&self) -> Result<Vec<Platform>> {
        self.platform.iter().map(|text| Platform::parse(text)).collect()
    }

    pub fn format(&self) -> Option<Format> {
        self.format.map(|format| match format {
            FormatName::Oci => Format::Oci,
            FormatName::Docker => Format::Docker,
        })
    }

    /// Whether something is said about entries.
    pub fn describes_entries(&self) -> bool {
        let words = [&self.os, &self.arch, &self.variant, &self.os_version];
        let lists = [&self.os_features, &self.features, &self.entry_annotation];
        words.iter().any(|word| word.is_some()) || lists.iter().any(|list| !list.is_empty())
    }
}
