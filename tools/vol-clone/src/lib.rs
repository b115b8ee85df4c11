//! Copy a volume.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, Kind, Result};
use fault::Explain;
use record::Record;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::AsFd;
use store::Store;
use volume::{Info, Opened};

/// Copy a volume
///
/// Makes a volume with the files of another: owners, modes, times, extended attributes, hard links and holes stay as they are.
/// On a file system that can (btrfs, xfs, bcachefs) blocks are shared and nothing is copied. The copy appears whole or not at
/// all. A source that running containers write to may be copied; what they change meanwhile is in the copy or not.
#[derive(Debug, clap::Parser)]
#[command(
    name = "vol-clone",
    version,
    after_help = "Examples:\n  vol-clone data data-before-upgrade\n  vol-ls -q --filter label=backup | xargs -I{} vol-clone {} {}.bak"
)]
pub struct Args {
    /// The volume to copy
    #[arg(value_name = "SOURCE")]
    pub source: String,

    /// Name of the copy, which is not there yet
    #[arg(value_name = "NAME")]
    pub name: String,

    /// Label the copy; the source's labels are not copied
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    pub labels: Vec<String>,

    /// Print what would be made and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print the name only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "vol-clone", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    volume::check_name(&args.name)?;
    let mut wanted = Info { name: args.name.clone(), driver: volume::LOCAL.to_owned(), ..Info::default() };
    for label in &args.labels {
        let (name, value) = label.split_once('=').unwrap_or((label.as_str(), ""));
        if name.is_empty() {
            return Err(Fault::usage(format!("label \"{label}\" has no name")));
        }
        wanted.labels.insert(name.to_owned(), value.to_owned());
    }
    let store = Store::from_env()?;
    let source = volume::hold(&store, &args.source)?;
    let taken = || Fault::conflict("there is such a volume already").on(&args.name).hint("vol-rm removes it");
    match volume::find(&store, &args.name) {
        Ok(_) => return Err(taken()),
        Err(fault) if fault.kind() == Kind::NotFound => {}
        Err(fault) => return Err(fault),
    }
    if args.dry_run {
        let step = serde_json::json!({"step": "clone_volume", "source": args.source, "name": args.name});
        return context.print_steps(None, &[step]);
    }
    let opened = Opened::new(&source)?;
    let users = volume::users(&store)?.remove(&args.source).unwrap_or_default();
    let running: Vec<&str> =
        users.iter().filter(|user| user.running).map(|user| user.name.as_str()).collect();
    if !running.is_empty() {
        let who = running.join(", ");
        context
            .warn(&args.source, &format!("in use by {who}: what changes meanwhile may be half in the copy"));
    }
    let found = volume::create(&store, &wanted, |data| {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let target =
            openat(CWD, data, flags, Mode::empty()).explain(|| format!("open {}", data.display()))?;
        volume::copy_tree(opened.root(), target.as_fd()).map_err(|fault| fault.within("copy"))
    })?;
    if !found.made {
        return Err(taken());
    }
    let mut record = found.info.into_record(store.root(), Record::new())?;
    record.set("cloned_from", &args.source)?;
    context.print_result(&record, &args.name, &args.name)
}
