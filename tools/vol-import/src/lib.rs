//! Make a volume of a tar archive.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Kind, Result};
use fault::Explain;
use layer::{Expected, Limits, Skipped, Target};
use record::Record;
use rustix::fs::{CWD, Mode, OFlags, RenameFlags, openat, renameat_with};
use rustix::io::Errno;
use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use store::{Scratch, Store};
use volume::{Held, Info, Opened};

/// Make a volume of a tar archive
///
/// The archive may be packed with gzip or zstd. A volume that is not there is made, and is there when all of the archive is in it. One
/// that is there and empty is filled in the same way; for one that is not empty, --replace or --merge says what is to be done.
/// Nothing in the archive can reach beyond the volume.
#[derive(Debug, clap::Parser)]
#[command(
    name = "vol-import",
    version,
    after_help = "Examples:\n  vol-import data < data.tar\n  vol-export data | ssh other vol-import data\n  tar -C ./seed -c . | vol-import data --label from=seed"
)]
pub struct Args {
    /// The volume
    #[arg(value_name = "VOLUME")]
    pub name: String,

    /// The archive; without it, or with -, it comes from stdin
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// What is in the volume goes, in one step; refused while a running container uses it
    #[arg(long, conflicts_with = "merge")]
    pub replace: bool,

    /// What is in the volume stays, but for what is in the archive under the same name
    #[arg(long)]
    pub merge: bool,

    /// Label a volume that is made
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    pub labels: Vec<String>,

    /// Refuse archives larger than this when unpacked (b, k, m, g)
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<String>,

    /// Refuse archives with more entries
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub max_entries: u64,

    /// Print the name only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "vol-import", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let mut wanted = Info { name: args.name.clone(), driver: volume::LOCAL.to_owned(), ..Info::default() };
    for label in &args.labels {
        let (name, value) = label.split_once('=').unwrap_or((label.as_str(), ""));
        if name.is_empty() {
            return Err(Fault::usage(format!("label \"{label}\" has no name")));
        }
        wanted.labels.insert(name.to_owned(), value.to_owned());
    }
    let bytes = args.max_size.as_deref().map(parse_size).transpose()?;
    let limits = Limits { entries: args.max_entries, bytes, ..Limits::default() };
    let archive = open(args.file.as_deref())?;
    let store = Store::from_env()?;
    let mut skipped = Skipped::default();
    let held = match volume::hold(&store, &args.name) {
        Ok(held) => held,
        Err(fault) if fault.kind() == Kind::NotFound => {
            let found = volume::create(&store, &wanted, |data| {
                skipped = unpack(archive, &limits, directory(data)?)?;
                Ok(())
            })?;
            if !found.made {
                return Err(Fault::conflict("it was made meanwhile").on(&args.name).hint("try again"));
            }
            warn(context, &skipped, &args.name);
            let record = found.info.into_record(store.root(), Record::new())?;
            return context.print_result(&record, &args.name, &args.name);
        }
        Err(fault) => return Err(fault),
    };
    if !args.labels.is_empty() {
        return Err(
            Fault::conflict("it exists, and labels are given to a volume when it is made").on(&args.name)
        );
    }
    let skipped =
        into_existing(args, &store, &held, archive, &limits).map_err(|fault| fault.within(&args.name))?;
    warn(context, &skipped, &args.name);
    let record = held.info.into_record(store.root(), Record::new())?;
    context.print_result(&record, &args.name, &args.name)
}

fn into_existing(
    args: &Args,
    store: &Store,
    held: &Held,
    archive: Box<dyn Read + Send>,
    limits: &Limits,
) -> Result<Skipped> {
    if args.merge {
        let opened = Opened::new(held)?;
        return unpack(archive, limits, opened.copy_root()?);
    }
    if held.info.is_mounted() {
        return Err(Fault::conflict("its files are elsewhere, where they cannot be exchanged")
            .hint("--merge puts the archive's among them"));
    }
    let data = held.dir.join("_data");
    let is_empty = || std::fs::read_dir(&data).is_ok_and(|mut entries| entries.next().is_none());
    if !args.replace && !is_empty() {
        return Err(Fault::conflict("it is not empty").hint("--replace, or --merge"));
    }
    let refuse_running = || -> Result<()> {
        let users = volume::users(store)?.remove(&args.name).unwrap_or_default();
        match users.iter().find(|user| user.running) {
            Some(user) => Err(Fault::conflict(format!("it is in use by {}, which runs", user.name))
                .hint("stop it first, or --merge")),
            None => Ok(()),
        }
    };
    refuse_running()?;
    let scratch = Scratch::new(store)?;
    store.make_dir(scratch.path())?;
    let new = scratch.path().join("_data");
    store.make_dir(&new)?;
    let skipped = unpack(archive, limits, directory(&new)?)?;
    // What came meanwhile.
    refuse_running()?;
    if !args.replace && !is_empty() {
        return Err(Fault::conflict("it is no longer empty").hint("--replace, or --merge"));
    }
    match renameat_with(CWD, &new, CWD, &data, RenameFlags::EXCHANGE) {
        Err(Errno::INVAL) => {
            Err(Fault::failed("exchange its files: the file system cannot").hint("vol-rm it first"))
        }
        other => other.explain(|| "exchange its files".into()).map(|()| skipped),
    }
}

fn unpack(archive: Box<dyn Read + Send>, limits: &Limits, root: OwnedFd) -> Result<Skipped> {
    let mut target = Target::plain(root);
    let applied = layer::apply(archive, Expected::default(), limits, &mut target)?;
    if applied.tar_bytes == 0 {
        return Err(Fault::input("the archive is empty: what should have written it failed"));
    }
    Ok(applied.skipped)
}

fn warn(context: &Context, skipped: &Skipped, name: &str) {
    let example = skipped.example.as_deref().unwrap_or_default();
    if skipped.devices > 0 {
        context.warn(name, &format!("{} devices were left out, {example} among them", skipped.devices));
    }
    if skipped.xattrs > 0 {
        context.warn(
            name,
            &format!("{} extended attributes were left out, {example} among them", skipped.xattrs),
        );
    }
}

fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).explain(|| format!("open {}", path.display()))
}

fn open(file: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    let Some(path) = file.filter(|path| *path != Path::new("-")) else {
        let stdin = std::io::stdin();
        if stdin.is_terminal() {
            return Err(
                Fault::usage("stdin is a terminal").hint("vol-import VOLUME FILE, or … | vol-import VOLUME")
            );
        }
        return Ok(Box::new(stdin));
    };
    File::open(path).map(|file| Box::new(file) as _).explain(|| format!("open {}", path.display()))
}

fn parse_size(text: &str) -> Result<u64> {
    oci::wishes::bytes(text).map_err(|fault| fault.within("--max-size").as_kind(Kind::Usage))
}
