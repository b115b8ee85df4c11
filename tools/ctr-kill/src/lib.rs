//! Send a signal to running containers.
#![forbid(unsafe_code)]

use chosen::Chosen;
use cli::{Context, Fault, Kind, Result};
use record::Record;
use shim::{Client, Orphan, Request, Waited};
use std::time::{Duration, Instant};
use store::{ContainerDir, Status, Store, Subject};

/// Send a signal to running containers
///
/// The signal goes to the first process of each container. After KILL the container's end is waited for, so that
/// the next stage finds it ended.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-kill",
    version,
    after_help = "Examples:\n  ctr-kill -s HUP web\n  ctr-ls --filter label=batch | ctr-kill | ctr-rm"
)]
pub struct Args {
    /// Signal to send: a name with or without SIG, a number, RTMIN+n
    #[arg(short, long, value_name = "SIGNAL", default_value = "KILL")]
    pub signal: String,

    #[command(flatten)]
    pub chosen: Chosen,
}

cli::tool!(Args, "ctr-kill", chosen.output.common, chosen.output.quiet);

const SIGKILL: i32 = 9;
/// How long a killed container may take to end: processes in uninterruptible sleep delay it.
const PATIENCE: Duration = Duration::from_secs(10);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let signal = signal_flag(&args.signal)?;
    let store = Store::from_env()?;
    let subjects = args.chosen.subjects(context)?;
    if args.chosen.output.dry_run {
        context.each(subjects, |context, subject| {
            let dir = subject.find(&store)?;
            require_running(&dir)?;
            let step = serde_json::json!({"step": "signal", "container": dir.id, "signal": signal});
            context.print(&format!("{step}\n"))
        });
        return Ok(());
    }
    chosen::act(context, &store, subjects, 32, |dir, subject| kill_one(dir, subject, signal));
    Ok(())
}

fn require_running(dir: &ContainerDir) -> Result<()> {
    match shim::settled_status(dir)? {
        Status::Running | Status::Paused | Status::Restarting => Ok(()),
        status if Orphan::of(dir)?.is_none() => Err(not_running(dir, status)),
        _ => Ok(()),
    }
}

fn not_running(dir: &ContainerDir, status: Status) -> Fault {
    Fault::conflict(format!("not running, but {}", status.name())).on(dir.id.as_str())
}

fn kill_one(dir: &ContainerDir, subject: &Subject, signal: i32) -> Result<Record> {
    require_running(dir)?;
    let before = subject.current(dir)?;
    let deadline = Some(Instant::now() + PATIENCE);
    let Some(client) = Client::connect(dir)? else {
        return kill_orphan(dir, subject, signal);
    };
    // A connection of its own, made before the signal, so that the end cannot be missed.
    let watcher = if signal == SIGKILL { Client::connect(dir)? } else { None };
    let request = Request::Signal { signal, stop: ends(signal, &before)? };
    match ask(&client, watcher.as_ref(), &request) {
        // Killed at this very moment, be it before it was asked anything.
        Err(fault) if fault.kind() == Kind::Retryable && shim::lost_shim(dir) => {
            return kill_orphan(dir, subject, signal);
        }
        other => other?,
    }
    let Some(watcher) = watcher else { return subject.current(dir) };
    match watcher.exit_by(deadline)? {
        Waited::Ended(None) if shim::lost_shim(dir) && Orphan::of(dir)?.is_some() => {
            kill_orphan(dir, subject, signal)
        }
        Waited::Ended(exit) => {
            let exit = shim::outcome(exit, dir)?;
            shim::ended_record(subject, dir, before, &exit)
        }
        Waited::TimedOut => Err(Fault::retryable("it was sent SIGKILL and has not ended yet")),
    }
}

fn ask(client: &Client, watcher: Option<&Client>, request: &Request) -> Result<()> {
    if let Some(watcher) = watcher {
        watcher.subscribe()?;
    }
    client.limit_patience(PATIENCE)?;
    client.request(request, &[]).map(drop)
}

fn kill_orphan(dir: &ContainerDir, subject: &Subject, signal: i32) -> Result<Record> {
    // As long as it is dying it seems to look after the container still.
    if !shim::lost_shim(dir) {
        return Err(Fault::retryable("its shim does not answer").hint("ctr-rm --force ends it all the same"));
    }
    let Some(orphan) = Orphan::of(dir)? else {
        // With its shim, which was killed since it was looked at.
        return if signal == SIGKILL { subject.current(dir) } else { Err(not_running(dir, dir.status()?)) };
    };
    orphan.signal(signal)?;
    if signal == SIGKILL && !orphan.ended_by(Some(Instant::now() + PATIENCE))? {
        return Err(Fault::retryable("it was sent SIGKILL and has not ended yet"));
    }
    subject.current(dir)
}

/// Whether the user means the container to end, so that its restart policy is to let it: with KILL and with its own
/// stop signal. Any other signal may mean anything to the program.
fn ends(signal: i32, record: &Record) -> Result<bool> {
    Ok(signal == SIGKILL || signal == stop_signal(record)?)
}

/// The number of a signal given on the command line.
pub fn signal_flag(text: &str) -> Result<i32> {
    oci::wishes::signal(text)
        .map_err(|fault| Fault::usage(fault.to_string()).hint(fault.hint_text().unwrap_or_default()))
}

/// The container's stop signal: its own wish, else what ctr-create found in the image, else the image's, else TERM.
pub fn stop_signal(record: &Record) -> Result<i32> {
    let container = record.container()?.unwrap_or_default();
    let text = match record.config()?.stop_signal {
        Some(text) => Some(text),
        None => match container.extra.get("stop_signal").and_then(serde_json::Value::as_i64) {
            Some(number) => Some(number.to_string()),
            None => record.image()?.and_then(|image| {
                image.config.pointer("/config/StopSignal").and_then(|s| s.as_str()).map(str::to_owned)
            }),
        },
    };
    match text.filter(|text| !text.is_empty()) {
        Some(text) => oci::wishes::signal(&text).map_err(|fault| {
            fault.within("stop signal").on(container.id).hint("choose another with --signal")
        }),
        None => Ok(15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stop_signal_is_the_containers_then_the_images() {
        let parse = |text: &str| stop_signal(&Record::parse(text).unwrap());
        let image = r#""image":{"reference":"a","digest":"b","config":{"config":{"StopSignal":"SIGQUIT"}}}"#;
        assert_eq!(parse(&format!("{{{image}}}")).unwrap(), 3);
        assert_eq!(parse(&format!(r#"{{{image},"config":{{"stop_signal":"RTMIN+3"}}}}"#)).unwrap(), 37);
        assert_eq!(parse(r#"{"container":{"id":"a","name":"b","stop_signal":2}}"#).unwrap(), 2);
        assert_eq!(parse("{}").unwrap(), 15);
        assert_eq!(signal_flag("nope").unwrap_err().kind(), cli::Kind::Usage);
        assert_eq!(parse(r#"{"config":{"stop_signal":"x"}}"#).unwrap_err().kind(), cli::Kind::Input);
    }
}
