//! List images.
#![forbid(unsafe_code)]

mod filter;
pub mod words;

use cli::{Common, Context, Kind, OutputMode, Result, Table};
use filter::{Filters, Wanted};
use jiff::Timestamp;
use oci::manifest::{MAX_MANIFEST_BYTES, media_type};
use oci::{Artifact, Reference};
use record::Record;
use serde_json::Value;
use store::{Entry, ImageDetails, Store};

/// List images
///
/// Those in the store, the newest first. The size is that of the blobs, as they are stored and sent.
///
/// Filters of different keys must all hold; of several values of one key one is enough, of labels all.
///
///   reference=GLOB       name as it is shown or in full; * and ? do not stand for /
///   dangling=BOOL        without a name, true or false
///   label=KEY[=VALUE]    in the image's configuration
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-ls",
    version,
    after_help = "Examples:\n  img-ls debian\n  img-ls --filter 'reference=*/team/*' | img-rm\n  img-ls | jq -r '[.image.size, .image.reference] | @tsv' | sort -n"
)]
pub struct Args {
    /// Only these: repositories (all their tags), full references, or patterns of them
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// List only those for which this holds; can be given several times
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,

    /// Show digests of manifests
    #[arg(long)]
    pub digests: bool,

    /// Whole ids
    #[arg(long)]
    pub no_trunc: bool,

    /// Print ids only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-ls", common, quiet);

struct Listed {
    entry: Entry,
    details: ImageDetails,
    created: Option<Timestamp>,
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let wanted = Wanted::parse(&args.images);
    let filters = Filters::parse(&args.filters)?;
    let mut listed = Vec::new();
    for entry in store.images()? {
        if !wanted.holds(&entry) || !filters.hold_for_name(&entry) {
            continue;
        }
        match store.image_details(&entry) {
            Ok(details) if filters.hold_for_config(&details.image.config) => {
                let created = details.created.as_deref().and_then(|text| text.parse().ok());
                listed.push(Listed { entry, details, created });
            }
            Ok(_) => {}
            // What is no image has no labels.
            Err(_) if let Some(details) = artifact(&store, &entry) => {
                if filters.hold_for_config(&Value::Null) {
                    let created = details.created.as_deref().and_then(|text| text.parse().ok());
                    listed.push(Listed { entry, details, created });
                }
            }
            // Removed since the index was read, or broken: the others count.
            Err(fault) if fault.kind() == Kind::NotFound && fault.subject().is_none() => {}
            Err(fault) => context.warn(entry.name().unwrap_or(entry.digest().as_str()), &fault.to_string()),
        }
    }
    listed.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.entry.name().cmp(&b.entry.name())));
    print(args, context, &listed)
}

/// What there is to tell of an entry that is no image.
fn artifact(store: &Store, entry: &Entry) -> Option<ImageDetails> {
    let bytes = store.read_blob(entry.digest(), MAX_MANIFEST_BYTES).ok()?;
    let artifact = Artifact::parse(&bytes, None).ok().filter(|artifact| !artifact.is_index())?;
    let config = artifact.blobs.first()?.media_type.as_str();
    // A broken image.
    if [media_type::OCI_CONFIG, media_type::DOCKER_CONFIG].contains(&config) {
        return None;
    }
    let blobs = artifact.blobs.iter().fold(0u64, |sum, blob| sum.saturating_add(blob.size));
    let size = blobs.saturating_add(bytes.len() as u64);
    let created = artifact.annotations.get("org.opencontainers.image.created").cloned();
    let mut image = record::Image {
        reference: entry.name().unwrap_or_default().to_owned(),
        digest: entry.digest().to_string(),
        ..record::Image::default()
    };
    image.extra.insert("artifact_type".into(), artifact.artifact_type.into());
    image.extra.insert("id".into(), entry.digest().as_str().into());
    image.extra.insert("size".into(), size.into());
    image.extra.insert("created".into(), created.clone().into());
    Some(ImageDetails { image, id: entry.digest().clone(), size, created })
}

fn print(args: &Args, context: &mut Context, listed: &[Listed]) -> Result<()> {
    match context.mode() {
        OutputMode::Json => {
            for item in listed {
                let mut record = Record::new();
                record.set("image", &item.details.image)?;
                context.print_record(&record)?;
                if context.stdout_closed() {
                    break;
                }
            }
            Ok(())
        }
        OutputMode::Quiet => {
            let lines = listed.iter().map(|item| format!("{}\n", id(item, args.no_trunc)));
            context.print(&lines.collect::<String>())
        }
        OutputMode::Table => context.print_table(&table(args, listed, Timestamp::now())),
    }
}

fn id(item: &Listed, whole: bool) -> &str {
    if whole { item.details.id.as_str() } else { item.details.id.short() }
}

fn table(args: &Args, listed: &[Listed], now: Timestamp) -> Table {
    let mut headings = vec!["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"];
    if args.digests {
        headings.insert(2, "DIGEST");
    }
    let mut table = Table::new(&headings);
    for item in listed {
        let (repository, tag) = name_of(&item.entry);
        let created = item.created.map_or_else(|| "N/A".to_owned(), |time| words::ago(now, time));
        let mut row = vec![
            repository,
            tag,
            id(item, args.no_trunc).to_owned(),
            created,
            words::size(item.details.size),
        ];
        if args.digests {
            row.insert(2, item.entry.digest().to_string());
        }
        table.row(row);
    }
    table
}

/// Repository and tag as people know them.
fn name_of(entry: &Entry) -> (String, String) {
    let none = || "<none>".to_owned();
    match (entry.reference(), entry.name()) {
        (Some(reference), _) => (repository(&reference), reference.tag().map_or_else(none, str::to_owned)),
        // What another program called it.
        (None, Some(name)) => (name.to_owned(), none()),
        (None, None) => (none(), none()),
    }
}

/// Without tag and digest, in its short form.
fn repository(reference: &Reference) -> String {
    let familiar = reference.familiar();
    let without_digest = familiar.split('@').next().unwrap_or_default();
    match reference.tag() {
        Some(tag) => without_digest.strip_suffix(&format!(":{tag}")).unwrap_or(without_digest).to_owned(),
        None => without_digest.to_owned(),
    }
}
