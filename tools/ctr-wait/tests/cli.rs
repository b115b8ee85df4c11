//! The tool as a program, against containers made by hand.

use serde_json::json;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use testkit::{FakeShim, Place, Ran};

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-wait"));
    place.furnish(&mut command);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn finish(child: Child) -> Ran {
    let output = child.wait_with_output().unwrap();
    Ran {
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        status: output.status.code().unwrap(),
    }
}

#[test]
fn waits_for_all_and_prints_each_as_it_ends() {
    let place = Place::new();
    let first = place.container(&"a".repeat(64), "first", &json!({}));
    let second = place.container(&"b".repeat(64), "second", &json!({}));
    let (one, two) = (FakeShim::start(&first, "running", &[]), FakeShim::start(&second, "running", &[]));
    let mut child = command(&place, &["first", "second"]).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut next = || -> serde_json::Value {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    };
    one.wait_for_requests(1);
    two.wait_for_requests(1);
    two.exit(0);
    two.join();
    // Printed while the other one still runs.
    let line = next();
    assert_eq!((&line["container"]["name"], &line["exit_code"]), (&json!("second"), &json!(0)));
    one.exit(7);
    let line = next();
    assert_eq!((&line["container"]["name"], &line["exit_code"]), (&json!("first"), &json!(7)));
    assert_eq!(line["container"]["status"], "exited");
    assert_eq!(child.wait().unwrap().code(), Some(7));
}

#[test]
fn one_that_has_ended_and_one_whose_shim_was_killed() {
    let place = Place::new();
    place.ended_container(&"a".repeat(64), "done", 3);
    let ran = Ran::of(&mut command(&place, &["--output", "table", "done"])).expect(3);
    assert_eq!(ran.stdout, "3\n");
    let dir = place.container(&"b".repeat(64), "lost", &json!({}));
    let shim = FakeShim::start(&dir, "running", &[]);
    let child = command(&place, &["lost"]).spawn().unwrap();
    shim.wait_for_requests(1);
    shim.vanish();
    assert_eq!(finish(child).expect(137).json()["exit_code"], 137);
}

#[test]
fn one_that_was_not_started_is_waited_for() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "later", &json!({}));
    let child = command(&place, &["later"]).spawn().unwrap();
    // No shim at first, then one, which is discarded, then one that runs.
    let shim = FakeShim::start(&dir, "created", &[]);
    shim.wait_for_requests(1);
    shim.vanish();
    shim.join();
    let shim = FakeShim::start(&dir, "running", &[]);
    shim.wait_for_requests(1);
    shim.exit(5);
    assert_eq!(finish(child).expect(5).json()["exit_code"], 5);
}

#[test]
fn removed_containers_and_own_failures() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "gone", &json!({"config": {"auto_remove": true}}));
    let shim = FakeShim::start(&dir, "running", &[]);
    let child = command(&place, &["gone"]).spawn().unwrap();
    shim.wait_for_requests(1);
    std::fs::remove_dir_all(&dir.bundle).unwrap();
    shim.exit(4);
    let record = finish(child).expect(4).json();
    assert_eq!((&record["exit_code"], &record["container"]["status"]), (&json!(4), &json!("exited")));
    let ran = Ran::of(&mut command(&place, &["nobody"])).expect(125);
    assert!(ran.stderr.contains("no such container"), "{}", ran.stderr);
    Ran::of(&mut command(&place, &[])).expect(0);
}
