//! Help, versions, features, and what is wrong on a command line.

use crate::{Bench, PROGRAM, assert_says};
use serde_json::{Value, json};
use std::os::unix::process::CommandExt;
use std::process::Command;
use testkit::Ran;

fn ran(arguments: &[&str]) -> Ran {
    Ran::of(Command::new(PROGRAM).args(arguments))
}

#[test]
fn help_is_there_for_everything() {
    for arguments in [&["--help"][..], &["-h"], &["help"], &[]] {
        let text = ran(arguments).expect(0).stdout;
        assert!(text.starts_with("Make and run containers from OCI bundles\n\n"), "{text}");
        assert!(text.contains("\nUsage: oci-runtime [OPTIONS] COMMAND "), "{text}");
        assert!(text.contains("\nExamples:\n"), "{text}");
    }
    let verbs = "create delete events exec features kill list pause ps resume run spec start state update";
    for verb in verbs.split(' ') {
        for arguments in [[verb, "--help"], [verb, "-h"], ["help", verb]] {
            let text = ran(&arguments).expect(0).stdout;
            assert!(text.starts_with(char::is_uppercase), "{text}");
            assert!(text.contains(&format!("\nUsage: oci-runtime {verb} [OPTIONS]")), "{text}");
            assert!(text.contains("\nExamples:\n"), "{text}");
        }
    }
    // By another name it goes by that.
    let text = Ran::of(Command::new(PROGRAM).arg0("/usr/bin/runc").arg("--version")).expect(0).stdout;
    assert!(text.starts_with("runc version "), "{text}");
    let version = ran(&["-v"]).expect(0).stdout;
    assert!(version.starts_with("oci-runtime version 0.1.0\nspec: 1."), "{version}");
}

#[test]
fn wrong_usage_is_told() {
    for (arguments, words) in [
        (&["nope"][..], "No help topic for 'nope'"),
        (&["--nope", "list"], "flag provided but not defined: -nope"),
        (&["create", "--nope", "x"], "flag provided but not defined: -nope"),
        (&["create"], "requires exactly 1 argument(s)"),
        (&["state", "a", "b"], "requires exactly 1 argument(s)"),
        (&["kill"], "requires a minimum of 1 argument(s)"),
        (&["kill", "a", "b", "c"], "requires a maximum of 2 argument(s)"),
        (&["list", "x"], "requires exactly 0 argument(s)"),
        (&["--root", "/", "list"], "Option --root argument should not be set to /"),
        (&["--root", "/../.", "list"], "should not be set to /"),
        (&["--rootless", "maybe", "create", "x"], "invalid value"),
        (&["kill", "--root", "/tmp", "x", "NOPE"], "container does not exist"),
        (&["--systemd-cgroup", "create", "--bundle", "/nonexistent", "x"], "/nonexistent"),
        (&["restore", "--bundle", "/nonexistent", "x"], "/nonexistent"),
        (&["checkpoint"], "requires exactly 1 argument(s)"),
    ] {
        let ran = ran(arguments).expect(1);
        assert_says(&ran, words);
    }
}

#[test]
fn features_are_told() {
    let features: Value = serde_json::from_str(&ran(&["features"]).expect(0).stdout).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
    assert_eq!(
        features["hooks"],
        json!(["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"])
    );
    let list = |pointer: &str| features.pointer(pointer).and_then(Value::as_array).unwrap().clone();
    for option in ["bind", "rbind", "ro", "rro", "noexec", "rprivate"] {
        assert!(list("/mountOptions").contains(&json!(option)), "{option}");
    }
    assert_eq!(list("/linux/namespaces").len(), 8);
    assert!(list("/linux/capabilities").contains(&json!("CAP_SYS_ADMIN")));
    assert!(list("/linux/seccomp/actions").contains(&json!("SCMP_ACT_ERRNO")));
    assert_eq!(features["linux"]["cgroup"]["v2"], true);
}

#[test]
fn a_specification_is_written_once() {
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().display().to_string();
    ran(&["spec", "--bundle", &bundle]).expect(0);
    let path = dir.path().join("config.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("{\n\t\"ociVersion\": \"1."), "{text}");
    assert_says(&ran(&["spec", "-b", &bundle]).expect(1), "File config.json exists. Remove it first");
    std::fs::remove_file(&path).unwrap();
    ran(&["spec", "--rootless", "-b", &bundle]).expect(0);
    let spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
    assert_eq!(spec["linux"].get("resources"), None);
    assert_says(&ran(&["spec", "-b", "/nonexistent"]).expect(1), "/nonexistent");
}

#[test]
fn mounts_take_the_options_that_are_told() {
    let Some(bench) = Bench::new() else { return };
    let features: Value = serde_json::from_str(&ran(&["features"]).expect(0).stdout).unwrap();
    let source = bench.path().join("source");
    std::fs::create_dir(&source).unwrap();
    bench.configure(&["sh", "-c", "cat /proc/self/mountinfo"], |config| {
        let mounts = config["mounts"].as_array_mut().unwrap();
        for option in features["mountOptions"].as_array().unwrap() {
            // These are for mounts of other kinds: see `mounts.rs`.
            if ["remount", "idmap", "ridmap", "tmpcopyup"].contains(&option.as_str().unwrap()) {
                continue;
            }
            let destination = format!("/m/{}", option.as_str().unwrap());
            mounts.push(json!({"destination": destination, "source": source, "type": "bind", "options": ["bind", option]}));
        }
    });
    let mounted = bench.run(&bench.id("options"), &[]).expect(0).stdout;
    let line = |option: &str| mounted.lines().find(|line| line.contains(&format!(" /m/{option} "))).unwrap();
    for (option, words) in [
        ("ro", " ro,"),
        ("rro", " ro,"),
        ("noexec", "noexec"),
        ("nosymfollow", "nosymfollow"),
        ("shared", "shared:"),
    ] {
        assert!(line(option).contains(words), "{}", line(option));
    }
}
