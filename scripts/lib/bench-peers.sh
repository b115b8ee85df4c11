# shellcheck shell=bash disable=SC2154,SC2034
# A registry with the images, docker and podman beside it, all of this run's own. Sourced by parts of scripts/bench, whose functions it uses.

cat >"$work/registry.yml" <<END
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $fixtures/registry}, maintenance: {readonly: {enabled: true}}}
http: {addr: "127.0.0.1:5000"}
END
docker-registry serve "$work/registry.yml" >/dev/null 2>&1 &
until curl -fs http://127.0.0.1:5000/v2/ >/dev/null; do sleep 0.05; done
reference=127.0.0.1:5000/busybox:1
podman_=(podman --root "$work/podman" --runroot "$work/podman-run" --storage-driver overlay)
running() { [ -e "$work/has-$1" ]; }

if has docker && command -v dockerd >/dev/null; then
    export DOCKER_HOST=unix://$work/docker.sock
    dockerd --data-root "$work/docker" --exec-root "$work/docker-run" -H "$DOCKER_HOST" --pidfile "$work/docker.pid" \
        --storage-driver overlay2 >"$work/dockerd.log" 2>&1 &
    for _ in $(seq 200); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
    if docker pull -q "$reference" >/dev/null; then touch "$work/has-docker"; else tail -3 "$work/dockerd.log" >&2; fi
fi
if has podman; then
    # Without CAP_SYS_RESOURCE podman's own limits cannot be set.
    cat >"$work/containers.conf" <<END
[containers]
default_ulimits = ["nofile=$(ulimit -Sn):$(ulimit -Hn)", "nproc=$(ulimit -Su | sed s/unlimited/-1/):$(ulimit -Hu | sed s/unlimited/-1/)"]
[network]
network_backend = "netavark"
network_config_dir = "$work/podman-net"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "$work/podman-tmp"
static_dir = "$work/podman-static"
volume_path = "$work/podman-volumes"
END
    export CONTAINERS_CONF=$work/containers.conf
    "${podman_[@]}" pull -q --tls-verify=false "$reference" >/dev/null && touch "$work/has-podman"
fi
