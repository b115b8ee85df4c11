//! Networks of driver `routed` with real traffic: who reaches whom and as whom it is seen, over both families.

use pipelines::calls::{At, Call, Servers, check};
use pipelines::engine::have;
use pipelines::{Bench, Holder, OtherHost, Ran, die_with_parent, ip, wait_until};
use serde_json::{Value, json};
use std::process::{Child, Stdio};
use std::time::Duration;

/// A machine of one's own with another host beside it, 203.0.113.2 and 2001:db8::2, which asks us for all containers.
fn machine() -> Option<(Bench, OtherHost)> {
    let bench = Bench::new()?;
    if !have(&["nft", "jq", "curl", "socat"]) {
        return None;
    }
    let outside = OtherHost::new();
    ip("address add 2001:db8::1/64 dev up0 nodad");
    At::Outside(&outside)
        .sh("set -e; ip address add 2001:db8::2/64 dev eth0 nodad
             ip route add 10.0.0.0/8 via 203.0.113.1; ip route add fd00::/8 via 2001:db8::1")
        .expect(0);
    Some((bench, outside))
}

/// Makes a network of both families: 10.N.0.0/24 and fd00:N::/64.
fn create(bench: &Bench, name: &str, number: u8, flags: &str) {
    bench
        .sh(&format!("net-create -q --subnet 10.{number}.0.0/24 --subnet fd00:{number}::/64 {flags} {name}"))
        .expect(0);
}

const ROUTED: &str = "--driver routed";

/// A container that runs, and its addresses on the first of its networks.
#[derive(Clone, Debug)]
struct Container {
    pid: u32,
    v4: String,
    v6: String,
}

impl Container {
    fn at(&self) -> At<'static> {
        At::Inside(self.pid)
    }

    /// Its addresses, each with a port.
    fn places(&self, port: u16) -> [String; 2] {
        [format!("{}:{port}", self.v4), format!("[{}]:{port}", self.v6)]
    }

    /// What a server says to whom it sees by this container's addresses.
    fn seen(&self, word: &str) -> [String; 2] {
        [format!("{word} {}", self.v4), format!("{word} {}", self.v6)]
    }
}

/// Of what `ctr-inspect` prints.
fn look(bench: &Bench, name: &str) -> Container {
    let told = bench.sh(&format!("ctr-inspect {name}")).expect(0).json();
    let address = |number: usize| {
        let text = told["networks"][0]["addresses"][number].as_str().unwrap_or_default();
        text.split('/').next().unwrap_or_default().to_owned()
    };
    let pid = told["container"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
    Container { pid: pid.unwrap_or_else(|| panic!("{told}")), v4: address(0), v6: address(1) }
}

fn run(bench: &Bench, name: &str, flags: &str) -> Container {
    bench.sh(&format!("ctr-run -q -d --name {name} {flags} $R/busybox:1 sleep 1000000")).expect(0);
    look(bench, name)
}

/// The same call by both protocols to two places, of IPv4 and IPv6; an answer for each.
fn both<'a>(from: At<'a>, to: &[String; 2], answers: &[String; 2]) -> Vec<Call<'a>> {
    let calls = to.iter().zip(answers);
    calls
        .flat_map(|(to, answer)| ["tcp", "udp"].map(|protocol| Call::new(from, protocol, to, answer)))
        .collect()
}

fn by_tcp(mut calls: Vec<Call<'_>>) -> Vec<Call<'_>> {
    calls.retain(|call| call.protocol == "tcp");
    calls
}

fn shut<'a>(from: At<'a>, to: &[String; 2]) -> Vec<Call<'a>> {
    both(from, to, &[String::new(), String::new()])
}

fn pair(v4: &str, v6: &str) -> [String; 2] {
    [v4.to_owned(), v6.to_owned()]
}

/// The gateways of network N, each with a port.
fn gateways(number: u8, port: u16) -> [String; 2] {
    [format!("10.{number}.0.1:{port}"), format!("[fd00:{number}::1]:{port}")]
}

/// What is said to whom is seen by the gateways' addresses of network N.
fn by_gateway(word: &str, number: u8) -> [String; 2] {
    [format!("{word} 10.{number}.0.1"), format!("{word} fd00:{number}::1")]
}

fn ours(port: u16) -> [String; 2] {
    [format!("203.0.113.1:{port}"), format!("[2001:db8::1]:{port}")]
}

fn theirs(port: u16) -> [String; 2] {
    [format!("203.0.113.2:{port}"), format!("[2001:db8::2]:{port}")]
}

/// All that a network makes on the host.
fn on_the_host(bench: &Bench) -> Vec<String> {
    let all = "ip -br link | cut -d' ' -f1; for family in -4 -6; do ip $family route; ip $family neigh show nud permanent; ip $family rule; done; nft list ruleset";
    let told = bench.sh(all).expect(0).stdout;
    told.lines().filter(|line| !line.contains("up0")).map(str::to_owned).collect()
}

#[test]
fn containers_reach_each_other_and_the_host_by_address_and_by_name() {
    let Some((bench, outside)) = machine() else { return };
    let before = on_the_host(&bench);
    create(&bench, "apart", 90, ROUTED);
    create(&bench, "bridged", 91, "");
    let one = run(&bench, "one", "--network apart:alias=first");
    let two = run(&bench, "two", "--network apart");
    let third = run(&bench, "third", "--network apart --network bridged:gw-priority=1");
    let fourth = run(&bench, "fourth", "--network apart:gw-priority=1 --network bridged");
    let there = run(&bench, "there", "--network bridged");
    let mut servers = Servers::new();
    for (word, container) in [("one", &one), ("third", &third), ("there", &there)] {
        servers.serve(container.at(), 80, word);
    }
    servers.serve(At::Host, 81, "host");
    servers.serve(At::Outside(&outside), 82, "outside");

    let on_bridge = |name: &str| {
        let addresses = format!("ctr-inspect {name} | jq -r '.networks[1].addresses[] / \"/\" | .[0]'");
        let told = bench.sh(&addresses).expect(0).stdout;
        let mut lines = told.lines();
        [format!("there {}", lines.next().unwrap()), format!("there {}", lines.next().unwrap())]
    };
    let mut calls = both(one.at(), &gateways(90, 81), &one.seen("host"));
    // By UDP a program of the host answers as the gateway, if it does not look whom was asked.
    calls.extend(by_tcp(both(one.at(), &ours(81), &one.seen("host"))));
    calls.extend(both(At::Host, &one.places(80), &by_gateway("one", 90)));
    calls.extend(both(two.at(), &one.places(80), &two.seen("one")));
    calls.extend(both(one.at(), &third.places(80), &one.seen("third")));
    // Each is on two networks, and out by the one that comes first.
    for container in [&third, &fourth] {
        calls.extend(both(container.at(), &one.places(80), &container.seen("one")));
    }
    calls.extend(both(third.at(), &there.places(80), &on_bridge("third")));
    calls.extend(both(fourth.at(), &there.places(80), &on_bridge("fourth")));
    for container in [&one, &third, &fourth] {
        let masked = pair("outside 203.0.113.1", "outside 2001:db8::1");
        calls.extend(both(container.at(), &theirs(82), &masked));
    }
    // By the other network nobody comes in.
    calls.extend(shut(there.at(), &third.places(80)));
    calls.extend(shut(one.at(), &there.places(80)));
    check("on a routed network", &calls);

    let printed = |command: &str| bench.sh(command).expect(0).stdout.trim().to_owned();
    for (name, device) in [("third", "eth1"), ("fourth", "eth0")] {
        for family in ["-4", "-6"] {
            let route = printed(&format!("ctr-exec {name} ip {family} route show default"));
            assert!(route.contains(&format!("dev {device}")), "{name}: {route}");
        }
    }
    // Names, their addresses of both families, aliases, and the way back.
    for (name, address) in
        [("two", &two.v4), ("first", &one.v4), ("one.apart", &one.v4), ("third", &third.v4)]
    {
        let told = printed(&format!("ctr-exec fourth nslookup -type=a {name}"));
        assert!(told.contains(address.as_str()), "{name}: {told}");
    }
    for (name, address) in [("two", &two.v6), ("first", &one.v6)] {
        let told = printed(&format!("ctr-exec fourth nslookup -type=aaaa {name}"));
        assert!(told.contains(address.as_str()), "{name}: {told}");
    }
    for address in [&one.v4, &one.v6] {
        let told = printed(&format!("ctr-exec two nslookup {address}"));
        assert!(told.contains("name = one"), "{address}: {told}");
    }
    // A single address of each family, and a single neighbour, whom nobody is asked for.
    let addresses = printed("ctr-inspect one | jq -c '.networks[0].addresses'");
    assert_eq!(addresses, format!("[\"{}/32\",\"{}/128\"]", one.v4, one.v6));
    for (family, gateway) in [("-4", "10.90.0.1"), ("-6", "fd00:90::1")] {
        let known = one.at().sh(&format!("ip {family} neigh show dev eth0")).expect(0).stdout;
        assert!(known.lines().all(|line| line.starts_with(gateway) && line.contains("PERMANENT")), "{known}");
    }
    // Who says that he is another gets none of his packets.
    let taken = format!(
        "ip addr add {}/32 dev eth0; ip addr add {}/128 dev eth0 nodad; ip link set eth0 arp on; echo 1 >/proc/sys/net/ipv4/conf/all/arp_announce; \
         ping -c 1 -W 1 -I {} 10.90.0.1; ip -s neigh flush dev eth0; true",
        one.v4, one.v6, one.v4
    );
    two.at().sh(&taken).expect(0);
    let mut calls = both(At::Host, &one.places(80), &by_gateway("one", 90));
    calls.extend(both(third.at(), &one.places(80), &third.seen("one")));
    check("beside one that has the same address", &calls);

    let refused = bench.sh("net-rm apart").expect(5);
    assert!(refused.stderr.contains("one") && refused.stderr.contains("fourth"), "{}", refused.stderr);
    drop(servers);
    bench.sh("ctr-rm -q -f one two third fourth there && net-rm -q apart bridged").expect(0);
    assert_eq!(on_the_host(&bench), before);
}

#[test]
fn the_way_out_is_as_the_network_says() {
    let Some((bench, outside)) = machine() else { return };
    ip("address add 203.0.113.9/24 dev up0");
    ip("address add 2001:db8::9/64 dev up0 nodad preferred_lft 0");
    create(&bench, "plain", 90, ROUTED);
    create(&bench, "bare", 91, "--driver routed --opt com.docker.network.bridge.enable_ip_masquerade=false");
    create(
        &bench,
        "chosen",
        92,
        "--driver routed --opt outbound_addr4=203.0.113.9 --opt outbound_addr6=2001:db8::9",
    );
    create(&bench, "nowhere", 93, "--driver routed --opt no_default_route=1");
    create(&bench, "bridged", 94, "");
    let plain = run(&bench, "plain", "--network plain");
    let bare = run(&bench, "bare", "--network bare -p 8081:80 -p 8081:80/udp");
    let chosen = run(&bench, "chosen", "--network chosen -p 8082:80 -p 8082:80/udp");
    let nowhere = run(&bench, "nowhere", "--network nowhere");
    let bridged = run(&bench, "bridged", "--network bridged -p 8083:80 -p 8083:80/udp");
    let mut servers = Servers::new();
    servers.serve(At::Outside(&outside), 82, "outside");
    for (word, container) in
        [("bare", &bare), ("chosen", &chosen), ("bridged", &bridged), ("nowhere", &nowhere)]
    {
        servers.serve(container.at(), 80, word);
    }
    let masked = pair("outside 203.0.113.1", "outside 2001:db8::1");
    let nine = pair("outside 203.0.113.9", "outside 2001:db8::9");
    let mut calls = both(plain.at(), &theirs(82), &masked);
    calls.extend(both(bare.at(), &theirs(82), &bare.seen("outside")));
    calls.extend(both(chosen.at(), &theirs(82), &nine));
    calls.extend(shut(nowhere.at(), &theirs(82)));
    calls.extend(both(At::Host, &nowhere.places(80), &by_gateway("nowhere", 93)));
    // The way in is what it was, and who asks from outside is seen as he is; containers see the host.
    for (word, number, port) in [("bare", 91, 8081), ("chosen", 92, 8082)] {
        calls.extend(both(
            At::Outside(&outside),
            &ours(port),
            &pair(&format!("{word} 203.0.113.2"), &format!("{word} 2001:db8::2")),
        ));
        for from in [&plain, &bare, &chosen, &bridged] {
            calls.extend(both(from.at(), &ours(port), &by_gateway(word, number)));
        }
    }
    for from in [&plain, &bare, &chosen] {
        calls.extend(both(from.at(), &ours(8083), &by_gateway("bridged", 94)));
    }
    check("as made", &calls);

    // Edited, it is as the network says now.
    for (edit, answers) in [
        (
            ".outbound = [\"203.0.113.1\", \"2001:db8::9\"]",
            pair("outside 203.0.113.1", "outside 2001:db8::9"),
        ),
        (".outbound = []", masked.clone()),
        (".no_masquerade = true", chosen.seen("outside")),
    ] {
        edit_network(&bench, "chosen", edit);
        bench.sh("net-reload -q chosen").expect(0);
        check(edit, &both(chosen.at(), &theirs(82), &answers));
    }
    bench
        .sh("ctr-rm -q -f plain bare chosen nowhere bridged && net-rm -q plain bare chosen nowhere bridged")
        .expect(0);
    assert_eq!(bench.sh("nft list tables; ip -br link | grep -E '^(stv|staves)' || true").stdout, "");
}

fn edit_network(bench: &Bench, name: &str, edit: &str) {
    let file = format!("$STAVES_ROOT/networks/{name}/network.json");
    bench.sh(&format!("f={file}; jq '{edit}' $f >$f.new && mv $f.new $f")).expect(0);
}

#[test]
fn published_ports_are_reached_from_everywhere() {
    let Some((bench, outside)) = machine() else { return };
    ip("address add 203.0.113.9/24 dev up0");
    create(&bench, "apart", 90, ROUTED);
    create(&bench, "other", 91, ROUTED);
    create(&bench, "bridged", 92, "");
    let flags = "-p 8080:80 -p 8080:80/udp -p 9000-9009:9000-9009 -p 7000-7001:7010-7011/udp -p 127.0.0.1:8081:80 -p 203.0.113.9:8082:80 \
        -p [2001:db8::1]:8083:80 -p 53:53 -p 53:53/udp -p 80";
    let web = run(&bench, "web", &format!("--network apart {flags}"));
    let two = run(&bench, "two", "--network apart");
    let other = run(&bench, "other", "--network other");
    let bridged = run(&bench, "bridged", "--network bridged -p 8090:80 -p 8090:80/udp");
    let mut servers = Servers::new();
    for (port, word) in [(80, "web"), (9004, "nine"), (7011, "eleven"), (53, "names")] {
        servers.serve(web.at(), port, word);
    }
    servers.serve(bridged.at(), 80, "bridged");
    let chosen = "ctr-inspect web | jq '[.networks[0].ports[].host | select(. >= 32768)][0]'";
    let chosen: u16 = bench.sh(chosen).expect(0).stdout.trim().parse().unwrap();

    let from_outside = |word: &str| pair(&format!("{word} 203.0.113.2"), &format!("{word} 2001:db8::2"));
    let mut calls = both(At::Outside(&outside), &ours(8080), &from_outside("web"));
    calls.extend(both(At::Outside(&outside), &ours(53), &from_outside("names")));
    for (protocol, port, word) in [("tcp", 9004, "nine"), ("udp", 7001, "eleven"), ("tcp", chosen, "web")] {
        for (to, answer) in ours(port).iter().zip(from_outside(word)) {
            calls.push(Call::new(At::Outside(&outside), protocol, to, &answer));
        }
    }
    // As itself by its other addresses, by the network's own as the gateway.
    calls.extend(both(At::Host, &ours(8080), &pair("web 203.0.113.1", "web 2001:db8::1")));
    calls.extend(both(At::Host, &gateways(90, 8080), &by_gateway("web", 90)));
    for protocol in ["tcp", "udp"] {
        calls.push(Call::new(At::Host, protocol, "127.0.0.1:8080", "web 10.90.0.1"));
    }
    calls.push(Call::new(At::Host, "tcp", "127.0.0.1:9004", "nine 10.90.0.1"));
    calls.push(Call::new(At::Host, "tcp", "[::1]:8080", ""));
    // A neighbour, the container itself, and containers of other networks.
    for from in [&two, &web, &other, &bridged] {
        calls.extend(both(from.at(), &ours(8080), &by_gateway("web", 90)));
    }
    for (from, number) in [(&two, 90), (&other, 91), (&bridged, 92)] {
        calls.extend(both(from.at(), &gateways(number, 8080), &by_gateway("web", 90)));
    }
    for from in [&web, &two, &other, &bridged] {
        calls.extend(both(from.at(), &ours(8090), &by_gateway("bridged", 92)));
    }
    // Where a port is said to be, and nowhere else.
    let one = |from, to: &str, answer: &str| Call::new(from, "tcp", to, answer);
    calls.extend([
        one(At::Host, "127.0.0.1:8081", "web 10.90.0.1"),
        one(At::Host, "203.0.113.1:8081", ""),
        one(At::Outside(&outside), "203.0.113.1:8081", ""),
        one(At::Outside(&outside), "203.0.113.9:8082", "web 203.0.113.2"),
        one(two.at(), "203.0.113.9:8082", "web 10.90.0.1"),
        one(At::Outside(&outside), "203.0.113.1:8082", ""),
        one(At::Outside(&outside), "[2001:db8::1]:8083", "web 2001:db8::2"),
        one(At::Outside(&outside), "203.0.113.1:8083", ""),
    ]);
    // Its own addresses are not for others.
    calls.extend(shut(At::Outside(&outside), &web.places(80)));
    check("published", &calls);
    // The resolver is where it was, beside a published port 53.
    for asks in ["two", "web"] {
        let told = bench.sh(&format!("ctr-exec {asks} nslookup -type=a web 10.90.0.1")).expect(0).stdout;
        assert!(told.contains(&web.v4), "{told}");
    }

    // What is taken is a conflict, and leaves nothing.
    let leases = || bench.sh("ls $STAVES_ROOT/networks/apart/leases | wc -l").expect(0).stdout;
    let held = leases();
    let refused = bench.sh("ctr-run -d --name late --network apart -p 8080:80 $R/busybox:1 true");
    assert!(refused.status == 125 && refused.stderr.contains("8080"), "{refused:?}");
    let refused = bench.sh("net-attach -p 8090:80 two").expect(5);
    assert!(refused.stderr.contains("8090"), "{}", refused.stderr);
    bench.sh("ctr-rm -q -f late; true").expect(0);
    assert_eq!(leases(), held);

    // A running container's record gets a port, and loses it.
    servers.serve(two.at(), 80, "two");
    let places = ["127.0.0.1:8099", "203.0.113.1:8099", "[2001:db8::1]:8099"];
    let answers = ["two 10.90.0.1", "two 203.0.113.1", "two 2001:db8::1"];
    let calls = |open: bool| -> Vec<Call<'static>> {
        let all = places.iter().zip(answers);
        all.map(|(to, answer)| Call::new(At::Host, "tcp", to, if open { answer } else { "" })).collect()
    };
    bench.sh("ctr-inspect two | jq -c '.config.ports += [\"8099:80\"]' | net-attach -q").expect(0);
    check("a port more", &calls(true));
    check("itself", &by_tcp(both(two.at(), &ours(8099), &by_gateway("two", 90))));
    bench.sh("ctr-inspect two | jq -c '.config.ports = []' | net-attach -q").expect(0);
    check("without it", &calls(false));
    bench.sh("ctr-rm -q -f web two other bridged && net-rm -q apart other bridged").expect(0);
    assert_eq!(bench.sh("nft list tables").expect(0).stdout, "");
}

#[test]
fn networks_are_kept_apart() {
    let Some((bench, outside)) = machine() else { return };
    create(&bench, "apart", 90, ROUTED);
    create(&bench, "other", 91, ROUTED);
    create(&bench, "bridged", 92, "");
    create(&bench, "inner", 93, "--driver routed --internal");
    create(&bench, "alone", 94, "--driver routed --isolate");
    create(&bench, "quiet", 95, "--driver routed --opt com.docker.network.bridge.enable_icc=false");
    create(&bench, "walled", 96, "--isolate");
    let web =
        |name: &str, port: u16| run(&bench, name, &format!("--network {name} -p {port}:80 -p {port}:80/udp"));
    let (apart, other, bridged) = (web("apart", 8080), web("other", 8081), web("bridged", 8082));
    let (alone, quiet, walled) = (web("alone", 8083), web("quiet", 8084), web("walled", 8085));
    let shy = run(&bench, "shy", "--network quiet");
    let (inner, second) = (run(&bench, "inner", "--network inner"), run(&bench, "second", "--network inner"));
    let mut servers = Servers::new();
    for (word, container) in [
        ("apart", &apart),
        ("other", &other),
        ("bridged", &bridged),
        ("alone", &alone),
        ("quiet", &quiet),
        ("walled", &walled),
        ("inner", &inner),
    ] {
        servers.serve(container.at(), 80, word);
    }
    servers.serve(At::Host, 81, "host");
    servers.serve(At::Outside(&outside), 82, "outside");

    // Containers' own addresses are for their network.
    let mut calls = Vec::new();
    for (from, to) in [
        (&apart, &other),
        (&apart, &bridged),
        (&bridged, &apart),
        (&apart, &inner),
        (&bridged, &inner),
        (&inner, &apart),
        (&inner, &bridged),
        (&apart, &alone),
        (&alone, &bridged),
        (&shy, &quiet),
    ] {
        calls.extend(shut(from.at(), &to.places(80)));
    }
    for to in [&apart, &inner, &alone, &quiet] {
        calls.extend(shut(At::Outside(&outside), &to.places(80)));
    }
    // Published ports are for all but where a network keeps others out.
    for from in [&apart, &bridged, &alone, &shy] {
        for (word, number, port) in [("other", 91, 8081), ("quiet", 95, 8084)] {
            calls.extend(both(from.at(), &ours(port), &by_gateway(word, number)));
        }
    }
    for from in [&apart, &bridged, &quiet, &walled] {
        calls.extend(shut(from.at(), &ours(8083)));
    }
    for from in [&apart, &alone] {
        calls.extend(shut(from.at(), &ours(8085)));
    }
    calls.extend(both(alone.at(), &ours(8083), &by_gateway("alone", 94)));
    for (word, port) in [("alone", 8083), ("quiet", 8084)] {
        calls.extend(both(
            At::Outside(&outside),
            &ours(port),
            &pair(&format!("{word} 203.0.113.2"), &format!("{word} 2001:db8::2")),
        ));
        calls.push(Call::new(
            At::Host,
            "tcp",
            &format!("127.0.0.1:{port}"),
            &format!("{word} {}", if port == 8083 { "10.94.0.1" } else { "10.95.0.1" }),
        ));
    }
    for from in [&alone, &quiet] {
        calls.extend(both(from.at(), &theirs(82), &pair("outside 203.0.113.1", "outside 2001:db8::1")));
    }
    // An internal network has itself, and the host by its own address there.
    calls.extend(both(second.at(), &inner.places(80), &second.seen("inner")));
    calls.extend(both(At::Host, &inner.places(80), &by_gateway("inner", 93)));
    calls.extend(both(inner.at(), &gateways(93, 81), &inner.seen("host")));
    for to in [ours(81), gateways(90, 81), ours(8080), theirs(82)] {
        calls.extend(shut(inner.at(), &to));
    }
    check("apart", &calls);
    let refused = bench.sh("net-attach -p 8086:80 inner").expect(3);
    assert!(refused.stderr.contains("8086"), "{}", refused.stderr);
    let told = bench.sh("ctr-exec second nslookup -type=a inner").expect(0).stdout;
    assert!(told.contains(&inner.v4), "{told}");
    // Somebody who is told of a way out has none.
    inner
        .at()
        .sh("set -e; ip route add default via 10.93.0.1; ip route add default via fd00:93::1")
        .expect(0);
    let mut calls = Vec::new();
    for to in [ours(81), ours(8080), theirs(82), apart.places(80), bridged.places(80)] {
        calls.extend(shut(inner.at(), &to));
    }
    check("with a way out of its own", &calls);

    // The host's loopback addresses are its own, also where published ports are led to from them.
    let mut own = Servers::new();
    own.serve(At::Host, 83, "own");
    let inside = "for type in 127.0.0.0/8 127.0.0.1 127.255.255.255; do ip route del table local $type 2>/dev/null; done; ip addr flush dev lo
        ip route flush table local dev lo 2>/dev/null; ip route add 127.0.0.0/8 via 10.90.0.1; echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet";
    apart.at().sh(inside).expect(0);
    let asks = |answer: &str| [Call::new(apart.at(), "tcp", "127.0.0.1:83", answer)];
    check("loopback", &asks(""));
    // Nothing else is in the way.
    bench.sh("nft flush chain inet staves routed_guard").expect(0);
    check("loopback without the guard", &asks(&format!("own {}", apart.v4)));
    bench.sh("net-reload -q apart").expect(0);
    check("loopback with it again", &asks(""));
    bench
        .sh("ctr-ls -aq | xargs ctr-rm -q -f && net-rm -q apart other bridged inner alone quiet walled")
        .expect(0);
    assert_eq!(bench.sh("nft list tables; ip -br link | grep -E '^(stv|staves)' || true").stdout, "");
}

/// What was done to a network behind our back, and a call that is not answered then.
struct Harm {
    what: &'static str,
    /// `$L` is the host's end of the container `web`, `$V4` and `$V6` are its addresses.
    script: &'static str,
    unanswered: fn(&Container) -> Option<(At<'static>, String)>,
    /// How many links `net-reload` connects again.
    connected: u32,
    /// net-attach looks at ways, links and rules alone.
    mends: &'static [&'static str],
}

const BOTH: &[&str] = &["net-reload", "net-attach -q web two"];

const HARMS: [Harm; 9] = [
    Harm {
        what: "rules",
        script: "nft flush ruleset",
        unanswered: |_| Some((At::Host, "203.0.113.1:8080".into())),
        connected: 0,
        mends: BOTH,
    },
    Harm {
        what: "routes",
        script: "ip route del $V4; ip -6 route del $V6",
        unanswered: |web| Some((At::Host, format!("[{}]:80", web.v6))),
        connected: 1,
        mends: BOTH,
    },
    Harm {
        what: "neighbours",
        script: "ip neigh replace $V4 dev $L lladdr 02:00:00:00:00:99; ip neigh replace $V6 dev $L lladdr 02:00:00:00:00:99",
        unanswered: |web| Some((At::Host, format!("{}:80", web.v4))),
        connected: 0,
        mends: &["net-reload"],
    },
    Harm {
        what: "a link that is down",
        script: "ip link set $L down",
        unanswered: |web| Some((At::Host, format!("{}:80", web.v4))),
        connected: 1,
        mends: BOTH,
    },
    Harm {
        what: "a link of another group",
        script: "ip link set $L group 0",
        unanswered: |_| Some((At::Host, "127.0.0.1:8080".into())),
        connected: 1,
        mends: BOTH,
    },
    Harm {
        what: "a link on somebody's bridge",
        script: "ip link add theirs type bridge; ip link set theirs up; ip link set $L master theirs",
        unanswered: |_| None,
        connected: 1,
        mends: BOTH,
    },
    Harm {
        what: "a device that is down",
        script: "ip link set apart0 down",
        unanswered: |_| None,
        connected: 0,
        mends: &["net-reload"],
    },
    Harm {
        what: "a device that is gone",
        script: "ip link del apart0",
        unanswered: |web| Some((web.at(), "10.90.0.1:81".into())),
        connected: 2,
        mends: BOTH,
    },
    Harm {
        what: "loopback's way",
        script: "echo 0 >/proc/sys/net/ipv4/conf/$L/route_localnet; echo 0 >/proc/sys/net/ipv4/conf/apart0/route_localnet",
        unanswered: |_| Some((At::Host, "127.0.0.1:8080".into())),
        connected: 0,
        mends: BOTH,
    },
];

#[test]
fn what_is_lost_is_made_again() {
    let Some((bench, outside)) = machine() else { return };
    create(&bench, "apart", 90, "--driver routed --device apart0");
    let web = run(&bench, "web", "--network apart -p 8080:80 -p 8080:80/udp");
    let two = run(&bench, "two", "--network apart");
    let mut servers = Servers::new();
    servers.serve(web.at(), 80, "web");
    servers.serve(At::Host, 81, "host");
    servers.serve(At::Outside(&outside), 82, "outside");
    let whole = |what: &str| {
        let mut calls = both(At::Outside(&outside), &ours(8080), &pair("web 203.0.113.2", "web 2001:db8::2"));
        calls.push(Call::new(At::Host, "tcp", "127.0.0.1:8080", "web 10.90.0.1"));
        calls.extend(both(At::Host, &web.places(80), &by_gateway("web", 90)));
        calls.extend(both(two.at(), &web.places(80), &two.seen("web")));
        calls.extend(both(two.at(), &gateways(90, 81), &two.seen("host")));
        calls.extend(both(web.at(), &theirs(82), &pair("outside 203.0.113.1", "outside 2001:db8::1")));
        check(what, &calls);
        let told = bench.sh("ctr-exec two nslookup -type=a web").stdout;
        assert!(told.contains(&web.v4), "{what}: {told}");
    };
    whole("at first");
    let link = bench.sh("ctr-inspect web | jq -r '.networks[0].host_interface'").expect(0).stdout;
    let with = format!("L={}; V4={}; V6={}", link.trim(), web.v4, web.v6);
    for harm in HARMS {
        for mend in harm.mends {
            let what = format!("{}, then {mend}", harm.what);
            bench.sh(&format!("set -e; {with}; {}", harm.script)).expect(0);
            if let Some((from, to)) = (harm.unanswered)(&web) {
                check(&format!("{}, before it is mended", harm.what), &[Call::new(from, "tcp", &to, "")]);
            }
            let mended = bench.sh(mend).expect(0);
            if *mend == "net-reload" {
                assert_eq!(
                    mended.json()["reloaded"]["connected"],
                    harm.connected,
                    "{what}: {}",
                    mended.stdout
                );
                let again = bench.sh(mend).expect(0).json();
                let counts = [&again["reloaded"]["connected"], &again["reloaded"]["published"]];
                assert_eq!(counts, [&json!(0), &json!(0)], "{what}: {again}");
            }
            whole(&what);
            bench.sh("ip link del theirs 2>/dev/null; true").expect(0);
        }
    }
    // What is inside is made again by who attaches it.
    bench.sh(&format!("{with}; ip link del $L")).expect(0);
    bench.sh("net-reload -q").expect(0);
    check("without a link", &shut(At::Host, &web.places(80)));
    bench.sh("net-attach -q web").expect(0);
    assert_eq!(look(&bench, "web").v4, web.v4);
    whole("a link that was gone");
    bench.sh("ctr-rm -q -f web two && net-rm -q apart").expect(0);
    assert_eq!(bench.sh("nft list tables; ip -br link | grep -E '^(stv|apart0)' || true").stdout, "");
}

#[test]
fn an_edited_network_holds_for_those_that_are_there() {
    let Some((bench, outside)) = machine() else { return };
    create(&bench, "apart", 90, ROUTED);
    create(&bench, "bridged", 91, "");
    let web = run(&bench, "web", "--network apart -p 8080:80 -p 8080:80/udp");
    let two = run(&bench, "two", "--network apart");
    let bridged = run(&bench, "bridged", "--network bridged");
    let mut servers = Servers::new();
    servers.serve(web.at(), 80, "web");
    servers.serve(At::Outside(&outside), 82, "outside");
    let mut speaker = outside
        .command("socat")
        .args(["TCP-LISTEN:9000,fork,reuseaddr", "SYSTEM:while echo tick; do sleep 0.05; done"])
        .spawn()
        .expect("run socat");
    let hear = "while :; do nc 203.0.113.2 9000; sleep 0.1; done";
    bench.sh(&format!("ctr-run -q -d --name listener --network apart $R/busybox:1 sh -c '{hear}'")).expect(0);
    let heard = || bench.sh("ctr-logs listener").expect(0).stdout.lines().count();
    wait_until("the listener to hear", || heard() > 3);
    // Which of: a neighbour, the way out, a bridge's container at the port, and somebody outside there.
    for (edit, open) in [
        (".internal = true", [true, false, false, false]),
        (".internal = false", [true, true, true, true]),
        (".isolate = true", [true, true, false, true]),
        (".isolate = false | .no_icc = true", [false, true, true, true]),
        (".no_icc = false", [true, true, true, true]),
    ] {
        edit_network(&bench, "apart", edit);
        bench.sh("net-reload -q apart").expect(0);
        let answers = |place: usize, answers: [String; 2]| if open[place] { answers } else { pair("", "") };
        let mut calls = both(two.at(), &web.places(80), &answers(0, two.seen("web")));
        calls.extend(both(
            web.at(),
            &theirs(82),
            &answers(1, pair("outside 203.0.113.1", "outside 2001:db8::1")),
        ));
        calls.extend(both(bridged.at(), &ours(8080), &answers(2, by_gateway("web", 90))));
        calls.extend(both(
            At::Outside(&outside),
            &ours(8080),
            &answers(3, pair("web 203.0.113.2", "web 2001:db8::2")),
        ));
        check(edit, &calls);
        if edit.contains("internal = true") {
            // What was connected before is not any more.
            wait_until("silence", || {
                let before = heard();
                std::thread::sleep(Duration::from_millis(500));
                heard() == before
            });
        }
    }
    let _ = speaker.kill();
    let _ = speaker.wait();
    bench.sh("ctr-rm -q -f web two bridged listener && net-rm -q apart bridged").expect(0);
}

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
