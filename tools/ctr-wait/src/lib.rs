//! Wait for containers to end, or to be ready, and print how they are.
#![forbid(unsafe_code)]

mod condition;
mod end;
mod patience;
mod watch;

use cli::{Common, Context, Explain, Fault, Kind, OutputMode, Result, Tool};
use condition::Condition;
use patience::Patience;
use record::Record;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use store::{ContainerDir, Store, Subject};

/// Wait for containers to end, or to be ready, and print how they are
///
/// Prints each as it ends: on a terminal its exit status, otherwise its record with a member "exit_code". A
/// container that has ended already counts with its last run; one that was not started yet is waited for until it
/// has run. Exits with the first status that is not 0, and with 125 when waiting itself failed.
///
/// With --for, waits for something else, and exits with 0 when it has come:
///
///   running              it has been started
///   healthy              its health check has succeeded
///   port:NUMBER[/udp]    something in it listens on the port
///   log:REGEX            a line of this run's output matches
///   exited               it has ended: the default
///
/// Several must hold together. A container that ends before is a failure, with 5; time that is up, with 7.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-wait",
    version,
    after_help = "Examples:
  ctr-wait web; echo $?
  ctr-ls --filter label=batch | ctr-wait | jq -r '[.container.name, .exit_code] | @tsv'
  ctr-wait --for port:5432 --for log:'ready to accept' --timeout 30s db && ctr-start app
  ctr-wait --for healthy --any --timeout 1m web1 web2"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// What to wait for; can be given several times
    #[arg(long = "for", value_name = "CONDITION")]
    pub conditions: Vec<String>,

    /// Wait for the first of several containers only
    #[arg(long, conflicts_with = "all")]
    pub any: bool,

    /// Wait for all of several containers: the default
    #[arg(long)]
    pub all: bool,

    /// Wait no longer than this: 30s, 1m30s
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

impl Args {
    /// The end, as without any condition: the exit status is the container's then.
    fn waits_for_end(&self) -> bool {
        self.conditions.iter().all(|condition| condition == "exited")
    }
}

impl Tool for Args {
    const NAME: &'static str = "ctr-wait";
    const USAGE_STATUS: u8 = 125;

    fn common(&self) -> &Common {
        &self.common
    }

    fn quiet(&self) -> bool {
        self.quiet
    }

    fn own_failure_status(&self) -> Option<u8> {
        self.waits_for_end().then_some(125)
    }
}

/// How waiting came to its end.
enum Waiting<T> {
    Done(T),
    TimedOut,
    /// Another container was first.
    Enough,
}

/// What is printed of a container.
struct Found {
    id: String,
    name: String,
    record: Record,
    exit_code: Option<i32>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let conditions = args.conditions.iter().map(|text| Condition::parse(text)).collect::<Result<Vec<_>>>()?;
    if !args.waits_for_end() && conditions.iter().any(|condition| matches!(condition, Condition::Exited)) {
        return Err(Fault::usage("--for exited and other conditions exclude each other"));
    }
    let timeout = args.timeout.as_deref().map(timeout).transpose()?;
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = context.input(&args.containers)?.into_subjects();
    // All at once, or one that removes itself when it ends could be gone before its turn.
    let count = subjects.len();
    let (enough, open) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).explain(|| "make a pipe".into())?;
    let open: Mutex<Option<OwnedFd>> = Mutex::new(Some(open));
    let patience = Patience { deadline, enough: enough.as_fd() };
    let conditions = if args.waits_for_end() { Vec::new() } else { conditions };
    let wait = |subject: Subject| {
        let dir = subject.find(&store)?;
        let found =
            wait_for(&dir, &subject, &conditions, patience).map_err(|fault| fault.on(dir.id.as_str()))?;
        if args.any
            && matches!(found, Waiting::Done(_))
            && let Ok(mut open) = open.lock()
        {
            // Of several that come at once the first one counts.
            let first = open.take().is_some();
            return Ok((dir.id, if first { found } else { Waiting::Enough }));
        }
        Ok((dir.id, found))
    };
    context.each_at_once(subjects, count, wait, |context, (id, found)| match found {
        Waiting::Done(found) => print(context, &found),
        Waiting::Enough => Ok(()),
        Waiting::TimedOut => {
            let seconds = timeout.unwrap_or_default().as_secs_f64();
            let fault = Fault::retryable(format!("{seconds} s were over before {}", words(&conditions)));
            context.report_as(&fault.on(id), Kind::Retryable.exit_status());
            Ok(())
        }
    });
    Ok(())
}

fn words(conditions: &[Condition]) -> String {
    if conditions.is_empty() {
        return Condition::Exited.words();
    }
    conditions.iter().map(Condition::words).collect::<Vec<_>>().join(", and ")
}

fn timeout(text: &str) -> Result<Duration> {
    oci::wishes::health::duration(text).map_err(|fault| fault.as_kind(Kind::Usage).within("--timeout"))
}

fn print(context: &mut Context, found: &Found) -> Result<()> {
    if let Some(code) = found.exit_code.filter(|code| *code != 0) {
        // A wait status is 0 to 255; anything else would be read as success.
        context.exit_with(u8::try_from(code).unwrap_or(255));
    }
    match context.mode() {
        OutputMode::Json => context.print_record(&found.record),
        OutputMode::Quiet => context.print(&format!("{}\n", found.id)),
        OutputMode::Table => match found.exit_code {
            Some(code) => context.print(&format!("{code}\n")),
            None => context.print(&format!("{}\n", found.name)),
        },
    }
}

fn wait_for(
    dir: &ContainerDir,
    subject: &Subject,
    conditions: &[Condition],
    patience: Patience<'_>,
) -> Result<Waiting<Found>> {
    let before = subject.current(dir)?;
    let found = |record: Record, exit_code| {
        let name = record.container()?.unwrap_or_default().name;
        Ok(Waiting::Done(Found { id: dir.id.clone(), name, record, exit_code }))
    };
    if !conditions.is_empty() {
        return match watch::until(dir, conditions, patience)? {
            Waiting::Done(()) => found(subject.current(dir).unwrap_or(before), None),
            Waiting::TimedOut => Ok(Waiting::TimedOut),
            Waiting::Enough => Ok(Waiting::Enough),
        };
    }
    let exit = match end::end_of(dir, patience)? {
        Waiting::Done(exit) => exit,
        Waiting::TimedOut => return Ok(Waiting::TimedOut),
        Waiting::Enough => return Ok(Waiting::Enough),
    };
    let mut record = shim::ended_record(subject, dir, before, &exit)?;
    record.set("exit_code", &exit.exit_code)?;
    found(record, Some(exit.exit_code))
}
