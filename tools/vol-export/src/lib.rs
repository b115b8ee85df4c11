//! Write what is in a volume as a tar archive.
#![forbid(unsafe_code)]

mod tree;

pub use tree::pack;

use cli::{Common, Context, Fault, Result};
use fault::Explain;
use record::Record;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use store::Store;
use volume::Opened;

/// Write what is in a volume as a tar archive
///
/// A pax archive with owners, modes, times to the nanosecond, extended attributes (access control lists among them), hard links and
/// holes, which tar and vol-import read. Sockets are left out. A volume that running containers write to may be
/// exported; a file that changes meanwhile is in it as long as it was when it was come to.
#[derive(Debug, clap::Parser)]
#[command(
    name = "vol-export",
    version,
    after_help = "Examples:\n  vol-export data | zstd > data.tar.zst\n  vol-export data | ssh other vol-import data\n  vol-export data --into data.tar"
)]
pub struct Args {
    /// The volume
    #[arg(value_name = "VOLUME")]
    pub name: String,

    /// Write it to a file, and a record to stdout
    #[arg(short = 'o', long = "into", value_name = "FILE")]
    pub into: Option<PathBuf>,

    /// Print the name only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "vol-export", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if args.into.is_none() && stdout().is_terminal() {
        return Err(Fault::usage("stdout is a terminal, which an archive would garble")
            .hint("--into FILE, or | or >"));
    }
    let store = Store::from_env()?;
    let held = volume::hold(&store, &args.name)?;
    let opened = Opened::new(&held)?;
    let users = volume::users(&store)?.remove(&args.name).unwrap_or_default();
    let running: Vec<&str> =
        users.iter().filter(|user| user.running).map(|user| user.name.as_str()).collect();
    if !running.is_empty() {
        let who = running.join(", ");
        context
            .warn(&args.name, &format!("in use by {who}: what changes meanwhile may be half in the archive"));
    }
    let mut warn = |path: &Path, what: &str| context.warn(&path.display().to_string(), what);
    let Some(into) = &args.into else {
        return pack(opened.root(), BufWriter::with_capacity(256 << 10, stdout().lock()), &mut warn)
            .map(drop)
            .map_err(|fault| fault.within(format!("export {}", args.name)));
    };
    write_file(into, |file| pack(opened.root(), file, &mut warn).map(drop))?;
    let mut record = held.info.into_record(store.root(), Record::new())?;
    record.set("archive", &into.to_string_lossy())?;
    context.print_result(&record, &args.name, &format!("exported {}", args.name))
}

/// The file is there when it is whole.
fn write_file(into: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let name = into.file_name().ok_or_else(|| Fault::usage(format!("{} is no file", into.display())))?;
    let mut partial = std::ffi::OsString::from(".");
    partial.push(name);
    partial.push(format!(".{}", std::process::id()));
    let partial = into.with_file_name(partial);
    let failed = || format!("write {}", into.display());
    let file = File::create_new(&partial).explain(failed)?;
    let mut file = BufWriter::with_capacity(256 << 10, file);
    let written = write(&mut file)
        .and_then(|()| file.flush().explain(failed))
        .and_then(|()| std::fs::rename(&partial, into).explain(failed));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written
}
