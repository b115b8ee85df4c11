//! Remove volumes.
#![forbid(unsafe_code)]

use cli::{Common, Context, Input, Kind, Result};
use record::Record;
use store::Store;

/// Remove volumes
///
/// One that a container uses, running or not, is refused, and the container is named. Of a record on stdin each volume of its
/// section volumes is removed.
#[derive(Debug, clap::Parser)]
#[command(
    name = "vol-rm",
    version,
    after_help = "Examples:\n  vol-rm data\n  vol-ls --filter label=temporary | vol-rm\n  vol-rm -f data || true"
)]
pub struct Args {
    /// Volumes; without any, records are read from stdin
    #[arg(value_name = "VOLUME")]
    pub names: Vec<String>,

    /// One that is not there is no failure
    #[arg(short, long)]
    pub force: bool,

    /// Print what would be removed and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "vol-rm", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let mut subjects = Vec::new();
    match context.input(&args.names)? {
        Input::Names(names) => subjects.extend(names.into_iter().map(|name| (Record::new(), name))),
        Input::Records(records) => context.each(records, |_, record| {
            let named = volume::names_in(&record)?;
            subjects.extend(named.into_iter().map(|name| (record.clone(), name)));
            Ok(())
        }),
    }
    context.each(subjects, |context, (record, name)| match one(args, context, &store, record, &name) {
        Err(fault) if args.force && fault.kind() == Kind::NotFound => Ok(()),
        other => other,
    });
    Ok(())
}

fn one(args: &Args, context: &mut Context, store: &Store, record: Record, name: &str) -> Result<()> {
    let info = volume::find(store, name)?;
    if args.dry_run {
        volume::check_unused(store, name)?;
        return context.print_steps(None, &[serde_json::json!({"step": "remove_volume", "name": name})]);
    }
    let freed = volume::remove(store, name)?;
    let mut record = info.into_record(store.root(), record)?;
    record.set("reclaimed_bytes", &freed)?;
    context.print_result(&record, name, name)
}
