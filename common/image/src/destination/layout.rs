//! `oci:DIR[:NAME]`: an OCI image layout, made if it is not there; other images in it stay.

use super::files::{Pending, has_size, make_dirs, write_small};
use super::{Destination, Place, pass};
use crate::archive::blob_path;
use crate::source::MAX_INDEX_BYTES;
use crate::{Raw, Source};
use fault::{Explain, Fault, Result};
use oci::manifest::{ANNOTATION_REF_NAME, media_type};
use oci::{Descriptor, Reference};
use serde_json::{Value, json};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

#[derive(Debug)]
pub struct LayoutDestination {
    dir: PathBuf,
    name: Option<String>,
    root: Mutex<Option<Value>>,
}

impl LayoutDestination {
    /// Without a name the image gets the first of `names`, in full.
    ///
    /// # Errors
    /// [`fault::Kind::Conflict`] for a directory with something else in it.
    pub fn create(dir: &Path, name: Option<&str>, names: &[Reference]) -> Result<LayoutDestination> {
        let is_layout = dir.join("oci-layout").exists();
        if !is_layout && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Fault::conflict(format!("{} is no image layout, and not empty", dir.display())));
        }
        make_dirs(&dir.join("blobs/sha256"))?;
        if !is_layout {
            write_small(&dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        let name = name.map(str::to_owned).or_else(|| names.first().map(Reference::stored_name));
        Ok(LayoutDestination { dir: dir.to_owned(), name, root: Mutex::default() })
    }

    fn path(&self, digest: &oci::Digest) -> Result<PathBuf> {
        let path = self.dir.join(blob_path(digest));
        if digest.algorithm().name() != "sha256" {
            make_dirs(path.parent().unwrap_or(&path))?;
        }
        Ok(path)
    }

    fn write_small(&self, raw: &Raw) -> Result<()> {
        write_small(&self.path(&raw.digest)?, &raw.bytes)
    }
}

impl Destination for LayoutDestination {
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        // Complete since it has its name; who reads it computes its digest.
        Ok(has_size(&self.dir.join(blob_path(&blob.digest)), blob.size))
    }

    fn put(&self, blob: &Descriptor, source: &dyn Source, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let mut file = Pending::new(&self.path(&blob.digest)?)?;
        pass(blob, source, progress, |piece| file.write(piece))?;
        file.commit()
    }

    fn put_manifest(&self, raw: &Raw, place: Place<'_>) -> Result<()> {
        self.write_small(raw)?;
        if let Place::Root { .. } = place {
            let entry = entry_of(raw, self.name.as_deref(), None);
            crate::lock(&self.root).replace(entry);
        }
        Ok(())
    }

    /// Under a lock that other processes of this project take too: two copies into one layout are both listed.
    fn finish(&self) -> Result<()> {
        let Some(entry) = crate::lock(&self.root).take() else { return Ok(()) };
        let _lock = store::Lock::exclusive(&self.dir.join("blobs"))?;
        let path = self.dir.join("index.json");
        let mut index = read_index(&path)?;
        let malformed = || Fault::failed(format!("{} is not an image index", path.display()));
        let entries =
            index.as_object_mut().ok_or_else(malformed)?.entry("manifests").or_insert_with(|| json!([]));
        let entries = entries.as_array_mut().ok_or_else(malformed)?;
        let name = |entry: &Value| entry["annotations"][ANNOTATION_REF_NAME].as_str().map(str::to_owned);
        let own = name(&entry);
        entries.retain(|other| match (&own, name(other)) {
            (Some(own), Some(other)) => *own != other,
            // The same without a name is the same.
            (_, None) => other["digest"] != entry["digest"],
            (None, Some(_)) => true,
        });
        entries.push(entry);
        write_small(&path, index.to_string().as_bytes())
    }
}

/// An entry of `index.json`.
pub fn entry_of(raw: &Raw, name: Option<&str>, containerd_name: Option<&str>) -> Value {
    let mut entry = json!({"mediaType": raw.media_type, "digest": raw.digest, "size": raw.bytes.len()});
    if let Some(name) = name {
        entry["annotations"][ANNOTATION_REF_NAME] = json!(name);
    }
    if let Some(name) = containerd_name {
        entry["annotations"][crate::archive::images::ANNOTATION_IMAGE_NAME] = json!(name);
    }
    entry
}

fn read_index(path: &Path) -> Result<Value> {
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}));
        }
        other => other.explain(|| format!("open {}", path.display()))?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_INDEX_BYTES).read_to_end(&mut bytes).explain(|| format!("read {}", path.display()))?;
    serde_json::from_slice(&bytes).explain(|| format!("{} is malformed", path.display()))
}
