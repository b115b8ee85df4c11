//! The tool as a program, against containers made by hand, and against real ones.

use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};
use store::ContainerDir;
use testkit::{Bench, FakeShim, Place, Ran, wait_until};

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-update"));
    place.furnish(&mut command);
    command.args(arguments);
    command
}

fn update(place: &Place, arguments: &[&str]) -> Ran {
    Ran::of(&mut command(place, arguments))
}

/// Its exit status and what it said.
fn pipe(place: &Place, record: &Value) -> (i32, String) {
    let mut child = command(place, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(record.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn container(place: &Place) -> ContainerDir {
    let dir =
        place.container(&"a".repeat(64), "web", &json!({"config": {"memory": "64m", "command": ["x"]}}));
    let spec = json!({"linux": {"resources": {"memory": {"limit": 64 << 20}, "devices": []}}});
    std::fs::write(dir.bundle.join("config.json"), spec.to_string()).unwrap();
    dir
}

#[test]
fn the_shim_is_told_of_what_changes() {
    let place = Place::new();
    let dir = container(&place);
    let shim = FakeShim::start(&dir, "running", &[]);
    let planned = update(&place, &["--dry-run", "--pids-limit", "9", "web"]).expect(0).stdout;
    assert!(planned.contains(r#""pids":{"limit":9}"#), "{planned}");
    assert!(shim.requests().is_empty());
    update(&place, &["-m", "0", "--cpu-quota", "5000", "--restart", "on-failure:3", "web"]).expect(0);
    let requests = shim.requests();
    let [shim::Request::Update { resources, config }] = requests.as_slice() else { panic!("{requests:?}") };
    assert_eq!(Value::Object(resources.clone()), json!({"cpu": {"quota": 5000}}));
    let expected = json!({"memory": null, "cpu_quota": 5000, "restart": "on-failure:3"});
    assert_eq!(Value::Object(config.clone()), expected);
    // As it is: nothing to do.
    update(&place, &["-m", "64m", "web"]).expect(0);
    assert_eq!(shim.requests().len(), 1);
}

#[test]
fn a_running_container_refuses_what_it_cannot_change() {
    let place = Place::new();
    let dir = container(&place);
    let shim = FakeShim::start(&dir, "running", &[]);
    let mut record: Value = serde_json::from_str(&dir.current().unwrap().to_line()).unwrap();
    assert_eq!(pipe(&place, &record).0, 0);
    record["config"]["env"] = json!(["A=b"]);
    let (status, said) = pipe(&place, &record);
    assert!(status == 5 && said.contains("cannot change env") && said.contains("ctr-restart"), "{said}");
    record["config"] = json!({"memory": "1m", "memory_swap": "900k", "command": ["x"]});
    assert_eq!(pipe(&place, &record).0, 3);
    assert!(shim.requests().is_empty());
}

#[test]
fn usage() {
    let place = Place::new();
    container(&place);
    let nothing = update(&place, &["web"]).expect(2);
    assert!(nothing.stderr.contains("nothing to change"), "{}", nothing.stderr);
    let kernel = update(&place, &["--kernel-memory", "1g", "web"]).expect(2);
    assert!(kernel.stderr.contains("--kernel-memory is not supported"), "{}", kernel.stderr);
    update(&place, &["--cpu-rt-runtime", "5", "web"]).expect(2);
    update(&place, &["--cpus", "many", "web"]).expect(2);
    update(&place, &["--restart", "sometimes", "web"]).expect(2);
    update(&place, &["-m", "1g", "nobody"]).expect(4);
    update(&place, &[]).expect(0);
}

/// What jq finds in a container's record.
fn of(bench: &Bench, name: &str, filter: &str) -> String {
    bench.sh(&format!("ctr-inspect {name} | jq -r '{filter}'")).expect(0).stdout.trim().to_owned()
}

/// What a shell in the container says.
fn inside(bench: &Bench, name: &str, script: &str) -> String {
    bench.sh(&format!("ctr-exec {name} sh -c '{script}'")).expect(0).stdout.trim().to_owned()
}

/// A file of the container's control group, as either version calls it.
fn group_file(bench: &Bench, controller: &str, version_1: &str, version_2: &str) -> String {
    let script = format!(
        "pid=$(ctr-inspect web | jq .container.pid); if test -f /sys/fs/cgroup/cgroup.controllers; \
         then cat /sys/fs/cgroup$(sed -n s/^0:://p /proc/$pid/cgroup)/{version_2}; \
         else cat /sys/fs/cgroup/{controller}$(grep -E \":([^:]*,)?{controller}(,[^:]*)?:\" /proc/$pid/cgroup | cut -d: -f3)/{version_1}; fi"
    );
    bench.sh(&script).expect(0).stdout.trim().to_owned()
}

fn memory(bench: &Bench) -> String {
    group_file(bench, "memory", "memory.limit_in_bytes", "memory.max")
}

fn pids(bench: &Bench) -> String {
    group_file(bench, "pids", "pids.max", "pids.max")
}

#[test]
fn limits_change_at_once_and_are_kept() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run -d --name web -m 64m $R/busybox:1 sleep 1000").expect(0);
    assert_eq!(memory(&bench), (64u32 << 20).to_string());
    let updated =
        bench.sh("ctr-update -m 128m --pids-limit 50 --cpus 0.5 --restart on-failure:2 web").expect(0).json();
    assert_eq!(
        (&updated["config"]["memory"], &updated["config"]["pids_limit"]),
        (&"128m".into(), &50.into())
    );
    let check = || {
        assert_eq!((memory(&bench), pids(&bench)), ((128u32 << 20).to_string(), "50".to_owned()));
        let quota = group_file(&bench, "cpu", "cpu.cfs_quota_us", "cpu.max");
        assert!(quota.starts_with("50000"), "{quota}");
    };
    check();
    bench.sh("ctr-restart -t 0 web").expect(0);
    check();
    bench.sh("ctr-pause web; ctr-update --pids-limit 60 -q web; ctr-unpause web").expect(0);
    assert_eq!(pids(&bench), "60");
    // Less than is in use, or nonsense: everything stays.
    bench.sh("ctr-update -m 1g --memory-swap 512m web").expect(2);
    bench.sh("ctr-update --cpuset-cpus 4000 --pids-limit 70 web").expect(1);
    assert_eq!((pids(&bench), of(&bench, "web", ".config.pids_limit")), ("60".to_owned(), "60".to_owned()));
    bench.sh("ctr-update -m 0 --pids-limit -1 --cpus 0 web").expect(0);
    assert_eq!(pids(&bench), "max");
    assert_ne!(memory(&bench), (128u32 << 20).to_string());
    bench.sh("ctr-stop -t 0 web && ctr-update -m 32m web && ctr-start web").expect(0);
    assert_eq!(memory(&bench), (32u32 << 20).to_string());
    bench.sh("ctr-rm -f web").expect(0);
}

#[test]
fn the_restart_policy_of_a_running_container_changes() {
    let Some(bench) = Bench::new() else { return };
    bench
        .sh("ctr-run -d --name web $R/busybox:1 sh -c 'until [ -e /go ]; do sleep 0.05; done; exit 3'")
        .expect(0);
    bench.sh("ctr-update --restart on-failure:1 -q web && ctr-exec web touch /go").expect(0);
    wait_until("the second run", || {
        bench.sh("ctr-inspect web").expect(0).json()["container"]["restart_count"] == 1
    });
    wait_until("its end", || of(&bench, "web", ".container.status") == "exited");
    bench.sh("ctr-rm web").expect(0);
}

#[test]
fn an_edited_record_changes_a_stopped_container() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run -d --name web -p 18082:80 $R/busybox:1 sleep 1000; mkdir $DIR/data; echo there >$DIR/data/file").expect(0);
    let edit = "ctr-inspect web | jq -c --arg dir $DIR/data '.config.env += [\"A=b\"] | .config.ports = [\"18083:80\"] | \
                .config.mounts += [{type: \"bind\", source: $dir, target: \"/data\"}]' | ctr-update";
    let refused = bench.sh(edit).expect(5);
    assert!(
        refused.stderr.contains("env, mounts, ports") && refused.stderr.contains("hint:"),
        "{}",
        refused.stderr
    );
    bench.sh("ctr-stop -t 0 web").expect(0);
    let record = bench.sh(edit).expect(0).json();
    assert_eq!(record["config"]["env"], serde_json::json!(["A=b"]));
    bench.sh("ctr-start web").expect(0);
    assert_eq!(inside(&bench, "web", "echo $A; cat /data/file"), "b\nthere");
    assert_eq!(bench.sh("ctr-port web --output table").expect(0).stdout, "80/tcp -> 0.0.0.0:18083\n");
    // A specification of one's own keeps what the flags say, too.
    bench.sh("ctr-stop -t 0 web && ctr-inspect --spec web | jq -c '.spec.process.env += [\"OWN=1\"]' | ctr-update && ctr-update --pids-limit 40 web && ctr-start web").expect(0);
    assert_eq!((inside(&bench, "web", "echo $OWN"), pids(&bench)), ("1".to_owned(), "40".to_owned()));
    bench.sh("ctr-rm -f web").expect(0);
}

#[test]
fn another_runtime_pauses_and_limits_as_well() {
    let Some(bench) = Bench::new() else { return };
    if testkit::find_program("runc").is_none() {
        return testkit::skip("runc is not installed");
    }
    bench.sh("ctr-run -d --runtime runc --name web $R/busybox:1 sleep 1000").expect(0);
    let ran: Ran =
        bench.sh("ctr-pause web && ctr-update --pids-limit 30 web && ctr-unpause web && ctr-top -q web");
    ran.expect(0);
    assert_eq!(pids(&bench), "30");
    bench.sh("ctr-pause web && ctr-stop -t 1 web && ctr-rm web").expect(0);
}
