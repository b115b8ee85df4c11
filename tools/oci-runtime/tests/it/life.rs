//! create, start, kill, delete, and what stands between them.

use crate::{Bench, PROGRAM, assert_says, wait_until};
use serde_json::json;
use std::process::{Command, Stdio};
use testkit::Ran;

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("life");
    bench.configure(&["sleep", "1000"], |config| config["annotations"] = json!({"a.b": "c d"}));
    let pid_file = bench.path().join("pid");
    bench.make(&[
        "create",
        &id,
        "--bundle",
        &bench.bundle().display().to_string(),
        "--pid-file",
        &pid_file.display().to_string(),
    ]);
    let state = bench.state(&id);
    let pid = state["pid"].as_i64().unwrap();
    assert_eq!(std::fs::read_to_string(&pid_file).unwrap(), pid.to_string());
    let bundle = bench.bundle().canonicalize().unwrap();
    assert_eq!(state["status"], "created");
    assert_eq!(state["id"], id.as_str());
    assert_eq!(state["bundle"], bundle.display().to_string());
    assert_eq!(state["rootfs"], bundle.join("rootfs").display().to_string());
    assert_eq!(state["annotations"], json!({"a.b": "c d"}));
    assert!(state["created"].as_str().unwrap().ends_with('Z'));
    assert!(state["ociVersion"].is_string());
    bench.ran(&["start", &id]).expect(0);
    let state = bench.state(&id);
    assert_eq!((state["status"].as_str(), state["pid"].as_i64()), (Some("running"), Some(pid)));
    bench.ran(&["kill", &id, "KILL"]).expect(0);
    bench.wait_for(&id, "stopped");
    assert_eq!(bench.state(&id)["pid"], 0);
    bench.ran(&["delete", &id]).expect(0);
    bench.assert_gone(&id);
    let ran = bench.ran(&["state", &id]).expect(1);
    assert_says(&ran, "container does not exist");
}

#[test]
fn every_verb_knows_what_state_it_wants() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("rules");
    let bundle = bench.bundle().display().to_string();
    for verb in ["start", "state", "kill", "delete", "pause", "resume", "update", "events", "ps"] {
        assert_says(&bench.ran(&[verb, &id]).expect(1), "container does not exist");
    }
    assert_says(&bench.ran(&["exec", &id, "true"]).expect(255), "container does not exist");
    bench.create(&id);
    assert_says(
        &bench.ran(&["create", "-b", &bundle, &id]).expect(1),
        "container with given ID already exists",
    );
    assert_says(&bench.ran(&["run", "-b", &bundle, &id]).expect(1), "container with given ID already exists");
    bench.ran(&["start", &id]).expect(0);
    assert_says(&bench.ran(&["start", &id]).expect(1), "cannot start an already running container");
    let ran = bench.ran(&["delete", &id]).expect(1);
    assert_says(&ran, &format!("cannot delete container {id} that is not stopped: running"));
    assert_says(&bench.ran(&["resume", &id]).expect(1), "container not paused");
    bench.ran(&["kill", &id, "9"]).expect(0);
    bench.wait_for(&id, "stopped");
    assert_says(&bench.ran(&["start", &id]).expect(1), "cannot start a container that has stopped");
    assert_says(&bench.ran(&["kill", &id]).expect(1), "container not running");
    assert_says(&bench.ran(&["pause", &id]).expect(1), "container not running");
    assert_says(&bench.ran(&["update", "--pids-limit", "9", &id]).expect(1), "container not running");
    assert_says(&bench.ran(&["events", "--stats", &id]).expect(1), "is not running");
    assert_says(&bench.ran(&["exec", &id, "true"]).expect(255), "cannot exec in a stopped container");
    bench.ran(&["kill", "--all", &id, "0"]).expect(0);
    bench.ran(&["delete", &id]).expect(0);
}

#[test]
fn deleting_by_force_takes_what_there_is() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("force");
    bench.ran(&["delete", "--force", &id]).expect(0);
    bench.create(&id);
    bench.ran(&["delete", "-f", &id]).expect(0);
    bench.assert_gone(&id);
    bench.start(&id);
    let pid = bench.state(&id)["pid"].as_i64().unwrap();
    bench.ran(&["pause", &id]).expect(0);
    bench.ran(&["delete", &id, "--force"]).expect(0);
    bench.assert_gone(&id);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    // One that waits is killed without being asked for it.
    bench.create(&id);
    bench.ran(&["delete", &id]).expect(0);
    bench.assert_gone(&id);
}

#[test]
fn without_a_pid_namespace_all_processes_end() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("hostpid");
    bench.configure(&["sh", "-c", "sleep 1001 & sleep 1002 & wait"], |config| {
        let namespaces = config["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.retain(|namespace| namespace["type"] != "pid");
        config["linux"]["maskedPaths"] = json!([]);
        config["linux"]["readonlyPaths"] = json!([]);
        config["mounts"].as_array_mut().unwrap().retain(|mount| mount["destination"] != "/proc");
    });
    bench.start(&id);
    let pids = || bench.ran(&["ps", "--format", "json", &id]).expect(0).json();
    wait_until(|| pids().as_array().unwrap().len() == 3, "it does not start its processes");
    let before: Vec<i64> = pids().as_array().unwrap().iter().map(|pid| pid.as_i64().unwrap()).collect();
    bench.ran(&["kill", &id, "KILL"]).expect(0);
    bench.ran(&["delete", "--force", &id]).expect(0);
    bench.assert_gone(&id);
    for pid in before {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}

#[test]
fn one_of_many_gets_the_id() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("race");
    let bundle = bench.bundle().display().to_string();
    let logs = bench.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let children: Vec<_> = (0..8)
        .map(|number| {
            let log = std::fs::File::create(logs.join(number.to_string())).unwrap();
            let mut command = bench.command(&["create", "--bundle", &bundle, &id]);
            command.stdout(Stdio::null()).stderr(log).spawn().unwrap()
        })
        .collect();
    let mut made = 0;
    for (number, mut child) in children.into_iter().enumerate() {
        if child.wait().unwrap().success() {
            made += 1;
            continue;
        }
        let said = std::fs::read_to_string(logs.join(number.to_string())).unwrap();
        assert!(said.contains("container with given ID already exists"), "{said}");
    }
    assert_eq!(made, 1);
    assert_eq!(bench.status(&id), "created");
    bench.ran(&["delete", "--force", &id]).expect(0);
    bench.assert_gone(&id);
}

#[test]
fn what_cannot_be_made_leaves_nothing() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("failed");
    let bundle = bench.bundle().display().to_string();
    for (edit, words) in [
        (json!({"root": {"path": "nowhere"}}), "nowhere"),
        (json!({"ociVersion": "9.9.9"}), "ociVersion"),
        (json!({"process": null}), "process"),
        (json!({"mounts": [{"destination": "/x", "type": "nosuchfs", "source": "x"}]}), "nosuchfs"),
        (
            json!({"hooks": {"createRuntime": [{"path": "/bin/false"}]}}),
            "error running createRuntime hook #0",
        ),
    ] {
        let path = bench.bundle().join("config.json");
        let before = std::fs::read(&path).unwrap();
        bench.configure(&["true"], |config| {
            for (name, value) in edit.as_object().unwrap() {
                config[name] = value.clone();
            }
        });
        let ran = bench.ran(&["create", "--bundle", &bundle, &id]).expect(1);
        assert_says(&ran, "create failed: ");
        assert_says(&ran, words);
        bench.assert_gone(&id);
        std::fs::write(&path, before).unwrap();
    }
    let socket = bench.path().join("nobody.sock").display().to_string();
    let ran = bench.ran(&["create", "--bundle", &bundle, "--pidfd-socket", &socket, &id]).expect(1);
    assert_says(&ran, "nobody.sock: no such file or directory");
    let ran = bench.ran(&["create", "--bundle", &bundle, "--pid-file", "/nonexistent/pid", &id]).expect(1);
    assert_says(&ran, "/nonexistent/pid");
    assert_says(&bench.ran(&["create", "--bundle", "/nonexistent", &id]).expect(1), "chdir /nonexistent");
    let empty = bench.path().display().to_string();
    assert_says(
        &bench.ran(&["create", "-b", &empty, &id]).expect(1),
        "specification file config.json not found",
    );
    for bad in ["a/b", "..", ".", "a b", "@x"] {
        assert_says(&bench.ran(&["create", "-b", &bundle, bad]).expect(1), "invalid container ID format");
    }
    assert_says(&bench.ran(&["create", "-b", &bundle, ""]).expect(1), "container id cannot be empty");
    bench.assert_gone(&id);
}

#[test]
fn containers_are_listed() {
    let Some(bench) = Bench::new() else { return };
    let (one, two) = (bench.id("b"), bench.id("a"));
    assert_says(&bench.ran(&["list"]).expect(1), "no such file or directory");
    bench.create(&one);
    bench.start(&two);
    // Neither a container's state nor in the way.
    std::fs::create_dir(bench.root().join("not an id")).unwrap();
    std::fs::write(bench.root().join("file"), "").unwrap();
    let table = bench.ran(&["list"]).expect(0).stdout;
    let lines: Vec<&str> = table.lines().collect();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(lines[0]), ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]);
    assert_eq!((words(lines[1])[0].as_str(), words(lines[1])[2].as_str()), (two.as_str(), "running"));
    assert_eq!((words(lines[2])[0].as_str(), words(lines[2])[2].as_str()), (one.as_str(), "created"));
    assert_eq!((lines.len(), words(lines[1])[5].as_str()), (3, "root"));
    assert_eq!(bench.ran(&["list", "--quiet"]).expect(0).stdout, format!("{two}\n{one}\n"));
    let json = bench.ran(&["list", "--format", "json"]).expect(0).json();
    let names: Vec<&str> = json[0].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]);
    assert_eq!((json[0]["id"].as_str(), json[1]["status"].as_str()), (Some(two.as_str()), Some("created")));
    assert_says(&bench.ran(&["list", "-f", "yaml"]).expect(1), "invalid format option");
    std::fs::remove_dir(bench.root().join("not an id")).unwrap();
    let mut default = Command::new(PROGRAM);
    assert!(Ran::of(default.args(["list", "-q"])).status == 0, "no root yet is no error");
}

#[test]
fn what_the_bundle_becomes_later_does_not_matter() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("later");
    bench.configure(&["sleep", "1000"], |config| config["process"]["env"] = json!(["PATH=/bin", "OLD=1"]));
    bench.start(&id);
    std::fs::write(bench.bundle().join("config.json"), "{").unwrap();
    let ran = bench.ran(&["exec", &id, "env"]).expect(0);
    assert!(ran.stdout.contains("OLD=1\n"), "{}", ran.stdout);
    bench.ran(&["delete", "--force", &id]).expect(0);
    bench.assert_gone(&id);
}

#[test]
fn what_the_specification_cannot_have_is_told_by_create() {
    let Some(bench) = Bench::new() else { return };
    let id = &bench.id("early");
    let before = std::fs::read(bench.bundle().join("config.json")).unwrap();
    let refused = |edit: &dyn Fn(&mut serde_json::Value), words: &str| {
        std::fs::write(bench.bundle().join("config.json"), &before).unwrap();
        bench.configure(&["true"], edit);
        let ran = bench.ran(&["create", "--bundle", &bench.bundle().display().to_string(), id]).expect(1);
        assert_says(&ran, words);
        bench.assert_gone(id);
    };
    let limit = |kind: &str, soft: u64, hard: u64| json!([{"type": kind, "soft": soft, "hard": hard}]);
    for (limits, words) in [
        (limit("RLIMIT_NOFILE", 2, 1), "RLIMIT_NOFILE: soft 2 is above hard 1"),
        (limit("RLIMIT_TEST", 1, 1), "RLIMIT_TEST"),
        // More than any process may have (/proc/sys/fs/nr_open).
        (limit("RLIMIT_NOFILE", u64::MAX, u64::MAX), "set RLIMIT_NOFILE"),
    ] {
        refused(&|config| config["process"]["rlimits"] = limits.clone(), words);
    }
    let caps = |value: serde_json::Value| {
        move |config: &mut serde_json::Value| config["process"]["capabilities"] = value.clone()
    };
    let kill = json!(["CAP_KILL"]);
    refused(
        &caps(json!({"effective": kill})),
        "effective: CAP_KILL is not in permitted: operation not permitted",
    );
    refused(&caps(json!({"inheritable": kill})), "inheritable: CAP_KILL is not in bounding");
    refused(&|config| config["process"]["user"]["uid"] = json!(u32::MAX), "process.user.uid: 4294967295");
    // The rest is left out, as the specification has it, and told.
    std::fs::write(bench.bundle().join("config.json"), &before).unwrap();
    bench.configure(&["true"], caps(json!({"bounding": ["TEST_CAP"], "ambient": kill})));
    let ran = bench.run(id, &[]).expect(0);
    assert_says(&ran, "ignoring unknown or unavailable capabilities: [TEST_CAP]");
    assert_says(&ran, "can't raise ambient capability CAP_KILL");
}
