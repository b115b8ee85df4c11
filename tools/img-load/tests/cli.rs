//! The tool as a program, on archives made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{count, store, tar};
use oci::Digest;
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use testkit::{Place, Ran};

fn load(place: &Place, arguments: &[&str], archive: &[u8]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-load"));
    place.furnish(&mut command);
    let file = place.path().join("stdin");
    std::fs::write(&file, archive).unwrap();
    Ran::of(command.args(arguments).stdin(std::fs::File::open(file).unwrap()))
}

/// Members in this order; a member whose content begins with `->` is a symbolic link.
fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in members {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        if let Some(target) = content.strip_prefix(b"->") {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            builder.append_link(&mut header, path, std::str::from_utf8(target).unwrap()).unwrap();
        } else {
            header.set_size(content.len() as u64);
            builder.append_data(&mut header, path, *content).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn config(layers: &[&[u8]]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    json!({"architecture": "amd64", "os": "linux", "config": {"Healthcheck": {"Test": ["NONE"]}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}})
    .to_string()
    .into_bytes()
}

fn manifest_json(config: &str, tags: &[&str], layers: &[&str]) -> Vec<u8> {
    json!([{"Config": config, "RepoTags": tags, "Layers": layers}]).to_string().into_bytes()
}

/// What dockers before 25 write: a folder for each layer, the list last.
fn docker_archive(tags: &[&str], layers: &[&[u8]]) -> Vec<u8> {
    let config = config(layers);
    let name = format!("{}.json", Digest::of(&config).hex());
    let paths: Vec<String> = (0..layers.len()).map(|at| format!("{at:064}/layer.tar")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let mut members: Vec<(&str, &[u8])> = paths.iter().copied().zip(layers.iter().copied()).collect();
    let list = manifest_json(&name, tags, &paths);
    members.push((&name, &config));
    members.push(("manifest.json", &list));
    archive(&members)
}

#[test]
fn dockers_archive_keeps_the_image_id() {
    let place = Place::new();
    let (one, two) = (tar(&[("a", b"1")]), tar(&[("b", b"2")]));
    let bytes = docker_archive(&["app:1", "reg.example/app:2"], &[&one, &two]);
    let ran = load(&place, &[], &bytes).expect(0);
    let records: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = records.iter().map(|record| record["image"]["reference"].as_str().unwrap()).collect();
    assert_eq!(names, ["docker.io/library/app:1", "reg.example/app:2"]);
    let id = Digest::of(&config(&[&one, &two]));
    assert_eq!(records[0]["image"]["id"], id.as_str());
    assert_eq!(records[0]["image"]["config"]["config"]["Healthcheck"]["Test"][0], "NONE");
    assert_eq!(records[0]["image"]["layers"][1]["diff_id"], Digest::of(&two).as_str());
    for text in ["app:1", "reg.example/app:2", &id.hex()[..12]] {
        assert!(store(&place).find_image(text).is_ok(), "{text}");
    }
    // The same again changes nothing; another name is one more.
    let before = count(&place, "blobs/sha256");
    assert_eq!(load(&place, &["-q", "--name", "other:1"], &bytes).expect(0).stdout.trim(), id.as_str());
    assert_eq!(count(&place, "blobs/sha256"), before);
    assert!(store(&place).find_image("other:1").is_ok());
    assert_eq!(std::fs::read_dir(store(&place).root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn links_in_dockers_archive_lead_to_layers() {
    let place = Place::new();
    let layer = tar(&[("a", b"1")]);
    let config = config(&[&layer, &layer]);
    let list = manifest_json("c.json", &["app:1"], &["x/layer.tar", "y/layer.tar"]);
    let members: &[(&str, &[u8])] = &[
        ("manifest.json", &list),
        ("x/layer.tar", b"->../blob.tar"),
        ("y/layer.tar", b"->../x/layer.tar"),
        ("c.json", &config),
        ("blob.tar", &layer),
    ];
    load(&place, &[], &archive(members)).expect(0);
    for target in ["../../etc/passwd", "/etc/passwd", "../y/layer.tar", "layer.tar"] {
        let mut members = members.to_vec();
        let link = format!("->{target}");
        members[1].1 = link.as_bytes();
        let ran = load(&place, &[], &archive(&members)).expect(3);
        assert!(ran.stderr.contains("is not in the archive"), "{}", ran.stderr);
    }
}

#[test]
fn however_it_is_packed() {
    let layer = tar(&[("a", &vec![7; 100_000])]);
    let plain = docker_archive(&["app:1"], &[&layer]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    for packed in [gzip.finish().unwrap(), zstd::encode_all(&plain[..], 1).unwrap()] {
        let place = Place::new();
        load(&place, &[], &packed).expect(0);
        let ran = load(&place, &[], &packed[..packed.len() / 2]).expect(3);
        assert!(ran.stderr.contains("stdin: "), "{}", ran.stderr);
    }
    let ran = load(&Place::new(), &[], b"BZh91AY&SY").expect(3);
    assert!(ran.stderr.contains("bzip2"), "{}", ran.stderr);
}

fn layout(place: &Place, index: &Value, blobs: &[&[u8]]) -> Ran {
    let index = index.to_string().into_bytes();
    let paths: Vec<String> =
        blobs.iter().map(|blob| format!("blobs/sha256/{}", Digest::of(blob).hex())).collect();
    let mut members: Vec<(&str, &[u8])> = vec![("index.json", &index)];
    members.extend(paths.iter().map(String::as_str).zip(blobs.iter().copied()));
    load(place, &[], &archive(&members))
}

#[test]
fn a_layouts_documents_are_checked() {
    let place = Place::new();
    let layer = tar(&[("a", b"1")]);
    let config = config(&[&layer]);
    let of =
        |blob: &[u8], kind: &str| json!({"mediaType": kind, "digest": Digest::of(blob), "size": blob.len()});
    let manifest =
        json!({"schemaVersion": 2, "config": of(&config, "application/vnd.oci.image.config.v1+json"),
        "layers": [of(&layer, "application/vnd.oci.image.layer.v1.tar")]})
        .to_string()
        .into_bytes();
    let listed = |name: &str| {
        let mut entry = of(&manifest, "application/vnd.oci.image.manifest.v1+json");
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        json!({"schemaVersion": 2, "manifests": [entry]})
    };
    // A tag of nothing is no name.
    let ran = layout(&place, &listed("latest"), &[&manifest, &config, &layer]).expect(0);
    assert_eq!(ran.json()["image"]["reference"], Digest::of(&manifest).as_str());
    let ran = layout(&place, &listed("team/app:1"), &[&manifest, &config, &layer]).expect(0);
    assert_eq!(ran.json()["image"]["reference"], "docker.io/team/app:1");
    // What the store has need not come along.
    layout(&place, &listed("app:2"), &[&manifest]).expect(0);
    let place = Place::new();
    let ran = layout(&place, &listed("app:1"), &[&manifest, &config]).expect(3);
    assert!(
        ran.stderr.contains("app:1: blob") && ran.stderr.contains("not in the archive"),
        "{}",
        ran.stderr
    );
    let ran = layout(&place, &listed("app:1"), &[&config, &layer]).expect(3);
    assert!(ran.stderr.contains("app:1: manifest"), "{}", ran.stderr);
    let mut wrong = listed("app:1");
    wrong["manifests"][0]["size"] = json!(7);
    layout(&place, &wrong, &[&manifest, &config, &layer]).expect(3);
    assert!(store(&place).images().unwrap().is_empty());
    // A blob under a name that is not its own.
    let path = format!("blobs/sha256/{}", Digest::of(b"other").hex());
    let ran = load(&place, &[], &archive(&[("index.json", b"{}"), (&path, b"this")])).expect(3);
    assert!(ran.stderr.contains("digest"), "{}", ran.stderr);
}

#[test]
fn what_is_no_archive_of_images_is_refused() {
    let place = Place::new();
    let layer = tar(&[("a", b"1")]);
    let config = config(&[&layer]);
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "nothing on stdin"),
        (b"hello".to_vec(), "cut short"),
        (vec![0; 10240], "no archive"),
        (tar(&[("etc/passwd", b"root")]), "img-import"),
        (archive(&[("repositories", b"{}")]), "before 1.10"),
        (archive(&[("manifest.json", b"[{}]")]), "malformed"),
        (archive(&[("index.json", b"[]")]), "index.json"),
        (tar(&[("../../x.json", b"{}"), ("manifest.json", b"[]")]), "leads out"),
        (
            archive(&[
                ("manifest.json", &manifest_json("c.json", &["a:1"], &["l.tar"])),
                ("c.json", &config),
            ]),
            "a:1: layer",
        ),
        (
            archive(&[
                ("manifest.json", &manifest_json("c.json", &["a:1"], &["l.tar"])),
                ("c.json", &config),
                ("l.tar", &tar(&[("other", b"")])),
            ]),
            "where the configuration says",
        ),
        (archive(&[("manifest.json", &manifest_json("c.json", &["A B"], &[])), ("c.json", &config)]), "A B"),
        (b"{\"image\":{}}".to_vec(), "archive"),
    ];
    for (bytes, expected) in cases {
        let ran = load(&place, &[], &bytes).expect(3);
        assert!(ran.stderr.contains(expected), "{expected}: {}", ran.stderr);
    }
    assert!(store(&place).images().unwrap().is_empty());
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-load"));
    place.furnish(&mut command);
    Ran::of(command.args(["-i", "/nonexistent"]).stdin(Stdio::null())).expect(1);
}
