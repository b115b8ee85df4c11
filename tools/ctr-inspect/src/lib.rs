//! Print containers' records, whole and up to date.
#![forbid(unsafe_code)]

use cli::{Common, Context, Fault, OutputMode, Result};
use record::Record;
use store::{ContainerDir, Store, Subject, atomic};

/// Print containers' records, whole and up to date
///
/// What is printed, ctr-create accepts: it makes an equal container. On a terminal the record is spread over lines.
#[derive(Debug, clap::Parser)]
#[command(
    name = "ctr-inspect",
    version,
    after_help = "Examples:\n  ctr-inspect web | jq .config.env\n  ctr-inspect web | jq '.config.name=\"web2\"' | ctr-create | net-attach | ctr-start"
)]
pub struct Args {
    /// Ids, names, or beginnings of ids; without any, records are read from stdin
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,

    /// Add the OCI runtime configuration as the section "spec"
    #[arg(long)]
    pub spec: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "ctr-inspect", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = context.input(&args.containers)?.into_subjects();
    context.each(subjects, |context, subject| {
        let dir = subject.find(&store)?;
        let record = inspect(&dir, &subject, args.spec).map_err(|fault| fault.on(dir.id.as_str()))?;
        match context.mode() {
            OutputMode::Json => context.print_record(&record),
            OutputMode::Quiet => context.print(&format!("{}\n", dir.id)),
            OutputMode::Table => context.print(&pretty(&record)?),
        }
    });
    Ok(())
}

/// The container's own record, and after its sections those members of an incoming record that it does not have.
fn inspect(dir: &ContainerDir, subject: &Subject, with_spec: bool) -> Result<Record> {
    let mut record = dir.current()?;
    if let Subject::Record(incoming) = subject {
        for name in incoming.names() {
            if !record.contains(name)
                && let Some(raw) = incoming.raw(name)
            {
                record.set_raw(name, raw.to_owned())?;
            }
        }
    }
    if with_spec {
        let path = dir.bundle.join("config.json");
        let content = atomic::read(&path)?
            .ok_or_else(|| Fault::not_found(format!("there is no {}", path.display())))?;
        let text = String::from_utf8(content)
            .map_err(|_| Fault::input(format!("{} is not UTF-8", path.display())))?;
        record.set_raw("spec", text)?;
    }
    Ok(record)
}

fn pretty(record: &Record) -> Result<String> {
    let value: serde_json::Value = serde_json::from_str(&record.to_line())
        .map_err(|error| Fault::failed("print the record").because(error))?;
    let mut text = serde_json::to_string_pretty(&value)
        .map_err(|error| Fault::failed("print the record").because(error))?;
    text.push('\n');
    Ok(text)
}
