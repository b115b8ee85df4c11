//! What an image consists of, who stands on it, and sweeping what nobody needs.

use crate::index::Entry;
use crate::layers::diff_id_of;
use crate::{Lock, Store, Subject};
use fault::{Explain, Fault, Kind, Result};
use oci::{Digest, Document, Platform};
use record::Image;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// An image with what its record does not say.
#[derive(Clone, Debug)]
pub struct ImageDetails {
    pub image: Image,
    /// Digest of the configuration, docker's image id.
    pub id: Digest,
    /// Bytes of manifest, configuration and layers as they are stored and sent.
    pub size: u64,
    /// RFC 3339, as the image says.
    pub created: Option<String>,
}

/// A container that stands on an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUser {
    /// Id and name of the container.
    pub id: String,
    pub name: String,
}

/// Containers by the digest of the image they were made from, manifests and indexes alike.
pub type ImageUsers = BTreeMap<String, Vec<ImageUser>>;

impl Store {
    /// An image with its size, its id and its age.
    ///
    /// # Errors
    /// As [`Store::load_image`].
    pub fn image_details(&self, entry: &Entry) -> Result<ImageDetails> {
        let mut image = self.load_any_image(entry, &Platform::host())?;
        let digest = Digest::parse(&image.digest)?;
        let bytes = self.read_blob(&digest, oci::manifest::MAX_MANIFEST_BYTES)?;
        let Document::Manifest(manifest) = Document::parse(&bytes, None)? else {
            return Err(Fault::input("an index where a manifest was expected").on(image.reference));
        };
        let layers = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        let size = layers.saturating_add(manifest.config.size).saturating_add(bytes.len() as u64);
        let created = image.config.get("created").and_then(|value| value.as_str()).map(str::to_owned);
        let id = manifest.config.digest;
        image.extra.insert("id".into(), id.as_str().into());
        image.extra.insert("size".into(), size.into());
        image.extra.insert("created".into(), created.clone().into());
        Ok(ImageDetails { image, id, size, created })
    }

    /// The entry a tool's subject means. A record counts by its name if that still is the same image, else by its
    /// digest.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Conflict`] when the beginning of a digest fits several.
    pub fn find_subject(&self, subject: &Subject) -> Result<Entry> {
        let record = match subject {
            Subject::Name(name) => return self.find_image(name),
            Subject::Record(record) => record,
        };
        let image: Image = record.require("image")?;
        let by_digest = self.find_digest(&Digest::parse(&image.digest)?)?;
        let same = |entry: &&Entry| entry.name() == Some(image.reference.as_str());
        let entry = by_digest.iter().find(same).or(by_digest.first()).cloned();
        entry.ok_or_else(|| Fault::not_found("no such image").on(image.reference))
    }

    /// Who stands on which image.
    ///
    /// # Errors
    /// When a container's record cannot be read: what it needs is unknown then.
    pub fn image_users(&self) -> Result<ImageUsers> {
        let mut users = ImageUsers::new();
        for dir in self.containers()? {
            let record = match dir.load() {
                // Removed meanwhile.
                Err(fault) if fault.kind() == Kind::NotFound => continue,
                other => other?,
            };
            let name = record.container()?.map(|container| container.name).unwrap_or_default();
            let image = record.image()?.unwrap_or_default();
            let mounted = crate::layers::mounted_images(&record)?.into_iter().map(|image| image.digest);
            let digests = [Some(image.digest), image.index_digest].into_iter().flatten().chain(mounted);
            for digest in digests.filter(|digest| !digest.is_empty()) {
                users.entry(digest).or_default().push(ImageUser { id: dir.id.clone(), name: name.clone() });
            }
        }
        Ok(users)
    }

    /// Removes layers that cannot be trusted, half-made ones and those from before a crash, unless a container stands
    /// on them. They would be unpacked again before use.
    pub fn sweep_untrusted_layers(&self) -> Result<u64> {
        let stale: Vec<Digest> =
            self.layers()?.into_iter().filter(|diff_id| !self.has_layer(diff_id)).collect();
        if stale.is_empty() {
            return Ok(0);
        }
        let used = self.layers_of_containers()?;
        let mut removed = 0;
        for diff_id in stale.iter().filter(|diff_id| !used.contains(diff_id)) {
            removed += u64::from(self.remove_layer(diff_id, true, None)?.is_some());
        }
        Ok(removed)
    }

    /// Removes markers of objects that are gone or belong to an earlier boot, and lock files nobody holds; returns how
    /// many.
    pub fn sweep_run(&self) -> Result<u64> {
        let mut removed = 0;
        let current = format!("fresh-{}", crate::settle::boot_id()?);
        for name in names_in(self.run())? {
            if !name.starts_with("fresh-") {
                continue;
            }
            let dir = self.run().join(&name);
            let markers = names_in(&dir)?;
            for marker in &markers {
                if name != current || self.marks_nothing(marker) {
                    removed += u64::from(std::fs::remove_file(dir.join(marker)).is_ok());
                }
            }
            if name != current {
                // Fails when something else lies in it, which then is not ours.
                let _ = std::fs::remove_dir(&dir);
            }
        }
        let is_layer: fn(&str) -> bool = |name| diff_id_of(name).is_some();
        let is_key: fn(&str) -> bool = |name| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        for (dir, is_ours) in [("layers", is_layer), ("steps", is_key)] {
            let locks = self.run().join(dir);
            for name in names_in(&locks)? {
                let path = locks.join(&name);
                if is_ours(&name) && Lock::try_exclusive(&path)?.is_some() {
                    removed += u64::from(std::fs::remove_file(&path).is_ok());
                }
            }
        }
        Ok(removed)
    }

    /// Whether a marker (`blobs-<algorithm>-<hex>.<dev>-<inode>`, `layers-<algorithm>-<hex>-layer.json.…`) has lost its
    /// object. Of names of another kind nothing is known.
    fn marks_nothing(&self, marker: &str) -> bool {
        let Some((name, _)) = marker.rsplit_once('.') else { return false };
        let object = if let Some(blob) = name.strip_prefix("blobs-") {
            diff_id_of(blob).map(|digest| self.blob_path(&digest))
        } else {
            name.strip_prefix("layers-")
                .and_then(|layer| layer.strip_suffix("-layer.json"))
                .and_then(diff_id_of)
                .map(|diff_id| self.layer_dir(&diff_id).join("layer.json"))
        };
        object.is_some_and(|path| matches!(path.try_exists(), Ok(false)))
    }

    /// Other names the image of an entry has.
    pub fn other_names(&self, entry: &Entry) -> Result<BTreeSet<String>> {
        let names = self.find_digest(entry.digest())?;
        Ok(names
            .iter()
            .filter(|other| other.digest() == entry.digest() && other.name() != entry.name())
            .filter_map(|other| other.name().map(str::to_owned))
            .collect())
    }
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    match std::fs::read_dir(dir) {
        Ok(entries) => {
            Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).explain(|| format!("read {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_without_an_object_and_old_boots_go() {
        let dir = std::env::temp_dir().join(format!("store-usage-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let settle = crate::Settle::new();
        let kept = store.put_blob(b"kept", &settle).unwrap();
        let lost = store.put_blob(b"lost", &settle).unwrap();
        std::fs::remove_file(store.blob_path(&lost)).unwrap();
        std::fs::create_dir_all(store.run().join("fresh-earlier")).unwrap();
        std::fs::write(store.run().join("fresh-earlier/blobs-x"), b"").unwrap();
        let held = store.lock_layer(&kept).unwrap();
        drop(store.lock_layer(&lost).unwrap());
        assert_eq!(store.sweep_run().unwrap(), 3);
        assert!(store.has_blob(&kept, None, &settle).unwrap());
        assert!(!store.run().join("fresh-earlier").exists());
        drop(held);
        assert_eq!(store.sweep_run().unwrap(), 1);
        crate::remove_tree(&dir).unwrap();
    }
}
