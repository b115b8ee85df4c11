use super::*;
use crate::Settle;
use oci::manifest::media_type::{OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST};
use std::time::{Duration, SystemTime};

struct Fixture(PathBuf);

impl Fixture {
    fn new(name: &str) -> (Fixture, Store) {
        let dir = std::env::temp_dir().join(format!("store-index-{name}-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        (Fixture(dir), store)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct Made {
    manifest: Digest,
    config: Digest,
    layer: Digest,
    size: u64,
}

/// An image of one layer that differs by `seed`.
fn make(store: &Store, seed: &str) -> Made {
    let settle = Settle::new();
    let layer = store.put_blob(format!("layer {seed}").as_bytes(), &settle).unwrap();
    let config =
        json!({"os": "linux", "architecture": "amd64", "config": {"Healthcheck": {"Test": ["NONE"]}},
        "rootfs": {"type": "layers", "diff_ids": [layer]}})
        .to_string();
    let config_digest = store.put_blob(config.as_bytes(), &settle).unwrap();
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": config_digest, "size": config.len()},
        "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": layer, "size": 6 + seed.len()}]})
    .to_string();
    let digest = store.put_blob(manifest.as_bytes(), &settle).unwrap();
    Made { manifest: digest, config: config_digest, layer, size: manifest.len() as u64 }
}

fn name(store: &Store, text: &str, made: &Made) -> Vec<Digest> {
    let reference = Reference::parse(text).unwrap();
    let entry = NewEntry {
        reference: &reference,
        media_type: OCI_MANIFEST,
        digest: &made.manifest,
        size: made.size,
        platform: Some(&Platform::of("linux", "amd64", None)),
        index_digest: None,
        config_digest: &made.config,
    };
    store.put_reference(&entry, &[&made.manifest, &made.config, &made.layer]).unwrap()
}

#[test]
fn an_image_is_found_by_all_it_is_called() {
    let (_fixture, store) = Fixture::new("find");
    assert_eq!(store.find_image("debian:12").unwrap_err().kind(), Kind::NotFound);
    let (one, two) = (make(&store, "one"), make(&store, "two"));
    assert!(name(&store, "debian:12", &one).is_empty());
    assert!(name(&store, "localhost:5000/x:y", &two).is_empty());
    let texts = [
        "debian:12",
        "docker.io/library/debian:12",
        "library/debian:12",
        one.manifest.as_str(),
        one.config.as_str(),
        one.manifest.hex(),
        &one.manifest.hex()[..20],
        one.config.short(),
    ];
    for text in texts {
        assert_eq!(store.find_image(text).unwrap().digest(), &one.manifest, "{text}");
    }
    for text in ["debian", "debian:13", "", "../x", "sha256:", "nonsense!", one.layer.as_str()] {
        assert_eq!(store.find_image(text).unwrap_err().kind(), Kind::NotFound, "{text}");
    }
    let image = store.image(&Reference::parse("debian:12").unwrap()).unwrap();
    assert_eq!(image.config["config"]["Healthcheck"]["Test"][0], "NONE");
    assert_eq!((image.digest.as_str(), image.layers.len()), (one.manifest.as_str(), 1));
    assert!(store.root().join("oci-layout").exists());
}

#[test]
fn a_moved_name_leaves_its_image_unnamed_until_it_is_named_again() {
    let (_fixture, store) = Fixture::new("move");
    let (one, two) = (make(&store, "one"), make(&store, "two"));
    name(&store, "a", &one);
    name(&store, "a", &two);
    let names = || store.images().unwrap().iter().map(|e| e.name().map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(names(), [Some("docker.io/library/a:latest".into()), None]);
    assert_eq!(store.find_image(one.config.short()).unwrap().digest(), &one.manifest);
    name(&store, "b", &one);
    assert_eq!(
        names(),
        [Some("docker.io/library/a:latest".into()), Some("docker.io/library/b:latest".into())]
    );
    let before = std::fs::metadata(store.root().join("index.json")).unwrap().modified().unwrap();
    name(&store, "b", &one);
    assert_eq!(std::fs::metadata(store.root().join("index.json")).unwrap().modified().unwrap(), before);
    assert!(store.remove_name("docker.io/library/b:latest").unwrap().unwrap().1);
    assert!(store.remove_name("docker.io/library/b:latest").unwrap().is_none());
    assert_eq!(store.remove_image(&two.manifest).unwrap().len(), 1);
    assert!(store.images().unwrap().is_empty());
}

#[test]
fn a_sweep_keeps_what_is_named_and_a_name_is_not_given_to_what_it_took() {
    let (_fixture, store) = Fixture::new("sweep");
    let (one, two) = (make(&store, "one"), make(&store, "two"));
    name(&store, "a", &one);
    assert_eq!(store.sweep_blobs().unwrap().blobs, 3);
    assert_eq!(store.sweep_blobs().unwrap(), Swept::default());
    assert!(store.image(&Reference::parse("a").unwrap()).is_ok());
    assert_eq!(name(&store, "b", &two), [two.manifest, two.config, two.layer]);
    assert_eq!(store.images().unwrap().len(), 1);
}

#[test]
fn what_other_programs_wrote_stays_and_is_understood() {
    let (_fixture, store) = Fixture::new("foreign");
    let (one, two) = (make(&store, "one"), make(&store, "two"));
    let foreign = json!({"schemaVersion": 2, "theirs": [1], "manifests": [
        {"mediaType": "text/plain", "digest": "md5:zz", "size": "many"},
        {"mediaType": OCI_MANIFEST, "digest": one.manifest, "size": one.size, "odd": {"k": 1},
            "annotations": {ANNOTATION_REF_NAME: "stable"}}]});
    std::fs::write(store.root().join("index.json"), serde_json::to_string_pretty(&foreign).unwrap()).unwrap();
    let found = store.find_image("stable").unwrap();
    assert_eq!(store.load_image(&found, &Platform::host()).unwrap().reference, "stable");
    assert_eq!(store.find_image(one.config.short()).unwrap().digest(), &one.manifest);
    name(&store, "a", &two);
    let after: Value =
        serde_json::from_slice(&std::fs::read(store.root().join("index.json")).unwrap()).unwrap();
    assert_eq!((&after["theirs"], &after["manifests"][0]), (&foreign["theirs"], &foreign["manifests"][0]));
    assert_eq!(after["manifests"][1], foreign["manifests"][1]);
    // What an entry that is not understood needs is not known.
    assert_eq!(store.sweep_blobs().unwrap_err().kind(), Kind::Failed);
    std::fs::write(store.root().join("index.json"), "{").unwrap();
    assert_eq!(store.find_image("a").unwrap_err().kind(), Kind::Failed);
    std::fs::write(store.root().join("index.json"), "\0\0\0").unwrap();
    assert_eq!(store.find_image("a").unwrap_err().kind(), Kind::NotFound);
}

#[test]
fn a_long_index_is_found_in_by_its_cache_with_the_same_results() {
    let (_fixture, store) = Fixture::new("cache");
    let made: Vec<Made> = (0..200).map(|n| make(&store, &n.to_string())).collect();
    for (n, made) in made.iter().enumerate() {
        name(&store, &format!("image{n}:t"), made);
    }
    let index = store.root().join("index.json");
    let cache = store.root().join("cache/images");
    // Just changed: not cached, but found.
    store.find_image("image7:t").unwrap();
    assert!(!cache.exists());
    let old = SystemTime::now() - Duration::from_secs(10);
    std::thread::sleep(Duration::from_millis(1100));
    store.find_image("image7:t").unwrap();
    assert!(cache.exists());
    for (n, made) in made.iter().enumerate() {
        let by_name = store.find_image(&format!("image{n}:t")).unwrap();
        assert_eq!(by_name.digest(), &made.manifest);
        assert_eq!(store.find_image(&made.config.hex()[..24]).unwrap(), by_name);
        assert_eq!(store.find_image(&made.manifest.hex()[..24]).unwrap(), by_name);
    }
    for text in ["image", "image200:t", "zzz", "image1:u"] {
        assert_eq!(store.find_image(text).unwrap_err().kind(), Kind::NotFound);
    }
    // Changed behind its back, with an old time.
    std::fs::write(&index, "{\"manifests\":[]}").unwrap();
    std::fs::File::options().write(true).open(&index).unwrap().set_modified(old).unwrap();
    assert_eq!(store.find_image("image7:t").unwrap_err().kind(), Kind::NotFound);
    // A broken cache is no obstacle.
    std::fs::write(&cache, "nonsense").unwrap();
    name(&store, "image7:t", &made[7]);
    store.find_image("image7:t").unwrap();
}

#[test]
fn an_image_is_put_whole_or_not_at_all() {
    let (_fixture, store) = Fixture::new("put");
    let settle = Settle::new();
    let layer = store.put_blob(b"a layer", &settle).unwrap();
    let documents = |layer: &Digest, cmd: &str| {
        let config = json!({"os": "linux", "architecture": "amd64", "config": {"Cmd": [cmd]},
            "rootfs": {"type": "layers", "diff_ids": [layer]}})
        .to_string();
        let manifest = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": Digest::of(config.as_bytes()), "size": config.len()},
            "layers": [{"mediaType": OCI_LAYER_GZIP, "digest": layer, "size": 7}]})
        .to_string();
        (manifest, config)
    };
    let name = Reference::parse("made:1").unwrap();
    let put = |(manifest, config): &(String, String), name: Option<&Reference>| {
        let config = Some(config.as_bytes());
        let new =
            NewImage { manifest: manifest.as_bytes(), media_type: None, config, name, index_digest: None };
        store.put_image(&new, &settle)
    };
    let (one, two) = (documents(&layer, "one"), documents(&layer, "two"));
    let entry = put(&one, None).unwrap();
    assert_eq!((entry.name(), entry.digest()), (None, &Digest::of(one.0.as_bytes())));
    assert_eq!(entry.config_digest(), Some(Digest::of(one.1.as_bytes())));
    assert_eq!(put(&one, None).unwrap(), entry);
    assert_eq!(put(&one, Some(&name)).unwrap().name(), Some("docker.io/library/made:1"));
    assert_eq!(store.images().unwrap().len(), 1);
    put(&two, Some(&name)).unwrap();
    assert_eq!(store.image(&name).unwrap().config["config"]["Cmd"][0], "two");
    assert_eq!(store.images().unwrap().len(), 2);
    assert_eq!(store.sweep_blobs().unwrap(), Swept::default());
    // What does not fit together is refused and leaves nothing.
    let before = store.images().unwrap();
    assert_eq!(put(&documents(&Digest::of(b"nowhere"), "x"), None).unwrap_err().kind(), Kind::NotFound);
    assert_eq!(put(&(one.0.clone(), two.1.clone()), None).unwrap_err().kind(), Kind::Input);
    assert_eq!(put(&(one.1.clone(), one.1.clone()), None).unwrap_err().kind(), Kind::Input);
    assert_eq!(put(&("{}".into(), String::new()), None).unwrap_err().kind(), Kind::Input);
    assert_eq!(store.images().unwrap(), before);
}
