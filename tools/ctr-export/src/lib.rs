//! Write a container's files into an archive.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Result};
use layer::output::Output;
use rootfs::{Access, Root, Tally, Tarball, Walk};
use std::io::{BufWriter, IsTerminal, stdout};
use std::os::fd::AsFd;
use std::path::PathBuf;
use store::{Store, Subject, Who};

/// Write a container's files into an archive
///
/// A tar of the container's root file system as it is now: the image's files with what the container made of them, without volumes and whatever else is
/// mounted in it. It runs, is paused or has ended; one that runs may change while it is read. Owners, times, hard links, extended attributes,
/// devices and large holes are kept.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-export",
    version,
    after_help = "Examples:\n  ctr-export web | tar -t\n  ctr-export --into web.tar web\n  ctr-export web | img-import -c 'CMD [\"nginx\"]' - web:flat\n  ctr-inspect web | ctr-export | zstd >web.tar.zst"
)]
pub struct Args {
    /// Id, name, or a beginning of an id; without one, a record is read from stdin
    #[arg(value_name = "CONTAINER")]
    pub container: Option<String>,

    /// Write to this file, which is there when it is complete; stdout then has the record
    #[arg(short = 'o', long = "into", value_name = "FILE")]
    pub into: Option<PathBuf>,

    /// Write holes of files as the zeros they are read as, for readers that know no sparse files
    #[arg(long)]
    pub no_sparse: bool,

    /// With --into print the id only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-export", common, quiet);

/// Written at once, in bytes.
const CHUNK: usize = 256 << 10;

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if args.into.is_none() && stdout().is_terminal() {
        return Err(Fault::usage("stdout is a terminal, which an archive would garble")
            .hint("--into FILE, or | or >"));
    }
    let Some(subject) = subject(args, context)? else { return Ok(()) };
    let store = Store::from_env()?;
    let dir = subject.find(&store)?;
    rootfs::allow_many_files();
    let mut output = Output::open(args.into.as_deref())?;
    let root = Root::open(&store, &dir, Access::Own)?;
    let mut tally = Tally::default();
    let mut tarball = Tarball::new(BufWriter::with_capacity(CHUNK, output.file()), !args.no_sparse);
    rootfs::walk(root.as_fd(), Walk { owners: root.owners(), ..Walk::default() }, &mut tarball, &mut tally)
        .and_then(|()| {
            tally.shrunk = tarball.shrunk;
            tarball.finish().map(drop)
        })
        .map_err(|fault| fault.on(dir.id.as_str()))?;
    output.finish()?;
    if let Ok(record) = dir.load() {
        store.event(&Who::container(&record), "export", serde_json::Value::Null);
    }
    if tally.shrunk > 0 {
        context.warn(
            &dir.id,
            &format!("{} files became shorter while they were read: zeros took the place", tally.shrunk),
        );
    }
    let Some(into) = &args.into else { return Ok(()) };
    let mut record = subject.current(&dir)?;
    record.set("archive", &into.to_string_lossy())?;
    context.print_result(&record, &dir.id, &format!("exported {} files to {}", tally.files, into.display()))
}

/// `None` when there is but a record that could not be read, which was reported.
fn subject(args: &Args, context: &mut Context) -> Result<Option<Subject>> {
    if let Some(name) = &args.container {
        return Ok(Some(Subject::from(name.clone())));
    }
    let mut records = context.require_records()?;
    if records.len() > 1 {
        return Err(Fault::input("several containers, which cannot be one archive")
            .hint("one ctr-export for each of them"));
    }
    Ok(records.pop().map(Subject::from))
}
