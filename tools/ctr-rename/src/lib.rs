//! Give a container another name.
#![forbid(unsafe_code)]

mod hosts;

use chosen::{Output, for_people};
use cli::{Context, Fault, Result};
use record::{Container, Record};
use serde_json::json;
use store::{ContainerDir, Store, Subject, Who, check_name};

/// Give a container another name
///
/// Whether it runs or not. The old name is free at once. Where the container's own /etc/hosts has the old name, it has
/// the new one afterwards.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-rename",
    version,
    allow_missing_positional = true,
    after_help = "Examples:\n  ctr-rename web web-old\n  ctr-ls --latest | ctr-rename web"
)]
pub struct Args {
    /// Id, name, or beginning of an id; without it, a record is read from stdin
    #[arg(value_name = "CONTAINER")]
    pub container: Option<String>,

    /// Name to give it
    #[arg(value_name = "NAME")]
    pub name: String,

    #[command(flatten)]
    pub output: Output,
}

cli::tool!(Args, "ctr-rename", output.common, output.quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    // docker's own notation.
    let name = args.name.strip_prefix('/').unwrap_or(&args.name);
    check_name(name)?;
    let store = Store::from_env()?;
    let subject = if let Some(name) = &args.container {
        Subject::from(name.clone())
    } else {
        let mut records = context.read_records()?;
        match (records.pop(), records.is_empty()) {
            (Some(record), true) => Subject::from(record),
            (Some(_), false) => {
                return Err(Fault::usage("a name is for one container, and several records came in"));
            }
            (None, _) => return Ok(()),
        }
    };
    let dir = subject.find(&store)?;
    if args.output.dry_run {
        return plan(context, &store, &dir, name);
    }
    let old: Container = dir.load()?.require("container")?;
    let renamed = store.rename_container(&dir, name)?;
    let container: Container = renamed.require("container")?;
    store.event(&Who::container(&renamed), "rename", json!({"old_name": old.name}));
    if let Err(fault) = hosts::rename(&dir, &renamed, name) {
        // It has its name; what programs inside call themselves by is less.
        context.warn(name, &fault.to_string());
    }
    if let Err(fault) = rename_on_networks(&store, &renamed, &old.name, name) {
        context.warn(name, &fault.to_string());
    }
    let mut record = subject.current(&dir)?;
    if let Some(config) = renamed.raw("config") {
        record.set_raw("config", config.to_owned())?;
    }
    context.print_result(&record, &container.id, for_people(&Subject::from(name.to_owned()), &container.id))
}

/// Others find it by what its leases call it, which the networks' resolvers read.
fn rename_on_networks(store: &Store, record: &Record, old: &str, new: &str) -> Result<()> {
    let id = record.require::<Container>("container")?.id;
    for attachment in record.networks()? {
        let leases = store.leases(&attachment.name)?;
        for address in store::leases::addresses_of(&attachment) {
            let Some(mut lease) = leases.read(address)?.filter(|lease| lease.container == id) else {
                continue;
            };
            let Some(known) = lease.names.iter_mut().find(|known| *known == old) else { continue };
            new.clone_into(known);
            leases.rewrite(address, &lease)?;
        }
    }
    Ok(())
}

fn plan(context: &mut Context, store: &Store, dir: &ContainerDir, name: &str) -> Result<()> {
    let old: Container = dir.load()?.require("container")?;
    match store.find_container(name) {
        Ok(holder) if holder.id == dir.id && old.name == name => {
            return Err(Fault::conflict("the container has that name already").on(name));
        }
        Ok(holder) if holder.load()?.container()?.is_some_and(|container| container.name == name) => {
            return Err(
                Fault::conflict(format!("the name is in use by container {}", &holder.id[..12])).on(name)
            );
        }
        _ => {}
    }
    context.print_steps(Some(&dir.id), &[json!({"step": "rename", "from": old.name, "to": name})])
}
