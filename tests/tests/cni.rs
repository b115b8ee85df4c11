//! podman with its CNI backend, whose containers are put on networks of ours by `net-attach` as their plugin.

use pipelines::engine::{PODMAN, have, with_engine};
use pipelines::{Bench, profile_dir};

/// The backend, with a network `web` that is ours; what libcni keeps of attachments is in memory.
const CNI: &str = r#"
mkdir -p /var/lib/cni && mount -t tmpfs none /var/lib/cni
mkdir -p $DIR/podman-net $DIR/plugins; # When a container has ended, conmon has podman clean up without the environment that podman was started with.
cat >$DIR/plugins/net-attach <<END
#!/bin/sh
export STAVES_ROOT=$STAVES_ROOT STAVES_RUN=$STAVES_RUN
exec $B/net-attach
END
chmod +x $DIR/plugins/net-attach
cat >$DIR/podman-net/web.conflist <<END
{"cniVersion": "0.4.0", "name": "web", "plugins": [{"type": "net-attach", "network": "web", "capabilities": {"portMappings": true, "ips": true}}]}
END
serve="httpd -f -p 80 -h /var/www"
leases() { ls $STAVES_ROOT/networks/web/leases | wc -l; }
get() { for _ in $(seq 50); do "$@" 2>/dev/null && return; sleep 0.1; done; echo "nothing from $*"; }
from_host() { get curl -sf --max-time 2 --noproxy '*' http://127.0.0.1:8080/; }
# check STATUS: asks the plugin about the container `one`, as libcni would, with what it has kept.
check() {
    local id kept
    id=$(p inspect -f '{{.Id}}' one)
    kept=$(ls /var/lib/cni/results/web-$id-eth0)
    jq -c '.result as $r | .config | @base64d | fromjson | .plugins[0] + {cniVersion, name, prevResult: $r}' $kept >$DIR/check
    CNI_COMMAND=CHECK CNI_CONTAINERID=$id CNI_IFNAME=eth0 CNI_NETNS=$(p inspect -f '{{.NetworkSettings.SandboxKey}}' one) \
        CNI_PATH=$DIR/plugins $DIR/plugins/net-attach <$DIR/check
}
"#;

#[test]
fn podman_puts_its_containers_on_networks_of_ours() {
    let Some(mut bench) = Bench::new() else { return };
    if !have(&["podman", "conmon", "curl", "jq"]) {
        return;
    }
    let backend = bench.sh("podman info --format '{{.Version.Version}}'").expect(0).stdout;
    if backend.trim().split('.').next().is_none_or(|major| major.parse().is_ok_and(|major: u32| major >= 5)) {
        testkit::skip(&format!("podman {} has no CNI backend any more", backend.trim()));
        return;
    }
    bench.place.set("B", profile_dir().display().to_string());
    let network =
        "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"$DIR/plugins\", \"/usr/lib/cni\"]";
    let podman = PODMAN.replace("[network]", network);
    bench.sh("net-create -q --ipv6 web").expect(0);
    let ran = with_engine(
        &bench,
        &format!("{podman}\n{CNI}"),
        r#"
ctr-run -q -d --name ours --network web $R/busybox:1 $serve >/dev/null
p run -d --name one --network web -p 8080:80 $R/busybox:1 $serve >/dev/null
echo "added: $(leases) leases"; from_host
check && echo checked
# Each finds the other, by name where it is ours that asks.
get ctr-exec ours wget -q -O - http://one/
there=$(ctr-inspect --output json ours | jq -r '.networks[0].addresses[0] / "/" | .[0]')
get p exec one wget -q -O - http://$there/
p restart -t 0 one >/dev/null
echo "restarted: $(leases) leases"; from_host; check && echo checked
p stop -t 0 one >/dev/null; echo "stopped: $(leases) leases"
p start one >/dev/null; echo "started: $(leases) leases"; from_host
# What is not as it was is told.
pid=$(p inspect -f '{{.State.Pid}}' one); nsenter -t $pid -n ip link set eth0 down; nsenter -t $pid -n ip address flush dev eth0
check >$DIR/said && echo "still right?" || jq -r '"told: \(.code > 0)"' $DIR/said
p rm -f -t 0 one >/dev/null
echo "removed: $(leases) leases, $(ls $STAVES_RUN/foreign 2>/dev/null | wc -l) foreign, $(ls $STAVES_RUN/ports 2>/dev/null | wc -l) ports"
ctr-rm -q -f ours >/dev/null
"#,
    )
    .expect(0);
    let page = "served by busybox";
    let wanted = [
        "added: 4 leases",
        page,
        "checked",
        page,
        page,
        "restarted: 4 leases",
        page,
        "checked",
        "stopped: 2 leases",
        "started: 4 leases",
        page,
        "told: true",
        "removed: 2 leases, 0 foreign, 0 ports",
    ];
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), wanted, "{}", ran.stderr);
    bench.sh("net-rm -q web").expect(0);
}
