//! podman and dockerd, each on its own: mounts, processes, network, state.

use crate::Bench;
use std::path::PathBuf;
use testkit::{Ran, find_program, profile_dir, skip};

/// Whether all of these programs are installed; said aloud if not.
pub fn have(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| find_program(program).is_none());
    if let Some(program) = missing {
        skip(&format!("{program} is not installed"));
    }
    missing.is_none()
}

fn runtime() -> PathBuf {
    let own = || profile_dir().join("oci-runtime");
    let path = std::env::var_os("STAVES_RUNTIME").map_or_else(own, PathBuf::from);
    assert!(path.is_file(), "{} is not built; cargo build --release first", path.display());
    path
}

/// Runs a script in which `$O` is the runtime, with version 1 control groups alone where the machine has both: some engines' own
/// parts refuse that.
pub fn with_engine(bench: &Bench, set_up: &str, script: &str) -> Ran {
    let script = format!(
        "set -e; mount --make-rprivate /; umount /sys/fs/cgroup/unified 2>/dev/null || true; O={}; {set_up}\n{script}",
        runtime().display()
    );
    let unshare =
        ["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-o", "pipefail", "-c"];
    Ran::of(bench.place.command("unshare").args(unshare).arg(&script))
}

/// Shell that makes `p` a podman with storage of its own and pulls `$R/busybox:1`.
pub const PODMAN: &str = r#"
cat >$DIR/containers.conf <<END
[containers]
default_ulimits = ["nofile=$(ulimit -Sn):$(ulimit -Hn)", "nproc=$(ulimit -Su | sed s/unlimited/-1/):$(ulimit -Hu | sed s/unlimited/-1/)"]
[network]
network_config_dir = "$DIR/podman-net"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "$DIR/podman-tmp"
static_dir = "$DIR/podman-static"
volume_path = "$DIR/podman-volumes"
END
export CONTAINERS_CONF=$DIR/containers.conf
p() { podman --runtime $O --root $DIR/podman --runroot $DIR/podman-run --storage-driver overlay "$@"; }
p pull -q --tls-verify=false $R/busybox:1 >/dev/null
"#;

/// Shell that starts a dockerd, `docker` being its client, and pulls `$R/busybox:1`. It ends with the script.
pub const DOCKERD: &str = r"
export DOCKER_HOST=unix://$DIR/docker.sock
dockerd --data-root $DIR/docker --exec-root $DIR/docker-run -H $DOCKER_HOST --pidfile $DIR/docker.pid --storage-driver overlay2 \
    --iptables=false --bridge=none --add-runtime ours=$O --default-runtime ours >$DIR/dockerd.log 2>&1 &
for _ in $(seq 600); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
docker version >/dev/null || { cat $DIR/dockerd.log >&2; exit 1; }
docker pull -q $R/busybox:1 >/dev/null
";
