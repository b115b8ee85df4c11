//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, retag, store, tar};
use oci::Digest;
use std::collections::BTreeMap;
use std::io::Read;
use std::process::{Command, Stdio};
use testkit::{Place, Ran};

fn save(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-save"));
    place.furnish(&mut command);
    command.args(arguments);
    command
}

fn members(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for member in tar::Archive::new(archive).entries().unwrap() {
        let mut member = member.unwrap();
        let path = member.path().unwrap().to_str().unwrap().to_owned();
        let mut content = Vec::new();
        member.read_to_end(&mut content).unwrap();
        assert!(all.insert(path, content).is_none(), "a member is there twice");
    }
    all
}

#[test]
fn an_archive_is_a_layout_and_dockers() {
    let place = Place::new();
    let shared = tar(&[("shared", b"x")]);
    put(&place, "a:1", &[shared.clone(), tar(&[("a", b"")])]);
    put(&place, "b:1", &[shared, tar(&[("b", &[7; 3000])])]);
    retag(&place, "a:1", "reg.example/a:2");
    let bytes = save(&place, &["a:1", "b:1", "reg.example/a:2"]).output().unwrap();
    assert!(bytes.status.success(), "{}", String::from_utf8_lossy(&bytes.stderr));
    let all = members(&bytes.stdout);
    for (path, content) in &all {
        if let Some(hex) = path.strip_prefix("blobs/sha256/") {
            assert_eq!(Digest::of(content).hex(), hex);
        }
    }
    // Two manifests, two configurations, three layers.
    assert_eq!(all.len(), 3 + 2 + 2 + 3, "{:?}", all.keys());
    let json = |path: &str| serde_json::from_slice::<serde_json::Value>(&all[path]).unwrap();
    let index = json("index.json");
    let names: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["docker.io/library/a:1", "docker.io/library/b:1", "reg.example/a:2"]);
    let manifests = json("manifest.json");
    assert_eq!(manifests[0]["RepoTags"], serde_json::json!(["a:1", "reg.example/a:2"]));
    assert_eq!(manifests.as_array().unwrap().len(), 2);
    for image in manifests.as_array().unwrap() {
        for path in image["Layers"].as_array().unwrap().iter().chain([&image["Config"]]) {
            assert!(all.contains_key(path.as_str().unwrap()), "{path}");
        }
    }
    // The same again is the same again.
    assert_eq!(save(&place, &["a:1", "b:1", "reg.example/a:2"]).output().unwrap().stdout, bytes.stdout);
    assert_eq!(bytes.stdout.len() % 10240, 0);
}

#[test]
fn a_file_is_there_when_it_is_complete() {
    let place = Place::new();
    put(&place, "a:1", &[tar(&[("a", b"")])]);
    let file = place.path().join("a.tar");
    let name = file.to_str().unwrap();
    let record = Ran::of(&mut save(&place, &["-o", name, "a:1"])).expect(0).json();
    assert_eq!(
        (record["archive"].as_str(), record["image"]["reference"].as_str()),
        (Some(name), Some("docker.io/library/a:1"))
    );
    let before = std::fs::read(&file).unwrap();
    assert!(members(&before).contains_key("index.json"));
    // One that is not there leaves what was, and nothing else.
    let ran = Ran::of(&mut save(&place, &["-o", name, "a:1", "nothing"])).expect(4);
    assert!(ran.stderr.contains("nothing: no such image"), "{}", ran.stderr);
    let entry = store(&place).find_image("a:1").unwrap();
    let config = entry.config_digest().unwrap();
    let steps = Ran::of(&mut save(&place, &["--dry-run", "a:1"])).expect(0).stdout;
    assert!(steps.contains(config.hex()) && steps.lines().count() == 6, "{steps}");
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(store(&place).blob_path(entry.digest())).unwrap()).unwrap();
    let layer = Digest::parse(manifest["layers"][0]["digest"].as_str().unwrap()).unwrap();
    std::fs::remove_file(store(&place).blob_path(&layer)).unwrap();
    let ran = Ran::of(&mut save(&place, &["-o", name, "a:1"])).expect(4);
    assert!(ran.stderr.contains(layer.as_str()), "{}", ran.stderr);
    assert_eq!(std::fs::read(&file).unwrap(), before);
    let parts = std::fs::read_dir(place.path()).unwrap().flatten();
    assert_eq!(parts.filter(|entry| entry.file_name().to_string_lossy().contains(".part")).count(), 0);
}

#[test]
fn nobody_reads_and_nothing_comes() {
    let place = Place::new();
    put(&place, "a:1", &[tar(&[("a", &vec![1; 300_000])])]);
    let mut child = save(&place, &["a:1"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 600];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("its reader has gone"));
    Ran::of(save(&place, &[]).stdin(Stdio::null())).expect(3);
}
