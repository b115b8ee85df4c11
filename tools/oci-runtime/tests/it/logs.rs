//! The log, as engines parse it.

use crate::{Bench, PROGRAM, assert_says};
use serde_json::json;
use std::process::Command;
use testkit::Ran;

fn ran(arguments: &[&str]) -> Ran {
    Ran::of(Command::new(PROGRAM).args(arguments))
}

#[test]
fn errors_go_to_the_log_and_to_stderr() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let path = log.display().to_string();
    let root = dir.path().join("root").display().to_string();
    let text = ran(&["--root", &root, "state", "nobody"]).expect(1);
    assert!(text.stderr.starts_with("time=\"2"), "{}", text.stderr);
    assert!(text.stderr.ends_with("level=error msg=\"container does not exist\"\n"), "{}", text.stderr);
    let ran_with =
        ran(&["--root", &root, "--log", &path, "--log-format", "json", "state", "nobody"]).expect(1);
    assert_eq!(ran_with.stderr, "container does not exist\n");
    // After the verb they mean the same, and logs grow.
    ran(&["state", "--log-format=json", "--log", &path, "--root", &root, "a/b"]).expect(1);
    let lines: Vec<serde_json::Value> = std::fs::read_to_string(&log)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[0]["level"], "error");
    assert_eq!(lines[0]["msg"], "container does not exist");
    assert_eq!(lines[1]["msg"], "invalid container ID format");
    assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn logs_that_cannot_be_written_are_told() {
    assert_says(
        &ran(&["--log", "/nonexistent/log", "list"]).expect(1),
        "/nonexistent/log: no such file or directory",
    );
    assert_says(&ran(&["--log-format", "yaml", "list"]).expect(1), "invalid log-format: yaml");
}

#[test]
fn debugging_says_more() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("debug");
    bench.configure(&["true"], |_| {});
    assert!(!bench.run(&id, &[]).expect(0).stderr.contains("level=debug"));
    let bundle = bench.bundle().display().to_string();
    let ran = bench.ran(&["--debug", "run", "--bundle", &bundle, &id]).expect(0);
    assert!(ran.stderr.contains("level=debug"), "{}", ran.stderr);
}

/// Without `flags` they are runc's default; an empty list is none.
#[test]
fn debugging_tells_a_filters_flags() {
    let Some(bench) = Bench::new() else { return };
    let bundle = bench.bundle().display().to_string();
    for (flags, number) in [(json!(null), 4), (json!([]), 0), (json!(["SECCOMP_FILTER_FLAG_LOG"]), 2)] {
        bench.configure(&["true"], |config| {
            config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags});
        });
        let ran = bench.ran(&["--debug", "run", "--bundle", &bundle, &bench.id("flags")]).expect(0);
        assert_says(&ran, &format!("\"seccomp filter flags: {number}\""));
    }
}
