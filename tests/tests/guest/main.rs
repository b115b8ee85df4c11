//! What depends on the kernel's control groups and capabilities, and each tool on containers and volumes once. Runs everywhere, and
//! `scripts/test` runs it once more on pure cgroup v2 kernels.

mod checkpoint;
mod containers;
mod limits;
mod volumes;

use pipelines::Bench;

/// Whether the one version 2 hierarchy is all there is.
fn is_version_2() -> bool {
    std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// With the image `box:1` unpacked.
fn bench() -> Option<Bench> {
    let bench = Bench::new()?;
    bench.sh("img-pull -q $R/busybox:1 >$DIR/pulled && img-tag -q $R/busybox:1 box:1").expect(0);
    Some(bench)
}

/// A member of a container's record, by `jq`.
#[track_caller]
fn told(bench: &Bench, name: &str, member: &str) -> String {
    bench.sh(&format!("ctr-inspect {name} | jq -cr '{member}'")).expect(0).stdout.trim().to_owned()
}

#[test]
fn layers_are_stacked() {
    let Some(bench) = Bench::new() else { return };
    let ran = bench
        .sh("ctr-run --rm $R/layers:1 cat /deep/er /hidden/new /kept/file/inner /var/www/index.html")
        .expect(0);
    assert_eq!(ran.stdout, "now a file\nnew\ninner\nserved by busybox\n");
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
