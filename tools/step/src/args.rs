//! The command line.

use cli::{Common, Tool};
use img_build::{RunFlags, StepFlags, TellFlags};
use std::sync::OnceLock;

/// Skip a command whose inputs have not changed
///
/// In a pipe of image records the command runs in a container on the image and what it changes becomes a layer, as with RUN in a Dockerfile.
/// By itself (stdin a terminal, --host, --output) the command runs on this machine. It is skipped when it ran before with the same words,
/// variables (-e), inputs (--input, --copy), keys (--key) and image: then what it made is taken from the cache.
#[derive(Debug, clap::Parser)]
#[command(
    name = "step",
    version,
    override_usage = "step --host [OPTIONS] [--] COMMAND...\n       ... | step [OPTIONS] [--] [COMMAND...]",
    after_help = "Examples:\n  img-pull debian:12 | step -- apt-get update | step --input src -- make -C src | img-tag app:1 | img-push\n  img-pull node:22 | step -w /app --copy package.json:/app/ --cache npm:/root/.npm -- npm ci | step --copy .:/app --change 'CMD [\"node\",\"/app\"]' | img-tag web\n  step --input src --input Makefile --output build/app -- make\n  step --host --key \"$(date +%F)\" -- ./download-lists\n  img-pull debian:12 | step --dry-run -- apt-get update | jq .cached"
)]
pub struct Args {
    /// The command and its words; there may be none where --copy or --change is given
    #[arg(value_name = "COMMAND", trailing_var_arg = true)]
    pub command: Vec<String>,

    /// What it is called in messages; on this machine, what it is known by in the place of the working directory
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,

    /// A file or directory the result depends on (.dockerignore is heeded); in a container it is shown read-only [default target: the same path]
    #[arg(long, value_name = "PATH[:TARGET]")]
    pub input: Vec<String>,

    /// A variable for the command, which its result depends on; without a value it is this environment's
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// Something else the result depends on: a version, a date
    #[arg(long, value_name = "TEXT")]
    pub key: Vec<String>,

    /// Run on this machine
    #[arg(long)]
    pub host: bool,

    /// A file or directory the command makes on this machine, which comes back from the cache; json, table: form of what is printed
    #[arg(long, value_name = "PATH|FORMAT")]
    pub output: Vec<String>,

    /// Print the key and whether the cache has it, one JSON object a step, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// The image, in the place of records on stdin; pulled if it is not in the store
    #[arg(long, value_name = "IMAGE", help_heading = "Image")]
    pub from: Option<String>,

    #[command(flatten)]
    pub steps: StepFlags,

    /// Copy into the image before the command runs, as COPY does; a layer each
    #[arg(long, value_name = "SRC:DST", help_heading = "Image")]
    pub copy: Vec<String>,

    /// Change the configuration afterwards: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, WORKDIR …
    #[arg(long, value_name = "INSTRUCTION", help_heading = "Image")]
    pub change: Vec<String>,

    /// A directory that outlives the step and is in no layer [default id: the target]
    #[arg(long, value_name = "[ID:]TARGET", help_heading = "Commands")]
    pub cache: Vec<String>,

    /// Working directory of the command [default: the image's]
    #[arg(short, long, value_name = "DIR", help_heading = "Commands")]
    pub workdir: Option<String>,

    /// User the command runs as [default: the image's]
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "Commands")]
    pub user: Option<String>,

    #[command(flatten)]
    pub run: RunFlags,

    #[command(flatten)]
    pub tell: TellFlags,

    /// Do not say what was skipped; print ids only
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[arg(skip)]
    common: OnceLock<Common>,
}

impl Args {
    /// What is to come back from the cache.
    pub fn outputs(&self) -> impl Iterator<Item = &String> {
        self.output.iter().filter(|text| img_build::output_form(text).is_none())
    }

    /// An option that means something in a container only, if one is given.
    pub fn of_images(&self) -> Option<&'static str> {
        let run = &self.run;
        let given = [
            ("--from", self.from.is_some()),
            ("--copy", !self.copy.is_empty()),
            ("--change", !self.change.is_empty()),
            ("--timestamp", self.steps.timestamp.is_some()),
            ("--cache", !self.cache.is_empty()),
            ("--workdir", self.workdir.is_some()),
            ("--user", self.user.is_some()),
            ("--secret", !run.secret.is_empty()),
            ("--ssh", !run.ssh.is_empty()),
            ("--network", run.network.is_some()),
            ("--add-host", !run.add_host.is_empty()),
            ("--cgroup-parent", run.cgroup_parent.is_some()),
            ("--ulimit", !run.ulimit.is_empty()),
            ("--shm-size", run.shm_size.is_some()),
            ("the limits of a container", run.limits.asked() != record::Config::default()),
        ];
        given.into_iter().find(|(_, is_given)| *is_given).map(|(name, _)| name)
    }

    /// What people know it by.
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| crate::words::line(&self.command))
    }
}

impl Tool for Args {
    const NAME: &'static str = "step";
    const USAGE_STATUS: u8 = 125;

    fn common(&self) -> &Common {
        self.common.get_or_init(|| self.tell.common(&self.output))
    }

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn own_failure_status(&self) -> Option<u8> {
        Some(125)
    }
}
