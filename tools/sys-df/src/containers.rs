//! Containers, and what they use.

use crate::{Row, walk};
use cli::{Context, Kind, Result};
use oci::Digest;
use record::Volume;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use store::{ContainerDir, Status, Store};

/// What containers stand on.
#[derive(Debug, Default)]
pub struct Uses {
    /// How many containers were made from an image, by digest of its manifest or index.
    pub images: BTreeMap<String, u64>,
    pub layers: HashSet<Digest>,
    /// How many containers have a volume, by its name.
    pub volumes: BTreeMap<String, u64>,
}

/// The row of the containers: everything in their directories, which is the read-write layer, the log and a few small files.
pub fn look(store: &Store, verbose: bool, context: &mut Context) -> Result<(Row, Uses)> {
    let mut row = Row::new(verbose);
    let mut uses = Uses::default();
    for dir in store.containers()? {
        match look_at(&dir, &mut row, &mut uses) {
            // Removed meanwhile.
            Err(fault) if fault.kind() == Kind::NotFound => {}
            // One that cannot be read must not hide the others.
            Err(fault) => context.report(&fault.on(&dir.id)),
            Ok(()) => {}
        }
    }
    Ok((row, uses))
}

fn look_at(dir: &ContainerDir, row: &mut Row, uses: &mut Uses) -> Result<()> {
    let record = dir.load()?;
    let image = record.image()?;
    let image_digests = image.iter().flat_map(|image| [Some(&image.digest), image.index_digest.as_ref()]);
    for digest in image_digests.flatten() {
        *uses.images.entry(digest.clone()).or_default() += 1;
    }
    let layers = record.rootfs()?.map(|rootfs| rootfs.layers).unwrap_or_default();
    uses.layers.extend(layers.iter().filter_map(|path| Store::diff_id_of_path(Path::new(path))));
    for volume in record.get::<Vec<Volume>>("volumes")?.unwrap_or_default() {
        *uses.volumes.entry(volume.name).or_default() += 1;
    }
    let status = dir.status()?;
    let size = walk::disk_bytes(&dir.bundle)?;
    let writable = if row.objects.is_some() { walk::disk_bytes(&dir.bundle.join("upper"))? } else { 0 };
    row.add(size, status != Status::Exited, || {
        let name = record.container().ok().flatten().map(|container| container.name);
        json!({"id": dir.id, "name": name, "status": status.name(),
            "image": image.map(|image| image.reference), "size": size, "writable": writable})
    });
    Ok(())
}
