//! What there is to do, every word final.

use crate::instruction::{Device, Healthcheck, Network, Security};
use crate::mount::{Ownership, Sharing};
use crate::{Finding, Lines, Source};
use serde::Serialize;

/// An instruction resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    pub lines: Lines,
    /// For people, variables expanded where they have values: `RUN apt-get install curl`.
    pub title: String,
    /// `created_by` of the image's history. `ONBUILD` has none.
    pub history: Option<String>,
    /// Whether the history's entry has a layer (`empty_layer` is the opposite).
    pub layer: bool,
    pub action: Action,
    /// What BuildKit would warn of that depends on values: variables that are not set, a relative `WORKDIR`, odd ports.
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Run(Run),
    Copy(Copy),
    Add(Add),
    /// Becomes `WorkingDir`; the directory is made if it is not there (0755, the image's user), but for `/`.
    Workdir(String),
    /// Of the image's configuration alone.
    Config(Change),
    /// `ARG`: nothing to do, later steps know it.
    Arg,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// What the instruction set; [`crate::Scope::env`] is the whole.
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Cmd(Vec<String>),
    /// `resets_cmd`: `Cmd` of the base goes, because this stage has set none itself.
    Entrypoint {
        argv: Vec<String>,
        resets_cmd: bool,
    },
    /// `80/tcp`, ranges written out.
    Expose(Vec<String>),
    User(String),
    Volume(Vec<String>),
    StopSignal(String),
    Shell(Vec<String>),
    Healthcheck(Healthcheck),
    /// Appended to `OnBuild`. (That of the base is used up, not inherited.)
    Onbuild(String),
    /// `author` of the image.
    Maintainer(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Run {
    /// The shell included.
    pub argv: Vec<String>,
    /// `NAME=value`: of the image and all `ARG`s in scope. With `argv` it is what the command's cache key depends on.
    pub env: Vec<String>,
    /// `NAME=value`, to be appended to `env` for the process and to be left out of keys and history.
    pub proxies: Vec<String>,
    /// Absolute.
    pub workdir: String,
    /// Empty: root.
    pub user: String,
    pub mounts: Vec<Mount>,
    pub network: Network,
    pub security: Security,
    pub devices: Vec<Device>,
    /// The script of a heredoc that begins with `#!`: `argv` names it. It is mounted read-only, not kept.
    pub script: Option<InlineFile>,
}

/// A file whose content is in the Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InlineFile {
    /// A script's absolute path; a name relative to the destination in `COPY` and `ADD`.
    pub path: String,
    pub mode: u32,
    pub content: String,
}

/// Targets are absolute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Mount {
    /// `path` is of the source, absolute. What is written to it is not kept.
    Bind { source: Source, path: String, target: String, read_only: bool },
    /// `source` and `path`: what a new cache begins with. `ownership` where it was asked for.
    Cache {
        id: String,
        sharing: Sharing,
        source: Source,
        path: String,
        target: String,
        read_only: bool,
        ownership: Option<Ownership>,
    },
    /// No limit where `size` is `None`.
    Tmpfs { target: String, size: Option<u64>, read_only: bool },
    /// As a file at `target`, as the variable `env`, or both.
    Secret { id: String, target: Option<String>, env: Option<String>, required: bool, ownership: Ownership },
    /// `env`: the first one's socket is `SSH_AUTH_SOCK`.
    Ssh { id: String, target: String, env: Option<String>, required: bool, ownership: Ownership },
}

/// What `COPY` and `ADD` share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Placement {
    /// Sources that are written in the Dockerfile.
    pub inline: Vec<InlineFile>,
    /// Absolute; `/` or `/.` at its end is kept, it says that it is a directory.
    pub destination: String,
    /// `user[:group]`, names or numbers.
    pub chown: Option<String>,
    pub chmod: Option<Chmod>,
    pub link: bool,
    /// Patterns relative to the sources.
    pub exclude: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chmod {
    /// At most 0o7777.
    Octal(u32),
    /// `u=rwX,go=rX`, checked.
    Symbolic(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Copy {
    pub from: Source,
    /// Patterns, from the root of the source.
    pub sources: Vec<String>,
    pub parents: bool,
    #[serde(flatten)]
    pub placement: Placement,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Add {
    pub sources: Vec<AddSource>,
    /// Of the one source, which is HTTP or git.
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    /// Where not given, local archives are unpacked and others are not.
    pub unpack: Option<bool>,
    #[serde(flatten)]
    pub placement: Placement,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AddSource {
    /// A pattern in the build's context.
    Local(String),
    Http(String),
    Git(String),
}
