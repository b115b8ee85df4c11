//! Remove images nobody needs, and what dead tools left.
#![forbid(unsafe_code)]

mod filter;

use cli::{Common, Context, OutputMode, Result};
use filter::Filters;
use record::Record;
use serde_json::json;
use std::fmt::Write;
use store::{Cached, Entry, ImageUsers, Store};

/// Remove images nobody needs, and what dead tools left
///
/// Images without a name that no container uses; with --all, images with a name, too. Then every blob and every unpacked
/// layer that no image and no container needs, unfinished work of tools that no longer run, and what is of no use any more in
/// the cache. Prints one record with what was removed.
#[derive(Debug, clap::Parser)]
#[command(
    name = "img-prune",
    version,
    after_help = "Examples:\n  img-prune\n  img-prune --all | jq .pruned.reclaimed_bytes\n  img-prune --all --filter until=240h --filter label!=keep --dry-run"
)]
pub struct Args {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    pub all: bool,

    /// Only images for which this holds: until=TIME (created before), label=KEY[=VALUE], label!=KEY[=VALUE]; dangling=false is
    /// --all; can be given several times
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    pub filters: Vec<String>,

    /// The whole cache, not only what is of no use in it; it is made again
    #[arg(long)]
    pub cache: bool,

    /// Print which images and files of the cache would be removed, one step a line, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Print digests of the removed images only
    #[arg(short, long)]
    pub quiet: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "img-prune", common, quiet);

/// What was removed.
#[derive(Debug, Default)]
struct Pruned {
    images: Vec<Entry>,
    layers: u64,
    blobs: u64,
    unfinished: u64,
    cached: u64,
    reclaimed_bytes: u64,
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    let filters = Filters::parse(&args.filters)?;
    let unused = plan(&store, filters.all.unwrap_or(args.all), &filters)?;
    if args.dry_run {
        for entry in &unused {
            let step = json!({"step": "delete", "image": entry.digest().as_str(), "name": entry.name()});
            context.print(&format!("{step}\n"))?;
        }
        for cached in cached(&store, args.cache)? {
            let step = json!({"step": "delete", "cache": cached.path, "size": cached.bytes});
            context.print(&format!("{step}\n"))?;
        }
        return Ok(());
    }
    let mut pruned = Pruned::default();
    for entry in unused {
        // Looked at again: a container may have been made from it meanwhile.
        if is_used(&entry, &store.image_users()?) {
            continue;
        }
        match entry.name() {
            Some(name) => pruned.images.extend(store.remove_name(name)?.map(|(entry, _)| entry)),
            None => pruned.images.extend(store.remove_image(entry.digest())?),
        }
    }
    sweep(&store, &mut pruned, context);
    // The images' own is of another index now.
    if let Err(fault) = sweep_cache(&store, args.cache, &mut pruned) {
        context.report(&fault.within("remove what is cached"));
    }
    print(&pruned, context)
}

fn plan(store: &Store, all: bool, filters: &Filters) -> Result<Vec<Entry>> {
    let users = store.image_users()?;
    let entries = store.images()?;
    Ok(entries
        .into_iter()
        .filter(|entry| {
            (all || entry.name().is_none()) && !is_used(entry, &users) && filters.hold(store, entry)
        })
        .collect())
}

fn is_used(entry: &Entry, users: &ImageUsers) -> bool {
    let index = entry.index_digest();
    [Some(entry.digest()), index.as_ref()]
        .into_iter()
        .flatten()
        .any(|digest| users.contains_key(digest.as_str()))
}

fn cached(store: &Store, all: bool) -> Result<Vec<Cached>> {
    let mut cached = store.cached()?;
    cached.retain(|cached| all || cached.is_stale);
    Ok(cached)
}

fn sweep_cache(store: &Store, all: bool, pruned: &mut Pruned) -> Result<()> {
    for cached in cached(store, all)? {
        if store.remove_cached(&cached)? {
            pruned.cached += 1;
            pruned.reclaimed_bytes += cached.bytes;
        }
    }
    Ok(())
}

/// Each by itself: one that fails must not keep the others.
fn sweep(store: &Store, pruned: &mut Pruned, context: &mut Context) {
    match store.sweep_blobs() {
        Ok(swept) => {
            pruned.blobs = swept.blobs;
            pruned.reclaimed_bytes += swept.bytes;
        }
        Err(fault) => context.report(&fault.within("remove blobs")),
    }
    match store.sweep_layers(None) {
        Ok(swept) => {
            pruned.layers = swept.layers;
            pruned.reclaimed_bytes += swept.bytes;
        }
        Err(fault) => context.report(&fault.within("remove layers")),
    }
    match store.sweep_untrusted_layers() {
        Ok(count) => pruned.layers += count,
        Err(fault) => context.report(&fault.within("remove half-made layers")),
    }
    match store.sweep_scratch() {
        Ok(count) => pruned.unfinished = count as u64,
        Err(fault) => context.report(&fault.within("remove unfinished work")),
    }
    match store.sweep_downloads() {
        Ok((count, bytes)) => {
            pruned.unfinished += count;
            pruned.reclaimed_bytes += bytes;
        }
        Err(fault) => context.report(&fault.within("remove unfinished downloads")),
    }
    if let Err(fault) = store.sweep_run() {
        context.report(&fault.within("remove stale markers"));
    }
}

fn print(pruned: &Pruned, context: &mut Context) -> Result<()> {
    let images: Vec<_> = pruned
        .images
        .iter()
        .map(|entry| json!({"reference": entry.name(), "digest": entry.digest().as_str()}))
        .collect();
    match context.mode() {
        OutputMode::Json => {
            let mut record = Record::new();
            record.set(
                "pruned",
                &json!({"images": images, "layers": pruned.layers, "blobs": pruned.blobs,
                    "unfinished": pruned.unfinished, "cached": pruned.cached, "reclaimed_bytes": pruned.reclaimed_bytes}),
            )?;
            context.print_record(&record)
        }
        OutputMode::Quiet => {
            let lines = pruned.images.iter().map(|entry| format!("{}\n", entry.digest()));
            context.print(&lines.collect::<String>())
        }
        OutputMode::Table => {
            let mut text = String::new();
            for entry in &pruned.images {
                let _ = writeln!(text, "removed {}", entry.name().unwrap_or(entry.digest().as_str()));
            }
            let _ = writeln!(
                text,
                "{} images, {} layers, {} blobs, {} unfinished, {} cached; reclaimed {}",
                pruned.images.len(),
                pruned.layers,
                pruned.blobs,
                pruned.unfinished,
                pruned.cached,
                img_ls::words::size(pruned.reclaimed_bytes)
            );
            context.print(&text)
        }
    }
}
