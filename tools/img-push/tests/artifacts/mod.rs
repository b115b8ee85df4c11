//! What is no image: pushed as it is, and listed with what it is about.

use crate::images::{self, put, store};
use crate::{built, layers, lines, manifest, push};
use oci::Digest;
use oci::manifest::media_type;
use serde_json::json;
use store::Settle;
use testkit::{DockerRegistry, FakeRegistry, Place};

/// An artifact in the store, as other tools put it into a layout; about something if there is a subject.
fn put_artifact(place: &Place, name: &str, subject: Option<&Digest>) -> Digest {
    let (store, settle) = (store(place), Settle::new());
    let config = store.put_blob(b"{}", &settle).unwrap();
    let note = store.put_blob(b"a note", &settle).unwrap();
    let mut manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "artifactType": "application/vnd.example.note",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
        "layers": [{"mediaType": "text/plain", "digest": note, "size": 6}]});
    if let Some(digest) = subject {
        manifest["subject"] = json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": 1});
    }
    let manifest = manifest.to_string();
    let digest = store.put_blob(manifest.as_bytes(), &settle).unwrap();
    images::tag(place, name, &digest, manifest.len(), &config);
    digest
}

#[test]
fn artifacts_are_pushed_and_listed_with_what_they_are_about() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    registry.know_no_referrers();
    let to = |tag: &str| format!("{}/team/app:{tag}", registry.address());
    let image = put(&place, "app:1", &layers());
    push(&place, &["app:1", &to("1")]).expect(0);
    let alone = put_artifact(&place, "note:1", None);
    let record = push(&place, &["note:1", &to("note")]).expect(0).json();
    assert_eq!((&record["image"]["digest"], &record["image"]["layers"]), (&json!(alone), &json!([])));
    assert_eq!(registry.blob("team/app", &Digest::of(b"a note")).unwrap(), b"a note");
    let words = push(&place, &["--output", "table", "note:1", &to("again")]).expect(0).stdout;
    assert!(words.contains("1 layers, 0 B sent"), "{words}");
    // What cannot be done with one is said before anything is sent.
    registry.forget_requests();
    let ran = push(&place, &["--compression", "zstd", "note:1", &to("x")]).expect(2);
    assert!(ran.stderr.contains("it is an artifact"), "{}", ran.stderr);
    push(&place, &["--platform", "linux/amd64", "note:1", &to("x")]).expect(2);
    assert_eq!(lines(&registry), Vec::<String>::new());

    let about = put_artifact(&place, "note:2", Some(&image));
    push(&place, &["note:2", &to("about")]).expect(0);
    let list = image.as_str().replace(':', "-");
    let listed = || manifest(&registry, "team/app", &list)["manifests"].clone();
    assert_eq!(listed()[0]["digest"], json!(about));
    assert_eq!(listed()[0]["artifactType"], "application/vnd.example.note");
    // One that was cut after the manifest and before the list is made good.
    registry.put_manifest("team/app", &list, media_type::OCI_INDEX, br#"{"schemaVersion":2,"manifests":[]}"#);
    push(&place, &["note:2", &to("about")]).expect(0);
    assert_eq!(listed().as_array().unwrap().len(), 1);
    push(&place, &["note:2", &to("about")]).expect(0);
    assert_eq!(listed().as_array().unwrap().len(), 1);
}

#[test]
fn an_artifact_goes_from_a_layout_to_debians_registry() {
    let place = Place::new();
    let Some(registry) = DockerRegistry::start(&place.path().join("storage"), false) else { return };
    if !built(&["img-copy", "reg-ls"]) {
        return;
    }
    let image = put(&place, "app:1", &layers());
    let note = put_artifact(&place, "note:2", Some(&image));
    let to = format!("{}/team/app", registry.address());
    push(&place, &["app:1", &format!("{to}:1")]).expect(0);
    // The store is a layout like others.
    let name = "docker.io/library/note:2";
    place.sh(&format!("img-copy oci:$STAVES_ROOT:{name} docker://{to}:note")).expect(0);
    let ran = place.sh(&format!("reg-ls --referrers -q {to}:1")).expect(0);
    assert_eq!(ran.stdout, format!("{note}\n"));
}
