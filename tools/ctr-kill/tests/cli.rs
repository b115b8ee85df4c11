//! The tool as a program, against containers made by hand.

use serde_json::json;
use std::process::Command;
use testkit::{FakeShim, Place, Ran};

fn kill(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-kill"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn kills_and_waits_for_the_end() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({"mine": {"kept": 1.50}}));
    let shim = FakeShim::start(&dir, "running", &[]);
    let container = kill(&place, &["web"]).expect(0).json();
    assert_eq!(container["container"]["status"], "exited");
    assert_eq!(container["container"]["exit_code"], 137);
    let requests = shim.join();
    assert!(requests.contains(&shim::Request::Signal { signal: 9, stop: true }), "{requests:?}");
    let again = kill(&place, &["web"]).expect(5);
    assert!(again.stderr.contains("not running, but exited"), "{}", again.stderr);
}

#[test]
fn another_signal_does_not_end_the_restart_policy() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({"config": {"stop_signal": "QUIT"}}));
    let shim = FakeShim::start(&dir, "running", &[]);
    let ran = kill(&place, &["-s", "hup", "--output", "table", "aaaa"]).expect(0);
    assert_eq!(ran.stdout, "aaaa\n");
    kill(&place, &["--signal", "SIGQUIT", "web"]).expect(0);
    let requests = shim.requests();
    assert_eq!(
        requests,
        [shim::Request::Signal { signal: 1, stop: false }, shim::Request::Signal { signal: 3, stop: true }]
    );
}

#[test]
fn records_pass_through_and_failures_do_not_stop_the_others() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    place.container(&"b".repeat(64), "idle", &json!({}));
    let _shim = FakeShim::start(&dir, "running", &[]);
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-kill"));
    place.furnish(&mut command);
    let input = format!(
        "{{\"container\":{{\"id\":\"{}\",\"name\":\"idle\"}}}}\n{{\"x\":1.50,\"container\":{{\"id\":\"{}\",\"name\":\"web\"}}}}\n",
        "b".repeat(64),
        "a".repeat(64)
    );
    let stdout = Ran::fed(&mut command, input).expect(5).stdout;
    assert!(stdout.starts_with("{\"x\":1.50,\"container\":"), "{stdout}");
    assert_eq!(stdout.lines().count(), 1);
}

#[test]
fn usage() {
    let place = Place::new();
    kill(&place, &[]).expect(0);
    kill(&place, &["-s", "nope", "web"]).expect(2);
    kill(&place, &["web"]).expect(4);
    kill(&place, &["--help"]).expect(0);
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    let shim = FakeShim::start(&dir, "running", &[]);
    let step = kill(&place, &["--dry-run", "web"]).expect(0).json();
    assert_eq!((step["step"].as_str(), step["signal"].as_i64()), (Some("signal"), Some(9)));
    assert!(shim.requests().is_empty());
}
