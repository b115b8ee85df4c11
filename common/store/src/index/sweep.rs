//! Removing blobs that no image needs any more.

use super::{Entry, count_entries, parse_entries, read_text};
use crate::Store;
use fault::{Explain, Fault, Kind, Result};
use oci::manifest::MAX_MANIFEST_BYTES;
use oci::{Digest, Document};
use std::collections::HashSet;
use std::path::Path;

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    pub blobs: u64,
    pub bytes: u64,
}

impl Store {
    /// Removes every blob that cannot be reached from `index.json` or the steps of builds and no build that goes on holds, under the lock that adding a reference takes: a
    /// pull that is under way finds out what it has lost and fetches it again.
    ///
    /// # Errors
    /// Nothing is removed when `index.json` or a manifest is there but cannot be understood: what it needs is unknown.
    pub fn sweep_blobs(&self) -> Result<Swept> {
        let _lock = self.lock_images()?;
        let text = read_text(&self.index_path())?;
        let entries = parse_entries(&text)?;
        if entries.len() != count_entries(&text) {
            return Err(Fault::failed("index.json has entries that cannot be understood"));
        }
        let mut needed = HashSet::new();
        for (entry, _) in &entries {
            self.reach(entry, &mut needed)?;
        }
        // First: who lets go of something has named it somewhere.
        let held = self.held()?;
        needed.extend(held.digests.iter().cloned());
        needed.extend(self.layers_of_steps()?.iter().filter_map(|layer| Digest::parse(&layer.digest).ok()));
        let mut swept = Swept::default();
        for algorithm in ["sha256", "sha512"] {
            sweep_folder(&self.root().join("blobs").join(algorithm), algorithm, &needed, &mut swept)?;
        }
        Ok(swept)
    }

    /// Digests of everything an image consists of: its manifest, the index it came from, its configuration and layers. They
    /// need not be here: an index tells of other platforms' manifests.
    pub fn blobs_of(&self, entry: &Entry) -> Result<HashSet<Digest>> {
        let mut needed = HashSet::new();
        self.reach(entry, &mut needed)?;
        Ok(needed)
    }

    fn reach(&self, entry: &Entry, needed: &mut HashSet<Digest>) -> Result<()> {
        let mut waiting = vec![(entry.digest().clone(), 0)];
        waiting.extend(entry.index_digest().map(|digest| (digest, 9)));
        while let Some((digest, depth)) = waiting.pop() {
            if !needed.insert(digest.clone()) || depth > 8 {
                continue;
            }
            let document = match self.read_blob(&digest, MAX_MANIFEST_BYTES) {
                Ok(bytes) => Document::parse(&bytes, None),
                // Another platform's manifest, never fetched.
                Err(fault) if fault.kind() == Kind::NotFound => continue,
                Err(fault) => return Err(fault),
            };
            match document {
                Ok(Document::Manifest(manifest)) => {
                    needed.insert(manifest.config.digest);
                    needed.extend(manifest.layers.into_iter().map(|layer| layer.digest));
                }
                Ok(Document::Index(index)) => {
                    waiting.extend(index.manifests.into_iter().map(|entry| (entry.digest, depth + 1)));
                }
                // Another program's artifact: whatever it is, its parts have digests.
                Err(_) => needed.extend(self.digests_in(&digest)?),
            }
        }
        Ok(())
    }

    /// Everything in a document that looks like a digest.
    fn digests_in(&self, document: &Digest) -> Result<Vec<Digest>> {
        let bytes = self.read_blob(document, MAX_MANIFEST_BYTES)?;
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.split('"').filter_map(|word| Digest::parse(word).ok()).collect())
    }
}

fn sweep_folder(folder: &Path, algorithm: &str, needed: &HashSet<Digest>, swept: &mut Swept) -> Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).explain(|| format!("read {}", folder.display())),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        // A file of another kind is somebody else's.
        let Ok(digest) = Digest::parse(&format!("{algorithm}:{}", name.to_string_lossy())) else { continue };
        if needed.contains(&digest) {
            continue;
        }
        let bytes = entry.metadata().map_or(0, |status| status.len());
        if std::fs::remove_file(entry.path()).is_ok() {
            swept.blobs += 1;
            swept.bytes += bytes;
        }
    }
    Ok(())
}
