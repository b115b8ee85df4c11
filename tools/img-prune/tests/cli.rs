//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{count, put, store, tar};
use oci::Digest;
use serde_json::json;
use std::fs;
use std::process::Command;
use store::{LayerInfo, Settle};
use testkit::{Place, Ran};

fn prune(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-prune"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn unpacked(place: &Place, tar: &[u8]) -> Digest {
    let diff_id = Digest::of(tar);
    let info = LayerInfo {
        diff_id: diff_id.clone(),
        digest: diff_id.clone(),
        size: 0,
        entries: 1,
        created: "2026-01-01T00:00:00Z".into(),
        owner: "1-1".into(),
        unset: 0,
    };
    store(place).new_layer().unwrap().commit(&info, &Settle::new()).unwrap();
    diff_id
}

#[test]
fn dangling_ones_and_what_dead_tools_left() {
    let place = Place::new();
    prune(&place, &[]).expect(0);
    let old = tar(&[("old", b"")]);
    let new = tar(&[("new", b"")]);
    put(&place, "a", std::slice::from_ref(&old));
    put(&place, "a", std::slice::from_ref(&new));
    unpacked(&place, &old);
    let kept = unpacked(&place, &new);
    store(&place).put_blob(b"of a pull that was killed", &Settle::new()).unwrap();
    fs::create_dir_all(place.root().join("tmp/1-1-0/fs/deep")).unwrap();
    fs::create_dir_all(store(&place).layer_fs(&Digest::of(b"half"))).unwrap();
    fs::create_dir_all(place.run().join("fresh-of-another-boot")).unwrap();
    assert_eq!(prune(&place, &["--dry-run"]).expect(0).stdout.lines().count(), 1);
    let pruned = prune(&place, &[]).expect(0).json()["pruned"].clone();
    assert_eq!(pruned["images"].as_array().unwrap().len(), 1);
    assert_eq!(
        (pruned["layers"].as_u64(), pruned["blobs"].as_u64(), pruned["unfinished"].as_u64()),
        (Some(2), Some(4), Some(1))
    );
    assert!(pruned["reclaimed_bytes"].as_u64().unwrap() > 1000);
    assert!(store(&place).has_layer(&kept) && store(&place).find_image("a").is_ok());
    assert_eq!((count(&place, "layers"), count(&place, "blobs/sha256"), count(&place, "tmp")), (1, 3, 0));
    assert!(!place.run().join("fresh-of-another-boot").exists());
}

#[test]
fn all_but_those_of_containers() {
    let place = Place::new();
    let digest = put(&place, "used", &[tar(&[("a", b"")])]);
    put(&place, "unused", &[tar(&[("b", b"")])]);
    let dir = store(&place).container_dir(&"c".repeat(64));
    fs::create_dir_all(&dir.bundle).unwrap();
    let record =
        json!({"image": {"reference": "used", "digest": digest}, "container": {"id": dir.id, "name": "web"}});
    fs::write(dir.bundle.join("container.json"), record.to_string()).unwrap();
    let pruned = prune(&place, &["--all"]).expect(0).json()["pruned"].clone();
    assert_eq!(pruned["images"][0]["reference"], "docker.io/library/unused:latest");
    assert_eq!(store(&place).images().unwrap().len(), 1);
    // What a container needs is not known any more: nothing goes.
    fs::write(dir.bundle.join("container.json"), "{").unwrap();
    prune(&place, &["--all"]).expect(3);
    assert_eq!(store(&place).images().unwrap().len(), 1);
    fs::remove_dir_all(&dir.bundle).unwrap();
    prune(&place, &["--all"]).expect(0);
    assert_eq!((store(&place).images().unwrap().len(), count(&place, "blobs/sha256")), (0, 0));
}

#[test]
fn what_is_of_no_use_in_the_cache() {
    let place = Place::new();
    put(&place, "a", &[tar(&[("a", b"")])]);
    let cache = place.root().join("cache");
    fs::create_dir_all(cache.join("seccomp")).unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_hours(40 * 24);
    let file = |name: &str, is_old: bool| {
        let path = cache.join(name);
        fs::write(&path, b"x").unwrap();
        if is_old {
            let times = fs::FileTimes::new().set_accessed(old).set_modified(old);
            fs::File::options().write(true).open(&path).unwrap().set_times(times).unwrap();
        }
    };
    // Of another index.json; unused; left by a writer that was killed; and two that are neither.
    file("images", false);
    file("seccomp/aa", true);
    file("seccomp/bb.77", true);
    file("seccomp/cc", false);
    file("seccomp/dd.88", false);
    let stale = prune(&place, &["--dry-run"]).expect(0);
    assert_eq!(stale.stdout.matches("\"cache\":").count(), 3, "{}", stale.stdout);
    let pruned = prune(&place, &[]).expect(0).json()["pruned"].clone();
    assert_eq!(pruned["cached"], 3);
    assert!(pruned["reclaimed_bytes"].as_u64().unwrap() >= 3 * 512);
    assert_eq!((count(&place, "cache"), count(&place, "cache/seccomp")), (1, 2));
    assert_eq!(prune(&place, &["--cache"]).expect(0).json()["pruned"]["cached"], 2);
    assert_eq!(count(&place, "cache/seccomp"), 0);
    assert!(store(&place).find_image("a").is_ok());
}

#[test]
fn filters_by_age_and_label() {
    let place = Place::new();
    // Created 2026-01-02T03:04:05Z, labelled name=NAME.
    for (name, data) in [("old", b"a"), ("kept", b"b")] {
        put(&place, name, &[tar(&[(name, data)])]);
    }
    let left = || store(&place).images().unwrap().len();
    for filter in
        ["until=2026-01-02T03:04:05Z", "until=1767323045", "label=name=new", "label!=name", "dangling=true"]
    {
        prune(&place, &["--all", "--filter", filter]).expect(0);
        assert_eq!(left(), 2, "{filter}");
    }
    // Without a name only, unless it is said otherwise.
    prune(&place, &["--filter", "until=1h"]).expect(0);
    assert_eq!(left(), 2);
    let filters = ["--all", "--filter", "until=2026-01-02T03:04:06Z", "--filter", "label!=name=kept"];
    let dry = prune(&place, &[&filters[..], &["--dry-run"]].concat()).expect(0);
    assert!(dry.stdout.lines().count() == 1 && dry.stdout.contains("old"), "{}", dry.stdout);
    prune(&place, &filters).expect(0);
    assert!(left() == 1 && store(&place).find_image("kept").is_ok());
    prune(&place, &["--filter", "dangling=false"]).expect(0);
    assert_eq!(left(), 0);
    for wrong in ["until=soon", "colour=red", "dangling=maybe", "label"] {
        prune(&place, &["--filter", wrong]).expect(2);
    }
}
