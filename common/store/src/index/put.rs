//! An image that was made here, into the store: for tools that edit, copy, load or build.

use super::{Entry, digest_of, put};
use crate::{Settle, Store};
use fault::{Fault, Kind, Result};
use oci::digest::Hasher;
use oci::manifest::{
    ANNOTATION_CONFIG_DIGEST, ANNOTATION_INDEX_DIGEST, ANNOTATION_REF_NAME, Document, Manifest,
};
use oci::{Digest, ImageConfig, Reference};
use serde_json::{Value, json};

/// How often manifest and configuration are written again when a sweep takes them before the image has its entry.
const ATTEMPTS: usize = 5;

/// An image whose layers are in the store, or are put there before.
#[derive(Clone, Copy, Debug)]
pub struct NewImage<'a> {
    /// The manifest's own bytes; what they hash to is the image's digest.
    pub manifest: &'a [u8],
    /// The media type it came with or was made as, where there is one beside the manifest's own `mediaType`.
    pub media_type: Option<&'a str>,
    /// The configuration's own bytes; `None` where it is in the store already.
    pub config: Option<&'a [u8]>,
    /// Its name, taken from the image that has it. Without one the image is dangling, unless it is in the store under others.
    pub name: Option<&'a Reference>,
    /// The index the manifest was chosen from.
    pub index_digest: Option<&'a Digest>,
}

impl Store {
    /// Stores an image's manifest and configuration and gives it its entry in `index.json`; returns that entry.
    ///
    /// All is checked before anything is written: that the manifest is an image's, that the configuration is the one it names and
    /// describes as many layers. Putting the same image twice changes nothing. The caller finishes `settle`.
    ///
    /// # Errors
    /// [`Kind::Input`] for a manifest or a configuration that is malformed or not the other's, [`Kind::NotFound`] when a layer, or a
    /// configuration that is not given, is not in the store.
    pub fn put_image(&self, new: &NewImage<'_>, settle: &Settle) -> Result<Entry> {
        let Document::Manifest(manifest) = Document::parse(new.manifest, new.media_type)? else {
            return Err(Fault::input("an index where an image's manifest was expected"));
        };
        let config = match new.config {
            Some(bytes) => config_of(&manifest, bytes)?,
            None => self.read_config(&manifest)?,
        };
        manifest.layers_with_diff_ids(&config)?;
        for _ in 0..ATTEMPTS {
            let digest = self.put_blob(new.manifest, settle)?;
            if let Some(bytes) = new.config {
                self.put_blob_as(&manifest.config.digest, bytes, settle)?;
            }
            let entry = entry_of(new, &manifest, &config, &digest);
            match self.enter(new.name, &digest, entry, &manifest)? {
                Ok(entry) => return Ok(entry),
                // A sweep came between; what is at hand is written once more.
                Err(missing) if missing == digest => {}
                Err(missing) if missing == manifest.config.digest && new.config.is_some() => {}
                Err(missing) => {
                    return Err(Fault::not_found(format!("blob {missing} is not in the store"))
                        .hint("pull the image it belongs to again"));
                }
            }
        }
        Err(Fault::new(Kind::Retryable, "the image's blobs are removed again and again by img-prune"))
    }

    /// Makes the entry if every blob is there; else says which is not.
    fn enter(
        &self,
        name: Option<&Reference>,
        digest: &Digest,
        entry: Value,
        manifest: &Manifest,
    ) -> Result<Result<Entry, Digest>> {
        self.edit_index(|entries| {
            let layers = manifest.layers.iter().map(|layer| &layer.digest);
            let mut blobs = [digest, &manifest.config.digest].into_iter().chain(layers);
            if let Some(missing) = blobs.find(|digest| !self.blob_path(digest).is_file()) {
                return Ok((false, Err(missing.clone())));
            }
            let same = |known: &&Value| digest_of(known) == Some(digest.as_str());
            let (changed, entry) = match (name, entries.iter().find(same)) {
                (None, Some(known)) => (false, known.clone()),
                (None, None) => {
                    entries.push(entry.clone());
                    (true, entry)
                }
                (Some(name), _) => (put(entries, &name.stored_name(), digest, entry.clone()), entry),
            };
            let parsed = Entry::parse(&entry.to_string())
                .ok_or_else(|| Fault::failed(format!("index.json has a malformed entry for {digest}")))?;
            Ok((changed, Ok(parsed)))
        })
    }
}

fn config_of(manifest: &Manifest, bytes: &[u8]) -> Result<ImageConfig> {
    let wanted = &manifest.config;
    if wanted.size != bytes.len() as u64 {
        return Err(Fault::input(format!(
            "the configuration has {} bytes where the manifest says {}",
            bytes.len(),
            wanted.size
        )));
    }
    let mut hasher = Hasher::new(wanted.digest.algorithm());
    hasher.update(bytes);
    let digest = hasher.finish();
    if digest != wanted.digest {
        return Err(Fault::input(format!(
            "the configuration has the digest {digest} where the manifest says {}",
            wanted.digest
        )));
    }
    ImageConfig::parse(bytes)
}

fn entry_of(new: &NewImage<'_>, manifest: &Manifest, config: &ImageConfig, digest: &Digest) -> Value {
    let mut entry =
        json!({"mediaType": manifest.media_type, "digest": digest, "size": new.manifest.len() as u64});
    // Images made by hand often do not say what they are for.
    if !config.platform.architecture.is_empty() {
        entry["platform"] = json!(config.platform);
    }
    let mut annotations = json!({});
    if let Some(name) = new.name {
        annotations[ANNOTATION_REF_NAME] = json!(name.stored_name());
    }
    annotations[ANNOTATION_CONFIG_DIGEST] = json!(manifest.config.digest);
    if let Some(index) = new.index_digest {
        annotations[ANNOTATION_INDEX_DIGEST] = json!(index);
    }
    entry["annotations"] = annotations;
    entry
}
