//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, retag, store, tar};
use oci::Digest;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use store::{LayerInfo, Settle};
use testkit::{Place, Ran};

fn df(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sys-df"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn disk(place: &Place) -> Value {
    df(place, &["-v"]).expect(0).json()["disk"].clone()
}

fn unpacked(place: &Place, tar: &[u8]) -> String {
    let diff_id = Digest::of(tar);
    let info = LayerInfo {
        diff_id: diff_id.clone(),
        digest: diff_id.clone(),
        size: tar.len() as u64,
        entries: 1,
        created: "2026-01-01T00:00:00Z".into(),
        owner: "1-1".into(),
        unset: 0,
    };
    store(place).new_layer().unwrap().commit(&info, &Settle::new()).unwrap();
    store(place).layer_fs(&diff_id).display().to_string()
}

/// A container that has ended, of an image and these layers.
fn container(place: &Place, digest: &Digest, layers: &[&str]) -> String {
    let id = "c".repeat(64);
    let dir = store(place).container_dir(&id);
    fs::create_dir_all(dir.bundle.join("upper")).unwrap();
    fs::write(dir.bundle.join("upper/written"), vec![1; 50_000]).unwrap();
    fs::write(dir.bundle.join("last_run.json"), br#"{"started_at":"2026-01-01T00:00:00Z","exit_code":0}"#)
        .unwrap();
    let record = json!({"staves": 1, "image": {"reference": "docker.io/library/used:latest", "digest": digest},
        "rootfs": {"layers": layers, "driver": "overlay"}, "container": {"id": id, "name": "ended"},
        "volumes": [{"name": "data", "target": "/data"}]});
    fs::write(dir.bundle.join("container.json"), record.to_string()).unwrap();
    id
}

#[test]
fn nothing_takes_nothing_and_looking_makes_nothing() {
    let place = Place::new();
    let record = df(&place, &[]).expect(0).json();
    assert_eq!(record["staves"], 1);
    assert_eq!(record["disk"]["total"], json!({"size": 0, "reclaimable": 0}));
    assert_eq!(record["disk"]["images"], json!({"count": 0, "active": 0, "size": 0, "reclaimable": 0}));
    assert!(!place.root().exists());
    df(&place, &["name"]).expect(2);
}

#[test]
fn what_is_shared_counts_once_and_what_is_used_stays() {
    let place = Place::new();
    let base = tar(&[("base", &vec![1; 40_000])]);
    let (one, two) = (tar(&[("one", &vec![2; 9000])]), tar(&[("two", &vec![3; 5000])]));
    let used = put(&place, "used", &[base.clone(), one.clone()]);
    let other = put(&place, "other", &[base.clone(), two.clone()]);
    retag(&place, "other", "again");
    let layers = [unpacked(&place, &base), unpacked(&place, &one)];
    unpacked(&place, &two);
    container(&place, &used, &[&layers[0], &layers[1]]);
    let lost = store(&place).put_blob(&[9; 777], &Settle::new()).unwrap();
    for folder in ["partial", "cache/seccomp", "tmp/1-1-0/fs", "volumes/data/_data", "volumes/alone/_data"] {
        fs::create_dir_all(place.root().join(folder)).unwrap();
    }
    fs::write(place.root().join(format!("partial/sha256-{}", lost.hex())), [0; 123]).unwrap();
    fs::write(place.root().join("volumes/alone/_data/file"), vec![1; 30_000]).unwrap();

    let disk = disk(&place);
    let images = &disk["images"];
    let all: u64 = fs::read_dir(place.root().join("blobs/sha256"))
        .unwrap()
        .map(|e| e.unwrap().metadata().unwrap().len())
        .sum();
    assert_eq!((&images["count"], &images["active"], &images["size"]), (&json!(2), &json!(1), &json!(all)));
    let of = |digest: &Digest| {
        let objects = images["objects"].as_array().unwrap();
        objects.iter().find(|image| image["digest"] == digest.as_str()).unwrap().clone()
    };
    let (used, other) = (of(&used), of(&other));
    assert_eq!(used["shared"], base.len());
    assert_eq!(other["shared"], base.len());
    assert_eq!((&used["containers"], &other["containers"]), (&json!(1), &json!(0)));
    assert_eq!(other["references"].as_array().unwrap().len(), 2);
    assert!(other["unique"].as_u64().unwrap() > two.len() as u64);
    // What img-prune --all would remove: the other image and what is nobody's.
    assert_eq!(images["reclaimable"], other["unique"].as_u64().unwrap() + 777);

    let layers = &disk["layers"];
    assert_eq!((&layers["count"], &layers["active"]), (&json!(3), &json!(2)));
    assert_eq!(layers["reclaimable"], two.len());
    let containers = &disk["containers"];
    assert_eq!((&containers["count"], &containers["active"]), (&json!(1), &json!(0)));
    assert!(containers["objects"][0]["writable"].as_u64().unwrap() >= 50_000, "{containers}");
    assert!(containers["reclaimable"].as_u64() > containers["objects"][0]["writable"].as_u64());
    let volumes = &disk["volumes"];
    assert_eq!((&volumes["count"], &volumes["active"]), (&json!(2), &json!(1)));
    assert!(volumes["reclaimable"].as_u64().unwrap() >= 30_000);
    assert_eq!((&disk["downloads"]["reclaimable"], &disk["downloads"]["active"]), (&json!(123), &json!(0)));
    assert_eq!((&disk["unfinished"]["count"], &disk["unfinished"]["active"]), (&json!(1), &json!(0)));
    assert_eq!(disk["cache"]["count"], 1);

    // It is what img-prune says.
    let mut command = place.command("img-prune");
    let pruned = Ran::of(command.arg("--all")).expect(0).json()["pruned"].clone();
    assert_eq!(pruned["images"].as_array().unwrap().len(), 2);
    let left = self::disk(&place);
    assert_eq!(left["images"]["reclaimable"], 0, "{left}");
    assert_eq!(left["images"]["size"].as_u64().unwrap(), all - images["reclaimable"].as_u64().unwrap());
    assert_eq!((&left["layers"]["reclaimable"], &left["downloads"]["count"]), (&json!(0), &json!(0)));
    assert_eq!(left["unfinished"]["count"], 0);
}

#[test]
fn a_download_under_way_is_active() {
    let place = Place::new();
    let digest = Digest::of(b"hello world");
    let mut download = store(&place).claim_download(&digest, 11).unwrap().unwrap();
    download.write(b"hello").unwrap();
    let downloads = disk(&place)["downloads"].clone();
    assert_eq!(
        (&downloads["active"], &downloads["size"], &downloads["reclaimable"]),
        (&json!(1), &json!(5), &json!(0))
    );
    assert_eq!(downloads["objects"][0]["digest"], digest.as_str());
}

#[test]
fn people_get_tables_and_no_escapes() {
    let place = Place::new();
    put(&place, "app", &[tar(&[("a", b"1")])]);
    fs::create_dir_all(place.root().join("volumes/ev\u{1b}il")).unwrap();
    let text = df(&place, &["--output", "table"]).expect(0).stdout;
    assert!(text.starts_with("TYPE") && text.lines().count() == 9, "{text}");
    let text = df(&place, &["--output", "table", "-v"]).expect(0).stdout;
    assert!(text.contains("docker.io/library/app:latest") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn one_that_is_broken_does_not_hide_the_others() {
    let place = Place::new();
    put(&place, "app", &[tar(&[("a", b"1")])]);
    let used = put(&place, "used", &[tar(&[("b", b"1")])]);
    let id = container(&place, &used, &[]);
    fs::write(place.root().join("volumes"), b"no directory").unwrap();
    df(&place, &[]).expect(1);
    fs::remove_file(place.root().join("volumes")).unwrap();
    let manifest = store(&place).find_image("app").unwrap();
    fs::write(store(&place).blob_path(manifest.digest()), b"damaged").unwrap();
    assert_eq!(disk(&place)["images"]["count"], 2);
    fs::write(place.root().join("containers").join(id).join("container.json"), b"{").unwrap();
    let ran = df(&place, &[]).expect(3);
    assert!(
        ran.stderr.contains("container.json") && ran.json()["disk"]["images"]["count"] == 2,
        "{}",
        ran.stderr
    );
    fs::remove_dir_all(place.root().join("containers")).unwrap();
    fs::write(place.root().join("index.json"), b"[").unwrap();
    assert!(df(&place, &[]).expect(1).stdout.is_empty());
}
