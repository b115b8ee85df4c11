//! Print images' records, whole.
#![forbid(unsafe_code)]

use cli::{Common, Context, Explain, OutputMode, Result};
use contents::{Found, Places};
use img_pull::Connection;
use record::Record;
use store::Subject;

/// Print images' records, whole
///
/// What img-pull printed, made again: configuration, layers, size, age, of an image in the store under "names" everything it is called, of an
/// index under "platforms" all there is in it. An image elsewhere stays there: nothing but its manifest and configuration is read. On a
/// terminal the record is spread over lines.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-inspect",
    version,
    after_help = "Examples:\n  img-inspect debian:12 | jq .image.config.config.Env\n  img-inspect debian:12 | img-unpack --to ./tree\n  img-inspect docker://debian:12 | jq '.image.platforms[] | [.os, .architecture, .digest]'\n  img-inspect --raw docker://debian:12 | sha256sum\n  img-inspect -q oci-archive:app.tar dir:app"
)]
pub struct Args {
    /// References, ids or beginnings of them; docker://REF, oci:DIR and others of img-copy's places; without any, records are read from stdin
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Print the own bytes of the manifest, or of the index if there is one under the name
    #[arg(long, conflicts_with = "config")]
    pub raw: bool,

    /// Print the configuration's own bytes
    #[arg(long)]
    pub config: bool,

    /// Of an image for several platforms, take the one for this platform, of which --raw prints the manifest then
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,

    #[command(flatten)]
    pub connection: Connection,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-inspect", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let places = Places::new(args.connection.client()?, args.platform.as_deref())?;
    let subjects: Vec<Subject> = context.input(&args.images)?.into_subjects();
    context.each(subjects, |context, subject| inspect(args, &places, subject, context));
    Ok(())
}

fn inspect(args: &Args, places: &Places, subject: Subject, context: &mut Context) -> Result<()> {
    let found = places.find(&subject)?;
    if args.raw && args.platform.is_none() {
        // Whatever it is: artifacts have a manifest, too.
        return print(found.root.bytes, context);
    }
    let chosen = found
        .choose(places.platform(), true)
        .map_err(|fault| if is_artifact(&found) { fault.hint("--raw prints its manifest") } else { fault })?;
    if args.raw {
        return print(chosen.raw.bytes, context);
    }
    if args.config {
        return print(chosen.config, context);
    }
    let mut image = chosen.image;
    if let Some(entry) = &found.entry {
        let mut names: Vec<String> = entry.name().map(str::to_owned).into_iter().collect();
        names.extend(places.store().other_names(entry)?);
        image.extra.insert("names".into(), names.into());
    }
    let mut record = match subject {
        Subject::Record(record) => *record,
        Subject::Name(_) => Record::new(),
    };
    record.set("image", &image)?;
    match context.mode() {
        OutputMode::Json => context.print_record(&record),
        OutputMode::Quiet => context.print(&format!("{}\n", chosen.manifest.config.digest)),
        OutputMode::Table => {
            let value: serde_json::Value =
                serde_json::from_str(&record.to_line()).explain(|| "print the record".into())?;
            context.print(&format!("{value:#}\n"))
        }
    }
}

/// Something with a manifest that is no image.
fn is_artifact(found: &Found<'_>) -> bool {
    found.root.document().is_err()
}

/// All documents were parsed as JSON, which is text.
fn print(bytes: Vec<u8>, context: &mut Context) -> Result<()> {
    context.print(&String::from_utf8(bytes).explain(|| "print the document".into())?)
}
