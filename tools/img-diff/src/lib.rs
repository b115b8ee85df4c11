//! Compare images, without unpacking them.
#![forbid(unsafe_code)]

mod documents;
mod layers;
mod print;
mod tree;

use clap::ValueEnum;
use cli::{Common, Context, Fault, Result};
use contents::{Opened, Pattern, Places, scan_layers};
use img_pull::Connection;
use layer::{Budget, Item};
use print::Printer;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use store::Subject;

/// Compare images, without unpacking them
///
/// Says what the second has that the first has not: files added, changed (in what: content, mode, owner …) and deleted, members of the configuration
/// and the manifest, layers. Content is compared by its hash. With --layers the archives themselves are compared, entry by entry, and
/// the first difference of each is named: why an image that was built twice is not the same.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-diff",
    version,
    override_usage = "img-diff [OPTIONS] IMAGE IMAGE\n       ... | img-diff [OPTIONS] [IMAGE]",
    after_help = "Examples:\n  img-diff app:1 app:2\n  img-diff app:1 docker://registry.example/app:1\n  img-diff app:1 app:2 --ignore mtime -p /etc | jq -r .path\n  img-pull app:2 | img-diff app:1 --only config\n  img-diff --layers --exit-code app:built-here app:built-there\n  img-diff app:1 app:2 | jq -s 'map(select(.kind == \"file\").size_change) | add'"
)]
pub struct Args {
    /// The first and the second, each a name, an id, or a place: docker://REF, oci:DIR and others of img-copy's; what is not given or `-` is read from
    /// stdin as a record
    #[arg(value_name = "IMAGE", num_args = 0..=2)]
    pub images: Vec<String>,

    /// Only of these
    #[arg(long, value_enum, value_name = "KIND", value_delimiter = ',')]
    pub only: Vec<Kind>,

    /// Only files at this path and below it, or what fits a pattern: * ? [] within a name, ** for directories
    #[arg(short, long = "path", value_name = "PATH")]
    pub paths: Vec<OsString>,

    /// Let files be different in this
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    pub ignore: Vec<What>,

    /// Compare the layers' archives, entry by entry
    #[arg(long, conflicts_with_all = ["only", "paths", "ignore"])]
    pub layers: bool,

    /// Exit with 1 when they are different
    #[arg(long)]
    pub exit_code: bool,

    /// Of an image for several platforms, look into the one for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,

    #[command(flatten)]
    pub connection: Connection,

    /// Print paths and members only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

/// What can be different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    File,
    Config,
    Manifest,
    Layer,
}

impl Kind {
    pub const fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::Config => "config",
            Kind::Manifest => "manifest",
            Kind::Layer => "layer",
        }
    }
}

/// In what files can be different.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    Type,
    Content,
    Size,
    Mode,
    Owner,
    Mtime,
    Link,
    Device,
    Xattrs,
}

impl What {
    pub const fn name(self) -> &'static str {
        match self {
            What::Type => "type",
            What::Content => "content",
            What::Size => "size",
            What::Mode => "mode",
            What::Owner => "owner",
            What::Mtime => "mtime",
            What::Link => "link",
            What::Device => "device",
            What::Xattrs => "xattrs",
        }
    }
}

cli::tool!(Args, "img-diff", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let (one, other) = subjects(args, context)?;
    let places = Places::new(args.connection.client()?, args.platform.as_deref())?;
    let (old, new) = (places.open(&one)?, places.open(&other)?);
    let mut printer = Printer::new(context);
    if old.image.digest != new.image.digest {
        if args.layers {
            layers::compare_archives(&old, &new, &mut printer)?;
        } else {
            compare(args, &old, &new, &mut printer)?;
        }
    }
    let different = printer.finish()?;
    if different && args.exit_code {
        context.exit_with(1);
    }
    Ok(())
}

/// The two images, as they were named or from records.
fn subjects(args: &Args, context: &mut Context) -> Result<(Subject, Subject)> {
    let named = |text: &String| (text != "-").then(|| Subject::Name(text.clone()));
    let (one, other) = match args.images.as_slice() {
        [one, other] => (named(one), named(other)),
        [one] => (named(one), None),
        _ => (None, None),
    };
    let missing = usize::from(one.is_none()) + usize::from(other.is_none());
    let mut records = if missing > 0 { context.require_records()? } else { Vec::new() };
    if records.len() != missing {
        return Err(Fault::input(format!(
            "{} records on stdin where {missing} were expected: two images are compared",
            records.len()
        )));
    }
    let mut next = || records.drain(..1).next().map(Subject::from);
    match (one.or_else(&mut next), other.or_else(&mut next)) {
        (Some(one), Some(other)) => Ok((one, other)),
        _ => Err(Fault::input("two images are compared")),
    }
}

fn compare(args: &Args, old: &Opened<'_>, new: &Opened<'_>, printer: &mut Printer<'_>) -> Result<()> {
    let wanted = |kind: Kind| {
        if args.only.is_empty() {
            args.paths.is_empty() || kind == Kind::File
        } else {
            args.only.contains(&kind)
        }
    };
    if wanted(Kind::Manifest) {
        documents::manifests(old, new, printer)?;
    }
    if wanted(Kind::Config) {
        documents::configs(old, new, printer)?;
    }
    if wanted(Kind::Layer) {
        layers::compare(old, new, printer)?;
    }
    let same_layers = old.image.layers.iter().map(|layer| &layer.diff_id).eq(new
        .image
        .layers
        .iter()
        .map(|layer| &layer.diff_id));
    if wanted(Kind::File) && !same_layers {
        let patterns: Vec<Pattern> = args.paths.iter().map(|path| Pattern::new(path.as_bytes())).collect();
        let budget = Budget::default();
        let (old_lists, new_lists) = scan_both(old, new, &budget)?;
        let old_view = contents::view(&old.image.reference, &old_lists, &budget)?;
        let new_view = contents::view(&new.image.reference, &new_lists, &budget)?;
        let sides = tree::Sides { old: &old.image.layers, new: &new.image.layers };
        let changes = tree::compare(&old_view, &new_view, sides, &patterns, &args.ignore);
        for change in &changes {
            printer.file(change, sides)?;
        }
    }
    Ok(())
}

type Lists = Vec<Arc<Vec<Item>>>;

/// The lists of all layers with the hashes of all files; of a layer both have, once.
fn scan_both(old: &Opened<'_>, new: &Opened<'_>, budget: &Budget) -> Result<(Lists, Lists)> {
    let old_lists = scan_layers(old.source.as_ref(), &old.image.reference, &old.image.layers, budget, true)?;
    let mut known: HashMap<&str, Arc<Vec<Item>>> = HashMap::new();
    for (layer, list) in old.image.layers.iter().zip(&old_lists) {
        known.insert(&layer.digest, Arc::clone(list));
    }
    let rest: Vec<record::Layer> =
        new.image.layers.iter().filter(|layer| !known.contains_key(layer.digest.as_str())).cloned().collect();
    let lists = scan_layers(new.source.as_ref(), &new.image.reference, &rest, budget, true)?;
    for (layer, list) in rest.iter().zip(lists) {
        known.insert(&layer.digest, list);
    }
    let new_lists =
        new.image.layers.iter().filter_map(|layer| known.get(layer.digest.as_str()).cloned()).collect();
    Ok((old_lists, new_lists))
}
