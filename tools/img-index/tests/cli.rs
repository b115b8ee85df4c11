//! The tool as a program, on images of a registry in this process and of the store.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use oci::Digest;
use oci::manifest::media_type as t;
use serde_json::{Value, json};
use testkit::{Behaviour, FakeRegistry, Place, Ran};

fn index(place: &Place, words: &[&str]) -> Ran {
    let mut command = place.command(env!("CARGO_BIN_EXE_img-index"));
    command.env("REGISTRY_AUTH_FILE", place.path().join("auth.json"));
    Ran::of(command.args(["--timeout", "20", "--retry", "0"]).args(words))
}

/// An image for a platform, and its place. Its layer is the same for all.
fn put(registry: &FakeRegistry, tag: &str, platform: &Value) -> (Digest, String) {
    let layer = images::tar(&[("hello", b"hello")]);
    let mut config = platform.clone();
    config["rootfs"] = json!({"type": "layers", "diff_ids": [Digest::of(&layer)]});
    config["config"] = json!({"Labels": {"tag": tag}});
    let config = config.to_string();
    let manifest = json!({"schemaVersion": 2, "mediaType": t::OCI_MANIFEST,
        "config": {"mediaType": t::OCI_CONFIG, "digest": registry.put_blob(config.as_bytes()), "size": config.len()},
        "layers": [{"mediaType": t::OCI_LAYER, "digest": registry.put_blob(&layer), "size": layer.len()}]});
    let digest = registry.put_manifest("app", tag, t::OCI_MANIFEST, manifest.to_string().as_bytes());
    (digest, format!("docker://{}/app:{tag}", registry.address()))
}

fn linux(architecture: &str) -> Value {
    json!({"os": "linux", "architecture": architecture})
}

fn platforms(record: &Value) -> Vec<String> {
    let listed = record["image"]["platforms"].as_array().unwrap().iter();
    listed
        .map(|line| {
            [&line["os"], &line["architecture"], &line["variant"]]
                .map(|word| word.as_str().unwrap_or("-"))
                .join("/")
        })
        .collect()
}

/// The index's own bytes in the store.
fn stored(place: &Place, name: &str) -> (Digest, Value) {
    let entry = images::store(place).find_image(name).unwrap();
    let bytes = std::fs::read(images::store(place).blob_path(entry.digest())).unwrap();
    assert_eq!(Digest::of(&bytes), *entry.digest());
    (entry.digest().clone(), serde_json::from_slice(&bytes).unwrap())
}

#[test]
fn one_image_of_several() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let (_, arm) = put(
        &registry,
        "arm",
        &json!({"os": "linux", "architecture": "arm", "variant": "v7", "os.features": ["x"]}),
    );
    let (old, riscv) = put(&registry, "riscv", &linux("riscv64"));
    images::put(&place, "app:here", &[images::tar(&[("a", b"a")])]);
    let words = ["app:1", "app:here", arm.as_str(), riscv.as_str()];
    let host = oci::Platform::host().architecture;
    let steps = index(&place, &[words.as_slice(), &["--dry-run"]].concat()).expect(0).stdout;
    assert_eq!((steps.matches("\"add\"").count(), steps.matches("\"copy\"").count()), (3, 4), "{steps}");
    assert!(images::store(&place).find_image("app:1").is_err());

    let record = index(&place, &words).expect(0).json();
    assert_eq!(
        platforms(&record),
        [format!("linux/{host}/-"), "linux/arm/v7".into(), "linux/riscv64/-".into()]
    );
    assert_eq!(record["image"]["reference"], "docker.io/library/app:1");
    assert_eq!(record["image"]["platform"]["architecture"], host.as_str());
    let (digest, json) = stored(&place, "app:1");
    assert_eq!(record["index"]["digest"], json!(digest));
    assert_eq!(json["mediaType"], t::OCI_INDEX);
    assert_eq!(
        json["manifests"][1]["platform"],
        json!({"architecture": "arm", "os": "linux", "os.features": ["x"], "variant": "v7"})
    );
    // Nothing of it goes in a sweep, and every blob is there.
    assert_eq!(images::store(&place).sweep_blobs().unwrap().blobs, 0);
    assert!(images::store(&place).blob_path(&old).is_file());

    // A name is not taken without a word; what is there already changes nothing.
    assert!(index(&place, &words).expect(5).stderr.contains("--amend"));
    index(&place, &["app:here", &arm]).expect(5);
    index(&place, &["app:here", "--add", &arm]).expect(5);
    index(&place, &["no:such", "--add", &arm]).expect(4);
    assert_eq!(
        index(&place, &[words.as_slice(), &["--amend", "-q"]].concat()).expect(0).stdout.trim(),
        digest.as_str()
    );

    // Another for the same platform takes its place; the old index is not kept.
    let (new, riscv) = put(&registry, "riscv-2", &linux("riscv64"));
    let words = [
        "app:1",
        "--add",
        &riscv,
        "--remove",
        "arm",
        "--annotate",
        &host,
        "--variant",
        "v3",
        "--annotation",
        "k=v",
        "--entry-annotation",
        "e=f",
    ];
    let record = index(&place, &words).expect(0).json();
    assert_eq!(platforms(&record), [format!("linux/{host}/v3"), "linux/riscv64/-".into()]);
    let (_, json) = stored(&place, "app:1");
    assert_eq!(
        (&json["annotations"], &json["manifests"][0]["annotations"]),
        (&json!({"k": "v"}), &json!({"e": "f"}))
    );
    assert_eq!(json["manifests"][1]["digest"], json!(new));
    assert!(images::store(&place).find_image(digest.as_str()).is_err());
    assert!(images::store(&place).sweep_blobs().unwrap().blobs > 0);
    assert!(!images::store(&place).blob_path(&old).is_file());

    // Into docker's words, which have no annotations.
    assert!(index(&place, &["app:1", "--format", "docker"]).expect(3).stderr.contains("annotations"));
    index(&place, &["app:1", "--annotation", "k"]).expect(0);
    index(&place, &["app:1", "--annotate", &host, "--entry-annotation", "e"]).expect(0);
    index(&place, &["app:1", "--format", "docker"]).expect(0);
    let (_, json) = stored(&place, "app:1");
    assert_eq!(
        (json["mediaType"].as_str(), json["manifests"][0]["mediaType"].as_str()),
        (Some(t::DOCKER_LIST), Some(t::DOCKER_MANIFEST))
    );
    images::store(&place).sweep_blobs().unwrap();
    let child = Digest::parse(json["manifests"][1]["digest"].as_str().unwrap()).unwrap();
    assert!(images::store(&place).blob_path(&child).is_file());
}

#[test]
fn what_cannot_be_is_refused_and_leaves_the_name_alone() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let (arm, arm_place) = put(&registry, "arm", &linux("arm64"));
    let (_, twin) = put(&registry, "twin", &linux("arm64"));
    let (_, silent) = put(&registry, "silent", &json!({}));
    let ran = index(&place, &["app:1", &arm_place, &twin]).expect(5);
    assert!(ran.stderr.contains("two images are for linux/arm64"), "{}", ran.stderr);
    assert!(index(&place, &["app:1", &silent]).expect(3).stderr.contains("--os"));
    index(&place, &["app:1", &silent, "--os", "linux", "--arch", "mips64le"]).expect(0);
    index(&place, &["app:1", "--remove", "linux/mips64le"]).expect(5);
    index(&place, &["app:1", "--remove", "linux/386"]).expect(4);
    index(&place, &["app:1", "--os", "linux", "--annotation", "k"]).expect(2);
    index(&place, &["app@sha256:00", &arm_place]).expect(2);
    index(&place, &["APP", &arm_place]).expect(2);
    index(&place, &["two", &arm_place, "--platform", "linux/amd64"]).expect(4);
    index(&place, &["two", "nothing"]).expect(4);
    index(&place, &["two", "--add", &arm_place, &twin]).expect(2);
    let ran = index(&place, &["two"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (3, ""), "{}", ran.stderr);

    // An index that holds itself by way of others, a child of another size or content, one that is not there.
    let size = registry.manifest_bytes("app", "arm").len();
    let wrap = |tag: &str, digest: &Digest, kind: &str, size: usize| {
        let list = json!({"schemaVersion": 2, "mediaType": t::OCI_INDEX, "manifests": [
            {"mediaType": kind, "digest": digest, "size": size, "platform": linux("arm64")}]});
        let bytes = list.to_string().into_bytes();
        (
            registry.put_manifest("app", tag, t::OCI_INDEX, &bytes),
            bytes.len(),
            format!("docker://{}/app:{tag}", registry.address()),
        )
    };
    let (mut digest, mut length, mut place_of) = wrap("nested", &arm, t::OCI_MANIFEST, size);
    let (_, _, nested_once) = wrap("once", &digest, t::OCI_INDEX, length);
    for depth in 0..6 {
        (digest, length, place_of) = wrap(&format!("nested{depth}"), &digest, t::OCI_INDEX, length);
    }
    assert!(index(&place, &["two", "-a", &place_of]).expect(3).stderr.contains("nested too deeply"));
    assert!(
        index(&place, &["two", "--platform", "linux/arm64", &place_of])
            .expect(3)
            .stderr
            .contains("index in an index")
    );
    // One level is what some builders make: its images are taken.
    assert_eq!(platforms(&index(&place, &["nest", "-a", &nested_once]).expect(0).json()), ["linux/arm64/-"]);
    let (_, _, larger) = wrap("larger", &arm, t::OCI_MANIFEST, size + 1);
    assert!(index(&place, &["two", "-a", &larger]).expect(3).stderr.contains("announced"));
    let (_, _, gone) = wrap("gone", &Digest::of(b"gone"), t::OCI_MANIFEST, size);
    index(&place, &["two", "-a", &gone]).expect(4);
    registry.misbehave(arm.as_str(), 9, Behaviour::Body(vec![b' '; size]));
    let (_, _, liar) = wrap("liar", &arm, t::OCI_MANIFEST, size);
    index(&place, &["two", "-a", &liar]).expect(3);
    registry.stop_misbehaving();
    // A layer that is another one: nothing gets the name.
    let other = Place::new();
    let layer = images::tar(&[("hello", b"hello")]);
    registry.misbehave(Digest::of(&layer).as_str(), 9, Behaviour::Body(vec![1; layer.len()]));
    index(&other, &["two", &arm_place]).expect(3);
    assert!(images::store(&other).images().unwrap().is_empty());
    assert!(images::store(&place).find_image("two").is_err());
}

#[test]
fn records_are_images_and_a_list_is_taken_with_all_it_says() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let (arm, _) = put(&registry, "arm", &linux("arm64"));
    let (amd, _) = put(&registry, "amd", &linux("amd64"));
    let entry = |digest: &Digest, tag: &str, extra: Value| {
        let mut entry = json!({"mediaType": t::OCI_MANIFEST, "digest": digest, "size": registry.manifest_bytes("app", tag).len()});
        entry.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        entry
    };
    let note =
        json!({"vnd.docker.reference.digest": amd, "vnd.docker.reference.type": "attestation-manifest"});
    let statement = json!({"schemaVersion": 2, "mediaType": t::OCI_MANIFEST,
        "config": {"mediaType": t::OCI_CONFIG, "digest": registry.put_blob(b"{}"), "size": 2},
        "layers": [{"mediaType": "application/vnd.in-toto+json", "digest": registry.put_blob(b"{\"a\":1}"), "size": 7}]});
    let attestation =
        registry.put_manifest("app", "attestation", t::OCI_MANIFEST, statement.to_string().as_bytes());
    let list = json!({"schemaVersion": 2, "mediaType": t::OCI_INDEX, "manifests": [
        entry(&amd, "amd", json!({"platform": {"architecture": "amd64", "os": "linux", "os.version": "1"}})),
        entry(&arm, "arm", json!({"platform": linux("arm64"), "annotations": {"a": "b"}})),
        entry(&attestation, "attestation", json!({"platform": {"architecture": "unknown", "os": "unknown"}, "annotations": note})),
    ]});
    registry.put_manifest("app", "all", t::OCI_INDEX, list.to_string().as_bytes());
    let all = format!("docker://{}/app:all", registry.address());
    index(&place, &["app:1", "-a", &all]).expect(0);
    let (_, json) = stored(&place, "app:1");
    assert_eq!(json["manifests"], list["manifests"]);
    // What a build said of an image goes with it.
    let record = index(&place, &["app:1", "--remove", "amd64"]).expect(0).json();
    assert_eq!(record["index"]["removed"], json!([amd, attestation]));
    assert_eq!(platforms(&record), ["linux/arm64/-"]);

    images::put(&place, "here", &[images::tar(&[("a", b"a")])]);
    let image = images::store(&place).image(&oci::Reference::parse("here").unwrap()).unwrap();
    let file = place.path().join("records");
    std::fs::write(&file, json!({"staves": 1, "image": image}).to_string()).unwrap();
    let mut command = place.command(env!("CARGO_BIN_EXE_img-index"));
    let ran = Ran::of(command.arg("from:records").stdin(std::fs::File::open(&file).unwrap())).expect(0);
    assert_eq!(platforms(&ran.json()), [format!("linux/{}/-", oci::Platform::host().architecture)]);
}
