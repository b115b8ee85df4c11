//! The tool as a program, on what is no image.

use oci::Digest;
use serde_json::{Value, json};
use testkit::{FakeRegistry, Place, Ran};

fn copy(place: &Place, words: &str) -> Ran {
    place.sh(&format!("{} {words}", env!("CARGO_BIN_EXE_img-copy")))
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An artifact as `oras push` makes one: an empty configuration (image spec, manifest.md, "Guidance for an Empty Descriptor"), a file.
fn artifact(kind: &str, config_type: &str) -> String {
    json!({"schemaVersion": 2, "mediaType": MANIFEST, "artifactType": kind,
        "config": {"mediaType": config_type, "digest": Digest::of(b"{}"), "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": Digest::of(b"a note"), "size": 6}],
        "annotations": {"org.opencontainers.image.created": "2026-01-02T03:04:05Z"}})
    .to_string()
}

#[test]
fn an_artifact_alone_goes_everywhere_as_it_is() {
    let (from, to, place) = (FakeRegistry::start(), FakeRegistry::start(), Place::new());
    from.put_blob(b"{}");
    from.put_blob(b"a note");
    let manifest = artifact("application/vnd.example.note", "application/vnd.oci.empty.v1+json");
    let digest = from.put_manifest("team/note", "1", MANIFEST, manifest.as_bytes());
    let source = format!("docker://{}/team/note:1", from.address());

    let record = copy(&place, &format!("{source} docker://{}/notes/one:1", to.address())).expect(0).json();
    assert_eq!((&record["copied"]["digest"], &record["copied"]["blobs"]), (&json!(digest), &json!(2)));
    assert_eq!(to.manifest_bytes("notes/one", "1"), manifest.as_bytes());
    assert_eq!(to.blob("notes/one", &Digest::of(b"a note")).unwrap(), b"a note");

    let layout = place.path().join("layout");
    copy(&place, &format!("{source} oci:{}:note", layout.display())).expect(0);
    let index: Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], json!(digest));
    let hex = Digest::of(b"a note").hex().to_owned();
    assert_eq!(std::fs::read(layout.join("blobs/sha256").join(&hex)).unwrap(), b"a note");

    // The store has it under its name, and hands it on.
    copy(&place, &format!("{source} store:note:1")).expect(0);
    assert_eq!(std::fs::read(place.root().join("blobs/sha256").join(&hex)).unwrap(), b"a note");
    let again = copy(&place, &format!("store:note:1 docker://{}/notes/two:1", to.address())).expect(0).json();
    assert_eq!(again["copied"]["digest"], json!(digest));
    assert_eq!(to.manifest_bytes("notes/two", "1"), manifest.as_bytes());
    // Out of a layout as well, whole or not at all.
    std::fs::remove_file(layout.join("blobs/sha256").join(&hex)).unwrap();
    let place = Place::new();
    assert_ne!(copy(&place, &format!("oci:{}:note store:note:1", layout.display())).status, 0);
    assert!(!place.root().join("index.json").exists());
}

/// What has an image's configuration is an image, and a broken one is not taken for an artifact.
#[test]
fn a_broken_image_is_no_artifact() {
    let (from, place) = (FakeRegistry::start(), Place::new());
    from.put_blob(b"{}");
    from.put_blob(b"a note");
    let manifest = artifact("application/vnd.example.note", "application/vnd.oci.image.config.v1+json");
    from.put_manifest("team/note", "1", MANIFEST, manifest.as_bytes());
    let ran = copy(&place, &format!("docker://{}/team/note:1 store:note:1", from.address())).expect(3);
    assert!(!place.root().join("index.json").exists(), "{}", ran.stderr);
}
