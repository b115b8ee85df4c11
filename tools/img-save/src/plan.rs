//! What an archive holds: pure but for reading manifests.
//!
//! An OCI image layout (image-layout.md) with the member `manifest.json` of a docker archive, as `docker save` has
//! written since version 25: its paths are those of the layout's blobs.

use cli::{Fault, Result};
use image::archive::images::ANNOTATION_IMAGE_NAME;
use image::archive::{blob_path, write::docker_entry};
use oci::manifest::{ANNOTATION_REF_NAME, Document, Manifest};
use oci::{Descriptor, Digest, Platform, Reference};
use record::Image;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use store::{Entry, Settle, Store, Subject};

pub struct Saved {
    pub image: Image,
    /// Digest of the configuration.
    pub id: Digest,
}

#[derive(Default)]
pub struct Plan {
    images: Vec<Saved>,
    index: Vec<Value>,
    /// Docker's, one for each configuration, with all names.
    manifests: Vec<DockerImage>,
    /// In the order in which a reader of a stream wants them: manifests and configurations before layers.
    small: Vec<(Digest, u64)>,
    layers: Vec<(Digest, u64)>,
}

struct DockerImage {
    config: Digest,
    layers: Vec<Digest>,
    tags: Vec<String>,
}

impl Plan {
    /// # Errors
    /// When the image or one of its blobs is not there, or a manifest contradicts another about a size.
    pub fn add(&mut self, store: &Store, subject: &Subject, settle: &Settle) -> Result<()> {
        let entry = store.find_subject(subject)?;
        let name = entry.name().unwrap_or(entry.digest().as_str()).to_owned();
        let details = store.image_details(&entry)?;
        let (descriptor, manifest) = manifest_of(store, &entry).map_err(|fault| fault.on(&name))?;
        for (blob, is_layer) in [(&descriptor, false), (&manifest.config, false)]
            .into_iter()
            .chain(manifest.layers.iter().map(|layer| (layer, true)))
        {
            if !store.has_blob(&blob.digest, Some(blob.size), settle)? {
                return Err(Fault::not_found(format!("blob {} is not there", blob.digest))
                    .on(&name)
                    .hint(format!("img-pull {name}")));
            }
            let list = if is_layer { &mut self.layers } else { &mut self.small };
            if !list.iter().any(|(digest, _)| *digest == blob.digest) {
                list.push((blob.digest.clone(), blob.size));
            }
        }
        self.list(&entry, &descriptor, &manifest);
        self.images.push(Saved { image: details.image, id: details.id });
        Ok(())
    }

    fn list(&mut self, entry: &Entry, descriptor: &Descriptor, manifest: &Manifest) {
        let mut annotations: BTreeMap<&str, &str> = BTreeMap::new();
        if let Some(name) = entry.name() {
            annotations.insert(ANNOTATION_REF_NAME, name);
            if entry.reference().is_some() {
                annotations.insert(ANNOTATION_IMAGE_NAME, name);
            }
        }
        let mut listed =
            json!({"mediaType": manifest.media_type, "digest": descriptor.digest, "size": descriptor.size});
        if let Some(platform) = &descriptor.platform {
            listed["platform"] = json!(platform);
        }
        if !annotations.is_empty() {
            listed["annotations"] = json!(annotations);
        }
        if !self.index.contains(&listed) {
            self.index.push(listed);
        }
        let layers: Vec<Digest> = manifest.layers.iter().map(|layer| layer.digest.clone()).collect();
        let config = manifest.config.digest.clone();
        let known = self.manifests.iter().position(|image| image.config == config && image.layers == layers);
        let at = known.unwrap_or_else(|| {
            self.manifests.push(DockerImage { config, layers, tags: Vec::new() });
            self.manifests.len() - 1
        });
        // A digest is no tag, and docker refuses it as one.
        let tag = entry.reference().filter(|name| name.digest().is_none()).as_ref().map(Reference::familiar);
        let tags = &mut self.manifests[at].tags;
        if let Some(tag) = tag.filter(|tag| !tags.contains(tag)) {
            tags.push(tag);
        }
    }

    /// The members that are not blobs.
    pub fn documents(&self) -> [(&'static str, String); 3] {
        let index = json!({
            "schemaVersion": 2, "mediaType": oci::manifest::media_type::OCI_INDEX, "manifests": self.index
        });
        let manifests: Vec<Value> = self
            .manifests
            .iter()
            .map(|image| docker_entry(&image.config, &image.layers, &image.tags))
            .collect();
        [
            ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}).to_string()),
            ("index.json", index.to_string()),
            ("manifest.json", Value::from(manifests).to_string()),
        ]
    }

    /// The blobs with their sizes in bytes.
    pub fn blobs(&self) -> impl Iterator<Item = &(Digest, u64)> {
        self.small.iter().chain(&self.layers)
    }

    /// Paths and sizes of all members, in their order.
    pub fn members(&self) -> Vec<(String, u64)> {
        let documents = self.documents().into_iter().map(|(path, text)| (path.to_owned(), text.len() as u64));
        documents.chain(self.blobs().map(|(digest, size)| (blob_path(digest), *size))).collect()
    }

    pub fn into_images(self) -> Vec<Saved> {
        self.images
    }
}

/// The image's own manifest: of an index another program put into the store, the one for this machine.
fn manifest_of(store: &Store, entry: &Entry) -> Result<(Descriptor, Manifest)> {
    match store.read_document(&entry.descriptor)? {
        Document::Manifest(manifest) => Ok((entry.descriptor.clone(), manifest)),
        Document::Index(index) => {
            let chosen = index.choose(&Platform::host())?;
            Ok((chosen.clone(), store.read_manifest(chosen)?))
        }
    }
}
