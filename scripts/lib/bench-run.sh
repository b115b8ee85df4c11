# shellcheck shell=bash disable=SC2154
# The pipeline and `ctr-run` against docker, podman, crun, runc and the floor. Sourced by scripts/bench, whose functions it uses.

# shellcheck source=scripts/lib/bench-peers.sh
. scripts/lib/bench-peers.sh
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

    # The other ways out of a container: a second command, and its log; the reader counts here, too.
    mib=2000 lines=$((800000))
    begin() { # COMMAND…: of one contender
        "$@" run -d --name pipe "$reference" sleep 100000 >/dev/null
        "$@" run --name pipe-log "$reference" seq $lines >/dev/null
    }
    bytes=$(seq $lines | wc -c)
    through() { # NAME COMMAND…
        local name=$1
        shift
        begin "$@"
        for _ in 1 2 3 4 5; do
            measure "$name-through-exec" sh -c "$* exec pipe dd if=/dev/zero bs=1M count=$mib 2>/dev/null | test \"\$(wc -c)\" = $((mib << 20))"
            measure "$name-through-exec-in" sh -c "dd if=/dev/zero bs=1M count=$mib 2>/dev/null | $* exec -i pipe wc -c | grep -qx $((mib << 20))"
            measure "$name-through-logs" sh -c "$* logs pipe-log | test \"\$(wc -c)\" = $bytes"
        done
        "$@" rm -f pipe pipe-log >/dev/null
    }
    # `ctr run` for `ctr-run`, as the others are called.
    printf '#!/bin/sh\nverb=$1\nshift\nexec "ctr-$verb" "$@"\n' >"$work/ctr"
    chmod +x "$work/ctr"
    through ctr "$work/ctr"
    ! running docker || through docker docker
    ! running podman || through podman "${podman_[@]}"
    for what in exec exec-in logs; do
        size=$((mib << 20))
        [ $what != logs ] || size=$bytes
        printf '\n%-34s %10s\n' "through $what" 'MiB/s'
        for name in ctr docker podman; do
            [ -s "$work/times/$name-through-$what" ] || continue
            printf '%-34s %10s\n' "$name" "$(awk -v us="$(median $name-through-$what)" -v size="$size" 'BEGIN { printf "%.1f", size / 1048576 / us * 1000000 }')"
            note $name-through-$what
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
