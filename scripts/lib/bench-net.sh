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
        net-attach-*)
            measure "$1" net-attach -q "${words[@]}" bench
            # The ports asked for stay in its record otherwise.
            ctr-inspect bench | jq -c '.config.ports = []' | net-attach >/dev/null
            net-detach -q bench >/dev/null
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
    local contenders=("net-attach-$count")
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
    # A second of one TCP connection out of the container to the host, Gbit/s; the bare pair of links is the kernel's own price.
    iperf3 -s -D -I "$work/iperf.pid" >/dev/null
    rate() { # NAME PID SERVER
            for _ in 1 2 3 4 5; do
            nsenter -t "$2" -n iperf3 -c "$3" -t 2 -J >"$work/iperf"
            jq -r '.end.sum_received.bits_per_second / 1e9' "$work/iperf" >>"$work/rate-$1"
        done
        awk -v name="$1" '{ v[NR] = $1 } END { n = asort_(v, NR); printf "%-34s %10.2f\n", name, v[int((NR + 1) / 2)] }
            function asort_(v, n, i, j, t) { for (i = 2; i <= n; i++) for (j = i; j > 1 && v[j] < v[j-1]; j--) { t = v[j]; v[j] = v[j-1]; v[j-1] = t } return n }' "$work/rate-$1"
    }
    unshare --net sleep 1000000 &
    bare=$!
    sleep 0.2
    ip link add bare0 type veth peer name eth0 netns $bare
    ip address add 10.63.0.1/24 dev bare0 && ip link set bare0 up
    nsenter -t $bare -n sh -c 'ip link set lo up; ip address add 10.63.0.2/24 dev eth0; ip link set eth0 up'
    sleep 0.5
    net-attach -q bench >/dev/null
    ours=$(ctr-inspect bench | jq .container.pid)
    printf '\n%-34s %10s\n' 'container to host, one connection' 'Gbit/s'
    rate bare-veth $bare 10.63.0.1
    rate staves "$ours" 10.89.0.1
    if running docker; then
        docker network connect bench bench
        rate docker "$(docker inspect -f '{{.State.Pid}}' bench)" "$(docker network inspect -f '{{(index .IPAM.Config 0).Gateway}}' bench)"
    fi
    kill "$(cat "$work/iperf.pid")"
fi
