//! podman, dockerd and containerd with `oci-runtime` as the runtime of their containers: run, enter, pause, stop, delete.
//!
//! Each engine is on its own: mounts, processes, network, state. `STAVES_RUNTIME` names another runtime to compare with.

use pipelines::engine::{DOCKERD, PODMAN, have, with_engine};
use pipelines::{Bench, Ran};

/// What the kernel's name for a group of ours has in it is left to the engines to remove; some leave empty parents.
fn said(ran: &Ran) -> Vec<&str> {
    ran.stdout.lines().collect()
}

#[test]
fn podman_runs_its_containers_with_it() {
    let Some(bench) = Bench::new() else { return };
    if !have(&["podman", "conmon"]) {
        return;
    }
    let ran = with_engine(
        &bench,
        PODMAN,
        r"
s=0; p run --rm --network none -m 64m --cpus 0.5 $R/busybox:1 sh -c 'echo ran; exit 7' || s=$?; echo status $s
p run -d --network none --name one $R/busybox:1 sleep 1000 >/dev/null
s=0; p exec -e A=b one sh -c 'echo $A in $(hostname | wc -c); exit 3' || s=$?; echo status $s
p exec -t one tty
s=0; p exec one no-such-program 2>/dev/null || s=$?; echo status $s
s=0; p run --rm --network none $R/busybox:1 /no/such/program 2>/dev/null || s=$?; echo status $s
p pause one >/dev/null; p ps --filter status=paused --format '{{.Names}}'; p unpause one >/dev/null
p top one | tail -1 | grep -o 'sleep 1000'
p run --rm --network none --uidmap 0:100000:65536 --gidmap 0:100000:65536 $R/busybox:1 awk '{ print $1, $2, $3 }' /proc/self/uid_map
p stop -t 0 one >/dev/null; p start one >/dev/null; p kill one >/dev/null; p rm -f one >/dev/null
p ps -aq | wc -l
",
    )
    .expect(0);
    assert_eq!(
        said(&ran),
        [
            "ran",
            "status 7",
            "b in 13",
            "status 3",
            "/dev/pts/0\r",
            "status 127",
            "status 127",
            "one",
            "sleep 1000",
            "0 100000 65536",
            "0"
        ]
        .map(|line| line.trim_end_matches('\r')),
        "{}",
        ran.stderr
    );
}

#[test]
fn dockerd_runs_its_containers_with_it() {
    let Some(bench) = Bench::new() else { return };
    if !have(&["dockerd", "docker"]) {
        return;
    }
    let ran = with_engine(
        &bench,
        DOCKERD,
        r"
s=0; docker run --rm -m 64m --cpus 0.5 $R/busybox:1 sh -c 'echo ran; exit 7' || s=$?; echo status $s
docker run -d --name one $R/busybox:1 sleep 1000 >/dev/null
s=0; docker exec -e A=b one sh -c 'echo $A in $(hostname | wc -c); exit 3' || s=$?; echo status $s
s=0; docker run --rm $R/busybox:1 /no/such/program 2>/dev/null || s=$?; echo status $s
docker pause one >/dev/null; docker ps --filter status=paused --format '{{.Names}}'; docker unpause one >/dev/null
docker top one | tail -1 | grep -o 'sleep 1000'
docker update --cpus 1 one
docker run -t --rm $R/busybox:1 tty | tr -d '\r'
docker run --rm --init --read-only --tmpfs /t --cap-drop all --user 1000:1000 $R/busybox:1 sh -c 'touch /t/f /f 2>/dev/null; ls /t; id -u'
docker run --rm --privileged --pid host --ipc host --sysctl net.ipv4.ip_unprivileged_port_start=0 --hostname h $R/busybox:1 hostname
docker stop -t 0 one >/dev/null; docker start one >/dev/null; docker kill one >/dev/null; docker rm -f one >/dev/null
docker ps -aq | wc -l
kill $(cat $DIR/docker.pid); wait
",
    )
    .expect(0);
    assert_eq!(
        said(&ran),
        [
            "ran",
            "status 7",
            "b in 13",
            "status 3",
            "status 127",
            "one",
            "sleep 1000",
            "one",
            "/dev/pts/0",
            "f",
            "1000",
            "h",
            "0"
        ],
        "{}",
        ran.stderr
    );
}

const CONTAINERD: &str = r#"
cat >$DIR/containerd.toml <<END
version = 2
root = "$DIR/containerd"
state = "$DIR/containerd-run"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$DIR/containerd.sock"
[ttrpc]
address = "$DIR/containerd.sock.ttrpc"
END
containerd --config $DIR/containerd.toml >$DIR/containerd.log 2>&1 &
c() { ctr --address $DIR/containerd.sock "$@"; }
for _ in $(seq 600); do c version >/dev/null 2>&1 && break; sleep 0.1; done
c version >/dev/null || { cat $DIR/containerd.log >&2; exit 1; }
c image pull --plain-http $R/busybox:1 >/dev/null
"#;

#[test]
fn containerd_runs_its_containers_with_it() {
    let Some(bench) = Bench::new() else { return };
    if !have(&["containerd", "ctr"]) {
        return;
    }
    let ran = with_engine(
        &bench,
        CONTAINERD,
        r#"
s=0; c run --rm --runc-binary $O $R/busybox:1 first sh -c 'echo ran; exit 7' || s=$?; echo status $s
c run -d --runc-binary $O --memory-limit 67108864 $R/busybox:1 one sleep 1000
s=0; c task exec --exec-id e1 one sh -c 'echo inside; exit 3' || s=$?; echo status $s
c task pause one; c task ls | awk '$1 == "one" { print $3 }'; c task resume one; c task ls | awk '$1 == "one" { print $3 }'
c task metrics one | grep -c memory.usage
c task kill -s SIGKILL one
for _ in $(seq 100); do c task ls | grep -q STOPPED && break; sleep 0.1; done
c task rm one 2>/dev/null || true; c container rm one; c container ls -q | wc -l
kill %1; wait
"#,
    )
    .expect(0);
    let lines = said(&ran);
    let wanted = ["ran", "status 7", "inside", "status 3", "PAUSED", "RUNNING"];
    assert_eq!(lines.get(..wanted.len()), Some(&wanted[..]), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(lines.last(), Some(&"0"), "{}{}", ran.stdout, ran.stderr);
}

/// Archives go both ways, and the image keeps its id.
const ARCHIVES: &str = r"
img-pull -q $R/busybox:1 >/dev/null; img-inspect $R/busybox:1 | jq -r .image.id
$E save $R/busybox:1 | img-load -q --name loaded:1
img-save loaded:1 | $E load -q >/dev/null; $E image inspect $P/loaded:1 --format '{{.Id}}' | sed 's/^sha256://; s/^/sha256:/'
img-copy docker://$R/layers:1 docker-archive:-:app:2 | $E load -q >/dev/null; $E run --rm --network none $P/app:2 true && echo ran
";

#[test]
fn podman_and_staves_exchange_archives() {
    let Some(bench) = Bench::new() else { return };
    if !have(&["podman", "conmon"]) {
        return;
    }
    let ran = with_engine(&bench, PODMAN, &format!("E=p; P=docker.io/library\n{ARCHIVES}")).expect(0);
    let lines = said(&ran);
    assert!(lines.len() == 4 && lines[0] == lines[1] && lines[1] == lines[2], "{lines:?}\n{}", ran.stderr);
    let script = "p save --format oci-archive $R/busybox:1 | img-load -q; p image inspect $R/busybox:1 --format '{{.Id}}' | sed 's/^/sha256:/'";
    let ran = with_engine(&bench, PODMAN, script).expect(0);
    let lines = said(&ran);
    assert!(lines.len() == 2 && lines[0] == lines[1], "{lines:?}\n{}", ran.stderr);
}

#[test]
fn docker_and_staves_exchange_archives() {
    let Some(bench) = Bench::new() else { return };
    if !have(&["dockerd", "docker"]) {
        return;
    }
    let ran =
        with_engine(&bench, DOCKERD, &format!("E=docker; P=\n{}", ARCHIVES.replace("$P/", ""))).expect(0);
    let lines = said(&ran);
    assert!(lines.len() == 4 && lines[0] == lines[1] && lines[1] == lines[2], "{lines:?}\n{}", ran.stderr);
}

/// What a container has become, run by us and by an engine, in both formats.
const COMMITTED: &str = r#"
ctr-run -q --network none --name c $R/busybox:1 sh -c 'rm /etc/passwd; rm -r /home; mkdir -p /home/q; echo x >/n; chmod 4711 /n; ln /n /m'
for format in oci docker; do
    ctr-commit -q --format $format -c 'CMD ["sh", "-c", "cat /m; ls /home; test -e /etc/passwd || stat -c %a:%h /n"]' c me/it:$format >/dev/null
    ctr-run -q --network none --rm me/it:$format
    img-save me/it:$format | $E load -q >/dev/null; $E run --rm --network none $P/me/it:$format
done
ctr-rm -q c >/dev/null
"#;

#[track_caller]
fn all_run_it(ran: &Ran) {
    assert_eq!(ran.stdout, "x\nq\n4711:2\n".repeat(4), "{}", ran.stderr);
}

#[test]
fn podman_runs_what_was_committed() {
    let Some(bench) = Bench::new() else { return };
    if !have(&["podman", "conmon"]) {
        return;
    }
    all_run_it(&with_engine(&bench, PODMAN, &format!("E=p; P=docker.io\n{COMMITTED}")).expect(0));
}

#[test]
fn docker_runs_what_was_committed() {
    let Some(bench) = Bench::new() else { return };
    if !have(&["dockerd", "docker"]) {
        return;
    }
    all_run_it(&with_engine(&bench, DOCKERD, &format!("E=docker; P=docker.io\n{COMMITTED}")).expect(0));
}
