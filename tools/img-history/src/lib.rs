//! Show how images were made.
#![forbid(unsafe_code)]

mod steps;

use cli::{Common, Context, OutputMode, Result, Table};
use img_ls::words;
use jiff::Timestamp;
use record::Record;
use std::borrow::Cow;
use steps::Step;
use store::{Store, Subject};

/// Characters of a command that a table shows, as docker's.
const COMMAND_WIDTH: usize = 45;

/// Show how images were made
///
/// The steps an image's configuration tells of, the latest first, each with the layer it left and that layer's size as it is
/// stored and sent.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-history",
    version,
    after_help = "Examples:\n  img-history debian:12\n  img-history --no-trunc app:1\n  img-history app:1 | jq -r '.history[] | select(.size > 1e7) | .created_by'"
)]
pub struct Args {
    /// References, ids or beginnings of them; without any, records are read from stdin
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Whole commands and digests
    #[arg(long)]
    pub no_trunc: bool,

    /// Print the layers' digests only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-history", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let subjects: Vec<Subject> = context.input(&args.images)?.into_subjects();
    context.each(subjects, |context, subject| history(args, &store, subject, context));
    Ok(())
}

fn history(args: &Args, store: &Store, subject: Subject, context: &mut Context) -> Result<()> {
    let entry = store.find_subject(&subject)?;
    let image = store.image_details(&entry)?.image;
    let steps = steps::of(&image);
    match context.mode() {
        OutputMode::Json => {
            let mut record = match subject {
                Subject::Record(record) => *record,
                Subject::Name(_) => {
                    let mut record = Record::new();
                    record.set("image", &image)?;
                    record
                }
            };
            record.set("history", &steps)?;
            context.print_record(&record)
        }
        OutputMode::Quiet => {
            let digests: Vec<&str> = steps.iter().filter_map(|step| step.digest.as_deref()).collect();
            context.print(&(digests.join("\n") + if digests.is_empty() { "" } else { "\n" }))
        }
        OutputMode::Table => context.print_table(&table(&steps, args.no_trunc, Timestamp::now())),
    }
}

fn table(steps: &[Step], whole: bool, now: Timestamp) -> Table {
    let mut table = Table::new(&["LAYER", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    for step in steps {
        let layer = step.digest.as_deref().unwrap_or("-");
        let hex = layer.split_once(':').map_or(layer, |(_, hex)| hex);
        let created = step.created.as_deref().and_then(|text| text.parse().ok());
        let command = step.created_by.as_deref().unwrap_or_default();
        table.row(vec![
            if whole { layer } else { hex.get(..12).unwrap_or(hex) }.to_owned(),
            created.map_or_else(|| "N/A".to_owned(), |time| words::ago(now, time)),
            if whole { command.to_owned() } else { shortened(command).into_owned() },
            words::size(step.size.unwrap_or(0)),
            step.comment.clone().unwrap_or_default(),
        ]);
    }
    table
}

fn shortened(command: &str) -> Cow<'_, str> {
    match command.char_indices().nth(COMMAND_WIDTH) {
        None => command.into(),
        Some(_) => command.chars().take(COMMAND_WIDTH - 1).chain(['…']).collect(),
    }
}
