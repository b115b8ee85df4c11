//! Make volumes.
#![forbid(unsafe_code)]

use cli::words::pairs;
use cli::{Common, Context, Fault, Kind, Result};
use fault::Explain;
use record::Record;
use std::io::IsTerminal;
use store::Store;
use volume::Info;

/// Make volumes
///
/// A name that is taken by a volume of the same kind is that volume: to make it again changes nothing. Without a name one is
/// made up. Without arguments the volumes of the records on stdin are made, as vol-ls and vol-inspect print them.
///
/// Options of the driver local are those of mount(8): type, device and o. What they name is mounted for each container that
/// uses the volume, in that container alone, and is gone with it. Other drivers are docker's volume plugins.
#[derive(Debug, clap::Parser)]
#[command(
    name = "vol-create",
    version,
    after_help = "Examples:
  vol-create data --label backup=daily
  vol-create scratch --opt type=tmpfs --opt device=tmpfs --opt o=size=64m
  vol-create media --opt type=nfs --opt o=addr=10.0.0.5,ro --opt device=:/srv/media
  vol-inspect data | jq -c '.volumes[0].name = \"data2\"' | vol-create"
)]
pub struct Args {
    /// Name of the volume
    #[arg(value_name = "NAME", conflicts_with = "name_option")]
    pub name: Option<String>,

    /// Name of the volume
    #[arg(long = "name", value_name = "NAME")]
    pub name_option: Option<String>,

    /// Who keeps it: local, or the name of a volume plugin
    #[arg(short, long, value_name = "DRIVER")]
    pub driver: Option<String>,

    /// Option of the driver
    #[arg(short = 'o', long = "opt", value_name = "NAME=VALUE")]
    pub options: Vec<String>,

    /// Label the volume
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    pub labels: Vec<String>,

    /// Print what would be made and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "vol-create", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let asked = Info {
        driver: args.driver.clone().unwrap_or_else(|| volume::LOCAL.to_owned()),
        labels: pairs("label", &args.labels, true)?,
        options: pairs("option", &args.options, false)?,
        ..Info::default()
    };
    let name = args.name.as_ref().or(args.name_option.as_ref());
    let says_something =
        name.is_some() || args.driver.is_some() || !args.labels.is_empty() || !args.options.is_empty();
    if says_something || std::io::stdin().is_terminal() {
        let wanted = match name {
            Some(name) => Info { name: name.clone(), ..asked },
            None => Info { name: random_name()?, anonymous: true, ..asked },
        };
        if wanted.is_local() {
            // As an argument it is the command line that is wrong, not the input.
            volume::options::check(&wanted.options).map_err(|fault| fault.as_kind(Kind::Usage))?;
        }
        return one(args, context, &store, &wanted, Record::new());
    }
    let records = context.require_records()?;
    context.each(records, |context, record| {
        let wanted: Vec<Info> = record.require("volumes")?;
        if wanted.is_empty() {
            return Err(Fault::input("the record's \"volumes\" is empty"));
        }
        for info in &wanted {
            let info = info.as_wished();
            one(args, context, &store, &info, record.clone()).map_err(|fault| fault.on(info.name.clone()))?;
        }
        Ok(())
    });
    Ok(())
}

fn one(args: &Args, context: &mut Context, store: &Store, wanted: &Info, record: Record) -> Result<()> {
    if args.dry_run {
        volume::check_name(&wanted.name)?;
        return match volume::find(store, &wanted.name) {
            Ok(_) => Ok(()),
            Err(fault) if fault.kind() == Kind::NotFound => context.print_steps(
                None,
                &[serde_json::json!({"step": "make_volume", "name": wanted.name, "driver": wanted.driver})],
            ),
            Err(fault) => Err(fault),
        };
    }
    let found = volume::create(store, wanted, |_| Ok(()))?;
    let record = found.info.into_record(store.root(), record)?;
    context.print_result(&record, &found.info.name, &found.info.name)
}

/// 64 hexadecimal digits, as docker's volumes without a name have.
fn random_name() -> Result<String> {
    let mut bytes = [0u8; 32];
    let read = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .explain(|| "make up a name".into())?;
    if read != bytes.len() {
        return Err(Fault::failed("make up a name: the kernel gave too few random bytes"));
    }
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    Ok(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect())
}
