//! Images: their blobs, which several may share.

use crate::Row;
use crate::containers::Uses;
use cli::{Context, Kind, Result};
use fault::Explain;
use oci::{Digest, Platform};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use store::{Entry, Store};

/// One image under all its names.
struct Image {
    names: Vec<String>,
    digest: Digest,
    blobs: HashSet<Digest>,
    containers: u64,
}

/// The row of the images, and the diff ids of those in use.
///
/// Nothing but manifests is read: the sizes are those of the files. Blobs no image needs, which a cut pull or another
/// program left, are counted with them.
pub fn look(
    store: &Store,
    uses: &Uses,
    verbose: bool,
    context: &mut Context,
) -> Result<(Row, HashSet<Digest>)> {
    let sizes = blob_sizes(store)?;
    let (mut images, mut by_digest): (Vec<Image>, HashMap<Digest, usize>) = Default::default();
    let mut diff_ids = HashSet::new();
    for entry in store.images()? {
        if let Some(known) = by_digest.get(entry.digest()).and_then(|at| images.get_mut(*at)) {
            known.names.extend(entry.name().map(str::to_owned));
            continue;
        }
        let containers = containers_of(&entry, uses);
        if containers > 0 {
            match store.load_image(&entry, &Platform::host()) {
                Ok(image) => {
                    diff_ids.extend(image.layers.iter().filter_map(|l| Digest::parse(&l.diff_id).ok()));
                }
                Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Input) => {}
                Err(fault) => return Err(fault),
            }
        }
        match store.blobs_of(&entry) {
            Ok(blobs) => {
                by_digest.insert(entry.digest().clone(), images.len());
                let names = entry.name().map(str::to_owned).into_iter().collect();
                images.push(Image { names, digest: entry.digest().clone(), blobs, containers });
            }
            // One that cannot be read must not hide the others.
            Err(fault) => context.report(&fault.on(entry.name().unwrap_or(entry.digest().as_str()))),
        }
    }
    Ok((row(&images, &sizes, verbose), diff_ids))
}

fn containers_of(entry: &Entry, uses: &Uses) -> u64 {
    let index = entry.index_digest();
    let digests = [Some(entry.digest()), index.as_ref()];
    // A container counts under both.
    digests
        .into_iter()
        .flatten()
        .filter_map(|digest| uses.images.get(digest.as_str()))
        .copied()
        .max()
        .unwrap_or(0)
}

fn row(images: &[Image], sizes: &HashMap<Digest, u64>, verbose: bool) -> Row {
    let size_of = |digest: &Digest| sizes.get(digest).copied().unwrap_or(0);
    let sum = |sum: u64, size: u64| sum.saturating_add(size);
    let mut users: HashMap<&Digest, u64> = HashMap::new();
    let mut used: HashSet<&Digest> = HashSet::new();
    for image in images {
        for blob in &image.blobs {
            *users.entry(blob).or_default() += 1;
        }
        if image.containers > 0 {
            used.extend(&image.blobs);
        }
    }
    let describe = |image: &Image| -> Value {
        let size = image.blobs.iter().map(size_of).fold(0, sum);
        let own = image.blobs.iter().filter(|blob| users.get(blob) == Some(&1));
        let unique = own.map(size_of).fold(0, sum);
        json!({"references": image.names, "digest": image.digest, "size": size, "shared": size - unique,
            "unique": unique, "containers": image.containers})
    };
    let unused = sizes.iter().filter(|(digest, _)| !used.contains(digest));
    Row {
        count: images.len() as u64,
        active: images.iter().filter(|image| image.containers > 0).count() as u64,
        size: sizes.values().copied().fold(0, sum),
        reclaimable: unused.map(|(_, size)| *size).fold(0, sum),
        objects: verbose.then(|| {
            let mut objects: Vec<Value> = images.iter().map(describe).collect();
            let lost = sizes.iter().filter(|(digest, _)| !users.contains_key(digest));
            let lost = lost.map(|(_, size)| *size).fold(0, sum);
            if lost > 0 {
                // Nobody's: no digest.
                objects.push(
                    json!({"references": [], "digest": null, "size": lost, "shared": 0, "unique": lost,
                    "containers": 0}),
                );
            }
            objects
        }),
    }
}

/// Bytes of every blob there is.
fn blob_sizes(store: &Store) -> Result<HashMap<Digest, u64>> {
    let mut sizes = HashMap::new();
    for algorithm in ["sha256", "sha512"] {
        let folder = store.root().join("blobs").join(algorithm);
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).explain(|| format!("read {}", folder.display())),
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let digest = Digest::parse(&format!("{algorithm}:{}", name.to_string_lossy()));
            // Of another name: somebody else's.
            if let (Ok(digest), Ok(status)) = (digest, entry.metadata()) {
                sizes.insert(digest, status.len());
            }
        }
    }
    Ok(sizes)
}
