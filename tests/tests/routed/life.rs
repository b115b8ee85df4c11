//! Containers that come and go, plans and refusals, containers of others, many at once.

use crate::{Container, ROUTED, both, by_tcp, create, look, machine, on_the_host, ours, pair, run, theirs};
use pipelines::calls::{At, Call, Servers, check};
use pipelines::{Holder, Ran, die_with_parent, wait_until};
use serde_json::{Value, json};
use std::process::{Child, Stdio};

#[test]
fn containers_come_and_go() {
    let Some((bench, outside)) = machine() else { return };
    let before = on_the_host(&bench);
    create(&bench, "apart", 90, "--driver routed --mtu 1400");
    let server = "httpd -f -p 80 -h /var/www";
    let fetched = |port: u16| {
        let url = format!("http://203.0.113.1:{port}/");
        let asked = ["-sS", "--max-time", "5", "--noproxy", "*", &url];
        Ran::of(outside.command("curl").args(asked)).stdout == "served by busybox\n"
    };
    let printed = |command: &str| bench.sh(command).expect(0).stdout.trim().to_owned();
    let chosen = "--ip 10.90.0.77 --ip6 fd00:90::77 --mac-address 02:00:00:00:00:77";
    bench
        .sh(&format!("ctr-run -q -d --name web --network apart {chosen} -p 8080:80 $R/busybox:1 {server}"))
        .expect(0);
    wait_until("the server", || fetched(8080));
    let link = printed("ctr-inspect web | jq -r '.networks[0].host_interface'");
    let has_all = || {
        let web = look(&bench, "web");
        assert_eq!((web.v4.as_str(), web.v6.as_str()), ("10.90.0.77", "fd00:90::77"));
        let inside = web.at().sh("ip -o link show eth0").expect(0).stdout;
        assert!(inside.contains("02:00:00:00:00:77") && inside.contains("mtu 1400"), "{inside}");
        let outside = printed(&format!("ip -o link show {link}"));
        assert!(outside.contains("mtu 1400"), "{outside}");
    };
    has_all();
    // Again, by a stop, by a restart, by its policy; as it was each time.
    bench.sh("ctr-restart -q -t 0 web").expect(0);
    wait_until("the server after a restart", || fetched(8080));
    has_all();
    bench.sh("ctr-stop -q -t 0 web").expect(0);
    assert!(!fetched(8080));
    bench.sh("ctr-start -q web").expect(0);
    wait_until("the server after a stop", || fetched(8080));
    has_all();
    bench
        .sh(&format!(
            "ctr-run -q -d --name always --restart always --network apart -p 8081:80 $R/busybox:1 {server}"
        ))
        .expect(0);
    wait_until("the other server", || fetched(8081));
    let first = look(&bench, "always");
    bench.sh(&format!("kill -9 {}", first.pid)).expect(0);
    wait_until("the other server again", || fetched(8081) && look(&bench, "always").pid != first.pid);
    assert_eq!(look(&bench, "always").v6, first.v6);
    assert!(printed("ctr-exec web nslookup -type=a always").contains(&first.v4));

    // A running one off its network, and on it.
    bench.sh("net-detach -q web").expect(0);
    assert!(!fetched(8080));
    let left = bench.sh(&format!("ip -br link show {link}; ip route get 10.90.0.77 | grep {link}")).stdout;
    assert_eq!(left, "");
    assert_ne!(bench.sh("ctr-exec web ip link show eth0").status, 0);
    bench.sh("net-attach -q --network apart:ip=10.90.0.78,alias=late -p 8082:80 web").expect(0);
    wait_until("the server by another port", || fetched(8082));
    assert!(printed("ctr-exec always nslookup -type=a late").contains("10.90.0.78"));
    let taken = bench.sh("ctr-run --name taken --network apart:ip=10.90.0.78 $R/busybox:1 true");
    assert!(taken.status == 125 && taken.stderr.contains("10.90.0.78"), "{taken:?}");
    bench.sh("ctr-rm -q -f taken; true").expect(0);
    // Another store's tools leave it alone.
    let other = "export STAVES_ROOT=$DIR/other STAVES_RUN=$DIR/other-run";
    let pruned = bench
        .sh(&format!("{other}; net-create -q --driver routed other >/dev/null && net-prune && net-rm -q other >/dev/null"))
        .expect(0);
    assert_eq!(pruned.stdout, "");
    assert!(fetched(8082) && fetched(8081));

    // Killed with all that looks after them they leave what net-prune removes.
    let pids = "ctr-ls --output json | jq '.container.pid'; ctr-ls --output json | jq -r '.container.id' | while read -r id; do jq .shim_pid $STAVES_RUN/containers/$id/state.json; done";
    let pids = printed(pids).replace('\n', " ");
    assert_eq!(pids.split(' ').count(), 4, "{pids}");
    bench
        .sh(&format!(
            "kill -9 {pids}; for pid in {pids}; do while kill -0 $pid 2>/dev/null; do sleep 0.02; done; done"
        ))
        .expect(0);
    let pruned = bench.sh("net-prune").expect(0).stdout;
    for kind in ["lease", "bridge", "table"] {
        assert!(pruned.contains(kind), "{kind}: {pruned}");
    }
    assert_eq!(on_the_host(&bench), before);
    bench.sh("ctr-ls -aq | xargs ctr-rm -q -f && net-rm -q apart").expect(0);
    assert_eq!(on_the_host(&bench), before);
}

#[test]
fn ports_follow_the_way_out_and_networks_have_any_shape() {
    let Some((bench, outside)) = machine() else { return };
    let before = on_the_host(&bench);
    // As strict as kernels can be about where packets come from, and without IPv6 on new interfaces.
    let strict = "for at in all default; do echo 1 >/proc/sys/net/ipv4/conf/$at/rp_filter; echo 1 >/proc/sys/net/ipv4/conf/$at/arp_ignore; done
        echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6";
    bench.sh(strict).expect(0);
    create(&bench, "apart", 90, ROUTED);
    create(&bench, "bridged", 91, "");
    let seen = |word: &str| pair(&format!("{word} 203.0.113.2"), &format!("{word} 2001:db8::2"));
    let from_outside = |port: u16, word: &str| both(At::Outside(&outside), &ours(port), &seen(word));
    let loopback = |port: u16, answer: &str| Call::new(At::Host, "tcp", &format!("127.0.0.1:{port}"), answer);
    let mut servers = Servers::new();

    let web = run(&bench, "web", "--network apart -p 8080:80 -p 8080:80/udp");
    servers.serve(web.at(), 80, "web");
    let on = |number: u8| {
        [from_outside(8080, "web"), vec![loopback(8080, &format!("web 10.{number}.0.1"))]].concat()
    };
    check("on the routed one", &on(90));
    bench.sh("net-attach -q --network bridged:gw-priority=1 web").expect(0);
    check("on the bridge", &on(91));
    bench.sh("net-detach -q --network bridged web").expect(0);
    check("on the routed one again", &on(90));
    let there = run(&bench, "there", "--network bridged -p 8081:80 -p 8081:80/udp");
    servers.serve(there.at(), 80, "there");
    bench.sh("net-attach -q --network apart:gw-priority=1 there").expect(0);
    check("from a bridge", &[from_outside(8081, "there"), vec![loopback(8081, "there 10.90.0.1")]].concat());
    bench
        .sh("ip link set $(ctr-inspect there | jq -r '.networks[1].host_interface') down; net-reload -q")
        .expect(0);
    check("reloaded", &[from_outside(8081, "there"), vec![loopback(8081, "there 10.90.0.1")]].concat());

    // IPv6 alone.
    bench.sh("net-create -q --driver routed --ipv4=false --subnet fd00:92::/64 six").expect(0);
    let six = run(&bench, "six", "--network six -p 8082:80 -p 8082:80/udp");
    let neighbour = run(&bench, "neighbour", "--network six");
    assert!(six.v4.starts_with("fd00:92::") && six.v6.is_empty(), "{six:?}");
    servers.serve(six.at(), 80, "six");
    servers.serve(At::Outside(&outside), 82, "outside");
    let own = format!("[{}]:80", six.v4);
    let mut calls = from_outside(8082, "six").split_off(2);
    calls.push(Call::new(neighbour.at(), "tcp", &own, &format!("six {}", neighbour.v4)));
    calls.push(Call::new(At::Host, "udp", &own, "six fd00:92::1"));
    calls.push(Call::new(six.at(), "tcp", "[2001:db8::2]:82", "outside 2001:db8::1"));
    calls.push(Call::new(six.at(), "tcp", "[2001:db8::1]:8082", "six fd00:92::1"));
    check("IPv6 alone", &calls);

    // Two subnets of a family, the first of which is full.
    bench.sh("net-create -q --driver routed --subnet 10.93.0.0/30 --subnet 10.94.0.0/24 two").expect(0);
    let (full, other) = (run(&bench, "full", "--network two"), run(&bench, "other", "--network two"));
    assert!(full.v4 == "10.93.0.2" && other.v4.starts_with("10.94.0."), "{full:?} {other:?}");
    servers.serve(full.at(), 80, "full");
    servers.serve(other.at(), 80, "other");
    check(
        "two subnets",
        &[
            Call::new(other.at(), "tcp", "10.93.0.2:80", &format!("full {}", other.v4)),
            Call::new(full.at(), "udp", &format!("{}:80", other.v4), "other 10.93.0.2"),
            Call::new(At::Host, "tcp", &format!("{}:80", other.v4), "other 10.94.0.1"),
            Call::new(other.at(), "udp", "203.0.113.2:82", "outside 203.0.113.1"),
        ],
    );

    // The default network, edited.
    let default =
        r#"{"name":"bridge","driver":"routed","device":"staves0","subnets":[{"subnet":"10.95.0.0/24"}]}"#;
    bench.sh(&format!("mkdir -p $STAVES_ROOT/networks/bridge && echo '{default}' >$STAVES_ROOT/networks/bridge/network.json")).expect(0);
    let usual = run(&bench, "usual", "-p 8083:80");
    servers.serve(usual.at(), 80, "usual");
    check(
        "the default network",
        &[
            Call::new(At::Outside(&outside), "tcp", "203.0.113.1:8083", "usual 203.0.113.2"),
            Call::new(usual.at(), "tcp", "203.0.113.2:82", "outside 203.0.113.1"),
            Call::new(usual.at(), "tcp", &format!("{}:80", full.v4), ""),
            loopback(8083, "usual 10.95.0.1"),
        ],
    );
    drop(servers);
    bench.sh("net-rm -q -f six two && ctr-exec six ip -o link show lo && ctr-rm -q -f web there six neighbour full other usual && net-rm -q apart bridged && net-prune -q").expect(0);
    assert_eq!(on_the_host(&bench), before);
}

#[test]
fn what_is_planned_comes_true_and_what_does_not_apply_is_refused() {
    let Some((bench, _outside)) = machine() else { return };
    let before = on_the_host(&bench);
    let plan = |command: &str| -> Vec<Value> {
        let told = bench.sh(command).expect(0).stdout;
        told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let names = |steps: &[Value]| -> Vec<String> {
        steps.iter().map(|step| step["step"].as_str().unwrap().to_owned()).collect()
    };
    let asked = "net-create --driver routed --subnet 10.90.0.0/24 --subnet fd00:90::/64";
    let made = plan(&format!("{asked} --dry-run apart"));
    assert_eq!(
        (&made[0]["step"], &made[0]["driver"]),
        (&json!("make_network"), &json!("routed")),
        "{made:?}"
    );
    bench.sh("net-inspect apart").expect(4);
    let told = bench.sh(&format!("{asked} apart")).expect(0).json();
    assert_eq!(told["networks"][0]["subnets"][0]["subnet"], made[0]["subnets"][0], "{told}");
    // The same again is the same; another kind is a conflict.
    bench.sh(&format!("{asked} -q apart")).expect(0);
    bench.sh("net-create --subnet 10.90.0.0/24 apart").expect(5);

    bench.sh("img-pull $R/busybox:1 | img-unpack | ctr-create --name web -- sleep 1000 >$DIR/web").expect(0);
    let steps = plan("net-attach --dry-run --network apart -p 8080:80 <$DIR/web");
    let step = |name: &str| {
        steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("{name}: {steps:?}"))
    };
    assert!(step("make_interface").get("bridge").is_none(), "{}", step("make_interface"));
    assert!(names(&steps).iter().any(|name| name == "set_up_table"), "{steps:?}");
    assert_eq!(on_the_host(&bench), before);
    let told = bench.sh("net-attach --network apart -p 8080:80 <$DIR/web").expect(0).json();
    let attached = &told["networks"][0];
    for member in ["interface", "host_interface", "mac", "addresses"] {
        assert_eq!(step("make_interface")[member], attached[member], "{member}");
    }
    assert_eq!(step("publish_ports")["ports"], attached["ports"]);
    assert_eq!(plan("net-attach --dry-run web"), Vec::<Value>::new());
    // What is to be made again is planned.
    bench.sh("ip route del $(ctr-inspect web | jq -r '.networks[0].addresses[0]')").expect(0);
    let steps = plan("net-attach --dry-run web");
    assert!(names(&steps).iter().any(|name| name == "make_interface"), "{steps:?}");
    bench.sh("net-attach -q web").expect(0);
    assert_eq!(plan("net-attach --dry-run web"), Vec::<Value>::new());

    for (command, status, words) in [
        ("net-attach --network apart:link-local-ip=169.254.1.1 two", 3, "nobody shares a link"),
        ("net-attach --dry-run --network apart:link-local-ip=fe80::1 two", 3, "nobody shares a link"),
        ("net-attach --network apart:ip=10.91.0.5 two", 3, "10.91.0.5"),
        ("net-attach --network apart:ip=10.90.0.1 two", 3, "10.90.0.1"),
        (
            "net-create --driver routed --subnet 10.91.0.0/24 --route 10.99.0.0/24,10.91.0.5 x",
            2,
            "10.91.0.5 is a container",
        ),
        ("net-create --driver routed --parent up0 x", 2, "--parent"),
        ("net-create --driver routed --opt parent=up0 x", 2, "no such option"),
        ("net-create --driver routed --opt macvlan_mode=bridge x", 2, "no such option"),
        ("net-create --driver routed --mode bridge x", 2, "--mode"),
        ("net-create --driver routed --opt mode=unmanaged x", 2, "not supported"),
        ("net-create --driver routed --subnet 10.90.0.128/25 x", 5, "apart"),
    ] {
        if command.contains(" two") {
            bench.sh("ctr-inspect two >/dev/null 2>&1 || ctr-run -q -d --name two --network none $R/busybox:1 sleep 1000").expect(0);
        }
        let refused = bench.sh(command);
        assert_eq!(refused.status, status, "{command}: {}{}", refused.stdout, refused.stderr);
        assert!(refused.stderr.contains(words), "{command}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{command}");
    }
    assert_eq!(bench.sh("net-ls -q").expect(0).stdout, "apart\nbridge\n");
    assert_eq!(bench.sh("ls $STAVES_ROOT/networks/apart/leases").expect(0).stdout.lines().count(), 2);
    // A way by the gateway itself is one.
    create(&bench, "ways", 92, "--driver routed --route 10.99.0.0/24,10.92.0.1 --opt no_default_route=1");
    let three = run(&bench, "three", "--network ways");
    let ways = three.at().sh("ip route").expect(0).stdout;
    assert!(ways.contains("10.99.0.0/24 via 10.92.0.1") && !ways.contains("default"), "{ways}");
    bench.sh("ctr-rm -q -f web two three && net-rm -q apart ways").expect(0);
    assert_eq!(on_the_host(&bench), before);
}

#[test]
fn containers_of_others_are_on_it_by_the_plugin() {
    let Some((bench, outside)) = machine() else { return };
    create(&bench, "apart", 90, ROUTED);
    let own = run(&bench, "own", "--network apart");
    let mut pod = outside_of_ours();
    let asked = json!({
        "cniVersion": "1.0.0", "name": "pods", "type": "net-attach", "network": "apart",
        "runtimeConfig": {"ips": ["10.90.0.9/24"], "mac": "02:00:00:00:00:09", "aliases": ["db"],
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}]},
    });
    let ask = |command: &str, asked: &Value| {
        let environment = format!(
            "CNI_COMMAND={command} CNI_CONTAINERID=pod CNI_IFNAME=eth0 CNI_NETNS=/proc/{}/ns/net CNI_PATH=/nowhere \
             CNI_ARGS='IgnoreUnknown=1;K8S_POD_NAME=front'",
            pod.id()
        );
        bench.sh(&format!("{environment} net-attach <<'END'\n{asked}\nEND"))
    };
    let result = ask("ADD", &asked).expect(0).json();
    assert_eq!(result["ips"][0]["address"], "10.90.0.9/32", "{result}");
    assert!(result["ips"][1]["address"].as_str().unwrap().ends_with("/128"), "{result}");
    let interfaces = result["interfaces"].as_array().unwrap();
    let inside = interfaces.iter().position(|one| one["sandbox"].is_string()).unwrap();
    assert_eq!(result["ips"][0]["interface"], inside, "{result}");
    assert_eq!(interfaces[inside]["mac"], "02:00:00:00:00:09");
    assert_eq!(result["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.90.0.1"}));
    let v6 = result["ips"][1]["address"].as_str().unwrap().trim_end_matches("/128").to_owned();
    let there = Container { pid: pod.id(), v4: "10.90.0.9".into(), v6 };
    let mut servers = Servers::new();
    servers.serve(there.at(), 80, "pod");
    servers.serve(own.at(), 80, "own");
    servers.serve(At::Outside(&outside), 82, "outside");
    let mut calls = both(own.at(), &there.places(80), &own.seen("pod"));
    calls.extend(both(there.at(), &own.places(80), &there.seen("own")));
    calls.extend(both(there.at(), &theirs(82), &pair("outside 203.0.113.1", "outside 2001:db8::1")));
    calls.extend(by_tcp(both(
        At::Outside(&outside),
        &ours(8080),
        &pair("pod 203.0.113.2", "pod 2001:db8::2"),
    )));
    calls.push(Call::new(At::Host, "tcp", "127.0.0.1:8080", "pod 10.90.0.1"));
    check("a container of others", &calls);
    for name in ["front", "db"] {
        let told = bench.sh(&format!("ctr-exec own nslookup -type=a {name}")).expect(0).stdout;
        assert!(told.contains("10.90.0.9"), "{name}: {told}");
    }
    // What is lost is told by CHECK and made again by net-reload.
    let mut checked = asked.clone();
    checked["prevResult"] = result;
    ask("CHECK", &checked).expect(0);
    bench.sh("ip route del 10.90.0.9; nft flush ruleset").expect(0);
    assert_ne!(ask("CHECK", &checked).status, 0);
    bench.sh("net-prune -q; net-reload -q").expect(0);
    check("reloaded", &calls);
    ask("CHECK", &checked).expect(0);
    bench.sh("net-rm apart").expect(5);

    drop(servers);
    ask("DEL", &asked).expect(0);
    ask("DEL", &asked).expect(0);
    assert_eq!(there.at().sh("ip -o link | wc -l").stdout.trim(), "1");
    bench.sh("ctr-rm -q -f own && net-rm -q apart").expect(0);
    assert_eq!(bench.sh("nft list tables; ip -br link | grep -E '^(stv|staves)' || true").stdout, "");
    let _ = pod.kill();
    let _ = pod.wait();
}

/// A process of nobody's in a network namespace of its own.
fn outside_of_ours() -> Child {
    let mut holder = die_with_parent("unshare");
    holder.args(["--net", "sh", "-c", "ip link set lo up && exec sleep 1000000"]);
    let child = holder.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("run unshare");
    wait_until("a network namespace", || {
        std::fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|name| name == "sleep\n")
    });
    child
}

#[test]
fn forty_at_once_get_forty_addresses_and_leave_nothing() {
    let Some((bench, _outside)) = machine() else { return };
    let before = on_the_host(&bench);
    // Small, so that they meet: 61 addresses beside the gateway's.
    bench.sh("net-create -q --driver routed --subnet 10.90.0.0/26 --subnet fd00:90::/64 apart").expect(0);
    let asked = json!({"config": {"networks": [{"name": "apart"}]}});
    let holders: Vec<Holder> =
        (0..40).map(|n| Holder::new(&bench.place, &format!("{n:064x}"), &format!("c{n}"), &asked)).collect();
    for round in 0..2 {
        let all = |tool: &str, flags: &str| -> Vec<Ran> {
            let begun: Vec<Child> = (0..40)
                .map(|n| {
                    let mut command = bench.place.command(tool);
                    command.args(flags.split_whitespace()).arg(format!("c{n}"));
                    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run a tool")
                })
                .collect();
            // Neither is in the way of the others, nor they in theirs.
            for between in ["net-reload -q", "net-prune -q", "net-reload -q apart"] {
                bench.sh(between).expect(0);
            }
            begun.into_iter().map(|child| Ran::end(child).expect(0)).collect()
        };
        let told = all("net-attach", "-p 80 -p 30000-30099:81");
        let mut seen = std::collections::HashSet::new();
        let mut calls = Vec::new();
        let mut servers = Servers::new();
        servers.serve(At::Host, 81, "host");
        for (ran, holder) in told.iter().zip(&holders) {
            let attached = &ran.json()["networks"][0];
            for address in attached["addresses"].as_array().unwrap() {
                let address = address.as_str().unwrap().split('/').next().unwrap().to_owned();
                let to = if address.contains(':') { "[fd00:90::1]:81" } else { "10.90.0.1:81" };
                calls.push(Call::new(At::Inside(holder.pid()), "tcp", to, &format!("host {address}")));
                assert!(seen.insert(address), "an address twice");
            }
            for port in attached["ports"].as_array().unwrap() {
                assert!(seen.insert(port["host"].to_string()), "a port twice");
            }
        }
        assert_eq!(calls.len(), 80);
        check(&format!("round {round}"), &calls);
        drop(servers);
        let ways = bench.sh("ip route; ip -6 route").expect(0).stdout;
        assert_eq!(ways.lines().filter(|line| line.contains("dev stv")).count(), 80, "{ways}");
        all("net-detach", "-q");
        let left = bench.sh("ls $STAVES_ROOT/networks/apart/leases $STAVES_RUN/ports 2>/dev/null | grep -v '^/'; ip -br link | grep stv; ip route | grep stv").stdout;
        assert_eq!(left.trim(), "", "round {round}");
    }
    bench.sh("net-rm -q apart").expect(0);
    assert_eq!(on_the_host(&bench), before);
}
