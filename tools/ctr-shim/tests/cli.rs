//! The health check, with real containers.

use serde_json::Value;
use std::time::{Duration, Instant};
use testkit::{Place, busybox};

/// Waits until what `ctr-inspect` says of a container is as wanted.
#[track_caller]
fn until(place: &Place, name: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let give_up = Instant::now() + Duration::from_mins(1);
    loop {
        let record = place.sh(&format!("ctr-inspect {name}")).expect(0).json();
        if wanted(&record["container"]) {
            return record["container"].clone();
        }
        assert!(Instant::now() < give_up, "{what}: {}", record["container"]);
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn is(status: &'static str) -> impl Fn(&Value) -> bool {
    move |container| container["health"]["status"] == status
}

#[test]
fn healthy_unhealthy_and_healthy_again() {
    let Some(place) = busybox() else { return };
    place
        .sh("ctr-run -d --network none --name web -e WHERE=/dev/shm/ok -w /etc -u 1000 --health-cmd 'pwd; id -u; test -e $WHERE' \
             --health-interval 100ms --health-retries 2 busybox:1 sleep 1000")
        .expect(0);
    let starting = place.sh("ctr-inspect web").expect(0).json();
    assert_eq!(starting["container"]["health"]["status"], "starting", "{starting}");
    let unhealthy = until(&place, "web", "unhealthy", is("unhealthy"));
    assert!(unhealthy["health"]["failing_streak"].as_u64() >= Some(2), "{unhealthy}");
    let listed = place.sh("ctr-ls --output table").expect(0).stdout;
    assert!(listed.contains("(unhealthy)"), "{listed}");
    assert_eq!(place.sh("ctr-ls -q --filter health=unhealthy").stdout.lines().count(), 1);
    assert_eq!(place.sh("ctr-ls -q --filter health=healthy").stdout, "");
    place.sh("ctr-exec web touch /dev/shm/ok").expect(0);
    let healthy = until(&place, "web", "healthy", is("healthy"));
    assert_eq!(healthy["health"]["failing_streak"], 0);
    // As the container: its directory, user and variables.
    let last = healthy["health"]["log"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&last["output"], &last["exit_code"]), (&"/etc\n1000\n".into(), &0.into()));
    until(&place, "web", "five results", |c| c["health"]["log"].as_array().map(Vec::len) == Some(5));
    let events =
        place.sh("ctr-events --filter event=health_status | jq -r .attributes.health_status").expect(0);
    assert_eq!(events.stdout.lines().collect::<Vec<_>>(), ["unhealthy", "healthy"]);
    // Ended, it is not checked any more.
    place.sh("ctr-kill web").expect(0);
    let left = place.sh("pgrep -f '^/bin/sh -c .*test -e [$]WHERE'");
    assert_eq!(left.stdout, "", "checks left");
}

#[test]
fn one_that_takes_too_long_is_killed_with_all_it_started() {
    let Some(place) = busybox() else { return };
    let check = "echo begun; sleep 987651 & setsid sleep 987652 & sh -c \"sleep 987653\"; yes";
    place
        .sh(&format!(
            "ctr-run -d --network none --name slow --health-cmd '{check}' --health-interval 50ms --health-timeout 300ms \
             --health-retries 1 busybox:1 sleep 1000"
        ))
        .expect(0);
    let container = until(&place, "slow", "unhealthy", is("unhealthy"));
    let result = &container["health"]["log"][0];
    assert_eq!(result["exit_code"], -1, "{container}");
    let output = result["output"].as_str().unwrap();
    assert!(output.contains("longer than 0.3 s") && output.contains("begun"), "{output}");
    until(&place, "slow", "some more", |container| container["health"]["failing_streak"].as_u64() >= Some(4));
    // Of at most one check, the one that is being run now, beside the container itself.
    let group =
        place.sh("cat $(jq -r '.cgroup[0]' $STAVES_RUN/containers/*/state.json)/cgroup.procs").expect(0);
    assert!(group.stdout.lines().count() <= 6, "{}", group.stdout);
}

#[test]
fn much_output_is_cut() {
    let Some(place) = busybox() else { return };
    place
        .sh("ctr-run -d --network none --name loud --health-cmd 'yes | head -c 300000; exit 3' --health-interval 50ms \
             --health-retries 1 busybox:1 sleep 1000")
        .expect(0);
    let container = until(&place, "loud", "unhealthy", is("unhealthy"));
    let result = &container["health"]["log"][0];
    assert_eq!((result["exit_code"].as_i64(), result["output"].as_str().unwrap().len()), (Some(3), 4096));
}

#[test]
fn what_is_done_about_it() {
    let Some(place) = busybox() else { return };
    let run = |name: &str, action: &str, more: &str| {
        place
            .sh(&format!(
                "ctr-run -d --network none --name {name} --health-cmd false --health-interval 100ms --health-retries 1 \
                 --health-on-failure {action} {more} busybox:1 sleep 1000"
            ))
            .expect(0);
    };
    run("killed", "kill", "");
    assert_eq!(place.sh("ctr-wait killed").expect(137).json()["exit_code"], 137);
    // Stopped as by its user: its policy leaves it alone. `sleep` as process 1 ignores TERM.
    run("stopped", "stop", "--restart always --stop-timeout 1");
    until(&place, "stopped", "stopped", |container| container["status"] == "exited");
    run("again", "restart", "--stop-timeout 0 --health-interval 1s");
    until(&place, "again", "restarted", |container| container["restart_count"].as_u64() >= Some(1));
    // What the policy starts again begins anew.
    until(&place, "again", "starting", |container| {
        container["status"] == "running" && container["health"]["status"] == "starting"
    });
    place.sh("ctr-stop -t 0 again").expect(0);
    until(&place, "again", "stopped for good", |container| container["status"] == "exited");
}

#[test]
fn what_cannot_be_run_is_unhealthy_and_without_a_check_there_is_nothing() {
    let Some(place) = busybox() else { return };
    place
        .sh(r#"jq -nc '{config: {healthcheck: {test: ["CMD", "/no/such"], interval: 0.05, retries: 1}}}' >$DIR/wish
            img-pull --policy missing busybox:1 | img-unpack | jq -c --slurpfile wish $DIR/wish '. + $wish[0]' \
            | ctr-create --name odd -- sleep 1000 | ctr-start -q"#)
        .expect(0);
    let container = until(&place, "odd", "unhealthy", is("unhealthy"));
    let result = &container["health"]["log"][0];
    assert_eq!(result["exit_code"], 127, "{container}");
    place.sh("ctr-run -d --network none --name plain --no-healthcheck busybox:1 sleep 1000").expect(0);
    let plain = place.sh("ctr-inspect plain").expect(0).json();
    assert!(plain["container"].get("health").is_none(), "{plain}");
    assert_eq!(place.sh("ctr-ls -q --filter health=none").stdout.lines().count(), 1);
    let ran = place.sh("ctr-run --network none --health-interval 3s busybox:1 true").expect(125);
    assert!(ran.stderr.contains("there is no command"), "{}", ran.stderr);
}

/// Whatever happens to the shim, nothing of a check is left.
#[test]
fn a_killed_shim_takes_its_check_along() {
    let Some(place) = busybox() else { return };
    place
        .sh("ctr-run -d --network none --name gone --health-cmd 'sleep 987654' --health-interval 50ms busybox:1 sleep 1000")
        .expect(0);
    let begun = Instant::now();
    while place.sh("pgrep -f 'sleep 98765[4]'").stdout.is_empty() {
        assert!(begun.elapsed() < Duration::from_mins(1));
    }
    place.sh("kill -9 $(jq .shim_pid $STAVES_RUN/containers/*/state.json)").expect(0);
    let begun = Instant::now();
    while !place.sh("pgrep -f 'sleep 98765[4]'").stdout.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(20), "the check outlives its shim");
    }
    // Nobody holds its lock: it can be started again.
    place.sh("ctr-start -q gone && ctr-rm -f gone").expect(0);
}
