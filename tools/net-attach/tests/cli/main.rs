//! The three tools against real traffic. Each test runs in network and mount namespaces of its own.

mod cni;
mod dry_run;
mod firewall;
mod input;
mod lab;
mod networks;
mod plugin;
mod plugins;
mod routed;
mod vlan;
mod ways;

use lab::{Lab, isolated, wait_for};
use std::collections::HashSet;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn traffic_goes_where_it_should() {
    isolated("traffic_goes_where_it_should", |lab| {
        let neighbour = lab.neighbour();
        let web = lab.container(1, r#"{"ports":["8080:80",{"ip":"127.0.0.1","host":8081,"container":80}]}"#);
        let other = lab.container(2, "{}");
        let flags = ["-p", "5353:53/udp", "-p", "9000-9999:9000-9999", "-p", "7000-7001:9000-9001"];
        let attachment = lab.attach(&web, &flags);
        lab.attach(&other, &[]);
        let inside = Some(web.pid);
        for (protocol, port) in [("tcp", 80), ("udp", 53), ("tcp", 9000), ("tcp", 9001), ("tcp", 9999)] {
            lab.serve(inside, protocol, port, &format!("s{port}"));
        }
        let address = attachment["addresses"][0].as_str().unwrap().trim_end_matches("/16").to_owned();

        // In, from everywhere; a neighbour keeps its address.
        let outside = Some(neighbour);
        assert_eq!(lab.call(outside, "tcp", "192.0.2.1:8080"), "s80 192.0.2.2");
        assert_eq!(lab.call(outside, "udp", "192.0.2.1:5353"), "s53 192.0.2.2");
        for to in ["127.0.0.1", "127.0.0.2", "192.0.2.1", "10.89.0.1"] {
            assert!(
                lab.call(None, "tcp", &format!("{to}:8080")).starts_with("s80 "),
                "from the host to {to}"
            );
        }
        assert!(lab.call(None, "udp", "127.0.0.1:5353").starts_with("s53 "));
        assert!(lab.call(None, "tcp", &format!("{address}:80")).starts_with("s80 "));
        for to in ["192.0.2.1", "10.89.0.1"] {
            assert!(
                lab.call(Some(other.pid), "tcp", &format!("{to}:8080")).starts_with("s80 "),
                "container to {to}"
            );
            assert!(
                lab.call(inside, "tcp", &format!("{to}:8080")).starts_with("s80 "),
                "itself through {to}"
            );
            assert!(
                lab.call(Some(other.pid), "udp", &format!("{to}:5353")).starts_with("s53 "),
                "udp to {to}"
            );
        }
        assert!(lab.call(Some(other.pid), "tcp", &format!("{address}:80")).starts_with("s80 "));
        // The same with bridged frames passing the firewall, as docker and Kubernetes set it, and without.
        for value in ["0", "1"] {
            lab.must(None, &format!("echo {value} > /proc/sys/net/bridge/bridge-nf-call-iptables || true"));
            assert!(
                lab.call(inside, "tcp", "10.89.0.1:8080").starts_with("s80 "),
                "hairpin, nf-call {value}"
            );
            assert!(lab.call(Some(other.pid), "tcp", "10.89.0.1:8080").starts_with("s80 "));
        }

        // Ranges: one element however long, or one each when the numbers change.
        assert_eq!(lab.call(outside, "tcp", "192.0.2.1:9000"), "s9000 192.0.2.2");
        assert_eq!(lab.call(outside, "tcp", "192.0.2.1:9999"), "s9999 192.0.2.2");
        assert_eq!(lab.call(outside, "tcp", "192.0.2.1:7001"), "s9001 192.0.2.2");
        assert_eq!(lab.elements(), 2 + 1 + 1 + 2);

        // Bound to loopback: for the host alone, whatever a neighbour tries.
        assert!(lab.call(None, "tcp", "127.0.0.1:8081").starts_with("s80 "));
        assert_eq!(lab.call(outside, "tcp", "192.0.2.1:8081"), "");
        lab.must(
            outside,
            "ip addr del 127.0.0.1/8 dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
             ip route add 127.0.0.1/32 via 192.0.2.1 src 192.0.2.2; ip route add 10.89.0.0/16 via 192.0.2.1",
        );
        assert_eq!(lab.call(outside, "tcp", "127.0.0.1:8081"), "");
        // Past the published ports there is no way in, nor from a container to the host's loopback.
        assert_eq!(lab.call(outside, "tcp", &format!("{address}:80")), "");
        lab.serve(None, "tcp", 6000, "private");
        assert!(lab.call(None, "tcp", "127.0.0.1:6000").starts_with("private"));
        lab.must(
            Some(other.pid),
            "ip addr del 127.0.0.1/8 dev lo; echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
             ip route add 127.0.0.1/32 via 10.89.0.1",
        );
        assert_eq!(lab.call(Some(other.pid), "tcp", "127.0.0.1:6000"), "");

        // Out, with the host's address.
        lab.serve(outside, "tcp", 7000, "out");
        assert_eq!(lab.call(inside, "tcp", "192.0.2.2:7000"), "out 192.0.2.1");

        assert!(lab.hosts_of(&web).ends_with(&format!("{address}\t{} c1\n", &web.id[..12])));
        assert!(lab.hosts_of(&web).starts_with("127.0.0.1\tlocalhost\n"));
    });
}

#[test]
fn attaching_again_changes_nothing() {
    isolated("attaching_again_changes_nothing", |lab| {
        let web = lab.container(1, "{}");
        let first = lab.attach(&web, &["-p", "8080:80", "-p", "53/udp"]);
        let index = lab.must(None, "cat /proc/net/dev | grep -c stv; ip -o link | grep stv | cut -d: -f1");
        assert_eq!(lab.attach(&web, &["-p", "8080:80", "-p", "53/udp"]), first);
        assert_eq!(lab.attach(&web, &[]), first);
        let record = lab.tool("net-attach", &["c1"]).stdout;
        let piped = lab.pipe("net-attach", &[], &record).json();
        assert_eq!((&piped["networks"][0], &piped["later"]), (&first, &serde_json::json!([1.5])));
        assert_eq!(
            lab.must(None, "cat /proc/net/dev | grep -c stv; ip -o link | grep stv | cut -d: -f1"),
            index
        );
        assert_eq!((lab.leases().len(), lab.claims().len(), lab.elements()), (1, 2, 2));

        // More ports are added, and serve. The record tells of them, so that a later stage does not take them for given up.
        lab.serve(Some(web.pid), "tcp", 81, "more");
        let more = lab.pipe("net-attach", &["-p", "8181:81"], &record).json();
        assert_eq!(more["networks"][0]["ports"].as_array().unwrap().len(), 3);
        assert_eq!(more["config"]["ports"], serde_json::json!(["8080:80", "53/udp", "8181:81"]));
        assert!(lab.call(None, "tcp", "127.0.0.1:8181").starts_with("more"));
        assert!(lab.call(Some(web.pid), "tcp", "10.89.0.1:8181").starts_with("more"));

        // Bridge and table gone under our feet: the next attach repairs.
        lab.must(None, "nft delete table inet staves; ip link del staves0");
        assert_eq!(lab.attach(&web, &[])["addresses"], first["addresses"]);
        assert!(lab.call(None, "tcp", "127.0.0.1:8181").starts_with("more"));

        for _ in 0..2 {
            let outcome = lab.tool("net-detach", &["c1"]);
            assert_eq!(
                (outcome.status, &outcome.json()["networks"]),
                (0, &serde_json::json!([])),
                "{}",
                outcome.stderr
            );
        }
        assert_eq!((lab.leases().len(), lab.claims().len(), lab.elements(), lab.links().len()), (0, 0, 0, 0));
        assert!(!lab.hosts_of(&web).contains("10.89."));
        lab.tool("net-prune", &[]);
        lab.assert_clean();
    });
}

#[test]
fn refusals_say_why_and_leave_nothing() {
    isolated("refusals_say_why_and_leave_nothing", |lab| {
        let mut a = lab.container(1, "{}");
        let b = lab.container(2, "{}");
        lab.attach(&a, &["-p", "8080:80", "-p", "127.0.0.1:8090:80"]);
        lab.serve(None, "tcp", 6000, "host");
        lab.serve(None, "udp", 6000, "host");
        let refused = |lab: &Lab, arguments: &[&str], status: i32, words: &str| {
            let outcome = lab.tool("net-attach", arguments);
            assert_eq!(outcome.status, status, "{arguments:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(words), "{arguments:?}: {}", outcome.stderr);
            assert_eq!(outcome.stdout, "");
        };
        refused(lab, &["-p", "8080:80", "c2"], 5, "published by container c1");
        refused(lab, &["-p", "8090:80", "c2"], 5, "published by container c1");
        refused(lab, &["-p", "8000-8100:8000-8100", "c2"], 5, "8080 is published by container c1");
        refused(lab, &["-p", "6000:80", "c2"], 5, "in use by process");
        refused(lab, &["-p", "6000:80/udp", "c2"], 5, "(socat)");
        refused(lab, &["-p", "192.0.2.77:80:80", "c2"], 3, "no address of this host");
        refused(lab, &["-p", "81:80", "-p", "81:82", "c2"], 3, "81/tcp");
        refused(lab, &["-p", "80/icmp", "c2"], 2, "icmp");
        refused(lab, &["-p", "[::1]:80:80", "c2"], 2, "127.0.0.1");
        refused(lab, &["-p", "[2001:db8::1]:80:80", "c2"], 3, "IPv6");
        refused(lab, &["--network", "other", "c2"], 4, "no such network");
        refused(lab, &["--network", "host", "-p", "80:80", "c2"], 3, "network host");
        refused(lab, &["nobody"], 4, "no such container");
        let record = |config: &str| {
            format!("{{\"config\":{config},\"container\":{{\"id\":\"{}\",\"name\":\"c2\"}}}}", b.id)
        };
        let empty = lab.pipe("net-attach", &[], "");
        assert_eq!((empty.status, empty.stdout.as_str()), (3, ""));
        assert_eq!(lab.pipe("net-attach", &[], &record(r#"{"network":"none","ports":[80]}"#)).status, 3);
        for network in ["none", "host", "container:x"] {
            let outcome = lab.pipe("net-attach", &[], &record(&format!(r#"{{"network":"{network}"}}"#)));
            assert_eq!(outcome.json()["networks"], serde_json::json!([]), "{}", outcome.stderr);
        }
        assert_eq!((lab.leases().len(), lab.claims().len(), lab.links().len()), (1, 2, 1));

        // Not set up, set up by a process that is another one by now, or in the host's network.
        let state = lab.run_dir().join("containers").join(&b.id).join("state.json");
        let good = std::fs::read_to_string(&state).unwrap();
        let started = lab::start_time(b.pid);
        std::fs::write(&state, good.replace(&started.to_string(), &(started - 1).to_string())).unwrap();
        refused(lab, &["c2"], 5, "not set up");
        let me = std::process::id();
        std::fs::write(
            &state,
            format!(
                r#"{{"status":"created","pid":{me},"pid_started":{},"shim_pid":1}}"#,
                lab::start_time(me)
            ),
        )
        .unwrap();
        refused(lab, &["c2"], 5, "host's network");
        std::fs::write(&state, good).unwrap();
        lab.must(Some(b.pid), "ip link add eth0 type veth peer name other");
        refused(lab, &["-p", "8099:80", "c2"], 5, "eth0 already");
        assert_eq!((lab.leases().len(), lab.claims().len(), lab.links().len()), (1, 2, 1));
        lab.must(Some(b.pid), "ip link del eth0");
        // What a dead container had is free to take.
        lab.stop(&mut a);
        lab.serve(Some(b.pid), "tcp", 80, "second");
        lab.attach(&b, &["-p", "8080:80"]);
        assert!(lab.call(None, "tcp", "127.0.0.1:8080").starts_with("second"));
        refused(lab, &["c1"], 5, "not set up");
        // A late detach of the first does not touch the second's port.
        assert_eq!(lab.tool("net-detach", &["c1"]).status, 0);
        assert!(lab.call(None, "tcp", "127.0.0.1:8080").starts_with("second"));
    });
}

#[test]
fn a_restarted_container_comes_back_to_its_address() {
    isolated("a_restarted_container_comes_back_to_its_address", |lab| {
        let mut web = lab.container(1, "{}");
        let neighbour = lab.neighbour();
        // A client that has been sending before the port was published, and keeps its own port.
        lab.attach(&web, &[]);
        assert_eq!(lab.call(Some(neighbour), "udp", "192.0.2.1:5353,sourceport=4444"), "");
        let before = lab.attach(&web, &["-p", "8080:80", "-p", "5353:53/udp"]);
        for round in 0..3 {
            lab.serve(Some(web.pid), "tcp", 80, "again");
            lab.serve(Some(web.pid), "udp", 53, "again");
            assert_eq!(
                lab.call(Some(neighbour), "tcp", "192.0.2.1:8080"),
                "again 192.0.2.2",
                "round {round}"
            );
            assert_eq!(lab.call(Some(neighbour), "udp", "192.0.2.1:5353,sourceport=4444"), "again 192.0.2.2");
            lab.stop(&mut web);
            lab.start(&mut web);
            assert_eq!(lab.attach(&web, &[]), before);
        }
        // An address taken over from a dead container no longer answers for its ports.
        lab.remove(&mut web);
        let mut thief = lab.container(1, "{}");
        let after = lab.attach(&thief, &[]);
        assert_eq!(after["addresses"], before["addresses"]);
        lab.remove(&mut thief);
        wait_for("the namespaces' end", || {
            lab.tool("net-prune", &[]);
            lab.links().is_empty()
        });
        lab.tool("net-prune", &[]);
        lab.assert_clean();
    });
}

#[test]
fn two_hundred_at_once_get_two_hundred_addresses() {
    isolated("two_hundred_at_once_get_two_hundred_addresses", |lab| {
        // A small subnet, so that they meet.
        let network = lab.root().join("networks/bridge");
        std::fs::create_dir_all(&network).unwrap();
        std::fs::write(
            network.join("network.json"),
            r#"{"name":"bridge","driver":"bridge","device":"staves0","subnet":"10.77.0.0/24","gateway":"10.77.0.1"}"#,
        )
        .unwrap();
        let mut containers: Vec<_> = (0..200).map(|n| lab.container(n, "{}")).collect();
        for round in 0..2 {
            let children: Vec<_> = containers
                .iter()
                .map(|container| {
                    let mut command = lab.command("net-attach");
                    command.args(["-p", "80", "-p", "30000-30299:81", &container.name]);
                    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
                })
                .collect();
            let mut seen = HashSet::new();
            for child in children {
                let output = child.wait_with_output().unwrap();
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                let record: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
                let attachment = &record["networks"][0];
                assert!(seen.insert(attachment["addresses"].to_string()), "an address twice");
                for port in attachment["ports"].as_array().unwrap() {
                    assert!(seen.insert(port["host"].to_string()), "a port twice");
                }
            }
            assert_eq!(
                (lab.leases().len(), lab.claims().len(), lab.elements()),
                (200, 400, 400),
                "round {round}"
            );
            assert_eq!(lab.links().len(), 200);
            let children: Vec<_> = containers
                .iter()
                .map(|container| {
                    let mut command = lab.command("net-detach");
                    command.args(["-q", &container.name]).stdout(Stdio::null()).spawn().unwrap()
                })
                .collect();
            for mut child in children {
                assert!(child.wait().unwrap().success());
            }
            assert_eq!(
                (lab.leases().len(), lab.claims().len(), lab.elements(), lab.links().len()),
                (0, 0, 0, 0)
            );
        }
        // A full subnet says so: 254 hosts, one of them the gateway.
        for container in &containers {
            lab.attach(container, &[]);
        }
        containers.extend((200..253).map(|n| lab.container(n, "{}")));
        for container in &containers[200..] {
            lab.attach(container, &[]);
        }
        let last = lab.container(253, "{}");
        let outcome = lab.tool("net-attach", &[&last.name]);
        assert_eq!(outcome.status, 5, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("no free address in 10.77.0.0/24"));
        lab.stop(&mut containers[7]);
        lab.attach(&last, &[]);
        containers.push(last);
        for container in &mut containers {
            lab.stop(container);
        }
        wait_for("everything to go", || {
            lab.tool("net-prune", &[]);
            lab.links().is_empty()
        });
        lab.tool("net-prune", &[]);
        lab.assert_clean();
    });
}

#[test]
fn killed_at_any_moment_leaves_what_the_next_one_cleans() {
    isolated("killed_at_any_moment_leaves_what_the_next_one_cleans", |lab| {
        let mut web = lab.container(1, "{}");
        for moment in 0..120u32 {
            let tool = if moment % 3 == 2 { "net-detach" } else { "net-attach" };
            let mut command = lab.command(tool);
            if tool == "net-attach" {
                command.args(["-p", "8080:80", "-p", "9000-9009:9000-9009", "-p", "127.0.0.1:70-79:80-89"]);
            }
            let mut child = command.arg("c1").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(u64::from(moment % 60) * 100));
            child.kill().unwrap();
            child.wait().unwrap();
            match moment % 4 {
                0 => {
                    // Prune must leave a living container's attachment whole or not at all.
                    assert_eq!(lab.tool("net-prune", &[]).status, 0);
                }
                1 => {
                    lab.attach(&web, &["-p", "8080:80"]);
                    let server = lab.serve(Some(web.pid), "tcp", 80, "alive");
                    assert!(lab.call(None, "tcp", "127.0.0.1:8080").starts_with("alive"), "moment {moment}");
                    lab.kill(server);
                }
                2 => assert_eq!(lab.tool("net-detach", &["c1"]).status, 0),
                _ => {
                    lab.stop(&mut web);
                    assert_eq!(lab.tool("net-prune", &[]).status, 0);
                    assert_eq!((lab.leases().len(), lab.claims().len()), (0, 0), "moment {moment}");
                    lab.start(&mut web);
                }
            }
        }
        lab.remove(&mut web);
        wait_for("everything to go", || {
            lab.tool("net-prune", &[]);
            lab.links().is_empty()
        });
        // What a killed tool left in tmp is swept by the tools that sweep the store.
        let _ = std::fs::remove_dir_all(lab.root().join("tmp"));
        lab.tool("net-prune", &[]);
        lab.assert_clean();
    });
}
