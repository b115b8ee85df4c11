//! The tool as a program, against logs written by hand.

use serde_json::json;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use store::ContainerDir;
use testkit::{FakeShim, Place, Ran};

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-logs"));
    place.furnish(&mut command);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn logs(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(&mut command(place, arguments))
}

fn entry(stream: &str, minute: u32, log: &str) -> String {
    let time = format!("2026-01-02T03:{minute:02}:00.5Z");
    format!("{}\n", json!({"log": log, "stream": stream, "time": time}))
}

fn append(dir: &ContainerDir, text: &str) {
    let path = dir.bundle.join("log.json");
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
}

fn rotate(dir: &ContainerDir) {
    for number in (1..5).rev() {
        let from = dir.bundle.join(format!("log.json.{number}"));
        let _ = fs::rename(from, dir.bundle.join(format!("log.json.{}", number + 1)));
    }
    fs::rename(dir.bundle.join("log.json"), dir.bundle.join("log.json.1")).unwrap();
}

#[test]
fn streams_times_and_tails() {
    let place = Place::new();
    let dir = place.ended_container(&"a".repeat(64), "web", 0);
    assert_eq!(logs(&place, &["web"]).expect(0).stdout, "");
    append(&dir, &entry("stdout", 0, "zero\n"));
    rotate(&dir);
    append(
        &dir,
        &(entry("stderr", 1, "oops\n") + &entry("stdout", 2, "par") + &entry("stdout", 3, "tial\n")),
    );
    let ran = logs(&place, &["web"]).expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("zero\npartial\n", "oops\n"));
    let ran = logs(&place, &["-t", "web"]).expect(0);
    assert_eq!(ran.stdout, "2026-01-02T03:00:00.500000000Z zero\n2026-01-02T03:02:00.500000000Z partial\n");
    let both = |arguments: &[&str]| {
        let ran = logs(&place, arguments).expect(0);
        ran.stdout + &ran.stderr
    };
    assert_eq!(both(&["--tail", "1", "web"]), "partial\n");
    assert_eq!(both(&["-n", "2", "web"]), "partial\noops\n");
    assert_eq!(both(&["-n", "0", "web"]), "");
    assert_eq!(both(&["-n", "-1", "web"]), "zero\npartial\noops\n");
    assert_eq!(both(&["--since", "2026-01-02T03:01:30Z", "web"]), "partial\n");
    assert_eq!(both(&["--until", "2026-01-02T03:00:30Z", "web"]), "zero\n");
    assert_eq!(both(&["--until", "2026-01-02T03:01:30Z", "--tail", "1", "web"]), "oops\n");
    let ran = logs(&place, &["--output", "json", "web"]).expect(0);
    assert_eq!(ran.stdout.lines().count(), 4);
    assert_eq!(ran.json()["log"], "tial\n");
}

#[test]
fn what_is_no_entry_is_skipped_and_told_of() {
    let place = Place::new();
    let dir = place.ended_container(&"a".repeat(64), "web", 0);
    append(&dir, &entry("stdout", 0, "one\n"));
    append(&dir, "nonsense\n\0\0\0\n");
    append(&dir, &entry("stdout", 0, "two\n"));
    append(&dir, "{\"log\":\"to");
    let ran = logs(&place, &["web"]).expect(0);
    assert_eq!(ran.stdout, "one\ntwo\n");
    assert!(ran.stderr.contains("warning: 3 lines of the log are no log entries"), "{}", ran.stderr);
}

#[test]
fn failures() {
    let place = Place::new();
    place.container(&"a".repeat(64), "quiet", &json!({"config": {"log_driver": "none"}}));
    let ran = logs(&place, &["quiet"]).expect(5);
    assert!(ran.stderr.contains("it keeps no log"), "{}", ran.stderr);
    logs(&place, &["nobody"]).expect(4);
    logs(&place, &["--since", "yesterday", "quiet"]).expect(2);
    logs(&place, &["--tail", "x", "quiet"]).expect(2);
    logs(&place, &[]).expect(0);
}

/// Reads lines as they come.
struct Following(Child, BufReader<std::process::ChildStdout>);

impl Following {
    fn start(place: &Place, arguments: &[&str]) -> Following {
        let mut child = command(place, arguments).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Following(child, BufReader::new(stdout))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line
    }

    fn status(mut self) -> i32 {
        assert_eq!(self.line(), "", "more than was expected");
        self.0.wait().unwrap().code().unwrap()
    }
}

#[test]
fn followed_over_rotations_to_the_end() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    let shim = FakeShim::start(&dir, "running", &[]);
    append(&dir, &(entry("stdout", 0, "zero\n") + &entry("stdout", 0, "one\n")));
    let mut following = Following::start(&place, &["-f", "--tail", "1", "web"]);
    assert_eq!(following.line(), "one\n");
    append(&dir, &entry("stdout", 0, "two\n"));
    assert_eq!(following.line(), "two\n");
    // A line in two writes.
    let three = entry("stdout", 0, "three\n");
    append(&dir, &three[..10]);
    append(&dir, &three[10..]);
    assert_eq!(following.line(), "three\n");
    // Several rotations at once, with lines in each file.
    append(&dir, &entry("stdout", 0, "four\n"));
    rotate(&dir);
    append(&dir, &entry("stdout", 0, "five\n"));
    rotate(&dir);
    append(&dir, &entry("stdout", 0, "six\n"));
    for line in ["four\n", "five\n", "six\n"] {
        assert_eq!(following.line(), line);
    }
    append(&dir, &entry("stdout", 0, "last\n"));
    shim.exit(0);
    assert_eq!(following.line(), "last\n");
    assert_eq!(following.status(), 0);
}

#[test]
fn following_what_does_not_run_ends_and_what_waits_does_not() {
    let place = Place::new();
    let dir = place.ended_container(&"a".repeat(64), "done", 0);
    append(&dir, &entry("stdout", 0, "bye\n"));
    let mut following = Following::start(&place, &["-f", "done"]);
    assert_eq!(following.line(), "bye\n");
    assert_eq!(following.status(), 0);

    let dir = place.container(&"b".repeat(64), "soon", &json!({}));
    let shim = FakeShim::start(&dir, "created", &[]);
    let mut following = Following::start(&place, &["-f", "soon"]);
    shim.wait_for_requests(1);
    append(&dir, &entry("stdout", 0, "hello\n"));
    assert_eq!(following.line(), "hello\n");
    shim.exit(0);
    assert_eq!(following.status(), 0);
}

#[test]
fn a_reader_that_has_seen_enough_ends_it() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    let shim = FakeShim::start(&dir, "running", &[]);
    append(&dir, &entry("stdout", 0, "one\n"));
    let mut following = Following::start(&place, &["-f", "web"]);
    assert_eq!(following.line(), "one\n");
    drop(following.1);
    assert_eq!(following.0.wait().unwrap().code(), Some(0));
    drop(shim);
    // And without following.
    let many: String = (0..20_000).map(|_| entry("stdout", 0, "0123456789\n")).collect();
    append(&dir, &many);
    let ran = place.sh(&format!("{} web | head -1", env!("CARGO_BIN_EXE_ctr-logs"))).expect(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("one\n", ""));
}
