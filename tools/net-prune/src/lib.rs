//! Remove what containers that are gone left of their networks.
#![forbid(unsafe_code)]

use cli::moment::{is_before, take_until};
use cli::words::confirmed;
use cli::{Common, Context, Kind, OutputMode, Result, Table};
use net_ls::Filters;
use network::{DEFAULT, Host, Info, Pruned};
use record::Record;
use serde_json::{Map, Value};
use store::Store;

const QUESTION: &str = "This will remove all networks that no container asks for.";

/// Remove what containers that are gone left of their networks
///
/// Addresses, ports, firewall elements and interfaces whose container is not set up any more; when nothing is attached to a
/// network, its bridge, and when that holds of all networks, the firewall table: the next attachment makes them again.
/// Networks stay, but for halves that killed tools left; with --unused those go that no container asks for, running or
/// not. Touches nothing that is not named as ours. Reads no records.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-prune",
    version,
    after_help = "Examples:
  net-prune
  net-prune --unused --filter until=24h --filter label!=keep
  net-prune | jq -r '.pruned | select(.kind == \"lease\") | .name'"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Networks no container asks for, too; on a terminal it asks first
    #[arg(short, long)]
    pub unused: bool,

    /// Do not ask
    #[arg(short, long)]
    pub force: bool,

    /// Of unused networks only those for which this holds: until=TIME (made before), label=KEY[=VALUE], label!=KEY[=VALUE], name=, driver=
    #[arg(long = "filter", value_name = "KEY=VALUE", requires = "unused")]
    pub filters: Vec<String>,

    /// Print what would be removed as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print only the names of what was removed
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

cli::tool!(Args, "net-prune", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let filters = Chosen::parse(&args.filters)?;
    let store = Store::from_env()?;
    let host = Host::new(&store)?;
    if args.unused && !args.dry_run && !args.force && !confirmed(QUESTION)? {
        return Ok(());
    }
    let failed = |fault| context.report(&fault);
    let mut pruned =
        if args.dry_run { network::plan_prune(&host, failed)? } else { network::prune(&host, failed)? };
    for note in host.take_notes() {
        context.warn("", &note);
    }
    if args.unused {
        // What was pruned is to be told of in any case.
        let unused = remove_unused(args, context, &host, &filters);
        let networks = unused.map_err(|fault| context.report(&fault)).unwrap_or_default();
        pruned.extend(networks);
    }
    if args.dry_run {
        let steps: Vec<_> = pruned.iter().map(step).collect();
        return context.print_steps(None, &steps);
    }
    match context.mode() {
        OutputMode::Table if pruned.is_empty() => Ok(()),
        OutputMode::Table => context.print_table(&table(&pruned)),
        OutputMode::Quiet => pruned.iter().try_for_each(|thing| context.print(&format!("{}\n", thing.name))),
        OutputMode::Json => pruned.iter().try_for_each(|thing| {
            let mut record = Record::new();
            record.set("pruned", &section(thing))?;
            context.print_record(&record)
        }),
    }
}

/// `{"kind":"lease","name":"10.89.0.2","container":"4f1c…"}`
fn section(thing: &Pruned) -> Map<String, Value> {
    let mut section = Map::new();
    section.insert("kind".into(), thing.kind.into());
    section.insert("name".into(), thing.name.as_str().into());
    if let Some(id) = &thing.container {
        section.insert("container".into(), id.as_str().into());
    }
    section
}

/// The same with what is to be done about it in front.
fn step(thing: &Pruned) -> Map<String, Value> {
    std::iter::once(("step".to_owned(), "remove".into())).chain(section(thing)).collect()
}

fn table(pruned: &[Pruned]) -> Table {
    let mut table = Table::new(&["REMOVED", "NAME", "CONTAINER"]);
    for thing in pruned {
        let id = thing.container.as_deref().unwrap_or_default();
        table.row([thing.kind, thing.name.as_str(), id.get(..12).unwrap_or(id)]);
    }
    table
}

/// `--filter`: which of the unused ones go.
struct Chosen {
    until: Option<jiff::Timestamp>,
    others: Filters,
}

impl Chosen {
    fn parse(filters: &[String]) -> Result<Chosen> {
        let mut filters = filters.to_vec();
        Ok(Chosen { until: take_until(&mut filters)?, others: Filters::parse(&filters)? })
    }

    fn hold(&self, info: &Info) -> bool {
        is_before(info.file.created_at.as_deref(), self.until) && self.others.hold(info)
    }
}

/// docker's `network prune`, but that a container which does not run counts, too: its next start needs the network.
fn remove_unused(
    args: &Args,
    context: &mut Context,
    host: &Host<'_>,
    filters: &Chosen,
) -> Result<Vec<Pruned>> {
    let mut networks = network::list(host, |fault| context.report(&fault))?;
    networks.retain(|info| !info.in_use && info.file.name != DEFAULT && filters.hold(info));
    let mut removed = Vec::new();
    for info in networks {
        let name = info.file.name;
        if !args.dry_run {
            match network::remove(host, &name, false) {
                // Removed, or used, meanwhile.
                Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Conflict | Kind::Retryable) => {
                    continue;
                }
                Err(fault) => {
                    context.report(&fault.on(name));
                    continue;
                }
                Ok(()) => {
                    let told = serde_json::json!({"type": info.file.driver});
                    host.store.event(&store::Who::network(&name), "destroy", told);
                }
            }
        }
        removed.push(Pruned { kind: "network", name, container: None });
    }
    Ok(removed)
}
