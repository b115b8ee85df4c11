//! Stop running containers.
#![forbid(unsafe_code)]

use chosen::Chosen;
use cli::{Context, Fault, Kind, Result};
use record::Record;
use shim::{Client, Deadline, Exit, Orphan, Request, Waited};
use std::time::{Duration, Instant};
use store::{ContainerDir, Status, Store, Subject, Who};

/// Stop running containers
///
/// Sends the container's stop signal (TERM unless it or its image says otherwise) and, if it has not ended in time,
/// KILL. Its restart policy does not start it again. Several containers are stopped at once. One that does not run is
/// left as it is.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-stop",
    version,
    after_help = "Examples:\n  ctr-stop -t 30 web\n  ctr-ls --filter ancestor=debian:12 | ctr-stop | ctr-rm"
)]
pub struct Args {
    #[command(flatten)]
    pub stopping: StopFlags,

    #[command(flatten)]
    pub chosen: Chosen,
}

/// How a container is asked to end, and how long.
#[derive(Clone, Debug, clap::Args)]
pub struct StopFlags {
    /// Signal to send first, instead of the container's stop signal
    #[arg(short, long, value_name = "SIGNAL")]
    pub signal: Option<String>,

    /// Seconds until KILL; -1 waits for ever [default: the container's stop timeout, else 10]
    #[arg(
        short = 't',
        long = "timeout",
        visible_alias = "time",
        value_name = "SECONDS",
        allow_negative_numbers = true,
        value_parser = clap::value_parser!(i64).range(-1..)
    )]
    pub timeout: Option<i64>,
}

impl StopFlags {
    /// The signal's number.
    pub fn signal(&self) -> Result<Option<i32>> {
        self.signal.as_deref().map(ctr_kill::signal_flag).transpose()
    }
}

cli::tool!(Args, "ctr-stop", chosen.output.common, chosen.output.quiet);

const SIGKILL: i32 = 9;
const DEFAULT_TIMEOUT: i64 = 10;
/// How long a container may take to end after KILL: processes in uninterruptible sleep delay it.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let signal = args.stopping.signal()?;
    let store = Store::from_env()?;
    let subjects = args.chosen.subjects(context)?;
    if args.chosen.output.dry_run {
        context.each(subjects, |context, subject| {
            let dir = subject.find(&store)?;
            let plan = Plan::of(&dir.load()?, signal, args.stopping.timeout)?;
            context.print(&plan.describe(&dir)?)
        });
        return Ok(());
    }
    let stop = |dir: &ContainerDir, subject: &Subject| {
        let ran = runs(dir)?;
        let record = stop(dir, subject, signal, args.stopping.timeout)?;
        if ran {
            store.event(&Who::container(&record), "stop", serde_json::Value::Null);
        }
        Ok(record)
    };
    chosen::act(context, &store, subjects, 256, stop);
    Ok(())
}

/// How one container is to be stopped.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub signal: i32,
    /// `None` waits for ever.
    pub timeout: Option<Duration>,
}

impl Plan {
    /// The flags win over the container's own wishes.
    pub fn of(record: &Record, signal: Option<i32>, timeout: Option<i64>) -> Result<Plan> {
        let signal = match signal {
            Some(signal) => signal,
            None => ctr_kill::stop_signal(record)?,
        };
        let seconds = match timeout {
            Some(seconds) => seconds,
            None => record.config()?.stop_timeout.unwrap_or(DEFAULT_TIMEOUT),
        };
        Ok(Plan { signal, timeout: u64::try_from(seconds).ok().map(Duration::from_secs) })
    }

    /// A time so far away that it cannot be reckoned is for ever.
    fn deadline(&self) -> Deadline {
        self.timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }

    fn describe(&self, dir: &ContainerDir) -> Result<String> {
        if !runs(dir)? {
            return Ok(String::new());
        }
        let step = |name, extra: &str, value: serde_json::Value| {
            let mut step = serde_json::json!({"step": name, "container": dir.id});
            step[extra] = value;
            format!("{step}\n")
        };
        let mut steps = step("signal", "signal", self.signal.into());
        steps += &step("wait", "seconds", self.timeout.map(|timeout| timeout.as_secs()).into());
        if self.timeout.is_some() {
            steps += &step("signal", "signal", SIGKILL.into());
        }
        Ok(steps)
    }
}

/// Whether there is anything to stop, an init that outlived its shim included.
pub fn runs(dir: &ContainerDir) -> Result<bool> {
    Ok(match shim::settled_status(dir)? {
        Status::Running | Status::Paused | Status::Restarting => true,
        Status::Created | Status::Exited => Orphan::of(dir)?.is_some(),
    })
}

/// Stops a container if it runs, and returns its record.
pub fn stop(
    dir: &ContainerDir,
    subject: &Subject,
    signal: Option<i32>,
    timeout: Option<i64>,
) -> Result<Record> {
    if !runs(dir)? {
        return subject.current(dir);
    }
    let before = subject.current(dir)?;
    // The container's own record decides, not what came through the pipe: that may be old.
    let plan = Plan::of(&dir.load()?, signal, timeout)?;
    let ended = if let (Some(client), Some(watcher)) = (Client::connect(dir)?, Client::connect(dir)?) {
        match stop_by_shim(&client, &watcher, dir, &plan) {
            // Killed at this very moment; what it looked after is still to be ended.
            Err(fault) if fault.kind() == Kind::Retryable && shim::lost_shim(dir) => {
                stop_orphan(dir, &plan)?;
                None
            }
            Ok(None) => {
                stop_orphan(dir, &plan)?;
                None
            }
            other => other?,
        }
    } else {
        stop_orphan(dir, &plan)?;
        None
    };
    let exit = shim::outcome(ended, dir)?;
    shim::ended_record(subject, dir, before, &exit)
}

fn stop_by_shim(client: &Client, watcher: &Client, dir: &ContainerDir, plan: &Plan) -> Result<Option<Exit>> {
    // Before the signal, so that the end cannot be missed.
    watcher.subscribe()?;
    client.limit_patience(PATIENCE)?;
    let mut signal = plan.signal;
    let mut deadline = plan.deadline();
    loop {
        match client.request(&Request::Signal { signal, stop: true }, &[]) {
            Ok(_) => {}
            // It has ended meanwhile.
            Err(_) if !runs(dir)? => {}
            Err(fault) => return Err(fault),
        }
        match watcher.exit_by(deadline)? {
            Waited::Ended(exit) => return Ok(exit),
            Waited::TimedOut if signal == SIGKILL => {
                return Err(Fault::retryable("it was sent SIGKILL and has not ended yet"));
            }
            Waited::TimedOut => {
                signal = SIGKILL;
                deadline = Some(Instant::now() + PATIENCE);
            }
        }
    }
}

fn stop_orphan(dir: &ContainerDir, plan: &Plan) -> Result<()> {
    // As long as it is dying it seems to look after the container still.
    if !shim::lost_shim(dir) {
        return Err(Fault::retryable("its shim does not answer").hint("ctr-rm --force ends it all the same"));
    }
    if let Some(orphan) = Orphan::of(dir)? {
        orphan.signal(plan.signal)?;
        if !orphan.ended_by(plan.deadline())? {
            orphan.signal(SIGKILL)?;
            if !orphan.ended_by(Some(Instant::now() + PATIENCE))? {
                return Err(Fault::retryable("it was sent SIGKILL and has not ended yet"));
            }
        }
    }
    shim::clear(dir, PATIENCE)
}
