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
    Ran::end(child)
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

#[test]
fn a_time_limit_and_the_first_of_several() {
    let place = Place::new();
    let first = place.container(&"a".repeat(64), "first", &json!({}));
    let second = place.container(&"b".repeat(64), "second", &json!({}));
    let (one, two) = (FakeShim::start(&first, "running", &[]), FakeShim::start(&second, "running", &[]));
    let ran = Ran::of(&mut command(&place, &["--timeout", "200ms", "first"])).expect(7);
    assert!(
        ran.stdout.is_empty() && ran.stderr.contains("0.2 s were over before it had ended"),
        "{}",
        ran.stderr
    );
    let child = command(&place, &["--any", "first", "second"]).spawn().unwrap();
    one.wait_for_requests(2);
    two.wait_for_requests(1);
    two.exit(0);
    let ran = finish(child).expect(0);
    assert_eq!((ran.stdout.lines().count(), &ran.json()["container"]["name"]), (1, &json!("second")));
    for wrong in [&["--timeout", "soon"][..], &["--for", "happy"], &["--for", "exited", "--for", "running"]] {
        let ran = Ran::of(&mut command(&place, &[wrong, &["first"]].concat()));
        assert!([2, 125].contains(&ran.status), "{wrong:?} {}", ran.status);
    }
}

#[test]
fn real_containers_until_they_are_ready() {
    let Some(place) = testkit::busybox() else { return };
    let sh = |script: &str| place.sh(script);
    sh("ctr-run -d --network none --name db --health-cmd 'test -e /tmp/ready' --health-interval 100ms busybox:1 \
        sh -c 'sleep 1; echo listening soon; (nc -l -p 5432 &); sleep 1; touch /tmp/ready; echo ready to serve; sleep 1000'")
    .expect(0);
    let ran = sh("ctr-wait --for port:5432 --for running --timeout 30s db").expect(0);
    assert_eq!(ran.json()["container"]["name"], "db");
    let ran = sh("ctr-wait --for port:1 --timeout 300ms db").expect(7);
    assert!(ran.stderr.contains("listened on port 1/tcp"), "{}", ran.stderr);
    sh("ctr-wait --for 'log:^ready to \\w+$' --timeout 30s db").expect(0);
    let ran = sh("ctr-wait --for healthy --timeout 30s --output table db").expect(0);
    assert_eq!(ran.stdout, "db\n");
    sh("ctr-wait --for 'log:^never$' --timeout 300ms db").expect(7);
    // One that ends first, one that has no check, one that comes later.
    sh("ctr-run -d --network none --name short busybox:1 sh -c 'echo done; exit 3'").expect(0);
    let ran = sh("ctr-wait --for log:notthere --timeout 30s short").expect(5);
    assert!(ran.stderr.contains("it ended (with 3) before"), "{}", ran.stderr);
    sh("ctr-wait --for log:done --timeout 30s short").expect(0);
    sh("ctr-wait short").expect(3);
    let ran = sh("ctr-run -d --network none --name bare busybox:1 sleep 1000; ctr-wait --for healthy bare")
        .expect(5);
    assert!(ran.stderr.contains("no health check"), "{}", ran.stderr);
    let ran = sh("img-pull --policy missing busybox:1 | img-unpack | ctr-create --name later -- sleep 1000 >/dev/null
        ctr-wait --for running --timeout 30s later & waiter=$!; sleep 0.3; ctr-start -q later >/dev/null; wait $waiter")
    .expect(0);
    assert_eq!(ran.json()["container"]["status"], "running");
    let ran = sh("ctr-wait --any --for running --timeout 30s -q later db bare | wc -l").expect(0);
    assert_eq!(ran.stdout.trim(), "1");
}
