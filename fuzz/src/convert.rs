//! Manifests and indexes on their way from one place to another, in both dialects.
//!
//! Input: the media type it was handed over with (may be empty), a line feed, the manifest or index, the manifests it may point to.

use ::image::{Convert, Format, Parts, Raw};
use fault::Kind;
use oci::{Descriptor, Digest, Document};
use serde_json::value::RawValue;
use std::collections::HashMap;

pub fn check(data: &[u8]) {
    let Some(feed) = data.iter().position(|b| *b == b'\n') else { return };
    let claimed = std::str::from_utf8(&data[..feed]).ok().filter(|text| !text.is_empty());
    let documents = serde_json::Deserializer::from_slice(&data[feed + 1..]).into_iter::<&RawValue>();
    let mut documents = documents.map_while(Result::ok).take(8).map(|document| document.get().as_bytes());
    let Some(root) = documents.next().and_then(|bytes| raw(bytes, claimed)) else { return };
    let children: Vec<Raw> = documents.filter_map(|bytes| raw(bytes, None)).collect();
    for format in [Format::Oci, Format::Docker] {
        let mut known = HashMap::new();
        for child in &children {
            if let Some(converted) = convert(format, child, &HashMap::new()) {
                known.insert(child.digest.clone(), converted);
            }
        }
        convert(format, &root, &known);
    }
}

fn raw(bytes: &[u8], claimed: Option<&str>) -> Option<Raw> {
    match Raw::new(bytes.to_vec(), Digest::of(bytes), claimed) {
        Ok(raw) => Some(raw),
        Err(fault) => {
            assert_eq!(fault.kind(), Kind::Input, "{fault}");
            None
        }
    }
}

/// Converted it is as much a document as it was, points to the same blobs, and is not changed by being converted again.
fn convert(format: Format, raw: &Raw, known: &HashMap<Digest, Raw>) -> Option<Raw> {
    let parts = raw.parts();
    let converted = match format.convert(raw, known) {
        Ok(converted) => converted,
        Err(fault) => {
            assert_eq!(fault.kind(), Kind::Input, "{fault}");
            return None;
        }
    };
    assert_eq!(converted.digest, Digest::of(&converted.bytes));
    assert!(!format.is_other(&converted.media_type), "{}", converted.media_type);
    match (parts.expect("it was converted"), converted.parts().expect("parts of what was converted")) {
        (Parts::Manifest(before), Parts::Manifest(after)) => assert_eq!(pointers(&before), pointers(&after)),
        (Parts::Index(before), Parts::Index(after)) => {
            assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(&after) {
                match known.get(&before.digest) {
                    Some(child) => {
                        assert_eq!((&after.digest, after.size), (&child.digest, child.bytes.len() as u64));
                    }
                    None => assert_eq!((&after.digest, after.size), (&before.digest, before.size)),
                }
            }
        }
        _ => panic!("a manifest became an index"),
    }
    let twice = format.convert(&converted, &HashMap::new()).expect("it is in that dialect");
    assert_eq!(twice.digest, converted.digest);
    if let Ok(Document::Manifest(before)) = raw.document() {
        let Ok(Document::Manifest(after)) = converted.document() else { panic!("an image no longer") };
        assert_eq!(before.layers.len(), after.layers.len());
    }
    Some(converted)
}

fn pointers(blobs: &[Descriptor]) -> Vec<(&Digest, u64)> {
    blobs.iter().map(|blob| (&blob.digest, blob.size)).collect()
}
