//! Manifests and indexes after some of what they point to has changed. Pure.
//!
//! Only what has to change does: all other members stay as they are, in their order.

use cli::{Explain, Kind, Result};
use oci::Digest;
use oci::manifest::{Compression, media_type};
use serde_json::{Value, json};
use std::collections::HashMap;

/// A blob or manifest in the place of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    pub digest: Digest,
    pub size: u64,
    pub media_type: String,
}

/// What changed, by the digest it had.
pub type Changes = HashMap<Digest, Changed>;

/// Annotations of a layer that describe how it was packed: of no use, and wrong, for another packing.
const PACKING_ANNOTATIONS: [&str; 3] =
    ["io.github.containers.zstd-chunked.", "containerd.io/snapshot/stargz/", "io.containers.estargz."];
/// How an attestation in an index says which image it is about.
const ATTESTED: &str = "vnd.docker.reference.digest";

/// Docker's format knows no zstd; everybody expects such layers in OCI manifests only.
pub fn needs_oci(manifest_type: &str, compression: Compression) -> bool {
    manifest_type == media_type::DOCKER_MANIFEST && compression == Compression::Zstd
}

pub fn layer_type(is_docker: bool, compression: Compression) -> &'static str {
    match (is_docker, compression) {
        (false, Compression::None) => media_type::OCI_LAYER,
        (false, Compression::Gzip) => media_type::OCI_LAYER_GZIP,
        (false, Compression::Zstd) => media_type::OCI_LAYER_ZSTD,
        (true, Compression::None) => media_type::DOCKER_LAYER,
        (true, Compression::Gzip) => media_type::DOCKER_LAYER_GZIP,
        (true, Compression::Zstd) => media_type::DOCKER_LAYER_ZSTD,
    }
}

/// An image manifest with these layers changed; with `to_oci` it and all it lists get OCI's media types.
pub fn manifest(bytes: &[u8], changes: &Changes, to_oci: bool) -> Result<Vec<u8>> {
    let mut value: Value = serde_json::from_slice(bytes).explain_as(Kind::Input, malformed)?;
    if to_oci {
        value["mediaType"] = json!(media_type::OCI_MANIFEST);
        if let Some(kind) = value.pointer_mut("/config/mediaType") {
            *kind = json!(media_type::OCI_CONFIG);
        }
    }
    for layer in value.get_mut("layers").and_then(Value::as_array_mut).into_iter().flatten() {
        change(layer, changes);
        if to_oci && let Some(kind) = layer.get_mut("mediaType") {
            *kind = json!(in_oci(kind.as_str().unwrap_or_default()));
        }
    }
    Ok(value.to_string().into_bytes())
}

/// An index with these manifests changed.
pub fn index(bytes: &[u8], changes: &Changes) -> Result<(Vec<u8>, &'static str)> {
    let mut value: Value = serde_json::from_slice(bytes).explain_as(Kind::Input, malformed)?;
    let is_docker = value.get("mediaType").and_then(Value::as_str) == Some(media_type::DOCKER_LIST);
    let to_oci = changes.values().any(|changed| changed.media_type == media_type::OCI_MANIFEST);
    let kind = if is_docker && !to_oci { media_type::DOCKER_LIST } else { media_type::OCI_INDEX };
    value["mediaType"] = json!(kind);
    for entry in value.get_mut("manifests").and_then(Value::as_array_mut).into_iter().flatten() {
        change(entry, changes);
        if let Some(attested) = entry.pointer_mut(&format!("/annotations/{ATTESTED}"))
            && let Some(changed) = changed(attested, changes)
        {
            *attested = json!(changed.digest);
        }
    }
    Ok((value.to_string().into_bytes(), kind))
}

fn malformed() -> String {
    "malformed manifest".to_owned()
}

fn changed<'a>(digest: &Value, changes: &'a Changes) -> Option<&'a Changed> {
    changes.get(&Digest::parse(digest.as_str()?).ok()?)
}

fn change(descriptor: &mut Value, changes: &Changes) {
    let Some(new) = descriptor.get("digest").and_then(|digest| changed(digest, changes)) else { return };
    descriptor["digest"] = json!(new.digest);
    descriptor["size"] = json!(new.size);
    descriptor["mediaType"] = json!(new.media_type);
    let Some(members) = descriptor.as_object_mut() else { return };
    // The content itself, in place of a request for it (image spec, descriptor.md).
    members.shift_remove("data");
    if let Some(Value::Object(annotations)) = members.get_mut("annotations") {
        annotations.retain(|name, _| !PACKING_ANNOTATIONS.iter().any(|prefix| name.starts_with(prefix)));
        if annotations.is_empty() {
            members.shift_remove("annotations");
        }
    }
}

fn in_oci(layer: &str) -> &str {
    match layer {
        media_type::DOCKER_LAYER => media_type::OCI_LAYER,
        media_type::DOCKER_LAYER_GZIP => media_type::OCI_LAYER_GZIP,
        media_type::DOCKER_LAYER_ZSTD => media_type::OCI_LAYER_ZSTD,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(media_type: &str) -> Changes {
        let new = Changed { digest: Digest::of(b"new"), size: 3, media_type: media_type.to_owned() };
        Changes::from([(Digest::of(b"old"), new)])
    }

    #[test]
    fn only_what_changed_changes() {
        let old = Digest::of(b"old");
        let text = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST, "mine": 1,
            "config": {"mediaType": media_type::DOCKER_CONFIG, "digest": Digest::of(b"c"), "size": 1},
            "layers": [
                {"mediaType": media_type::DOCKER_LAYER_GZIP, "digest": Digest::of(b"kept"), "size": 4},
                {"size": 9, "digest": old, "mediaType": media_type::DOCKER_LAYER_GZIP, "data": "b2xk",
                 "annotations": {"containerd.io/snapshot/stargz/toc.digest": "x", "kept": "y"}}]});
        let text = text.to_string();
        let new = manifest(text.as_bytes(), &changes(media_type::DOCKER_LAYER), false).unwrap();
        let new = String::from_utf8(new).unwrap();
        assert!(new.contains("\"mine\":1") && new.contains("\"annotations\":{\"kept\":\"y\"}"), "{new}");
        let layer = format!("{{\"size\":3,\"digest\":\"{}\"", Digest::of(b"new"));
        assert!(new.contains(&layer) && !new.contains("b2xk"), "{new}");
        let oci = manifest(text.as_bytes(), &changes(media_type::OCI_LAYER_ZSTD), true).unwrap();
        let oci = String::from_utf8(oci).unwrap();
        assert!(!oci.contains("docker"), "{oci}");
        assert_eq!(manifest(text.as_bytes(), &Changes::new(), false).unwrap(), text.as_bytes());
    }

    #[test]
    fn an_index_follows_its_manifests() {
        let old = Digest::of(b"old");
        let text = json!({"schemaVersion": 2, "mediaType": media_type::DOCKER_LIST, "manifests": [
            {"mediaType": media_type::DOCKER_MANIFEST, "digest": old, "size": 9, "platform": {"os": "linux"}},
            {"mediaType": media_type::OCI_MANIFEST, "digest": Digest::of(b"a"), "size": 1,
             "annotations": {"vnd.docker.reference.digest": old}}]});
        let (bytes, kind) = index(text.to_string().as_bytes(), &changes(media_type::OCI_MANIFEST)).unwrap();
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!((kind, &value["mediaType"]), (media_type::OCI_INDEX, &json!(media_type::OCI_INDEX)));
        let new = json!(Digest::of(b"new"));
        assert_eq!(
            (&value["manifests"][0]["digest"], &value["manifests"][0]["platform"]["os"]),
            (&new, &json!("linux"))
        );
        assert_eq!(value["manifests"][1]["annotations"][ATTESTED], new);
        let (_, kind) = index(text.to_string().as_bytes(), &changes(media_type::DOCKER_MANIFEST)).unwrap();
        assert_eq!(kind, media_type::DOCKER_LIST);
    }
}
