//! The instructions with their arguments, as written: variables are expanded in a [`crate::Scope`].

mod flags;
mod health;
mod read;
mod run;
#[cfg(test)]
mod tests;

pub(crate) use read::stages;
pub use read::triggers;

use serde::Serialize;
use std::time::Duration;

/// Every instruction but `FROM`, which begins a [`crate::Stage`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Instruction {
    Add(Add),
    Arg(Vec<Arg>),
    Cmd(Command),
    Copy(Copy),
    Entrypoint(Command),
    Env(Vec<Pair>),
    /// Ports as written.
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<Pair>),
    Maintainer(String),
    /// The instruction of an image built on this one, as text for [`triggers`].
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

/// A variable that `--build-arg` sets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Arg {
    pub name: String,
    pub default: Option<String>,
    /// From the comments right above, `# NAME what it is for`.
    pub description: Option<String>,
}

/// `name=value`, or `name value` in the old form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    pub name: String,
    pub value: String,
    /// Without `=`.
    pub legacy: bool,
}

/// `["a", "b"]`, or words for a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    Exec(Vec<String>),
    Shell(String),
}

/// A file within the Dockerfile: `<<NAME`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Heredoc {
    pub name: String,
    /// `3<<NAME`.
    pub descriptor: Option<u32>,
    /// False where any of the name is quoted: nothing in the content means anything then.
    pub expand: bool,
    /// `<<-NAME`: tabs at the beginning of lines are dropped.
    pub chomp: bool,
    pub content: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    pub command: Command,
    pub heredocs: Vec<Heredoc>,
    pub mounts: Vec<crate::mount::Flag>,
    pub network: Network,
    pub security: Security,
    pub devices: Vec<Device>,
}

/// `--network`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    #[default]
    Default,
    None,
    Host,
}

/// `--security`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    #[default]
    Sandbox,
    Insecure,
}

/// `--device`: a CDI device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Device {
    pub name: String,
    pub required: bool,
}

/// What `COPY` and `ADD` share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    pub sources: Vec<String>,
    /// Sources that are written in the Dockerfile; tabs are dropped already where that was asked for.
    pub heredocs: Vec<Heredoc>,
    pub destination: String,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub link: bool,
    pub exclude: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copy {
    /// A stage, an image or a named context; the build's context if not given.
    pub from: Option<String>,
    pub parents: bool,
    #[serde(flatten)]
    pub placement: Placement,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Add {
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    pub unpack: Option<bool>,
    #[serde(flatten)]
    pub placement: Placement,
}

/// As an image's configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", "…"]`.
    pub test: Vec<String>,
    /// Zero is what was not given, here and below.
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}
