//! Tags, repositories, referrers.

use crate::{client, descriptor, lines, repository};
use fault::Kind;
use oci::manifest::media_type;
use oci::{Digest, Reference};
use registry::{Client, Options, Repository};
use serde_json::json;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use testkit::{Behaviour, FakeRegistry};

#[test]
fn tags_come_in_pages() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 1);
    assert_eq!(repository.tags().unwrap_err().kind(), Kind::NotFound);
    let names: Vec<String> = (10..35).map(|number| format!("v{number}")).collect();
    for name in &names {
        registry.put_manifest("team/app", name, media_type::OCI_MANIFEST, name.as_bytes());
    }
    assert_eq!(repository.tags().unwrap(), names);
    registry.page(10);
    registry.forget_requests();
    assert_eq!(repository.tags().unwrap(), names);
    assert_eq!(lines(&registry).len(), 3, "{:?}", lines(&registry));
    registry.put_manifest("team/other", "latest", media_type::OCI_MANIFEST, b"{}");
    assert_eq!(client(0).catalog(&registry.address()).unwrap(), ["team/app", "team/other"]);
}

#[test]
fn lists_without_end_or_sense() {
    let registry = FakeRegistry::start();
    registry.put_manifest("team/app", "v1", media_type::OCI_MANIFEST, b"{}");
    let repository = repository(&registry, 0);
    // The next page is this one: what brings nothing new is the last.
    let own = "</v2/team/app/tags/list?n=1000>; rel=\"next\"";
    registry.misbehave("/tags/", usize::MAX, Behaviour::Header("Link", own.into()));
    assert_eq!(repository.tags().unwrap(), ["v1"]);
    registry.stop_misbehaving();
    for (behaviour, kind) in [
        (Behaviour::Header("Link", "<http://127.0.0.1:1/x>; rel=\"next\"".into()), Kind::Input),
        (Behaviour::Header("Link", "<file:///etc/passwd>; rel=\"next\"".into()), Kind::Input),
        (Behaviour::Body(b"{\"tags\":[\"../../x\"]}".to_vec()), Kind::Input),
        (Behaviour::Body(b"{\"tags\":[7]}".to_vec()), Kind::Input),
        (Behaviour::Body(b"<html>".to_vec()), Kind::Input),
        (Behaviour::Body(vec![b' '; 9 << 20]), Kind::Input),
        (Behaviour::BodyWithoutLength(vec![b' '; 9 << 20]), Kind::Input),
        (Behaviour::Length(1000), Kind::Retryable),
        (Behaviour::Status(401), Kind::Denied),
    ] {
        registry.misbehave("/tags/", usize::MAX, behaviour.clone());
        assert_eq!(repository.tags().unwrap_err().kind(), kind, "{behaviour:?}");
        registry.stop_misbehaving();
    }
    let many: Vec<String> = (0..600_000).map(|number| number.to_string()).collect();
    let body = json!({"tags": many}).to_string().into_bytes();
    registry.misbehave("/tags/", usize::MAX, Behaviour::Body(body));
    assert!(repository.tags().unwrap_err().to_string().contains("more than"));
    registry.stop_misbehaving();
    assert_eq!(repository.tags().unwrap(), ["v1"]);
    registry.misbehave("_catalog", 1, Behaviour::Status(404));
    assert_eq!(client(0).catalog(&registry.address()).unwrap_err().kind(), Kind::NotFound);
}

/// A new tag on each page, and always one more page.
fn endless_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut number = 0;
        for stream in listener.incoming().flatten() {
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                if line == "\r\n" {
                    number += 1;
                    let body = format!("{{\"tags\":[\"t{number}\"]}}");
                    let head = format!(
                        "Link: </v2/team/app/tags/list?last={number}>; rel=\"next\"\r\nContent-Length: {}",
                        body.len()
                    );
                    let _ =
                        (&stream).write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}").as_bytes());
                }
                line.clear();
            }
        }
    });
    address
}

#[test]
fn a_list_without_end() {
    let reference = Reference::parse(&format!("{}/team/app", endless_server())).unwrap();
    let failed = client(0).repository(&reference).tags().unwrap_err();
    assert!(failed.to_string().contains("more than 5000 pages"), "{failed}");
}

#[test]
fn referrers_from_the_registry_and_from_the_tag() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 0);
    let image = registry.put_image("team/app", "v1", &[b"x"]);
    let subject = json!({"mediaType": media_type::OCI_MANIFEST, "digest": image.manifest, "size": 1});
    let attach = |kind: &str| {
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": kind,
            "subject": subject, "annotations": {"of": kind}, "layers": [],
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2}});
        let bytes = manifest.to_string();
        registry.put_manifest("team/app", "x", media_type::OCI_MANIFEST, bytes.as_bytes());
        (Digest::of(bytes.as_bytes()), bytes.len() as u64)
    };
    assert!(repository.referrers(&image.manifest, None).unwrap().is_empty());
    let (signature, size) = attach("application/vnd.example.sig");
    attach("application/vnd.example.sbom+json");
    let found = repository.referrers(&image.manifest, Some("application/vnd.example.sig")).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0].digest, found[0].size), (&signature, size));
    assert_eq!(found[0].annotations.as_ref().unwrap()["of"], "application/vnd.example.sig");
    assert_eq!(repository.referrers(&image.manifest, None).unwrap().len(), 2);
    assert!(
        lines(&registry).iter().any(|line| line.ends_with("?artifactType=application%2Fvnd.example.sig"))
    );

    registry.know_no_referrers();
    assert!(repository.referrers(&image.manifest, None).unwrap().is_empty());
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [
        {"mediaType": media_type::OCI_MANIFEST, "digest": signature, "size": size, "artifactType": "a"},
        {"mediaType": media_type::OCI_MANIFEST, "digest": descriptor(b"y").digest, "size": 1, "artifactType": "b"}]});
    let tag = image.manifest.as_str().replace(':', "-");
    registry.put_manifest("team/app", &tag, media_type::OCI_INDEX, index.to_string().as_bytes());
    let found = repository.referrers(&image.manifest, Some("a")).unwrap();
    assert_eq!((found.len(), &found[0].digest), (1, &signature));
    registry.put_manifest("team/app", &tag, media_type::OCI_INDEX, b"{\"schemaVersion\":2}");
    assert_eq!(repository.referrers(&image.manifest, None).unwrap_err().kind(), Kind::Input);
}

fn about(subject: &Digest, note: &str) -> String {
    let empty =
        json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": Digest::of(b"{}"), "size": 2});
    json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST, "artifactType": "application/vnd.example.note",
        "config": empty, "layers": [empty], "annotations": {"note": note},
        "subject": {"mediaType": media_type::OCI_MANIFEST, "digest": subject, "size": 1}})
    .to_string()
}

fn digests(repository: &Repository, subject: &Digest) -> Vec<Digest> {
    let mut found: Vec<Digest> =
        repository.referrers(subject, None).unwrap().into_iter().map(|referrer| referrer.digest).collect();
    found.sort();
    found
}

#[test]
fn who_attaches_to_a_registry_without_referrers_keeps_the_list() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 0);
    let image = registry.put_image("team/app", "v1", &[b"x"]).manifest;
    let tag = image.as_str().replace(':', "-");
    let put = |note: &str| {
        let bytes = about(&image, note);
        let digest = Digest::of(bytes.as_bytes());
        repository.put_manifest(bytes.as_bytes(), media_type::OCI_MANIFEST, digest.as_str()).unwrap();
        digest
    };
    // The registry's own list is enough.
    put("zero");
    assert!(registry.manifest_bytes("team/app", &tag).is_empty());
    registry.know_no_referrers();
    let one = put("one");
    let found = repository.referrers(&image, None).unwrap();
    assert_eq!((found.len(), &found[0].digest, found[0].size), (1, &one, about(&image, "one").len() as u64));
    assert_eq!(found[0].artifact_type.as_deref(), Some("application/vnd.example.note"));
    assert_eq!(found[0].annotations.as_ref().unwrap()["note"], "one");
    // What others wrote stays; the same again changes nothing.
    let mut index: serde_json::Value =
        serde_json::from_slice(&registry.manifest_bytes("team/app", &tag)).unwrap();
    index["annotations"] = json!({"of": "others"});
    index["manifests"][0]["unknown"] = json!(1);
    registry.put_manifest("team/app", &tag, media_type::OCI_INDEX, index.to_string().as_bytes());
    let two = put("two");
    put("one");
    let after: serde_json::Value =
        serde_json::from_slice(&registry.manifest_bytes("team/app", &tag)).unwrap();
    assert_eq!(
        (&after["annotations"], &after["manifests"][0]),
        (&index["annotations"], &index["manifests"][0])
    );
    let mut both = [one.clone(), two.clone()];
    both.sort();
    assert_eq!(digests(&repository, &image), both);
    // What is removed is listed no more.
    repository.delete_manifest(one.as_str()).unwrap();
    assert_eq!(digests(&repository, &image), [two]);
    // Something else in the list's place is left alone.
    registry.put_manifest("team/app", &tag, media_type::OCI_MANIFEST, about(&image, "x").as_bytes());
    let bytes = about(&image, "three");
    let failed = repository.put_manifest(bytes.as_bytes(), media_type::OCI_MANIFEST, "three").unwrap_err();
    assert_eq!(failed.kind(), Kind::Input);
    assert!(failed.to_string().contains("list it in the tag sha256-"), "{failed}");
    assert_eq!(registry.manifest_bytes("team/app", "three"), bytes.as_bytes());
}

#[test]
fn several_that_attach_at_once_are_all_listed() {
    let registry = FakeRegistry::start();
    registry.know_no_referrers();
    let image = registry.put_image("team/app", "v1", &[b"x"]).manifest;
    let mut all: Vec<Digest> = std::thread::scope(|scope| {
        let one = |number: u32| {
            let (registry, image) = (&registry, &image);
            scope.spawn(move || {
                let bytes = about(image, &number.to_string());
                let digest = Digest::of(bytes.as_bytes());
                let stored = repository(registry, 2).put_manifest(
                    bytes.as_bytes(),
                    media_type::OCI_MANIFEST,
                    digest.as_str(),
                );
                stored.unwrap().digest
            })
        };
        let threads: Vec<_> = (0..6).map(one).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    all.sort();
    assert_eq!(digests(&repository(&registry, 0), &image), all);
}

#[test]
fn a_list_that_others_keep_changing_is_given_up() {
    let registry = FakeRegistry::start();
    registry.know_no_referrers();
    let image = registry.put_image("team/app", "v1", &[b"x"]).manifest;
    let empty = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": []}).to_string();
    let tag = image.as_str().replace(':', "-");
    // However often it is put, it is not there when it is read.
    registry.put_manifest("team/app", &tag, media_type::OCI_INDEX, empty.as_bytes());
    let bytes = about(&image, "lost");
    let digest = Digest::of(bytes.as_bytes());
    let stop = std::sync::atomic::AtomicBool::new(false);
    let failed = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                registry.put_manifest("team/app", &tag, media_type::OCI_INDEX, empty.as_bytes());
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let stored = repository(&registry, 0).put_manifest(
            bytes.as_bytes(),
            media_type::OCI_MANIFEST,
            digest.as_str(),
        );
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        stored.unwrap_err()
    });
    assert_eq!(failed.kind(), Kind::Conflict);
    assert!(failed.hint_text().is_some_and(|hint| !hint.is_empty()), "{failed}");
}

#[test]
fn debians_registry_has_no_referrers_and_the_tag_does_for_it() {
    let storage = tempfile::tempdir().unwrap();
    let Some(registry) = testkit::DockerRegistry::start(storage.path(), false) else { return };
    let reference = Reference::parse(&format!("{}/team/app", registry.address())).unwrap();
    let repository = Client::new(Options::default()).repository(&reference).for_writing();
    let mut source =
        |_| -> fault::Result<Box<dyn Read + Send>> { Ok(Box::new(std::io::Cursor::new(b"{}".to_vec()))) };
    repository.put_blob(&descriptor(b"{}"), None, &mut source, &mut |_| {}).unwrap();
    // What it is about need not be there.
    let image = Digest::of(b"image");
    let put = |note: &str| {
        let bytes = about(&image, note);
        let digest = Digest::of(bytes.as_bytes());
        let stored =
            repository.put_manifest(bytes.as_bytes(), media_type::OCI_MANIFEST, digest.as_str()).unwrap();
        assert_eq!(stored.subject, None);
        digest
    };
    let (one, two) = (put("one"), put("two"));
    let mut both = [one.clone(), two.clone()];
    both.sort();
    assert_eq!(digests(&repository, &image), both);
    repository.delete_manifest(one.as_str()).unwrap();
    assert_eq!(digests(&repository, &image), std::slice::from_ref(&two));
    repository.delete_manifest(two.as_str()).unwrap();
    assert!(digests(&repository, &image).is_empty());
    // Somebody removes one and leaves it in the list, which the registry does not take back so.
    let gone = put("gone");
    let what = format!("http://{}/v2/team/app/manifests/{gone}", registry.address());
    if testkit::find_program("curl").is_some() {
        let status = std::process::Command::new("curl").args(["-sfX", "DELETE", &what]).status().unwrap();
        assert!(status.success());
        let last = put("last");
        assert!(digests(&repository, &image).contains(&last));
    }
}
