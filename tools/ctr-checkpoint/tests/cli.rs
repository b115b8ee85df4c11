//! The tool as a program, against containers made by hand: what it refuses, and what it would do. What criu makes of real ones is tested in the
//! guest (`tests/tests/guest`).

use serde_json::{Value, json};
use std::process::Command;
use store::ContainerDir;
use testkit::{FakeShim, Place, Ran};

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-checkpoint"));
    place.furnish(&mut command);
    command.args(arguments);
    command
}

fn checkpoint(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(&mut command(place, arguments))
}

/// A container with a specification, whose namespaces are these.
fn container(place: &Place, config: &Value, namespaces: &[&str]) -> ContainerDir {
    let rootfs = json!({"driver": "overlay", "layers": ["/nowhere"]});
    let dir = place.container(&"a".repeat(64), "web", &json!({"config": config, "rootfs": rootfs}));
    let namespaces: Vec<Value> = namespaces.iter().map(|kind| json!({"type": kind})).collect();
    let spec = json!({
        "ociVersion": "1.0.2", "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["true"], "user": {"uid": 0, "gid": 0}},
        "linux": {"namespaces": namespaces},
    });
    std::fs::write(dir.bundle.join("config.json"), spec.to_string()).unwrap();
    dir
}

const OWN: [&str; 5] = ["mount", "pid", "network", "ipc", "uts"];

/// A process that is the container's, as far as the tool can tell. It ends when this is dropped.
struct Pretended(std::process::Child);

impl Pretended {
    fn of(dir: &ContainerDir) -> Pretended {
        let mut state = dir.live_state().unwrap().unwrap();
        let process = testkit::die_with_parent("sleep").arg("1000").spawn().unwrap();
        state.pid = process.id() as i32;
        state.pid_started = store::start_time(state.pid).unwrap();
        state.cgroup = vec!["/sys/fs/cgroup".into()];
        dir.write_live_state(&state).unwrap();
        Pretended(process)
    }
}

impl Drop for Pretended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn refused(ran: Ran, status: i32, words: &str) {
    let ran = ran.expect(status);
    assert!(ran.stderr.contains(words), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn what_does_not_run_cannot_be_saved() {
    let place = Place::new();
    refused(checkpoint(&place, &["nobody"]), 4, "no such container");
    let dir = container(&place, &json!({}), &OWN);
    refused(checkpoint(&place, &["web"]), 5, "it is created");
    for (status, words) in [("created", "it is created"), ("paused", "ctr-unpause")] {
        let shim = FakeShim::start(&dir, status, &[]);
        refused(checkpoint(&place, &["web"]), 5, words);
        assert!(shim.requests().is_empty());
    }
    // Its state tells of no process.
    let shim = FakeShim::start(&dir, "running", &[]);
    refused(checkpoint(&place, &["web"]), 5, "just ended");
    assert!(shim.requests().is_empty());
}

#[test]
fn what_criu_cannot_save_is_told_before_anything_is_done() {
    for (config, namespaces, flags, status, words) in [
        (json!({"auto_remove": true}), &OWN[..], &[][..], 5, "--export FILE"),
        (json!({"runtime": "/usr/bin/runc"}), &OWN, &[], 3, "another runtime"),
        (json!({}), &["mount", "user"], &[], 3, "user namespace"),
        (json!({}), &["pid"], &[], 3, "without a mount namespace"),
    ] {
        let place = Place::new();
        let dir = container(&place, &config, namespaces);
        let shim = FakeShim::start(&dir, "running", &[]);
        let _process = Pretended::of(&dir);
        refused(checkpoint(&place, &[&["web"], flags].concat()), status, words);
        assert!(shim.requests().is_empty() && !dir.bundle.join("checkpoint.new").exists());
    }
    let place = Place::new();
    let dir = container(&place, &json!({}), &OWN);
    let shim = FakeShim::start(&dir, "running", &[]);
    let _process = Pretended::of(&dir);
    let without = Ran::of(command(&place, &["web"]).env("PATH", "/nonexistent"));
    refused(without, 4, "criu is not installed");
    assert!(shim.requests().is_empty());
}

#[test]
fn a_plain_directory_is_exported_without_its_files_only() {
    let place = Place::new();
    let dir = container(&place, &json!({}), &OWN);
    dir.update(|record| record.set("rootfs", &json!({"driver": "directory", "path": "/srv"}))).unwrap();
    let _shim = FakeShim::start(&dir, "running", &[]);
    let _process = Pretended::of(&dir);
    let file = place.path().join("web.tar");
    let path = file.display().to_string();
    refused(checkpoint(&place, &["-e", &path, "web"]), 5, "--ignore-rootfs");
    assert!(!file.exists());
    if testkit::find_program("criu").is_some() {
        checkpoint(&place, &["-e", &path, "--ignore-rootfs", "--dry-run", "web"]).expect(0);
    }
}

#[test]
fn steps_are_told() {
    if testkit::find_program("criu").is_none() {
        testkit::skip("criu is not installed");
        return;
    }
    let place = Place::new();
    let dir = container(&place, &json!({}), &OWN);
    let shim = FakeShim::start(&dir, "running", &[]);
    let _process = Pretended::of(&dir);
    let file = place.path().join("web.tar").display().to_string();
    let flags = ["--dry-run", "--tcp-established", "-c", "gzip", "--export", &file, "web"];
    let told = checkpoint(&place, &flags).expect(0).stdout;
    for words in [r#""tcp_established":true"#, r#""compress":"gzip""#, r#""rootfs":true"#, r#""step":"end""#]
    {
        assert!(told.contains(words), "{told}");
    }
    let told = checkpoint(&place, &["--dry-run", "-R", "web"]).expect(0).stdout;
    assert!(!told.contains(r#""end""#) && told.contains(r#""leave_running":true"#), "{told}");
    assert!(shim.requests().is_empty() && !std::path::Path::new(&file).exists());
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let place = Place::new();
    container(&place, &json!({}), &OWN);
    for flags in [
        &["--compress", "gzip", "web"][..],
        &["--ignore-rootfs", "web"],
        &["-e", "x", "-c", "xz", "web"],
        &["-e", "-", "web", "web"],
    ] {
        checkpoint(&place, flags).expect(2);
    }
    assert_eq!(Ran::of(command(&place, &[]).stdin(std::process::Stdio::null())).expect(0).stdout, "");
}
