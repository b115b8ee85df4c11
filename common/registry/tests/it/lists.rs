//! Tags, repositories, referrers.

use crate::{client, descriptor, lines, repository};
use fault::Kind;
use oci::manifest::media_type;
use oci::{Digest, Reference};
use serde_json::json;
use std::io::{BufRead, BufReader, Write};
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
