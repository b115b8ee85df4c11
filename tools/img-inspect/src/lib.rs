//! Print images' records, whole.
#![forbid(unsafe_code)]

use cli::{Common, Context, Explain, OutputMode, Result, Tool};
use oci::Digest;
use oci::manifest::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
use record::Record;
use store::{Store, Subject};

/// Print images' records, whole
///
/// What img-pull printed, made again from the store: configuration, layers, size, age, and under "names" everything the
/// image is called. On a terminal the record is spread over lines.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-inspect",
    version,
    after_help = "Examples:\n  img-inspect debian:12 | jq .image.config.config.Env\n  img-inspect debian:12 | img-unpack --to ./tree\n  img-inspect --raw debian:12 | sha256sum"
)]
pub struct Args {
    /// References, ids or beginnings of them; without any, records are read from stdin
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Print the manifest's own bytes
    #[arg(long, conflicts_with = "config")]
    pub raw: bool,

    /// Print the configuration's own bytes
    #[arg(long)]
    pub config: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

impl Tool for Args {
    const NAME: &'static str = "img-inspect";

    fn common(&self) -> &Common {
        &self.common
    }

    fn quiet(&self) -> bool {
        self.quiet
    }
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = context.input(&args.images)?.into_subjects();
    context.each(subjects, |context, subject| inspect(args, &store, subject, context));
    Ok(())
}

fn inspect(args: &Args, store: &Store, subject: Subject, context: &mut Context) -> Result<()> {
    let entry = store.find_subject(&subject)?;
    let details = store.image_details(&entry)?;
    if args.raw || args.config {
        let bytes = if args.raw {
            store.read_blob(&Digest::parse(&details.image.digest)?, MAX_MANIFEST_BYTES)?
        } else {
            store.read_blob(&details.id, MAX_CONFIG_BYTES)?
        };
        // Both were parsed as JSON, which is text.
        return context.print(&String::from_utf8(bytes).explain(|| "print the document".into())?);
    }
    let mut names: Vec<String> = entry.name().map(str::to_owned).into_iter().collect();
    names.extend(store.other_names(&entry)?);
    let mut image = details.image;
    image.extra.insert("names".into(), names.into());
    let mut record = match subject {
        Subject::Record(record) => *record,
        Subject::Name(_) => Record::new(),
    };
    record.set("image", &image)?;
    match context.mode() {
        OutputMode::Json => context.print_record(&record),
        OutputMode::Quiet => context.print(&format!("{}\n", details.id)),
        OutputMode::Table => {
            let value: serde_json::Value =
                serde_json::from_str(&record.to_line()).explain(|| "print the record".into())?;
            context.print(&format!("{value:#}\n"))
        }
    }
}
