//! From an entry of the index to the `image` section of a record.

use super::Entry;
use crate::Store;
use fault::{Fault, Result};
use oci::manifest::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
use oci::{Descriptor, Digest, Document, ImageConfig, Manifest, Platform, Reference};

impl Store {
    /// The image a reference names.
    ///
    /// # Errors
    /// [`fault::Kind::NotFound`] if there is none or a part of it is gone, [`fault::Kind::Input`] if it is malformed.
    pub fn image(&self, reference: &Reference) -> Result<record::Image> {
        self.load_image(&self.find_reference(reference)?, &Platform::host())
    }

    /// Reads an image's manifest and configuration. `wanted` chooses where the entry is an index, which only other
    /// programs put here.
    pub fn load_image(&self, entry: &Entry, wanted: &Platform) -> Result<record::Image> {
        let name = entry.name().map_or_else(|| entry.digest().to_string(), str::to_owned);
        self.load(entry, wanted, &name).map_err(|fault| fault.on(name))
    }

    /// The same for those who only want to know: of an index that has none for `wanted`, its first image.
    pub(crate) fn load_any_image(&self, entry: &Entry, wanted: &Platform) -> Result<record::Image> {
        match self.load_image(entry, wanted) {
            Err(fault) if fault.kind() == fault::Kind::NotFound => {
                let Ok(Document::Index(index)) = self.read_document(&entry.descriptor) else {
                    return Err(fault);
                };
                let Some(platform) = index.first_image().and_then(|first| first.platform.as_ref()) else {
                    return Err(fault);
                };
                self.load_image(entry, platform)
            }
            other => other,
        }
    }

    fn load(&self, entry: &Entry, wanted: &Platform, name: &str) -> Result<record::Image> {
        let (digest, manifest, index_digest) = match self.read_document(&entry.descriptor)? {
            Document::Manifest(manifest) => (entry.digest().clone(), manifest, entry.index_digest()),
            Document::Index(index) => {
                let chosen = index.choose(wanted)?;
                (chosen.digest.clone(), self.read_manifest(chosen)?, Some(entry.digest().clone()))
            }
        };
        let config = self.read_config(&manifest)?;
        to_record(name, &digest, index_digest.as_ref(), &manifest, config)
    }

    /// A manifest or an index from its blob.
    pub fn read_document(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.read_blob(&descriptor.digest, MAX_MANIFEST_BYTES)?;
        if bytes.len() as u64 != descriptor.size {
            return Err(Fault::input(format!(
                "manifest {} has {} bytes where {} were announced",
                descriptor.digest,
                bytes.len(),
                descriptor.size
            )));
        }
        let media_type = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
        Document::parse(&bytes, media_type)
    }

    /// A manifest that may not be an index again.
    pub fn read_manifest(&self, descriptor: &Descriptor) -> Result<Manifest> {
        match self.read_document(descriptor)? {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(Fault::input("an index in an index is not supported")),
        }
    }

    pub fn read_config(&self, manifest: &Manifest) -> Result<ImageConfig> {
        ImageConfig::parse(&self.read_blob(&manifest.config.digest, MAX_CONFIG_BYTES)?)
    }
}

/// Checks that the parts fit together and puts them into one.
pub fn to_record(
    reference: &str,
    digest: &Digest,
    index_digest: Option<&Digest>,
    manifest: &Manifest,
    config: ImageConfig,
) -> Result<record::Image> {
    Ok(record::Image {
        reference: reference.to_owned(),
        digest: digest.to_string(),
        index_digest: index_digest.map(Digest::to_string),
        platform: Some(config.platform.to_record()),
        layers: manifest.layers_with_diff_ids(&config)?,
        config: config.json,
        ..record::Image::default()
    })
}

/// Why an image that came without a choice does not suit the platform asked for; `None` if it does.
pub fn unsuitable_platform(wanted: &Platform, config: &ImageConfig) -> Option<String> {
    // Images made by hand often do not say.
    if config.platform.architecture.is_empty() || wanted.rank(&config.platform).is_some() {
        return None;
    }
    Some(format!("the image is for {}, not for {wanted}", config.platform))
}
