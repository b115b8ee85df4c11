# shellcheck shell=bash disable=SC2154
# The pipeline and `ctr-run` against docker, podman, crun, runc and the floor. Sourced by scripts/bench, whose functions it uses.

# ---- the registry and the peers
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
umoci unpack --image "$fixtures/layouts/busybox:1" "$work/bundle" >/dev/null 2>&1
jq '.process.args = ["/bin/true"] | .process.terminal = false | del(.process.rlimits)' "$work/bundle/config.json" \
    >"$work/bundle/config.new"
mv "$work/bundle/config.new" "$work/bundle/config.json"
ip link add floor0 type bridge
ip link set floor0 up
bridge=$(cat /sys/class/net/floor0/ifindex 2>/dev/null || ip -o link show floor0 | cut -d: -f1)
mkdir "$work/mnt"

# ---- one of each
# As ctr-run and the peers do it: what is in the store is used. With "asking" the registry is asked whether the tag has moved.
stages="img-unpack | ctr-create -- /bin/true | net-attach | ctr-start --attach"
pipeline="img-pull --policy missing $reference | $stages"
asking="img-pull $reference | $stages"
once() {
    case $1 in
    floor)
        measure floor "$work/floor" "$bridge" "$work/bundle/rootfs" "$work/upper" "$work/overlay-work" "$work/mnt" /bin/true
        rm -rf "$work/upper" "$work/overlay-work"
        ;;
    pipeline)
        measure pipeline sh -c "$pipeline"
        ctr-ls --all -q | xargs -r ctr-rm >/dev/null
        ;;
    pipeline-asking)
        measure pipeline-asking sh -c "$asking"
        ctr-ls --all -q | xargs -r ctr-rm >/dev/null
        ;;
    ctr-run) measure ctr-run ctr-run --rm "$reference" /bin/true ;;
    docker-run) measure docker-run docker run --rm "$reference" /bin/true ;;
    podman-run) measure podman-run "${podman_[@]}" run --rm "$reference" /bin/true ;;
    crun-run | runc-run)
        local runtime=${1%-run}
        measure "$1" "$runtime" --root "$work/$runtime" run -b "$work/bundle" "bench-$runtime"
        ;;
    ctr-exec) measure ctr-exec ctr-exec bench /bin/true ;;
    docker-exec) measure docker-exec docker exec bench /bin/true ;;
    podman-exec) measure podman-exec "${podman_[@]}" exec bench /bin/true ;;
    esac
}
echo "$(nproc) processors, $(uname -sr), $rounds rounds; $(runc --version 2>/dev/null | head -1), $(crun --version 2>/dev/null | head -1)"

if wants start; then
    contenders=(floor pipeline pipeline-asking ctr-run)
    for name in crun runc; do if has $name; then contenders+=("$name-run"); fi; done
    for name in docker podman; do if running $name; then contenders+=("$name-run"); fi; done
    rounds_of "${contenders[@]}"
    table 'start, bridged, /bin/true' floor "${contenders[@]}"
    for name in docker-run podman-run; do
        [ -s "$work/times/$name" ] || continue
        for own in pipeline ctr-run; do
            echo "$own takes 1/$(ratio "$(median $name)" "$(median $own)") of $name's time"
        done
    done
fi

if wants exec || wants memory; then
    # Two of each: what processes share is not the price of one more.
    for name in bench bench-2; do
        ctr-run -d --name $name "$reference" sleep 100000 >/dev/null
        ! running docker || docker run -d --name $name "$reference" sleep 100000 >/dev/null
        ! running podman || "${podman_[@]}" run -d --name $name "$reference" sleep 100000 >/dev/null
    done
fi
if wants exec; then
    contenders=(ctr-exec)
    for name in docker podman; do if running $name; then contenders+=("$name-exec"); fi; done
    rounds_of "${contenders[@]}"
    table 'exec /bin/true' ctr-exec "${contenders[@]}"
fi
if wants memory; then
    printf '\n%-34s %10s\n' 'private memory per container' KiB
    # Their processes are the only ones in this pid namespace.
    for name in ctr-shim containerd-shim conmon; do
        for process in /proc/[0-9]*; do
            # By the first argument: ctr-shim is started from a descriptor, which its short name shows.
            [[ $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) =~ ^([^ ]*/)?$name(-[^ ]*)?\  ]] || continue
            printf '%-34s %10s\n' "$name" "$(awk '/^Private_(Clean|Dirty)/ { sum += $2 } END { print sum }' "$process/smaps_rollup")"
            break
        done
    done
fi
if wants exec || wants memory; then
    ctr-rm -f bench bench-2 >/dev/null
    ! running docker || docker rm -f bench bench-2 >/dev/null
    ! running podman || "${podman_[@]}" rm -f -t 0 bench bench-2 >/dev/null
fi

if wants pipe; then
    # With the log, and without: every line also goes into a file by default.
    for log in none default; do
        mib=2000 flags=(--log-driver none) writer="dd if=/dev/zero bs=1M count=2000 2>/dev/null"
        if [ $log = default ]; then
            mib=50 flags=()
            writer="yes 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde | head -c $((mib << 20))"
        fi
        # The reader counts, so that a container that printed less is a failure.
        command="run --rm ${flags[*]} $reference sh -c '$writer' | test \"\$(wc -c)\" = $((mib << 20))"
        for _ in 1 2 3 4 5; do
            measure ctr-pipe-$log sh -c "ctr-${command}"
            ! running docker || measure docker-pipe-$log sh -c "docker $command"
            ! running podman || measure podman-pipe-$log sh -c "${podman_[*]} $command"
        done
        printf '\n%-34s %10s\n' "attached pipe, log driver $log" 'MiB/s'
        for name in ctr docker podman; do
            [ -s "$work/times/$name-pipe-$log" ] || continue
            printf '%-34s %10s\n' "$name-run" "$(ratio $((mib * 1000000)) "$(median $name-pipe-$log)")"
            note $name-pipe-$log
        done
    done
fi

if wants many; then
    img-pull "$reference" | img-unpack >"$work/record"
    # Beside it the kernel's own price, which also grows with what is there.
    floor_and_run() {
        measure "floor-$1" "$work/floor" "$bridge" "$work/bundle/rootfs" "$work/upper" "$work/overlay-work" "$work/mnt" /bin/true
        rm -rf "$work/upper" "$work/overlay-work"
        settle
        measure "$1" ctr-run --rm "$reference" /bin/true
        settle
    }
    for _ in $(seq "$rounds"); do floor_and_run first; done
    for number in $(seq 500); do
        progress "creating $number of 500"
        measure create sh -c "exec ctr-create --name many-$number -- /bin/true <$work/record"
    done
    progress
    for _ in $(seq "$rounds"); do floor_and_run five-hundredth; done
    table 'with 0 and with 500 others present' first first five-hundredth
    table 'the floor with 0 and with 500' floor-first floor-first floor-five-hundredth
    ctr-ls --all -q | xargs -r ctr-rm -f >/dev/null
fi
