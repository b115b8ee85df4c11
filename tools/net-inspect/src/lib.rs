//! Show networks with all that is known of them.
#![forbid(unsafe_code)]

use cli::{Common, Context, Input, OutputMode, Result};
use network::Host;
use record::Record;
use store::Store;

/// Show networks with all that is known of them
///
/// Of a record on stdin each network of its section networks, so that `ctr-inspect X | net-inspect` shows those of a container.
#[derive(Debug, clap::Parser)]
#[command(
    name = "net-inspect",
    version,
    after_help = "Examples:\n  net-inspect web | jq -r '.networks[0].subnets[].gateway'\n  ctr-inspect front | net-inspect"
)]
pub struct Args {
    /// Networks; without any, records are read from stdin
    #[arg(value_name = "NETWORK")]
    pub names: Vec<String>,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "net-inspect", common);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects = subjects(context, &args.names)?;
    let host = Host::new(&store)?;
    context.each(subjects, |context, (record, name)| {
        let info = network::find(&host, &name)?;
        let record = info.into_record(record)?;
        if context.mode() != OutputMode::Table {
            return context.print_record(&record);
        }
        let member: Vec<serde_json::Value> = record.require("networks")?;
        let text = serde_json::to_string_pretty(&member.first()).unwrap_or_default();
        context.print(&format!("{text}\n"))
    });
    Ok(())
}

/// The networks named, or each of those in the records on stdin.
pub fn subjects(context: &mut Context, names: &[String]) -> Result<Vec<(Record, String)>> {
    let mut subjects = Vec::new();
    match context.input(names)? {
        Input::Names(names) => subjects.extend(names.into_iter().map(|name| (Record::new(), name))),
        Input::Records(records) => context.each(records, |_, record| {
            let named = network::names_in(&record)?;
            subjects.extend(named.into_iter().map(|name| (record.clone(), name)));
            Ok(())
        }),
    }
    Ok(subjects)
}
