//! Networks as people use them: containers that find each other, and engines side by side.

use pipelines::engine::{PODMAN, have, with_engine};
use pipelines::{Bench, Ran, wait_until};
use serde_json::json;

/// What can be reached from a container, by busybox' own programs.
fn answers(bench: &Bench, container: &str, url: &str) -> bool {
    let ran = bench.sh(&format!("ctr-exec {container} timeout 5 wget -q -O - {url}"));
    ran.status == 0 && ran.stdout == "served by busybox\n"
}

const SERVER: &str = "httpd -f -p 80 -h /var/www";

#[test]
fn containers_find_each_other_by_name_on_networks_of_their_own() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("net-create --ipv6 front && net-create --internal back && net-create other").expect(0);
    bench.sh(&format!("ctr-run -d --name db --network back:alias=database $R/busybox:1 {SERVER}")).expect(0);
    bench
        .sh(&format!("ctr-run -d --name app --network front --network back $R/busybox:1 {SERVER}"))
        .expect(0);
    bench
        .sh(&format!("ctr-run -d --name web --network front --network-alias www $R/busybox:1 {SERVER}"))
        .expect(0);
    bench.sh(&format!("ctr-run -d --name stranger --network other $R/busybox:1 {SERVER}")).expect(0);
    let short =
        bench.sh("ctr-inspect db").expect(0).json()["container"]["id"].as_str().unwrap()[..12].to_owned();
    wait_until("the servers to answer", || answers(&bench, "app", "http://db/"));
    for name in ["database", &short, "web", "www", "db.back"] {
        assert!(answers(&bench, "app", &format!("http://{name}/")), "{name} from app");
    }
    // The other family, too.
    let six = bench.sh("ctr-exec web nslookup -type=aaaa app").stdout;
    assert!(six.contains("fd"), "{six}");
    let address =
        bench.sh("ctr-inspect app | jq -r '.networks[0].addresses[1] / \"/\" | .[0]'").expect(0).stdout;
    assert!(answers(&bench, "web", &format!("http://[{}]/", address.trim())), "{address}");
    // Who is not on a network knows nobody there, and reaches nobody.
    let there =
        bench.sh("ctr-inspect db | jq -r '.networks[0].addresses[0] / \"/\" | .[0]'").expect(0).stdout;
    for (from, to) in [("web", "db"), ("stranger", "app"), ("web", there.trim()), ("stranger", there.trim())]
    {
        assert!(!answers(&bench, from, &format!("http://{to}/")), "{from} reaches {to}");
    }
    // A running container on one more network, and off again.
    bench.sh("net-attach --network back:alias=late web").expect(0);
    assert!(answers(&bench, "db", "http://late/"));
    bench.sh("net-detach --network back web").expect(0);
    assert!(!answers(&bench, "db", "http://late/"));
    bench.sh("ctr-rename web site").expect(0);
    assert!(answers(&bench, "app", "http://site/") && !answers(&bench, "app", "http://web/"));
    bench.sh("ctr-rename site web").expect(0);
    // After a restart everything is as it was.
    bench.sh("ctr-restart -t 0 db app").expect(0);
    wait_until("the servers to answer again", || answers(&bench, "app", "http://database/"));

    let told = bench.sh("net-inspect back").expect(0).json();
    assert!(told.to_string().contains("\"db\"") && told.to_string().contains("\"app\""), "{told}");
    let refused = bench.sh("net-rm back").expect(5);
    assert!(refused.stderr.contains("db"), "{}", refused.stderr);
    bench.sh("ctr-rm -f db app web stranger").expect(0);
    bench.sh("net-rm front back other").expect(0);
    let left = bench.sh("net-ls -q; ip -br link | grep -E '^(stv|staves[1-9])' || true");
    assert_eq!(left.stdout.trim(), "bridge", "{}", left.stdout);
}

/// What a script that was written for docker relies on; found by running docker beside it.
#[test]
fn what_docker_does_in_odd_cases() {
    let Some(bench) = Bench::new() else { return };
    let printed = |command: &str| bench.sh(command).expect(0).stdout.trim().to_owned();
    let run = |flags: &str| bench.sh(&format!("ctr-run -d {flags} $R/busybox:1 sleep 1000"));
    bench.sh("net-create --subnet 10.61.1.0/24 one && net-create --subnet 10.61.2.0/24 two").expect(0);
    bench.sh("net-create --subnet 10.61.3.0/24 --subnet fd61:3::/64 both").expect(0);
    bench.sh("net-create --ipv4=false --subnet fd61:6::/64 six").expect(0);

    // One port of a range of the host's: each container another one, and none when all are taken.
    for name in ["first", "second"] {
        run(&format!("--name {name} -p 8100-8101:80")).expect(0);
    }
    let ports = |name: &str| printed(&format!("ctr-inspect {name} | jq -c '[.networks[].ports[].host]'"));
    assert_eq!((ports("first"), ports("second")), ("[8100]".into(), "[8101]".into()));
    let refused = run("--name third -p 8100-8101:80");
    assert!(refused.status == 125 && refused.stderr.contains("8100-8101"), "{}", refused.stderr);

    // `hostname -f` and `-s`.
    run("--name named --hostname foo --domainname ex.org").expect(0);
    assert_eq!(printed("ctr-exec named hostname -f"), "foo.ex.org");
    run("--name whole --hostname bar.ex.org --network one").expect(0);
    let hosts = printed("ctr-exec whole cat /etc/hosts");
    assert!(hosts.ends_with("\tbar.ex.org bar whole"), "{hosts}");

    // IPv6 switched off where the network has it, and on where it has not.
    let off = "--sysctl net.ipv6.conf.all.disable_ipv6=1";
    run(&format!("--name off --network both {off}")).expect(0);
    assert_eq!(printed("ctr-inspect off | jq '.networks[0].addresses | length'"), "1");
    let six = printed("ctr-exec off sh -c 'ip -6 -o addr show dev eth0; cat /etc/hosts'");
    assert!(!six.contains("fd61"), "{six}");
    let refused = run(&format!("--network six {off}"));
    assert!(refused.status == 125 && refused.stderr.contains("IPv6 alone"), "{}", refused.stderr);
    let disabled = "cat /proc/sys/net/ipv6/conf/eth0/disable_ipv6";
    run("--name on --sysctl net.ipv6.conf.all.disable_ipv6=0").expect(0);
    assert_eq!(printed(&format!("ctr-exec on {disabled}; ctr-exec first {disabled}")), "0\n1");

    run("--name new --network both --sysctl net.ipv6.conf.default.disable_ipv6=1").expect(0);
    assert_eq!(printed(&format!("ctr-exec new {disabled}")), "0");

    // A further network for a container that has ended: it keeps the one it had, and the interface.
    run("--name ended --network one --ip 10.61.1.9").expect(0);
    bench.sh("ctr-stop -t 0 ended").expect(0);
    let told = printed("net-attach --dry-run --network two:ip=10.61.2.9 ended");
    assert!(told.contains("10.61.1.9") && told.contains("10.61.2.9"), "{told}");
    bench.sh("net-attach --network two:ip=10.61.2.9 ended && ctr-start ended").expect(0);
    let addresses = "ctr-exec ended ip -4 -o addr | awk '$2 != \"lo\" { print $2, $4 }'";
    let both = "eth0 10.61.1.9/24\neth1 10.61.2.9/24";
    assert_eq!(printed(addresses), both);
    bench.sh("ctr-restart -t 0 ended && ctr-stop -t 0 ended && ctr-start ended").expect(0);
    assert_eq!(printed(addresses), both);

    // Off its last network a container does not ask that network's resolver any more.
    let asks = "ctr-exec ended grep -c '^nameserver 10.61.' /etc/resolv.conf";
    assert_eq!(printed(asks), "2");
    bench.sh("net-detach ended").expect(0);
    assert_eq!(printed(&format!("{asks} || true")), "0");
}

#[test]
fn a_network_of_ipv6_alone_has_names_and_ports() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("net-create --ipv4=false six").expect(0);
    bench.sh(&format!("ctr-run -d --name web --network six -p 8080:80 $R/busybox:1 {SERVER}")).expect(0);
    bench.sh("ctr-run -d --name client --network six $R/busybox:1 sleep 1000").expect(0);
    wait_until("the server to answer", || answers(&bench, "client", "http://web/"));
    let addresses = bench.sh("ctr-inspect web | jq -c .networks[0].addresses").expect(0).json();
    let addresses = addresses.as_array().unwrap();
    assert!(addresses.len() == 1 && addresses[0].as_str().unwrap().starts_with("fd"), "{addresses:?}");
    // The bridge's own address is one of the host's.
    let host = bench.sh("net-inspect six | jq -r .networks[0].subnets[0].gateway").expect(0).stdout;
    let url = format!("http://[{}]:8080/", host.trim());
    assert!(answers(&bench, "client", &url), "{url} from a neighbour");
    let from_host = bench.sh(&format!("curl -sS --max-time 5 --noproxy '*' '{url}'")).expect(0);
    assert_eq!(from_host.stdout, "served by busybox\n");
    let four = bench.sh("ctr-exec web ip -4 addr show dev eth0").expect(0);
    assert!(!four.stdout.contains("inet "), "{}", four.stdout);
    bench.sh("ctr-rm -f web client && net-rm six").expect(0);
}

#[test]
fn what_inspect_says_makes_an_equal_container_on_the_same_networks() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("net-create --subnet 10.77.0.0/24 one && net-create two").expect(0);
    bench
        .sh("ctr-run -d --name first --network one:alias=a,ip=10.77.0.9,ifname=up0 --network two:gw-priority=2 $R/busybox:1 sleep 1000")
        .expect(0);
    let asked = bench.sh("ctr-inspect first | jq -c .config.networks").expect(0).json();
    assert_eq!(asked[0], json!({"name": "one", "aliases": ["a"], "ip": "10.77.0.9", "interface": "up0"}));
    bench.sh("ctr-inspect first > $DIR/first.json; ctr-rm -f first").expect(0);
    bench
        .sh("jq -c '.config.name = \"second\"' $DIR/first.json | ctr-create | net-attach | ctr-start -q")
        .expect(0);
    let made =
        bench.sh("ctr-inspect second | jq -c '[.networks[] | [.name, .interface, .addresses[0]]]'").expect(0);
    assert!(made.stdout.starts_with(r#"[["one","up0","10.77.0.9/24"],["two","eth0","#), "{}", made.stdout);
    let route = bench.sh("ctr-exec second ip route show default").expect(0).stdout;
    assert!(route.contains("dev eth0"), "{route}");
    // The pipeline that does what ctr-run does.
    let shown =
        bench.sh("ctr-run --show --network one:ip=10.77.0.8 --network two $R/busybox:1 ip addr").expect(0);
    let ran = bench.sh(&shown.stdout).expect(0);
    assert!(ran.stdout.contains("10.77.0.8/24"), "{}", ran.stdout);
}

/// A host beside this one (192.0.2.2), what it says on port 9000, and what is asked of engines: in by a published port, from this
/// host and from the other one, and out.
const SIDE_BY_SIDE: &str = r#"
ip link set lo up; echo 0 >/proc/sys/net/ipv4/ip_forward
unshare --net sleep 1000000 & neighbour=$!
until [ "$(cat /proc/$neighbour/comm)" = sleep ]; do sleep 0.02; done
ip link add lan0 type veth peer name wire netns $neighbour
ip addr add 192.0.2.1/24 dev lan0; ip link set lan0 up
n() { nsenter -t $neighbour -n "$@"; }
n ip link set lo up; n ip addr add 192.0.2.2/24 dev wire; n ip link set wire up
n socat TCP-LISTEN:9000,fork,reuseaddr SYSTEM:'echo outside' &
until n ss -Hltn sport = :9000 | grep -q 9000; do sleep 0.02; done
serve="httpd -f -p 80 -h /var/www"
export DOCKER_HOST=unix://$DIR/docker.sock
docker_up() {
    dockerd --data-root $DIR/docker --exec-root $DIR/docker-run -H $DOCKER_HOST --pidfile $DIR/docker.pid --storage-driver overlay2 >>$DIR/dockerd.log 2>&1 &
    for _ in $(seq 600); do docker version >/dev/null 2>&1 && break; sleep 0.1; done
    docker pull -q $R/busybox:1 >/dev/null || { cat $DIR/dockerd.log >&2; exit 1; }
    docker rm -f theirs >/dev/null 2>&1 || true
    docker network create net-docker >/dev/null 2>&1 || true
    docker run -d --name theirs --network net-docker -p 8001:80 $R/busybox:1 $serve >/dev/null
}
docker_down() { local pid=$(cat $DIR/docker.pid); kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.1; done; }
podman_up() { p run -d --name theirs -p 8002:80 $R/busybox:1 $serve >/dev/null; }
podman_down() { p rm -f -t 0 theirs >/dev/null; }
ours_up() {
    net-create --ignore -q web >/dev/null; ctr-run -d --name ours --network web -p 8003:80 $R/busybox:1 $serve >/dev/null
    net-create --ignore -q --driver routed apart >/dev/null; ctr-run -d --name routed --network apart -p 8004:80 $R/busybox:1 $serve >/dev/null
}
ours_down() { ctr-rm -f ours routed >/dev/null; net-prune >/dev/null; }
docker_out() { docker exec theirs nc -w 2 192.0.2.2 9000; }
podman_out() { p exec theirs nc -w 2 192.0.2.2 9000; }
ours_out() { ctr-exec ours nc -w 2 192.0.2.2 9000; }
routed_out() { ctr-exec routed nc -w 2 192.0.2.2 9000; }
get() { "$@" 2>/dev/null || true; }
# check WHEN ENGINE…: all ways of these, ours with a bridge and without.
check() {
    local when=$1 engine port
    shift
    for engine in ${@/#ours/ours routed}; do
        case $engine in docker) port=8001 ;; podman) port=8002 ;; ours) port=8003 ;; routed) port=8004 ;; esac
        for _ in $(seq 50); do [ "$(get curl -s --max-time 2 --noproxy '*' http://127.0.0.1:$port/)" = "served by busybox" ] && break; sleep 0.1; done
        [ "$(get curl -s --max-time 2 --noproxy '*' http://127.0.0.1:$port/)" = "served by busybox" ] || echo "$when: $engine: not from loopback"
        [ "$(get n curl -s --max-time 2 --noproxy '*' http://192.0.2.1:$port/)" = "served by busybox" ] || echo "$when: $engine: not from the neighbour"
        [ "$(get ${engine}_out </dev/null)" = outside ] || echo "$when: $engine: not out"
    done
}
"#;

fn side_by_side(bench: &Bench, script: &str) -> Ran {
    let podman = PODMAN.replace("[network]", "[network]\nnetwork_backend = \"netavark\"");
    with_engine(bench, &format!("{podman}\n{SIDE_BY_SIDE}"), script).expect(0)
}

fn engines() -> bool {
    have(&["dockerd", "docker", "podman", "conmon", "iptables", "socat", "curl", "nsenter"])
}

#[test]
fn beside_docker_and_podman_when_ours_is_first() {
    let Some(bench) = Bench::new() else { return };
    if !engines() {
        return;
    }
    let ran = side_by_side(
        &bench,
        r"
ours_up; check 'ours alone' ours
docker_up; check 'docker comes' ours docker
podman_up; check 'podman comes' ours docker podman
docker_down; check 'docker goes' ours podman
ours_down; check 'ours goes' podman
docker_up; check 'docker comes back' docker podman
ours_up; check 'ours comes back' ours docker podman
podman_down; check 'podman goes' ours docker
docker_down; ours_down
",
    );
    assert_eq!(ran.stdout, "", "{}", ran.stderr);
}

#[test]
fn beside_docker_and_podman_when_ours_is_last() {
    let Some(bench) = Bench::new() else { return };
    if !engines() {
        return;
    }
    // docker finds forwarding off, switches it on and lets FORWARD drop what it does not know.
    let ran = side_by_side(
        &bench,
        r"
docker_up; podman_up; check 'without ours' docker podman
ours_up; check 'all there' ours docker podman
docker_down; docker_up; check 'docker started anew' ours docker podman
podman_down; podman_up; check 'podman started anew' ours docker podman
ours_down; check 'ours gone' docker podman
ours_up; check 'ours again' ours docker podman
nft delete table inet staves; net-reload -q >/dev/null; check 'our table made anew' ours docker podman
podman_down; ours_down; check 'docker left' docker
docker_down
",
    );
    // What docker and podman do to each other (netavark 1.4 does not get past docker's FORWARD) is not ours to mend.
    let (theirs, ours): (Vec<&str>, Vec<&str>) =
        ran.stdout.lines().partition(|line| line.starts_with("without ours: "));
    let known = |line: &str| theirs.iter().any(|known| line.ends_with(&known["without ours".len()..]));
    let ours: Vec<&str> = ours.into_iter().filter(|line| !known(line)).collect();
    assert!(ours.is_empty(), "{ours:?} {}", ran.stderr);
}

/// Forgotten in a pipe, or after an attachment that failed.
#[test]
fn who_is_started_without_the_network_it_asks_for_is_told() {
    let Some(bench) = Bench::new() else { return };
    bench.sh("img-pull $R/busybox:1 | img-unpack >$DIR/image; net-create -q web").expect(0);
    for (flags, attach, warns) in [
        ("-p 8080:80", "cat", true),
        ("--network web", "cat", true),
        ("-p 8080:80", "net-attach", false),
        ("", "cat", false),
        ("--network private", "cat", false),
    ] {
        let start = format!("ctr-create --rm {flags} -- true <$DIR/image | {attach} | ctr-start --attach");
        let ran = bench.sh(&start).expect(0);
        assert_eq!(
            ran.stderr.contains("warning: it asks for networks or ports"),
            warns,
            "{start}: {}",
            ran.stderr
        );
    }
    // The port is taken, and the container is there to be started.
    let ran = bench.sh(
        "ctr-run -d --name one -p 8080:80 $R/busybox:1 sleep 1000 >/dev/null
         ctr-run -d --name two -p 8080:80 $R/busybox:1 sleep 1000 2>/dev/null || echo $?
         if [ $(ctr-ls -aq | wc -l) = 2 ]; then ctr-stop -q -t 0 two; ctr-start -q two; fi; ctr-ls -aq | xargs ctr-rm -q -f; net-rm -q web",
    );
    let kept = ran.stderr.contains("warning: it asks for networks or ports");
    assert!(ran.stdout.starts_with("125") && (kept || ran.stderr.is_empty()), "{ran:?}");
}
