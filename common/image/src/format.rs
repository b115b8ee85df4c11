//! The two dialects of manifests: OCI's and docker's. Content is the same, names of types differ, and with them the digest.

use crate::{Parts, Raw};
use fault::{Explain, Fault, Kind, Result};
use oci::Digest;
pub use oci::Format;
use serde_json::{Value, json};
use std::collections::HashMap;

/// Documents from one dialect to the other.
pub trait Convert {
    /// The document in this dialect; unchanged, to the byte, if it is already. `children` tells what manifests of an index
    /// have become.
    ///
    /// # Errors
    /// [`Kind::Input`] for what docker's dialect cannot say.
    fn convert(self, raw: &Raw, children: &HashMap<Digest, Raw>) -> Result<Raw>;
}

impl Convert for Format {
    fn convert(self, raw: &Raw, children: &HashMap<Digest, Raw>) -> Result<Raw> {
        let mut json: Value =
            serde_json::from_slice(&raw.bytes).explain_as(Kind::Input, || "malformed manifest".into())?;
        let before = json.clone();
        let is_index = matches!(raw.parts()?, Parts::Index(_));
        if self == Format::Docker {
            refuse_oci_only(&json)?;
        }
        let media_type = self.translate(&raw.media_type).to_owned();
        json["mediaType"] = json!(media_type);
        let members = if is_index { &["manifests"][..] } else { &["config", "layers"][..] };
        for member in members {
            match json.get_mut(*member) {
                Some(Value::Array(descriptors)) => {
                    for descriptor in descriptors {
                        descriptor_in(self, descriptor, children);
                    }
                }
                Some(descriptor @ Value::Object(_)) => descriptor_in(self, descriptor, children),
                _ => {}
            }
        }
        let had_type = before.get("mediaType").is_some();
        if !had_type && media_type == raw.media_type {
            // OCI documents need not say what they are.
            json.as_object_mut().map(|object| object.shift_remove("mediaType"));
        }
        if json == before {
            return Ok(raw.clone());
        }
        let bytes = json.to_string().into_bytes();
        Ok(Raw { digest: Digest::of(&bytes), bytes, media_type })
    }
}

fn descriptor_in(format: Format, descriptor: &mut Value, children: &HashMap<Digest, Raw>) {
    let media_type = descriptor.get("mediaType").and_then(Value::as_str).unwrap_or_default();
    descriptor["mediaType"] = json!(format.translate(media_type));
    let digest = descriptor.get("digest").and_then(Value::as_str).and_then(|text| Digest::parse(text).ok());
    if let Some(child) = digest.and_then(|digest| children.get(&digest)) {
        descriptor["mediaType"] = json!(child.media_type);
        descriptor["digest"] = json!(child.digest);
        descriptor["size"] = json!(child.bytes.len());
    }
}

/// Docker's manifests have no annotations and point to nothing but images (manifest version 2, schema 2).
fn refuse_oci_only(json: &Value) -> Result<()> {
    for member in ["annotations", "subject", "artifactType"] {
        if json.get(member).is_some_and(|value| !value.is_null()) {
            return Err(Fault::input(format!("docker's format has no place for \"{member}\""))
                .hint("keep the OCI format"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::manifest::media_type as t;

    fn raw(json: &Value) -> Raw {
        let bytes = json.to_string().into_bytes();
        Raw::new(bytes.clone(), Digest::of(&bytes), None).unwrap()
    }

    #[test]
    fn there_and_back_is_the_same() {
        let digest = Digest::of(b"x");
        let docker = raw(&json!({"schemaVersion": 2, "mediaType": t::DOCKER_MANIFEST,
            "config": {"mediaType": t::DOCKER_CONFIG, "digest": digest, "size": 1},
            "layers": [{"mediaType": t::DOCKER_LAYER_GZIP, "digest": digest, "size": 1}]}));
        let none = HashMap::new();
        let oci = Format::Oci.convert(&docker, &none).unwrap();
        assert_eq!(oci.media_type, t::OCI_MANIFEST);
        assert!(!String::from_utf8_lossy(&oci.bytes).contains("docker"));
        assert_eq!(Format::Docker.convert(&oci, &none).unwrap().digest, docker.digest);
        assert_eq!(Format::Oci.convert(&oci, &none).unwrap().digest, oci.digest);
        let index = raw(&json!({"schemaVersion": 2, "mediaType": t::DOCKER_LIST, "manifests": [
            {"mediaType": t::DOCKER_MANIFEST, "digest": docker.digest, "size": docker.bytes.len(), "platform": {"os": "linux"}}]}));
        let children = HashMap::from([(docker.digest.clone(), oci.clone())]);
        let index = Format::Oci.convert(&index, &children).unwrap();
        let Parts::Index(entries) = index.parts().unwrap() else { panic!("not an index") };
        assert_eq!((&entries[0].digest, entries[0].size), (&oci.digest, oci.bytes.len() as u64));
        // One that does not say what it is stays so.
        let bare = raw(
            &json!({"schemaVersion": 2, "config": {"mediaType": t::OCI_CONFIG, "digest": digest, "size": 1}, "layers": []}),
        );
        assert_eq!(Format::Oci.convert(&bare, &none).unwrap().digest, bare.digest);
        let annotated = raw(
            &json!({"schemaVersion": 2, "config": {"mediaType": t::OCI_CONFIG, "digest": digest, "size": 1}, "layers": [],
            "annotations": {"a": "b"}}),
        );
        assert_eq!(Format::Docker.convert(&annotated, &none).unwrap_err().kind(), Kind::Input);
    }
}
