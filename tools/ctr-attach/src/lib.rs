//! Attach to running containers.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result, Tool};
use ctr_start::session::{self, Options, Session};
use ctr_start::terminal::DetachKeys;
use shim::Client;
use store::{Store, Subject};

/// Attach to a running container
///
/// Its output from now on is this tool's; with a terminal, or with --stdin-fd, what is typed is its input. The exit status is the
/// container's, 0 after detaching; 125 means that this tool failed.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-attach",
    version,
    after_help = "Examples:
  ctr-attach web
  ctr-attach --no-stdin web | grep error
  ctr-attach --detach-keys ctrl-x web"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Do not pass on what is typed
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false,
        action = clap::ArgAction::Set)]
    pub no_stdin: bool,

    /// Take the container's stdin from descriptor N
    #[arg(long, value_name = "N", conflicts_with = "no_stdin")]
    pub stdin_fd: Option<i32>,

    /// Keys that detach from a terminal; empty for none
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT)]
    pub detach_keys: String,

    /// Do not pass signals on to the container
    #[arg(long)]
    pub no_sig_proxy: bool,

    /// Pass signals on to the container, unless it has a terminal
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true,
        action = clap::ArgAction::Set)]
    pub sig_proxy: bool,

    /// How long the container waits while none of its output is read here; then it lets go of this tool. 0: without end
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub patience: u64,

    /// Container, by name or id; without one its record is read from stdin
    #[arg(value_name = "CONTAINER")]
    pub container: Option<String>,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-attach";
    const USAGE_STATUS: u8 = 125;

    fn common(&self) -> &Common {
        &self.common
    }

    fn own_failure_status(&self) -> Option<u8> {
        Some(125)
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let keys = DetachKeys::parse(&args.detach_keys)?;
    let given = args.stdin_fd.map(session::descriptor).transpose()?;
    let named = args.container.is_some();
    let subject = if let Some(name) = &args.container {
        Subject::from(name.clone())
    } else {
        let mut records = context.require_records()?;
        if records.len() > 1 {
            return Err(Fault::usage("only one container can be attached to at a time"));
        }
        let Some(record) = records.pop() else { return Ok(()) };
        Subject::from(record)
    };
    let store = Store::from_env()?;
    let dir = subject.find(&store)?;
    let config = dir.load()?.config()?;
    let not_running =
        || Fault::conflict("the container is not running").on(dir.id.as_str()).hint("ctr-start starts it");
    match dir.status()? {
        store::Status::Running => {}
        store::Status::Paused => {
            let fault = Fault::conflict("the container is paused").on(dir.id.as_str());
            return Err(fault.hint("ctr-unpause lets it run on"));
        }
        _ => return Err(not_running()),
    }
    let Some(client) = Client::connect(&dir)? else {
        let lost = || {
            Fault::conflict("its shim was killed, and with it went the container's streams")
                .on(dir.id.as_str())
                .hint("ctr-restart starts it again; ctr-exec works as ever")
        };
        return Err(if dir.survivor()?.is_some() { lost() } else { not_running() });
    };
    let wants_input = config.interactive && !args.no_stdin;
    let input = match given {
        Some(input) => Some(input),
        None if wants_input && !config.tty && named => Some(ctr_start::own_stdin()?),
        None => None,
    };
    let options = Options {
        input: input.filter(|_| wants_input),
        interactive: wants_input,
        terminal: config.tty,
        outputs: [true, true],
        detach_keys: keys,
        signal_proxy: args.sig_proxy && !args.no_sig_proxy && !config.tty,
        patience: Some(args.patience).filter(|seconds| *seconds > 0),
    };
    let end = Session::attach(&dir, client, options)?.run()?;
    ctr_start::finish(context, &dir, &end);
    Ok(())
}
