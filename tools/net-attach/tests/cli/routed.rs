//! What holds for bridges, on networks of driver `routed`. Most of these are tested with whole containers (`tests/tests/routed/`).

use crate::firewall::{self, address, call, define, neighbour, seen, serve};
use crate::input;
use crate::lab::{isolated, wait_for};

/// Its name takes it into the guests, whose kernels are others.
#[test]
fn traffic_passes_by_the_host() {
    isolated("routed::traffic_passes_by_the_host", |lab| {
        lab.driver = "routed";
        define(lab, "web", 90, "");
        define(lab, "inner", 91, r#","internal":true"#);
        let outside = neighbour(lab);
        let on = |network: &str| format!(r#"{{"network":"{network}"}}"#);
        let (one, two) = (lab.container(1, &on("web")), lab.container(2, &on("web")));
        let inner = lab.container(3, &on("inner"));
        let made = lab.attach(&one, &["-p", "8080:80", "-p", "8080:80/udp"]);
        lab.attach(&two, &[]);
        lab.attach(&inner, &[]);
        serve(lab, Some(one.pid), 80, "one");
        serve(lab, Some(outside), 6000, "outside");
        for protocol in ["tcp", "udp"] {
            let call = |from: Option<u32>, to: &str| call(lab, from, protocol, to);
            for (to, at, ipv6) in
                [("192.0.2.1", "192.0.2.2", false), ("[2001:db8::1]", "[2001:db8::2]", true)]
            {
                let (host, theirs) = (to.trim_matches(['[', ']']), at.trim_matches(['[', ']']));
                let own = format!("{}:80", address(&made, ipv6));
                assert_eq!(call(Some(outside), &format!("{to}:8080")), format!("one {}", seen(theirs)));
                assert_eq!(call(Some(one.pid), &format!("{at}:6000")), format!("outside {}", seen(host)));
                assert!(call(Some(two.pid), &own).starts_with("one "), "{protocol} {own}");
                assert!(call(None, &own).starts_with("one "), "{protocol} {own}");
                for from in [one.pid, two.pid] {
                    assert!(call(Some(from), &format!("{to}:8080")).starts_with("one "), "{protocol} {to}");
                }
                for closed in [&own, &format!("{to}:8080"), &format!("{at}:6000")] {
                    assert_eq!(call(Some(inner.pid), closed), "", "{protocol} {closed}");
                }
                assert_eq!(call(Some(outside), &own), "", "{protocol} {own}");
            }
        }
        assert!(call(lab, None, "tcp", "127.0.0.1:8080").starts_with("one "));
        for mut container in [one, two, inner] {
            assert_eq!(lab.tool("net-detach", &[&container.name]).status, 0);
            lab.remove(&mut container);
        }
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        lab.assert_clean();
        let left = lab.sh(None, "ip route; ip -6 route; ip neigh show nud permanent; nft list tables").stdout;
        assert!(!left.contains("10.9") && !left.contains("fd00:9") && !left.contains("staves"), "{left}");
    });
}

#[test]
fn sctp_is_published_too() {
    isolated("routed::sctp_is_published_too", |lab| {
        lab.driver = "routed";
        firewall::sctp(lab);
    });
}

#[test]
fn an_internal_network_does_not_send_in_the_name_of_another() {
    isolated("routed::an_internal_network_does_not_send_in_the_name_of_another", |lab| {
        lab.driver = "routed";
        firewall::in_the_name_of_another(lab);
    });
}

#[test]
fn beside_a_firewall_that_drops_what_it_does_not_know() {
    isolated("routed::beside_a_firewall_that_drops_what_it_does_not_know", |lab| {
        lab.driver = "routed";
        firewall::beside_one_that_drops(lab);
    });
}

#[test]
fn names_are_known_where_iptables_lets_nothing_in() {
    isolated("routed::names_are_known_where_iptables_lets_nothing_in", |lab| {
        lab.driver = "routed";
        input::where_nothing_is_let_in(lab);
    });
}

#[test]
fn where_firewalld_runs_subnets_are_in_a_zone() {
    isolated("routed::where_firewalld_runs_subnets_are_in_a_zone", |lab| {
        lab.driver = "routed";
        input::where_firewalld_runs(lab);
    });
}

/// The host's end is an interface of the host's as any other, where a bridge's port is none (CVE-2020-13401).
#[test]
fn a_container_does_not_make_itself_the_hosts_router() {
    isolated("routed::a_container_does_not_make_itself_the_hosts_router", |lab| {
        lab.driver = "routed";
        let script = lab.dir.join("advertise.py");
        std::fs::write(&script, ADVERTISE).unwrap();
        // Who forwards IPv6 listens to no routers in any case: this host does not, whatever its networks ask for.
        let forward_nothing = "echo 0 >/proc/sys/net/ipv6/conf/all/forwarding";
        let v4 = r#""subnets":[{"subnet":"10.90.0.0/24"}]"#;
        let inner = r#""internal":true,"subnets":[{"subnet":"10.91.0.0/24"},{"subnet":"fd00:91::/64"}]"#;
        for (number, (name, members)) in [("four", v4), ("inner", inner)].into_iter().enumerate() {
            let dir = lab.root().join("networks").join(name);
            std::fs::create_dir_all(&dir).unwrap();
            let definition = format!(r#"{{"name":"{name}","driver":"routed","device":"{name}0",{members}}}"#);
            std::fs::write(dir.join("network.json"), definition).unwrap();
            let mut container = lab.container(number + 1, &format!(r#"{{"network":"{name}"}}"#));
            let made = lab.attach(&container, &[]);
            lab.must(None, forward_nothing);
            // What an internal network's rules keep from the host is kept from it without them, too.
            lab.must(None, "nft flush chain inet staves routed_input");
            let link = made["host_interface"].as_str().unwrap();
            let inside =
                "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip addr add fe80::5/64 dev eth0 nodad";
            lab.must(Some(container.pid), inside);
            let advertise = format!("python3 {}", script.display());
            let ways = || lab.sh(None, "ip -6 route show default").stdout;
            assert_eq!(lab.sh(Some(container.pid), &advertise).status, 0);
            assert_eq!(ways(), "", "{name}");
            // It was said loud enough.
            let listen = format!(
                "echo 0 >/proc/sys/net/ipv6/conf/{link}/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/{link}/accept_ra"
            );
            assert_eq!(lab.sh(None, &listen).status, 0);
            wait_for("a router", || {
                lab.sh(Some(container.pid), &advertise).status == 0 && ways().contains("via fe80::5")
            });
            // Nor is it heard again after a reload.
            assert_eq!(lab.tool("net-reload", &[]).status, 0);
            lab.must(None, &format!("{forward_nothing}; ip -6 route flush proto ra"));
            assert_eq!(lab.sh(Some(container.pid), &advertise).status, 0);
            assert_eq!(lab.sh(None, "ip -6 route show default").stdout, "", "{name}, reloaded");
            lab.remove(&mut container);
        }
    });
}

/// A router's advertisement (RFC 4861, 4.2) to all.
const ADVERTISE: &str = r#"
import socket, struct
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
index = socket.if_nametoindex("eth0")
raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
raw.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
raw.bind(("fe80::5", 0, 0, index))
raw.sendto(struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index))
"#;
