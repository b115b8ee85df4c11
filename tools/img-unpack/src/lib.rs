//! Unpack the layers of images.
#![forbid(unsafe_code)]

mod bundle;
mod flatten;
mod reader;
mod unpack;

pub use flatten::{Shape, flatten};
pub use reader::Interrupt;
pub use unpack::{Options, Unpacked, plan, unpack, unpack_stream, unpack_with};

use cli::{Common, Context, Fault, Input, Progress, ProgressArgs, Result};
use layer::{Limits, Skipped};
use oci::Platform;
use record::{Image, Record, Rootfs};
use std::path::PathBuf;
use store::{Settle, Store};

/// Unpack the layers of images
///
/// Reads records with an image, or takes the names of images in the store, and prints the records with a rootfs section.
/// Each layer is unpacked once, ready to lie under an overlay, and shared by all images that have it; layers that are
/// there already cost nothing.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-unpack",
    version,
    after_help = "Examples:\n  img-pull debian:12 | img-unpack | ctr-create -- bash -c 'echo hi'\n  img-unpack --to ./tree debian:12\n  img-unpack --bundle ./b debian:12 && runc run --bundle ./b mine"
)]
pub struct Args {
    /// Images in the store; without any, records are read from stdin
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Flatten the image into this new or empty directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "bundle")]
    pub to: Option<PathBuf>,

    /// Make an OCI bundle in this new or empty directory instead: rootfs and config.json
    #[arg(long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,

    /// Of what --to and --bundle make, write to this file what of owners, modes and attributes could not be set
    ///
    /// Without, it is BUNDLE/unset.ndjson for a bundle; for the store's layers it is beside each. No file is made when all could be set.
    #[arg(long, value_name = "FILE")]
    pub unset: Option<PathBuf>,

    /// Refuse layers larger than this when unpacked (b, k, m, g)
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<String>,

    /// Refuse layers that unpack to more than N times their size, once they are over 4 GiB; 0 allows any
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub max_ratio: u64,

    /// Refuse layers with more entries
    #[arg(long, value_name = "N", default_value_t = 10_000_000)]
    pub max_entries: u64,

    /// Print what would be unpacked and do nothing
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub progress: ProgressArgs,

    /// Print digests of images only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

impl Args {
    /// Into the store, and as anybody would: nothing was said of what is to be refused.
    fn unpacks_whatever_comes(&self, limits: &Limits) -> bool {
        let elsewhere = self.to.is_some() || self.bundle.is_some();
        self.images.is_empty() && !elsewhere && !self.dry_run && *limits == Limits::default()
    }
}

cli::tool!(Args, "img-unpack", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let limits = limits(args)?;
    if args.unpacks_whatever_comes(&limits) {
        // An img-pull on the other side then does so while it downloads.
        let _ = sys::pipe::announce(std::io::stdin(), sys::pipe::Reader::Unpacks);
    }
    let progress = Progress::new(context.tool(), args.progress, args.quiet)?;
    let subjects: Vec<Subject> = match context.input(&args.images)? {
        Input::Names(names) => names.into_iter().map(Subject::Name).collect(),
        Input::Records(records) => {
            records.into_iter().map(|record| Subject::Record(Box::new(record))).collect()
        }
    };
    if args.images.is_empty() && subjects.is_empty() && context.finish() == 0 {
        return Err(Fault::input("no record on stdin: the stage before it failed or printed nothing"));
    }
    if subjects.len() > 1 && (args.to.is_some() || args.bundle.is_some()) {
        return Err(Fault::usage("one directory cannot hold several images"));
    }
    let interrupt = reader::Interrupt::hold()?;
    if args.unset.is_some() && args.to.is_none() && args.bundle.is_none() {
        return Err(
            Fault::usage("--unset is for --to and --bundle").hint("the store's layers have a file each")
        );
    }
    let unset = args.unset.as_deref();
    let options = Options { limits, progress: Some(&progress), interrupt: Some(&interrupt), unset };
    let settle = Settle::new();
    context.each(subjects, |context, subject| {
        let (mut record, image) = subject.resolve(&store)?;
        let outcome = one(args, &store, &image, &options, &settle, context);
        progress.clear();
        if let Some(signal) = interrupt.signal() {
            // What a shell would report of a program the signal ended.
            context.exit_with(128u8.saturating_add(signal));
        }
        let Some((rootfs, skipped)) = outcome.map_err(|fault| fault.on(image.reference.as_str()))? else {
            return Ok(());
        };
        warn_of(args, &skipped, &image.reference, context);
        record.set("rootfs", &rootfs)?;
        let place = rootfs.path.clone().unwrap_or_else(|| format!("{} layers", rootfs.layers.len()));
        context.print_result(&record, &image.digest, &format!("{}  {place}", image.reference))
    });
    settle.finish();
    Ok(())
}

fn limits(args: &Args) -> Result<Limits> {
    let bytes = args.max_size.as_deref().map(oci::wishes::bytes).transpose();
    Ok(Limits {
        entries: args.max_entries,
        bytes: bytes.map_err(|fault| fault.within("--max-size").as_kind(cli::Kind::Usage))?,
        ratio: Some(args.max_ratio).filter(|ratio| *ratio > 0),
    })
}

enum Subject {
    Name(String),
    Record(Box<Record>),
}

impl Subject {
    fn resolve(self, store: &Store) -> Result<(Record, Image)> {
        match self {
            Subject::Name(name) => {
                let entry = store.find_image(&name)?;
                let image = store.load_image(&entry, &Platform::host())?;
                let mut record = Record::new();
                record.set("image", &image)?;
                Ok((record, image))
            }
            Subject::Record(record) => {
                let image = record.require("image")?;
                Ok((*record, image))
            }
        }
    }
}

/// `None` on a dry run.
fn one(
    args: &Args,
    store: &Store,
    image: &Image,
    options: &Options<'_>,
    settle: &Settle,
    context: &mut Context,
) -> Result<Option<(Rootfs, Skipped)>> {
    let directory = match (&args.to, &args.bundle) {
        (Some(dir), _) => Some((dir, Shape::Tree)),
        (None, Some(dir)) => Some((dir, Shape::Bundle)),
        (None, None) => None,
    };
    if args.dry_run {
        print_plan(store, image, directory.map(|(dir, _)| dir), context)?;
        return Ok(None);
    }
    if let Some((dir, shape)) = directory {
        return flatten(store, image, dir, shape, options, settle).map(Some);
    }
    let unpacked = unpack_with(store, image, options, settle)?;
    Ok(Some((unpacked.rootfs, unpacked.skipped)))
}

/// One step a line, as records.
fn print_plan(store: &Store, image: &Image, dir: Option<&PathBuf>, context: &mut Context) -> Result<()> {
    let layers = if dir.is_some() { image.layers.iter().collect() } else { plan(store, image)? };
    for layer in layers {
        let to = match dir {
            Some(dir) => dir.display().to_string(),
            None => store.layer_fs(&oci::Digest::parse(&layer.diff_id)?).display().to_string(),
        };
        let step = serde_json::json!({"step": "unpack", "image": image.reference, "digest": layer.digest,
            "diff_id": layer.diff_id, "size": layer.size, "to": to});
        context.print(&format!("{step}\n"))?;
    }
    Ok(())
}

fn warn_of(args: &Args, skipped: &Skipped, reference: &str, context: &Context) {
    let example = skipped.example.as_deref().unwrap_or_default();
    let kept = match (&args.to, &args.unset) {
        (_, Some(file)) => format!("{} has them", file.display()),
        (Some(_), None) => "--unset FILE would keep them".to_owned(),
        _ => format!("{} has them", store::UNSET),
    };
    if skipped.stand_ins > 0 {
        let count = skipped.stand_ins;
        context
            .warn(reference, &format!("made {count} devices as empty files, as only root may make devices"));
    }
    let parts = [
        (skipped.devices, "devices"),
        (skipped.xattrs, "extended attributes this file system or user cannot have"),
        (skipped.overlay_xattrs, "attributes of overlayfs"),
    ];
    for (count, what) in parts.into_iter().filter(|(count, _)| *count > 0) {
        context.warn(reference, &format!("left out {count} {what} (first: {example}); {kept}"));
    }
}
