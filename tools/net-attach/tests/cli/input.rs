//! Names behind other firewalls, which see containers' questions come in, and firewalld, which has zones.

use crate::firewall::{call, define, neighbour, serve, skip};
use crate::lab::{Container, Lab, isolated, wait_for};
use std::process::Command;

/// A network of both families with names, and a container on it; what net-attach said.
fn named(lab: &mut Lab, number: usize) -> (Container, String) {
    define(lab, "web", 90, r#","dns":{"enabled":true}"#);
    let web = lab.container(number, r#"{"network":"web"}"#);
    let attached = lab.tool("net-attach", &["-p", "8080:80", &web.name]);
    assert_eq!(attached.status, 0, "{}", attached.stderr);
    (web, attached.stderr)
}

/// What the resolver says of a container when it asks for itself, over both protocols and families, an answer a line.
fn asked(lab: &Lab, web: &Container) -> String {
    let ask = |way: &str| format!("dig +short +tries=1 +time=2 {way} {} | grep -v '^;'", web.name);
    let ways = ["@10.90.0.1", "+tcp @10.90.0.1", "@fd00:90::1", "+tcp @fd00:90::1"].map(ask).join("; ");
    lab.sh(Some(web.pid), &ways).stdout
}

fn assert_known(lab: &Lab, web: &Container, what: &str) {
    let told = asked(lab, web);
    let right = told.lines().filter(|line| line.starts_with("10.90.0.")).count();
    assert_eq!((right, told.lines().count()), (4, 4), "{what}: {told}");
}

/// The network and everything that was done for it goes.
fn gone(lab: &mut Lab, mut web: Container) {
    lab.remove(&mut web);
    wait_for("the bridge to go", || {
        lab.tool("net-prune", &[]);
        lab.sh(None, "ip link show web0").status != 0
    });
}

fn lacks(lab: &Lab, programs: &[&str]) -> bool {
    let missing = programs.iter().find(|name| lab.sh(None, &format!("command -v {name}")).status != 0);
    if let Some(program) = missing {
        skip(&format!("{program} is not installed"));
    }
    missing.is_some()
}

/// A host's firewall as people write it: what goes on, loopback and neighbour discovery pass.
fn refusing(programs: [&str; 2], refusal: [&str; 2]) -> String {
    let [four, six] = programs;
    format!(
        "set -e; for p in {four} {six}; do $p -A INPUT -i lo -j ACCEPT; $p -A INPUT -m conntrack --ctstate ESTABLISHED -j ACCEPT; done
         {six} -A INPUT -p ipv6-icmp -j ACCEPT; {four} {}; {six} {}",
        refusal[0], refusal[1]
    )
}

#[test]
fn port_53_is_published_beside_the_resolver() {
    isolated("input::port_53_is_published_beside_the_resolver", |lab| {
        if lacks(lab, &["dig"]) {
            return;
        }
        let outside = neighbour(lab);
        let (web, _) = named(lab, 1);
        wait_for("the resolver", || asked(lab, &web).lines().count() == 4);
        let mut server = lab.container(2, r#"{"network":"web"}"#);
        let name = server.name.clone();
        let flags = ["-p", "53:53", "-p", "53:53/udp", &name];
        // Whoever else has it is in the way.
        let pid =
            lab.spawn(Command::new("socat").args(["-u", "UDP4-RECV:53,bind=192.0.2.1", "OPEN:/dev/null"]));
        wait_for("a program", || lab.sh(None, "ss -H -lun src 192.0.2.1:53").stdout.contains("192.0.2.1"));
        let refused = lab.tool("net-attach", &flags);
        assert_eq!(refused.status, 5, "{}", refused.stderr);
        assert!(refused.stderr.contains("53 is in use by process"), "{}", refused.stderr);
        let refused = lab.tool("net-attach", &["-p", "10.90.0.1:53:53", &server.name]);
        assert_eq!(refused.status, 5, "the resolver's own address: {}", refused.stderr);
        lab.kill(pid);
        let attached = lab.tool("net-attach", &flags);
        assert_eq!(attached.status, 0, "{}", attached.stderr);
        serve(lab, Some(server.pid), 53, "server");
        for to in ["192.0.2.1:53", "[2001:db8::1]:53"] {
            for protocol in ["tcp", "udp"] {
                let told = call(lab, Some(outside), protocol, to);
                assert!(told.starts_with("server "), "{protocol} {to}: {told}");
            }
        }
        assert_known(lab, &web, "beside a server");
        lab.remove(&mut server);
        gone(lab, web);
    });
}

#[test]
fn names_are_known_where_iptables_lets_nothing_in() {
    isolated("input::names_are_known_where_iptables_lets_nothing_in", where_nothing_is_let_in);
}

pub fn where_nothing_is_let_in(lab: &mut Lab) {
    if lacks(lab, &["iptables-nft", "ip6tables-nft", "dig"]) {
        return;
    }
    let programs = ["iptables-nft", "ip6tables-nft"];
    let ways = [
        ["-P INPUT DROP", "-P INPUT DROP"],
        ["-A INPUT -j REJECT --reject-with icmp-host-prohibited", "-A INPUT -j REJECT"],
    ];
    serve(lab, None, 6000, "host");
    for (number, refusal) in ways.into_iter().enumerate() {
        lab.must(None, &refusing(programs, refusal));
        let before = lab.must(None, "iptables-nft -S; ip6tables-nft -S");
        let (web, told) = named(lab, number + 1);
        assert_eq!(told.matches("added to its chain INPUT").count(), 2, "{told}");
        assert_known(lab, &web, refusal[0]);
        // Nothing else of the host's is open for it, nor the resolver for others.
        assert_eq!(call(lab, Some(web.pid), "tcp", "10.90.0.1:6000"), "");
        let outside = neighbour(lab);
        assert_eq!(
            lab.sh(Some(outside), "dig +short +tries=1 +time=1 @10.90.0.1 c1 | grep -v '^;'").stdout,
            ""
        );
        lab.must(None, "ip link del lan0");
        let again = lab.tool("net-reload", &[]);
        assert_eq!((again.status, again.stderr.as_str()), (0, ""));
        gone(lab, web);
        assert_eq!(lab.must(None, "iptables-nft -S; ip6tables-nft -S"), before);
        lab.must(None, "nft flush ruleset");
    }
}

#[test]
fn the_kernels_older_tables_are_opened_too() {
    isolated("input::the_kernels_older_tables_are_opened_too", |lab| {
        if lacks(lab, &["iptables-legacy", "ip6tables-legacy", "dig"]) {
            return;
        }
        let tried = lab.sh(None, "iptables-legacy -S && ip6tables-legacy -S");
        if tried.status != 0 {
            skip(&format!("no older tables in this kernel: {}", tried.stderr.trim()));
            return;
        }
        let policy = "-P INPUT DROP";
        lab.must(None, &refusing(["iptables-legacy", "ip6tables-legacy"], [policy, policy]));
        lab.must(None, "iptables-legacy -P FORWARD DROP; ip6tables-legacy -P FORWARD DROP");
        let before = lab.must(None, "iptables-legacy -S; ip6tables-legacy -S");
        let outside = neighbour(lab);
        let (web, told) = named(lab, 1);
        assert_eq!(told.matches("added to its chain INPUT").count(), 2, "{told}");
        assert_eq!(told.matches("added to its chain FORWARD").count(), 2, "{told}");
        assert_known(lab, &web, policy);
        serve(lab, Some(web.pid), 80, "web");
        serve(lab, Some(outside), 6000, "outside");
        for (to, at) in [("192.0.2.1", "192.0.2.2"), ("[2001:db8::1]", "[2001:db8::2]")] {
            assert!(call(lab, Some(outside), "tcp", &format!("{to}:8080")).starts_with("web "), "{to}");
            assert!(call(lab, Some(web.pid), "tcp", &format!("{at}:6000")).starts_with("outside "), "{at}");
        }
        gone(lab, web);
        assert_eq!(lab.must(None, "iptables-legacy -S; ip6tables-legacy -S"), before);
    });
}

#[test]
fn a_chain_of_ones_own_that_lets_nothing_in_is_told_of() {
    isolated("input::a_chain_of_ones_own_that_lets_nothing_in_is_told_of", |lab| {
        if lacks(lab, &["dig"]) {
            return;
        }
        lab.must(None, "nft 'table inet filter { chain input { type filter hook input priority 0; policy drop; meta l4proto ipv6-icmp accept; }; }'");
        let (web, told) = named(lab, 1);
        assert_eq!(asked(lab, &web), "");
        // What is said works.
        let command = told.split("by their names: ").nth(1).unwrap().lines().next().unwrap();
        lab.must(None, command);
        assert_known(lab, &web, command);
        gone(lab, web);
    });
}

#[test]
fn where_firewalld_runs_bridges_are_in_a_zone() {
    isolated("input::where_firewalld_runs_bridges_are_in_a_zone", where_firewalld_runs);
}

pub fn where_firewalld_runs(lab: &mut Lab) {
    if lacks(lab, &["firewalld", "firewall-cmd", "dbus-daemon", "dig"]) {
        return;
    }
    // A bus of its own.
    lab.must(None, "mount -t tmpfs run /run && mount -t tmpfs log /var/log && mkdir /run/dbus");
    let bus = "--address=unix:path=/run/dbus/system_bus_socket";
    lab.spawn(Command::new("dbus-daemon").args(["--system", "--nofork", "--nopidfile", bus]));
    wait_for("the bus", || std::path::Path::new("/run/dbus/system_bus_socket").exists());
    lab.spawn(Command::new("firewalld").args(["--nofork", "--nopid"]));
    wait_for("firewalld", || lab.sh(None, "firewall-cmd --state").status == 0);
    let outside = neighbour(lab);
    // Of a network without a bridge its subnets are.
    let places: &[&str] = match lab.driver {
        "bridge" => &["interface=web0"],
        _ => &["source=10.90.0.0/24", "source=fd00:90::/64"],
    };
    let (web, told) = named(lab, 1);
    for place in places {
        let (_, name) = place.split_once('=').unwrap();
        assert!(told.contains(&format!("{name} was put in its zone trusted")), "{told}");
    }
    assert_known(lab, &web, "firewalld");
    serve(lab, Some(web.pid), 80, "web");
    serve(lab, Some(outside), 6000, "outside");
    for (to, at) in [("192.0.2.1", "192.0.2.2"), ("[2001:db8::1]", "[2001:db8::2]")] {
        assert!(call(lab, Some(outside), "tcp", &format!("{to}:8080")).starts_with("web "), "{to}");
        assert!(call(lab, Some(web.pid), "tcp", &format!("{at}:6000")).starts_with("outside "), "{at}");
    }
    // On a reload it forgets what was told to it alone; net-reload tells it again.
    lab.must(None, "firewall-cmd --reload");
    let reloaded = lab.tool("net-reload", &[]);
    assert_eq!(reloaded.status, 0, "{}", reloaded.stderr);
    assert_known(lab, &web, "after a reload");
    gone(lab, web);
    for place in places {
        assert_ne!(lab.sh(None, &format!("firewall-cmd --get-zone-of-{place}")).status, 0, "{place}");
        // A zone an administrator has chosen stays.
        lab.must(None, &format!("firewall-cmd --zone=drop --add-{place}"));
    }
    let (web, told) = named(lab, 2);
    assert!(!told.contains("firewalld"), "{told}");
    gone(lab, web);
    for place in places {
        let zone = lab.must(None, &format!("firewall-cmd --get-zone-of-{place}"));
        assert_eq!(zone.trim(), "drop", "{place}");
    }
}

#[test]
fn a_firewalld_that_does_not_answer_is_told_of() {
    isolated("input::a_firewalld_that_does_not_answer_is_told_of", |lab| {
        lab.must(None, "mount -t tmpfs run /run && nft 'table inet firewalld { chain filter_INPUT { type filter hook input priority 10; }; }'");
        let (web, told) = named(lab, 1);
        assert!(told.contains("firewall-cmd --zone=trusted --add-interface=web0"), "{told}");
        gone(lab, web);
    });
}
