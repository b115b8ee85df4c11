//! Run a command in a running container.
//!
//! Enters the container itself: the shim is not in the way, and the command has this tool's own streams.
#![forbid(unsafe_code)]

mod process;
mod terminal;

use cgroup::Cgroup;
use cli::{Common, Context, Explain, Fault, Result, Tool};
use ctr_start::terminal::DetachKeys;
use runtime::{ExecOptions, Executed, Manners, NamespaceKind, Process, Spec, Stdio};
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use store::{ContainerDir, EventLog, LiveState, Status, Store, Subject, Who};

/// Run a command in a running container
///
/// The exit status is the command's; 125 means that this tool failed, 126 that the command could not be executed, 127 that
/// it was not found.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-exec",
    version,
    after_help = "Examples:
  ctr-exec web ps
  ctr-exec -it web bash
  ctr-exec -i db psql <dump.sql
  ctr-exec -u nobody -w /tmp -e A=b web env"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Pass this tool's stdin on
    #[arg(short, long)]
    pub interactive: bool,

    /// Give the command a terminal
    #[arg(short, long)]
    pub tty: bool,

    /// Leave as soon as the command runs; its output is nobody's
    #[arg(short, long)]
    pub detach: bool,

    /// Set an environment variable; NAME alone takes this tool's own value
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,

    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,

    /// Run as this user, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// With all of this tool's capabilities, and without the container's system call filter and security labels
    #[arg(long)]
    pub privileged: bool,

    /// Run in this directory
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,

    /// Keys that end a session at a terminal, and the command with it; empty for none
    #[arg(long, value_name = "KEYS", default_value = DetachKeys::DEFAULT)]
    pub detach_keys: String,

    /// Print what would be executed, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Container, by name or id; `-` reads its record from stdin
    #[arg(value_name = "CONTAINER")]
    pub container: String,

    /// Command and arguments
    #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

impl Tool for Args {
    const NAME: &'static str = "ctr-exec";
    const USAGE_STATUS: u8 = 125;

    fn common(&self) -> &Common {
        &self.common
    }

    fn own_failure_status(&self) -> Option<u8> {
        Some(125)
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    // Before anything else: what runs in the container may try to write to this very program.
    runtime::protect_own_executable()?;
    let keys = DetachKeys::parse(&args.detach_keys)?;
    if args.interactive && args.container == "-" {
        return Err(Fault::usage("stdin cannot carry the record and be the command's as well"));
    }
    let subject = if args.container == "-" {
        let mut records = context.require_records()?;
        match (records.pop(), records.is_empty()) {
            (Some(record), true) => Subject::from(record),
            (Some(_), false) => return Err(Fault::usage("a command runs in one container at a time")),
            (None, _) => return Ok(()),
        }
    } else {
        Subject::from(args.container.clone())
    };
    let store = Store::from_env()?;
    let dir = subject.find(&store)?;
    exec(args, context, &store, &dir, keys).map_err(|fault| fault.on(args.container.as_str()))
}

fn exec(
    args: &Args,
    context: &mut Context,
    store: &Store,
    dir: &ContainerDir,
    keys: DetachKeys,
) -> Result<()> {
    let state = running(dir)?;
    let pidfd = open_init(&state)?;
    let spec = Spec::load(&dir.bundle)?;
    let process = process::process(args, &spec, state.pid)?;
    let cgroup = match state.cgroup.as_slice() {
        [] => Cgroup::of_process(state.pid)?,
        directories => Cgroup::open(directories)?,
    };
    let user_terminal = terminal::UserTerminal::open(args)?;
    if args.dry_run {
        return context.print_steps(Some(&dir.id), &[step(&process, &cgroup, args.detach)]);
    }
    let cache = store.root().join("cache/seccomp");
    let events = Events::open(store, dir, &process.args);
    events.tell("exec_create");
    let executed = runtime::exec(ExecOptions {
        pidfd,
        process: &process,
        linux: Some(&spec.linux),
        seccomp: spec
            .linux
            .seccomp
            .as_deref()
            .filter(|_| !args.privileged)
            .map(serde_json::value::RawValue::get),
        seccomp_cache: &cache,
        state: &|| runtime::State {
            oci_version: spec.oci_version.clone(),
            id: dir.id.clone(),
            status: runtime::Status::Running,
            pid: Some(state.pid),
            bundle: dir.bundle.clone(),
            annotations: spec.annotations.clone(),
        },
        cgroup: &cgroup,
        rdt: None,
        detach: args.detach,
        stdio: if args.tty { Stdio::Terminal } else { Stdio::Streams(streams(args)?) },
        user_namespace: spec.namespace(NamespaceKind::User).is_some(),
        time_namespace: spec.namespace(NamespaceKind::Time).is_some(),
        keyring: None,
        manners: Manners::default(),
    });
    let executed = match executed {
        Ok(executed) => executed,
        Err(failure) => {
            let status = failure.exit_code.filter(|code| matches!(code, 126 | 127)).unwrap_or(125);
            context.report_as(&failure.fault.on(args.container.as_str()), status as u8);
            return Ok(());
        }
    };
    events.tell("exec_start");
    if args.detach {
        return Ok(());
    }
    let status = terminal::attend(&executed, &user_terminal, keys)?;
    events.tell_end(status);
    context.exit_with(status);
    Ok(())
}

/// Tells what becomes of the command. Opened before this process is in the container, where the store is out of reach.
struct Events {
    log: Option<EventLog>,
    who: Who,
    attributes: serde_json::Value,
}

impl Events {
    fn open(store: &Store, dir: &ContainerDir, command: &[String]) -> Events {
        let mut id = [0u8; 32];
        // All zeros is an id, too.
        let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or('0');
        let id: String = id.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect();
        Events {
            log: EventLog::open(store).ok(),
            who: dir.load().map(|record| Who::container(&record)).unwrap_or_default(),
            attributes: serde_json::json!({"exec_id": id, "command": command.join(" ")}),
        }
    }

    fn tell(&self, action: &str) {
        if let Some(log) = &self.log {
            log.event(&self.who, action, self.attributes.clone());
        }
    }

    fn tell_end(&self, status: u8) {
        if let Some(log) = &self.log {
            let attributes = serde_json::json!({"exec_id": self.attributes["exec_id"], "exit_code": status});
            log.event(&self.who, "exec_die", attributes);
        }
    }
}

/// What would be done, for `--dry-run`.
fn step(process: &Process, cgroup: &Cgroup, detach: bool) -> serde_json::Value {
    serde_json::json!({
        "step": "execute",
        "args": process.args,
        "env": process.env,
        "cwd": process.cwd(),
        "user": process.user,
        "terminal": process.terminal,
        "cgroups": cgroup.directories(),
        "detach": detach,
    })
}

fn running(dir: &ContainerDir) -> Result<LiveState> {
    match dir.status()? {
        Status::Running => {}
        Status::Paused => {
            return Err(Fault::conflict("the container is paused").hint("ctr-unpause lets it run on"));
        }
        status => {
            return Err(Fault::conflict(format!("the container is {}, not running", status.name()))
                .hint("ctr-start starts it"));
        }
    }
    dir.live_state()?.ok_or_else(|| Fault::conflict("the container has just ended"))
}

/// Init, by a descriptor that stands for the very process the state tells of.
fn open_init(state: &LiveState) -> Result<OwnedFd> {
    let gone = || Fault::conflict("the container has just ended");
    let pid = rustix::process::Pid::from_raw(state.pid).ok_or_else(gone)?;
    let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone())?;
    // Had the number been given to another process before it was opened, the start time would differ.
    if store::start_time(state.pid) == Some(state.pid_started) { Ok(pidfd) } else { Err(gone()) }
}

fn streams(args: &Args) -> Result<[OwnedFd; 3]> {
    let null = || -> Result<OwnedFd> {
        let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null");
        file.map(OwnedFd::from).explain(|| "open /dev/null".into())
    };
    let copy = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().explain(|| "copy a stream".into());
    if args.detach {
        return Ok([null()?, null()?, null()?]);
    }
    let stdin = if args.interactive { copy(rustix::stdio::stdin())? } else { null()? };
    Ok([stdin, copy(rustix::stdio::stdout())?, copy(rustix::stdio::stderr())?])
}

/// Exit status, or 128 + the signal's number.
pub(crate) fn wait(executed: &Executed) -> Option<u8> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status: WaitIdStatus =
        rustix::process::waitid(WaitId::PidFd(executed.pidfd.as_fd()), options).ok()??;
    Some(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code as u8,
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => 255,
    })
}
