//! Remove networks.
#![forbid(unsafe_code)]

use cli::{Common, Context, Kind, Result};
use network::Host;
use record::Record;
use store::Store;

/// Remove networks
///
/// With their bridges. One that containers are attached to is refused, and they are named. Of a record on stdin each network
/// of its section networks is removed.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-rm",
    version,
    after_help = "Examples:\n  net-rm web\n  net-rm --force web\n  net-ls --filter label=temporary | net-rm"
)]
pub struct Args {
    /// Networks; without any, records are read from stdin
    #[arg(value_name = "NETWORK")]
    pub names: Vec<String>,

    /// Detach its containers first; one that is not there is no failure
    #[arg(short, long)]
    pub force: bool,

    /// Print what would be done as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print names only
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "net-rm", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects = net_inspect::subjects(context, &args.names)?;
    let host = Host::new(&store)?;
    context.each(subjects, |context, (record, name)| match one(args, context, &host, record, &name) {
        Err(fault) if args.force && fault.kind() == Kind::NotFound => Ok(()),
        other => other,
    });
    Ok(())
}

fn one(args: &Args, context: &mut Context, host: &Host<'_>, record: Record, name: &str) -> Result<()> {
    if args.dry_run {
        return context.print_steps(None, &network::plan_remove(host, name, args.force)?);
    }
    // Of one that is half or damaged the name is all there is to tell.
    let info = network::find(host, name).ok();
    let driver = info.as_ref().map(|info| info.file.driver.clone()).unwrap_or_default();
    let removed = network::remove(host, name, args.force);
    for note in host.take_notes() {
        context.warn(name, &note);
    }
    removed?;
    host.store.event(&store::Who::network(name), "destroy", serde_json::json!({"type": driver}));
    let record = if let Some(mut info) = info {
        (info.active, info.in_use) = (false, false);
        info.containers.clear();
        info.into_record(record)?
    } else {
        let mut record = record;
        record.set("networks", &[serde_json::json!({"name": name})])?;
        record
    };
    context.print_result(&record, name, name)
}
