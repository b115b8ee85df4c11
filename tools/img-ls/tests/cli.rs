//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, retag, tar};
use std::process::Command;
use testkit::{Place, Ran};

fn ls(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-ls"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn lists_what_is_wanted() {
    let place = Place::new();
    assert_eq!(ls(&place, &[]).expect(0).stdout, "");
    put(&place, "debian:12", &[tar(&[("a", b"")])]);
    put(&place, "ghcr.io/team/app:1", &[tar(&[("b", b"")])]);
    retag(&place, "debian:12", "debian:stable");
    let digest = put(&place, "lost", &[tar(&[("c", b"")])]);
    // Another image takes the name.
    put(&place, "lost", &[tar(&[("d", b"")])]);
    for (arguments, wanted) in [
        (&[][..], 5),
        (&["debian"], 2),
        (&["debian:12"], 1),
        (&["docker.io/library/debian:12"], 1),
        (&["deb*"], 2),
        (&["*/team/*"], 1),
        (&["app"], 0),
        (&["--filter", "reference=*/*/app"], 1),
        (&["--filter", "reference=debian:*"], 2),
        (&["--filter", "dangling=true"], 1),
        (&["--filter", "dangling=false"], 4),
        (&["--filter", "label=name=lost"], 2),
        (&["--filter", "label=name=lost", "--filter", "dangling=true"], 1),
        (&["--filter", "label=other"], 0),
    ] {
        let ran = ls(&place, arguments).expect(0);
        assert_eq!(ran.stdout.lines().count(), wanted, "{arguments:?}: {}", ran.stdout);
    }
    ls(&place, &["--filter", "nonsense=1"]).expect(2);
    ls(&place, &["--filter", "dangling"]).expect(2);
    let record = ls(&place, &["--filter", "dangling=true"]).expect(0).json();
    assert_eq!(record["image"]["digest"], digest.as_str());
    assert!(record["image"]["size"].as_u64().unwrap() > 1024);
    assert_eq!(record["image"]["created"], "2026-01-02T03:04:05Z");
}

#[test]
fn tables_and_ids() {
    let place = Place::new();
    let digest = put(&place, "debian:12", &[tar(&[("a", b"")])]);
    let table = ls(&place, &["--output", "table"]).expect(0).stdout;
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split("   ").map(str::trim).collect()).collect();
    assert_eq!(lines[0][..2], ["REPOSITORY", "TAG"]);
    assert!(table.contains("debian ") && table.contains("ago") && table.contains("kB"), "{table}");
    assert!(ls(&place, &["--output", "table", "--digests"]).expect(0).stdout.contains(digest.as_str()));
    let short = ls(&place, &["-q"]).expect(0).stdout;
    let whole = ls(&place, &["-q", "--no-trunc"]).expect(0).stdout;
    assert_eq!(short.trim().len(), 12);
    assert!(whole.starts_with(&format!("sha256:{}", short.trim())));
    // One that is broken does not hide the others.
    put(&place, "broken", &[tar(&[("b", b"")])]);
    let broken = images::store(&place).find_image("broken").unwrap();
    std::fs::write(images::store(&place).blob_path(broken.digest()), b"{}").unwrap();
    let ran = ls(&place, &["-q"]).expect(0);
    assert_eq!(ran.stdout.lines().count(), 1);
}

#[test]
fn artifacts_are_listed_as_what_they_are() {
    let place = Place::new();
    put(&place, "debian:12", &[tar(&[("a", b"")])]);
    let (store, settle) = (images::store(&place), store::Settle::new());
    let (config, note) =
        (store.put_blob(b"{}", &settle).unwrap(), store.put_blob(b"a note", &settle).unwrap());
    let manifest = serde_json::json!({"schemaVersion": 2, "artifactType": "application/vnd.example.note",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": note, "size": 6}],
        "annotations": {"org.opencontainers.image.created": "2020-01-02T03:04:05Z"}})
    .to_string();
    let digest = store.put_blob(manifest.as_bytes(), &settle).unwrap();
    images::tag(&place, "note:1", &digest, manifest.len(), &config);
    let listed = ls(&place, &[]).expect(0);
    assert_eq!(listed.stderr, "");
    let last: serde_json::Value = serde_json::from_str(listed.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(last["image"]["artifact_type"], "application/vnd.example.note");
    assert_eq!(last["image"]["id"], digest.as_str());
    assert_eq!(last["image"]["size"], manifest.len() + 8);
    assert_eq!(last["image"]["created"], "2020-01-02T03:04:05Z");
    let table = ls(&place, &["--output", "table"]).expect(0).stdout;
    assert!(table.lines().any(|line| line.starts_with("note ") && line.contains(digest.short())), "{table}");
    assert_eq!(ls(&place, &["--filter", "label=name"]).expect(0).stdout.lines().count(), 1);
}
