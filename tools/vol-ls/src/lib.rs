//! List volumes.
#![forbid(unsafe_code)]

mod filter;

pub use filter::Filters;

use cli::{Common, Context, OutputMode, Result, Table};
use record::Record;
use store::Store;
use volume::Info;

/// List volumes
///
/// Filters of different keys must all hold, and so must several labels; of several names or drivers one is enough.
///
///   name=                part of it; ^ and $ stand for its beginning and end
///   driver=              local, or the name of a plugin
///   label=KEY[=VALUE]    set with vol-create --label
///   label!=KEY[=VALUE]   not set
///   dangling=true|false  used by no container, or by some
///   anonymous=true|false made for a container that gave it no name, or not
#[derive(Debug, clap::Parser)]
#[command(
    name = "vol-ls",
    version,
    after_help = "Examples:\n  vol-ls\n  vol-ls --filter dangling=true -q\n  vol-ls | jq -r '.volumes[] | select(.containers == []) | .name' | xargs -r vol-rm"
)]
pub struct Args {
    /// List only those for which this holds; can be given several times
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,

    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "vol-ls", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let filters = Filters::parse(&args.filters)?;
    let store = Store::from_env()?;
    let users = volume::users(&store)?;
    let used = |info: &Info| users.get(&info.name).map(Vec::as_slice).unwrap_or_default();
    // One that is broken must not hide the others.
    let mut listed = volume::list(&store, |fault| context.report(&fault))?;
    listed.retain(|info| filters.hold(info, !used(info).is_empty()));
    if context.mode() == OutputMode::Table {
        let mut table = Table::new(&["DRIVER", "VOLUME NAME", "CONTAINERS"]);
        for info in &listed {
            let names: Vec<&str> = used(info).iter().map(|user| user.name.as_str()).collect();
            table.row([info.driver.clone(), info.name.clone(), names.join(", ")]);
        }
        return context.print_table(&table);
    }
    for info in &listed {
        let record = with_users(info, &store, Record::new(), used(info))?;
        context.print_result(&record, &info.name, &info.name)?;
        if context.stdout_closed() {
            break;
        }
    }
    Ok(())
}

/// A volume's record with those who use it.
pub fn with_users(info: &Info, store: &Store, record: Record, users: &[volume::User]) -> Result<Record> {
    let mut info = info.clone();
    info.extra.insert("containers".into(), serde_json::json!(users));
    info.into_record(store.root(), record)
}
