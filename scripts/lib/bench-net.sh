# shellcheck shell=bash disable=SC2154
# Attaching, publishing and throughput against docker, podman's netavark and the CNI bridge plugin. Sourced by scripts/bench, whose functions it uses.
#
# An attach is timed by itself, of a container that is set up and waits: docker's by `docker network connect`, which asks its daemon; netavark's
# and the plugins' as podman and containerd run them, with their input ready in a file.

# shellcheck source=scripts/lib/bench-peers.sh
. scripts/lib/bench-peers.sh
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
ip netns add cni && ip netns add netavark
plugins=/usr/lib/cni
mkdir -p "$work/cni" "$work/netavark"
chain() { # ports as JSON
    local bridge='{"cniVersion":"0.4.0","name":"bench","type":"bridge","bridge":"cni0","isGateway":true,"ipMasq":true,"hairpinMode":true,
        "ipam":{"type":"host-local","dataDir":"'$work'/cni/ipam","ranges":[[{"subnet":"10.61.0.0/16"}]],"routes":[{"dst":"0.0.0.0/0"}]}}'
    jq -c . <<<"$bridge" >"$work/cni/bridge.json"
    jq -c --argjson ports "$1" '{cniVersion, name, type: "portmap", snat: true, capabilities: {portMappings: true}, runtimeConfig: {portMappings: $ports}}' \
        "$work/cni/bridge.json" >"$work/cni/portmap.json"
    # What a runtime does: each plugin after the other, with the result of the one before.
    cat >"$work/cni/add" <<END
#!/bin/sh -e
export CNI_COMMAND=ADD CNI_CONTAINERID=bench CNI_NETNS=/run/netns/cni CNI_IFNAME=eth0 CNI_PATH=$plugins
$plugins/bridge <$work/cni/bridge.json >$work/cni/result
[ "\$1" = plain ] || { jq -c --slurpfile r $work/cni/result '.prevResult = \$r[0]' $work/cni/portmap.json >$work/cni/portmap.in; $plugins/portmap <$work/cni/portmap.in; }
END
    cat >"$work/cni/del" <<END
#!/bin/sh
export CNI_COMMAND=DEL CNI_CONTAINERID=bench CNI_NETNS=/run/netns/cni CNI_IFNAME=eth0 CNI_PATH=$plugins
[ "\$1" = plain ] || $plugins/portmap <$work/cni/portmap.json
$plugins/bridge <$work/cni/bridge.json
END
    chmod +x "$work/cni/add" "$work/cni/del"
}
netavark_=$(command -v netavark || ls /usr/lib/podman/netavark 2>/dev/null || true)
of_netavark() { # ports as JSON
    jq -n --argjson ports "$1" '{container_id: ("ab" * 32), container_name: "bench", port_mappings: $ports,
        networks: {bench: {interface_name: "eth0", static_ips: ["10.62.0.2"]}},
        network_info: {bench: {name: "bench", id: ("cd" * 32), driver: "bridge", network_interface: "na0", dns_enabled: false, internal: false, ipv6_enabled: false,
            subnets: [{subnet: "10.62.0.0/16", gateway: "10.62.0.1"}]}}}' >"$work/netavark/input"
}
has_cni() { case ,$peers, in *,cni,*) [ -x $plugins/bridge ] ;; *) false ;; esac; }
has_netavark() { case ,$peers, in *,netavark,*) [ -n "$netavark_" ] ;; *) false ;; esac; }

img-pull "$reference" | img-unpack | ctr-create --name bench -- sleep 1000000 | net-attach | ctr-start -q >/dev/null
net-detach -q bench >/dev/null
# The same on a network without a bridge.
net-create -q --driver routed routed >/dev/null
ctr-run -q -d --name routed --network routed "$reference" sleep 1000000 >/dev/null
net-detach -q routed >/dev/null
if running docker; then
    docker network create bench >/dev/null
    docker run -d --name bench --network none "$reference" sleep 1000000 >/dev/null
    docker network disconnect none bench
fi

first_port=20000
attaching() { # COUNT: ports of one range, 0 for none
    local count=$1 ports='[]' range=$((first_port)) words
    [ "$count" = 0 ] || ports=$(jq -nc --argjson n "$count" --argjson f $first_port '[range($n) | {hostPort: ($f + .), containerPort: ($f + .), protocol: "tcp"}]')
    chain "$ports"
    of_netavark "$(jq -c --argjson n "$count" --argjson f $first_port 'if $n == 0 then [] else [{host_ip: "", host_port: $f, container_port: $f, protocol: "tcp", range: $n}] end' <<<null)"
    [ "$count" -le 1 ] || range=$first_port-$((first_port + count - 1))
    words=()
    [ "$count" = 0 ] || words=(-p "$range:$range")
    local title="attach, $count ports" plain=plain
    [ "$count" = 0 ] || plain=
    once() {
        case $1 in
        net-attach-* | routed-*)
            local container=bench
            [[ $1 != routed-* ]] || container=routed
            measure "$1" net-attach -q "${words[@]}" $container
            # The ports asked for stay in its record otherwise.
            ctr-inspect $container | jq -c '.config.ports = []' | net-attach >/dev/null
            net-detach -q $container >/dev/null
            ;;
        cni-*)
            measure "$1" "$work/cni/add" "$plain"
            "$work/cni/del" "$plain" >/dev/null
            ;;
        netavark-*)
            measure "$1" sh -c "$netavark_ --config $work/netavark setup /run/netns/netavark <$work/netavark/input"
            "$netavark_" --config "$work/netavark" teardown /run/netns/netavark <"$work/netavark/input" >/dev/null
            ;;
        docker-*)
            measure "$1" docker network connect bench bench
            docker network disconnect bench bench
            ;;
        esac
    }
    local contenders=("net-attach-$count" "routed-$count")
    # portmap runs iptables for every port: minutes for a thousand.
    ! { has_cni && [ "$count" -le 100 ]; } || contenders+=("cni-$count")
    ! has_netavark || contenders+=("netavark-$count")
    # docker publishes when it starts a container only.
    ! { running docker && [ "$count" = 0 ]; } || contenders+=("docker-$count")
    rounds_of "${contenders[@]}"
    table "$title" "net-attach-$count" "${contenders[@]}"
}
echo "$(nproc) processors, $(uname -sr), $rounds rounds"
! wants attach || attaching 0
! wants attach || attaching 1
! wants range || attaching 1000

if wants throughput; then
    # One connection out of the container to the host and to another one, and what a small packet costs whoever sends it, who also does the
    # receiving host's work up to the socket. The bare pair of links, and one on a bridge, are the kernel's own price; all pass
    # through the rules of all.
    declare -A inside=() gateway=()
    beside() { # NAME GATEWAY: a namespace with an interface eth0 whose other end is NAME0
        unshare --net sleep 1000000 &
        inside[$1]=$! gateway[$1]=$2
        sleep 0.2
        ip link add "$1"0 type veth peer name eth0 netns "${inside[$1]}"
        ip link set "$1"0 up
        nsenter -t "${inside[$1]}" -n sh -c "ip link set lo up; ip address add ${2%.1}.2/24 dev eth0; ip link set eth0 up; ip route add default via $2"
    }
    beside other 10.63.2.1 && ip address add 10.63.2.1/24 dev other0
    beside bare 10.63.0.1 && ip address add 10.63.0.1/24 dev bare0
    beside bridged 10.63.1.1 && ip link add plain type bridge && ip address add 10.63.1.1/24 dev plain && ip link set plain up && ip link set bridged0 master plain
    net-attach -q bench >/dev/null
    inside[staves]=$(ctr-inspect bench | jq .container.pid) gateway[staves]=10.89.0.1
    net-attach -q routed >/dev/null
    inside[routed]=$(ctr-inspect routed | jq .container.pid) gateway[routed]=$(net-inspect routed | jq -r '.networks[0].subnets[0].gateway')
    paths=(bare bridged staves routed)
    if running docker; then
        docker network connect bench bench
        inside[docker]=$(docker inspect -f '{{.State.Pid}}' bench) gateway[docker]=$(docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' bench)
        # docker's policy for forwarded packets is DROP.
        iptables -I FORWARD -s 10.63.0.0/16 -j ACCEPT && iptables -I FORWARD -d 10.63.0.0/16 -j ACCEPT
        paths+=(docker)
    fi
    sleep 1
    iperf3 -s -D -I "$work/iperf.pid" >/dev/null
    nsenter -t "${inside[other]}" -n iperf3 -s -D -I "$work/iperf-other.pid" >/dev/null
    tell() { # NAME MEASURE SERVER [OPTION...]
        nsenter -t "${inside[$1]}" -n iperf3 -c "$3" -t 1 -J "${@:4}" >"$work/iperf" || { jq -r .error "$work/iperf" >&2; exit 1; }
        case $2 in
        packet) jq -r '1e9 * .end.sum_sent.seconds / .end.sum_sent.packets' "$work/iperf" ;;
        *) jq -r '.end.sum_received.bits_per_second / 1e9' "$work/iperf" ;;
        esac >>"$work/times/rate-$filter-$1-$2"
    }
    # With docker or Kubernetes on a machine, what passes a bridge passes the host's rules as well (br_netfilter).
    filters=(without)
    [ ! -e /proc/sys/net/bridge/bridge-nf-call-iptables ] || filters+=(with)
    for filter in "${filters[@]}"; do
        on=$([ "$filter" = with ] && echo 1 || echo 0)
        [ ${#filters[@]} = 1 ] || sysctl -qw net.bridge.bridge-nf-call-iptables="$on" net.bridge.bridge-nf-call-ip6tables="$on"
        for _ in $(seq $((rounds + 5))); do
            for path in "${paths[@]}"; do
                tell "$path" host "${gateway[$path]}"
                tell "$path" other 10.63.2.2
                tell "$path" packet "${gateway[$path]}" -u -b 0 -l 16
            done
        done
        printf '\n%-26s %12s %14s %18s\n' "$filter br_netfilter" 'host, Gbit/s' 'other, Gbit/s' 'small packet, ns'
        for path in "${paths[@]}"; do
            printf '%-26s %12.2f %14.2f %18.0f\n' "$path" "$(median "rate-$filter-$path-host")" "$(median "rate-$filter-$path-other")" "$(median "rate-$filter-$path-packet")"
        done
    done
    kill "$(cat "$work/iperf.pid")" "$(cat "$work/iperf-other.pid")" "${inside[other]}" "${inside[bare]}" "${inside[bridged]}"
fi
