//! A state directory that is torn, or somebody else's work.

use crate::{Bench, assert_says};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// Whatever there is, every verb fails in words, soon, and harms nobody; `delete --force` removes it.
#[track_caller]
fn assert_harmless(bench: &Bench, id: &str, words: &str) {
    for verb in ["state", "start", "kill", "pause", "resume", "delete", "ps", "update", "events"] {
        let ran = bench.ran(&[verb, id]).expect(1);
        assert_says(&ran, words);
        assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
        // `delete` removes what never was a container.
        if !bench.root().join(id).exists() {
            return;
        }
    }
    assert_says(&bench.ran(&["exec", id, "true"]).expect(255), words);
    let ran = bench.ran(&["list", "-q"]).expect(0);
    assert!(!ran.stdout.contains(id), "{}", ran.stdout);
    bench.ran(&["delete", "--force", id]).expect(0);
    assert!(!bench.root().join(id).exists());
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_torn_or_wrong_state_is_refused() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("torn");
    let dir = bench.root().join(&id);
    let good = json!({"ociVersion": "1.0.2", "id": id, "pid": 1, "pidStarted": 1, "bundle": "/", "rootfs": "/",
        "created": "x", "ownPidNamespace": true});
    let with = |name: &str, value: Value| {
        let mut state = good.clone();
        state[name] = value;
        state.to_string()
    };
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let mut texts = vec![String::new(), "{".into(), "null".into(), "[]".into(), "\0\0".into(), deep];
    texts.push(good.to_string()[..40].to_owned());
    for (name, value) in [
        ("pid", json!("1")),
        ("pid", json!(4_294_967_297_u64)),
        ("pidStarted", json!(-1)),
        ("bundle", json!(7)),
        ("cgroups", json!("all")),
        ("annotations", json!([])),
        ("hooks", json!({"poststop": 1})),
        ("id", json!("another")),
    ] {
        texts.push(with(name, value));
    }
    for text in texts {
        std::fs::create_dir_all(&dir).unwrap();
        write(&dir.join("state.json"), &text);
        assert_harmless(&bench, &id, "state.json: ");
    }
    // A whole number of the right kind, that is no container's.
    std::fs::create_dir_all(&dir).unwrap();
    write(&dir.join("state.json"), &with("cgroups", json!(["/sys/fs/cgroup/../../etc"])));
    assert_says(&bench.ran(&["delete", &id]).expect(1), "is not a control group");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn an_empty_directory_is_no_container() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("empty");
    std::fs::create_dir_all(bench.root().join(&id)).unwrap();
    assert_harmless(&bench, &id, "container does not exist");
    std::fs::create_dir_all(bench.root().join(&id).join("sub")).unwrap();
    bench.ran(&["delete", "-f", &id]).expect(0);
    bench.assert_gone(&id);
}

#[test]
fn links_and_pipes_are_no_state() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("links");
    let dir = bench.root().join(&id);
    let outside = bench.path().join("outside");
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::create_dir(&outside).unwrap();
    write(&outside.join("state.json"), "kept");
    symlink(outside.join("state.json"), dir.join("state.json")).unwrap();
    assert_harmless(&bench, &id, "state.json: too many levels of symbolic links");
    std::fs::create_dir_all(&dir).unwrap();
    assert!(Command::new("mkfifo").arg(dir.join("state.json")).status().unwrap().success());
    assert_harmless(&bench, &id, "it is no regular file");
    std::fs::create_dir_all(dir.join("state.json")).unwrap();
    assert_harmless(&bench, &id, "it is no regular file");
    // The directory itself a link: what it leads to is not touched.
    symlink(&outside, &dir).unwrap();
    for verb in ["state", "kill", "start"] {
        assert_says(&bench.ran(&[verb, &id]).expect(1), &id);
    }
    assert_says(&bench.ran(&["delete", "--force", &id]).expect(1), &id);
    assert_eq!(std::fs::read_to_string(outside.join("state.json")).unwrap(), "kept");
    std::fs::remove_file(&dir).unwrap();
}

#[test]
fn processes_of_others_are_never_signalled() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("foreign");
    let mut other = testkit::die_with_parent("sleep").arg("1000").spawn().unwrap();
    // Processes made within one tick of the clock begin at the same time.
    std::thread::sleep(std::time::Duration::from_millis(50));
    bench.create(&id);
    let path = bench.root().join(&id).join("state.json");
    let before: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for pid in [i64::from(other.id()), 0, -1, -i64::from(other.id()), 1] {
        let mut state = before.clone();
        state["pid"] = json!(pid);
        write(&path, &state.to_string());
        assert_eq!(bench.status(&id), "stopped");
        assert_says(&bench.ran(&["kill", &id, "KILL"]).expect(1), "container not running");
        assert_says(&bench.ran(&["start", &id]).expect(1), "cannot start a container that has stopped");
        assert_says(&bench.ran(&["exec", &id, "true"]).expect(255), "cannot exec in a stopped container");
    }
    assert!(other.try_wait().unwrap().is_none(), "it was killed");
    write(&path, &before.to_string());
    std::fs::remove_file(bench.root().join(&id).join("config.json")).unwrap();
    assert_says(&bench.ran(&["exec", &id, "true"]).expect(255), "config.json is missing");
    bench.ran(&["delete", "-f", &id]).expect(0);
    bench.assert_gone(&id);
    other.kill().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_gate_that_is_not_the_containers_is_no_hang() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("gate");
    bench.start(&id);
    let gate = bench.root().join(&id).join("start.sock");
    write(&gate, "");
    assert_eq!(bench.status(&id), "created");
    assert_says(&bench.ran(&["start", &id]).expect(1), "cannot start an already running container");
    std::fs::remove_file(&gate).unwrap();
    assert_eq!(bench.status(&id), "running");
}

/// What may lie where a file is looked for.
const KINDS: [&str; 9] =
    ["directory", "pipe", "socket", "device", "long", "loop", "link out", "link to a device", "random"];

fn put(path: &Path, kind: &str, outside: &Path) {
    let run = |program: &str, arguments: &[&str]| {
        let made = Command::new(program).arg(path).args(arguments).status().unwrap();
        assert!(made.success(), "{program} {}", path.display());
    };
    match kind {
        "directory" => std::fs::create_dir_all(path.join("sub")).unwrap(),
        "pipe" => run("mkfifo", &[]),
        "socket" => drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
        "device" => run("mknod", &["c", "1", "5"]),
        "long" => std::fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
        "loop" => symlink(path, path).unwrap(),
        "link out" => symlink(outside, path).unwrap(),
        "link to a device" => symlink("/dev/zero", path).unwrap(),
        _ => std::fs::write(path, (0..=255).cycle().take(100_000).collect::<Vec<u8>>()).unwrap(),
    }
}

#[test]
fn whatever_lies_there_is_read_soon_and_removed() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("kinds");
    let dir = bench.root().join(&id);
    let outside = bench.path().join("outside");
    write(&outside, "kept");
    // Soon: nothing is waited for.
    let ran = |arguments: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["20", crate::PROGRAM, "--root"]).arg(bench.root()).args(arguments);
        let ran = testkit::Ran::of(command.stdin(std::process::Stdio::null()));
        assert!(ran.status < 124 || ran.status == 255, "{arguments:?}: {}\n{}", ran.status, ran.stderr);
        assert!(!ran.stderr.contains("panic"), "{}", ran.stderr);
        ran
    };
    let good = json!({"ociVersion": "1.0.2", "id": id, "pid": i32::MAX, "pidStarted": 1, "bundle": "/", "rootfs": "/",
        "created": "x", "ownPidNamespace": true});
    for name in ["state.json", "config.json", "start.sock"] {
        for kind in KINDS {
            std::fs::create_dir_all(&dir).unwrap();
            for (file, text) in [("state.json", good.to_string()), ("config.json", "{}".to_owned())] {
                if file != name {
                    write(&dir.join(file), &text);
                }
            }
            put(&dir.join(name), kind, &outside);
            let shown = ran(&["state", &id]);
            if name == "state.json" {
                assert_eq!(shown.status, 1, "{kind}");
            } else {
                assert!(shown.expect(0).stdout.contains("\"stopped\""), "{name}, {kind}");
            }
            ran(&["list"]).expect(0);
            ran(&["exec", &id, "true"]).expect(255);
            ran(&["delete", "--force", &id]).expect(0);
            assert!(!dir.exists(), "{name}, {kind}");
            assert_eq!(std::fs::read_to_string(&outside).unwrap(), "kept");
        }
    }
    // Of one that runs.
    for kind in ["directory", "pipe", "long", "link to a device"] {
        bench.start(&id);
        for name in ["config.json", "start.sock"] {
            let _ = std::fs::remove_file(dir.join(name));
            put(&dir.join(name), kind, &outside);
        }
        assert_eq!(bench.status(&id), "created", "{kind}");
        ran(&["list"]).expect(0);
        ran(&["exec", &id, "true"]).expect(255);
        ran(&["update", "--pids-limit", "10", &id]);
        ran(&["start", &id]).expect(1);
        ran(&["delete", "--force", &id]).expect(0);
        bench.assert_gone(&id);
        assert_eq!(std::fs::read_to_string(&outside).unwrap(), "kept");
    }
}
