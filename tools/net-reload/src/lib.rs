//! Make networks whole again: bridge, kernel parameters and firewall.
#![forbid(unsafe_code)]

use cli::{Common, Context, OutputMode, Result, Table};
use network::{Host, Reloaded};
use record::Record;
use serde_json::{Map, Value};
use store::Store;

/// Make networks whole again after the firewall was emptied
///
/// After `nft flush ruleset`, the reload of a firewall daemon, or a bridge somebody changed or removed: makes bridge,
/// addresses, kernel parameters, the firewall table with its rules, and the elements of published ports again, as the files
/// of the networks and leases tell. What is right is left as it is, and so is the table's chain `user`. Without NETWORK all
/// that containers are attached to. Reads no records.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-reload",
    version,
    after_help = "Examples:
  net-reload
  nft flush ruleset && nft -f /etc/nftables.conf && net-reload -q"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    /// Networks by name
    #[arg(value_name = "NETWORK")]
    pub networks: Vec<String>,

    /// Print only the networks' names
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,
}

cli::tool!(Args, "net-reload", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let host = Host::new(&store)?;
    let reloaded = network::reload(&host, &args.networks);
    for note in host.take_notes() {
        context.warn("network", &note);
    }
    let reloaded = reloaded?;
    for fault in network::dns::heal(&host, reloaded.iter().map(|one| one.network.as_str())) {
        context.warn("network", &fault.to_string());
    }
    match context.mode() {
        OutputMode::Table if reloaded.is_empty() => Ok(()),
        OutputMode::Table => context.print_table(&table(&reloaded)),
        OutputMode::Quiet => reloaded.iter().try_for_each(|one| context.print(&format!("{}\n", one.network))),
        OutputMode::Json => reloaded.iter().try_for_each(|one| {
            let mut record = Record::new();
            record.set("reloaded", &section(one))?;
            context.print_record(&record)
        }),
    }
}

/// `{"network":"bridge","device":"staves0","containers":2,"published":3,"unpublished":0,"connected":0}`
fn section(one: &Reloaded) -> Map<String, Value> {
    let mut section = Map::new();
    section.insert("network".into(), one.network.as_str().into());
    section.insert("device".into(), one.device.as_str().into());
    for (name, count) in [
        ("containers", one.containers),
        ("published", one.published),
        ("unpublished", one.unpublished),
        ("connected", one.connected),
    ] {
        section.insert(name.into(), count.into());
    }
    section
}

fn table(reloaded: &[Reloaded]) -> Table {
    let mut table = Table::new(&["NETWORK", "DEVICE", "CONTAINERS", "PUBLISHED", "UNPUBLISHED", "CONNECTED"]);
    for one in reloaded {
        table.row([
            one.network.as_str(),
            one.device.as_str(),
            &one.containers.to_string(),
            &one.published.to_string(),
            &one.unpublished.to_string(),
            &one.connected.to_string(),
        ]);
    }
    table
}
