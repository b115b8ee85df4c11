//! The tool as a program, against containers made by hand, and against real ones.

use serde_json::{Value, json};
use std::process::Command;
use testkit::{Bench, FakeShim, Place, Ran, wait_until};

fn restart(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-restart"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn the_shim_runs_it_again() {
    let place = Place::new();
    let web = place.container(
        &"a".repeat(64),
        "web",
        &json!({"config": {"stop_signal": "INT", "stop_timeout": 3}}),
    );
    let shim = FakeShim::start(&web, "running", &[]);
    let planned = restart(&place, &["--dry-run", "web"]).expect(0).stdout;
    assert!(planned.contains(r#""signal":2"#) && planned.contains(r#""seconds":3"#), "{planned}");
    assert!(shim.requests().is_empty());
    restart(&place, &["-q", "web"]).expect(0);
    restart(&place, &["--running", "-s", "HUP", "-t", "-1"]).expect(0);
    let requests = shim.requests();
    let asked = |signal, timeout| shim::Request::Restart { signal, timeout };
    assert_eq!(requests, [asked(2, Some(3)), asked(1, None)]);
}

#[test]
fn what_waits_is_started() {
    let place = Place::new();
    let web = place.container(&"a".repeat(64), "web", &json!({}));
    let shim = FakeShim::start(&web, "created", &[]);
    assert_eq!(restart(&place, &["--running"]).expect(0).stdout, "");
    assert_eq!(restart(&place, &["--all"]).expect(0).json()["container"]["status"], "running");
    assert_eq!(shim.requests(), [shim::Request::Start]);
    restart(&place, &["nobody"]).expect(4);
    restart(&place, &["-s", "x", "web"]).expect(2);
    restart(&place, &["--all", "--running"]).expect(2);
}

/// What jq finds in a container's record.
fn of(bench: &Bench, name: &str, filter: &str) -> String {
    bench.sh(&format!("ctr-inspect {name} | jq -r '{filter}'")).expect(0).stdout.trim().to_owned()
}

#[test]
fn a_restart_keeps_address_ports_and_the_container_that_removes_itself() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run -d --rm --name web -p 127.0.0.1:18080:80 $R/busybox:1 sh -c 'echo $$ $(date +%N) >/tmp/run; echo hello >/tmp/index.html; exec httpd -f -p 80 -h /tmp'").expect(0);
    let get = || bench.sh("busybox wget -qO- http://127.0.0.1:18080/");
    wait_until("the server", || get().status == 0);
    let before = bench.sh("ctr-inspect web").expect(0).json();
    let after = bench.sh("ctr-restart -t 1 web").expect(0).json();
    assert_eq!(after["container"]["status"], "running");
    assert_ne!(before["container"]["pid"], after["container"]["pid"]);
    assert_eq!(before["networks"], after["networks"]);
    wait_until("the server again", || get().status == 0);
    assert_eq!(get().stdout, "hello\n");
    assert_eq!(bench.sh("ctr-port web 80 --output table").expect(0).stdout, "127.0.0.1:18080\n");
    bench.sh("ctr-stop -t 1 web").expect(0);
    bench.sh("ctr-inspect web").expect(4);
}

#[test]
fn a_restart_starts_what_has_ended_and_applies_what_was_edited() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("ctr-run -d --name web -p 18081:80 $R/busybox:1 sh -c 'trap \"echo told $EDITED\" TERM; env; while :; do sleep 0.05; done'")
        .expect(0);
    bench.sh("ctr-stop -t 0 web").expect(0);
    assert_eq!(bench.sh("ctr-port web").expect(0).json()["ports"], serde_json::json!([]));
    let record = bench.sh("ctr-restart web").expect(0).json();
    assert_eq!(
        (&record["container"]["status"], &record["container"]["exit_code"]),
        (&"running".into(), &Value::Null)
    );
    assert_eq!(bench.sh("ctr-port web 80 --output table").expect(0).stdout, "0.0.0.0:18081\n");
    bench.sh("ctr-inspect web | jq -c '.config.env += [\"EDITED=yes\"]' | ctr-restart -t 0 -q").expect(0);
    wait_until("the new run", || bench.sh("ctr-logs web").stdout.contains("EDITED=yes"));
    // One that a stop overtakes stays stopped, however late the tool learns of it.
    let ran = bench
        .sh("ctr-restart -t -1 web & until ctr-logs web | grep -q 'told yes'; do sleep 0.05; done
             kill -STOP $!; ctr-stop -q -t 0 web; kill -CONT $!; wait $!")
        .expect(5);
    assert!(ran.stderr.contains("it was stopped before it could run again"), "{}", ran.stderr);
    assert_eq!(of(&bench, "web", ".container.status"), "exited");
    bench.sh("ctr-rm web").expect(0);
}

#[test]
fn a_restart_goes_on_when_the_tool_is_killed() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("ctr-run -d --name web $R/busybox:1 sh -c 'trap \"echo told\" TERM; echo ready; while :; do sleep 0.05; done'")
        .expect(0);
    let before = of(&bench, "web", ".container.pid");
    bench
        .sh("until ctr-logs web | grep -q ready; do sleep 0.05; done
             ctr-restart -t 1 web & until ctr-logs web | grep -q told; do sleep 0.05; done; kill -9 $!")
        .expect(0);
    wait_until("the new run", || {
        let record = bench.sh("ctr-inspect web").expect(0).json();
        record["container"]["status"] == "running"
            && record["container"]["pid"].as_i64() != before.parse().ok()
    });
    bench.sh("ctr-rm -f web").expect(0);
}
