//! What starting would do, for `--dry-run`: looks, and changes nothing.

use crate::{Options, config_of, is_running, record_of, terminal};
use cli::{Context, Explain, Kind, Result};
use ctr_create::edited::{self, Edit, Rewrite};
use record::{Config, Record};
use serde::Serialize;
use serde_json::Value;
use std::path::PathBuf;
use store::{ContainerDir, Store, Subject};

/// One step, in the order in which they are done.
#[derive(Debug, Serialize)]
#[serde(tag = "step", rename_all = "snake_case")]
enum Step {
    /// Keep the ports the record wishes for.
    SaveRecord,
    MakeDirectory {
        path: PathBuf,
    },
    MakeVolume {
        name: String,
    },
    /// Write the specification anew: the record was edited, or what it joins may have changed.
    RewriteBundle,
    /// Make the waiting process again, from the new bundle.
    Recreate,
    /// Start ctr-shim: namespaces, control groups, root file system, a process that waits.
    SetUp,
    /// Run net-attach.
    AttachNetwork {
        networks: Vec<String>,
    },
    Attach {
        stdin: bool,
        stdout: bool,
        stderr: bool,
    },
    /// Let the waiting process execute the command.
    Execute(Box<Execute>),
}

/// As the specification's `process` says.
#[derive(Debug, Serialize)]
struct Execute {
    args: Value,
    env: Value,
    cwd: Value,
    user: Value,
    terminal: bool,
}

/// Prints what starting a container would do, and attaching with the options `attach` gives for its configuration.
pub fn print(
    context: &mut Context,
    store: &Store,
    subject: &Subject,
    attach: impl FnOnce(&Config) -> Result<Option<Options>>,
) -> Result<()> {
    let dir = subject.find(store)?;
    let steps = plan(store, &dir, record_of(subject), attach, &mut |warning| context.warn(&dir.id, warning));
    context.print_steps(Some(&dir.id), &steps.map_err(|fault| fault.on(dir.id.as_str()))?)
}

fn plan(
    store: &Store,
    dir: &ContainerDir,
    record: Option<&Record>,
    attach: impl FnOnce(&Config) -> Result<Option<Options>>,
    warn: &mut dyn FnMut(&str),
) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let stored = dir.load()?;
    let mut config = stored.config()?;
    let mut rewrite = None;
    if let (Some(record), Some(edited)) = (record, config_of(record)?) {
        match edited::edit(store, dir, record, edited.clone(), warn)? {
            Edit::Nothing => {}
            Edit::Ports => steps.push(Step::SaveRecord),
            Edit::Bundle(new) => rewrite = Some(*new),
        }
        config = edited;
    }
    let streams = attach(&config)?.as_ref().map(session).transpose()?;
    if is_running(dir)? {
        steps.extend(streams);
        return Ok(steps);
    }
    let waits = dir.has_shim();
    if rewrite.is_none() && !waits {
        rewrite = edited::refreshed(store, dir, warn)?;
    }
    let spec = match rewrite {
        Some(Rewrite { make_directories, make_volumes, spec }) => {
            steps.extend(make_directories.into_iter().map(|path| Step::MakeDirectory { path }));
            steps.extend(make_volumes.into_iter().map(|name| Step::MakeVolume { name }));
            steps.push(Step::RewriteBundle);
            steps.extend(waits.then_some(Step::Recreate));
            spec
        }
        None => stored_spec(dir)?,
    };
    if !waits {
        steps.push(Step::SetUp);
        let networks: Vec<String> = stored.networks()?.into_iter().map(|network| network.name).collect();
        steps.extend((!networks.is_empty()).then_some(Step::AttachNetwork { networks }));
    }
    steps.extend(streams);
    steps.push(execute(&spec["process"]));
    Ok(steps)
}

/// Fails where a session would.
fn session(options: &Options) -> Result<Step> {
    let stdin = if options.terminal { options.interactive } else { options.input.is_some() };
    if options.terminal && stdin {
        terminal::open()?;
    }
    Ok(Step::Attach { stdin, stdout: options.outputs[0], stderr: options.outputs[1] && !options.terminal })
}

fn stored_spec(dir: &ContainerDir) -> Result<Value> {
    let path = dir.bundle.join("config.json");
    let what = || format!("read {}", path.display());
    let text = std::fs::read(&path).explain(what)?;
    serde_json::from_slice(&text).explain_as(Kind::Input, what)
}

fn execute(process: &Value) -> Step {
    let member = |name: &str| process[name].clone();
    Step::Execute(Box::new(Execute {
        args: member("args"),
        env: member("env"),
        cwd: member("cwd"),
        user: member("user"),
        terminal: process["terminal"].as_bool().unwrap_or(false),
    }))
}
