//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, retag, tar};
use oci::Digest;
use oci::manifest::media_type::{OCI_INDEX, OCI_MANIFEST};
use serde_json::json;
use std::process::Command;
use testkit::{Behaviour, FakeRegistry, Place, Ran};

fn inspect(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-inspect"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn all_there_is_to_know() {
    let place = Place::new();
    let digest = put(&place, "a", &[tar(&[("a", b"")])]);
    retag(&place, "a", "b:2");
    let record = inspect(&place, &["a"]).expect(0).json();
    let image = &record["image"];
    assert_eq!(image["names"], json!(["docker.io/library/a:latest", "docker.io/library/b:2"]));
    assert_eq!(
        (image["digest"].as_str(), image["config"]["config"]["Cmd"][0].as_str()),
        (Some(digest.as_str()), Some("sh"))
    );
    let raw = inspect(&place, &["--raw", "a"]).expect(0).stdout;
    assert_eq!(Digest::of(raw.as_bytes()), digest);
    let config = inspect(&place, &["--config", "b:2"]).expect(0).stdout;
    assert_eq!(Digest::of(config.as_bytes()).as_str(), image["id"].as_str().unwrap());
    assert_eq!(
        inspect(&place, &["-q", digest.short()]).expect(0).stdout.trim(),
        image["id"].as_str().unwrap()
    );
    assert!(inspect(&place, &["--output", "table", "a"]).expect(0).stdout.lines().count() > 10);
    let ran = inspect(&place, &["nothing", "a"]).expect(4);
    assert!(
        ran.stderr.contains("nothing: no such image") && ran.stdout.lines().count() == 1,
        "{}",
        ran.stderr
    );
}

#[test]
fn an_image_elsewhere_is_told_of_without_a_pull() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let pushed = registry.put_image("team/app", "v1", &[&tar(&[("a", b"a")])]);
    let bytes = registry.manifest_bytes("team/app", "v1");
    let host = json!({"os": "linux", "architecture": "amd64"});
    let entry = json!({"mediaType": OCI_MANIFEST, "digest": pushed.manifest, "size": bytes.len(), "platform": host, "annotations": {"k": "v"}});
    let other = json!({"mediaType": OCI_MANIFEST, "digest": Digest::of(b"none"), "size": 5, "platform": {"os": "linux", "architecture": "riscv64", "os.version": "9"}});
    // Spaces are part of the digest.
    let list =
        format!("{:#}\n", json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry, other]}));
    let index = registry.put_manifest("team/app", "all", OCI_INDEX, list.as_bytes());
    let (one, all) = (
        format!("docker://{}/team/app:v1", registry.address()),
        format!("docker://{}/team/app:all", registry.address()),
    );
    registry.forget_requests();
    let ran = inspect(&place, &["--platform", "linux/amd64", &one, &all]).expect(0);
    let records: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let image = &records[1]["image"];
    assert_eq!((&image["digest"], &image["index_digest"]), (&json!(pushed.manifest), &json!(index)));
    assert_eq!(image["layers"][0]["digest"], json!(pushed.layers[0]));
    assert!(image["size"].as_u64().unwrap() > image["layers"][0]["size"].as_u64().unwrap());
    let line = json!({"os": "linux", "architecture": "riscv64", "os.version": "9", "digest": Digest::of(b"none"), "size": 5, "media_type": OCI_MANIFEST});
    assert_eq!((image["platforms"].as_array().unwrap().len(), &image["platforms"][1]), (2, &line));
    assert_eq!(image["platforms"][0]["annotations"], json!({"k": "v"}));
    assert_eq!(records[0]["image"].get("platforms"), None);
    assert!(!registry.requests().iter().any(|request| request.path.contains(pushed.layers[0].as_str())));
    assert!(!place.root().join("blobs").exists());

    assert_eq!(inspect(&place, &["--raw", &all]).expect(0).stdout, list);
    assert_eq!(
        inspect(&place, &["--raw", "--platform", "linux/amd64", &all]).expect(0).stdout.as_bytes(),
        bytes
    );
    let config = inspect(&place, &["--config", &one]).expect(0).stdout;
    assert_eq!(Digest::of(config.as_bytes()), pushed.config);
    let missing = inspect(&place, &["--platform", "linux/s390x", &all]).expect(4).stderr;
    assert!(missing.contains("linux/riscv64"), "{missing}");
    inspect(&place, &["--platform", "linux/s390x", &one]).expect(4);
    inspect(&place, &[&format!("docker://{}/team/none", registry.address())]).expect(4);
    inspect(&place, &["oci:/nowhere", "docker-daemon:x"]).expect(4);
    inspect(&place, &["docker-daemon:x"]).expect(2);
    inspect(&place, &["--timeout", "x", "a"]).expect(2);
}

#[test]
fn a_registry_that_lies_is_not_believed() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let pushed = registry.put_image("app", "1", &[b"layer"]);
    let size = registry.manifest_bytes("app", "1").len();
    let put = |tag: &str, kind: &str, digest: &Digest, size: usize| {
        let list = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            {"mediaType": kind, "digest": digest, "size": size, "platform": {"os": "linux", "architecture": "amd64"}}]});
        registry.put_manifest("app", tag, OCI_INDEX, list.to_string().as_bytes())
    };
    let at = |tag: &str| format!("docker://{}/app:{tag}", registry.address());
    let look = |tag: &str| inspect(&place, &["--retry", "0", "--platform", "linux/amd64", &at(tag)]);
    let good = put("good", OCI_MANIFEST, &pushed.manifest, size);
    let length = registry.manifest_bytes("app", "good").len();
    put("nested", OCI_INDEX, &good, length);
    assert!(look("nested").expect(3).stderr.contains("index in an index"));
    put("size", OCI_MANIFEST, &pushed.manifest, size + 1);
    assert!(look("size").expect(3).stderr.contains("announced"));
    // Another manifest, another configuration, of the same size.
    for digest in [&pushed.manifest, &pushed.config] {
        let length = if *digest == pushed.manifest {
            size
        } else {
            inspect(&place, &["--config", &at("1")]).expect(0).stdout.len()
        };
        registry.misbehave(digest.as_str(), 9, Behaviour::Body(vec![b' '; length]));
        let stderr = look("good").expect(3).stderr;
        assert!(stderr.contains("digest"), "{stderr}");
        registry.stop_misbehaving();
    }
    look("good").expect(0);
    // What is no image has a manifest all the same.
    let chart = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "layers": [],
        "config": {"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": Digest::of(b"{}"), "size": 2}}).to_string();
    registry.put_manifest("app", "chart", OCI_MANIFEST, chart.as_bytes());
    assert!(inspect(&place, &[&at("chart")]).expect(3).stderr.contains("--raw"));
    assert_eq!(inspect(&place, &["--raw", &at("chart")]).expect(0).stdout, chart);
}
