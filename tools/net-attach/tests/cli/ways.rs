//! Who meets whom on a network, by which addresses containers are seen outside, and by which ways they get there.

use crate::firewall::{address, call, define, neighbour, seen, serve};
use crate::lab::{Lab, isolated};

fn on(network: &str) -> String {
    format!(r#"{{"network":"{network}"}}"#)
}

#[test]
fn neighbours_that_are_not_to_meet_do_not() {
    isolated("ways::neighbours_that_are_not_to_meet_do_not", |lab| {
        // With it frames to a published port of a neighbour are led there within the bridge, where the two are apart.
        lab.sh(None, "sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0");
        define(lab, "web", 90, r#","no_icc":true"#);
        let outside = neighbour(lab);
        let (one, two) = (lab.container(1, &on("web")), lab.container(2, &on("web")));
        let made = lab.attach(&one, &["-p", "8080:80"]);
        lab.attach(&two, &[]);
        serve(lab, Some(one.pid), 80, "one");
        serve(lab, Some(outside), 81, "outside");
        let direct = |lab: &Lab| {
            let ask = |ipv6: bool| call(lab, Some(two.pid), "tcp", &format!("{}:80", address(&made, ipv6)));
            [ask(false), ask(true)]
        };
        assert_eq!(direct(lab), ["", ""]);
        // By the host, which forwards between them, neither.
        let gateways = [(false, "via 10.90.0.1"), (true, "via fd00:90::1")];
        for (ipv6, via) in gateways {
            let to = address(&made, ipv6).replace(['[', ']'], "");
            lab.must(Some(two.pid), &format!("ip route add {to} {via}"));
        }
        assert_eq!(direct(lab), ["", ""]);
        // What is published is for all, and the way out is open.
        assert!(call(lab, Some(two.pid), "tcp", "192.0.2.1:8080").starts_with("one "));
        assert!(call(lab, Some(outside), "tcp", "192.0.2.1:8080").starts_with("one "));
        assert!(call(lab, None, "tcp", &format!("{}:80", address(&made, false))).starts_with("one "));
        for to in ["192.0.2.2:81", "[2001:db8::2]:81"] {
            assert!(call(lab, Some(two.pid), "tcp", to).starts_with("outside "), "{to}");
        }

        // An edited definition holds for those that are there after net-reload.
        define(lab, "web", 90, "");
        assert_eq!(lab.tool("net-reload", &[]).status, 0);
        assert!(direct(lab).iter().all(|told| told.starts_with("one ")), "{:?}", direct(lab));
        define(lab, "web", 90, r#","no_icc":true"#);
        assert_eq!(lab.tool("net-reload", &["web"]).status, 0);
        assert_eq!(direct(lab), ["", ""]);
    });
}

#[test]
fn containers_are_seen_outside_as_the_network_says() {
    isolated("ways::containers_are_seen_outside_as_the_network_says", |lab| {
        let outside = neighbour(lab);
        lab.must(
            None,
            "ip addr add 192.0.2.9/24 dev lan0; ip addr add 2001:db8::9/64 dev lan0 nodad preferred_lft 0",
        );
        // Without masquerading an answer needs a way back.
        lab.must(
            Some(outside),
            "ip route add 10.90.0.0/16 via 192.0.2.1; ip -6 route add fd00::/16 via 2001:db8::1",
        );
        serve(lab, Some(outside), 81, "outside");
        define(lab, "plain", 90, "");
        define(lab, "bare", 91, r#","no_masquerade":true"#);
        define(lab, "chosen", 92, r#","outbound":["192.0.2.9","2001:db8::9"]"#);
        let told = |lab: &Lab, pid: u32| {
            ["192.0.2.2:81", "[2001:db8::2]:81"].map(|to| call(lab, Some(pid), "tcp", to))
        };
        let as_they_are = |made: &serde_json::Value| {
            let v4: std::net::Ipv4Addr = address(made, false).parse().unwrap();
            let o = v4.octets();
            format!("outside [{:02x}{:02x}:{:02x}{:02x}]", o[0], o[1], o[2], o[3])
        };
        let masked = ["192.0.2.1", "2001:db8::1"].map(|at| format!("outside {}", seen(at)));
        let nine = ["outside [c000:0209]".to_owned(), "outside [2001:0db8:0:0:0:0:0:0009]".to_owned()];
        let (plain, bare) = (lab.container(1, &on("plain")), lab.container(2, &on("bare")));
        let chosen = lab.container(3, &on("chosen"));
        lab.attach(&plain, &[]);
        let made = lab.attach(&bare, &["-p", "8081:80"]);
        lab.attach(&chosen, &["-p", "8082:80"]);
        assert_eq!(told(lab, plain.pid), masked);
        let seen_bare = told(lab, bare.pid);
        assert_eq!(seen_bare[0], as_they_are(&made));
        assert!(seen_bare[1].starts_with("outside [fd00:0091:"), "{seen_bare:?}");
        assert_eq!(told(lab, chosen.pid), nine);
        // The way in is what it was, to neighbours and to themselves too.
        for (container, port, word) in [(&bare, 8081, "bare"), (&chosen, 8082, "chosen")] {
            serve(lab, Some(container.pid), 80, word);
            for from in [None, Some(outside), Some(container.pid), Some(plain.pid)] {
                let said = call(lab, from, "tcp", &format!("192.0.2.1:{port}"));
                assert!(said.starts_with(word), "{word} from {from:?}: {said}");
            }
        }

        // Edited, the network is as it says now: other addresses, one family alone, none.
        for (more, v4, v6) in [
            (r#","outbound":["192.0.2.1","2001:db8::9"]"#, &masked[0], &nine[1]),
            (r#","outbound":["192.0.2.9"]"#, &nine[0], &masked[1]),
            ("", &masked[0], &masked[1]),
        ] {
            define(lab, "chosen", 92, more);
            assert_eq!(lab.tool("net-reload", &[]).status, 0);
            assert_eq!(told(lab, chosen.pid), [v4.clone(), v6.clone()], "{more}");
        }
        define(lab, "bare", 91, "");
        assert_eq!(lab.tool("net-reload", &["bare"]).status, 0);
        assert_eq!(told(lab, bare.pid), masked);
        // Nothing of it outlives the network.
        define(lab, "chosen", 92, r#","outbound":["192.0.2.9"]"#);
        assert_eq!(lab.tool("net-reload", &[]).status, 0);
        let mut gone = chosen;
        lab.remove(&mut gone);
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        let table = lab.sh(None, "nft list table inet staves").stdout;
        assert!(!table.contains("chosen0") && table.contains("bare0"), "{table}");
    });
}

#[test]
fn ports_are_where_the_network_has_them() {
    isolated("ways::ports_are_where_the_network_has_them", |lab| {
        let outside = neighbour(lab);
        lab.must(None, "ip addr add 192.0.2.9/24 dev lan0");
        define(lab, "web", 90, r#","host_binding":"192.0.2.9""#);
        let one = lab.container(1, &on("web"));
        let step = lab.tool("net-attach", &["--dry-run", "-p", "8080:80", &one.name]).stdout;
        assert!(step.contains(r#""ip":"192.0.2.9""#), "{step}");
        let made = lab.attach(&one, &["-p", "8080:80", "-p", "0.0.0.0:8081:80"]);
        assert_eq!(
            (&made["ports"][0]["ip"], &made["ports"][1]["ip"]),
            (&"192.0.2.9".into(), &"0.0.0.0".into())
        );
        serve(lab, Some(one.pid), 80, "one");
        let said = |lab: &Lab, to: &str| call(lab, Some(outside), "tcp", to);
        assert!(said(lab, "192.0.2.9:8080").starts_with("one "));
        assert_eq!(
            (said(lab, "192.0.2.1:8080"), said(lab, "[2001:db8::1]:8080")),
            (String::new(), String::new())
        );
        assert!(said(lab, "192.0.2.1:8081").starts_with("one "));
        // Again it is what is there already; another container may have the port elsewhere.
        assert_eq!(lab.attach(&one, &["-p", "8080:80"])["ports"], made["ports"]);
        define(lab, "other", 91, "");
        let two = lab.container(2, &on("other"));
        lab.attach(&two, &["-p", "192.0.2.1:8080:80"]);
        let three = lab.container(3, &on("other"));
        assert_eq!(lab.tool("net-attach", &["-p", "8080:80", &three.name]).status, 5);
    });
}

#[test]
fn an_interface_has_the_parameters_asked_for() {
    isolated("ways::an_interface_has_the_parameters_asked_for", |lab| {
        define(lab, "web", 90, "");
        let with = |sysctls: &str| {
            format!(
                r#"{{"networks":[{{"name":"web","interface":"up.0","driver_opts":{{"com.docker.network.endpoint.sysctls":"{sysctls}"}}}}]}}"#
            )
        };
        let one =
            lab.container(1, &with("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.hop_limit=9"));
        lab.attach(&one, &[]);
        let read = "cat /proc/sys/net/ipv4/conf/up.0/log_martians /proc/sys/net/ipv6/conf/up.0/hop_limit";
        assert_eq!(lab.must(Some(one.pid), read), "1\n9\n");
        // A neighbour is nobody's router, unless that is asked for.
        let routers = "cat /proc/sys/net/ipv6/conf/up.0/accept_ra";
        assert_eq!(lab.must(Some(one.pid), routers), "0\n");
        let listener = lab.container(4, &with("net.ipv6.conf.IFNAME.accept_ra=2"));
        lab.attach(&listener, &[]);
        assert_eq!(lab.must(Some(listener.pid), routers), "2\n");
        for (n, wrong, why) in [
            (2, "net.ipv4.conf.all.forwarding=1", "no parameter of an interface"),
            (3, "net.ipv4.conf.IFNAME.nonsense=1", "net.ipv4.conf.up.0.nonsense"),
        ] {
            let other = lab.container(n, &with(wrong));
            let outcome = lab.tool("net-attach", &[&other.name]);
            assert!(outcome.status != 0 && outcome.stderr.contains(why), "{}", outcome.stderr);
            assert!(!lab.sh(Some(other.pid), "ip -br link").stdout.contains("up.0"));
        }
    });
}

#[test]
fn an_interface_without_an_address_of_ipv6_has_none_of_it() {
    isolated("ways::an_interface_without_an_address_of_ipv6_has_none_of_it", |lab| {
        define(lab, "web", 90, "");
        let addresses = |lab: &mut Lab, pid: Option<u32>, device: &str| {
            lab.must(pid, &format!("ip -6 -br addr show dev {device}")).split_whitespace().skip(2).count()
        };
        let (both, plain) = (lab.container(1, &on("web")), lab.container(2, "{}"));
        let made = lab.attach(&both, &[]);
        lab.attach(&plain, &[]);
        // That of its network and that of its link.
        assert_eq!(
            (addresses(lab, Some(both.pid), "eth0"), addresses(lab, Some(plain.pid), "eth0")),
            (2, 0),
            "{made}"
        );
        assert_eq!(addresses(lab, Some(plain.pid), "lo"), 1);
        for port in lab.must(None, "ip -br link show type veth").lines() {
            let port = port.split('@').next().unwrap();
            assert_eq!(addresses(lab, None, port), 0, "{port}");
        }
        // Unless it is asked for, by parameter or by an address.
        let asked = r#"{"networks":[{"name":"bridge","driver_opts":{"com.docker.network.endpoint.sysctls":"net.ipv6.conf.IFNAME.disable_ipv6=0"}}]}"#;
        let asking = lab.container(3, asked);
        lab.attach(&asking, &[]);
        let linked = lab.container(4, r#"{"networks":[{"name":"bridge","link_local_ips":["fe80::9"]}]}"#);
        lab.attach(&linked, &[]);
        let listed = lab.must(Some(linked.pid), "ip -6 addr show dev eth0");
        assert!(addresses(lab, Some(asking.pid), "eth0") == 1 && listed.contains("fe80::9/64"), "{listed}");
    });
}

#[test]
fn further_ways_and_none_out() {
    isolated("ways::further_ways_and_none_out", |lab| {
        let outside = neighbour(lab);
        let routes = r#","routes":[{"destination":"10.7.0.0/16","gateway":"10.90.0.9"},{"destination":"fd00:7::/32","gateway":"fd00:90::9","metric":77}]"#;
        define(lab, "web", 90, routes);
        define(lab, "shut", 91, &format!(r#","no_default_route":true{}"#, routes.replace("90", "91")));
        // One of the containers leads to what is behind it.
        let router = lab.container(1, &on("web"));
        lab.attach(&router, &["--network", "web:ip=10.90.0.9,ip6=fd00:90::9"]);
        lab.must(Some(router.pid), "ip addr add 10.7.0.1/32 dev lo; ip addr add fd00:7::1/128 dev lo");
        serve(lab, Some(router.pid), 80, "behind");
        serve(lab, Some(outside), 81, "outside");
        let one = lab.container(2, &on("web"));
        lab.attach(&one, &[]);
        for to in ["10.7.0.1:80", "[fd00:7::1]:80"] {
            assert!(call(lab, Some(one.pid), "tcp", to).starts_with("behind "), "{to}");
        }
        assert!(call(lab, Some(one.pid), "tcp", "192.0.2.2:81").starts_with("outside "));
        assert!(lab.must(Some(one.pid), "ip -6 route show fd00:7::/32").contains("metric 77"));

        // Without a way out there is one if another network has it, whichever comes first.
        let two = lab.container(3, r#"{"networks":[{"name":"shut"},{"name":"web"}]}"#);
        lab.attach(&two, &[]);
        assert!(lab.must(Some(two.pid), "ip route show default").contains("via 10.90.0.1"));
        let three = lab.container(4, &on("shut"));
        let made = lab.attach(&three, &[]);
        assert!(made["gateway"].is_null() && made["gateway6"].is_null(), "{made}");
        let routes = lab.must(Some(three.pid), "ip route; ip -6 route");
        assert!(!routes.contains("default"), "{routes}");
        assert!(routes.contains("10.7.0.0/16 via 10.91.0.9"), "{routes}");
        assert_eq!(call(lab, Some(three.pid), "tcp", "192.0.2.2:81"), "");
    });
}
