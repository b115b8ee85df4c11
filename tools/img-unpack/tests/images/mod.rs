//! Images made by hand in a place's store. Shared by the tests of the img- tools.
#![allow(dead_code)]

use oci::manifest::media_type::{OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use oci::{Digest, Platform, Reference};
use serde_json::json;
use store::{NewEntry, Settle, Store};
use testkit::Place;

pub fn store(place: &Place) -> Store {
    Store::at(place.root(), place.run())
}

/// A tar with these files; names that end in a slash are directories.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, data) in files {
        let mut header = tar::Header::new_gnu();
        // Not set_path, which has opinions about names.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(if name.ends_with('/') {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(0o755);
        header.set_size(data.len() as u64);
        header.set_mtime(1);
        header.set_cksum();
        builder.append(&header, *data).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Stores an image under a name and returns its digest.
pub fn put(place: &Place, name: &str, layers: &[Vec<u8>]) -> Digest {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    put_with(place, name, layers, &diff_ids)
}

/// The same with diff ids that need not be right.
pub fn put_with(place: &Place, name: &str, layers: &[Vec<u8>], diff_ids: &[Digest]) -> Digest {
    let store = store(place);
    let settle = Settle::new();
    let config = json!({"os": "linux", "architecture": Platform::host().architecture, "created": "2026-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Labels": {"name": name}}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = config.to_string();
    let config_digest = store.put_blob(config.as_bytes(), &settle).unwrap();
    let descriptors: Vec<_> = layers
        .iter()
        .map(|layer| {
            let digest = store.put_blob(layer, &settle).unwrap();
            json!({"mediaType": OCI_LAYER, "digest": digest, "size": layer.len()})
        })
        .collect();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": descriptors,
        "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": config.len()}});
    let manifest = manifest.to_string();
    let digest = store.put_blob(manifest.as_bytes(), &settle).unwrap();
    tag(place, name, &digest, manifest.len(), &config_digest);
    digest
}

pub fn tag(place: &Place, name: &str, digest: &Digest, size: usize, config: &Digest) {
    let entry = NewEntry {
        reference: &Reference::parse(name).unwrap(),
        media_type: OCI_MANIFEST,
        digest,
        size: size as u64,
        platform: None,
        index_digest: None,
        config_digest: config,
    };
    assert!(store(place).put_reference(&entry, &[digest]).unwrap().is_empty());
}

/// Gives an image a second name.
pub fn retag(place: &Place, old: &str, new: &str) {
    let entry = store(place).find_image(old).unwrap();
    let config = entry.config_digest().unwrap();
    tag(place, new, entry.digest(), entry.descriptor.size as usize, &config);
}

/// Unfinished work and unpacked layers.
pub fn count(place: &Place, folder: &str) -> usize {
    std::fs::read_dir(place.root().join(folder)).map_or(0, Iterator::count)
}
