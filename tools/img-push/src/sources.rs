//! Repositories of the destination's registry that have a blob already, as far as the store knows.

use cli::Result;
use oci::manifest::MAX_MANIFEST_BYTES;
use oci::{Artifact, Digest};
use registry::Repository;
use std::collections::HashMap;
use store::Store;

/// Images whose manifests are read in search of a blob.
const MAX_IMAGES: usize = 200;
/// Repositories asked for one blob.
const MAX_REPOSITORIES: usize = 2;

/// Paths of repositories by blob, for those of `lacking` that an image of the store from the same registry has.
pub fn of(store: &Store, to: &Repository, lacking: &[&Digest]) -> Result<HashMap<Digest, Vec<String>>> {
    let mut found: HashMap<Digest, Vec<String>> = HashMap::new();
    if lacking.is_empty() {
        return Ok(found);
    }
    let neighbours = store.images()?.into_iter().filter_map(|entry| {
        let reference = entry.reference()?;
        (reference.domain() == to.domain() && reference.path() != to.path())
            .then(|| (entry, reference.path().to_owned()))
    });
    for (entry, path) in neighbours.take(MAX_IMAGES) {
        // One that cannot be read is no help, and none of this image's business.
        let Ok(bytes) = store.read_blob(entry.digest(), MAX_MANIFEST_BYTES) else { continue };
        let Ok(artifact) = Artifact::parse(&bytes, None) else { continue };
        for blob in artifact.blobs.iter().filter(|blob| lacking.contains(&&blob.digest)) {
            let paths = found.entry(blob.digest.clone()).or_default();
            if paths.len() < MAX_REPOSITORIES && !paths.contains(&path) {
                paths.push(path.clone());
            }
        }
    }
    Ok(found)
}
