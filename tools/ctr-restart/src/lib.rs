//! End containers and run them again.
#![forbid(unsafe_code)]

use chosen::Chosen;
use cli::{Context, Fault, Kind, Result};
use ctr_create::edited::{Difference, difference};
use ctr_stop::{Plan, StopFlags};
use record::Record;
use serde_json::{Value, json};
use shim::{Client, Request};
use std::time::Duration;
use store::{ContainerDir, Status, Store, Subject, Who};

/// End containers and run them again
///
/// One that runs is sent its stop signal and, if it has not ended in time, KILL; then it runs again in the same network
/// namespace, with its addresses and published ports. One that does not run is started. A record that was edited is applied
/// between the two runs, which a running container would refuse.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-restart",
    version,
    after_help = "Examples:\n  ctr-restart -t 30 web\n  ctr-inspect web | jq -c '.config.env += [\"DEBUG=1\"]' | ctr-restart"
)]
pub struct Args {
    /// Every container, those that do not run too
    #[arg(short, long, conflicts_with_all = ["containers", "running"])]
    pub all: bool,

    /// Every container that runs
    #[arg(long, conflicts_with = "containers")]
    pub running: bool,

    #[command(flatten)]
    pub stopping: StopFlags,

    #[command(flatten)]
    pub chosen: Chosen,
}

cli::tool!(Args, "ctr-restart", chosen.output.common, chosen.output.quiet);

/// Beyond the time a container has to end, for KILL to do its work and for the new run to begin.
const PATIENCE: Duration = Duration::from_secs(30);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let signal = args.stopping.signal()?;
    let store = Store::from_env()?;
    let wanted = |status| args.all || matches!(status, Status::Running | Status::Paused | Status::Restarting);
    let subjects = args.chosen.subjects_or_all(context, &store, args.all || args.running, wanted)?;
    if args.chosen.output.dry_run {
        context.each(subjects, |context, subject| {
            let dir = subject.find(&store)?;
            let steps =
                steps(&dir, &subject, signal, args.stopping.timeout).map_err(|f| f.on(dir.id.as_str()))?;
            context.print_steps(Some(&dir.id), &steps)
        });
        return Ok(());
    }
    let warnings = std::sync::Mutex::new(Vec::new());
    let warn = |id: &str, text: &str| {
        if let Ok(mut list) = warnings.lock() {
            list.push((id.to_owned(), text.to_owned()));
        }
    };
    chosen::act(context, &store, subjects, 32, |dir, subject| {
        restart(&store, dir, subject, signal, args.stopping.timeout, &|text| warn(&dir.id, text))
    });
    for (id, text) in warnings.into_inner().unwrap_or_default() {
        context.warn(&id, &text);
    }
    Ok(())
}

/// How a container gets to its next run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// It does not run.
    Start,
    /// Its shim does it, and the network namespace stays.
    InPlace,
    /// Something has to be made anew between the runs: the bundle, or the attachment for other ports.
    Anew,
}

fn way(dir: &ContainerDir, subject: &Subject) -> Result<Way> {
    if !ctr_stop::runs(dir)? {
        return Ok(Way::Start);
    }
    let stored = dir.load()?;
    let config = stored.config()?;
    let edited = match subject {
        Subject::Record(record) if record.contains("config") => {
            difference(&stored, record, &mut record.config()?)? != Difference::Nothing
        }
        _ => false,
    };
    let joins = [&config.network, &config.pid, &config.ipc];
    // Whom it joins may be another process by now.
    let joined = joins.into_iter().flatten().any(|mode| mode.starts_with("container:"));
    if !edited && (!joined || config.auto_remove) && dir.has_shim() {
        return Ok(Way::InPlace);
    }
    if config.auto_remove && dir.has_shim() {
        return Err(Fault::conflict("the container removes itself when it ends, so it cannot be changed")
            .hint("restart it as it is, or make another one"));
    }
    Ok(Way::Anew)
}

fn restart(
    store: &Store,
    dir: &ContainerDir,
    subject: &Subject,
    signal: Option<i32>,
    timeout: Option<i64>,
    warn: &dyn Fn(&str),
) -> Result<Record> {
    match way(dir, subject)? {
        Way::Start => start(store, dir, subject, warn)?,
        Way::InPlace => {
            let plan = Plan::of(&dir.load()?, signal, timeout)?;
            match in_place(dir, &plan) {
                // It ended by itself a moment ago.
                Err(Refused::Otherwise(fault))
                    if fault.kind() == Kind::Conflict && !ctr_stop::runs(dir)? && dir.exists() =>
                {
                    start(store, dir, subject, warn)?;
                }
                // Its shim was killed at this very moment, or just before.
                Err(Refused::Otherwise(fault))
                    if fault.kind() == Kind::Retryable && dir.exists() && shim::lost_shim(dir) =>
                {
                    ctr_stop::stop(dir, subject, signal, timeout)?;
                    start(store, dir, subject, warn)?;
                }
                // Who has stopped it wants it to stay so, though this tool may learn of that only when it has ended.
                Err(Refused::Overtaken(fault) | Refused::Otherwise(fault)) => return Err(fault),
                Ok(()) => {}
            }
        }
        Way::Anew => {
            ctr_stop::stop(dir, subject, signal, timeout)?;
            start(store, dir, subject, warn)?;
        }
    }
    let mut record = subject.current(dir)?;
    let stored = dir.load()?;
    store.event(&Who::container(&stored), "restart", Value::Null);
    if let Some(config) = stored.raw("config") {
        record.set_raw("config", config.to_owned())?;
    }
    Ok(record)
}

/// Why a shim has not run its container again.
enum Refused {
    /// By a stop.
    Overtaken(Fault),
    Otherwise(Fault),
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Refused {
        Refused::Otherwise(fault)
    }
}

fn in_place(dir: &ContainerDir, plan: &Plan) -> std::result::Result<(), Refused> {
    let ended = || Fault::new(Kind::Retryable, "the container has just ended");
    let client = Client::connect(dir)?.ok_or_else(ended)?;
    if let Some(patience) = plan.timeout.and_then(|timeout| timeout.checked_add(PATIENCE)) {
        client.limit_patience(patience)?;
    }
    let timeout = plan.timeout.map(|timeout| timeout.as_secs());
    match client.request_raw(&Request::Restart { signal: plan.signal, timeout }, &[])?.error {
        None => Ok(()),
        Some(failure) if failure.message == shim::OVERTAKEN => {
            Err(Refused::Overtaken(failure.into_fault().on(dir.id.as_str())))
        }
        Some(failure) => Err(Refused::Otherwise(failure.into_fault().on(dir.id.as_str()))),
    }
}

fn start(store: &Store, dir: &ContainerDir, subject: &Subject, warn: &dyn Fn(&str)) -> Result<()> {
    let record = match subject {
        Subject::Record(record) => Some(&**record),
        Subject::Name(_) => None,
    };
    // What its shim has not let go of yet is not there to be started.
    let client = ctr_start::make_ready(store, dir, record, &mut |text| warn(text))?;
    match client {
        Some(client) => ctr_start::start(&client, dir).map(drop).map_err(|(fault, _)| fault),
        None => Ok(()),
    }
}

/// What would be done, for `--dry-run`.
fn steps(
    dir: &ContainerDir,
    subject: &Subject,
    signal: Option<i32>,
    timeout: Option<i64>,
) -> Result<Vec<Value>> {
    let way = way(dir, subject)?;
    let mut steps = Vec::new();
    if way != Way::Start {
        let plan = Plan::of(&dir.load()?, signal, timeout)?;
        steps.push(json!({"step": "signal", "signal": plan.signal}));
        steps.push(json!({"step": "wait", "seconds": plan.timeout.map(|timeout| timeout.as_secs())}));
        if plan.timeout.is_some() {
            steps.push(json!({"step": "signal", "signal": 9}));
        }
    }
    if way == Way::Anew {
        steps.push(json!({"step": "make_ready"}));
    }
    steps.push(json!({"step": "start"}));
    Ok(steps)
}
