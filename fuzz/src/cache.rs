//! Build caches that others have put out (`--cache-from`): lists of steps, and images that have their steps in their configuration.
//!
//! Input: a manifest, a configuration.

use oci::Digest;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Of a manifest, what steps may name.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Blob>,
}

#[derive(Deserialize)]
struct Blob {
    digest: String,
    size: u64,
}

pub fn check(data: &[u8]) {
    let mut documents = serde_json::Deserializer::from_slice(data).into_iter::<&RawValue>();
    // What is no JSON at all is tried too.
    let mut next =
        || documents.next().and_then(Result::ok).map_or(data, |document| document.get().as_bytes());
    let (manifest, config) = (next(), next());
    let listed = match img_build::read_cache(manifest, config) {
        Ok(listed) => listed,
        Err(fault) => {
            return assert!(matches!(fault.kind(), fault::Kind::Input | fault::Kind::NotFound), "{fault}");
        }
    };
    let manifest: Manifest = serde_json::from_slice(manifest).expect("a manifest");
    for layer in listed.steps().values().filter_map(|step| step.layer.as_ref()) {
        assert!(Digest::parse(&layer.diff_id).is_ok(), "a layer that cannot be checked");
        let has = |blob: &Blob| blob.digest == layer.digest && blob.size == layer.size;
        assert!(manifest.layers.iter().any(has), "a layer of nowhere");
    }
    for digest in listed.chosen().values() {
        assert_eq!(Digest::parse(digest.as_str()).ok().as_ref(), Some(digest));
    }
}
