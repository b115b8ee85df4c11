//! Remove what containers that are gone left of their networks.
#![forbid(unsafe_code)]

use cli::{Common, Context, OutputMode, Result, Table, Tool};
use network::{Host, Pruned};
use record::Record;
use serde_json::{Map, Value};
use store::Store;

/// Remove what containers that are gone left of their networks
///
/// Addresses, ports, firewall elements and interfaces whose container is not set up any more; and, when nothing is
/// attached to a network, its bridge and the firewall table, which the next attachment makes again. Touches nothing
/// that is not named as ours. Reads no records.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-prune",
    version,
    after_help = "Examples:
  net-prune
  net-prune | jq -r '.pruned | select(.kind == \"lease\") | .name'"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Print what would be removed as one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print only the names of what was removed
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

impl Tool for Args {
    const NAME: &'static str = "net-prune";

    fn common(&self) -> &Common {
        &self.common
    }

    fn quiet(&self) -> bool {
        self.quiet
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let host = Host::new(&store)?;
    if args.dry_run {
        let steps: Vec<_> = network::plan_prune(&host)?.iter().map(step).collect();
        return context.print_steps(None, &steps);
    }
    let pruned = network::prune(&host)?;
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
