//! Print what containers wrote to stdout and stderr.
#![forbid(unsafe_code)]

pub mod entry;
pub mod files;
mod follow;

pub use cli::moment;

use cli::{Common, Context, Explain, Fault, OutputFormat, Result};
use entry::{Entry, Sink, Style};
use files::{Line, LogFile, Window};
use follow::{Watch, Woken};
use jiff::Timestamp;
use std::io;
use std::path::PathBuf;
use std::thread;
use store::{ContainerDir, Store, Subject};

/// Print what containers wrote to stdout and stderr
///
/// What went to stderr goes to stderr here. With --output json the log's own entries are printed, one a line, with
/// the members log, stream and time.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-logs",
    version,
    after_help = "Examples:\n  ctr-logs --tail 20 -f web\n  ctr-logs --since 10m web 2>/dev/null | grep warning\n  ctr-logs -f --names --color web db\n  ctr-logs --output json web | jq -r 'select(.stream == \"stderr\") | .log'"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Go on printing until the container ends
    #[arg(short, long)]
    pub follow: bool,

    /// Only what was written since then: RFC 3339, a date, seconds since 1970, or so long ago (10m, 1h30m)
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,

    /// Only what was written until then
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,

    /// Only the last N lines, or all
    #[arg(short = 'n', long, value_name = "N", default_value = "all", value_parser = parse_tail, allow_negative_numbers = true)]
    pub tail: Tail,

    /// Put before each line when it was written
    #[arg(short, long)]
    pub timestamps: bool,

    /// Put before each line the labels, variables and tag the log driver keeps (--log-opt labels, env, tag)
    #[arg(long)]
    pub details: bool,

    /// Put the container's name before each line; of several, without it, its id
    #[arg(long)]
    pub names: bool,

    /// A colour for each container's name or id
    #[arg(long)]
    pub color: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-logs", common);

/// How many lines from the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    All,
    Lines(u64),
}

fn parse_tail(text: &str) -> std::result::Result<Tail, String> {
    // docker takes any negative number for all.
    if text == "all" || text.strip_prefix('-').is_some_and(|rest| rest.parse::<u64>().is_ok()) {
        return Ok(Tail::All);
    }
    text.parse().map(Tail::Lines).map_err(|_| "neither a number nor \"all\"".to_owned())
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let now = Timestamp::now();
    let moment =
        |text: &Option<String>| text.as_deref().map(|text| cli::moment::parse(text, now)).transpose();
    let window = Window { since: moment(&args.since)?, until: moment(&args.until)? };
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = context.input(&args.containers)?.into_subjects();
    let several = subjects.len() > 1;
    let mut jobs = Vec::new();
    context.each(subjects, |_, subject| {
        let dir = subject.find(&store)?;
        let style = style(args, &dir, several, jobs.len())?;
        let path = path_of_log(&dir).map_err(|fault| fault.on(dir.id.as_str()))?;
        jobs.push(Job { dir, path, window, sink: Sink::new(style), skipped: 0 });
        Ok(())
    });
    if args.follow && several {
        // Each waits for something else.
        thread::scope(|scope| {
            let followed: Vec<_> =
                jobs.iter_mut().map(|job| scope.spawn(|| (job.run(true, args.tail), job))).collect();
            for thread in followed {
                // A panic goes on here.
                let (result, job) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                done(context, job, result);
            }
        });
        return Ok(());
    }
    for mut job in jobs {
        let result = job.run(args.follow, args.tail);
        if !done(context, &job, result) {
            break;
        }
    }
    Ok(())
}

/// Tells of what went wrong; `false` when nobody reads any more.
fn done(context: &mut Context, job: &Job, result: Result<()>) -> bool {
    if job.skipped > 0 {
        context.warn(&job.dir.id, &format!("{} lines of the log are no log entries", job.skipped));
    }
    match result {
        Ok(()) => true,
        // A reader that has seen enough.
        Err(fault) if fault.os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => false,
        Err(fault) => {
            context.report(&fault.on(job.dir.id.as_str()));
            true
        }
    }
}

fn style(args: &Args, dir: &ContainerDir, several: bool, index: usize) -> Result<Style> {
    let mut prefix = String::new();
    if several || args.names || args.color {
        let id = dir.id.get(..12).unwrap_or(&dir.id);
        let name = if args.names { dir.load()?.container()?.map(|container| container.name) } else { None };
        prefix = name.unwrap_or_else(|| id.to_owned());
        if args.color {
            // Six colours, each another than its neighbours'.
            prefix = format!("\x1b[{}m{prefix}\x1b[0m", 31 + index % 6);
        }
        prefix.push(' ');
    }
    Ok(Style {
        timestamps: args.timestamps,
        json: args.common.output == Some(OutputFormat::Json),
        details: args.details,
        prefix,
        shared: several,
    })
}

/// Where the newest file of a container's log is, or would be.
///
/// # Errors
/// [`Kind::Conflict`](cli::Kind::Conflict) when its lines go to where this cannot read them.
pub fn path_of_log(dir: &ContainerDir) -> Result<PathBuf> {
    let config = dir.load()?.config()?;
    match config.log_driver.as_deref() {
        Some(driver @ ("none" | "passthrough")) => {
            Err(Fault::conflict("it keeps no log").hint(format!("it was made with --log-driver {driver}")))
        }
        Some("journald") => Err(Fault::conflict("its log is in the journal")
            .hint(format!("journalctl --output cat CONTAINER_ID_FULL={}", dir.id))),
        Some("syslog") => Err(Fault::conflict("its log is the syslog daemon's")
            .hint("look where that one keeps it; the container was made with --log-driver syslog")),
        _ => Ok(config.log_opts.get("path").map_or_else(|| dir.bundle.join("log.json"), PathBuf::from)),
    }
}

struct Job {
    dir: ContainerDir,
    /// Of the newest file.
    path: PathBuf,
    window: Window,
    sink: Sink,
    /// Lines that were no entries.
    skipped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    End,
    /// An entry past the end of the window: entries are in order.
    Until,
}

impl Job {
    fn run(&mut self, follow: bool, tail: Tail) -> Result<()> {
        let mut watch =
            if follow { Some(Watch::new(&self.dir, &self.path, self.window.until)?) } else { None };
        // Asked before reading, so that nothing written before the answer is missed.
        let mut more = self.may_come(&mut watch)?;
        let mut files = files::open_newer(&self.path, None)?;
        if let Tail::Lines(count) = tail {
            files::keep_tail(&mut files, count, self.window).explain(|| "read the log".into())?;
        }
        let mut last: Option<LogFile> = None;
        loop {
            if self.read(&mut last, files, more)? == Reached::Until || !more {
                break;
            }
            if let Some(watch) = &mut watch
                && watch.wait()? == Woken::Unread
            {
                return Ok(());
            }
            more = self.may_come(&mut watch)?;
            files = files::open_newer(&self.path, last.as_ref())?;
        }
        Ok(())
    }

    fn may_come(&self, watch: &mut Option<Watch>) -> Result<bool> {
        watch.as_mut().map_or(Ok(false), |watch| watch.may_come(&self.dir))
    }

    /// Prints what is new in the file read last and in those after it. The newest becomes the last, to be read on.
    fn read(&mut self, last: &mut Option<LogFile>, files: Vec<LogFile>, more: bool) -> Result<Reached> {
        let what = || "print the log".to_owned();
        // A file that was renamed away is not written to any more, so its torn end will stay so.
        let renamed = !files.is_empty();
        if let Some(file) = last
            && self.file(file, renamed || !more).explain(what)? == Reached::Until
        {
            return Ok(Reached::Until);
        }
        let count = files.len();
        for (index, mut file) in files.into_iter().enumerate() {
            let reached = self.file(&mut file, index + 1 < count || !more).explain(what)?;
            *last = Some(file);
            if reached == Reached::Until {
                return Ok(reached);
            }
        }
        Ok(Reached::End)
    }

    /// Prints what is new in a file; `complete` if nothing more will be written to it.
    fn file(&mut self, file: &mut LogFile, complete: bool) -> io::Result<Reached> {
        loop {
            match file.next_line()? {
                Line::Whole(range) => {
                    if self.line(file.line(range))? == Reached::Until {
                        self.sink.flush()?;
                        return Ok(Reached::Until);
                    }
                }
                Line::TooLong => self.skipped += 1,
                Line::End { torn } => {
                    if torn && complete {
                        // All there but the line feed, perhaps.
                        let text = file.torn().to_vec();
                        file.give_up_torn();
                        self.line(&text)?;
                    }
                    self.sink.flush()?;
                    return Ok(Reached::End);
                }
            }
        }
    }

    fn line(&mut self, line: &[u8]) -> io::Result<Reached> {
        let Some(entry) = Entry::parse(line) else {
            self.skipped += 1;
            return Ok(Reached::End);
        };
        if self.window.since.is_some() || self.window.until.is_some() {
            let moment = entry.moment();
            if self.window.until.is_some_and(|until| moment.is_some_and(|moment| moment > until)) {
                return Ok(Reached::Until);
            }
            if self.window.since.is_some_and(|since| moment.is_some_and(|moment| moment < since)) {
                return Ok(Reached::End);
            }
        }
        self.sink.print(&entry, line)?;
        Ok(Reached::End)
    }
}
