//! What depends on the kernel's control groups and capabilities. Runs everywhere, and `scripts/test` runs it once more on
//! a pure cgroup v2 kernel.

use pipelines::Bench;

#[test]
fn layers_are_stacked() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("ctr-run --rm $R/layers:1 cat /deep/er /hidden/new /kept/file/inner /var/www/index.html")
        .expect(0);
    assert_eq!(ran.stdout, "now a file\nnew\ninner\nserved by busybox\n");
}

#[test]
fn limits_hold() {
    let Some(bench) = Bench::new() else { return };
    // As the container sees them, whichever version of control groups this is.
    let look = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; \
                cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null; \
                cat /sys/fs/cgroup/cpu.max 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us";
    let ran = bench
        .sh(&format!("ctr-run --rm --memory 64m --pids-limit 50 --cpus 0.5 $R/busybox:1 sh -c '{look}'"))
        .expect(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(&lines[..2], ["67108864", "50"], "{}", ran.stdout);
    assert!(lines[2] == "50000" || lines[2] == "50000 100000", "{}", ran.stdout);
}

#[test]
fn too_much_memory_ends_the_process() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench.sh(
        "ctr-run --name greedy --memory 16m $R/busybox:1 sh -c 'dd if=/dev/zero of=/dev/null bs=64M count=1'",
    );
    assert_eq!(ran.status, 137, "{}{}", ran.stdout, ran.stderr);
}

#[test]
fn devices_are_denied_unless_given() {
    let Some(bench) = Bench::new() else { return };
    let look = "mknod /tmp/kmsg c 1 11 && cat /tmp/kmsg >/dev/null";
    let ran = bench.sh(&format!("ctr-run --rm $R/busybox:1 sh -c '{look}'"));
    assert_ne!(ran.status, 0);
    assert!(ran.stderr.contains("not permitted"), "{}", ran.stderr);
    bench
        .sh("ctr-run --rm $R/busybox:1 sh -c 'echo x >/dev/null && head -c 1 /dev/urandom >/dev/null'")
        .expect(0);
    bench.sh("ctr-run --rm --device /dev/full:/dev/given $R/busybox:1 test -c /dev/given").expect(0);
}

#[test]
fn a_bridged_container_answers_and_stops() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("ctr-run -d --name web -p 8080:80 $R/busybox:1 httpd -f -p 80 -h /var/www").expect(0);
    pipelines::wait_until("the server to answer", || {
        bench.sh("curl -s --noproxy '*' http://127.0.0.1:8080/").stdout == "served by busybox\n"
    });
    bench.sh("ctr-stop -t 1 web && ctr-rm web").expect(0);
}

#[test]
fn nothing_is_left_of_privileges_that_were_dropped() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench.sh("ctr-run --rm --cap-drop ALL --security-opt no-new-privileges $R/busybox:1 grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status").expect(0);
    let words: Vec<&str> = ran.stdout.split_whitespace().collect();
    assert_eq!(words, ["CapEff:", "0000000000000000", "NoNewPrivs:", "1", "Seccomp:", "2"]);
}
