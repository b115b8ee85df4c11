//! The real program against a registry that misbehaves, and against a real one.

use oci::Digest;
use oci::manifest::media_type;
use serde_json::{Value, json};
use std::process::Command;
use std::time::Duration;
use testkit::fake_registry::{Pushed, auth_file};
use testkit::{Behaviour, DockerRegistry, FakeRegistry, Place, Ran};

fn pull(place: &Place, words: &[&str]) -> Ran {
    Ran::of(&mut command(place, words))
}

fn command(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command(env!("CARGO_BIN_EXE_img-pull"));
    // No file of the machine's own may be asked for credentials, and silence is over soon.
    command.env("REGISTRY_AUTH_FILE", place.path().join("auth.json")).args(["--timeout", "20"]).args(words);
    command
}

/// An image of two layers, and its reference.
fn registry() -> (FakeRegistry, String, Pushed) {
    let registry = FakeRegistry::start();
    let pushed = registry.put_image("team/app", "v1", &[&vec![7; 300_000], b"small"]);
    let reference = format!("{}/team/app:v1", registry.address());
    (registry, reference, pushed)
}

/// Nothing that a later command could take for an image, and nothing unfinished.
fn assert_untouched(place: &Place) {
    let index = std::fs::read_to_string(place.root().join("index.json")).unwrap_or_default();
    assert!(!index.contains("digest"), "{index}");
    assert_no_scratch(place);
}

fn assert_no_scratch(place: &Place) {
    let left: Vec<_> = std::fs::read_dir(place.root().join("tmp")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

fn blob(place: &Place, digest: &Digest) -> std::path::PathBuf {
    place.root().join("blobs/sha256").join(digest.hex())
}

#[test]
fn an_image_becomes_a_record_and_is_not_downloaded_twice() {
    let (registry, reference, pushed) = registry();
    let place = Place::new();
    let record = pull(&place, &[&reference]).expect(0).json();
    let image = &record["image"];
    assert_eq!(record["staves"], 1);
    assert_eq!(image["reference"], json!(reference));
    assert_eq!(image["digest"], json!(pushed.manifest));
    assert_eq!(image["config"]["config"]["OnBuild"][0], "RUN x");
    assert_eq!(image["platform"], json!({"os": "linux", "architecture": "amd64"}));
    let layer = json!({"digest": pushed.layers[0], "diff_id": pushed.layers[0], "size": 300_000,
        "media_type": media_type::OCI_LAYER});
    assert_eq!(image["layers"][0], layer);

    registry.forget_requests();
    assert_eq!(pull(&place, &[&reference]).expect(0).json(), record);
    let asked: Vec<String> = registry.requests().iter().map(|r| format!("{} {}", r.method, r.path)).collect();
    assert_eq!(asked, ["HEAD /v2/team/app/manifests/v1"]);

    registry.forget_requests();
    for words in [["--policy", "missing"], ["--policy", "never"]] {
        assert_eq!(pull(&place, &[words[0], words[1], &reference]).expect(0).json(), record);
    }
    let by_digest = format!("{}/team/app@{}", registry.address(), pushed.manifest);
    let again = pull(&place, &[&by_digest]).expect(0).json();
    assert_eq!(again["image"]["reference"], json!(by_digest));
    assert_eq!(again["image"]["layers"], image["layers"]);
    assert!(registry.requests().is_empty(), "{:?}", registry.requests());
    assert_eq!(pull(&place, &["-q", &reference]).expect(0).stdout, format!("{}\n", pushed.manifest));
    assert_no_scratch(&place);
}

#[test]
fn a_moved_tag_brings_only_what_is_new_and_keeps_the_old_image_unnamed() {
    let (registry, reference, old) = registry();
    let place = Place::new();
    pull(&place, &[&reference]).expect(0);
    let new = registry.put_image("team/app", "v1", &[&vec![7; 300_000], b"other"]);
    registry.forget_requests();
    let plan = pull(&place, &["--dry-run", &reference]).expect(0);
    assert_eq!(plan.stdout.matches("\"step\":\"fetch\"").count(), 2, "{}", plan.stdout);
    assert_eq!(pull(&place, &[&reference]).expect(0).json()["image"]["digest"], json!(new.manifest));
    let blobs: Vec<_> = registry.requests().into_iter().filter(|r| r.path.contains("/blobs/")).collect();
    assert_eq!(blobs.len(), 2, "{blobs:?}");
    let index: Value =
        serde_json::from_slice(&std::fs::read(place.root().join("index.json")).unwrap()).unwrap();
    let of = |digest: &Digest| {
        let entries = index["manifests"].as_array().unwrap();
        entries.iter().find(|entry| entry["digest"] == json!(digest)).unwrap().clone()
    };
    let name = "org.opencontainers.image.ref.name";
    assert_eq!(of(&new.manifest)["annotations"][name], json!(reference));
    assert_eq!(of(&old.manifest)["annotations"][name], Value::Null);
}

#[test]
fn records_keep_what_they_bring() {
    let (_registry, reference, pushed) = registry();
    let place = Place::new();
    let input = json!({"before": 1.50, "image": {"mine": [1], "reference": reference, "digest": "", "layers": []},
        "staves": 1, "after": null});
    std::fs::write(place.path().join("in"), input.to_string()).unwrap();
    let stdin = || std::fs::File::open(place.path().join("in")).unwrap();
    let ran = Ran::of(command(&place, &[]).stdin(stdin())).expect(0);
    let record = ran.json();
    assert_eq!((&record["before"], &record["image"]["mine"]), (&json!(1.5), &json!([1])));
    assert_eq!(record["image"]["digest"], json!(pushed.manifest));
    assert!(record.as_object().unwrap().contains_key("after"));
    // Nothing came from the stage before; something came that is no record; one that names no image.
    for (text, status) in [
        ("", 3),
        ("{\"staves\":1", 3),
        ("[]", 3),
        ("{\"staves\":1}", 3),
        ("{\"image\":{\"reference\":7}}", 3),
    ] {
        std::fs::write(place.path().join("in"), text).unwrap();
        let ran = Ran::of(command(&place, &[]).stdin(stdin())).expect(status);
        assert_eq!((ran.stdout.as_str(), ran.stderr.lines().next().is_some()), ("", true), "{text}");
    }
}

#[test]
fn one_that_fails_does_not_hold_up_the_others() {
    let (registry, reference, _) = registry();
    let place = Place::new();
    let missing = format!("{}/team/app:nothing", registry.address());
    let ran = pull(&place, &[&missing, "Bad Name", &reference]).expect(4);
    assert_eq!(ran.json()["image"]["reference"], json!(reference));
    assert!(ran.stderr.contains("nothing: the registry has no tag nothing of team/app"), "{}", ran.stderr);
    let json_error = pull(&place, &["--error-format", "json", &missing]).expect(4);
    let error: Value = serde_json::from_str(&json_error.stderr).unwrap();
    assert_eq!((&error["kind"], &error["subject"]), (&json!("not-found"), &json!(missing)));
}

#[test]
fn exit_statuses_tell_what_the_registry_said() {
    let (registry, reference, _) = registry();
    let place = Place::new();
    let busy = Behaviour::RetryAfter(429, 100_000);
    for (path, behaviour, status) in [
        ("/manifests/", Behaviour::Status(404), 4),
        ("/blobs/", Behaviour::Status(404), 4),
        ("/manifests/", Behaviour::Status(401), 6),
        ("/manifests/", Behaviour::Status(403), 6),
        ("/manifests/", busy, 7),
        ("/blobs/", Behaviour::Status(503), 7),
        ("/manifests/", Behaviour::Status(418), 3),
        ("/manifests/", Behaviour::Redirect("/v2/team/app/manifests/v1".into()), 3),
        ("/manifests/", Behaviour::Redirect("file:///etc/passwd".into()), 3),
        ("/manifests/", Behaviour::Body(vec![b' '; 5 << 20]), 3),
        ("/manifests/", Behaviour::BodyWithoutLength(vec![b'['; 5 << 20]), 3),
        ("/manifests/", Behaviour::Body(b"<html>".to_vec()), 3),
        ("/manifests/", Behaviour::DigestHeader(Digest::of(b"x").to_string()), 3),
        ("/manifests/", Behaviour::Garbage, 7),
    ] {
        registry.misbehave(path, usize::MAX, behaviour.clone());
        let ran = pull(&place, &["--retry", "1", &reference]);
        assert_eq!(ran.status, status, "{path} {behaviour:?}: {}", ran.stderr);
        assert!(ran.stdout.is_empty() && ran.stderr.lines().count() <= 2, "{behaviour:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        assert_untouched(&place);
        registry.stop_misbehaving();
    }
    pull(&place, &[&reference]).expect(0);
}

#[test]
fn what_passes_is_waited_for() {
    let (registry, reference, _) = registry();
    let place = Place::new();
    registry.misbehave("/manifests/", 1, Behaviour::RetryAfter(429, 0));
    registry.misbehave("/manifests/", 2, Behaviour::Status(500));
    registry.misbehave("/blobs/", 2, Behaviour::Status(502));
    pull(&place, &[&reference]).expect(0);
}

#[test]
fn a_cut_download_goes_on_where_it_was_cut() {
    let (registry, reference, pushed) = registry();
    let place = Place::new();
    let large = format!("/blobs/{}", pushed.layers[0]);
    registry.misbehave(&large, 1, Behaviour::CutAfter(100_000));
    registry.misbehave(&large, 1, Behaviour::CutAfter(50_000));
    pull(&place, &[&reference]).expect(0);
    let ranges: Vec<_> = registry
        .requests()
        .into_iter()
        .filter(|r| r.path.contains(&large))
        .map(|r| r.headers.get("range").cloned())
        .collect();
    assert_eq!(ranges, [None, Some("bytes=100000-299999".into()), Some("bytes=150000-299999".into())]);
    assert_eq!(std::fs::read(blob(&place, &pushed.layers[0])).unwrap(), vec![7; 300_000]);

    // One that knows no ranges sends all of it again.
    let place = Place::new();
    registry.misbehave(&large, 1, Behaviour::CutAfter(100_000));
    registry.misbehave(&large, 1, Behaviour::IgnoreRange);
    pull(&place, &[&reference]).expect(0);
    // Cut at each try, but further each time: more tries than are allowed without progress.
    let place = Place::new();
    registry.misbehave(&large, 6, Behaviour::CutAfter(10_000));
    pull(&place, &["--retry", "1", &reference]).expect(0);
}

#[test]
fn lies_about_digests_and_sizes_are_found_out() {
    let (registry, reference, pushed) = registry();
    let large = format!("/blobs/{}", pushed.layers[0]);
    for behaviour in [
        Behaviour::Body(vec![8; 300_000]),
        Behaviour::Body(vec![7; 300_001]),
        Behaviour::Body(vec![7; 299_999]),
        Behaviour::BodyWithoutLength(vec![7; 300_001]),
        Behaviour::BodyWithoutLength(vec![7; 299_999]),
        Behaviour::BodyWithoutLength(vec![8; 300_000]),
        Behaviour::Length(u64::MAX),
    ] {
        let place = Place::new();
        registry.misbehave(&large, usize::MAX, behaviour.clone());
        let ran = pull(&place, &["--retry", "1", &reference]);
        assert_eq!(ran.status, 3, "{}", ran.stderr);
        assert!(ran.stderr.contains(pushed.layers[0].as_str()), "{}", ran.stderr);
        assert!(!blob(&place, &pushed.layers[0]).exists());
        assert_untouched(&place);
        registry.stop_misbehaving();
    }
}

#[test]
fn a_registry_that_does_not_answer_is_given_up_on() {
    let (registry, reference, pushed) = registry();
    let large = format!("/blobs/{}", pushed.layers[0]);
    let trickle = Behaviour::Trickle(Duration::from_millis(50));
    for (path, behaviour) in
        [("/manifests/", Behaviour::Silent), (large.as_str(), Behaviour::Silent), (large.as_str(), trickle)]
    {
        let place = Place::new();
        registry.misbehave(path, usize::MAX, behaviour);
        let ran = pull(&place, &["--timeout", "0.2", "--retry", "1", &reference]).expect(7);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert_untouched(&place);
        registry.stop_misbehaving();
    }
    drop(registry);
    let refused = pull(&Place::new(), &[&reference]).expect(7);
    assert!(refused.stderr.contains("refuses connections"), "{}", refused.stderr);
    let unknown = pull(&Place::new(), &["--timeout", "0.2", "nobody.invalid/x"]).expect(7);
    assert!(unknown.stderr.contains("nobody.invalid"), "{}", unknown.stderr);
}

#[test]
fn newer_makes_do_with_what_is_there() {
    let (registry, reference, _) = registry();
    let place = Place::new();
    let first = pull(&place, &["--policy", "newer", &reference]).expect(0).json();
    drop(registry);
    let ran = pull(&place, &["--policy", "newer", &reference]).expect(0);
    assert_eq!(ran.json(), first);
    assert!(ran.stderr.contains("warning: using the image in the store"), "{}", ran.stderr);
    pull(&place, &["--policy", "always", &reference]).expect(7);
    pull(&place, &["--policy", "never", "debian:12"]).expect(4);
}

#[test]
fn a_token_is_fetched_once_and_a_password_given_to_the_right_one() {
    let (registry, reference, _) = registry();
    registry.require_token(None);
    let place = Place::new();
    pull(&place, &[&reference]).expect(0);
    let tokens: Vec<_> = registry.requests().into_iter().filter(|r| r.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?scope=repository:x:pull&service=fake%2C%20really");

    let place = Place::new();
    registry.require_token(Some(("me", "pa:ss word")));
    let denied = pull(&place, &[&reference]).expect(6);
    assert_eq!(denied.stdout, "");
    let file = place.path().join("auth.json");
    std::fs::write(&file, auth_file(&registry.address(), "me", "wrong")).unwrap();
    let denied = pull(&place, &[&reference]).expect(6);
    assert!(!denied.stderr.contains("wrong"), "{}", denied.stderr);
    std::fs::write(&file, auth_file(&registry.address(), "me", "pa:ss word")).unwrap();
    pull(&place, &[&reference]).expect(0);

    let place = Place::new();
    registry.require_password("me", "pa:ss word");
    pull(&place, &[&reference]).expect(6);
    std::fs::write(place.path().join("auth.json"), auth_file(&registry.address(), "me", "pa:ss word"))
        .unwrap();
    pull(&place, &[&reference]).expect(0);
    std::fs::write(place.path().join("auth.json"), "{\"auths\": pa:ss word").unwrap();
    let broken = pull(&Place::new(), &[&reference]);
    assert!(!broken.stderr.contains("pa:ss word"), "{}", broken.stderr);
}

#[test]
fn a_redirect_does_not_carry_the_password_along() {
    let (registry, reference, pushed) = registry();
    let elsewhere = FakeRegistry::start();
    elsewhere.put_blob(&vec![7; 300_000]);
    registry.require_password("me", "secret");
    let large = format!("/blobs/{}", pushed.layers[0]);
    let target = format!("http://{}/v2/x{large}?signature=1", elsewhere.address());
    registry.misbehave(&large, usize::MAX, Behaviour::Redirect(target));
    elsewhere.misbehave(&large, 1, Behaviour::CutAfter(100));
    let place = Place::new();
    std::fs::write(place.path().join("auth.json"), auth_file(&registry.address(), "me", "secret")).unwrap();
    pull(&place, &[&reference]).expect(0);
    let seen = elsewhere.requests();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|request| !request.headers.contains_key("authorization")), "{seen:?}");
    assert_eq!(seen[1].headers["range"], "bytes=100-299999");
}

#[test]
fn hostile_manifests_are_refused() {
    let (registry, _, pushed) = registry();
    let place = Place::new();
    let config = json!({"mediaType": media_type::OCI_CONFIG, "digest": pushed.config, "size": 1});
    let layer = |name: &str, value: Value| {
        let mut layer = json!({"mediaType": media_type::OCI_LAYER, "digest": pushed.layers[1], "size": 5});
        layer[name] = value;
        json!({"schemaVersion": 2, "config": config, "layers": [layer]})
    };
    let documents = [
        layer("urls", json!(["http://127.0.0.1:1/secret"])),
        layer("digest", json!("sha256:../../../../etc/passwd")),
        layer("digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e")),
        layer("size", json!(-1)),
        layer("size", json!(u64::MAX)),
        layer("mediaType", json!("application/x-tar")),
        layer("size", json!(4)),
        json!({"schemaVersion": 2, "config": config, "layers": []}),
        json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}),
        json!({"schemaVersion": 1, "name": "x", "fsLayers": [], "history": [], "signatures": []}),
        json!({"schemaVersion": 2, "manifests": []}),
        json!({"schemaVersion": 2, "manifests": [{"mediaType": media_type::OCI_INDEX, "digest": Digest::of(b"x"), "size": 1}]}),
        json!([]),
    ];
    for (number, document) in documents.iter().enumerate() {
        let repository = format!("bad{number}");
        registry.put_manifest(&repository, "latest", "application/json", document.to_string().as_bytes());
        let ran = pull(&place, &["--retry", "0", &format!("{}/{repository}", registry.address())]);
        assert!(matches!(ran.status, 3 | 4), "{document}: {} {}", ran.status, ran.stderr);
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        assert_untouched(&place);
    }
}

#[test]
fn the_platform_chooses_from_an_index() {
    let registry = FakeRegistry::start();
    let one = registry.put_image("multi", "one", &[b"one"]);
    let two = registry.put_image("multi", "two", &[b"two"]);
    let size = |digest: &Digest| registry.manifest_bytes("multi", digest.as_str()).len();
    let entry = |digest: &Digest, architecture: &str| {
        json!({"mediaType": media_type::OCI_MANIFEST, "digest": digest, "size": size(digest),
            "platform": {"os": "linux", "architecture": architecture}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX,
        "manifests": [entry(&one.manifest, "s390x"), entry(&two.manifest, "riscv64")]});
    let index = registry.put_manifest("multi", "latest", media_type::OCI_INDEX, index.to_string().as_bytes());
    let reference = format!("{}/multi", registry.address());
    let place = Place::new();
    let get = |platform: &str| {
        pull(&place, &["--platform", platform, &reference]).expect(0).json()["image"].clone()
    };
    let image = get("linux/s390x");
    assert_eq!((&image["digest"], &image["index_digest"]), (&json!(one.manifest), &json!(index)));
    assert_eq!(get("riscv64")["digest"], json!(two.manifest));
    let ran = pull(&place, &["--platform", "linux/mips", &reference]).expect(4);
    assert!(ran.stderr.contains("linux/s390x, linux/riscv64"), "{}", ran.stderr);
    pull(&place, &["--platform", "linux/", &reference]).expect(2);
    // An image that stands alone: refused when another platform was asked for.
    let alone = format!("{}/multi:one", registry.address());
    let ran = pull(&place, &["--platform", "linux/arm64", &alone]).expect(4);
    assert!(ran.stderr.contains("the image is for linux/amd64"), "{}", ran.stderr);
}

#[test]
fn all_tags_of_a_repository() {
    let registry = FakeRegistry::start();
    for (tag, layer) in [("v1", b"one"), ("v2", b"two"), ("v3", b"six")] {
        registry.put_image("team/app", tag, &[layer]);
    }
    registry.page(2);
    let place = Place::new();
    let repository = format!("{}/team/app", registry.address());
    let ran = pull(&place, &["--all-tags", &repository]).expect(0);
    let names: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["image"]["reference"].clone())
        .collect();
    assert_eq!(names, ["v1", "v2", "v3"].map(|tag| json!(format!("{repository}:{tag}"))));
    pull(&place, &["--policy", "never", &format!("{repository}:v2")]).expect(0);
    // One of a record has a tag always.
    std::fs::write(place.path().join("in"), ran.stdout.lines().next().unwrap()).unwrap();
    let stdin = std::fs::File::open(place.path().join("in")).unwrap();
    let ran = Ran::of(command(&place, &["-a", "-q"]).stdin(stdin)).expect(0);
    assert_eq!(ran.stdout.lines().count(), 3);
    pull(&place, &["-a", &format!("{repository}:v1")]).expect(2);
    pull(&place, &["-a", &format!("{}/team/nothing", registry.address())]).expect(4);
    let evil = Behaviour::Header("Link", "<http://192.0.2.1/v2/x>; rel=\"next\"".into());
    registry.misbehave("/tags/", usize::MAX, evil);
    pull(&place, &["-a", &repository]).expect(3);
}

#[test]
fn progress_is_data_for_who_asks() {
    let (_registry, reference, pushed) = registry();
    let place = Place::new();
    let events = place.path().join("events");
    let script = format!("exec {} --progress-fd 5 {reference} 5>$DIR/events", env!("CARGO_BIN_EXE_img-pull"));
    let ran = place.sh(&script).expect(0);
    assert_eq!(ran.stderr, "");
    let text = std::fs::read_to_string(events).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let done: Vec<_> = events.iter().filter(|event| event["event"] == "done").collect();
    assert_eq!(done.len(), 3, "{text}");
    assert!(done.iter().any(|event| event["item"] == json!(pushed.layers[0]) && event["total"] == 300_000));
    pull(&place, &["--progress-fd", "77", &reference]).expect(2);
}

fn requests_of(registry: &FakeRegistry, digest: &Digest) -> Vec<Option<String>> {
    let requests = registry.requests().into_iter().filter(|request| request.path.contains(digest.as_str()));
    requests.map(|request| request.headers.get("range").cloned()).collect()
}

fn partial(place: &Place) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(place.root().join("partial")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn twenty_at_once_fetch_each_blob_once() {
    let (registry, reference, pushed) = registry();
    let place = Place::new();
    let children: Vec<_> = (0..20)
        .map(|_| {
            command(&place, &["--timeout", "30", &reference])
                .stdout(std::process::Stdio::null())
                .spawn()
                .expect("run img-pull")
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    for layer in &pushed.layers {
        assert_eq!(requests_of(&registry, layer).len(), 1, "{layer}");
    }
    assert_eq!(
        pull(&place, &["--policy", "never", &reference]).expect(0).json()["image"]["digest"],
        json!(pushed.manifest)
    );
    assert_no_scratch(&place);
    assert!(partial(&place).is_empty());
}

#[test]
fn a_later_process_goes_on_where_a_killed_one_was() {
    let (registry, reference, pushed) = registry();
    let large = &pushed.layers[0];
    let place = Place::new();
    registry.misbehave(&format!("/blobs/{large}"), 1, Behaviour::Trickle(Duration::from_micros(200)));
    let mut child =
        command(&place, &[&reference]).stdout(std::process::Stdio::null()).spawn().expect("run img-pull");
    let file = place.root().join("partial").join(format!("sha256-{}", large.hex()));
    let give_up = std::time::Instant::now() + Duration::from_secs(30);
    while file.metadata().map_or(0, |status| status.len()) < 1000 {
        assert!(std::time::Instant::now() < give_up, "nothing comes");
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let there = file.metadata().unwrap().len();
    registry.stop_misbehaving();
    registry.forget_requests();
    pull(&place, &[&reference]).expect(0);
    assert_eq!(requests_of(&registry, large), [Some(format!("bytes={there}-299999"))]);
    assert_eq!(std::fs::read(blob(&place, large)).unwrap(), vec![7; 300_000]);
    assert!(partial(&place).is_empty());

    // What is left need not be the beginning of the blob: a crash of the machine may have damaged it.
    let place = Place::new();
    std::fs::create_dir_all(place.root().join("partial")).unwrap();
    let file = place.root().join("partial").join(format!("sha256-{}", large.hex()));
    for rubbish in [vec![8; 1000], vec![7; 300_001], vec![8; 300_000]] {
        std::fs::write(&file, rubbish).unwrap();
        let _ = std::fs::remove_file(blob(&place, large));
        pull(&place, &["--policy", "always", &reference]).expect(0);
        assert_eq!(std::fs::read(blob(&place, large)).unwrap(), vec![7; 300_000]);
        assert!(partial(&place).is_empty());
    }
    // All of it, but not yet under its name: nothing is fetched again.
    std::fs::rename(blob(&place, large), &file).unwrap();
    registry.forget_requests();
    pull(&place, &[&reference]).expect(0);
    assert!(requests_of(&registry, large).is_empty());
    // Who lies once may be a cache that is damaged: asked again, it is not to answer from what it keeps.
    let place = Place::new();
    registry.misbehave(&format!("/blobs/{large}"), 1, Behaviour::Body(vec![9; 300_000]));
    registry.forget_requests();
    pull(&place, &[&reference]).expect(0);
    let controls = |of: &str| -> Vec<Option<String>> {
        let requests = registry.requests();
        let these = requests.iter().filter(|request| request.path.ends_with(of));
        these.map(|request| request.headers.get("cache-control").cloned()).collect()
    };
    assert_eq!(controls(large.as_str()), [None, Some("no-cache".into())]);
    assert_eq!(controls("/manifests/v1"), [Some("max-age=0".into())]);
    // A registry that lies leaves nothing to go on with.
    let place = Place::new();
    registry.misbehave(&format!("/blobs/{large}"), 2, Behaviour::Body(vec![9; 300_000]));
    let ran = pull(&place, &[&reference]).expect(3);
    assert!(ran.stderr.contains("has the digest") && ran.stderr.contains("cache"), "{}", ran.stderr);
    assert!(!place.root().join("partial").join(format!("sha256-{}", large.hex())).exists());
}

#[test]
fn killed_at_any_moment_it_leaves_the_old_state_or_the_new_one() {
    let (registry, reference, _) = registry();
    registry.misbehave("/blobs/", usize::MAX, Behaviour::Trickle(Duration::from_micros(10)));
    let place = Place::new();
    for moment in 0..10 {
        let mut child =
            command(&place, &[&reference]).stdout(std::process::Stdio::null()).spawn().expect("run img-pull");
        std::thread::sleep(Duration::from_millis(moment * 3));
        child.kill().unwrap();
        child.wait().unwrap();
        let index = std::fs::read_to_string(place.root().join("index.json")).unwrap_or_default();
        assert!(index.is_empty() || serde_json::from_str::<Value>(&index).is_ok(), "{index}");
    }
    registry.stop_misbehaving();
    pull(&place, &[&reference]).expect(0);
    let store = store::Store::at(place.root(), place.run());
    store.sweep_scratch().unwrap();
    assert_no_scratch(&place);
}

#[test]
fn a_damaged_blob_is_fetched_again() {
    let (_registry, reference, pushed) = registry();
    let place = Place::new();
    pull(&place, &[&reference]).expect(0);
    let path = blob(&place, &pushed.layers[1]);
    std::fs::remove_file(&path).unwrap();
    pull(&place, &["--policy", "never", &reference]).expect(4);
    // As a crash of the machine would leave it: neither marked nor settled.
    std::fs::write(&path, "smalx").unwrap();
    pull(&place, &["--policy", "missing", &reference]).expect(0);
    assert_eq!(std::fs::read(&path).unwrap(), b"small");
}

#[test]
fn blobs_settle_after_the_tool_has_ended() {
    use std::os::unix::fs::PermissionsExt;
    let (_registry, reference, pushed) = registry();
    let place = Place::new();
    // The pipe's end is seen although the settling goes on.
    pull(&place, &[&reference]).expect(0);
    let path = blob(&place, &pushed.layers[0]);
    for _ in 0..6000 {
        if std::fs::metadata(&path).unwrap().permissions().mode() & 0o777 == 0o444 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the blob never settles");
}

#[test]
fn a_real_registry_and_what_others_read_of_it() {
    let Some(registry) = DockerRegistry::with_images() else { return };
    let place = Place::new();
    let names = ["busybox:1", "busybox:docker", "busybox:zstd", "multi:1", "layers:1"];
    let references: Vec<String> = names.iter().map(|name| format!("{}/{name}", registry.address())).collect();
    let words: Vec<&str> = references.iter().map(String::as_str).collect();
    let ran = pull(&place, &words).expect(0);
    assert_eq!(ran.stdout.lines().count(), names.len());
    for (line, reference) in ran.stdout.lines().zip(&references) {
        let digest = serde_json::from_str::<Value>(line).unwrap()["image"]["digest"].clone();
        for program in ["skopeo", "umoci"] {
            if testkit::find_program(program).is_none() {
                testkit::skip(&format!("{program} is not installed"));
            } else if program == "skopeo" && reference.ends_with(":docker") {
                // skopeo finds nothing but OCI's own media types in a layout, and the manifest is kept as it came.
            } else if program == "skopeo" {
                let seen = place.sh(&format!("skopeo inspect oci:$DIR/root:{reference}")).expect(0);
                let seen: Value = serde_json::from_str(&seen.stdout).unwrap();
                assert_eq!(seen["Digest"], digest);
            } else {
                let seen = place.sh("umoci ls --layout $DIR/root").expect(0);
                assert!(seen.stdout.lines().any(|line| line == reference), "{}", seen.stdout);
            }
        }
    }
}

#[test]
fn all_platforms_are_one_image_with_its_parts() {
    let Some(images) = testkit::images() else { return };
    let Some(real) = DockerRegistry::start(&images.registry_storage(), true) else { return };
    let place = Place::new();
    let reference = format!("{}/multi:1", real.address());
    pull(&place, &["--policy", "never", "--all-platforms", &reference]).expect(4);
    let steps = pull(&place, &["--dry-run", "--all-platforms", &reference]).expect(0).stdout;
    assert_eq!(steps.lines().count(), 4, "{steps}");
    let record = pull(&place, &["--all-platforms", &reference]).expect(0).json();
    assert_eq!(record["image"]["platform"]["architecture"], oci::Platform::host().architecture);
    let index = record["image"]["index_digest"].as_str().unwrap().to_owned();
    // Both platforms are there, without asking anybody.
    for platform in ["linux/amd64", "linux/arm64"] {
        let record =
            pull(&place, &["--policy", "never", "--platform", platform, &reference]).expect(0).json();
        assert_eq!(
            format!("linux/{}", record["image"]["platform"]["architecture"].as_str().unwrap()),
            platform
        );
        assert_eq!(record["image"]["index_digest"], index.as_str());
    }
    drop(real);
    for policy in ["never", "missing", "newer"] {
        let record = pull(&place, &["--policy", policy, "--all-platforms", &reference]).expect(0).json();
        assert_eq!(record["image"]["index_digest"], index.as_str(), "{policy}");
    }
    // Nothing of it is swept away.
    let store = store::Store::at(place.root(), place.run());
    assert_eq!(store.sweep_blobs().unwrap().blobs, 0);
    pull(&place, &["--platform", "linux/arm64", "--all-platforms", &reference]).expect(2);
}

#[test]
fn layers_are_unpacked_on_their_way() {
    let registry = FakeRegistry::start();
    let layers = [layer("a", 200_000), layer("b", 10)];
    let pushed = registry.put_image("team/app", "v1", &[&layers[0], &layers[1]]);
    let reference = format!("{}/team/app:v1", registry.address());
    let large = format!("/blobs/{}", pushed.layers[0]);
    let place = Place::new();
    // Cut in between: the unpacker waits for the rest.
    registry.misbehave(&large, 1, Behaviour::CutAfter(100_000));
    let record = pull(&place, &["--unpack", &reference]).expect(0).json();
    let paths: Vec<&str> =
        record["rootfs"]["layers"].as_array().unwrap().iter().map(|path| path.as_str().unwrap()).collect();
    assert_eq!(std::fs::read(format!("{}/a", paths[0])).unwrap(), vec![7; 200_000]);
    assert_eq!(std::fs::read(format!("{}/b", paths[1])).unwrap().len(), 10);
    assert_no_scratch(&place);
    // One that is no tar is told of, and the blob stays for whoever looks into it.
    registry.put_image("team/bad", "v1", &[&layers[0], b"not a tar"]);
    let bad = format!("{}/team/bad:v1", registry.address());
    let ran = pull(&place, &["--unpack", &bad]).expect(3);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("layer sha256:"), "{}", ran.stderr);
    assert_no_scratch(&place);
    // Without anything to download it unpacks what is missing.
    let place = Place::new();
    pull(&place, &[&reference]).expect(0);
    let record = pull(&place, &["--unpack", "--policy", "never", &reference]).expect(0).json();
    assert_eq!(record["rootfs"]["layers"].as_array().unwrap().len(), 2);
}

#[test]
fn a_reader_that_unpacks_finds_it_done() {
    let registry = FakeRegistry::start();
    let layers = [layer("a", 200_000), layer("b", 10)];
    registry.put_image("team/app", "v1", &[&layers[0], &layers[1]]);
    let reference = format!("{}/team/app:v1", registry.address());
    for announced in [true, false] {
        let place = Place::new();
        let (reader, writer) = std::io::pipe().unwrap();
        if announced {
            sys::pipe::announce(&reader, sys::pipe::Reader::Unpacks).unwrap();
        }
        // The command holds the pipe's other end until it is dropped.
        let status = command(&place, &[&reference]).stdout(writer).status().unwrap();
        assert!(status.success());
        let record: Value = serde_json::from_reader(reader).unwrap();
        assert_eq!(record["image"]["layers"].as_array().unwrap().len(), 2);
        // What was not asked for is not told, so that the record is the same.
        assert!(record.get("rootfs").is_none(), "{record}");
        let store = store::Store::at(place.root(), place.run());
        for layer in record["image"]["layers"].as_array().unwrap() {
            let diff_id = Digest::parse(layer["diff_id"].as_str().unwrap()).unwrap();
            assert_eq!(store.has_layer(&diff_id), announced);
        }
        assert_no_scratch(&place);
    }
}

fn layer(name: &str, size: usize) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size as u64);
    builder.append_data(&mut header, name, &vec![7; size][..]).unwrap();
    builder.into_inner().unwrap()
}
