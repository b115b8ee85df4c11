#!/bin/bash
# scripts/bench dns: names of a network's containers asked of net-dns, of podman's aardvark-dns and of docker's daemon, from a container's network namespace.
#
# Usage: scripts/lib/bench-dns.sh [-n SECONDS] [--peers LIST]
#
# Each resolver has a thousand names and is asked by dnsperf for seconds on end: as fast as it can, and one question after the
# other, for the time an answer takes. The same machine sends and answers. The names are of a thousand containers, with docker of one
# that has as many aliases: its daemon looks them up in the same table. STAVES_BIN=DIR uses the tools there and builds nothing.
set -euo pipefail

seconds=5 peers=aardvark,docker
arguments=("$@")
while [ $# -gt 0 ]; do
    case $1 in
    -n) seconds=$2; shift 2 ;;
    --peers) peers=$2; shift 2 ;;
    *) sed -n '4,7s/^# \?//p' "$0" >&2; exit 2 ;;
    esac
done
self=$(realpath "$0")
cd "$(dirname "$self")/../.."
if [ -z "${STAVES_BENCH-}" ]; then
    # shellcheck source=scripts/lib/packages.sh
    . scripts/lib/packages.sh
    need_packages dnsperf ip=iproute2 nsenter=util-linux curl docker-registry skopeo umoci jq >&2
    [ -n "${STAVES_BIN-}" ] || cargo build --release --locked -p net-dns
    fixtures=$(tests/fixtures/make-images --no-debian target/fixtures)
    work=$(mktemp -d "${TMPDIR:-/tmp}/staves-bench.XXXXXX")
    clean() {
        find /sys/fs/cgroup -depth -type d -path '*/docker*' -exec rmdir {} + 2>/dev/null || true
        rm -rf "$work"
    }
    trap clean EXIT
    STAVES_BENCH=$work STAVES_FIXTURES=$fixtures unshare --net --mount --pid --fork --kill-child --mount-proc bash "$self" "${arguments[@]}"
    exit
fi

# ---- inside
work=$STAVES_BENCH fixtures=$STAVES_FIXTURES
PATH=${STAVES_BIN:-$PWD/target/release}:$PATH
export STAVES_ROOT=$work/root STAVES_RUN=$work/run
ip link set lo up
mount --make-rprivate /

# bridge NUMBER: a bridge 10.9N.0.1 and a network namespace 10.9N.0.2 on it, whose process is in $inside.
bridge() {
    ip link add "br$1" type bridge
    ip address add "10.9$1.0.1/16" dev "br$1"
    ip link set "br$1" up
    unshare --net sleep 1000000 &
    inside=$!
    until [ "$(readlink /proc/$inside/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
    ip link add "v$1" master "br$1" type veth peer name eth0 netns "$inside"
    ip link set "v$1" up
    nsenter -t "$inside" -n sh -ec "ip link set lo up; ip address add 10.9$1.0.2/16 dev eth0; ip link set eth0 up"
    sleep 0.5
}
addresses() { for number in $(seq 2 1001); do echo "10.9$1.$((number / 250)).$((number % 250 + 2)) c$number"; done; }
for number in $(seq 2 1001); do echo "c$number A"; done >"$work/names"

# ask NAME SERVER PID: both measurements of the resolver with this process id.
ask() {
    local name=$1 server=$2 pid=$3 before after
    nsenter -t "$inside" -n dnsperf -s "$server" -d "$work/names" -l 1 >/dev/null 2>&1
    before=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
    nsenter -t "$inside" -n dnsperf -s "$server" -d "$work/names" -l "$seconds" -c 8 -q 200 >"$work/fast" 2>/dev/null
    after=$(awk '{ print $14 + $15 }' "/proc/$pid/stat")
    nsenter -t "$inside" -n dnsperf -s "$server" -d "$work/names" -l "$seconds" -c 1 -q 1 >"$work/slow" 2>/dev/null
    awk -v name="$name" -v ticks=$((after - before)) -v hertz="$(getconf CLK_TCK)" -v memory="$(awk '/^Pss:/ { print $2 }' "/proc/$pid/smaps_rollup")" '
        /Queries completed/ && FNR == NR { done = $3 }
        /Queries lost/ && FNR == NR { lost = $3 }
        /Queries per second/ && FNR == NR { fast = $4 }
        /Average Latency/ && FNR != NR { slow = $4 * 1e6 }
        END { printf "%-16s %12d %16.2f %14.1f %8d %10d\n", name, fast, ticks / hertz * 1e6 / done, slow, lost, memory }
    ' "$work/fast" "$work/slow"
}

has() { case ,$peers, in *,$1,*) true ;; *) false ;; esac; }
printf '%-16s %12s %16s %14s %8s %10s\n' resolver 'answers/s' 'µs CPU/answer' 'µs/question' lost 'Pss KiB'
bridge 0
mkdir -p "$STAVES_ROOT/networks/bench/leases"
echo '{"name":"bench","driver":"bridge","device":"br0","subnets":[{"subnet":"10.90.0.0/16"}],"dns":{"enabled":true}}' \
    >"$STAVES_ROOT/networks/bench/network.json"
while read -r address name; do
    echo "{\"container\":\"$name\",\"interface\":\"eth0\",\"names\":[\"$name\"]}" >"$STAVES_ROOT/networks/bench/leases/$address"
done < <(addresses 0)
net-dns bench
ask net-dns 10.90.0.1 "$(cat "$STAVES_RUN/networks/bench/dns.lock")"

aardvark=$(command -v aardvark-dns || ls /usr/lib/podman/aardvark-dns /usr/libexec/podman/aardvark-dns 2>/dev/null || true)
if has aardvark && [ -n "$aardvark" ]; then
    bridge 1
    mkdir -p "$work/aardvark"
    {
        echo 10.91.0.1
        while read -r address name; do echo "$name $address  $name"; done < <(addresses 1)
    } >"$work/aardvark/bench"
    "$aardvark" --config "$work/aardvark" -p 53 run >"$work/aardvark.log" 2>&1 &
    sleep 1
    ask aardvark-dns 10.91.0.1 "$(cat "$work/aardvark/aardvark.pid" 2>/dev/null || echo $!)"
fi

if has docker && command -v dockerd >/dev/null; then
    # Sets DOCKER_HOST, and takes podman for one that was not asked for.
    # shellcheck source=scripts/lib/bench-peers.sh
    . scripts/lib/bench-peers.sh
    if running docker; then
        docker network create bench >/dev/null
        aliases=()
        for number in $(seq 2 1001); do aliases+=(--network-alias "c$number"); done
        docker run -d --network bench "${aliases[@]}" "$reference" sleep 1000000 >/dev/null
        asking=$(docker run -d --network bench "$reference" sleep 1000000)
        inside=$(docker inspect --format '{{.State.Pid}}' "$asking")
        # The daemon answers in the container's namespace.
        ask dockerd 127.0.0.11 "$(cat "$work/docker.pid")"
        docker ps -aq | xargs docker rm -f >/dev/null
        kill "$(cat "$work/docker.pid")"
    fi
fi
