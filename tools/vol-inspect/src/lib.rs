//! Show volumes with all that is known of them.
#![forbid(unsafe_code)]

use cli::{Common, Context, Input, OutputMode, Result};
use record::Record;
use store::Store;

/// Show volumes with all that is known of them
///
/// Of a record on stdin each volume of its section volumes, so that `ctr-inspect X | vol-inspect` shows those of a container.
#[derive(Debug, clap::Parser)]
#[command(
    name = "vol-inspect",
    version,
    after_help = "Examples:\n  vol-inspect data | jq -r '.volumes[0].mountpoint'\n  ctr-inspect web | vol-inspect"
)]
pub struct Args {
    /// Volumes; without any, records are read from stdin
    #[arg(value_name = "VOLUME")]
    pub names: Vec<String>,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "vol-inspect", common);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let input = context.input(&args.names)?;
    let users = volume::users(&store)?;
    let subjects: Vec<(Record, String)> = match input {
        Input::Names(names) => names.into_iter().map(|name| (Record::new(), name)).collect(),
        Input::Records(records) => {
            let mut subjects = Vec::new();
            context.each(records, |_, record| {
                let named = volume::names_in(&record)?;
                subjects.extend(named.into_iter().map(|name| (record.clone(), name)));
                Ok(())
            });
            subjects
        }
    };
    context.each(subjects, |context, (record, name)| {
        let mut info = volume::find(&store, &name)?;
        match info.of_plugin() {
            Some(Ok(told)) => info.extra.extend(told),
            // What is known here is shown all the same.
            Some(Err(fault)) => context.warn(&name, &fault.to_string()),
            None => {}
        }
        let used = users.get(&name).map(Vec::as_slice).unwrap_or_default();
        let record = vol_ls::with_users(&info, &store, record, used)?;
        if context.mode() != OutputMode::Table {
            return context.print_record(&record);
        }
        let member: Vec<serde_json::Value> = record.require("volumes")?;
        let text = serde_json::to_string_pretty(&member.first()).unwrap_or_default();
        context.print(&format!("{text}\n"))
    });
    Ok(())
}
