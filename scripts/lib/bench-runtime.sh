# shellcheck shell=bash disable=SC2154
# oci-runtime against other OCI runtimes on one bundle. Sourced by scripts/bench, whose functions it uses.

declare -A program=([oci-runtime]=$PWD/target/release/oci-runtime)
runtimes=(oci-runtime)
for peer in ${peers//,/ }; do
    case $peer in
    none) continue ;;
    *=*) program[${peer%%=*}]=$(realpath "${peer#*=}") peer=${peer%%=*} ;;
    *) program[$peer]=$(command -v "$peer") || continue ;;
    esac
    runtimes+=("$peer")
done
for name in "${runtimes[@]}"; do
    echo "$name: $("${program[$name]}" --version 2>/dev/null | head -1)"
done
echo "$(nproc) processors, $(uname -sr), $rounds rounds"

# ---- bundles, which differ in config.json alone
group=/${work##*/}
umoci unpack --image "$fixtures/layouts/busybox:1" "$work/bundle" >/dev/null 2>&1
# bundle NAME FILTER: the plain one, changed by jq.
bundle() {
    mkdir -p "$work/$1"
    jq --arg rootfs "$work/bundle/rootfs" --arg group "$group/$1" --slurpfile seccomp "$work/seccomp.json" \
        '.process.args = ["/bin/true"] | .process.terminal = false | del(.process.rlimits, .linux.seccomp)
            | .root.path = $rootfs | .linux.cgroupsPath = $group | '"$2" "$work/bundle/config.json" >"$work/$1/config.json"
}
# Docker's default profile, as it is for docker's default capabilities.
ctr-spec --standalone --rootfs "$work/bundle/rootfs" -- /bin/true </dev/null | jq '(.spec // .).linux.seccomp' >"$work/seccomp.json"
bundle plain .
bundle seccomp '.linux.seccomp = $seccomp[0]'

# call NAME ARGUMENT…: a runtime, with a state directory of its own.
call() {
    local name=$1
    shift
    "${program[$name]}" --root "$work/run/$name" "$@"
}
# once KIND-NAME [BUNDLE]
once() {
    local name=${1#*-} kind=${1%%-*}
    local runtime=${program[$name]} root=$work/run/$name
    case $kind in
    run) measure "$1" "$runtime" --root "$root" run -b "$work/plain" bench ;;
    seccomp) measure "$1" "$runtime" --root "$root" run -b "$work/seccomp" bench ;;
    cycle)
        # `delete --force`, for /bin/true may not have ended yet.
        measure "$1" sh -c '"$0" --root "$1" create -b "$2" bench && "$0" --root "$1" start bench && "$0" --root "$1" delete --force bench' \
            "$runtime" "$root" "$work/${2:-plain}"
        ;;
    exec) measure "$1" "$runtime" --root "$root" exec sleeper /bin/true ;;
    esac
}
# every KIND TITLE: all runtimes.
every() {
    local contenders=("${runtimes[@]/#/$1-}")
    rounds_of "${contenders[@]}"
    table "$2" "$1-oci-runtime" "${contenders[@]}"
}

if wants run; then every run 'run /bin/true'; fi
if wants cycle; then every cycle 'create, start, delete --force'; fi
if wants seccomp; then every seccomp "run, docker's seccomp profile"; fi
if wants exec; then
    for name in "${runtimes[@]}"; do
        bundle "sleeper-$name" '.process.args = ["sleep", "100000"]'
        call "$name" run -d -b "$work/sleeper-$name" sleeper </dev/null >/dev/null 2>&1
    done
    every exec 'exec /bin/true'
    for name in "${runtimes[@]}"; do call "$name" delete --force sleeper; done
fi

if wants memory; then
    printf '\n%-34s' 'most memory resident, KiB'
    printf ' %10s' run cycle seccomp exec 'least limit'
    echo
    for name in "${runtimes[@]}"; do
        printf '%-34s' "$name"
        for kind in run cycle seccomp exec; do
            if [ -s "$work/times/$kind-$name" ]; then
                printf ' %10s' "$(awk '{ print $2 }' "$work/times/$kind-$name" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }')"
            else
                printf ' %10s' -
            fi
        done
        # The smallest limit of memory with which the container still starts, three times in a row.
        least=-
        for kib in 64 128 192 256 384 512 768 1024 1536 2048 3072 4096 6144 8192; do
            bundle limited ".linux.resources.memory.limit = $((kib * 1024))"
            for try in 1 2 3; do
                timeout 10 "${program[$name]}" --root "$work/run/$name" run -b "$work/limited" "limited-$try" </dev/null >/dev/null 2>&1 || {
                    call "$name" delete --force "limited-$try" >/dev/null 2>&1 || true
                    continue 2
                }
            done
            least=$kib
            break
        done
        printf ' %10s\n' "$least"
    done
fi

# What is there besides the runtime's own programs: state, mounts, control groups, processes.
left() {
    {
        find "$work/run/$1" -mindepth 1 -maxdepth 1 -not -name '@*' 2>/dev/null
        grep -F "$work/run/$1" /proc/mounts || true
        find /sys/fs/cgroup -path "*$group/$2*" -type d 2>/dev/null
    } | wc -l
}
if wants many; then
    printf '\n%-34s %10s %10s %10s\n' '500 containers by 8 workers' seconds failures left
    for name in "${runtimes[@]}"; do
        for worker in $(seq 8); do bundle "many-$name-$worker" ". + {}"; done
        start=$(date +%s%N) workers=()
        for worker in $(seq 8); do
            (
                failures=0
                for number in $(seq "$worker" 8 500); do
                    sed "s,\"$group/many-$name-$worker\",\"$group/many-$name-$worker-$number\"," \
                        "$work/many-$name-$worker/config.json" >"$work/many-$name-$worker/config.new"
                    mv "$work/many-$name-$worker/config.new" "$work/many-$name-$worker/config.json"
                    { call "$name" create -b "$work/many-$name-$worker" "many-$number" && call "$name" start "many-$number" &&
                        call "$name" delete --force "many-$number"; } </dev/null >/dev/null 2>>"$work/many.log" || failures=$((failures + 1))
                    sed -i "s,\"$group/many-$name-$worker-$number\",\"$group/many-$name-$worker\"," "$work/many-$name-$worker/config.json"
                done
                echo $failures >"$work/failures-$worker"
            ) &
            workers+=($!)
        done
        wait "${workers[@]}"
        end=$(date +%s%N)
        printf '%-34s %10s %10s %10s\n' "$name" "$(ratio $((end - start)) 1000000000)" \
            "$(cat "$work"/failures-* | awk '{ n += $1 } END { print n }')" "$(left "$name" "many-$name")"
    done
fi

if wants endurance; then
    # Nothing may grow: the last containers take what the first took, and nothing is left.
    count=10000
    printf '\n%-34s %10s %10s %10s %10s\n' "$count in a row" 'first ms' 'last ms' failures left
    # Some of the others leave groups behind: not to be taken for ours.
    bundle endurance .
    failures=0
    for number in $(seq $count); do
        [ $((number % 100)) != 0 ] || progress "container $number of $count"
        once cycle-oci-runtime endurance || failures=$((failures + 1))
    done
    progress
    tail -n $count "$work/times/cycle-oci-runtime" >"$work/row"
    head -n 500 "$work/row" >"$work/times/endurance-first"
    tail -n 500 "$work/row" >"$work/times/endurance-last"
    printf '%-34s %10s %10s %10s %10s\n' oci-runtime "$(milli "$(median endurance-first)")" "$(milli "$(median endurance-last)")" \
        $failures "$(left oci-runtime endurance)"
fi
