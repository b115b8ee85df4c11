//! The real program against a registry that misbehaves, and against a real one.

use oci::Digest;
use oci::manifest::media_type;
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use testkit::{Behaviour, DockerRegistry, FakeRegistry, Place, Ran};

fn command(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command(env!("CARGO_BIN_EXE_reg-ls"));
    command.env("REGISTRY_AUTH_FILE", place.path().join("auth.json")).args(["--timeout", "20"]).args(words);
    command
}

fn ls(place: &Place, words: &[&str]) -> Ran {
    Ran::of(&mut command(place, words))
}

fn ls_records(place: &Place, words: &[&str], records: &str) -> Ran {
    std::fs::write(place.path().join("in"), records).unwrap();
    let stdin = std::fs::File::open(place.path().join("in")).unwrap();
    Ran::of(command(place, words).stdin(Stdio::from(stdin)))
}

fn records(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn repositories_tags_and_digests() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let address = registry.address();
    let one = registry.put_image("team/app", "v1", &[b"one"]);
    let two = registry.put_image("team/app", "v2", &[b"two"]);
    registry.put_image("base", "latest", &[b"x"]);
    registry.page(1);
    let listed = ls(&place, &[&address]).expect(0);
    let sections: Vec<Value> = records(&listed).iter().map(|record| record["repository"].clone()).collect();
    assert_eq!(sections, ["base", "team/app"].map(|name| json!({"registry": address, "name": name})));
    // What it prints it also reads.
    let tags = ls_records(&place, &["-q"], &listed.stdout).expect(0).stdout;
    assert_eq!(tags, format!("{address}/base:latest\n{address}/team/app:v1\n{address}/team/app:v2\n"));
    let repository = format!("{address}/team/app");
    let tags = ls(&place, &[&repository]).expect(0);
    assert_eq!(records(&tags)[0]["image"], json!({"reference": format!("{repository}:v1"), "layers": []}));
    let digests = records(&ls(&place, &["--digests", &repository]).expect(0));
    assert_eq!(digests[0]["image"]["digest"], json!(one.manifest));
    assert_eq!(digests[1]["image"]["digest"], json!(two.manifest));
    let table = ls(&place, &["--output", "table", "--digests", &repository]).expect(0).stdout;
    assert!(table.starts_with("NAME") && table.contains(two.manifest.as_str()), "{table}");
    // Members of a record pass through.
    let image =
        json!({"mine": 1, "image": {"reference": format!("{repository}:v1"), "digest": one.manifest}});
    let ran = ls_records(&place, &[], &image.to_string()).expect(0);
    assert_eq!(records(&ran).iter().map(|record| record["mine"].clone()).collect::<Vec<_>>(), [1, 1]);
    // Nothing came, so there is nothing to list.
    assert_eq!(ls_records(&place, &[], "").expect(0).stdout, "");
}

#[test]
fn what_refers_to_an_image() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let image = registry.put_image("team/app", "v1", &[b"one"]);
    let name = format!("{}/team/app:v1", registry.address());
    assert_eq!(ls(&place, &["--referrers", &name]).expect(0).stdout, "");
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/x.sig",
        "annotations": {"by": "me\u{1b}[2J"}, "layers": [],
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2},
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": image.manifest, "size": 1}})
    .to_string();
    let digest = registry.put_manifest("team/app", "sig", media_type::OCI_MANIFEST, manifest.as_bytes());
    let found = records(&ls(&place, &["--referrers", &name]).expect(0));
    let expected = json!({"reference": format!("{}/team/app@{digest}", registry.address()), "digest": digest,
        "size": manifest.len(), "media_type": media_type::OCI_MANIFEST, "artifact_type": "application/x.sig",
        "annotations": {"by": "me\u{1b}[2J"}, "subject": image.manifest});
    assert_eq!(found[0]["referrer"], expected);
    let table = ls(&place, &["--referrers", "--output", "table", &name]).expect(0).stdout;
    assert!(table.contains("application/x.sig") && !table.contains('\u{1b}'), "{table}");
    let none = ls(&place, &["--referrers", "--artifact-type", "text/x", &name]).expect(0);
    assert_eq!(none.stdout, "");
    // A record says which image, whatever the tag stands for by now.
    registry.put_image("team/app", "v1", &[b"two"]);
    let record = json!({"image": {"reference": name, "digest": image.manifest}}).to_string();
    assert_eq!(ls_records(&place, &["--referrers", "-q"], &record).expect(0).stdout, format!("{digest}\n"));
    assert_eq!(ls(&place, &["--referrers", "-q", &name]).expect(0).stdout, "");
}

#[test]
fn what_cannot_be() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    registry.put_image("team/app", "v1", &[b"one"]);
    let repository = format!("{}/team/app", registry.address());
    ls(&place, &[&format!("{repository}:v1")]).expect(2);
    ls(&place, &["--referrers", &registry.address()]).expect(2);
    ls(&place, &["--artifact-type", "x", &repository]).expect(2);
    ls(&place, &["Not A Name"]).expect(3);
    ls(&place, &["--referrers", &format!("{repository}:nothing")]).expect(4);
    let ran = ls(&place, &[&format!("{}/team/nothing", registry.address()), &repository]).expect(4);
    assert_eq!(records(&ran).len(), 1);
    for (path, behaviour, status) in [
        ("/tags/", Behaviour::Status(401), 6),
        ("/tags/", Behaviour::Status(503), 7),
        ("/tags/", Behaviour::Body(b"{\"tags\":[\"a\\u001b\"]}".to_vec()), 3),
        ("/tags/", Behaviour::Header("Link", "<//192.0.2.1/x>; rel=\"next\"".into()), 3),
        ("/tags/", Behaviour::Body(vec![b'['; 9 << 20]), 3),
    ] {
        registry.misbehave(path, usize::MAX, behaviour.clone());
        let ran = ls(&place, &["--retry", "0", &repository]);
        assert_eq!((ran.status, ran.stdout.as_str()), (status, ""), "{behaviour:?}: {}", ran.stderr);
        registry.stop_misbehaving();
    }
}

#[test]
fn a_real_registry() {
    let Some(registry) = DockerRegistry::with_images() else { return };
    let place = Place::new();
    let names = ls(&place, &["-q", &registry.address()]).expect(0).stdout;
    assert!(names.lines().any(|name| name == format!("{}/busybox", registry.address())), "{names}");
    let tags = ls(&place, &["-q", "--digests", &format!("{}/busybox", registry.address())]).expect(0).stdout;
    assert!(tags.lines().any(|name| name.ends_with("/busybox:docker")), "{tags}");
    // One from before referrers: none.
    let image = format!("{}/busybox:1", registry.address());
    assert_eq!(ls(&place, &["--referrers", &image]).expect(0).stdout, "");
}
