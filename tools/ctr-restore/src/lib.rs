//! Have saved containers go on.
#![forbid(unsafe_code)]

mod import;
mod network;
mod resume;

use chosen::{Chosen, for_people};
use cli::{Context, Fault, Result};
use record::{Container, Record};
use resume::Wish;
use serde_json::{Value, json};
use std::path::PathBuf;
use store::{ContainerDir, Status, Store, Subject};

/// Have saved containers go on
///
/// Processes that ctr-checkpoint saved are made again by criu as they were, memory and open files included, on the container's network, looked after by
/// a shim as those of any container that runs. From an archive the container is made first, with its id and name or, with --name, another of that name;
/// its image is pulled if it is not here. An archive is as powerful as the container in it: restore none you would not run.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-restore",
    version,
    after_help = "Examples:\n  ctr-checkpoint web && ctr-restore web\n  ctr-restore --import web.tar.zst\n  ctr-restore -i web.tar.zst --name web2 -p 8081:80\n  ctr-checkpoint -e - web | ssh other ctr-restore -i -"
)]
pub struct Args {
    /// Make the container from an archive of ctr-checkpoint; `-` is stdin
    #[arg(short, long, value_name = "FILE", conflicts_with = "containers")]
    pub import: Option<PathBuf>,

    /// Give the container out of the archive this name, and an id of its own
    #[arg(short, long, value_name = "NAME", requires = "import")]
    pub name: Option<String>,

    /// Publish these ports in place of those the container in the archive published
    #[arg(short, long, value_name = "PORTS", requires = "import")]
    pub publish: Vec<String>,

    /// Do not ask for the address the container had
    #[arg(long)]
    pub ignore_static_ip: bool,

    /// Do not ask for the hardware address the container had
    #[arg(long)]
    pub ignore_static_mac: bool,

    /// Restore TCP connections that were open
    #[arg(long)]
    pub tcp_established: bool,

    /// Restore locks of files that were held
    #[arg(long)]
    pub file_locks: bool,

    /// Keep the checkpoint, criu's log and its statistics in the container's bundle
    #[arg(short, long)]
    pub keep: bool,

    /// Add to the record what criu counted
    #[arg(long)]
    pub print_stats: bool,

    #[command(flatten)]
    pub chosen: Chosen,
}

cli::tool!(Args, "ctr-restore", chosen.output.common, chosen.output.quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if let Some(path) = &args.import {
        let store = Store::from_env()?;
        return import::run(args, context, &store, path);
    }
    // clap takes what conflicts with --import for a reason not to require it.
    if args.name.is_some() || !args.publish.is_empty() {
        return Err(Fault::usage("--name and --publish are for containers made from an archive")
            .hint("--import FILE; ctr-rename gives another name"));
    }
    let subjects = args.chosen.subjects(context)?;
    let store = Store::from_env()?;
    context.each(subjects, |context, subject| {
        let dir = subject.find(&store)?;
        one(args, context, &store, &subject, &dir).map_err(|fault| fault.on(dir.id.as_str()))
    });
    Ok(())
}

fn one(
    args: &Args,
    context: &mut Context,
    store: &Store,
    subject: &Subject,
    dir: &ContainerDir,
) -> Result<()> {
    let status = dir.status()?;
    if matches!(status, Status::Running | Status::Paused | Status::Restarting) {
        return Err(Fault::conflict(format!("the container is {}", status.name()))
            .hint("a second one out of an archive: ctr-restore --import FILE --name NAME"));
    }
    if !checkpoint::is_there(dir) {
        return Err(Fault::not_found("the container has no checkpoint")
            .hint("ctr-checkpoint makes one, of a container that runs; --import FILE restores an archive"));
    }
    if args.chosen.output.dry_run {
        return context.print_steps(Some(&dir.id), &steps(args));
    }
    network::forget(args, dir)?;
    let record = match subject {
        Subject::Record(record) => Some(&**record),
        Subject::Name(_) => None,
    };
    let statistics =
        resume::resume(store, dir, &Wish::of(args), record, &mut |text| context.warn(&dir.id, text))?;
    let record = subject.current(dir)?;
    print(context, record, statistics, for_people(subject, &dir.id))
}

fn print(context: &mut Context, mut record: Record, statistics: Option<Value>, name: &str) -> Result<()> {
    let container: Container = record.require("container")?;
    if let Some(statistics) = statistics {
        record.set("restore_statistics", &statistics)?;
    }
    context.print_result(&record, &container.id, name)
}

fn steps(args: &Args) -> Vec<Value> {
    let mut steps = Vec::new();
    if let Some(file) = &args.import {
        steps.push(json!({"step": "create", "from": file, "name": args.name}));
    }
    steps.push(json!({"step": "set_up"}));
    steps.push(json!({"step": "attach_network"}));
    steps.push(json!({
        "step": "restore", "tcp_established": args.tcp_established, "file_locks": args.file_locks,
    }));
    if !args.keep {
        steps.push(json!({"step": "remove_checkpoint"}));
    }
    steps
}
