//! List containers.
#![forbid(unsafe_code)]

mod filter;
mod table;
mod words;

use cli::{Common, Context, Kind, OutputMode, Result};
use filter::Filters;
use jiff::Timestamp;
use record::{Container, Record};
use store::{ContainerDir, Status, Store};

/// List containers
///
/// Those that run; --all lists the others too, and so do the filters status and exited, --last and --latest.
/// The newest comes first.
///
/// Filters of different keys must all hold, and so must several labels; of several values of another key one is
/// enough.
///
///   id=, name=           part of it; ^ and $ stand for its beginning and end
///   label=KEY[=VALUE]    set with ctr-create --label
///   status=              created, running, paused, restarting or exited
///   exited=CODE          ended with this exit status
///   health=              starting, healthy, unhealthy, or none: without a health check
///   ancestor=IMAGE       made from this reference (without a tag: latest), name@digest or digest
///   before=, since=      created before or after this container
///   network=, volume=    attached to this network; has this volume, or a mount at this path
///   publish=, expose=    PORT[-PORT][/PROTOCOL] of the host, of the container
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-ls",
    version,
    after_help = "Examples:\n  ctr-ls --all\n  ctr-ls --filter status=exited | ctr-rm\n  ctr-ls | jq -r 'select(.config.memory == null) | .container.name'"
)]
pub struct Args {
    /// Those that do not run, too
    #[arg(short, long)]
    pub all: bool,

    /// List only those for which this holds; can be given several times
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,

    /// The N containers created last, running or not
    #[arg(short = 'n', long, value_name = "N")]
    pub last: Option<usize>,

    /// The container created last, running or not
    #[arg(short, long, conflicts_with = "last")]
    pub latest: bool,

    /// Whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-ls", common, quiet);

/// A container with what listing needs of it.
struct Listed {
    record: Record,
    container: Container,
    created: Option<Timestamp>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let filters = Filters::parse(&args.filters, &store)?;
    let limit = if args.latest { Some(1) } else { args.last };
    let all = args.all || limit.is_some() || filters.want_all();
    let mut listed = Vec::new();
    for dir in store.containers()? {
        match look_at(&dir, all, &filters) {
            Ok(found) => listed.extend(found),
            // Removed since the directory was read.
            Err(fault) if fault.kind() == Kind::NotFound => {}
            // One that is broken must not hide the others.
            Err(fault) => context.warn(&dir.id, &fault.to_string()),
        }
    }
    listed.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.container.id.cmp(&b.container.id)));
    listed.truncate(limit.unwrap_or(usize::MAX));
    print(args, context, &listed)
}

fn look_at(dir: &ContainerDir, all: bool, filters: &Filters) -> Result<Option<Listed>> {
    // The cheap question first: most of the containers on a machine may have ended long ago.
    if !all && matches!(dir.status()?, Status::Created | Status::Exited) {
        return Ok(None);
    }
    let record = dir.current()?;
    let container: Container = record.require("container")?;
    let created = container.created_at.as_deref().and_then(|text| text.parse().ok());
    let listed = Listed { record, container, created };
    Ok(if filters.hold(&listed)? { Some(listed) } else { None })
}

fn print(args: &Args, context: &mut Context, listed: &[Listed]) -> Result<()> {
    match context.mode() {
        OutputMode::Json => {
            for item in listed {
                context.print_record(&item.record)?;
                if context.stdout_closed() {
                    break;
                }
            }
            Ok(())
        }
        OutputMode::Quiet => {
            let lines =
                listed.iter().map(|item| format!("{}\n", table::id(&item.container.id, args.no_trunc)));
            context.print(&lines.collect::<String>())
        }
        OutputMode::Table => context.print_table(&table::of(listed, args.no_trunc, Timestamp::now())),
    }
}
