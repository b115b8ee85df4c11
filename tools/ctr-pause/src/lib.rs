//! Stop the processes of containers where they are.
#![forbid(unsafe_code)]

use chosen::Chosen;
use cli::{Context, Fault, Result};
use record::Record;
use shim::{Client, Orphan, Request};
use std::time::Duration;
use store::{ContainerDir, Status, Store, Subject};

/// Stop the processes of containers where they are
///
/// Every process is frozen by the kernel, between two instructions, and knows nothing of it; memory, files and network stay as
/// they are. ctr-unpause lets them run on. ctr-stop and ctr-kill end a paused container as any other.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-pause",
    version,
    after_help = "Examples:\n  ctr-pause db && tar -c /srv/db | zstd >db.tar.zst; ctr-unpause db\n  ctr-ls --filter label=batch | ctr-pause -q"
)]
pub struct Args {
    /// Every container that runs
    #[arg(short, long, conflicts_with = "containers")]
    pub all: bool,

    #[command(flatten)]
    pub chosen: Chosen,
}

cli::tool!(Args, "ctr-pause", chosen.output.common, chosen.output.quiet);

/// How long a container's processes may take to stop is up to the shim; this is for one that does not answer.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    act(Verb::Pause, &args.chosen, args.all, context)
}

/// What is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Pause,
    Unpause,
}

impl Verb {
    /// The status of containers it is for.
    fn wants(self) -> Status {
        match self {
            Verb::Pause => Status::Running,
            Verb::Unpause => Status::Paused,
        }
    }

    fn status_after(self) -> &'static str {
        match self {
            Verb::Pause => Status::Paused.name(),
            Verb::Unpause => Status::Running.name(),
        }
    }

    fn request(self) -> Request {
        match self {
            Verb::Pause => Request::Pause,
            Verb::Unpause => Request::Unpause,
        }
    }

    fn step(self) -> &'static str {
        match self {
            Verb::Pause => "pause",
            Verb::Unpause => "unpause",
        }
    }
}

/// Does so to containers, and prints their records.
pub fn act(verb: Verb, chosen: &Chosen, all: bool, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects = chosen.subjects_or_all(context, &store, all, |status| status == verb.wants())?;
    if chosen.output.dry_run {
        context.each(subjects, |context, subject| {
            let dir = subject.find(&store)?;
            check(verb, &dir)?;
            context.print_steps(Some(&dir.id), &[serde_json::json!({"step": verb.step()})])
        });
        return Ok(());
    }
    chosen::act(context, &store, subjects, 32, |dir, subject| turn(verb, dir, subject));
    Ok(())
}

fn turn(verb: Verb, dir: &ContainerDir, subject: &Subject) -> Result<Record> {
    check(verb, dir)?;
    let Some(client) = Client::connect(dir)? else {
        turn_orphan(verb, dir)?;
        return subject.current(dir);
    };
    client.limit_patience(PATIENCE)?;
    client.request(&verb.request(), &[])?;
    subject.current(dir)
}

/// Of a container that outlived its shim.
fn turn_orphan(verb: Verb, dir: &ContainerDir) -> Result<()> {
    let ended = || Fault::conflict("the container has just ended");
    let mut state = dir.survivor()?.ok_or_else(ended)?;
    let group = Orphan::of(dir)?.ok_or_else(ended)?.cgroup()?;
    // The order a shim keeps: what is told to be paused is.
    verb.status_after().clone_into(&mut state.status);
    match verb {
        Verb::Pause => group.freeze()?,
        Verb::Unpause => group.thaw()?,
    }
    dir.write_live_state(&state)
}

/// docker's words. The shim, which knows for certain, looks again.
fn check(verb: Verb, dir: &ContainerDir) -> Result<()> {
    let fault = match (verb, shim::settled_status(dir)?) {
        (Verb::Pause, Status::Running) | (Verb::Unpause, Status::Paused) => return Ok(()),
        (Verb::Pause, Status::Paused) => {
            Fault::conflict("the container is paused already").hint("ctr-unpause lets it run on")
        }
        (Verb::Pause, Status::Restarting) => {
            Fault::conflict("the container is restarting").hint("wait until it is running")
        }
        (Verb::Pause, status) => {
            Fault::conflict(format!("not running, but {}", status.name())).hint("ctr-start starts it")
        }
        (Verb::Unpause, status) => Fault::conflict(format!("not paused, but {}", status.name())),
    };
    Err(fault.on(dir.id.as_str()))
}
