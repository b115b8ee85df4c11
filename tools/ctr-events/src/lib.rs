//! Print what has happened.
#![forbid(unsafe_code)]

mod filter;
mod log;

use cli::{Common, Context, Explain, OutputMode, Result};
use filter::{Event, Filters};
use jiff::Timestamp;
use log::Reader;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::Duration;
use store::Store;

/// Print what has happened to containers, images, networks and volumes
///
/// Every tool that does something writes it down; the newest twenty megabytes are kept. With --follow, or with an --until that is
/// yet to come, goes on as things happen; --follow alone begins with now.
///
/// Filters of different keys must all hold, and so must several labels; of several values of another key one is enough.
///
///   type=                container, image, network or volume
///   event=               create, start, die, stop, kill, oom, health_status, destroy, exec_start, pull …
///   container=           id, beginning of an id, or name
///   image=, label=       of the container, or the image itself
///   network=, volume=    its name
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-events",
    version,
    after_help = "Examples:
  ctr-events --since 10m
  ctr-events -f --filter event=die | jq --unbuffered -r 'select(.attributes.exit_code != 0) | .name'
  ctr-events -f --filter event=health_status --filter label=team=web"
)]
pub struct Args {
    /// Go on as things happen
    #[arg(short, long)]
    pub follow: bool,

    /// Only what happened since then: RFC 3339, a date, seconds since 1970, or so long ago (10m, 1h30m)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Only what happened until then, and end then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// Only events for which this holds; can be given several times
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-events", common);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let now = Timestamp::now();
    let moment =
        |text: &Option<String>| text.as_deref().map(|text| cli::moment::parse(text, now)).transpose();
    let (since, until) = (moment(&args.since)?, moment(&args.until)?);
    let filters = Filters::parse(&args.filters)?;
    let follow = args.follow || until.is_some_and(|until| until > now);
    let since = since.or(Some(now).filter(|_| follow && args.since.is_none()));
    let store = Store::from_env()?;
    // Begun before the files are read, so that nothing that comes later is missed.
    let changes = if follow { Some(watch(&store)?) } else { None };
    let mut reader = Reader::new(&store, since);
    let table = context.mode() == OutputMode::Table;
    loop {
        let late = until.is_some_and(|until| Timestamp::now() > until);
        let mut lines = String::new();
        let mut over = false;
        reader.read(|line| {
            let Some(event) = Event::parse(line) else { return true };
            if since.is_some_and(|since| event.time < since) {
                return true;
            }
            // Clocks of several processes: what is later in the file may be earlier, but not by much.
            if until.is_some_and(|until| event.time > until) {
                over = true;
                return false;
            }
            if filters.hold(&event) {
                lines += &if table { event.in_words() } else { String::from_utf8_lossy(line).into_owned() };
                lines.push('\n');
                if lines.len() > BATCH {
                    let printed = context.print(&lines);
                    lines.clear();
                    return printed.is_ok() && !context.stdout_closed();
                }
            }
            true
        })?;
        if !lines.is_empty() {
            context.print(&lines)?;
        }
        let Some(changes) = changes.as_ref().filter(|_| !over && !late && !context.stdout_closed()) else {
            break;
        };
        if !wait(changes, until)? {
            break;
        }
    }
    if reader.skipped > 0 {
        context.warn("", &format!("{} lines of the log are no events", reader.skipped));
    }
    Ok(())
}

/// Bytes printed at once.
const BATCH: usize = 64 << 10;
/// How often to look without being told, should a message be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

fn watch(store: &Store) -> Result<OwnedFd> {
    let dir = store.events_dir();
    store.make_dir(&dir)?;
    let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .explain(|| "watch for events".into())?;
    let what = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_FROM;
    inotify::add_watch(&changes, &dir, what).explain(|| format!("watch {}", dir.display()))?;
    Ok(changes)
}

/// Waits for more to come; `false` when nobody reads stdout any more.
fn wait(changes: &OwnedFd, until: Option<Timestamp>) -> Result<bool> {
    let left = until.map_or(LOOK_AGAIN, |until| {
        Duration::try_from(Timestamp::now().duration_until(until)).unwrap_or_default()
    });
    let timeout = Timespec::try_from(left.min(LOOK_AGAIN)).unwrap_or_default();
    let stdout = rustix::stdio::stdout();
    let mut fds = [PollFd::new(changes, PollFlags::IN), PollFd::from_borrowed_fd(stdout, PollFlags::empty())];
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error).explain(|| "watch for events".into()),
    }
    let unread = fds[1].revents().contains(PollFlags::ERR);
    // What changed is not looked at: everything is read anyway.
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = inotify::Reader::new(changes, &mut buffer);
    while events.next().is_ok() {}
    Ok(!unread)
}
