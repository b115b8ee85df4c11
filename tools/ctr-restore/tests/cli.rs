//! The tool as a program: what it refuses, and what is left of a restore that fails. What criu makes of real containers is tested in the guest
//! (`tests/tests/guest`).

use checkpoint::{Compression, Contents};
use record::Record;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::{FakeShim, Place, Ran};

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-restore"));
    place.furnish(&mut command);
    command.args(arguments);
    command
}

fn restore(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(&mut command(place, arguments))
}

#[track_caller]
fn refused(ran: Ran, status: i32, words: &str) {
    let ran = ran.expect(status);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

/// An archive of a container with this record, whose image of a process is nonsense.
fn archive(place: &Place, record: &Value) -> PathBuf {
    let images = place.path().join("images");
    std::fs::create_dir_all(&images).unwrap();
    std::fs::write(images.join("inventory.img"), "nonsense").unwrap();
    std::fs::write(images.join("descriptors.json"), r#"["/dev/null","pipe:[1]","pipe:[2]"]"#).unwrap();
    let bundle = place.path().join("bundle");
    std::fs::create_dir_all(&bundle).unwrap();
    std::fs::write(bundle.join("log.json"), "").unwrap();
    let path = place.path().join("web.tar.gz");
    let record = Record::parse(&record.to_string()).unwrap();
    let contents = Contents {
        record: &record,
        created_at: "2026-01-02T03:04:05Z",
        images: &images,
        difference: None,
        bundle: &bundle,
    };
    checkpoint::write(std::fs::File::create(&path).unwrap(), Compression::Gzip, &contents).unwrap();
    path
}

fn record(id: &str) -> Value {
    json!({"config": {"command": ["true"]}, "rootfs": {"driver": "overlay", "layers": ["/elsewhere/fs"]},
        "container": {"id": id, "name": "web", "checkpointed_at": "2026-01-02T03:04:05Z"}})
}

fn containers(place: &Place) -> usize {
    let count = |name: &str| std::fs::read_dir(place.root().join(name)).map_or(0, Iterator::count);
    count("containers") + count("names")
}

#[test]
fn there_must_be_a_checkpoint_of_a_container_that_has_ended() {
    let place = Place::new();
    refused(restore(&place, &["nobody"]), 4, "no such container");
    let dir = place.ended_container(&"a".repeat(64), "web", 137);
    refused(restore(&place, &["web"]), 4, "has no checkpoint");
    std::fs::create_dir(dir.bundle.join("checkpoint")).unwrap();
    let planned = restore(&place, &["--dry-run", "--tcp-established", "web"]).expect(0).stdout;
    assert!(
        planned.contains(r#""tcp_established":true"#) && planned.contains("remove_checkpoint"),
        "{planned}"
    );
    let shim = FakeShim::start(&dir, "running", &[]);
    refused(restore(&place, &["web"]), 5, "the container is running");
    assert!(shim.requests().is_empty());
}

#[test]
fn the_waiting_container_is_told_to_restore() {
    let place = Place::new();
    let dir = place.ended_container(&"a".repeat(64), "web", 137);
    std::fs::create_dir(dir.bundle.join("checkpoint")).unwrap();
    let shim = FakeShim::start(&dir, "created", &[]);
    restore(&place, &["--keep", "--file-locks", "web"]).expect(0);
    let wanted = shim::Request::Restore { tcp_established: false, file_locks: true };
    assert_eq!(shim.requests(), [wanted]);
    assert!(dir.bundle.join("checkpoint").exists());
    restore(&place, &["web"]).expect(0);
    assert!(!dir.bundle.join("checkpoint").exists());
}

#[test]
fn addresses_are_forgotten_when_that_is_asked_for() {
    let place = Place::new();
    let dir = place.ended_container(&"a".repeat(64), "web", 137);
    std::fs::create_dir(dir.bundle.join("checkpoint")).unwrap();
    let networks =
        json!([{"name": "bridge", "addresses": ["10.89.0.7/16"], "mac": "02:42:0a:59:00:07", "ports": []}]);
    dir.update(|record| record.set("networks", &networks)).unwrap();
    let _shim = FakeShim::start(&dir, "created", &[]);
    let ran =
        restore(&place, &["--keep", "--ignore-static-ip", "--ignore-static-mac", "web"]).expect(0).json();
    assert_eq!(ran["networks"][0]["addresses"], json!([]));
    assert_eq!(ran["networks"][0]["mac"], Value::Null);
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let place = Place::new();
    for flags in [
        &["--name", "x", "web"][..],
        &["--publish", "80", "web"],
        &["--import", "x", "web"],
        &["--import", "x", "--publish", "nonsense"],
        &["--import", "x", "--name", "../x"],
    ] {
        restore(&place, flags).expect(2);
    }
    assert!(
        restore(&place, &["--import", "x", "--dry-run", "-n", "y"])
            .expect(0)
            .stdout
            .contains(r#""name":"y""#)
    );
}

#[test]
fn what_is_no_archive_makes_nothing() {
    let place = Place::new();
    let file = place.path().join("file");
    let path = file.display().to_string();
    refused(restore(&place, &["-i", &path]), 1, "open");
    for bytes in [&b""[..], b"nonsense", &[0; 4096]] {
        std::fs::write(&file, bytes).unwrap();
        refused(restore(&place, &["-i", &path]), 3, "ctr-restore: ");
    }
    let whole = std::fs::read(archive(&place, &record(&"b".repeat(64)))).unwrap();
    let mut child = command(&place, &["-i", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(&whole[..whole.len() / 2]);
    assert!(!child.wait_with_output().unwrap().status.success());
    assert_eq!(containers(&place), 0);
}

#[test]
fn hostile_records_make_nothing() {
    let place = Place::new();
    for (bad, status, words) in [
        (record("../../etc"), 3, "not 64 hexadecimal digits"),
        (json!({"config": {}}), 3, "container"),
        (json!({"config": 7, "container": {"id": "b".repeat(64), "name": "web"}}), 3, "config"),
        // No image to make it of.
        (record(&"b".repeat(64)), 3, "image"),
    ] {
        let path = archive(&place, &bad).display().to_string();
        refused(restore(&place, &["-i", &path]), status, words);
        assert_eq!(containers(&place), 0, "{bad}");
    }
    let mut without = record(&"b".repeat(64));
    let digest = format!("sha256:{}", "c".repeat(64));
    without["image"] = json!({"reference": "", "digest": digest, "config": {},
        "layers": [{"digest": digest, "diff_id": digest, "size": 1, "media_type": "application/vnd.oci.image.layer.v1.tar"}]});
    let path = archive(&place, &without).display().to_string();
    refused(restore(&place, &["-i", &path]), 4, "img-load");
    assert_eq!(containers(&place), 0);
}

#[test]
fn a_container_that_is_here_is_not_replaced() {
    let place = Place::new();
    let id = "b".repeat(64);
    place.ended_container(&id, "web", 0);
    let path = archive(&place, &record(&id)).display().to_string();
    refused(restore(&place, &["-i", &path]), 5, "--name NAME");
    assert_eq!(containers(&place), 2);
}

/// The container is made, and criu finds nonsense.
#[test]
fn nothing_is_left_of_a_restore_that_fails() {
    if !testkit::own_network() {
        return;
    }
    if testkit::find_program("criu").is_none() || testkit::find_program("busybox").is_none() {
        testkit::skip("criu or busybox is not installed");
        return;
    }
    for tool in ["ctr-shim", "net-attach"] {
        assert!(testkit::profile_dir().join(tool).is_file(), "{tool} is not built");
    }
    let place = Place::new();
    let rootfs = place.path().join("tree");
    std::fs::create_dir_all(rootfs.join("bin")).unwrap();
    std::fs::copy(testkit::find_program("busybox").unwrap(), rootfs.join("bin/sleep")).unwrap();
    let id = "b".repeat(64);
    let mut of_directory = record(&id);
    of_directory["config"] = json!({"command": ["sleep", "1000"], "rootfs": rootfs, "network": "none"});
    let path = archive(&place, &of_directory).display().to_string();
    let ran = restore(&place, &["-i", &path]).expect(1);
    assert!(ran.stderr.contains("criu"), "{}", ran.stderr);
    assert_eq!(containers(&place), 0);
    assert!(!Path::new("/sys/fs/cgroup/staves").join(&id).exists());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&place.path().display().to_string()), "{mounts}");
}
