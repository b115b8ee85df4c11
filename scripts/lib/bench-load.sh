# shellcheck shell=bash disable=SC2154
# Many containers at once: what it takes to start them, to list them, to look at them and to end them, against docker and podman with as
# many. Sourced by scripts/bench, whose functions it uses.

# shellcheck source=scripts/lib/bench-peers.sh
. scripts/lib/bench-peers.sh
many=$rounds
contenders=(staves)
for name in docker podman; do if running $name; then contenders+=("$name"); fi; done
img-pull "$reference" | img-unpack >/dev/null
: >"$work/load"

# of NAME WORDS…: the words as that contender's command, in the array `command`.
of() {
    local name=$1 verb=$2
    shift 2
    case $name in
    staves) command=("ctr-$verb" "$@") ;;
    docker) command=(docker "$verb" "$@") ;;
    podman) command=("${podman_[@]}" "$verb" "$@") ;;
    esac
}
# Ids of those that run.
ids() {
    case $1 in
    staves) ctr-ls -q ;;
    docker) docker ps -q ;;
    podman) "${podman_[@]}" ps -q ;;
    esac
}
# look NAME KEY: lists and counts, a few times.
look() {
    local list=ps
    [ "$1" != staves ] || list="ls"
    for _ in 1 2 3 4 5; do
        of "$1" $list
        measure "$2-list" "${command[@]}"
        of "$1" $list -a
        measure "$2-list-a" "${command[@]}"
    done
    for _ in 1 2 3; do
        of "$1" stats --no-stream
        measure "$2-stats" "${command[@]}"
    done
}
# Proportional and private memory of the processes that look after containers, KiB, and how many they are.
memory() {
    local process
    for process in /proc/[0-9]*; do
        # By the first argument: ctr-shim is started from a descriptor, which its short name shows.
        [[ $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) =~ ^([^ ]*/)?$1(-[^ ]*)?\  ]] || continue
        cat "$process/smaps_rollup" 2>/dev/null || true
    done | awk '/^Pss:/ { pss += $2; count++ } /^Private_(Clean|Dirty)/ { private += $2 } END { print count + 0, pss + 0, private + 0 }'
}
load() {
    local name=$1 network=$2 key=$2-$1 number present quarter=$((many / 4)) shim
    for number in $(seq "$many"); do
        progress "$network: $name $number of $many"
        of "$name" run -d --network "$network" --stop-signal KILL "$reference" sleep 100000
        measure "$key-start" "${command[@]}"
        [ "$number" != "$quarter" ] || look "$name" "$key-quarter"
    done
    progress
    present=$(ids "$name" | wc -l)
    [ "$present" = "$many" ] || { echo "bench: $name has $present of $many containers" >&2; exit 1; }
    look "$name" "$key"
    case $name in
    staves) shim=ctr-shim ;;
    docker) shim=containerd-shim ;;
    podman) shim=conmon ;;
    esac
    echo "$network $name $shim $(memory $shim)" >>"$work/load"
    mapfile -t present < <(ids "$name")
    of "$name" stop "${present[@]}"
    measure "$key-stop" "${command[@]}"
    of "$name" rm "${present[@]}"
    measure "$key-rm" "${command[@]}"
    head -n "$quarter" "$work/times/$key-start" >"$work/times/$key-start-first"
    tail -n "$quarter" "$work/times/$key-start" >"$work/times/$key-start-last"
}
rows() { for name in "${contenders[@]}"; do echo "$network-$name-$1"; done; }

echo "$(nproc) processors, $(uname -sr), $many containers at once"
for network in bridge host; do
    for name in "${contenders[@]}"; do
        load "$name" "$network"
        sleep 3
    done
    for what in start:'start of one, detached' list:'list' list-a:'list all' stats:'stats --no-stream' stop:'stop all' rm:'remove all'; do
        mapfile -t row < <(rows "${what%%:*}")
        table "$network: ${what#*:}" "$network-staves-${what%%:*}" "${row[@]}"
    done
    # Four times as many: what takes more than four times as long grows with the square.
    printf '\n%-34s %10s %10s   %s\n' "$network: growth" "$((many / 4))" "$many" 'times'
    for name in "${contenders[@]}"; do
        for what in start-first:start-last quarter-list:list quarter-stats:stats; do
            few=$(median "$network-$name-${what%%:*}") all=$(median "$network-$name-${what#*:}")
            printf '%-34s %10s %10s   %s\n' "$name, ${what#*:}" "$(milli "$few")" "$(milli "$all")" "$(ratio "$all" "$few")"
        done
    done
done
printf '\n%-34s %10s %10s %10s\n' 'memory per container, KiB' 'processes' 'PSS' 'private'
while read -r network name shim processes pss private; do
    printf '%-34s %10s %10s %10s\n' "$network: $name, $shim" "$processes" "$((pss / many))" "$((private / many))"
done <"$work/load"
