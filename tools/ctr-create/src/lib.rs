//! Create containers, ready to start.
#![forbid(unsafe_code)]

pub mod args;
pub mod edited;
pub mod etc;
mod exposed;
pub mod facts;
mod from;
mod hooks;
pub mod limits;
mod make;
pub mod names;
mod networks;
mod quota;
mod replace;
pub mod running;
pub mod userfiles;
mod users;
mod volumes;

pub use make::{Plan, create, dry_run, prepare, refresh, update};
pub use replace::make_way;

use args::{CommandWords, CreateFlags};
use cli::{Common, Context, Explain, Fault, Result};
use record::{Container, Record};
use std::io::{IsTerminal, Write};
use store::Store;

/// Create containers, ready to start
///
/// Reads records with a "rootfs" section (img-unpack makes it), writes a bundle for each, sets up its namespaces and
/// root file system and leaves its first process waiting. What a flag can say, the record's "config" section can say.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-create",
    version,
    disable_help_flag = true,
    after_help = "Examples:
  img-pull debian:12 | img-unpack | ctr-create -- bash -c 'echo hi' | ctr-start --attach
  img-pull nginx | img-unpack | ctr-create --name web -m 256m -v web:/data | net-attach -p 8080:80 | ctr-start
  img-pull debian:12 | img-unpack | jq -c '.config.env=[\"A=b\"]' | ctr-create -- env | ctr-start --attach
  ctr-inspect web | ctr-create --name web2"
)]
pub struct Args {
    #[command(flatten)]
    pub common: Common,

    #[command(flatten)]
    pub flags: CreateFlags,

    /// Print the plan and make nothing
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,

    /// Print the id only
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub words: CommandWords,
}

cli::tool!(Args, "ctr-create", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    // While the stages before this one are at work.
    let mut prepared = if args.dry_run { None } else { Some(prepare(&store)?) };
    // A root directory takes the place of what would come down the pipe.
    let records = if args.flags.rootfs.is_some() && std::io::stdin().is_terminal() {
        vec![Record::new()]
    } else {
        let mut records = context.read_records()?;
        if records.is_empty() && args.flags.rootfs.is_some() && context.finish() == 0 {
            records.push(Record::new());
        }
        records
    };
    if records.is_empty() {
        if context.finish() == 0 {
            return Err(Fault::input("no record on stdin: the stage before it failed or printed nothing"));
        }
        return Ok(());
    }
    let mut unused = prepared.as_mut();
    context.each(records, |context, record| {
        let subject = subject(&record);
        one(args, context, &store, record, unused.take()).map_err(|fault| match subject {
            Some(subject) => fault.on(subject),
            None => fault,
        })
    });
    // The mount it holds goes with this process, when nobody waits for that any more.
    std::mem::forget(prepared);
    Ok(())
}

fn one(
    args: &Args,
    context: &mut Context,
    store: &Store,
    record: Record,
    prepared: Option<&mut shim::Prepared>,
) -> Result<()> {
    let mut config = record.config()?;
    args.flags.apply(&args.words.command, &mut config)?;
    if args.dry_run {
        let plan = dry_run(store, &record, config, &mut |warning| context.warn("", warning))?;
        let text = serde_json::to_string(&plan).explain(|| "write the plan".into())?;
        return context.print(&format!("{text}\n"));
    }
    if args.flags.rest.replace {
        make_way(store, config.name.as_deref())?;
    }
    let cidfile = args.flags.cidfile.as_deref();
    let made = create_with_cidfile(store, record, config, cidfile, prepared, &mut |warning| {
        context.warn("", warning);
    })?;
    let container: Container = made.require("container")?;
    let line = format!("{}  {}", &container.id[..12], container.name);
    context.print_result(&made, &container.id, &line)
}

/// [`create`], with the id written to a file that must not be there yet.
pub fn create_with_cidfile(
    store: &Store,
    record: Record,
    config: record::Config,
    cidfile: Option<&std::path::Path>,
    prepared: Option<&mut shim::Prepared>,
    warn: &mut dyn FnMut(&str),
) -> Result<Record> {
    let Some(path) = cidfile else { return create(store, record, config, prepared, warn) };
    // Taken before anything is made: two containers with one file would be a mix-up.
    let mut file = std::fs::File::create_new(path).map_err(|error| {
        if error.kind() == std::io::ErrorKind::AlreadyExists {
            return Fault::conflict(format!("{} exists already", path.display()))
                .hint("remove it if the container it names is gone");
        }
        Fault::failed(format!("make {}", path.display())).because(error)
    })?;
    let made = create(store, record, config, prepared, warn).and_then(|made| {
        let id = made.require::<Container>("container")?.id;
        file.write_all(id.as_bytes()).explain(|| format!("write {}", path.display()))?;
        Ok(made)
    });
    if made.is_err() {
        let _ = std::fs::remove_file(path);
    }
    made
}

/// What errors call a record: its container's name, or its image.
fn subject(record: &Record) -> Option<String> {
    if let Ok(Some(container)) = record.container() {
        return Some(container.name);
    }
    record.image().ok().flatten().map(|image| image.reference)
}
