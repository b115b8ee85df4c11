//! List what a registry has.
#![forbid(unsafe_code)]

mod place;

pub use place::Repository;

use cli::{Common, Context, Fault, OutputMode, Result, Table, progress};
use img_pull::Connection;
use oci::Reference;
use place::Place;
use record::{Image, Record};
use registry::{Client, Referrer};
use serde_json::json;

/// Digests asked for at once.
const AT_ONCE: usize = 8;

/// List what a registry has
///
/// The repositories of a registry, the tags of a repository, or what refers to an image: signatures, bills of materials. Prints a record for
/// each, with the section `repository`, `image` or `referrer`.
#[derive(Debug, clap::Parser)]
#[command(
    name = "reg-ls",
    version,
    args_override_self = true,
    after_help = "Examples:\n  reg-ls localhost:5000\n  reg-ls debian\n  reg-ls --digests ghcr.io/team/app | jq -r .image.digest\n  reg-ls localhost:5000 | reg-ls -q\n  reg-ls --referrers --artifact-type application/spdx+json ghcr.io/team/app:1"
)]
pub struct Args {
    /// Registries and repositories: localhost:5000, ghcr.io/team/app, debian; without any, records are read from stdin
    #[arg(value_name = "REGISTRY[/REPOSITORY]")]
    pub names: Vec<String>,

    /// Ask for the digest of each tag, too: one request each
    #[arg(long, conflicts_with = "referrers")]
    pub digests: bool,

    /// List what refers to an image, by tag or digest
    #[arg(long)]
    pub referrers: bool,

    /// Of these only what is of this type
    #[arg(long, value_name = "TYPE", requires = "referrers")]
    pub artifact_type: Option<String>,

    #[command(flatten)]
    pub connection: Connection,

    /// Print only names; with --referrers digests
    #[arg(short, long, help_heading = "Output")]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "reg-ls", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let client = args.connection.client()?;
    let subjects: Vec<Subject> = context.input(&args.names)?.into_subjects();
    let mut rows = Vec::new();
    context.each(subjects, |context, subject| {
        let (name, record) = match subject {
            Subject::Name(name) => (Place::parse(&name).map_err(|fault| fault.on(&name))?, Record::new()),
            Subject::Record(record) => (Place::of_record(&record, args.referrers)?, *record),
        };
        list(args, &client, context, name, &record, &mut rows)
    });
    if context.mode() != OutputMode::Table {
        return Ok(());
    }
    let mut table = Table::new(if args.referrers {
        &["DIGEST", "ARTIFACT TYPE", "SIZE", "ANNOTATIONS"]
    } else if args.digests {
        &["NAME", "DIGEST"]
    } else {
        &["NAME"]
    });
    for row in rows {
        table.row(row);
    }
    context.print_table(&table)
}

enum Subject {
    Name(String),
    Record(Box<Record>),
}

impl From<String> for Subject {
    fn from(name: String) -> Subject {
        Subject::Name(name)
    }
}

impl From<Record> for Subject {
    fn from(record: Record) -> Subject {
        Subject::Record(Box::new(record))
    }
}

fn list(
    args: &Args,
    client: &Client,
    context: &mut Context,
    place: Place,
    record: &Record,
    rows: &mut Vec<Vec<String>>,
) -> Result<()> {
    if args.referrers {
        let reference = place.image()?;
        return referrers(args, client, context, &reference, record, rows)
            .map_err(|fault| fault.on(reference.familiar()));
    }
    match place {
        Place::Registry(domain) => {
            let names = client.catalog(&domain).map_err(|fault| fault.on(&domain))?;
            for name in names {
                let full = format!("{domain}/{name}");
                let section = Repository { registry: domain.clone(), name };
                let mut record = record.clone();
                record.set("repository", &section)?;
                show(context, &record, &full, vec![full.clone()], rows)?;
            }
            Ok(())
        }
        Place::Repository(reference) => {
            let name = reference.familiar();
            let name = name.strip_suffix(":latest").unwrap_or(&name).to_owned();
            tags(args, client, context, &reference, record, rows).map_err(|fault| fault.on(name))
        }
        Place::Image(reference) => Err(Fault::usage("an image, where a repository's tags are listed")
            .on(reference.familiar())
            .hint("--referrers lists what refers to it")),
    }
}

fn tags(
    args: &Args,
    client: &Client,
    context: &mut Context,
    reference: &Reference,
    record: &Record,
    rows: &mut Vec<Vec<String>>,
) -> Result<()> {
    let repository = client.repository(reference);
    let tags = repository.tags()?;
    let mut show_one = |context: &mut Context, tag: &str, digest: Option<String>| {
        let reference = reference.with_tag(tag)?;
        let mut row = vec![reference.familiar()];
        row.extend(args.digests.then(|| digest.clone().unwrap_or_else(|| "-".to_owned())));
        let mut record = record.clone();
        let digest = digest.unwrap_or_default();
        record.set("image", &Image { reference: reference.to_string(), digest, ..Image::default() })?;
        show(context, &record, &reference.familiar(), row, rows)
    };
    if !args.digests {
        return tags.iter().try_for_each(|tag| show_one(context, tag, None));
    }
    let mut digests: Vec<(usize, Option<String>)> = Vec::with_capacity(tags.len());
    context.each_at_once(
        tags.iter().enumerate().collect(),
        AT_ONCE,
        |(at, tag)| {
            let digest = repository.manifest_digest(tag)?;
            // Not every registry tells without sending the whole.
            let digest = match digest {
                Some(digest) => digest,
                None => repository.manifest(tag)?.digest,
            };
            Ok((at, digest.to_string()))
        },
        |_, (at, digest)| {
            digests.push((at, Some(digest)));
            Ok(())
        },
    );
    digests.sort_unstable_by_key(|(at, _)| *at);
    digests
        .into_iter()
        .filter_map(|(at, digest)| Some((tags.get(at)?, digest)))
        .try_for_each(|(tag, digest)| show_one(context, tag, digest))
}

fn referrers(
    args: &Args,
    client: &Client,
    context: &mut Context,
    reference: &Reference,
    record: &Record,
    rows: &mut Vec<Vec<String>>,
) -> Result<()> {
    let repository = client.repository(reference);
    let digest = match reference.digest() {
        Some(digest) => digest.clone(),
        None => match repository.manifest_digest(reference.identifier())? {
            Some(digest) => digest,
            None => repository.manifest(reference.identifier())?.digest,
        },
    };
    for referrer in repository.referrers(&digest, args.artifact_type.as_deref())? {
        let Referrer { media_type, digest: own, size, artifact_type, annotations } = referrer;
        let at = reference.at(own.clone());
        let words: Vec<String> =
            annotations.iter().flatten().map(|(name, value)| format!("{name}={value}")).collect();
        let section = json!({
            "reference": at.to_string(), "digest": own, "size": size, "media_type": media_type,
            "artifact_type": artifact_type, "annotations": annotations.unwrap_or_default(), "subject": digest,
        });
        let mut record = record.clone();
        record.set("referrer", &section)?;
        let kind = artifact_type.unwrap_or_else(|| "-".to_owned());
        let row = vec![own.to_string(), kind, progress::bytes(size), words.join(" ")];
        show(context, &record, own.as_str(), row, rows)?;
    }
    Ok(())
}

/// Prints one, or keeps it for the table.
fn show(
    context: &mut Context,
    record: &Record,
    name: &str,
    row: Vec<String>,
    rows: &mut Vec<Vec<String>>,
) -> Result<()> {
    if context.mode() == OutputMode::Table {
        rows.push(row);
        return Ok(());
    }
    context.print_result(record, name, "")
}
