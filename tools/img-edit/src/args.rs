//! The command line.

use clap::ValueEnum;
use cli::Common;
use std::path::PathBuf;

/// Change images' configuration
///
/// Makes a new image of the same layers: a new configuration and a new manifest, which keep every member they had in its place. What the record
/// has in image.config counts, as jq changed it; flags come on top. The new image has the name of --tag, or none and is known by
/// its digest; the old one stays as it is.
///
/// Its history gets one more step. With --created, or SOURCE_DATE_EPOCH set, the same edit gives the same image. An edit that changes nothing makes no image.
#[derive(Debug, Default, clap::Parser)]
#[command(
    name = "img-edit",
    version,
    after_help = "Examples:\n  img-pull app:1 | img-edit --env DEBUG=1 --tag app:debug\n  img-inspect app:1 | jq '.image.config.config.Env += [\"A=b\"]' | img-edit -t app:2\n  img-edit app:1 --entrypoint '[\"/app\",\"--serve\"]' --unset cmd --label version=2 -t app:1\n  img-edit app:1 --old-base debian:12.1 --new-base debian:12.2 -t app:1\n  img-edit app:1 --created 0 --user 1000 -q"
)]
pub struct Args {
    /// Reference, id or a beginning of it; without one, records are read from stdin
    #[arg(value_name = "IMAGE")]
    pub image: Option<String>,

    /// Name of the new image
    #[arg(short, long, value_name = "NAME")]
    pub tag: Option<String>,

    /// Take a member away: env.NAME, label.KEY, annotation.KEY, expose.PORT, volume.PATH, or entrypoint, cmd, user, workdir, stop-signal,
    /// healthcheck, onbuild, shell, author, variant
    #[arg(long, value_name = "MEMBER")]
    pub unset: Vec<String>,

    /// Set a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,

    /// Set a label
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,

    /// Set an annotation of the manifest
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,

    /// Program that is always run: one word, or a JSON list of words
    #[arg(long, value_name = "WORDS")]
    pub entrypoint: Option<String>,

    /// Command, or arguments of the entrypoint: one word, or a JSON list of words
    #[arg(long, value_name = "WORDS")]
    pub cmd: Option<String>,

    /// User and group, names or numbers
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// Say that a port is listened on
    #[arg(long, value_name = "PORT[-LAST][/PROTOCOL]")]
    pub expose: Vec<String>,

    /// Say that a directory is a volume
    #[arg(long, value_name = "DIR")]
    pub volume: Vec<String>,

    /// Signal that stops a container
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,

    /// Command of the shell form of instructions, a JSON list of words
    #[arg(long, value_name = "WORDS")]
    pub shell: Option<String>,

    /// Add an instruction for builds that stand on this image
    #[arg(long, value_name = "INSTRUCTION")]
    pub onbuild: Vec<String>,

    /// Command that checks a container's health, run by a shell
    #[arg(long, value_name = "COMMAND", help_heading = "Health check")]
    pub health_cmd: Option<String>,

    /// Time between two checks
    #[arg(long, value_name = "DURATION", help_heading = "Health check")]
    pub health_interval: Option<String>,

    /// Time a check may take
    #[arg(long, value_name = "DURATION", help_heading = "Health check")]
    pub health_timeout: Option<String>,

    /// Time a container has to come up
    #[arg(long, value_name = "DURATION", help_heading = "Health check")]
    pub health_start_period: Option<String>,

    /// Time between two checks while it comes up
    #[arg(long, value_name = "DURATION", help_heading = "Health check")]
    pub health_start_interval: Option<String>,

    /// Failures in a row that make it unhealthy
    #[arg(long, value_name = "N", help_heading = "Health check")]
    pub health_retries: Option<u32>,

    /// No health check, not even that of an image below
    #[arg(long, conflicts_with = "health_cmd", help_heading = "Health check")]
    pub no_healthcheck: bool,

    /// Who made the image
    #[arg(long, value_name = "TEXT", help_heading = "The image")]
    pub author: Option<String>,

    /// When it was made: RFC 3339 or seconds since 1970
    #[arg(long, value_name = "TIME", help_heading = "The image")]
    pub created: Option<String>,

    /// Operating system it is for
    #[arg(long, value_name = "OS", help_heading = "The image")]
    pub os: Option<String>,

    /// Processor it is for
    #[arg(long, value_name = "ARCHITECTURE", help_heading = "The image")]
    pub arch: Option<String>,

    /// Variant of the processor
    #[arg(long, value_name = "VARIANT", help_heading = "The image")]
    pub variant: Option<String>,

    /// Apply an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION", help_heading = "The image")]
    pub change: Vec<String>,

    /// Take the whole configuration from this file instead; `-` is stdin
    #[arg(long, value_name = "FILE", help_heading = "The image")]
    pub config: Option<PathBuf>,

    /// Media types of the manifest, its configuration and layers; by default they stay
    #[arg(long, value_enum, value_name = "FORMAT", help_heading = "The image")]
    pub format: Option<Format>,

    /// Put the image's own layers on this image's, in place of those of --old-base
    #[arg(long, value_name = "IMAGE", help_heading = "The image")]
    pub new_base: Option<String>,

    /// The image it stands on now; by default the one its annotation org.opencontainers.image.base.digest or …name tells
    #[arg(long, value_name = "IMAGE", requires = "new_base", help_heading = "The image")]
    pub old_base: Option<String>,

    /// No step in the history
    #[arg(long, help_heading = "The image")]
    pub no_history: bool,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

/// Whose media types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Oci,
    Docker,
}

cli::tool!(Args, "img-edit", common, quiet);

impl Args {
    /// What was asked for, for the history: always in the same order, and without what says nothing of the image.
    pub fn words(&self) -> String {
        let mut words = vec!["img-edit".to_owned()];
        let mut add = |name: &str, values: &mut dyn Iterator<Item = &String>| {
            for value in values {
                words.push(format!("--{name}"));
                words.push(quoted(value));
            }
        };
        add("new-base", &mut self.new_base.iter());
        add("unset", &mut self.unset.iter());
        add("change", &mut self.change.iter());
        add("env", &mut self.env.iter());
        add("label", &mut self.label.iter());
        add("annotation", &mut self.annotation.iter());
        add("entrypoint", &mut self.entrypoint.iter());
        add("cmd", &mut self.cmd.iter());
        add("user", &mut self.user.iter());
        add("workdir", &mut self.workdir.iter());
        add("expose", &mut self.expose.iter());
        add("volume", &mut self.volume.iter());
        add("stop-signal", &mut self.stop_signal.iter());
        add("shell", &mut self.shell.iter());
        add("onbuild", &mut self.onbuild.iter());
        add("health-cmd", &mut self.health_cmd.iter());
        add("health-interval", &mut self.health_interval.iter());
        add("health-timeout", &mut self.health_timeout.iter());
        add("health-start-period", &mut self.health_start_period.iter());
        add("health-start-interval", &mut self.health_start_interval.iter());
        add("health-retries", &mut self.health_retries.map(|n| n.to_string()).iter());
        add("author", &mut self.author.iter());
        add("created", &mut self.created.iter());
        add("os", &mut self.os.iter());
        add("arch", &mut self.arch.iter());
        add("variant", &mut self.variant.iter());
        if self.no_healthcheck {
            words.push("--no-healthcheck".to_owned());
        }
        words.join(" ")
    }
}

/// As a shell would need it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
