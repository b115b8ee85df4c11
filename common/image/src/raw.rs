//! Manifests and indexes as bytes with a name, and what they point to.

use fault::{Explain, Fault, Kind, Result};
use oci::manifest::{Document, MAX_INDEX_ENTRIES, MAX_MANIFEST_BYTES, check_object, media_type};
use oci::{Artifact, Descriptor, Digest};
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
        let any = any(&bytes)?;
        let claimed = claimed.map(|text| text.split(';').next().unwrap_or_default().trim());
        let own = any.media_type.as_deref().filter(|text| !text.is_empty());
        let is_index = any.manifests.is_some();
        // It would be one thing to whoever goes by the header and another to who looks inside (CVE-2021-41190).
        for media_type in [own, claimed].into_iter().flatten() {
            check_kind(media_type, is_index)?;
        }
        let media_type = own
            .or(claimed.filter(|text| text.starts_with("application/vnd.")))
            .unwrap_or(if is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST })
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

    /// Whether it is no image and no index, but what else manifests are made for (image spec, manifest.md, "Guidelines for Artifact
    /// Usage"). What has an image's configuration is an image, or a broken one.
    pub fn is_artifact(&self) -> bool {
        let Ok(artifact) = Artifact::parse(&self.bytes, Some(&self.media_type)) else { return false };
        let of_image = |config: &Descriptor| {
            matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
        };
        !artifact.is_index() && !artifact.blobs.is_empty() && !artifact.blobs.first().is_some_and(of_image)
    }

    /// As an image's manifest or index, with all that is checked about one.
    pub fn document(&self) -> Result<Document> {
        Document::parse(&self.bytes, Some(&self.media_type))
    }
}

fn check_kind(media_type: &str, is_index: bool) -> Result<()> {
    let (what, other) = match (media_type, is_index) {
        (media_type::OCI_INDEX | media_type::DOCKER_LIST, false) => ("an index", "a manifest"),
        (media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST, true) => ("a manifest", "an index"),
        _ => return Ok(()),
    };
    Err(Fault::input(format!("malformed manifest: it is said to be {what} and has the members of {other}")))
}

fn any(bytes: &[u8]) -> Result<Any> {
    if bytes.len() as u64 > MAX_MANIFEST_BYTES {
        return Err(Fault::input(format!("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")));
    }
    check_object(bytes)?;
    let any: Any = serde_json::from_slice(bytes).explain_as(Kind::Input, || "malformed manifest".into())?;
    if any.manifests.is_none() && any.layers.is_none() && any.blobs.is_none() && any.config.is_none() {
        // Docker's first schema too, which has no checkable digests.
        return Document::parse(bytes, None)
            .and(Err(Fault::input("malformed manifest: it points to nothing")));
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_is_one_thing_to_every_reader() {
        let digest = Digest::of(b"x");
        let blob = json!({"mediaType": media_type::OCI_LAYER, "digest": digest, "size": 1});
        let raw = |json: serde_json::Value, claimed: Option<&str>| {
            let bytes = json.to_string().into_bytes();
            Raw::new(bytes.clone(), Digest::of(&bytes), claimed).and_then(|raw| raw.parts())
        };
        let (manifest, index) = (json!({"config": blob, "layers": [blob]}), json!({"manifests": [blob]}));
        assert!(raw(manifest.clone(), Some(media_type::OCI_MANIFEST)).is_ok());
        assert!(raw(index.clone(), Some("application/vnd.oci.image.index.v1+json; charset=utf-8")).is_ok());
        for (json, claimed) in [
            (manifest.clone(), Some(media_type::OCI_INDEX)),
            (manifest, Some(media_type::DOCKER_LIST)),
            (index.clone(), Some(media_type::DOCKER_MANIFEST)),
            (json!({"mediaType": media_type::OCI_MANIFEST, "manifests": [blob]}), None),
            (json!({"mediaType": media_type::OCI_INDEX, "layers": [blob]}), None),
            (json!({"manifests": [blob], "layers": [blob]}), None),
            // Members in the order of a struct.
            (json!([null, null, [blob], null, null]), None),
            (json!({"config": ["", digest, 1, null, null, null], "layers": []}), None),
            (json!({"layers": [["", digest, 1, null, null, null]]}), None),
        ] {
            assert_eq!(raw(json.clone(), claimed).unwrap_err().kind(), Kind::Input, "{json}");
        }
    }
}
