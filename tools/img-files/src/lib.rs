//! List the files in images, without unpacking them.
#![forbid(unsafe_code)]

mod select;
mod usage;

use cli::{Common, Context, Fault, OutputMode, Result, Table};
use contents::{FileRecord, Opened, Pattern, Places};
use img_ls::words;
use img_pull::Connection;
use layer::Budget;
use record::Layer;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use store::Subject;

/// Bytes of output that are written at a time.
const CHUNK: usize = 64 << 10;

/// List the files in images, without unpacking them
///
/// Layers are read as they are stored, and put one over the other as unpacking would do. Each line is a file, directory or whatever
/// else: path, type, mode, owner, size, time, link, and the layer it comes from. On a terminal it is a table as of ls -l.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-files",
    version,
    after_help = "Examples:\n  img-files debian:12 -p /etc\n  img-files docker://debian:12 --du --depth 2\n  img-files app:1 -p '**/*.py' | jq -r 'select(.size > 1e5) | .path'\n  img-files app:1 --du --depth 2\n  img-files app:1 --hidden --du --depth 1\n  img-files app:1 --layer -1\n  img-files app:1 | jq -r 'select(.mode | test(\"^[4-7]\")) | .path'"
)]
pub struct Args {
    /// References, ids or beginnings of them; docker://REF, oci:DIR and others of img-copy's places; without any, records are read from stdin
    #[arg(value_name = "IMAGE")]
    pub images: Vec<String>,

    /// Only this path with all below it, or what fits a pattern: * ? [] within a name, ** for directories
    #[arg(short, long = "path", value_name = "PATH")]
    pub paths: Vec<OsString>,

    /// The entries of one layer as they are in its archive, whiteouts too: by number, the lowest is 0 and the highest -1, or by the beginning of
    /// its digest or diff id
    #[arg(long, value_name = "LAYER", allow_hyphen_values = true, conflicts_with = "hidden")]
    pub layer: Option<String>,

    /// What the image does not show though its layers have it: files that upper layers replace or remove, and whiteouts
    #[arg(long)]
    pub hidden: bool,

    /// Directories with the size of all in them, the largest first
    #[arg(long)]
    pub du: bool,

    /// No deeper than this: 1 is what is in the root
    #[arg(long, value_name = "N")]
    pub depth: Option<usize>,

    /// Of an image for several platforms, look into the one for this platform
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub platform: Option<String>,

    #[command(flatten)]
    pub connection: Connection,

    /// Print paths only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-files", common, quiet);

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let places = Places::new(args.connection.client()?, args.platform.as_deref())?;
    let patterns: Vec<Pattern> = args.paths.iter().map(|path| Pattern::new(path.as_bytes())).collect();
    let subjects: Vec<Subject> = context.input(&args.images)?.into_subjects();
    let several = subjects.len() > 1;
    context.each(subjects, |context, subject| {
        let opened = places.open(&subject)?;
        list(args, &opened, &patterns, several, context)
    });
    Ok(())
}

fn list(
    args: &Args,
    opened: &Opened<'_>,
    patterns: &[Pattern],
    several: bool,
    context: &mut Context,
) -> Result<()> {
    let Opened { image, source, .. } = opened;
    let name = image.reference.as_str();
    let all = image.layers.as_slice();
    let layers = match &args.layer {
        Some(text) => std::slice::from_ref(choose(all, text).map_err(|fault| fault.on(name))?),
        None => all,
    };
    let budget = Budget::default();
    let lists = contents::scan_layers(source.as_ref(), name, layers, &budget, false)?;
    let image_name = several.then_some(name);
    if args.layer.is_none() {
        let view = contents::view(name, &lists, &budget)?;
        if args.hidden {
            let files = select::hidden(&view, &lists).into_iter();
            let files = files.map(|(layer, item)| FileRecord::of_item(item, &layers[layer].digest));
            return print(args, files, patterns, image_name, context);
        }
        let files = select::shown(&view, patterns).map_err(|fault| fault.on(name))?;
        let digest = |node: &layer::Node<'_>| Some(layers.get(node.layer()?)?.digest.as_str());
        if args.du {
            let sizes = files.iter().map(|(path, node)| (path.as_slice(), node.size(), Some(node.inode())));
            return print_usage(args, usage::of(sizes, args.depth), image_name, context);
        }
        let files = files.iter().map(|(path, node)| FileRecord::of_node(path, *node, digest(node)));
        return print(args, files, &[], image_name, context);
    }
    let items = lists.iter().flat_map(|list| list.iter());
    let files = items.map(|item| FileRecord::of_item(item, &layers[0].digest));
    print(args, files, patterns, image_name, context)
}

/// A layer by its number or the beginning of a digest.
fn choose<'a>(layers: &'a [Layer], text: &str) -> Result<&'a Layer> {
    if let Ok(number) = text.parse::<i64>()
        && text.len() < 4
    {
        let index = if number < 0 { number + layers.len() as i64 } else { number };
        let found = usize::try_from(index).ok().and_then(|index| layers.get(index));
        return found.ok_or_else(|| {
            Fault::not_found(format!("there is no layer {number}"))
                .hint(format!("the image has {}; the lowest is 0, the highest -1", layers.len()))
        });
    }
    let begins = |digest: &str| {
        digest.starts_with(text) || digest.split_once(':').is_some_and(|(_, hex)| hex.starts_with(text))
    };
    let mut found = layers.iter().filter(|layer| begins(&layer.digest) || begins(&layer.diff_id));
    let none = || {
        Fault::not_found(format!("no layer's digest or diff id begins with {text}"))
            .hint("img-history lists them")
    };
    let first = found.next().ok_or_else(none)?;
    match found.find(|other| other.digest != first.digest) {
        Some(_) => Err(Fault::conflict(format!("more than one layer begins with {text}"))),
        None => Ok(first),
    }
}

/// Those that fit the patterns and lie not too deep.
fn print<'a>(
    args: &Args,
    files: impl Iterator<Item = FileRecord<'a>>,
    patterns: &[Pattern],
    image: Option<&'a str>,
    context: &mut Context,
) -> Result<()> {
    let below = |path: &str| path.trim_start_matches('/').split('/').filter(|part| !part.is_empty()).count();
    let fits = |file: &FileRecord<'_>| {
        let path = file.path().trim_start_matches('/').as_bytes();
        patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(path))
    };
    let files = files.filter(fits);
    if args.du {
        let files: Vec<(Vec<u8>, u64)> = files
            .map(|file| (file.path().trim_start_matches('/').as_bytes().to_vec(), file.size()))
            .collect();
        let sizes = files.iter().map(|(path, size)| (path.as_slice(), *size, None));
        return print_usage(args, usage::of(sizes, args.depth), image, context);
    }
    let files = files.filter(|file| args.depth.is_none_or(|depth| below(file.path()) <= depth));
    let mut table = Table::new(&["MODE", "OWNER", "SIZE", "MODIFIED", "LAYER", "PATH"]);
    let mut text = String::new();
    for mut file in files {
        file.image = image;
        match context.mode() {
            OutputMode::Json => text.push_str(&file.to_line()),
            OutputMode::Quiet => text.push_str(&one_line(file.path())),
            OutputMode::Table => {
                let [mode, owner, size, time, path] = file.columns();
                table.row([mode, owner, size, time, short(file.layer), path]);
                continue;
            }
        }
        text.push('\n');
        if text.len() > CHUNK {
            context.print(&text)?;
            text.clear();
        }
        if context.stdout_closed() {
            return Ok(());
        }
    }
    if context.mode() == OutputMode::Table { context.print_table(&table) } else { context.print(&text) }
}

/// A path with a line break in it would be two.
fn one_line(path: &str) -> String {
    path.chars().map(|c| if c == '\n' || c == '\r' { '\u{fffd}' } else { c }).collect()
}

fn short(layer: Option<&str>) -> String {
    let hex = layer.and_then(|digest| digest.split_once(':')).map_or("-", |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex).to_owned()
}

fn print_usage(
    args: &Args,
    sizes: Vec<usage::Usage>,
    image: Option<&str>,
    context: &mut Context,
) -> Result<()> {
    if context.mode() == OutputMode::Table {
        let mut table = Table::new(&["SIZE", "FILES", "PATH"]);
        for one in &sizes {
            table.row([words::size(one.size), one.files.to_string(), one.path.clone()]);
        }
        return context.print_table(&table);
    }
    let mut text = String::new();
    for mut one in sizes {
        one.image = image.map(str::to_owned);
        if args.quiet {
            text.push_str(&one_line(&one.path));
        } else {
            text.push_str(&serde_json::to_string(&one).unwrap_or_default());
        }
        text.push('\n');
    }
    context.print(&text)
}
