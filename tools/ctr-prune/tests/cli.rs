//! The tool as a program, against containers made by hand and what killed tools could leave.

use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};
use store::{Lease, LiveState, Lock};
use testkit::{FakeShim, Place, Ran};

fn prune(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-prune"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn names(ran: &Ran) -> Vec<String> {
    let mut names: Vec<String> = ran
        .stdout
        .lines()
        .map(|line| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(record["container"]["status"], "removed");
            assert!(record["reclaimed_bytes"].is_u64());
            record["container"]["name"].as_str().unwrap().to_owned()
        })
        .collect();
    names.sort();
    names
}

fn assert_clean(place: &Place) {
    for dir in ["root/containers", "root/names", "root/tmp", "run/containers", "root/networks/bridge/leases"]
    {
        let left: Vec<_> = fs::read_dir(place.path().join(dir)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{dir}: {left:?}");
    }
}

#[test]
fn what_has_ended_goes_and_what_lives_stays() {
    let place = Place::new();
    assert_eq!(prune(&place, &[]).expect(0).stdout, "");
    place.ended_container(&"1".repeat(64), "ended", 0);
    place.container(&"2".repeat(64), "forgotten", &json!({}));
    let running = place.container(&"3".repeat(64), "running", &json!({}));
    let waiting = place.container(&"4".repeat(64), "waiting", &json!({}));
    let again = place.ended_container(&"5".repeat(64), "again", 0);
    let shims = [
        FakeShim::start(&running, "running", &[]),
        FakeShim::start(&waiting, "created", &[]),
        FakeShim::start(&again, "created", &[]),
    ];
    let planned = prune(&place, &["--dry-run"]).expect(0);
    assert_eq!(planned.stdout.matches("remove_container").count(), 2, "{}", planned.stdout);
    assert_eq!(names(&prune(&place, &[]).expect(0)), ["ended", "forgotten"]);
    assert_eq!(names(&prune(&place, &["--created"]).expect(0)), ["again", "waiting"]);
    assert!(running.exists());
    drop(shims);
    // Its shim is gone, so it was cut off.
    assert_eq!(names(&prune(&place, &["-f"]).expect(0)), ["running"]);
    assert_clean(&place);
}

#[test]
fn filters_and_the_summary() {
    let place = Place::new();
    let label = |labels: serde_json::Value, id: &str, name: &str| {
        let dir = place.container(&id.repeat(64), name, &json!({"config": {"labels": labels}}));
        dir.write_last_run(&store::LastRun { exit_code: Some(0), ..Default::default() }).unwrap();
    };
    label(json!({"keep": "yes"}), "1", "kept");
    label(json!({}), "2", "dropped");
    assert_eq!(names(&prune(&place, &["--filter", "label=keep=no"]).expect(0)), [""; 0]);
    assert_eq!(names(&prune(&place, &["--filter", "until=2026-01-01"]).expect(0)), [""; 0]);
    assert_eq!(names(&prune(&place, &["--filter", "label!=keep"]).expect(0)), ["dropped"]);
    let ran = prune(&place, &["--output", "table"]).expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let id = "1".repeat(64);
    assert_eq!(lines[..3], ["Deleted Containers:", id.as_str(), ""]);
    assert!(lines[3].starts_with("Total reclaimed space: "), "{}", ran.stdout);
    prune(&place, &["--filter", "colour=red"]).expect(2);
}

#[test]
fn what_killed_tools_left_is_swept_and_what_is_being_made_is_not() {
    let place = Place::new();
    let store = place.store();
    place.container(&"a".repeat(64), "broken", &json!({}));
    // ctr-create: killed before the record was written, and one at work.
    let half = store.container_dir(&"b".repeat(64));
    fs::create_dir_all(half.bundle.join("upper/deep")).unwrap();
    store.take_name("half", &half.id).unwrap();
    let working = store.container_dir(&"c".repeat(64));
    fs::create_dir_all(&working.bundle).unwrap();
    let lock = Lock::directory(&working.bundle).unwrap();
    store.take_name("working", &working.id).unwrap();
    // ctr-rm: killed after the bundle was gone.
    let gone = store.container_dir(&"d".repeat(64));
    fs::create_dir_all(&gone.run).unwrap();
    gone.write_live_state(&LiveState { status: "running".into(), ..LiveState::default() }).unwrap();
    let leases = store.leases("bridge").unwrap();
    let lease = |dir: &store::ContainerDir| Lease { container: dir.id.clone(), ..Lease::default() };
    leases.take(&store, "10.89.0.2".parse().unwrap(), &lease(&gone)).unwrap();
    leases.take(&store, "10.89.0.3".parse().unwrap(), &lease(&working)).unwrap();
    fs::create_dir_all(place.root().join("tmp/1-1-0/x")).unwrap();
    fs::write(place.root().join("containers").join("e".repeat(64)), b"").unwrap();
    fs::write(store.container_dir(&"a".repeat(64)).bundle.join("container.json"), b"{").unwrap();
    let ran = prune(&place, &[]).expect(0);
    assert!(ran.stderr.contains("left alone: read "), "{}", ran.stderr);
    assert!(!half.bundle.exists() && working.bundle.exists() && !gone.run.exists());
    assert_eq!(leases.addresses().unwrap(), ["10.89.0.3".parse::<std::net::IpAddr>().unwrap()]);
    let mut left: Vec<_> =
        fs::read_dir(place.root().join("names")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["broken", "working"]);
    assert_eq!(fs::read_dir(place.root().join("containers")).unwrap().count(), 2);
    drop(lock);
    prune(&place, &["-f"]).expect(0);
    assert!(!working.bundle.exists());
    assert!(leases.addresses().unwrap().is_empty());
}

#[test]
fn an_init_without_shim_and_bundle_is_ended() {
    let place = Place::new();
    let dir = place.store().container_dir(&"a".repeat(64));
    let mut process = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    fs::create_dir_all(&dir.run).unwrap();
    let pid = process.id() as i32;
    let pid_started = store::start_time(pid).unwrap();
    dir.write_live_state(&LiveState { status: "running".into(), pid, pid_started, ..LiveState::default() })
        .unwrap();
    prune(&place, &[]).expect(0);
    assert!(!process.wait().unwrap().success());
    assert_clean(&place);
}

#[test]
fn a_shim_without_bundle_is_ended() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    let shim = FakeShim::start(&dir, "running", &[]);
    fs::remove_dir_all(&dir.bundle).unwrap();
    prune(&place, &[]).expect(0);
    assert!(shim.join().contains(&shim::Request::Signal { signal: 9, stop: true }));
    assert_clean(&place);
}

/// Groups of containers this store does not know: with nobody above their processes they go, with a shim they stay.
#[test]
fn control_groups_nobody_looks_after() {
    if !testkit::is_root() {
        return testkit::skip("control groups take root");
    }
    let place = Place::new();
    let ids = [format!("{:063}1", std::process::id()), format!("{:063}2", std::process::id())];
    let groups: Vec<cgroup::Cgroup> = match ids
        .iter()
        .map(|id| cgroup::Cgroup::create(&format!("/staves/{id}"), None))
        .collect::<Result<Vec<_>, _>>()
    {
        Ok(groups) => groups,
        Err(fault) => return testkit::skip(&format!("no control groups: {fault}")),
    };
    // What has a shim's arguments, with a child in the second group.
    let join = |group: &cgroup::Cgroup, program: &str| {
        let files = group
            .directories()
            .iter()
            .map(|directory| format!("echo 0 > {}/cgroup.procs; ", directory.display()))
            .collect::<Vec<_>>();
        format!("{} exec {program}", files.concat())
    };
    let mut orphan = Command::new("sh")
        .args(["-c", &join(&groups[0], "sleep 1000")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let bundle = place.path().join(&ids[1]);
    fs::write(&bundle, format!("({}) & wait", join(&groups[1], "sleep 1000"))).unwrap();
    let mut parent = Command::new("sh").arg(&bundle).stdin(Stdio::null()).spawn().unwrap();
    while groups.iter().any(|group| group.processes().is_empty()) {
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    let ran = prune(&place, &[]);
    let kept = groups[1].processes().len();
    let left = groups[0].directories().iter().filter(|directory| directory.exists()).count();
    // Cleared away before anything is judged.
    groups[1].kill();
    let _ = groups[0].remove();
    let _ = orphan.kill();
    let _ = parent.kill();
    orphan.wait().unwrap();
    parent.wait().unwrap();
    groups[1].remove().unwrap();
    ran.expect(0);
    assert_eq!((kept, left), (1, 0));
}
