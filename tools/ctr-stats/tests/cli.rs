//! With real containers.

use testkit::{Place, Ran, busybox};

#[test]
fn numbers_of_running_containers() {
    let Some(place) = busybox() else { return };
    place
        .sh("ctr-run -d --network none --name busy -m 64m --pids-limit 50 busybox:1 sh -c 'while :; do :; done'
             ctr-run -d --network none --name idle busybox:1 sleep 1000
             ctr-run --network none --name over busybox:1 true")
        .expect(0);
    let lines = place.sh("ctr-stats --no-stream --interval 300ms | jq -c").expect(0).stdout;
    let records: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = records.iter().map(|record| record["container"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["busy", "idle"], "{lines}");
    let busy = &records[0]["stats"];
    assert!(busy["cpu"]["percent"].as_f64() > Some(0.5), "{busy}");
    assert!(busy["cpu"]["percent"].as_f64() > records[1]["stats"]["cpu"]["percent"].as_f64(), "{lines}");
    assert!(busy["cpu"]["usage_ns"].is_u64() && busy["memory"]["usage"].as_u64() > Some(0), "{busy}");
    assert_eq!(busy["memory"]["limit"], 64 << 20);
    assert_eq!((&busy["pids"]["current"], &busy["pids"]["limit"]), (&1.into(), &50.into()));
    assert!(records[1]["stats"]["memory"]["limit"].is_null());
    // What does not run has no numbers; named it is there all the same.
    let over = place.sh("ctr-stats --no-stream over").expect(0).json();
    assert!(over["stats"].is_null() && over["container"]["status"] == "exited", "{over}");
    assert_eq!(place.sh("ctr-stats --no-stream --all --interval 10ms").expect(0).stdout.lines().count(), 3);
    let table = place.sh("ctr-stats --no-stream --interval 50ms --output table busy").expect(0).stdout;
    assert!(table.contains("busy") && table.contains("/ 64.00MiB"), "{table}");
    // A stream ends with its reader, and with the containers it was asked for.
    assert_eq!(place.sh("ctr-stats --interval 50ms idle | head -n 3 | wc -l").stdout.trim(), "3");
    let ran = place
        .sh("(sleep 0.5; ctr-kill -q idle >/dev/null) & timeout 20 ctr-stats --interval 50ms idle")
        .expect(0);
    assert!(ran.stdout.lines().count() >= 2, "{}", ran.stdout);
    place.sh("ctr-ls | ctr-stats --no-stream --interval 10ms -").expect(0);
}

#[test]
fn traffic_by_interface() {
    let Some(place) = busybox() else { return };
    let ran =
        place.sh("ctr-run -d --name net busybox:1 sleep 1000 && ctr-stats --no-stream --interval 10ms net");
    if ran.status == 125 {
        return testkit::skip(&format!("no bridge here: {}", ran.stderr));
    }
    let stats = ran.expect(0).json();
    assert!(stats["stats"]["networks"]["eth0"]["rx_bytes"].is_u64(), "{stats}");
    assert!(stats["stats"]["networks"].get("lo").is_none(), "{stats}");
}

#[test]
fn nothing_and_what_is_wrong() {
    let place = Place::new();
    let run = |words: &[&str]| Ran::of(place.command(env!("CARGO_BIN_EXE_ctr-stats")).args(words));
    assert_eq!(run(&["--no-stream"]).expect(0).stdout, "");
    run(&["--interval", "x"]).expect(2);
    run(&["--interval", "1ms"]).expect(2);
    let ran = run(&["nobody"]).expect(4);
    assert!(ran.stderr.contains("no such container"), "{}", ran.stderr);
}
