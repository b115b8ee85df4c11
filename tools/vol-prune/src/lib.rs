//! Remove volumes nobody uses.
#![forbid(unsafe_code)]

use cli::moment::{is_before, take_until};
use cli::words::confirmed;
use cli::{Common, Context, Kind, OutputMode, Result};
use record::Record;
use store::Store;
use vol_ls::Filters;

/// Remove volumes nobody uses
///
/// Those that were made without a name, for a container that is gone; with --all the others too. One that a container is
/// just being made with stays. On a terminal it asks first.
#[derive(Debug, clap::Parser)]
#[command(
    name = "vol-prune",
    version,
    after_help = "Examples:\n  vol-prune -f\n  vol-prune -a --filter label!=keep | jq -s 'map(.reclaimed_bytes) | add'"
)]
pub struct Args {
    /// Those with a name, too
    #[arg(short, long)]
    pub all: bool,

    /// Do not ask
    #[arg(short, long)]
    pub force: bool,

    /// Remove only those for which this holds: until=TIME (made before), label=KEY[=VALUE], label!=KEY[=VALUE], name=, driver=; all=true
    /// is --all
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,

    /// Print what would be removed and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "vol-prune", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    // docker's older word for --all.
    let (all, others): (Vec<String>, Vec<String>) =
        args.filters.iter().cloned().partition(|text| matches!(text.as_str(), "all=true" | "all=1"));
    let all = args.all || !all.is_empty();
    let mut others: Vec<String> =
        others.into_iter().filter(|text| !matches!(text.as_str(), "all=false" | "all=0")).collect();
    let until = take_until(&mut others)?;
    let filters = Filters::parse(&others)?;
    let store = Store::from_env()?;
    let which = if all { "all volumes" } else { "all volumes without a name" };
    let warning = format!("This will remove {which} that no container uses.");
    if !args.dry_run && !args.force && !confirmed(&warning)? {
        return Ok(());
    }
    let users = volume::users(&store)?;
    let mut found = volume::list(&store, |fault| context.report(&fault))?;
    found.retain(|info| {
        (all || info.anonymous)
            && !users.contains_key(&info.name)
            && is_before(info.created_at.as_deref(), until)
            && filters.hold(info, false)
    });
    let mut reclaimed = 0u64;
    let mut count = 0;
    context.each(found, |context, info| {
        if args.dry_run {
            let step = serde_json::json!({"step": "remove_volume", "name": info.name});
            return context.print_steps(None, &[step]);
        }
        let freed = match volume::remove(&store, &info.name) {
            // Removed, or used, meanwhile.
            Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Conflict | Kind::Retryable) => {
                return Ok(());
            }
            other => other?,
        };
        reclaimed = reclaimed.saturating_add(freed);
        if count == 0 && context.mode() == OutputMode::Table {
            context.print("Deleted Volumes:\n")?;
        }
        count += 1;
        let mut record = info.into_record(store.root(), Record::new())?;
        record.set("reclaimed_bytes", &freed)?;
        context.print_result(&record, &info.name, &info.name)
    });
    if context.mode() == OutputMode::Table && !args.dry_run {
        context.print(&format!("Total reclaimed space: {reclaimed} bytes\n"))?;
    }
    Ok(())
}
