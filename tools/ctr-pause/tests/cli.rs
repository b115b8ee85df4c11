//! The tool as a program, against containers made by hand, and against real ones.

use serde_json::json;
use std::process::Command;
use testkit::{Bench, FakeShim, Place, Ran, wait_until};

fn pause(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-pause"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn the_shim_is_asked_and_others_are_refused() {
    let place = Place::new();
    let web = place.container(&"a".repeat(64), "web", &json!({}));
    let db = place.container(&"b".repeat(64), "db", &json!({}));
    place.ended_container(&"c".repeat(64), "old", 0);
    let shims = [FakeShim::start(&web, "running", &[]), FakeShim::start(&db, "running", &[])];
    let step = pause(&place, &["--dry-run", "web"]).expect(0).json();
    assert_eq!((step["step"].as_str(), step["container"].as_str()), (Some("pause"), Some(web.id.as_str())));
    assert!(shims[0].requests().is_empty());
    let refused = pause(&place, &["-q", "old", "web"]).expect(5);
    assert_eq!(refused.stdout, format!("{}\n", web.id));
    assert!(refused.stderr.contains("not running, but exited"), "{}", refused.stderr);
    let mut live = web.live_state().unwrap().unwrap();
    live.status = "paused".into();
    web.write_live_state(&live).unwrap();
    let again = pause(&place, &["web"]).expect(5);
    assert!(again.stderr.contains("paused already"), "{}", again.stderr);
    // Those that run; there is one left.
    let all = pause(&place, &["--all"]).expect(0).json();
    assert_eq!(all["container"]["name"], "db");
    assert_eq!(shims[0].requests(), [shim::Request::Pause]);
    assert_eq!(shims[1].requests(), [shim::Request::Pause]);
    pause(&place, &["--all", "web"]).expect(2);
    pause(&place, &["nobody"]).expect(4);
    pause(&place, &[]).expect(0);
}

/// What jq finds in a container's record.
fn of(bench: &Bench, name: &str, filter: &str) -> String {
    bench.sh(&format!("ctr-inspect {name} | jq -r '{filter}'")).expect(0).stdout.trim().to_owned()
}

const COUNTER: &str = "sh -c 'while true; do echo tick; sleep 0.02; done'";

/// How many lines it has written.
fn count(bench: &Bench, name: &str) -> usize {
    bench.sh(&format!("ctr-logs {name}")).expect(0).stdout.lines().count()
}

#[test]
fn a_paused_container_stands_still_and_goes_on() {
    let Some(bench) = Bench::new() else { return };
    bench.sh(&format!("ctr-run -d --name web $R/busybox:1 {COUNTER}")).expect(0);
    wait_until("the first lines", || count(&bench, "web") > 2);
    let paused = bench.sh("ctr-pause web").expect(0).json();
    assert_eq!(paused["container"]["status"], "paused");
    assert_eq!(of(&bench, "web", ".container.status"), "paused");
    assert_eq!(bench.sh("ctr-ls --filter status=paused | jq -r .container.name").expect(0).stdout, "web\n");
    assert!(bench.sh("ctr-ls --output table").expect(0).stdout.contains("(Paused)"));
    let before = count(&bench, "web");
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(count(&bench, "web"), before);
    for (refused, status) in
        [("ctr-pause web", 5), ("ctr-start web", 5), ("ctr-exec web true", 125), ("ctr-attach web", 125)]
    {
        let ran = bench.sh(refused).expect(status);
        assert!(ran.stderr.contains("paused"), "{refused}: {}", ran.stderr);
    }
    // A signal that is not meant to end it waits.
    bench.sh("ctr-kill -s USR1 web && ctr-top -o pid,state web").expect(0);
    assert_eq!(of(&bench, "web", ".container.status"), "paused");
    bench.sh("ctr-unpause --all -q").expect(0);
    bench.sh("ctr-unpause web").expect(5);
    bench.sh("ctr-rm -f web").expect(0);
}

#[test]
fn a_paused_container_is_stopped_killed_and_removed_as_any_other() {
    let Some(bench) = Bench::new() else { return };
    let run = |name: &str| {
        bench.sh(&format!("ctr-run -d --name {name} $R/busybox:1 sh -c 'trap \"exit 7\" TERM; echo ready; while :; do sleep 0.05; done'")).expect(0);
        // Stopped before it has said what to do about that it would be deaf.
        wait_until("the container to listen", || count(&bench, name) > 0);
        bench.sh(&format!("ctr-pause {name}")).expect(0);
    };
    run("stopped");
    assert_eq!(bench.sh("ctr-stop stopped").expect(0).json()["container"]["exit_code"], 7);
    run("killed");
    assert_eq!(bench.sh("ctr-kill killed").expect(0).json()["container"]["exit_code"], 137);
    run("again");
    assert_eq!(bench.sh("ctr-restart again").expect(0).json()["container"]["status"], "running");
    run("orphan");
    // Its shim is killed: what is frozen does not end by itself everywhere.
    bench.sh("kill -9 $(jq .shim_pid $STAVES_RUN/containers/$(ctr-inspect orphan | jq -r .container.id)/state.json)").expect(0);
    bench.sh("ctr-rm -f orphan").expect(0);
    run("removed");
    bench.sh("ctr-rm -f removed stopped killed again").expect(0);
    assert_eq!(bench.sh("ctr-ls --all").expect(0).stdout, "");
}
