//! The tool as a program, against containers made by hand, and against real ones.

use serde_json::json;
use std::process::Command;
use testkit::{Bench, FakeShim, Place, Ran, wait_until};

fn top(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-top"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn what_does_not_run_has_no_processes() {
    let place = Place::new();
    place.ended_container(&"a".repeat(64), "old", 0);
    let refused = top(&place, &["old"]).expect(5);
    assert!(refused.stderr.contains("not running, but exited"), "{}", refused.stderr);
    assert_eq!(top(&place, &["--all"]).expect(0).stdout, "");
    // Its state is a file: what it says of control groups is not believed.
    let odd = place.container(&"b".repeat(64), "odd", &json!({}));
    let _shim = FakeShim::start(&odd, "running", &[]);
    let mut live = odd.live_state().unwrap().unwrap();
    (live.pid, live.cgroup) = (1, vec!["/etc/passwd/x".into()]);
    odd.write_live_state(&live).unwrap();
    top(&place, &["odd"]).expect(3);
    let wrong = top(&place, &["-o", "pid,colour", "odd"]).expect(2);
    assert!(wrong.stderr.contains("colour") && wrong.stderr.contains("hpid"), "{}", wrong.stderr);
    top(&place, &["nobody"]).expect(4);
}

#[test]
fn processes_without_ps_in_the_image() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run -d --name web -u 1000 $R/busybox:1 sh -c 'sleep 1000 & exec sleep 2000'").expect(0);
    wait_until("both processes", || bench.sh("ctr-top -q web").expect(0).stdout.lines().count() == 2);
    wait_until("their commands", || {
        !bench.sh("ctr-top --output table web").expect(0).stdout.contains("sh -c")
    });
    let record = bench.sh("ctr-top web").expect(0).json();
    let processes = record["processes"].as_array().unwrap();
    let init = &processes[0];
    assert_eq!((&init["pid"], &init["ppid"], &init["uid"]), (&1.into(), &0.into(), &1000.into()));
    assert_eq!(init["hpid"], record["container"]["pid"]);
    assert_eq!(init["args"], serde_json::json!(["sleep", "2000"]));
    assert_eq!((&processes[1]["ppid"], &processes[1]["seccomp"]), (&1.into(), &"filter".into()));
    assert!(init["rss"].as_u64().unwrap() > 4096 && init["start"].as_str().unwrap().ends_with('Z'), "{init}");
    let table = bench.sh("ctr-top --output table web").expect(0).stdout;
    let headings: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(headings, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert!(table.contains("sleep 2000"), "{table}");
    let chosen = bench.sh("ctr-ls | ctr-top -o pid,user,capeff").expect(0).json();
    let members: Vec<&String> = chosen["processes"][0].as_object().unwrap().keys().collect();
    assert_eq!(members, ["pid", "user", "capeff"]);
    bench.sh("ctr-rm -f web").expect(0);
}
