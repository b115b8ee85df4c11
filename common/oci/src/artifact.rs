//! Manifests of any kind: images and indexes, but also charts, signatures, attestations, which look like images and are
//! none. For those who carry manifests from place to place without unpacking what they describe.
//!
//! OCI image spec v1.1 (`manifest.md`, "Guidelines for Artifact Usage"; `image-index.md`).

use crate::Descriptor;
use crate::digest::shorten;
use crate::manifest::{MAX_INDEX_ENTRIES, MAX_MANIFEST_BYTES, media_type};
use fault::{Explain, Fault, Kind, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// Far above what artifacts consist of.
const MAX_BLOBS: usize = 10_000;

/// A manifest or an index as a list of what it points to.
#[derive(Clone, Debug)]
pub struct Artifact {
    pub media_type: String,
    /// What sort of thing it is: what it says itself, else the media type of its config. `None` for most indexes.
    pub artifact_type: Option<String>,
    /// Config and layers of a manifest, in that order. Blobs of the same repository.
    pub blobs: Vec<Descriptor>,
    /// What an index lists. Manifests of the same repository.
    pub manifests: Vec<Descriptor>,
    /// The manifest this one is about, which need not be there.
    pub subject: Option<Descriptor>,
    pub annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    schema_version: u64,
    #[serde(default)]
    media_type: Option<String>,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    /// What layers are called in the artifact manifest that version 1.1 had for a while.
    #[serde(default)]
    blobs: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Artifact {
    /// Reads a document of at most [`MAX_MANIFEST_BYTES`]. As [`crate::Document::parse`] it has to be one thing only, and
    /// what `claimed` says it is.
    ///
    /// # Errors
    /// [`Kind::Input`].
    pub fn parse(bytes: &[u8], claimed: Option<&str>) -> Result<Artifact> {
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(Fault::input(format!("the manifest is larger than {MAX_MANIFEST_BYTES} bytes")));
        }
        let members: Members =
            serde_json::from_slice(bytes).explain_as(Kind::Input, || "malformed manifest".into())?;
        if members.schema_version != 2 {
            let version = members.schema_version;
            return Err(Fault::input(format!("unsupported manifest schema version {version}")));
        }
        let claimed = claimed.map(|text| text.split(';').next().unwrap_or_default().trim());
        let claimed = claimed.filter(|text| media_type::ACCEPTED.contains(text));
        let own = members.media_type.as_deref().filter(|text| !text.is_empty());
        if let (Some(own), Some(claimed)) = (own, claimed)
            && own != claimed
        {
            return Err(Fault::input(format!(
                "the manifest says it is {} but was handed over as {}",
                shorten(own),
                shorten(claimed)
            )));
        }
        let is_manifest = members.config.is_some() || members.layers.is_some() || members.blobs.is_some();
        let usual = match (is_manifest, members.manifests.is_some()) {
            (true, false) => media_type::OCI_MANIFEST,
            (false, true) => media_type::OCI_INDEX,
            (true, true) => {
                return Err(Fault::input("malformed manifest: it is a manifest and an index at once"));
            }
            (false, false) => {
                return Err(Fault::input("malformed manifest: neither \"layers\" nor \"manifests\""));
            }
        };
        let media_type = own.or(claimed).unwrap_or(usual).to_owned();
        let known_as_index = matches!(media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_LIST);
        let known_as_manifest =
            matches!(media_type.as_str(), media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST);
        if (is_manifest && known_as_index) || (!is_manifest && known_as_manifest) {
            return Err(Fault::input(format!("malformed manifest: it is not {}", shorten(&media_type))));
        }
        let config_type = members.config.as_ref().map(|config| config.media_type.clone());
        let blobs: Vec<Descriptor> = members
            .config
            .into_iter()
            .chain(members.layers.unwrap_or_default())
            .chain(members.blobs.unwrap_or_default())
            .collect();
        let manifests = members.manifests.unwrap_or_default();
        if blobs.len() > MAX_BLOBS || manifests.len() > MAX_INDEX_ENTRIES {
            return Err(Fault::input("the manifest lists more than there can be"));
        }
        let total = blobs.iter().try_fold(0u64, |sum, blob| sum.checked_add(blob.size));
        if total.is_none_or(|total| i64::try_from(total).is_err()) {
            return Err(Fault::input("the sizes of the blobs add up to more than there can be"));
        }
        Ok(Artifact {
            media_type,
            artifact_type: members.artifact_type.or(config_type).filter(|text| !text.is_empty()),
            blobs,
            manifests,
            subject: members.subject,
            annotations: members.annotations.unwrap_or_default(),
        })
    }

    pub fn is_index(&self) -> bool {
        matches!(self.media_type.as_str(), media_type::OCI_INDEX | media_type::DOCKER_LIST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use serde_json::{Value, json};

    fn descriptor(media_type: &str, size: u64) -> Value {
        json!({"mediaType": media_type, "digest": Digest::of(b"x"), "size": size})
    }

    fn parse(value: &Value, claimed: Option<&str>) -> Result<Artifact> {
        Artifact::parse(value.to_string().as_bytes(), claimed)
    }

    #[test]
    fn what_is_no_image_is_read_too() {
        let signature = json!({"schemaVersion": 2, "config": descriptor("application/vnd.oci.empty.v1+json", 2),
            "artifactType": "application/vnd.example.sig", "layers": [descriptor("text/plain", 5)],
            "subject": descriptor(media_type::OCI_MANIFEST, 7), "annotations": {"a": "b"}});
        let artifact = parse(&signature, Some(media_type::OCI_MANIFEST)).unwrap();
        assert_eq!(artifact.artifact_type.as_deref(), Some("application/vnd.example.sig"));
        assert_eq!(artifact.blobs.iter().map(|blob| blob.size).collect::<Vec<_>>(), [2, 5]);
        assert_eq!((artifact.subject.map(|s| s.size), artifact.annotations["a"].as_str()), (Some(7), "b"));
        let chart = json!({"schemaVersion": 2, "config": descriptor("application/vnd.cncf.helm.config.v1+json", 2),
            "layers": []});
        assert_eq!(
            parse(&chart, None).unwrap().artifact_type.as_deref(),
            Some("application/vnd.cncf.helm.config.v1+json")
        );
        let index = json!({"schemaVersion": 2, "manifests": [descriptor(media_type::OCI_MANIFEST, 7)]});
        let index = parse(&index, None).unwrap();
        assert!(index.is_index() && index.blobs.is_empty() && index.manifests.len() == 1);
    }

    #[test]
    fn what_is_two_things_or_none_is_refused() {
        let manifest = |members: Value| {
            let mut value = json!({"schemaVersion": 2});
            value.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
            value
        };
        let image = json!({"config": descriptor(media_type::OCI_CONFIG, 1), "layers": []});
        let many: Vec<Value> = (0..=MAX_BLOBS).map(|_| descriptor("x", 1)).collect();
        for (value, claimed) in [
            (manifest(json!({})), None),
            (manifest(json!({"layers": [], "manifests": []})), None),
            (manifest(json!({"layers": [], "mediaType": media_type::OCI_INDEX})), None),
            (manifest(json!({"manifests": [], "mediaType": media_type::OCI_MANIFEST})), None),
            (manifest(json!({"manifests": []})), Some(media_type::OCI_MANIFEST)),
            (
                manifest(json!({"layers": [], "mediaType": media_type::OCI_MANIFEST})),
                Some(media_type::DOCKER_LIST),
            ),
            (manifest(json!({"layers": [{"digest": "sha256:../x", "size": 1}]})), None),
            (manifest(json!({"layers": [descriptor("x", u64::MAX), descriptor("x", 1)]})), None),
            (manifest(json!({"layers": many})), None),
            (json!({"schemaVersion": 1, "layers": []}), None),
            (json!([]), None),
        ] {
            assert_eq!(parse(&value, claimed).unwrap_err().kind(), Kind::Input, "{:.200}", value.to_string());
        }
        parse(&manifest(image), Some("application/json")).unwrap();
    }
}
