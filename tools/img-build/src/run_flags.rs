//! Flags that `img-build` and `step` share: what commands are run with, how layers are made of what they write, what is told of it.

use crate::build::Options;
use crate::images::Pull;
use cli::{Common, ErrorFormat, Explain, Fault, Result};
use ctr_commit::Compression;
use record::{Config, Quantity};
use std::path::PathBuf;

/// What steps stand on, and what is made of them.
#[derive(Clone, Debug, clap::Args)]
pub struct StepFlags {
    /// When a registry is asked for the images to stand on
    #[arg(long, value_enum, value_name = "POLICY", num_args = 0..=1, require_equals = true,
          default_value = "missing", default_missing_value = "always", help_heading = "Image")]
    pub pull: Pull,

    /// How new layers are packed
    #[arg(long, value_enum, value_name = "PACKING", default_value_t = Compression::Gzip, help_heading = "Image")]
    pub compression: Compression,

    /// The time of everything that is made, in seconds since 1970; `now`: files keep their times [default: worked out from the image below]
    #[arg(long, alias = "source-date-epoch", value_name = "SECONDS|now", help_heading = "Image")]
    pub timestamp: Option<String>,

    /// Do every step anew, whatever the cache has
    #[arg(long, help_heading = "Cache")]
    pub no_cache: bool,
}

/// How it is told what happens; and the process that runs a command.
#[derive(Clone, Debug, clap::Args)]
pub struct TellFlags {
    /// Write progress to this descriptor, one JSON object a line
    #[arg(long, value_name = "FD", help_heading = "Output")]
    pub progress_fd: Option<i32>,

    /// How errors are written to stderr
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, help_heading = "Output")]
    pub error_format: ErrorFormat,

    /// Runs one command, for the tool itself; the value is for whoever looks for its process
    #[arg(long, hide = true, value_name = "CONTAINER", require_equals = true)]
    pub run_step: Option<PathBuf>,
}

impl TellFlags {
    /// What all tools have; `output` may be the form of what is printed, or something else.
    pub fn common(&self, output: &[String]) -> Common {
        let output = output.iter().find_map(|text| crate::args::form(text));
        Common { output, error_format: self.error_format }
    }
}

#[derive(Clone, Debug, Default, clap::Args)]
pub struct RunFlags {
    /// A secret for commands; it is in no layer, no history and no log
    #[arg(long, value_name = "id=ID[,src=FILE|,env=NAME]", help_heading = "Commands")]
    pub secret: Vec<String>,

    /// An ssh agent's socket for commands [default socket: $SSH_AUTH_SOCK]
    #[arg(long, value_name = "ID[=SOCKET]", num_args = 0..=1, require_equals = true, default_missing_value = "default", help_heading = "Commands")]
    pub ssh: Vec<String>,

    /// Network of the commands: default, none, host, or one made by net-create
    #[arg(long, value_name = "NETWORK", help_heading = "Commands")]
    pub network: Option<String>,

    /// A line for the commands' /etc/hosts
    #[arg(long, value_name = "NAME:ADDRESS", help_heading = "Commands")]
    pub add_host: Vec<String>,

    /// Group the commands' control groups are made in
    #[arg(long, value_name = "PATH", help_heading = "Commands")]
    pub cgroup_parent: Option<String>,

    /// Resource limits of the commands
    #[arg(long, value_name = "NAME=SOFT[:HARD]", help_heading = "Commands")]
    pub ulimit: Vec<String>,

    /// Size of the commands' /dev/shm
    #[arg(long, value_name = "BYTES", help_heading = "Commands")]
    pub shm_size: Option<String>,

    #[command(flatten)]
    pub limits: ctr_create::limits::LimitFlags,
}

impl RunFlags {
    /// # Errors
    /// [`cli::Kind::Usage`] for what is malformed or cannot be had, before anything is built.
    pub fn options(&self) -> Result<Options> {
        let quantity = |text: &Option<String>| text.clone().map(Quantity::Text);
        let run = Config {
            add_host: self.add_host.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            ulimits: self.ulimit.clone(),
            shm_size: quantity(&self.shm_size),
            ..self.limits.asked()
        };
        oci::wishes::Wishes::parse(&run)?;
        let mut options = Options { network: self.network.clone(), run, ..Options::default() };
        for text in &self.secret {
            let (id, source) = secret(text)?;
            options.secrets.insert(id, source);
        }
        for text in &self.ssh {
            let (id, socket) = ssh(text)?;
            options.ssh.insert(id, socket);
        }
        Ok(options)
    }
}

/// `id=ID[,src=FILE|,env=NAME]`: docker's. Without a source it is a variable of that name, or else a file.
fn secret(text: &str) -> Result<(String, String)> {
    let wrong = |why: &str| {
        Fault::usage(format!("--secret \"{text}\": {why}")).hint("id=ID,src=FILE or id=ID,env=VARIABLE")
    };
    let (mut id, mut source) = (None, None);
    let mut is_variable = None;
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| wrong(&format!("\"{field}\" has no value")))?;
        match key {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => {
                source = Some(value);
                is_variable = Some(true);
            }
            "type" if value == "env" => is_variable = Some(true),
            "type" if value == "file" => is_variable = Some(false),
            "type" => return Err(wrong("type is file or env")),
            _ => return Err(wrong(&format!("there is no \"{key}\""))),
        }
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("id is missing"))?;
    let is_variable = is_variable.unwrap_or_else(|| source.is_none() && std::env::var_os(id).is_some());
    let source = source.unwrap_or(id);
    if is_variable {
        if std::env::var_os(source).is_none() {
            return Err(wrong(&format!("the variable {source} is not set")));
        }
        return Ok((id.to_owned(), format!("env={source}")));
    }
    let path = std::path::absolute(source).explain(|| format!("find {source}"))?;
    if !path.is_file() {
        return Err(Fault::not_found(format!("--secret \"{text}\": there is no file {}", path.display())));
    }
    Ok((id.to_owned(), format!("src={}", path.display())))
}

/// `ID[=SOCKET]`.
fn ssh(text: &str) -> Result<(String, PathBuf)> {
    let (id, socket) = if let Some((id, socket)) = text.split_once('=') {
        (id, PathBuf::from(socket))
    } else {
        let socket = std::env::var_os("SSH_AUTH_SOCK").ok_or_else(|| {
            Fault::usage(format!("--ssh {text}: $SSH_AUTH_SOCK is not set"))
                .hint("eval $(ssh-agent); ssh-add; or --ssh ID=SOCKET")
        })?;
        (text, PathBuf::from(socket))
    };
    let is_socket =
        socket.metadata().is_ok_and(|status| std::os::unix::fs::FileTypeExt::is_socket(&status.file_type()));
    if !is_socket {
        return Err(Fault::usage(format!("--ssh {text}: {} is no socket of an agent", socket.display()))
            .hint("a key is given to an agent with ssh-add"));
    }
    Ok((id.to_owned(), socket))
}
