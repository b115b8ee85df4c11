//! Save the processes of containers, to go on later or elsewhere.
#![forbid(unsafe_code)]

mod dump;
mod export;

use checkpoint::Compression;
use chosen::{Chosen, for_people};
use clap::ValueEnum;
use cli::{Context, Fault, Result};
use export::Export;
use layer::output::Output;
use record::{Container, Record, Volume};
use serde_json::{Value, json};
use std::io::{IsTerminal, stdout};
use std::path::{Path, PathBuf};
use store::{ContainerDir, Store, Subject, Who};

/// Save the processes of containers, to go on later or elsewhere
///
/// criu writes down what each process of a container is and has, memory included, and ends them; ctr-restore has them go on from there. With --export
/// that, the container's record, its log and what it changed in its files become an archive, from which ctr-restore makes the container on another machine,
/// or a second one on this. Volumes stay where they are.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-checkpoint",
    version,
    after_help = "Examples:\n  ctr-checkpoint web && ctr-restore web\n  ctr-checkpoint -R --export web.tar.zst web\n  ctr-checkpoint -e - web | ssh other ctr-restore -i -\n  ctr-ls -q | head -n 1 | xargs ctr-checkpoint --print-stats"
)]
pub struct Args {
    /// Let the processes run on when they are saved
    #[arg(short = 'R', long)]
    pub leave_running: bool,

    /// Write an archive to this file, which is there when it is complete; `-` is stdout
    #[arg(short, long, value_name = "FILE")]
    pub export: Option<PathBuf>,

    /// How the archive is packed [default: zstd]
    #[arg(short, long, value_enum, value_name = "PACKING", requires = "export")]
    pub compress: Option<Packing>,

    /// Leave out of the archive what the container changed in its files
    #[arg(long, requires = "export")]
    pub ignore_rootfs: bool,

    /// Save open TCP connections, too; without this a container that has some cannot be saved
    #[arg(long)]
    pub tcp_established: bool,

    /// Save locks of files, too; without this a container that holds some cannot be saved
    #[arg(long)]
    pub file_locks: bool,

    /// Keep criu's log and statistics in the container's bundle
    #[arg(short, long)]
    pub keep: bool,

    /// Add to the record what criu counted
    #[arg(long)]
    pub print_stats: bool,

    #[command(flatten)]
    pub chosen: Chosen,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Packing {
    Gzip,
    Zstd,
    None,
}

impl Packing {
    fn compression(self) -> Compression {
        match self {
            Packing::Gzip => Compression::Gzip,
            Packing::Zstd => Compression::Zstd,
            Packing::None => Compression::None,
        }
    }
}

cli::tool!(Args, "ctr-checkpoint", chosen.output.common, chosen.output.quiet);

impl Args {
    fn is_to_stdout(&self) -> bool {
        self.export.as_deref() == Some(Path::new("-"))
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    if args.is_to_stdout() && !args.chosen.output.dry_run && stdout().is_terminal() {
        return Err(Fault::usage("stdout is a terminal, which an archive would garble")
            .hint("--export FILE, or | or >"));
    }
    let subjects = args.chosen.subjects(context)?;
    if args.export.is_some() && subjects.len() > 1 {
        return Err(Fault::usage("several containers, which cannot be one archive")
            .hint("one ctr-checkpoint for each of them"));
    }
    let store = Store::from_env()?;
    rootfs::allow_many_files();
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
    let stored = dir.current()?;
    let job = dump::Job::prepare(args, dir, &stored)?;
    if args.chosen.output.dry_run {
        return context.print_steps(Some(&dir.id), &steps(args));
    }
    let target = args.export.as_deref().filter(|_| !args.is_to_stdout());
    let mut output = args.export.as_ref().map(|_| Output::open(target)).transpose()?;
    let at = dump::now();
    let mut misnamed = 0;
    let mut moved = stored.clone();
    // As it will be found where it is restored.
    set_time(&mut moved, &at)?;
    let statistics = job.run(&mut || {
        let Some(output) = &output else { return Ok(()) };
        let export = Export { dir, record: &moved, at: &at, ignore_rootfs: args.ignore_rootfs };
        misnamed = export.write(output.file(), args.compress.unwrap_or(Packing::Zstd).compression())?;
        Ok(())
    })?;
    if let Some(output) = &mut output {
        output.finish()?;
    }
    if misnamed > 0 {
        context.warn(
            &dir.id,
            &format!("{misnamed} files are not in the archive whose names begin with .wh., which there means deleted"),
        );
    }
    warn_of_volumes(args, context, &stored, dir)?;
    if dir.exists() {
        dir.update(|record| set_time(record, &at))?;
    }
    store.event(&Who::container(&stored), "checkpoint", Value::Null);
    if args.is_to_stdout() {
        return Ok(());
    }
    let mut record = if dir.exists() { subject.current(dir)? } else { gone(moved)? };
    if let Some(export) = &args.export {
        record.set("archive", &export.to_string_lossy())?;
    }
    if let Some(statistics) = statistics {
        record.set("checkpoint_statistics", &statistics)?;
    }
    context.print_result(&record, &dir.id, for_people(subject, &dir.id))
}

fn set_time(record: &mut Record, at: &str) -> Result<()> {
    let mut container: Container = record.require("container")?;
    container.checkpointed_at = Some(at.to_owned());
    record.set("container", &container)
}

/// The record of a container that has removed itself.
fn gone(mut record: Record) -> Result<Record> {
    let mut container: Container = record.require("container")?;
    container.status = Some("exited".to_owned());
    container.pid = None;
    container.checkpointed = Some(true);
    record.set("container", &container)?;
    Ok(record)
}

/// What the archive does not have, and the container needs where it is restored.
fn warn_of_volumes(args: &Args, context: &Context, stored: &Record, dir: &ContainerDir) -> Result<()> {
    let volumes = if args.export.is_some() {
        stored.get::<Vec<Volume>>("volumes")?.unwrap_or_default()
    } else {
        Vec::new()
    };
    if !volumes.is_empty() {
        let names: Vec<String> = volumes.into_iter().map(|volume| volume.name).collect();
        context.warn(
            &dir.id,
            &format!("volumes are not in the archive (vol-export, vol-import): {}", names.join(", ")),
        );
    }
    Ok(())
}

fn steps(args: &Args) -> Vec<Value> {
    let mut steps = vec![json!({
        "step": "dump", "leave_running": args.leave_running,
        "tcp_established": args.tcp_established, "file_locks": args.file_locks,
    })];
    if let Some(export) = &args.export {
        let packing = match args.compress.unwrap_or(Packing::Zstd) {
            Packing::Gzip => "gzip",
            Packing::Zstd => "zstd",
            Packing::None => "none",
        };
        steps.push(
            json!({"step": "export", "file": export, "compress": packing, "rootfs": !args.ignore_rootfs}),
        );
    }
    if !args.leave_running {
        steps.push(json!({"step": "end"}));
    }
    steps
}
