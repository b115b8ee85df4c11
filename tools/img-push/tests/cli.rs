//! The real program against a registry that misbehaves, and against a real one.

mod artifacts;
#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, put_with, store, tar};
use oci::manifest::media_type;
use oci::{Digest, Reference};
use serde_json::{Value, json};
use std::io::Read;
use std::process::{Command, Stdio};
use store::{NewEntry, Settle};
use testkit::fake_registry::auth_file;
use testkit::{Behaviour, DockerRegistry, FakeRegistry, Place, Ran};

fn command(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command(env!("CARGO_BIN_EXE_img-push"));
    // No file of the machine's own may be asked for credentials, and silence is over soon.
    command.env("REGISTRY_AUTH_FILE", place.path().join("auth.json")).args(["--timeout", "20"]).args(words);
    command
}

fn push(place: &Place, words: &[&str]) -> Ran {
    Ran::of(&mut command(place, words))
}

fn push_records(place: &Place, words: &[&str], records: &str) -> Ran {
    std::fs::write(place.path().join("in"), records).unwrap();
    let stdin = std::fs::File::open(place.path().join("in")).unwrap();
    Ran::of(command(place, words).stdin(Stdio::from(stdin)))
}

/// Layers that pack well, and are not small.
fn layers() -> Vec<Vec<u8>> {
    let text: Vec<u8> = (0..300_000u32).flat_map(|number| (number / 7).to_le_bytes()).collect();
    vec![tar(&[("a", &text)]), tar(&[("b", b"small")])]
}

fn lines(registry: &FakeRegistry) -> Vec<String> {
    registry.requests().iter().map(testkit::fake_registry::Request::line).collect()
}

fn manifest(registry: &FakeRegistry, path: &str, identifier: &str) -> Value {
    serde_json::from_slice(&registry.manifest_bytes(path, identifier)).expect("it is there")
}

#[test]
fn an_image_goes_where_it_is_sent_and_not_twice() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let layers = layers();
    let digest = put(&place, "app:1", &layers);
    let to = format!("{}/team/app:1", registry.address());
    let record = push(&place, &["app:1", &to]).expect(0).json();
    assert_eq!((&record["image"]["reference"], &record["image"]["digest"]), (&json!(to), &json!(digest)));
    assert_eq!(record["image"]["config"]["config"]["Cmd"], json!(["sh"]));
    for (layer, said) in layers.iter().zip(record["image"]["layers"].as_array().unwrap()) {
        assert_eq!(registry.blob("team/app", &Digest::of(layer)).as_ref(), Some(layer));
        assert_eq!(said["digest"], json!(Digest::of(layer)));
    }
    assert_eq!(Digest::of(&registry.manifest_bytes("team/app", "1")), digest);
    // Last of all.
    assert!(lines(&registry).last().unwrap().starts_with("PUT /v2/team/app/manifests/1"));

    registry.forget_requests();
    assert_eq!(push(&place, &["-q", "app:1", &to]).expect(0).stdout, format!("{digest}\n"));
    assert_eq!(lines(&registry), ["HEAD /v2/team/app/manifests/1"]);
    // Another tag: nothing but its name is sent.
    registry.forget_requests();
    push(&place, &["app:1", &format!("{}/team/app:2", registry.address())]).expect(0);
    assert!(lines(&registry).iter().all(|line| line.starts_with("HEAD") || line.contains("/manifests/2")));
    // By digest, which has to be the image's.
    let name = format!("{}/team/app", registry.address());
    push(&place, &["app:1", &format!("{name}@{digest}")]).expect(0);
    push(&place, &["app:1", &format!("{name}@{}", Digest::of(b"x"))]).expect(2);
}

#[test]
fn mirrors_and_other_locations_are_not_for_writing() {
    let (registry, other, mut place) = (FakeRegistry::start(), FakeRegistry::start(), Place::new());
    let digest = put(&place, "app:1", &layers());
    let file = place.path().join("registries.conf");
    place.set("CONTAINERS_REGISTRIES_CONF", file.display().to_string());
    place.set("CONTAINERS_REGISTRIES_CONF_DIR", place.path().join("registries.conf.d").display().to_string());
    let table = format!("[[registry]]\nprefix = \"{}/team\"\n", registry.address());
    for (number, more) in [
        format!("[[registry.mirror]]\nlocation = \"{}/cache\"", other.address()),
        format!("location = \"{}/cache\"", other.address()),
    ]
    .iter()
    .enumerate()
    {
        std::fs::write(&file, format!("{table}{more}\n")).unwrap();
        let to = format!("{}/team/app:{number}", registry.address());
        push(&place, &["app:1", &to]).expect(0);
        assert_eq!(Digest::of(&registry.manifest_bytes("team/app", &number.to_string())), digest);
        assert_eq!(lines(&other), [""; 0], "{more}");
    }
    registry.forget_requests();
    std::fs::write(&file, format!("{table}blocked = true\n")).unwrap();
    push(&place, &["app:1", &format!("{}/team/app:9", registry.address())]).expect(6);
    assert_eq!(lines(&registry), [""; 0]);
}

#[test]
fn what_names_and_records_mean() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let own = format!("{}/team/own:1", registry.address());
    let digest = put(&place, &own, &layers());
    let line = |reference: &str| {
        json!({"before": 1.50, "image": {"reference": reference, "digest": digest, "mine": [1]}, "staves": 1, "after": null})
            .to_string()
    };
    // A record goes where it says, or where the one name says.
    let ran = push_records(&place, &[], &line(&own)).expect(0);
    assert!(ran.stdout.starts_with("{\"before\":1.5,") && ran.stdout.trim_end().ends_with("\"after\":null}"));
    assert_eq!((&ran.json()["image"]["reference"], &ran.json()["image"]["mine"]), (&json!(own), &json!([1])));
    let other = format!("{}/team/other:1", registry.address());
    let record = push_records(&place, &[&other], &line(&own)).expect(0).json();
    assert_eq!(record["image"]["reference"], json!(other));
    assert_eq!(Digest::of(&registry.manifest_bytes("team/other", "1")), digest);
    // Without anything that could bring records, as docker push.
    registry.clear();
    push(&place, &[&own]).expect(0);
    assert_eq!(Digest::of(&registry.manifest_bytes("team/own", "1")), digest);
    push(&place, &[digest.short()]).expect(2);
    push(&place, &["nothing:1"]).expect(4);
    push(&place, &[]).expect(3);
    push(&place, &["a", "b", "c"]).expect(2);
    let ran = push_records(&place, &[&own], "").expect(3);
    assert!(ran.stderr.contains("hint: "), "{}", ran.stderr);
    let ran = push_records(&place, &[&other], &format!("{}\n{}", line(&own), line(&own))).expect(3);
    assert!(ran.stderr.contains("several images"), "{}", ran.stderr);
    push_records(&place, &["Not A Name"], &line(&own)).expect(3);
    push_records(&place, &[], &line("Not A Name")).expect(3);
    for bad in ["{\"staves\":1", "[]", "{\"staves\":1}", "{\"image\":{\"reference\":7}}"] {
        assert_eq!(push_records(&place, &[&other], bad).expect(3).stdout, "");
    }
}

#[test]
fn blobs_come_from_next_door_where_they_can() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let layers = layers();
    put(&place, &format!("{}/base/os:1", registry.address()), &layers[..1]);
    put(&place, "app:1", &layers);
    registry.put_blob_in("base/os", &layers[0]);
    registry.require_scopes(&[]);
    let to = format!("{}/team/app:1", registry.address());
    let steps = push(&place, &["--dry-run", "app:1", &to]).expect(0).stdout;
    assert!(steps.contains("\"step\":\"mount\"") && steps.contains("\"from\":[\"base/os\"]"), "{steps}");
    assert_eq!(steps.matches("\"step\":\"send\"").count(), 2, "{steps}");
    assert!(steps.trim_end().lines().last().unwrap().contains("\"step\":\"name\""), "{steps}");
    assert!(lines(&registry).iter().all(|line| line.starts_with("HEAD") || line.starts_with("GET /token")));
    push(&place, &["app:1", &to]).expect(0);
    assert_eq!(registry.blob("team/app", &Digest::of(&layers[0])).as_ref(), Some(&layers[0]));
    let sent = |method: &str| lines(&registry).iter().filter(|line| line.starts_with(method)).count();
    // A layer, the configuration and the manifest.
    assert_eq!((sent("PUT"), sent("PATCH")), (3, 0), "{:?}", lines(&registry));
    // Where that is refused it is sent.
    let registry = FakeRegistry::start();
    put(&place, &format!("{}/base/os:1", registry.address()), &layers[..1]);
    registry.require_scopes(&["repository:base/os:pull"]);
    push(&place, &["app:1", &format!("{}/team/app:1", registry.address())]).expect(0);
    assert_eq!(registry.blob("team/app", &Digest::of(&layers[0])).as_ref(), Some(&layers[0]));
}

#[test]
fn layers_are_packed_anew() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let layers = layers();
    let plain = put(&place, "app:1", &layers);
    let repacked = |words: &[&str], path: &str| {
        let to = format!("{}/{path}:1", registry.address());
        let mut all = words.to_vec();
        all.extend(["app:1", &to]);
        let image = push(&place, &all).expect(0).json()["image"].clone();
        let there = manifest(&registry, path, "1");
        assert_eq!(image["digest"], json!(Digest::of(&registry.manifest_bytes(path, "1"))));
        for (number, layer) in layers.iter().enumerate() {
            let said = &image["layers"][number];
            for member in ["digest", "size"] {
                assert_eq!(said[member], there["layers"][number][member]);
            }
            assert_eq!(said["media_type"], there["layers"][number]["mediaType"]);
            assert_eq!(said["diff_id"], json!(Digest::of(layer)));
            let digest = Digest::parse(said["digest"].as_str().unwrap()).unwrap();
            let blob = registry.blob(path, &digest).unwrap();
            assert_eq!(json!(blob.len()), said["size"]);
            let mut back = Vec::new();
            match said["media_type"].as_str().unwrap() {
                media_type::OCI_LAYER_GZIP => {
                    flate2::read::GzDecoder::new(&blob[..]).read_to_end(&mut back).unwrap();
                }
                media_type::OCI_LAYER_ZSTD => back = zstd::decode_all(&blob[..]).unwrap(),
                media_type::OCI_LAYER => back.clone_from(&blob),
                other => panic!("{other}"),
            }
            assert!(back == *layer);
        }
        image
    };
    let gzip = repacked(&["--compression", "gzip"], "gzip");
    assert_eq!(gzip["layers"][0]["media_type"], media_type::OCI_LAYER_GZIP);
    assert!(gzip["layers"][0]["size"].as_u64().unwrap() < layers[0].len() as u64);
    let zstd = repacked(&["--compression", "zstd", "--compression-level", "9"], "zstd");
    assert_eq!(zstd["layers"][0]["media_type"], media_type::OCI_LAYER_ZSTD);
    // The same way gives the same bytes; another level does not.
    assert_eq!(
        repacked(&["--compression", "zstd", "--compression-level", "9"], "zstd2")["digest"],
        zstd["digest"]
    );
    assert_ne!(
        repacked(&["--compression", "zstd", "--compression-level", "1"], "zstd3")["digest"],
        zstd["digest"]
    );
    // What is packed so already stays.
    assert_eq!(repacked(&["--compression", "none"], "none")["digest"], json!(plain));
    let forced = repacked(&["--compression", "none", "--force-compression"], "forced");
    assert_eq!(forced["layers"], repacked(&[], "plain")["layers"]);
    push(&place, &["--compression", "zstd", "--compression-level", "23", "app:1", "x"]).expect(2);
    push(&place, &["--compression-level", "3", "app:1", "x"]).expect(2);
    let steps = push(
        &place,
        &["--dry-run", "--compression", "zstd", "app:1", &format!("{}/dry:1", registry.address())],
    );
    assert_eq!(steps.expect(0).stdout.matches("\"step\":\"repack\"").count(), 2);
}

#[test]
fn a_lost_upload_of_a_layer_packed_anew_begins_again() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let noise: Vec<u8> = (0..6_000_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let layer = tar(&[("a", &noise)]);
    put(&place, "app:1", std::slice::from_ref(&layer));
    let to = format!("{}/team/app:1", registry.address());
    registry.misbehave("blobs/uploads/u", 1, Behaviour::IgnoreRange);
    registry.misbehave("blobs/uploads/u", 1, Behaviour::ForgetUpload);
    let words = ["--parallel", "1", "--compression", "none", "--force-compression", "app:1", &to];
    let image = push(&place, &words).expect(0).json()["image"].clone();
    assert_eq!(image["layers"][0]["digest"], json!(Digest::of(&layer)));
    assert!(registry.blob("team/app", &Digest::of(&layer)).unwrap() == layer);
    let opened = lines(&registry).iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(opened, 3, "{:?}", lines(&registry));
}

#[test]
fn killed_at_any_moment_it_leaves_no_half_an_image() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let mut layers = layers();
    layers.push(vec![7; 5 << 20]);
    let digest = put(&place, "app:1", &layers);
    let to = format!("{}/team/app:1", registry.address());
    for moment in 0..12 {
        let mut child = command(&place, &["app:1", &to]).stdout(Stdio::null()).spawn().expect("run img-push");
        std::thread::sleep(std::time::Duration::from_millis(moment * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let named = registry.manifest_bytes("team/app", "1");
        if !named.is_empty() {
            assert_eq!(Digest::of(&named), digest);
            for layer in &layers {
                assert!(registry.blob("team/app", &Digest::of(layer)).is_some());
            }
        }
    }
    push(&place, &["app:1", &to]).expect(0);
    assert_eq!(Digest::of(&registry.manifest_bytes("team/app", "1")), digest);
}

#[test]
fn a_layer_that_is_not_what_it_should_be_is_not_packed_anew() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let layers = layers();
    put_with(&place, "wrong:1", &layers, &[Digest::of(b"x"), Digest::of(&layers[1])]);
    put_with(&place, "garbage:1", &[b"\x1f\x8b\x08nonsense".to_vec()], &[Digest::of(b"x")]);
    for name in ["wrong:1", "garbage:1"] {
        let to = format!("{}/team/{name}", registry.address());
        let ran = push(&place, &["--compression", "zstd", name, &to]).expect(3);
        assert_eq!(ran.stdout, "");
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
    assert!(!lines(&registry).iter().any(|line| line.starts_with("PUT") && line.contains("/manifests/")));
}

/// Puts an index of two images and an attestation about the first into the store, which the first was chosen from.
fn put_index(place: &Place, docker: bool) -> Digest {
    let store = store(place);
    let settle = Settle::new();
    let (manifest_type, list_type) = if docker {
        (media_type::DOCKER_MANIFEST, media_type::DOCKER_LIST)
    } else {
        (media_type::OCI_MANIFEST, media_type::OCI_INDEX)
    };
    let blob = |bytes: &[u8], kind: &str| {
        let digest = store.put_blob(bytes, &settle).unwrap();
        json!({"mediaType": kind, "digest": digest, "size": bytes.len()})
    };
    let mut configs = Vec::new();
    let mut entries: Vec<Value> = ["amd64", "s390x"]
        .iter()
        .map(|architecture| {
            let layer = tar(&[(architecture, b"x")]);
            let config = json!({"os": "linux", "architecture": architecture, "config": {},
                "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}});
            let (config_type, layer_type) = if docker {
                (media_type::DOCKER_CONFIG, media_type::DOCKER_LAYER)
            } else {
                (media_type::OCI_CONFIG, media_type::OCI_LAYER)
            };
            let config = blob(config.to_string().as_bytes(), config_type);
            configs.push(Digest::parse(config["digest"].as_str().unwrap()).unwrap());
            let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config,
                "layers": [blob(&layer, layer_type)]});
            let mut entry = blob(manifest.to_string().as_bytes(), manifest_type);
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
            entry
        })
        .collect();
    let about = entries[0]["digest"].clone();
    let attestation = json!({"schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": blob(b"{\"rootfs\":{}}", media_type::OCI_CONFIG),
        "layers": [blob(b"{}", "application/vnd.in-toto+json")]});
    let mut attested = blob(attestation.to_string().as_bytes(), media_type::OCI_MANIFEST);
    attested["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    attested["annotations"] = json!({"vnd.docker.reference.digest": about});
    entries.push(attested);
    let index = json!({"schemaVersion": 2, "mediaType": list_type, "manifests": entries}).to_string();
    let index_digest = store.put_blob(index.as_bytes(), &settle).unwrap();
    let digest = Digest::parse(about.as_str().unwrap()).unwrap();
    let entry = NewEntry {
        reference: &Reference::parse("multi:1").unwrap(),
        media_type: manifest_type,
        digest: &digest,
        size: entries[0]["size"].as_u64().unwrap(),
        platform: None,
        index_digest: Some(&index_digest),
        config_digest: &configs[0],
    };
    assert!(store.put_reference(&entry, &[]).unwrap().is_empty());
    index_digest
}

#[test]
fn one_platform_or_all_of_them() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let index = put_index(&place, false);
    let to = |tag: &str| format!("{}/multi:{tag}", registry.address());
    let image = |words: &[&str], tag: &str| {
        let to = to(tag);
        let mut all = words.to_vec();
        all.extend(["multi:1", &to]);
        push(&place, &all).expect(0).json()["image"].clone()
    };
    let one = image(&[], "named");
    assert_eq!((&one["platform"]["architecture"], &one["index_digest"]), (&json!("amd64"), &Value::Null));
    let other = image(&["--platform", "linux/s390x"], "other");
    assert_eq!(other["platform"]["architecture"], "s390x");
    assert_eq!(other["digest"], json!(Digest::of(&registry.manifest_bytes("multi", "other"))));
    let ran = push(&place, &["--platform", "linux/mips", "multi:1", &to("none")]).expect(4);
    assert!(ran.stderr.contains("linux/s390x"), "{}", ran.stderr);

    let digests = place.path().join("digests");
    let file = digests.to_str().unwrap();
    let all = image(&["--all-platforms", "--digest-file", file], "all");
    assert_eq!((&all["index_digest"], &all["digest"]), (&json!(index), &one["digest"]));
    assert_eq!(std::fs::read_to_string(&digests).unwrap(), format!("{index}\n"));
    assert_eq!(Digest::of(&registry.manifest_bytes("multi", "all")), index);
    for entry in manifest(&registry, "multi", "all")["manifests"].as_array().unwrap() {
        assert!(!registry.manifest_bytes("multi", entry["digest"].as_str().unwrap()).is_empty());
    }
    // Packed anew: the index follows, and so does what is said about its images.
    let zstd = image(&["--all-platforms", "--compression", "zstd"], "zstd");
    let there = manifest(&registry, "multi", "zstd");
    assert_eq!(zstd["index_digest"], json!(Digest::of(&registry.manifest_bytes("multi", "zstd"))));
    assert_eq!(there["manifests"][0]["digest"], zstd["digest"]);
    assert_ne!(zstd["digest"], one["digest"]);
    assert_eq!(there["manifests"][2]["annotations"]["vnd.docker.reference.digest"], zstd["digest"]);
    assert!(!registry.manifest_bytes("multi", zstd["digest"].as_str().unwrap()).is_empty());
    // One of them is not there.
    let gone = Digest::parse(other["digest"].as_str().unwrap()).unwrap();
    std::fs::remove_file(store(&place).blob_path(&gone)).unwrap();
    let ran = push(&place, &["--all-platforms", "multi:1", &to("late")]).expect(4);
    assert!(ran.stderr.contains("linux/s390x"), "{}", ran.stderr);
    put(&place, "alone:1", &layers());
    push(&place, &["--all-platforms", "alone:1", &to("alone")]).expect(4);
    push(&place, &["--platform", "linux/mips", "alone:1", &to("alone")]).expect(4);
}

#[test]
fn dockers_format_becomes_ocis_where_it_has_to() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    put_index(&place, true);
    let to = |tag: &str| format!("{}/multi:{tag}", registry.address());
    push(&place, &["--all-platforms", "--compression", "gzip", "multi:1", &to("gzip")]).expect(0);
    let gzip = manifest(&registry, "multi", "gzip");
    assert_eq!(gzip["mediaType"], media_type::DOCKER_LIST);
    let one = manifest(&registry, "multi", gzip["manifests"][1]["digest"].as_str().unwrap());
    assert_eq!(one["layers"][0]["mediaType"], media_type::DOCKER_LAYER_GZIP);
    push(&place, &["--all-platforms", "--compression", "zstd", "multi:1", &to("zstd")]).expect(0);
    let zstd = manifest(&registry, "multi", "zstd");
    assert_eq!(
        (&zstd["mediaType"], &zstd["manifests"][1]["mediaType"]),
        (&json!(media_type::OCI_INDEX), &json!(media_type::OCI_MANIFEST))
    );
    let one = manifest(&registry, "multi", zstd["manifests"][1]["digest"].as_str().unwrap());
    assert!(!one.to_string().contains("docker"), "{one}");
}

#[test]
fn exit_statuses_tell_what_the_registry_said() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let mut layers = layers();
    layers.push(vec![7; 3 << 20]);
    put(&place, "app:1", &layers);
    let to = format!("{}/team/app:1", registry.address());
    let elsewhere = Behaviour::Header("Location", "file:///etc/passwd".into());
    for (path, behaviour, status) in [
        ("/uploads/u", Behaviour::Status(413), 3),
        ("/uploads/", Behaviour::Status(401), 6),
        ("/uploads/", Behaviour::Status(403), 6),
        ("/uploads/", Behaviour::Status(404), 4),
        ("/uploads/", Behaviour::RetryAfter(429, 100_000), 7),
        ("/uploads/", Behaviour::Status(503), 7),
        ("/uploads/", elsewhere, 3),
        ("/uploads/", Behaviour::CutUpload(0), 7),
        ("digest=", Behaviour::DigestHeader(Digest::of(b"x").to_string()), 3),
        ("/manifests/1", Behaviour::DigestHeader(Digest::of(b"x").to_string()), 3),
        ("/manifests/1", Behaviour::Status(422), 3),
        ("/blobs/sha256", Behaviour::Status(500), 7),
    ] {
        registry.clear();
        registry.misbehave(path, usize::MAX, behaviour.clone());
        let ran = push(&place, &["--retry", "1", "app:1", &to]);
        assert_eq!(ran.status, status, "{path} {behaviour:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty() && ran.stderr.lines().count() <= 2, "{behaviour:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("team/app:1: "), "{}", ran.stderr);
        registry.stop_misbehaving();
    }
    // What passes is waited for; what is cut goes on.
    registry.clear();
    registry.misbehave("/uploads/", 1, Behaviour::RetryAfter(429, 0));
    registry.misbehave("/manifests/", 1, Behaviour::Status(502));
    registry.misbehave("/uploads/u", 1, Behaviour::CutUpload(1_000_000));
    push(&place, &["app:1", &to]).expect(0);
    drop(registry);
    push(&place, &["app:1", &to]).expect(7);
    push(&place, &["--timeout", "0", "app:1", &to]).expect(2);
}

#[test]
fn a_password_is_given_to_the_registry_and_told_to_nobody() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    put(&place, "app:1", &layers());
    let to = format!("{}/team/app:1", registry.address());
    registry.require_password("me", "pa:ss word");
    push(&place, &["app:1", &to]).expect(6);
    let file = place.path().join("auth.json");
    std::fs::write(&file, auth_file(&registry.address(), "me", "wrong pa:ss")).unwrap();
    let denied = push(&place, &["app:1", &to]).expect(6);
    assert!(!denied.stderr.contains("pa:ss"), "{}", denied.stderr);
    std::fs::write(&file, auth_file(&registry.address(), "me", "pa:ss word")).unwrap();
    push(&place, &["app:1", &to]).expect(0);
    // Nor to another host that the registry wants the blobs sent to.
    let elsewhere = FakeRegistry::start();
    registry.clear();
    let location = format!("http://{}/v2/team/app/blobs/uploads/u1", elsewhere.address());
    registry.misbehave("/blobs/uploads/", usize::MAX, Behaviour::Header("Location", location));
    push(&place, &["--retry", "0", "app:1", &to]).expect(4);
    let seen = elsewhere.requests();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|request| !request.headers.contains_key("authorization")), "{seen:?}");
}

#[test]
fn progress_is_data_for_who_asks() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    put(&place, "app:1", &layers());
    let to = format!("{}/team/app:1", registry.address());
    let program = env!("CARGO_BIN_EXE_img-push");
    let ran = place.sh(&format!("exec {program} --progress-fd 5 app:1 {to} 5>$DIR/events")).expect(0);
    assert_eq!(ran.stderr, "");
    let text = std::fs::read_to_string(place.path().join("events")).unwrap();
    assert_eq!(text.matches("\"event\":\"done\"").count(), 3, "{text}");
    let table = push(&place, &["--output", "table", "app:1", &to]).expect(0);
    assert!(table.stdout.contains("2 layers, 0 B sent"), "{}", table.stdout);
    // In whichever form.
    let other = |tag: &str| format!("{}/other/app:{tag}", registry.address());
    let ran = push(&place, &["--progress", "json", "app:1", &other("json")]).expect(0);
    assert_eq!(ran.stderr.matches("\"event\":\"present\"").count(), 0, "{}", ran.stderr);
    assert!(ran.stderr.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("\"event\":\"done\"").count(), 3, "{}", ran.stderr);
    let ran = push(&place, &["--progress", "none", "app:1", &other("none")]).expect(0);
    assert_eq!(ran.stderr, "");
    push(&place, &["--progress", "none", "--progress-fd", "2", "app:1", &to]).expect(2);
    push(&place, &["--progress", "loud", "app:1", &to]).expect(2);
}

/// Tools of this build which these tests do not build themselves.
fn built(names: &[&str]) -> bool {
    let missing = names.iter().find(|name| !testkit::profile_dir().join(name).is_file());
    if let Some(name) = missing {
        testkit::skip(&format!("{name} is not built"));
    }
    missing.is_none()
}

#[test]
fn others_pull_what_was_pushed() {
    let place = Place::new();
    let storage = place.path().join("storage");
    let (Some(source), Some(registry)) =
        (DockerRegistry::with_images(), DockerRegistry::start(&storage, false))
    else {
        return;
    };
    if !built(&["img-pull"]) {
        return;
    }
    let push = env!("CARGO_BIN_EXE_img-push");
    let (from, to) = (source.address(), registry.address());
    for (name, words) in [
        ("busybox:1", ""),
        ("busybox:docker", ""),
        ("layers:1", ""),
        ("layers:1", "--compression zstd --force-compression"),
        ("busybox:docker", "--compression gzip --force-compression --compression-level 1"),
        ("busybox:docker", "--compression none"),
    ] {
        let script = format!("img-pull {from}/{name} | {push} {words} {to}/copy/{name}");
        let image = place.sh(&script).expect(0).json()["image"].clone();
        if words.is_empty() {
            let pulled = place.sh(&format!("img-pull --policy never {from}/{name}")).expect(0).json();
            assert_eq!(image["digest"], pulled["image"]["digest"]);
        }
        if testkit::find_program("skopeo").is_none() {
            testkit::skip("skopeo is not installed");
            continue;
        }
        let skopeo = "skopeo --insecure-policy";
        let seen =
            place.sh(&format!("{skopeo} inspect --tls-verify=false docker://{to}/copy/{name}")).expect(0);
        let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
        assert_eq!(seen["Digest"], image["digest"], "{name} {words}");
        // Every byte, checked by another program.
        let copy = "--src-tls-verify=false --preserve-digests";
        place
            .sh(&format!("{skopeo} copy {copy} docker://{to}/copy/{name} dir:$DIR/dir && rm -r $DIR/dir"))
            .expect(0);
    }
    if testkit::find_program("podman").is_none() || !testkit::is_root() {
        return testkit::skip("podman is not installed, or this is not root");
    }
    let podman = "podman --root $DIR/podman --runroot $DIR/podman-run --storage-driver vfs";
    for name in ["busybox:docker", "layers:1"] {
        let pulled = format!("{podman} pull -q --tls-verify=false {to}/copy/{name}");
        let digest = format!("{podman} image inspect --format '{{{{.Digest}}}}' {to}/copy/{name}");
        let ran = place.sh(&format!("{pulled} >/dev/null && {digest}")).expect(0);
        let ours = place.sh(&format!("img-pull -q {to}/copy/{name}")).expect(0);
        assert_eq!(ran.stdout, ours.stdout, "{name}");
    }
    place.sh(&format!("{podman} rmi -af")).expect(0);
}

/// The registry itself stands in for the proxy: it answers requests that have the whole address as well.
#[test]
fn plain_requests_are_handed_to_a_proxy_whole() {
    if !testkit::own_network() {
        return;
    }
    let mut place = Place::new();
    let digest = put(&place, "app:1", &layers());
    let fake = FakeRegistry::start();
    // Nothing listens there: it is tried in TLS first, which goes past the proxy.
    testkit::ip("address add 192.0.2.7/32 dev lo");
    // Names and passwords of proxies may have any letters.
    place.set("http_proxy", format!("http://me:p%40ss@{}", fake.address()));
    let to = "192.0.2.7:5000/team/app:1";
    push(&place, &["--tls-verify=false", "--retry", "0", "app:1", to]).expect(0);
    let requests = fake.requests();
    assert!(
        requests.iter().all(|request| request.path.starts_with("http://192.0.2.7:5000/v2/")),
        "{requests:?}"
    );
    assert!(requests.iter().all(|request| request.headers["host"] == "192.0.2.7:5000"), "{requests:?}");
    // me:p@ss
    assert!(
        requests.iter().all(|request| request.headers["proxy-authorization"] == "Basic bWU6cEBzcw=="),
        "{requests:?}"
    );
    assert_eq!(Digest::of(&fake.manifest_bytes("team/app", "1")), digest);

    // One that keeps connections, on which requests with and without bodies follow each other.
    let storage = place.path().join("storage");
    std::fs::create_dir(&storage).unwrap();
    let Some(real) = DockerRegistry::start(&storage, false) else { return };
    place.set("http_proxy", format!("http://{}", real.address()));
    push(&place, &["--tls-verify=false", "--retry", "0", "app:1", to]).expect(0);
    let again = push(&place, &["--tls-verify=false", "--retry", "0", "app:1", "192.0.2.7:5000/team/app:2"]);
    assert_eq!(again.expect(0).json()["image"]["digest"], json!(digest));
    assert!(storage.join("docker/registry/v2/repositories/team/app/_manifests/tags/2").exists());
}
