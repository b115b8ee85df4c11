//! Who reaches whom, by which ways and names, and who does not.

use crate::{
    ROUTED, both, by_gateway, by_tcp, create, edit_network, gateways, machine, on_the_host, ours, pair, run,
    shut, theirs,
};
use pipelines::calls::{At, Call, Servers, check};
use pipelines::ip;

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
