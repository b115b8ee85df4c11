//! Tell what is used on disk.
#![forbid(unsafe_code)]

mod containers;
mod images;
mod layers;
mod others;
mod print;
mod walk;

use cli::{Common, Context, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::HashSet;
use store::Store;

/// Tell what images, layers, containers and volumes take on disk
///
/// Of each kind how many there are, how many of these are in use, their bytes, and how many of them would be given back:
/// img-prune --all removes images and layers that no container uses, and what dead tools left; ctr-prune containers that do
/// not run. Changes nothing.
#[derive(Debug, clap::Parser)]
#[command(
    name = "sys-df",
    version,
    after_help = "Examples:\n  sys-df\n  sys-df -v | jq -r '.disk.images.objects[] | [.unique, .references[0]] | @tsv' | sort -n\n  sys-df | jq .disk.total.reclaimable"
)]
pub struct Args {
    /// Every image, layer, container, volume and download by itself
    #[arg(short, long)]
    pub verbose: bool,

    #[command(flatten)]
    pub common: Common,
}

cli::tool!(Args, "sys-df", common);

/// One kind of thing. Bytes are those on disk, but of blobs and layers those of their content, as `img-prune` counts blobs.
#[derive(Debug, Default, Serialize)]
struct Row {
    count: u64,
    /// In use: by a container; of containers, those that have not ended; of downloads and unfinished work, those somebody is at.
    active: u64,
    size: u64,
    /// What would be given back if everything were removed that is not in use.
    reclaimable: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    objects: Option<Vec<Value>>,
}

impl Row {
    fn new(verbose: bool) -> Row {
        Row { objects: verbose.then(Vec::new), ..Row::default() }
    }

    /// One more object of a kind whose objects have nothing in common.
    fn add(&mut self, size: u64, active: bool, describe: impl FnOnce() -> Value) {
        self.count += 1;
        self.active += u64::from(active);
        self.size = self.size.saturating_add(size);
        if !active {
            self.reclaimable = self.reclaimable.saturating_add(size);
        }
        if let Some(objects) = &mut self.objects {
            objects.push(describe());
        }
    }
}

/// The section `disk` of the record.
#[derive(Debug, Serialize)]
struct Disk {
    images: Row,
    layers: Row,
    containers: Row,
    volumes: Row,
    downloads: Row,
    unfinished: Row,
    cache: Row,
    total: Total,
}

#[derive(Debug, Default, Serialize)]
struct Total {
    size: u64,
    reclaimable: u64,
}

pub fn run(args: &Args, context: &mut Context) -> Result<()> {
    let store = Store::from_env()?;
    // Containers first: what they use is in use.
    let (containers, uses) = containers::look(&store, args.verbose, context)?;
    let (images, diff_ids) = images::look(&store, &uses, args.verbose, context)?;
    let needed: HashSet<_> = diff_ids.union(&uses.layers).cloned().collect();
    let mut disk = Disk {
        layers: layers::look(&store, &needed, args.verbose, context)?,
        volumes: others::volumes(&store, &uses.volumes, args.verbose, context)?,
        downloads: others::downloads(&store, args.verbose)?,
        unfinished: others::unfinished(&store, args.verbose, context)?,
        cache: others::cache(&store, args.verbose, context)?,
        images,
        containers,
        total: Total::default(),
    };
    let sum =
        |of: fn(&Row) -> u64| disk.rows().iter().fold(0, |sum: u64, (_, row)| sum.saturating_add(of(row)));
    disk.total = Total { size: sum(|row| row.size), reclaimable: sum(|row| row.reclaimable) };
    print::print(&disk, context)
}

impl Disk {
    /// With their names, in the order in which they are shown.
    fn rows(&self) -> [(&'static str, &Row); 7] {
        [
            ("Images", &self.images),
            ("Layers", &self.layers),
            ("Containers", &self.containers),
            ("Volumes", &self.volumes),
            ("Downloads", &self.downloads),
            ("Unfinished", &self.unfinished),
            ("Cache", &self.cache),
        ]
    }
}
