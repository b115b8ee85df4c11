//! Copy files in and out of containers.
#![forbid(unsafe_code)]

mod copy;
mod end;

use cli::{Common, Context, Fault, Result};
use end::End;
use record::Record;
use std::ffi::OsString;
use std::io::IsTerminal;
use store::{ContainerDir, Store, Subject, Who};

/// Copy files in and out of containers
///
/// From here to a container, from one to here, or from one to another; directories with all that is in them. `-` is a tar: on stdin to be unpacked into a
/// directory of the container, or on stdout. The container runs, is paused, waits or has ended; volumes and whatever else its processes see is there for
/// the copy, too. Paths of a container are resolved in there, from its root, and its links lead nowhere else.
///
/// A file goes into DST if that is a directory, else it becomes DST. A directory becomes DST if there is none, else goes into it; of SRC/. the
/// contents do. With a slash at its end DST has to be a directory. A symbolic link is copied as such if it is SRC, and followed if it is DST.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-cp",
    version,
    override_usage = "ctr-cp [OPTIONS] SRC CONTAINER:DST\n       ctr-cp [OPTIONS] CONTAINER:SRC DST\n       ctr-cp [OPTIONS] CONTAINER:SRC CONTAINER:DST",
    after_help = "Examples:\n  ctr-cp app.conf web:/etc/app/\n  ctr-cp web:/var/log/. ./logs\n  ctr-cp -a old:/srv new:/srv\n  ctr-cp web:/etc - | tar -t\n  tar -c site | ctr-cp - web:/srv\n  ctr-cp ./a:b web:/tmp\n  ctr-inspect web | ctr-cp :/etc/hosts ."
)]
pub struct Args {
    /// What to copy: a path, CONTAINER:PATH, or `-`; :PATH is in the container of the record on stdin. A path with a colon begins with ./ or /
    #[arg(value_name = "SRC")]
    pub source: OsString,

    /// Where to: the same
    #[arg(value_name = "DST")]
    pub destination: OsString,

    /// Keep owners, set-uid, extended attributes and devices; otherwise all is root's in a container and one's own here, and devices are left out
    #[arg(short, long)]
    pub archive: bool,

    /// Of a symbolic link that is SRC copy what it leads to
    #[arg(short = 'L', long)]
    pub follow_link: bool,

    /// Print what would be copied where, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print the id only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-cp", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (from, to) = (End::parse(&args.source)?, End::parse(&args.destination)?);
    match (&from, &to) {
        (End::Here(_) | End::Stream, End::Here(_) | End::Stream) => {
            return Err(Fault::usage("neither is in a container")
                .hint("CONTAINER:PATH is; cp copies from here to here"));
        }
        (_, End::Stream) if std::io::stdout().is_terminal() && !args.dry_run => {
            return Err(Fault::usage("stdout is a terminal, which an archive would garble").hint("| or >"));
        }
        (End::Stream, _) if std::io::stdin().is_terminal() => {
            return Err(Fault::usage("stdin is a terminal").hint("tar -c … | ctr-cp - CONTAINER:DIR"));
        }
        _ => {}
    }
    let store = Store::from_env()?;
    let subjects = Subjects::of(context, &store, &from, &to)?;
    rootfs::allow_many_files();
    let Some(copied) = copy::copy(args, context, &store, &subjects, [&from, &to])? else { return Ok(()) };
    let copy = serde_json::json!({"from": from.to_string(), "to": to.to_string()});
    for (_, dir) in subjects.from.iter().chain(&subjects.to) {
        if let Ok(record) = dir.load() {
            store.event(&Who::container(&record), "copy", copy.clone());
        }
    }
    if to == End::Stream {
        return Ok(());
    }
    let (mut record, id) = subjects.record()?;
    let tally = serde_json::json!({
        "from": from.to_string(), "to": to.to_string(), "files": copied.files, "bytes": copied.bytes,
    });
    record.set("copied", &tally)?;
    let words = format!("copied {} files, {} bytes to {to}", copied.files, copied.bytes);
    context.print_result(&record, &id, &words)
}

/// The containers of the two ends.
pub(crate) struct Subjects {
    pub from: Option<(Subject, ContainerDir)>,
    pub to: Option<(Subject, ContainerDir)>,
}

impl Subjects {
    fn of(context: &mut Context, store: &Store, from: &End, to: &End) -> Result<Subjects> {
        let on_stdin = [from, to].iter().any(|end| end.container().is_some_and(str::is_empty));
        let record = if on_stdin {
            if *from == End::Stream {
                return Err(
                    Fault::usage("stdin cannot carry the record and the archive").hint("name the container")
                );
            }
            let mut records = context.require_records()?;
            match (records.pop(), records.is_empty()) {
                (Some(record), true) => Some(record),
                _ => return Err(Fault::input("not one record on stdin, where one container was to be told")),
            }
        } else {
            None
        };
        let find = |end: &End| -> Result<Option<(Subject, ContainerDir)>> {
            let subject = match (end.container(), &record) {
                (None, _) => return Ok(None),
                (Some(""), Some(record)) => Subject::from(record.clone()),
                (Some(name), _) => Subject::from(name.to_owned()),
            };
            let dir = subject.find(store)?;
            Ok(Some((subject, dir)))
        };
        Ok(Subjects { from: find(from)?, to: find(to)? })
    }

    /// Of the container that was copied to, else of the other; with its id.
    fn record(&self) -> Result<(Record, String)> {
        match self.to.as_ref().or(self.from.as_ref()) {
            Some((subject, dir)) => Ok((subject.current(dir)?, dir.id.clone())),
            None => Ok((Record::new(), String::new())),
        }
    }
}
