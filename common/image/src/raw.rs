//! Manifests and indexes as bytes with a name, and what they point to.

use fault::{Explain, Fault, Kind, Result};
use oci::manifest::{Document, MAX_INDEX_ENTRIES, MAX_MANIFEST_BYTES, media_type};
use oci::{Descriptor, Digest};
use serde::Deserialize;

/// Blobs of one artifact.
const MAX_BLOBS: usize = 2000;

/// A manifest or an index: its own bytes, because a reformatted one has another digest, and the type it goes by.
#[derive(Clone, Debug)]
pub struct Raw {
    pub bytes: Vec<u8>,
    pub digest: Digest,
    pub media_type: String,
}

/// What a document points to. Wider than [`Document`]: artifacts (signatures, charts, attestations) are copied too.
#[derive(Clone, Debug)]
pub enum Parts {
    /// Configuration and layers, or blobs.
    Manifest(Vec<Descriptor>),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Any {
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Raw {
    /// `claimed` is the media type the bytes were handed over with.
    ///
    /// # Errors
    /// [`Kind::Input`] when it is neither a manifest nor an index.
    pub fn new(bytes: Vec<u8>, digest: Digest, claimed: Option<&str>) -> Result<Raw> {
        let own = any(&bytes)?;
        let claimed = claimed.map(|text| text.split(';').next().unwrap_or_default().trim());
        let media_type = own
            .media_type
            .as_deref()
            .filter(|text| !text.is_empty())
            .or(claimed.filter(|text| text.starts_with("application/vnd.")))
            .unwrap_or(if own.manifests.is_some() { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST })
            .to_owned();
        Ok(Raw { bytes, digest, media_type })
    }

    /// What it points to, bounded in number.
    pub fn parts(&self) -> Result<Parts> {
        let any = any(&self.bytes)?;
        let is_index = any.manifests.is_some();
        if is_index && (any.layers.is_some() || any.config.is_some()) {
            return Err(Fault::input("malformed manifest: it is a manifest and an index at once"));
        }
        if let Some(manifests) = any.manifests {
            if manifests.len() > MAX_INDEX_ENTRIES {
                return Err(Fault::input(format!("the index has more than {MAX_INDEX_ENTRIES} entries")));
            }
            return Ok(Parts::Index(manifests));
        }
        let layers = any.layers.or(any.blobs).unwrap_or_default();
        if layers.len() > MAX_BLOBS {
            return Err(Fault::input(format!("the manifest has more than {MAX_BLOBS} blobs")));
        }
        Ok(Parts::Manifest(any.config.into_iter().chain(layers).collect()))
    }

    /// As an image's manifest or index, with all that is checked about one.
    pub fn document(&self) -> Result<Document> {
        Document::parse(&self.bytes, Some(&self.media_type))
    }
}

fn any(bytes: &[u8]) -> Result<Any> {
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(Fault::input(format!("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")));
    }
    let any: Any = serde_json::from_slice(bytes).explain_as(Kind::Input, || "malformed manifest".into())?;
    if any.manifests.is_none() && any.layers.is_none() && any.blobs.is_none() && any.config.is_none() {
        // Docker's first schema too, which has no checkable digests.
        return Document::parse(bytes, None)
            .and(Err(Fault::input("malformed manifest: it points to nothing")));
    }
    Ok(any)
}
