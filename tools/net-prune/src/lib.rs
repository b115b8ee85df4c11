//! Remove what containers that are gone left of their networks.
#![forbid(unsafe_code)]

use cli::{Common, Context, OutputMode, Result, Table, Tool};
use network::{Host, Pruned};
use record::Record;
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

pub fn run(_args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let pruned = network::prune(&Host::new(&store)?)?;
    match context.mode() {
        OutputMode::Table if pruned.is_empty() => Ok(()),
        OutputMode::Table => context.print_table(&table(&pruned)),
        OutputMode::Quiet => pruned.iter().try_for_each(|thing| context.print(&format!("{}\n", thing.name))),
        OutputMode::Json => pruned.iter().try_for_each(|thing| {
            let mut record = Record::new();
            let mut section = serde_json::json!({"kind": thing.kind, "name": thing.name});
            if let Some(id) = &thing.container {
                section["container"] = id.as_str().into();
            }
            record.set("pruned", &section)?;
            context.print_record(&record)
        }),
    }
}

fn table(pruned: &[Pruned]) -> Table {
    let mut table = Table::new(&["REMOVED", "NAME", "CONTAINER"]);
    for thing in pruned {
        let id = thing.container.as_deref().unwrap_or_default();
        table.row([thing.kind, thing.name.as_str(), id.get(..12).unwrap_or(id)]);
    }
    table
}
