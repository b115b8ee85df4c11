//! Show the OCI runtime specification a container would get.
#![forbid(unsafe_code)]

use cli::{Common, Context, OutputMode, Result};
use ctr_create::args::{CommandWords, CreateFlags};
use ctr_create::facts;
use oci::spec::Identity;
use record::{Config, Container, Record};
use std::io::IsTerminal;
use std::path::PathBuf;
use store::Store;

/// Show the OCI runtime specification a container would get
///
/// Takes the flags of ctr-create and makes nothing. Records in, records with a `spec` section out; on a terminal the
/// specification alone, indented.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-spec",
    version,
    after_help = "Examples:\n  img-pull debian:12 | img-unpack | ctr-spec -m 512m -- bash | jq .spec.linux.resources\n  \
        ctr-spec --rootfs /srv/tree -- sh | jq .spec\n  \
        ctr-inspect web | ctr-spec | jq -r '.spec.process.args[]'"
)]
pub struct Args {
    #[command(flatten)]
    pub flags: CreateFlags,

    #[command(flatten)]
    pub words: CommandWords,

    /// Leave out the files only ctr-create makes, so that the specification runs in any bundle
    #[arg(long)]
    pub standalone: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-spec", common);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    // What is wrong with the flags is said before anything is waited for.
    args.flags.apply(&args.words.command, &mut Config::default())?;
    let store = Store::from_env()?;
    let mut records = match &args.flags.rootfs {
        None => context.require_records()?,
        // With a directory there need not be a record.
        Some(_) if std::io::stdin().is_terminal() => Vec::new(),
        Some(_) => context.read_records()?,
    };
    if records.is_empty() && args.flags.rootfs.is_some() && context.finish() == 0 {
        records.push(Record::new());
    }
    context.each(records, |context, mut record| {
        let subject = name_of(&record);
        show(args, context, &store, &mut record).map_err(|fault| match subject {
            Some(subject) => fault.on(subject),
            None => fault,
        })
    });
    Ok(())
}

fn show(args: &Args, context: &mut Context, store: &Store, record: &mut Record) -> Result<()> {
    let mut config = record.config()?;
    args.flags.apply(&args.words.command, &mut config)?;
    let identity = identity(store, record, &config, args.standalone)?;
    let generated = facts::specification(store, record, &config, &identity)?;
    for warning in &generated.warnings {
        context.warn(&identity.name, warning);
    }
    let spec = generated.json()?;
    if context.mode() == OutputMode::Table {
        return context.print(&format!("{spec:#}\n"));
    }
    if record.contains("config") || config != Config::default() {
        record.set("config", &config)?;
    }
    record.set("spec", &spec)?;
    context.print_record(record)
}

/// The container's own identity; before there is one, an id made from what it would be, so that the same wishes give
/// the same bytes, and a bundle that is wherever the specification will be.
fn identity(store: &Store, record: &Record, config: &Config, standalone: bool) -> Result<Identity> {
    let container: Option<Container> = record.container()?;
    if let Some(container) = container.filter(|container| store::is_id(&container.id)) {
        let own = facts::identity(store, &container.id, &container.name);
        return Ok(if standalone { Identity { bundle: None, ..own } } else { own });
    }
    let seed = format!(
        "{}{}",
        record.raw("image").unwrap_or_default(),
        serde_json::to_string(config).unwrap_or_default()
    );
    let id = oci::Digest::of(seed.as_bytes()).hex().to_owned();
    let name = config.name.clone().unwrap_or_default();
    let bundle = (!standalone).then(PathBuf::new);
    Ok(Identity { bundle, ..facts::identity(store, &id, &name) })
}

/// What to call the record in messages.
fn name_of(record: &Record) -> Option<String> {
    let container =
        record.container().ok().flatten().map(|container| container.name).filter(|name| !name.is_empty());
    container.or_else(|| {
        record.image().ok().flatten().map(|image| image.reference).filter(|name| !name.is_empty())
    })
}
