//! The OCI runtime's command line, which container engines call: runc's verbs, options, output and words over the crate
//! `runtime`.
//!
//! Not a tool of pipes: it reads and writes no records, and fails with 1, as the engines expect of it.
#![forbid(unsafe_code)]

mod attend;
mod bundle;
mod call;
mod checkpoint;
mod console;
mod create;
mod delete;
mod events;
mod exec;
mod features;
mod groups;
mod help;
mod inspect;
mod kill;
mod log;
mod notify;
mod options;
mod pause;
mod pidfile;
mod place;
mod process;
mod ps;
mod resources;
mod restore;
mod rootless;
mod spec;
mod start;
mod state;
mod update;
mod verbs;

pub use help::command;

use call::Call;
use fault::{Fault, Result};
use log::Log;
use options::{Opt, OptionsEnd, Parsed};
use std::ffi::OsString;
use std::path::Path;
use verbs::{GLOBAL, Verb};

/// Reads the directory `root/id` of a container's state as the verbs do, whoever wrote it: what the container is, its status and
/// its specification. Returns what `state` prints of it.
///
/// Fails where there is no such container, and on what is torn, of a wrong kind or too long. Never waits for anything.
pub fn read_state(root: &Path, id: &str) -> Result<String> {
    let container = state::Container::load_from(place::Place::open(root, id)?, id)?;
    let status = container.status()?;
    let printed = inspect::shown(&container, status)?;
    container.config()?;
    container.spec()?;
    Ok(printed)
}

/// Runs the verb the arguments ask for, the program's name first; returns the exit status.
pub fn main(arguments: &[OsString]) -> u8 {
    let program = arguments.first().map(Path::new).and_then(Path::file_name).unwrap_or_default();
    let program = program.to_string_lossy().into_owned();
    match read(&program, arguments.get(1..).unwrap_or_default()) {
        Ok(Asked::Verb(verb, parsed)) => run(&program, verb, &parsed),
        Ok(Asked::Help(verb)) => help::print(&program, verb),
        Ok(Asked::Version) => help::print_version(&program),
        Err(fault) => {
            // Told where the log would be, were its options right.
            Log::to_stderr().fatal(&fault);
            1
        }
    }
}

enum Asked {
    Verb(&'static Verb, Parsed),
    Help(Option<&'static Verb>),
    Version,
}

fn read(program: &str, arguments: &[OsString]) -> Result<Asked> {
    let (mut parsed, taken) = options::parse(&[GLOBAL], arguments, OptionsEnd::BeforeOperands)?;
    let mut rest = &arguments[taken..];
    if parsed.has(Opt::Version) {
        return Ok(Asked::Version);
    }
    let mut asked_for_help = parsed.has(Opt::Help);
    let mut name = rest.first().map(|name| name.to_string_lossy().into_owned());
    if matches!(name.as_deref(), Some("help" | "h")) {
        asked_for_help = true;
        rest = &rest[1..];
        name = rest.first().map(|name| name.to_string_lossy().into_owned());
    }
    let Some(name) = name else { return Ok(Asked::Help(None)) };
    let Some(verb) = verbs::find(&name) else {
        return Err(Fault::usage(format!("No help topic for '{name}'"))
            .hint(format!("{program} --help lists the verbs")));
    };
    let (of_verb, _) = options::parse(&[verb.flags, GLOBAL], &rest[1..], verb.end)?;
    parsed.add(of_verb);
    if asked_for_help || parsed.has(Opt::Help) {
        return Ok(Asked::Help(Some(verb)));
    }
    Ok(Asked::Verb(verb, parsed))
}

fn run(program: &str, verb: &'static Verb, parsed: &Parsed) -> u8 {
    // Before anything else: what runs in the container may try to write to this very program.
    if verb.enters
        && let Err(fault) = runtime::protect_own_executable()
    {
        Log::to_stderr().fatal(&fault);
        return verb.failure;
    }
    // Before anything is opened here that could be taken for one of them.
    let inherited = call::inherited_descriptors(parsed);
    let log = match Log::open(parsed) {
        Ok(log) => log,
        Err(fault) => {
            Log::to_stderr().fatal(&fault);
            return 1;
        }
    };
    let outcome = check_operands(program, verb, parsed)
        .and_then(|()| Call::new(program, parsed, &log, inherited))
        .and_then(|call| (verb.run)(&call));
    match outcome {
        Ok(status) => status,
        Err(fault) => {
            log.fatal(&fault);
            verb.failure
        }
    }
}

fn check_operands(program: &str, verb: &'static Verb, parsed: &Parsed) -> Result<()> {
    let count = parsed.operands.len();
    let wrong = if verb.least == verb.most && count != verb.least {
        format!("exactly {}", verb.least)
    } else if count < verb.least {
        format!("a minimum of {}", verb.least)
    } else if count > verb.most {
        format!("a maximum of {}", verb.most)
    } else {
        return Ok(());
    };
    let _ = help::print_usage(program, verb);
    Err(Fault::usage(format!("{program}: {:?} requires {wrong} argument(s)", verb.name)))
}
