//! Wait for containers to end and print how they did.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Kind, OutputMode, Result, Tool};
use record::Record;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use shim::{Client, Exit, Waited};
use std::os::fd::OwnedFd;
use store::{ContainerDir, Status, Store, Subject};

/// Wait for containers to end and print how they did
///
/// Prints each as it ends: on a terminal its exit status, otherwise its record with a member "exit_code". A
/// container that has ended already counts with its last run; one that was not started yet is waited for until it
/// has run. Exits with the first status that is not 0, and with 125 when waiting itself failed.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-wait",
    version,
    after_help = "Examples:\n  ctr-wait web; echo $?\n  ctr-ls --filter label=batch | ctr-wait | jq -r '[.container.name, .exit_code] | @tsv'"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
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
        Some(125)
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = context.input(&args.containers)?.into_subjects();
    // All at once, or one that removes itself when it ends could be gone before its turn.
    let count = subjects.len();
    let wait = |subject: Subject| {
        let dir = subject.find(&store)?;
        let (record, exit) = wait_for(&dir, &subject).map_err(|fault| fault.on(dir.id.as_str()))?;
        Ok((dir.id, record, exit))
    };
    context.each_at_once(subjects, count, wait, |context, (id, record, exit)| {
        if exit.exit_code != 0 {
            // A wait status is 0 to 255; anything else would be read as success.
            context.exit_with(u8::try_from(exit.exit_code).unwrap_or(255));
        }
        match context.mode() {
            OutputMode::Json => context.print_record(&record),
            OutputMode::Quiet => context.print(&format!("{id}\n")),
            OutputMode::Table => context.print(&format!("{}\n", exit.exit_code)),
        }
    });
    Ok(())
}

fn wait_for(dir: &ContainerDir, subject: &Subject) -> Result<(Record, Exit)> {
    let before = subject.current(dir)?;
    let exit = end_of(dir)?;
    let mut record = shim::ended_record(subject, dir, before, &exit)?;
    record.set("exit_code", &exit.exit_code)?;
    Ok((record, exit))
}

fn end_of(dir: &ContainerDir) -> Result<Exit> {
    loop {
        // Before looking, so that no start is missed.
        let starts = Starts::watch(dir)?;
        // A connection first: a container that ends between looking and connecting is then told of by its files.
        let client = Client::connect(dir)?;
        if dir.status()? == Status::Exited {
            return shim::outcome(None, dir);
        }
        if let Some(client) = client
            && let Some(exit) = told_by(&client)?
        {
            return Ok(exit);
        }
        match dir.status() {
            // Its shim was killed, or it was discarded before it ever ran.
            Ok(Status::Created) if dir.exists() && !dir.has_shim() => starts.next(dir)?,
            Ok(Status::Exited) => return shim::outcome(None, dir),
            // A lock is let go a moment after the connection, and taken a moment before there is a socket.
            Ok(_) => std::thread::sleep(std::time::Duration::from_millis(1)),
            Err(fault) => return Err(fault),
        }
        if !dir.exists() {
            return Err(Fault::not_found("it was removed before it ended"));
        }
    }
}

/// What the shim says; `None` if it goes away without a word.
fn told_by(client: &Client) -> Result<Option<Exit>> {
    match client.subscribe().and_then(|()| client.exit_by(None)) {
        Ok(Waited::Ended(exit)) => Ok(exit),
        // It closed the connection before the request.
        Ok(Waited::TimedOut) => Ok(None),
        Err(fault) if fault.kind() == Kind::Retryable => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Tells of changes in a bundle: a run begins and ends with one of `last_run.json`.
struct Starts(OwnedFd);

impl Starts {
    fn watch(dir: &ContainerDir) -> Result<Starts> {
        use cli::Explain;
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .explain(|| "watch for changes".into())?;
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVE_SELF
            | inotify::WatchFlags::DELETE_SELF;
        inotify::add_watch(&fd, &dir.bundle, events).explain(|| format!("watch {}", dir.bundle.display()))?;
        Ok(Starts(fd))
    }

    /// Waits for a change. Looks again every second as well: a shim that comes up makes no file in the bundle until
    /// its container starts.
    fn next(&self, dir: &ContainerDir) -> Result<()> {
        use cli::Explain;
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&second)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error).explain(|| format!("watch {}", dir.bundle.display())),
        }
    }
}
