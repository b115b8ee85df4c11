//! The tool as a program, against containers made by hand.

use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;
use testkit::{FakeShim, Place, Ran, die_with_parent};

fn stop(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-stop"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn signals(requests: &[shim::Request]) -> Vec<i32> {
    requests
        .iter()
        .filter_map(|request| match request {
            shim::Request::Signal { signal, stop: true } => Some(*signal),
            _ => None,
        })
        .collect()
}

#[test]
fn the_stop_signal_is_enough() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({"config": {"stop_signal": "INT"}}));
    let shim = FakeShim::start(&dir, "running", &[2]);
    let record = stop(&place, &["web"]).expect(0).json();
    assert_eq!(record["container"]["status"], "exited");
    assert_eq!(record["container"]["exit_code"], 130);
    assert_eq!(signals(&shim.join()), [2]);
    // Already stopped: nothing to do, and the record goes on.
    assert_eq!(stop(&place, &["web"]).expect(0).json()["container"]["status"], "exited");
}

#[test]
fn the_deaf_are_killed_all_at_once() {
    let place = Place::new();
    let shims: Vec<FakeShim> = (0..6)
        .map(|n| {
            let dir = place.container(&format!("{n:064}"), &format!("c{n}"), &json!({}));
            FakeShim::start(&dir, "running", &[])
        })
        .collect();
    let ran = stop(&place, &["-t", "1", "-q", "c0", "c1", "c2", "c3", "c4", "c5"]).expect(0);
    assert_eq!(ran.stdout.lines().count(), 6);
    for shim in shims {
        assert_eq!(signals(&shim.join()), [15, 9]);
    }
}

#[test]
fn waiting_and_unknown_containers() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    let shim = FakeShim::start(&dir, "created", &[]);
    let ran = stop(&place, &["web", "nobody"]).expect(4);
    assert_eq!(ran.json()["container"]["status"], "created");
    assert!(ran.stderr.contains("nobody: no such container"), "{}", ran.stderr);
    assert!(shim.requests().is_empty());
    stop(&place, &["-t", "-2", "web"]).expect(2);
    stop(&place, &["-s", "x", "web"]).expect(2);
    stop(&place, &[]).expect(0);
}

#[test]
fn an_init_that_outlived_its_shim_is_stopped() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    // Ignores TERM, which outlives exec. One process alone: a child of its would live on, and hold this test's stdout.
    let mut process = die_with_parent("sh").args(["-c", "trap '' TERM; exec sleep 1000"]).spawn().unwrap();
    let comm = format!("/proc/{}/comm", process.id());
    while std::fs::read_to_string(&comm).unwrap() != "sleep\n" {
        std::thread::sleep(Duration::from_millis(1));
    }
    let shim = FakeShim::start(&dir, "running", &[]);
    shim.vanish();
    shim.join();
    let mut live = dir.live_state().unwrap().unwrap();
    live.pid = process.id() as i32;
    live.pid_started = store::start_time(live.pid).unwrap() + 1;
    dir.write_live_state(&live).unwrap();
    // Another process under the same number is not touched.
    stop(&place, &["-t", "0", "web"]).expect(0);
    assert!(process.try_wait().unwrap().is_none());
    live.pid_started -= 1;
    dir.write_live_state(&live).unwrap();
    let record = stop(&place, &["-t", "0", "web"]).expect(0).json();
    assert_eq!(record["container"]["exit_code"], 137);
    assert_eq!(process.wait().unwrap().signal(), Some(9));
}
