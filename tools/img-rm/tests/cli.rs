//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{count, put, retag, store, tar};
use oci::Digest;
use serde_json::json;
use std::fs;
use std::process::Command;
use store::{LayerInfo, NewLayer, Settle};
use testkit::{Place, Ran};

fn rm(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-rm"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn layer(name: &str) -> Vec<u8> {
    tar(&[(name, name.as_bytes())])
}

/// As if img-unpack had been there.
fn unpacked(place: &Place, tar: &[u8]) -> Digest {
    let diff_id = Digest::of(tar);
    let info = LayerInfo {
        diff_id: diff_id.clone(),
        digest: diff_id.clone(),
        size: 0,
        entries: 1,
        created: "2026-01-01T00:00:00Z".into(),
        owner: NewLayer::owner(),
        unset: 0,
    };
    store(place).new_layer().unwrap().commit(&info, &Settle::new()).unwrap();
    diff_id
}

#[test]
fn the_last_name_takes_the_image_along() {
    let place = Place::new();
    put(&place, "a", &[layer("shared"), layer("a")]);
    put(&place, "b", &[layer("shared"), layer("b")]);
    retag(&place, "a", "a:two");
    for part in ["shared", "a", "b"] {
        unpacked(&place, &layer(part));
    }
    let record = rm(&place, &["a"]).expect(0).json();
    assert_eq!(record["removed"], json!({"names": ["docker.io/library/a:latest"], "deleted": false}));
    assert_eq!((count(&place, "layers"), count(&place, "blobs/sha256")), (3, 7));
    let record = rm(&place, &["a:two"]).expect(0).json();
    assert_eq!(record["removed"]["deleted"], true);
    assert_eq!((count(&place, "layers"), count(&place, "blobs/sha256"), count(&place, "tmp")), (2, 4, 0));
    assert!(store(&place).has_layer(&Digest::of(&layer("shared"))));
    rm(&place, &["a"]).expect(4);
    rm(&place, &["-f", "a"]).expect(0);
    rm(&place, &["b"]).expect(0);
    assert_eq!((count(&place, "layers"), count(&place, "blobs/sha256")), (0, 0));
}

#[test]
fn by_id_only_when_that_is_clear() {
    let place = Place::new();
    let digest = put(&place, "a", &[layer("a")]);
    retag(&place, "a", "b");
    let ran = rm(&place, &[digest.short()]).expect(5);
    assert!(ran.stderr.contains("several names") && ran.stderr.contains("library/b"), "{}", ran.stderr);
    assert_eq!(rm(&place, &["--dry-run", "-f", digest.short()]).expect(0).stdout.lines().count(), 3);
    assert_eq!(store(&place).images().unwrap().len(), 2);
    rm(&place, &["-f", digest.short()]).expect(0);
    assert_eq!(store(&place).images().unwrap().len(), 0);
    assert_eq!(count(&place, "blobs/sha256"), 0);
    let digest = put(&place, "a", &[layer("a")]);
    rm(&place, &[digest.as_str()]).expect(0);
    assert_eq!(store(&place).images().unwrap().len(), 0);
}

#[test]
fn what_a_container_uses_stays() {
    let place = Place::new();
    let digest = put(&place, "a", &[layer("a")]);
    let diff_id = unpacked(&place, &layer("a"));
    let dir = store(&place).container_dir(&"c".repeat(64));
    fs::create_dir_all(&dir.bundle).unwrap();
    let rootfs = json!({"driver": "overlay", "layers": [store(&place).layer_fs(&diff_id)]});
    let record = json!({"image": {"reference": "a", "digest": digest}, "rootfs": rootfs,
        "container": {"id": dir.id, "name": "web"}});
    fs::write(dir.bundle.join("container.json"), record.to_string()).unwrap();
    let ran = rm(&place, &["a"]).expect(5);
    assert!(ran.stderr.contains("container web uses the image"), "{}", ran.stderr);
    // A second name may go at any time.
    retag(&place, "a", "b");
    rm(&place, &["b"]).expect(0);
    rm(&place, &["-f", "a"]).expect(0);
    assert!(store(&place).images().unwrap().is_empty() && store(&place).has_layer(&diff_id));
    fs::remove_dir_all(&dir.bundle).unwrap();
}

#[test]
fn records_in_and_nothing_in() {
    let place = Place::new();
    let digest = put(&place, "a", &[layer("a")]);
    let input = place.path().join("input");
    let run = |text: &str| {
        fs::write(&input, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_img-rm"));
        place.furnish(&mut command);
        Ran::of(command.stdin(fs::File::open(&input).unwrap()))
    };
    assert_eq!(run("").expect(0).stdout, "");
    run("{}").expect(3);
    let record = json!({"mine": 1, "image": {"reference": "docker.io/library/a:latest", "digest": digest}});
    assert!(run(&record.to_string()).expect(0).stdout.starts_with("{\"mine\":1,\"image\":"));
    run(&record.to_string()).expect(4);
}
