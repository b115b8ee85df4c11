//! Limits as the container sees them, whichever version of control groups this is, and what they do.

use crate::{bench, is_version_2, told};
use pipelines::{Bench, wait_until};

/// The first of a group's files that is there, by its names in versions 2 and 1.
fn look(files: &[&str]) -> String {
    let paths: Vec<String> = files.iter().map(|file| format!("/sys/fs/cgroup/{file}")).collect();
    format!("for f in {}; do [ -e $f ] && cat $f && break; done", paths.join(" "))
}

#[track_caller]
fn lines(bench: &Bench, flags: &str, script: &str) -> Vec<String> {
    let ran = bench.sh(&format!("ctr-run --rm {flags} box:1 sh -c '{script}'")).expect(0);
    ran.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn limits_hold() {
    let Some(bench) = bench() else { return };
    let script = [
        look(&["memory.max", "memory/memory.limit_in_bytes"]),
        look(&["memory.low", "memory/memory.soft_limit_in_bytes"]),
        look(&["pids.max", "pids/pids.max"]),
        look(&["cpu.max", "cpu/cpu.cfs_quota_us"]),
        look(&["cpu.weight", "cpu/cpu.shares"]),
        look(&["cpuset.cpus", "cpuset/cpuset.cpus"]),
    ]
    .join("; ");
    let flags =
        "--memory 64m --memory-reservation 32m --pids-limit 50 --cpus 0.5 --cpu-shares 2048 --cpuset-cpus 0";
    let seen = lines(&bench, flags, &script);
    let (quota, share) = if is_version_2() { ("50000 100000", "174") } else { ("50000", "2048") };
    assert_eq!(seen, ["67108864", "33554432", "50", quota, share, "0"]);
    if is_version_2() {
        // Twice the memory is what memory and swap may be together; version 2 counts swap alone.
        let swap = look(&["memory.swap.max"]);
        assert_eq!(lines(&bench, "--memory 64m", &swap), ["67108864"]);
        assert_eq!(lines(&bench, "--memory 64m --memory-swap 64m", &swap), ["0"]);
        assert_eq!(lines(&bench, "--memory 64m --memory-swap -1", &swap), ["max"]);
        let high = look(&["memory.high"]);
        assert_eq!(lines(&bench, "--cgroup-conf memory.high=33554432", &high), ["33554432"]);
        // No limit is "max"; the group is the root of what the container sees, and cannot be written to.
        assert_eq!(lines(&bench, "", &look(&["memory.max"])), ["max"]);
        assert_eq!(lines(&bench, "", "cat /proc/self/cgroup"), ["0::/"]);
        bench.sh("ctr-run --rm box:1 sh -c 'echo 1 >/sys/fs/cgroup/pids.max'").expect(1);
        bench
            .sh("ctr-run --rm --security-opt writable-cgroups=true box:1 sh -c 'mkdir /sys/fs/cgroup/sub'")
            .expect(0);
    }
}

#[test]
fn limits_change_while_it_runs() {
    let Some(bench) = bench() else { return };
    bench.sh("ctr-run -q -d --name box --memory 64m --network none box:1 sleep 100000").expect(0);
    bench
        .sh("ctr-update -q -m 48m --memory-swap 48m --cpus 0.25 --pids-limit 20 --cpu-shares 512 box")
        .expect(0);
    let script = [
        look(&["memory.max", "memory/memory.limit_in_bytes"]),
        look(&["pids.max", "pids/pids.max"]),
        look(&["cpu.max", "cpu/cpu.cfs_quota_us"]),
        look(&["cpu.weight", "cpu/cpu.shares"]),
    ]
    .join("; ");
    let seen = || bench.sh(&format!("ctr-exec box sh -c '{script}'")).expect(0).stdout;
    let wanted =
        if is_version_2() { "50331648\n20\n25000 100000\n59\n" } else { "50331648\n20\n25000\n512\n" };
    assert_eq!(seen(), wanted);
    // They are its own from now on.
    bench.sh("ctr-restart -q -t 0 box").expect(0);
    assert_eq!(seen(), wanted);
    // And are taken away again.
    bench.sh("ctr-update -q -m 0 --pids-limit -1 box").expect(0);
    assert_eq!(seen().lines().nth(1), Some("max"));
    // More than there is cannot be had, and nothing has changed then.
    bench.sh("ctr-update -q --cpuset-cpus 4000 --pids-limit 7 box").expect(1);
    assert_eq!(seen().lines().nth(1), Some("max"));
    bench.sh("ctr-rm -f box").expect(0);
}

#[test]
fn too_much_memory_ends_the_process() {
    let Some(bench) = bench() else { return };
    let ran = bench.sh(
        "ctr-run --name greedy --network none --memory 16m box:1 sh -c 'dd if=/dev/zero of=/dev/null bs=64M count=1'",
    );
    assert_eq!(ran.status, 137, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(told(&bench, "greedy", ".container.exit_code"), "137");
    let events = bench.sh("ctr-events --filter event=oom | jq -r .name").expect(0);
    assert_eq!(events.stdout, "greedy\n");
}

#[test]
fn too_many_processes_are_none() {
    let Some(bench) = bench() else { return };
    let script = "i=0; while [ $i -lt 20 ]; do sleep 100 & i=$((i+1)); done; wait";
    bench
        .sh(&format!("ctr-run -q -d --name many --network none --pids-limit 8 box:1 sh -c '{script}'"))
        .expect(0);
    wait_until("a fork to fail", || bench.sh("ctr-logs many 2>&1").stdout.contains("can't fork"));
    let events = look(&["pids.events", "pids/pids.events"]);
    // Nothing more can be started in it either: its group is full, or its shell has given up and it has ended.
    let ran = bench.sh(&format!("ctr-exec many sh -c '{events}'"));
    assert!(ran.status != 0 || ran.stdout.starts_with("max "), "{}{}", ran.stdout, ran.stderr);
    bench.sh("ctr-rm -f many").expect(0);
}

#[test]
fn processor_time_is_rationed() {
    let Some(bench) = bench() else { return };
    bench
        .sh("ctr-run -q -d --name busy --network none --cpus 0.1 box:1 sh -c 'while :; do :; done'")
        .expect(0);
    let stat = look(&["cpu.stat", "cpu/cpu.stat"]);
    wait_until("it to be made to wait", || {
        let ran = bench.sh(&format!("ctr-exec busy sh -c '{stat}'"));
        let throttled = ran.stdout.lines().find_map(|line| line.strip_prefix("nr_throttled "));
        throttled.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count > 2)
    });
    // A tenth of a processor over a second and a half, and not much more.
    let percent =
        bench.sh("ctr-stats --interval 1500ms busy | head -n 2 | tail -n 1 | jq .stats.cpu.percent");
    let percent: f64 = percent.stdout.trim().parse().expect("a number");
    assert!(percent > 1.0 && percent < 30.0, "{percent}");
    bench.sh("ctr-rm -f busy").expect(0);
}
