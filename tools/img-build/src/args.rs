//! The command line: docker's and buildah's names and meanings.

use crate::report::Form;
use crate::run_flags::{RunFlags, StepFlags, TellFlags};
use cli::{Common, Fault, OutputFormat, Result, Tool};
use ctr_commit::Dialect;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Build an image from a Dockerfile
///
/// The context is a directory, an archive or a Dockerfile on stdin (`-`), a git repository or a URL. Steps that were done before with the same
/// files, words and base are not done again. Files and times are made the same wherever and whenever the same is built: files are no newer
/// than the base image, a second more with every step (--timestamp, $SOURCE_DATE_EPOCH).
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-build",
    version,
    override_usage = "img-build [OPTIONS] [CONTEXT]",
    after_help = "Examples:\n  img-build -t me/app:1 . | img-push\n  img-build --target test --secret id=npm,src=$HOME/.npmrc .\n  img-build -q https://github.com/docker/getting-started.git | xargs ctr-run --rm\n  img-build -f - -t tools . <<< $'FROM debian:12\\nRUN apt-get update && apt-get install -y jq'\n  img-build --output type=local,dest=out --target artifacts .\n  img-build --cache-from type=local,src=ci-cache --cache-to type=local,dest=ci-cache,mode=max -t app .\n  img-build --print . | jq -r '.key + \" \" + .instruction'"
)]
pub struct Args {
    /// Directory, git or HTTP URL, or `-` for an archive or a Dockerfile on stdin [default: .]
    #[arg(value_name = "CONTEXT")]
    pub context: Option<String>,

    /// The Dockerfile; `-` reads it from stdin [default: CONTEXT/Dockerfile, then Containerfile]
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,

    /// Name of the image; several may be given
    #[arg(short, long, value_name = "REFERENCE")]
    pub tag: Vec<String>,

    /// Build up to this stage [default: the last one]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// Value of an ARG; without a value that of the variable of this name
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,

    /// Another context for COPY --from, mounts and FROM: a directory, a URL, docker-image://REFERENCE, oci-layout://DIR[:TAG|@DIGEST]
    #[arg(long, value_name = "NAME=CONTEXT")]
    pub build_context: Vec<String>,

    /// Platform of the image [default: this machine's]; of several the images become one index
    #[arg(long, value_name = "OS/ARCH[/VARIANT]", value_delimiter = ',')]
    pub platform: Vec<String>,

    #[command(flatten)]
    pub steps: StepFlags,

    /// Do the steps of this stage anew
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,

    #[command(flatten)]
    pub habits: Habits,

    #[command(flatten)]
    pub run: RunFlags,

    /// Allow to a Dockerfile what it may not by itself: network.host, security.insecure, device[=NAME]
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',', help_heading = "Commands")]
    pub allow: Vec<String>,

    /// Commands that run at once, of stages that do not need each other [default: as many as there are processors]
    #[arg(long, value_name = "NUMBER", help_heading = "Commands")]
    pub jobs: Option<usize>,

    /// Add a label
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Image")]
    pub label: Vec<String>,

    /// Add an annotation to the manifest
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Image")]
    pub annotation: Vec<String>,

    /// Media types of the manifest, its configuration and layers
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = Dialect::Oci, help_heading = "Image")]
    pub format: Dialect,

    /// Put all that is built into one layer on the base image's; the steps' own stay in the cache
    #[arg(long, help_heading = "Image")]
    pub squash: bool,

    /// Put all files into one layer, the base image's as well
    #[arg(long, conflicts_with = "squash", help_heading = "Image")]
    pub squash_all: bool,

    /// A cache that another build has written, or an image with one in it; several may be given
    #[arg(
        long,
        value_name = "type=local,src=DIR|type=registry,ref=REFERENCE|REFERENCE",
        help_heading = "Cache"
    )]
    pub cache_from: Vec<String>,

    /// Write the steps and their layers for other builds: a directory (an OCI layout), an artifact in a registry, or into the image; mode=max: of all stages
    #[arg(
        long,
        value_name = "type=local,dest=DIR|type=registry,ref=REFERENCE|type=inline[,mode=max]",
        help_heading = "Cache"
    )]
    pub cache_to: Vec<String>,

    /// json, table: form of what is printed. type=image|registry|docker|oci|local|tar|cacheonly[,dest=PATH][,name=REFERENCE]: what is made;
    /// DIR alone means type=local, `-` a tar on stdout
    #[arg(short, long, value_name = "FORMAT|EXPORT", help_heading = "Output")]
    pub output: Vec<String>,

    /// As --output type=registry
    #[arg(long, help_heading = "Output")]
    pub push: bool,

    /// As --output type=image, which is usual
    #[arg(long, help_heading = "Output")]
    pub load: bool,

    /// Write the image's id to this file
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub iidfile: Option<PathBuf>,

    /// Write digests and names to this file, as JSON
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    pub metadata_file: Option<PathBuf>,

    /// How the build is told of on stderr [default: $BUILDKIT_PROGRESS, or auto]
    #[arg(long, value_enum, value_name = "FORM", help_heading = "Output")]
    pub progress: Option<Form>,

    #[command(flatten)]
    pub tell: TellFlags,

    /// Print the steps, each with its key and whether it is cached, one JSON object a line, and build nothing
    #[arg(long, visible_alias = "dry-run", help_heading = "Output")]
    pub print: bool,

    /// Print what is odd in the Dockerfile, and build nothing
    #[arg(long, help_heading = "Output")]
    pub check: bool,

    /// Print the image's id only
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[arg(skip)]
    common: OnceLock<Common>,
}

/// What scripts for docker and buildah say of things that are as they want them in any case. Anything else is refused.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Habits {
    /// Containers of commands are removed
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    rm: Option<bool>,

    /// Those of commands that failed as well
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    force_rm: Option<bool>,

    /// Steps are in the cache
    #[arg(long, hide = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    layers: Option<bool>,

    /// No attestation of how it was built
    #[arg(long, hide = true, value_name = "WORDS")]
    provenance: Option<String>,

    /// No list of what is in it
    #[arg(long, hide = true, value_name = "WORDS")]
    sbom: Option<String>,
}

impl Habits {
    /// # Errors
    /// When something is wanted that is not so.
    pub fn check(&self) -> Result<()> {
        let fault = |what: &str, hint: &str| Err(Fault::usage(what.to_owned()).hint(hint));
        if self.rm == Some(false) {
            return fault(
                "--rm=false: containers of commands are removed",
                "the files of one that failed are kept, and the error tells how to enter them",
            );
        }
        if self.layers == Some(false) {
            return fault("--layers=false: each step has a layer", "--squash makes one of them");
        }
        for (name, value) in [("provenance", &self.provenance), ("sbom", &self.sbom)] {
            if value.as_deref().is_some_and(|value| value != "false") {
                return fault(
                    &format!("--{name}: attestations are not made"),
                    "--metadata-file, --print and img-history tell what was built and of what",
                );
            }
        }
        Ok(())
    }
}

impl Tool for Args {
    const NAME: &'static str = "img-build";

    fn common(&self) -> &Common {
        self.common.get_or_init(|| self.tell.common(&self.output))
    }

    fn quiet(&self) -> bool {
        self.quiet
    }
}

/// Of `--output`, what is about printing: the rest is about what is made.
pub fn form(text: &str) -> Option<OutputFormat> {
    match text {
        "json" => Some(OutputFormat::Json),
        "table" => Some(OutputFormat::Table),
        _ => None,
    }
}
