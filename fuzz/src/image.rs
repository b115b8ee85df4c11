//! Manifests, indexes and image configurations.
//!
//! Input: the media type it was handed over with (may be empty), a line feed, a manifest or index, an image
//! configuration.

use oci::manifest::{MAX_INDEX_ENTRIES, MAX_LAYERS};
use oci::spec::ImageDefaults;
use oci::{Artifact, Document, ImageConfig, Manifest, Platform};
use serde_json::value::RawValue;

pub fn check(data: &[u8]) {
    let Some(feed) = data.iter().position(|b| *b == b'\n') else { return };
    let (claimed, documents) = (std::str::from_utf8(&data[..feed]).ok(), &data[feed + 1..]);
    let mut documents = serde_json::Deserializer::from_slice(documents).into_iter::<&RawValue>();
    // What is no JSON at all is tried too.
    let first = match documents.next() {
        Some(Ok(first)) => first.get().as_bytes(),
        _ => &data[feed + 1..],
    };
    let config =
        documents.next().and_then(Result::ok).map(|second| ImageConfig::parse(second.get().as_bytes()));
    let claimed = claimed.filter(|text| !text.is_empty());
    match Artifact::parse(first, claimed) {
        Ok(artifact) => {
            assert!(artifact.manifests.is_empty() || artifact.blobs.is_empty());
            assert!(artifact.manifests.len() <= MAX_INDEX_ENTRIES);
        }
        Err(fault) => assert_eq!(fault.kind(), fault::Kind::Input, "{fault}"),
    }
    match Document::parse(first, claimed) {
        Ok(Document::Manifest(manifest)) => {
            assert!(manifest.layers.len() <= MAX_LAYERS);
            if let Some(Ok(config)) = config {
                pair(&manifest, &config);
            }
        }
        Ok(Document::Index(index)) => {
            assert!(index.manifests.len() <= MAX_INDEX_ENTRIES);
            for platform in ["linux/amd64", "linux/arm/v7", "linux/arm64", "windows/amd64"] {
                let platform = Platform::parse(platform).expect("a platform");
                if let Ok(chosen) = index.choose(&platform) {
                    assert!(index.manifests.contains(chosen));
                }
            }
        }
        Err(fault) => assert_eq!(fault.kind(), fault::Kind::Input, "{fault}"),
    }
}

fn pair(manifest: &Manifest, config: &ImageConfig) {
    if let Ok(layers) = manifest.layers_with_diff_ids(config) {
        assert_eq!(layers.len(), config.diff_ids.len());
        let total: Option<u64> = layers.iter().try_fold(0u64, |sum, layer| sum.checked_add(layer.size));
        assert!(total.is_some());
    }
    let _ = ImageDefaults::of(Some(&config.json));
}
