//! The tool as a program, against containers made by hand.

use serde_json::json;
use std::process::Command;
use testkit::{FakeShim, Place, Ran};

fn ls(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-ls"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn names(ran: &Ran) -> Vec<String> {
    ran.stdout
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["container"]["name"].as_str().unwrap().to_owned()
        })
        .collect()
}

fn three(place: &Place) -> FakeShim {
    let at = |time: &str| json!({"container": {"created_at": time}, "mine": {"kept": true}});
    let dir = place.container(&"a".repeat(64), "oldest", &at("2026-01-01T00:00:00Z"));
    dir.write_last_run(&store::LastRun { exit_code: Some(2), ..Default::default() }).unwrap();
    let dir = place.container(&"b".repeat(64), "running", &at("2026-01-01T00:00:00.5Z"));
    place.container(&"c".repeat(64), "newest", &at("2026-01-02T00:00:00Z"));
    FakeShim::start(&dir, "running", &[])
}

#[test]
fn what_runs_or_all_the_newest_first() {
    let place = Place::new();
    assert_eq!(ls(&place, &["--all"]).expect(0).stdout, "");
    let _shim = three(&place);
    let ran = ls(&place, &[]).expect(0);
    assert_eq!(names(&ran), ["running"]);
    let record = ran.json();
    assert_eq!((&record["mine"]["kept"], &record["container"]["status"]), (&json!(true), &json!("running")));
    for (arguments, wanted) in [
        (&["--all"][..], &["newest", "running", "oldest"][..]),
        (&["-n", "2"], &["newest", "running"]),
        (&["--latest"], &["newest"]),
        (&["-f", "status=exited"], &["oldest"]),
        (&["-f", "status=exited", "-f", "status=created"], &["newest", "oldest"]),
        (&["--filter", "exited=2"], &["oldest"]),
        (&["-a", "-f", "before=newest"], &["running", "oldest"]),
        (&["-a", "-f", "since=oldest"], &["newest", "running"]),
        (&["-a", "-f", "name=e", "-f", "id=^a"], &["oldest"]),
        (&["-f", "name=oldest"], &[]),
    ] {
        assert_eq!(names(&ls(&place, arguments).expect(0)), wanted, "{arguments:?}");
    }
    assert_eq!(ls(&place, &["-q"]).expect(0).stdout, "bbbbbbbbbbbb\n");
    assert_eq!(ls(&place, &["-q", "--no-trunc"]).expect(0).stdout.trim(), "b".repeat(64));
    ls(&place, &["-f", "colour=red"]).expect(2);
    ls(&place, &["-n", "1", "-l"]).expect(2);
}

#[test]
fn the_table_has_dockers_columns() {
    let place = Place::new();
    let _shim = three(&place);
    let text = ls(&place, &["-a", "--output", "table"]).expect(0).stdout;
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("CONTAINER ID   IMAGE   COMMAND   CREATED"), "{text}");
    assert!(lines[1].contains("Created") && lines[1].ends_with("newest"), "{text}");
    assert!(lines[2].contains("Up "), "{text}");
    assert!(lines[3].contains("Exited (2)"), "{text}");
}

#[test]
fn a_broken_container_does_not_hide_the_others() {
    let place = Place::new();
    let _shim = three(&place);
    let store = place.store();
    std::fs::write(store.container_dir(&"a".repeat(64)).bundle.join("container.json"), b"{").unwrap();
    // Being made right now, or left by a killed ctr-create: not a container yet.
    std::fs::create_dir_all(store.container_dir(&"d".repeat(64)).bundle).unwrap();
    std::fs::write(place.root().join("containers").join("e".repeat(64)), b"").unwrap();
    let ran = ls(&place, &["--all"]).expect(0);
    assert_eq!(names(&ran), ["newest", "running"]);
    assert!(ran.stderr.contains(&format!("ctr-ls: {}: warning: read ", "a".repeat(64))), "{}", ran.stderr);
    std::fs::write(store.container_dir(&"b".repeat(64)).run.join("state.json"), b"[]").unwrap();
    assert_eq!(names(&ls(&place, &["--all"]).expect(0)), ["newest"]);
}
