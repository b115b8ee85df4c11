//! The tool as a program, against containers made by hand.

use serde_json::json;
use std::process::Command;
use testkit::{FakeShim, Place, Ran};

fn unpause(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-unpause"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn only_what_is_paused() {
    let place = Place::new();
    let web = place.container(&"a".repeat(64), "web", &json!({}));
    let db = place.container(&"b".repeat(64), "db", &json!({}));
    let _running = FakeShim::start(&web, "running", &[]);
    let paused = FakeShim::start(&db, "running", &[]);
    let mut live = db.live_state().unwrap().unwrap();
    live.status = "paused".into();
    db.write_live_state(&live).unwrap();
    let refused = unpause(&place, &["web"]).expect(5);
    assert!(refused.stderr.contains("not paused, but running"), "{}", refused.stderr);
    assert_eq!(unpause(&place, &["--all", "--dry-run"]).expect(0).json()["step"], "unpause");
    assert!(paused.requests().is_empty());
    assert_eq!(unpause(&place, &["--all"]).expect(0).json()["container"]["name"], "db");
    assert_eq!(paused.requests(), [shim::Request::Unpause]);
}
