//! Start containers, and attach to one.
#![forbid(unsafe_code)]

mod notify;
mod plan;
mod ready;
mod restartable;
pub mod session;
pub mod terminal;

pub use ready::{make_ready, network_again};
pub use session::{End, Options, Session};

use cli::{Common, Context, Fault, Result, Tool};
use record::{Config, Container, Record};
use shim::{Client, Reply, Request};
use std::os::fd::{AsFd, OwnedFd};
use store::{ContainerDir, Status, Store, Subject, Who};
use terminal::DetachKeys;

/// Start containers
///
/// Releases the process a container was created with; one that has ended is set up again first, on its network too.
/// With --attach the container's output is this tool's, and so is its exit status: 125 means that this
/// tool failed, 126 that the command could not be executed, 127 that it was not found.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-start",
    version,
    after_help = "Examples:
  img-pull debian:12 | img-unpack | ctr-create -- date | net-attach | ctr-start --attach
  ctr-start web
  ctr-ls --filter status=exited | ctr-start -q
  ctr-start --all-restartable   # at boot; scripts/install has a unit for it
  img-pull debian:12 | img-unpack | ctr-create -i -- wc -l | ctr-start -a --stdin-fd 3 3</etc/passwd"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Attach to stdout and stderr, wait, and end with the container's exit status
    #[arg(short, long)]
    pub attach: bool,

    /// Attach to stdin as well: the terminal's with a terminal, else this tool's own, which then carries no records
    #[arg(short, long)]
    pub interactive: bool,

    /// Take the container's stdin from descriptor N; stdin is left for records
    #[arg(long, value_name = "N")]
    pub stdin_fd: Option<i32>,

    /// Keys that detach from a terminal; empty for none
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT)]
    pub detach_keys: String,

    /// Do not pass signals on to the container
    #[arg(long)]
    pub no_sig_proxy: bool,

    /// Start those whose restart policy says so after a reboot: always, unless-stopped if not stopped by a user, on-failure if
    /// failed or cut off
    #[arg(long, conflicts_with_all = ["attach", "interactive", "stdin_fd", "containers"])]
    pub all_restartable: bool,

    /// Pass signals on to the container, unless it has a terminal
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true,
        action = clap::ArgAction::Set)]
    pub sig_proxy: bool,

    /// Let go of this tool when none of the output it attached to is read for so long; without it the container waits
    #[arg(long, value_name = "SECONDS")]
    pub patience: Option<u64>,

    /// With --attach: tell the service manager ($NOTIFY_SOCKET, sd_notify(3)) when the container runs
    #[arg(long, requires = "attach")]
    pub sdnotify: bool,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print ids only
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    /// Containers, by name or id
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-start";

    fn common(&self) -> &Common {
        &self.common
    }

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn own_failure_status(&self) -> Option<u8> {
        // Until a record comes in, what fails is the pipeline: its statuses tell more.
        None
    }
}

impl Args {
    fn attaches(&self) -> bool {
        self.attach || self.interactive || self.stdin_fd.is_some()
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let input = args.stdin_fd.map(session::descriptor).transpose()?;
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = if args.all_restartable {
        restartable::all(context, &store)?
    } else if args.containers.is_empty() {
        context.require_records()?.into_iter().map(Subject::from).collect()
    } else {
        args.containers.iter().cloned().map(Subject::from).collect()
    };
    if !args.attaches() {
        context.each(subjects, |context, subject| {
            if args.dry_run {
                return plan::print(context, &store, &subject, |_| Ok(None));
            }
            start_one(context, &store, &subject)
        });
        return Ok(());
    }
    let [subject] = subjects.as_slice() else {
        if subjects.is_empty() {
            return Ok(());
        }
        return Err(Fault::usage("only one container can be attached to at a time"));
    };
    let by_name = matches!(subject, Subject::Name(_));
    let attached = if args.dry_run {
        plan::print(context, &store, subject, |config| options(args, config, input, keys, by_name).map(Some))
    } else {
        attached(args, context, &store, subject, input, keys, by_name)
    };
    if let Err(fault) = attached {
        context.report_as(&fault, 125);
    }
    Ok(())
}

fn start_one(context: &mut Context, store: &Store, subject: &Subject) -> Result<()> {
    let dir = subject.find(store)?;
    if let Some(client) =
        make_ready(store, &dir, record_of(subject), &mut |warning| context.warn(&dir.id, warning))?
    {
        start(&client, &dir).map_err(|(fault, _)| fault)?;
    }
    let record = subject.current(&dir)?;
    let container: Container = record.require("container")?;
    context.print_result(&record, &container.id, &container.name)
}

/// The record that came in, which may have been edited.
fn record_of(subject: &Subject) -> Option<&Record> {
    match subject {
        Subject::Record(record) => Some(record),
        Subject::Name(_) => None,
    }
}

/// Sends the start request. A failure comes with docker's status for it, if there is one.
pub fn start(client: &Client, dir: &ContainerDir) -> Result<Reply, (Fault, Option<i32>)> {
    let reply = client.request_raw(&Request::Start, &[]).map_err(|fault| (fault, None))?;
    match reply.error {
        Some(failure) => {
            let exit_code = failure.exit_code;
            Err((failure.into_fault().on(dir.id.get(..12).unwrap_or_default()), exit_code))
        }
        None => Ok(reply),
    }
}

fn attached(
    args: &Args,
    context: &mut Context,
    store: &Store,
    subject: &Subject,
    input: Option<OwnedFd>,
    keys: DetachKeys,
    by_name: bool,
) -> Result<()> {
    let dir = subject.find(store)?;
    let ready = make_ready(store, &dir, record_of(subject), &mut |warning| context.warn(&dir.id, warning))?;
    let runs_already = ready.is_none();
    let client = match ready {
        Some(client) => client,
        // As with the same record piped in again: there is nothing to start, but all to see from now on.
        None => match Client::connect(&dir)? {
            Some(client) => client,
            None if dir.survivor()?.is_some() => {
                return Err(Fault::conflict(
                    "the container runs, but its shim was killed, and with it went its streams",
                )
                .on(dir.id.as_str())
                .hint("ctr-restart starts it again"));
            }
            None => {
                return Err(Fault::conflict("the container ended just now")
                    .on(dir.id.as_str())
                    .hint("the same again starts it once more"));
            }
        },
    };
    let config = dir.load()?.config()?;
    let options = options(args, &config, input, keys, by_name)?;
    let started = |context: &mut Context| {
        // It runs: whoever waits for the message will say that none came.
        if args.sdnotify
            && let Err(fault) = notify::ready()
        {
            context.warn(&dir.id, &fault.to_string());
        }
    };
    if runs_already {
        let session = Session::attach(&dir, client, options)?;
        started(context);
        let end = session.run()?;
        finish(context, &dir, &end);
        return Ok(());
    }
    session_with(context, &dir, client, options, started).map(drop)
}

fn options(
    args: &Args,
    config: &Config,
    input: Option<OwnedFd>,
    keys: DetachKeys,
    by_name: bool,
) -> Result<Options> {
    let interactive = args.interactive || args.stdin_fd.is_some();
    let input = match input {
        Some(input) => Some(input),
        // Records came in by stdin: there is nothing more to read from it.
        None if args.interactive && by_name && !config.tty => Some(own_stdin()?),
        None if args.interactive && !config.tty => {
            return Err(Fault::usage("stdin carried the record, so it cannot be the container's as well")
                .hint("--stdin-fd 3 3<FILE, or name the container: ctr-start -ai NAME"));
        }
        None => None,
    };
    Ok(Options {
        input: input.filter(|_| config.interactive),
        interactive: interactive && config.interactive,
        terminal: config.tty,
        outputs: [true, true],
        detach_keys: keys,
        signal_proxy: args.sig_proxy && !args.no_sig_proxy && !config.tty,
        patience: args.patience,
    })
}

/// Attaches, starts, and stays until the end; the container's exit status becomes this tool's. `None` when it could not
/// be started, which is reported.
pub fn run_session(
    context: &mut Context,
    dir: &ContainerDir,
    client: Client,
    options: Options,
) -> Result<Option<End>> {
    session_with(context, dir, client, options, |_| {})
}

/// [`run_session`], with something to do once the container runs.
fn session_with(
    context: &mut Context,
    dir: &ContainerDir,
    client: Client,
    options: Options,
    started: impl FnOnce(&mut Context),
) -> Result<Option<End>> {
    let session = Session::attach(dir, client, options)?;
    if let Err((fault, exit_code)) = start(session.client(), dir) {
        let status =
            exit_code.and_then(|code| u8::try_from(code).ok()).filter(|code| matches!(code, 126 | 127));
        context.report_as(&fault, status.unwrap_or(125));
        return Ok(None);
    }
    started(context);
    let end = session.run()?;
    finish(context, dir, &end);
    Ok(Some(end))
}

/// What the end of a session means for this tool's exit status.
pub fn finish(context: &mut Context, dir: &ContainerDir, end: &End) {
    match end {
        End::Exit(exit) => context.exit_with(exit.exit_code.clamp(0, 255) as u8),
        End::Detached => {
            if let (Ok(store), Ok(record)) = (Store::from_env(), dir.load()) {
                store.event(&Who::container(&record), "detach", serde_json::Value::Null);
            }
            context.exit_with(0);
        }
        // As if SIGPIPE had ended it.
        End::OutputClosed => context.exit_with(128 + libc::SIGPIPE as u8),
        End::LetGo => {
            let fault = Fault::failed(
                "the container's output was not read, so it does not wait for this tool any more",
            )
            .hint("all of it is in ctr-logs; --patience sets how long it waits");
            context.report_as(&fault.on(dir.id.as_str()), 125);
        }
        End::ShimLost => {
            let fault = Fault::failed("the container's shim was killed, and the container with it");
            context.report_as(&fault.on(dir.id.as_str()), 137);
        }
    }
}

pub fn own_stdin() -> Result<OwnedFd> {
    rustix::stdio::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|error| Fault::failed("copy stdin").because(error))
}

/// The status of a container as its directory tells it.
pub(crate) fn is_running(dir: &ContainerDir) -> Result<bool> {
    Ok(matches!(dir.status()?, Status::Running | Status::Paused | Status::Restarting))
}

/// A record's config, for those who start what they were handed.
pub(crate) fn config_of(record: Option<&Record>) -> Result<Option<Config>> {
    match record {
        Some(record) if record.contains("config") => record.config().map(Some),
        _ => Ok(None),
    }
}
