//! Containers on several networks.

use crate::lab::{Container, Lab, isolated};
use serde_json::{Value, json};
use std::fs;

/// A network as net-create writes it.
fn network(lab: &Lab, name: &str, members: &Value) {
    let dir = lab.root().join("networks").join(name);
    fs::create_dir_all(&dir).unwrap();
    let mut content = json!({"name": name, "driver": "bridge", "device": format!("br-{name}")});
    for (member, value) in members.as_object().unwrap() {
        content[member] = value.clone();
    }
    fs::write(dir.join("network.json"), content.to_string()).unwrap();
}

fn record(lab: &Lab, container: &Container) -> Value {
    let bundle = lab.root().join("containers").join(&container.id);
    let mut record: Value =
        serde_json::from_slice(&fs::read(bundle.join("container.json")).unwrap()).unwrap();
    record["networks"] = fs::read(bundle.join("networks.json"))
        .map_or(json!([]), |list| serde_json::from_slice(&list).unwrap());
    record
}

fn lease(lab: &Lab, network: &str, address: &str) -> Value {
    let path = lab.root().join("networks").join(network).join("leases").join(address);
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn attach(lab: &Lab, arguments: &[&str]) -> Value {
    let outcome = lab.tool("net-attach", arguments);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    outcome.json()
}

fn default_route(lab: &mut Lab, container: &Container, family: &str) -> String {
    lab.must(Some(container.pid), &format!("ip {family} route show default"))
}

#[test]
fn a_container_is_on_several_networks() {
    isolated("networks::a_container_is_on_several_networks", |lab| {
        network(lab, "web", &json!({"subnets": [{"subnet": "10.90.0.0/24"}, {"subnet": "fd00:90::/64"}]}));
        network(lab, "db", &json!({"subnets": [{"subnet": "10.91.0.0/24"}], "internal": true, "mtu": 1400}));
        let wishes = json!({"networks": [
            {"name": "db", "aliases": ["cache"], "ip": "10.91.0.77", "mac": "02:00:00:00:00:77"},
            {"name": "web", "ip6": "fd00:90::5", "interface": "up0", "link_local_ips": ["169.254.9.9"]},
        ], "ports": ["8080:80"], "hostname": "box"});
        let one = lab.container(1, &wishes.to_string());
        let made = attach(lab, &["c1"])["networks"].clone();
        assert_eq!(made[0]["name"], "db");
        assert_eq!(made[0]["interface"], "eth0");
        assert_eq!(made[0]["addresses"], json!(["10.91.0.77/24"]));
        assert_eq!(made[0]["mac"], "02:00:00:00:00:77");
        assert_eq!(made[0].get("gateway"), None, "an internal network is no way out");
        assert_eq!(made[0]["aliases"], json!(["cache"]));
        assert_eq!(made[1]["interface"], "up0");
        assert_eq!(made[1]["addresses"][1], "fd00:90::5/64");
        assert_eq!(made[1]["gateway6"], "fd00:90::1");
        // Ports are where the way out is.
        assert_eq!(made[0]["ports"], json!([]));
        assert_eq!(made[1]["ports"][0]["host"], 8080);
        assert_eq!(lease(lab, "db", "10.91.0.77")["names"], json!(["c1", one.id[..12], "box", "cache"]));
        // Inside it is so.
        let inside = lab.must(Some(one.pid), "ip -br addr; ip -d link show eth0");
        for there in ["10.91.0.77/24", "fd00:90::5/64", "169.254.9.9/16", "mtu 1400", "02:00:00:00:00:77"] {
            assert!(inside.contains(there), "{there} in {inside}");
        }
        assert!(default_route(lab, &one, "-4").contains("via 10.90.0.1 dev up0"));
        assert!(default_route(lab, &one, "-6").contains("via fd00:90::1 dev up0"));
        let hosts = lab.hosts_of(&one);
        assert!(hosts.contains("10.91.0.77\tbox c1") && hosts.contains("fd00:90::5\tbox c1"), "{hosts}");
        // Another one there reaches it on both, over both families.
        let two = lab.container(2, r#"{"networks":[{"name":"web"},{"name":"db"}]}"#);
        attach(lab, &["c2"]);
        lab.serve(Some(one.pid), "tcp", 80, "four");
        lab.serve(Some(one.pid), "tcp6", 81, "six");
        assert!(lab.call(Some(two.pid), "tcp", "10.91.0.77:80").starts_with("four"));
        assert!(lab.call(Some(two.pid), "tcp6", "[fd00:90::5]:81").starts_with("six"));
        // Attaching again changes nothing.
        let before = record(lab, &one);
        attach(lab, &["c1"]);
        assert_eq!(record(lab, &one), before);
        for name in ["c1", "c2"] {
            assert_eq!(lab.tool("net-detach", &[name]).status, 0);
        }
        lab.must(None, "ip -br link | grep -c ^stv | grep -qx 0");
    });
}

#[test]
fn a_running_container_gets_and_loses_a_network() {
    isolated("networks::a_running_container_gets_and_loses_a_network", |lab| {
        network(lab, "web", &json!({"subnets": [{"subnet": "10.90.0.0/24"}]}));
        let one = lab.container(1, r#"{"ports":["8080:80"]}"#);
        lab.attach(&one, &[]);
        lab.serve(Some(one.pid), "tcp", 80, "here");
        assert!(lab.call(None, "tcp", "127.0.0.1:8080").starts_with("here"));
        // Of equals the first stays the way out.
        let made = attach(lab, &["--network", "web:alias=w", "c1"])["networks"].clone();
        assert_eq!((&made[0]["name"], &made[1]["name"]), (&json!("bridge"), &json!("web")));
        assert_eq!(made[1]["interface"], "eth1");
        assert!(default_route(lab, &one, "-4").contains("via 10.89.0.1 dev eth0"));
        assert_eq!(record(lab, &one)["config"]["networks"][1]["aliases"], json!(["w"]));
        assert!(lab.call(None, "tcp", "127.0.0.1:8080").starts_with("here"));
        // Without the first, way out and ports are the second's.
        let left = lab.tool("net-detach", &["--network", "bridge", "c1"]);
        assert_eq!(left.status, 0, "{}", left.stderr);
        assert_eq!(left.json()["networks"].as_array().unwrap().len(), 1);
        assert!(default_route(lab, &one, "-4").contains("via 10.90.0.1 dev eth1"));
        assert!(lab.call(None, "tcp", "127.0.0.1:8080").starts_with("here"));
        assert_eq!(record(lab, &one)["networks"][0]["ports"][0]["host"], 8080);
        assert_eq!(record(lab, &one)["config"]["networks"][0]["name"], "web");
        assert_eq!(lab.leases(), Vec::<String>::new());
        // A network it is not on.
        assert_eq!(lab.tool("net-detach", &["--network", "bridge", "c1"]).status, 4);
        // One that is to be the way out becomes it, and the ports follow.
        let made = attach(lab, &["--network", "bridge:gw-priority=5", "c1"])["networks"].clone();
        assert_eq!(made[1]["ports"][0]["host"], 8080);
        assert_eq!(made[0]["ports"], json!([]));
        assert!(default_route(lab, &one, "-4").contains("via 10.89.0.1 dev eth0"));
        assert!(lab.call(None, "tcp", "127.0.0.1:8080").starts_with("here"));
    });
}

#[test]
fn ports_that_no_network_leads_to_any_more_are_told_of() {
    isolated("networks::ports_that_no_network_leads_to_any_more_are_told_of", |lab| {
        network(lab, "inner", &json!({"subnets": [{"subnet": "10.91.0.0/24"}], "internal": true}));
        let mut one =
            lab.container(1, r#"{"networks":[{"name":"bridge"},{"name":"inner"}],"ports":["8080:80"]}"#);
        lab.attach(&one, &[]);
        let left = lab.tool("net-detach", &["--network", "bridge", "c1"]);
        assert_eq!(left.status, 0, "{}", left.stderr);
        assert!(
            left.stderr.contains("port 8080/tcp") && left.stderr.contains("no way out"),
            "{}",
            left.stderr
        );
        let left = left.json();
        assert_eq!((&left["networks"][0]["name"], &left["config"]["ports"]), (&json!("inner"), &json!(null)));
        assert_eq!(lab.claims(), Vec::<String>::new());
        // It starts again.
        lab.stop(&mut one);
        lab.start(&mut one);
        lab.attach(&one, &[]);
        // As a stage of a pipe.
        let both = attach(lab, &["--network", "bridge", "-p", "8080:80", "c1"]);
        assert_eq!(both["networks"][1]["ports"][0]["host"], 8080);
        let left = lab.pipe("net-detach", &["--network", "bridge"], &both.to_string());
        assert_eq!((left.status, &left.json()["config"]["ports"]), (0, &json!(null)), "{}", left.stderr);
        assert_eq!(lab.pipe("net-attach", &[], &left.stdout).status, 0);
        // Without any network left, what was asked for stays asked for.
        attach(lab, &["--network", "bridge", "-p", "8080:80", "c1"]);
        assert_eq!(lab.tool("net-detach", &["c1"]).json()["config"]["ports"], json!(["8080:80"]));
    });
}

#[test]
fn a_record_without_a_port_it_had_takes_that_port_back() {
    isolated("networks::a_record_without_a_port_it_had_takes_that_port_back", |lab| {
        let one = lab.container(1, r#"{"ports":["8080:80","8081:81"]}"#);
        lab.attach(&one, &[]);
        let mut told = record(lab, &one);
        told["config"]["ports"] = json!(["8081:81", "8082:82"]);
        let piped = lab.pipe("net-attach", &[], &told.to_string());
        assert_eq!(piped.status, 0, "{}", piped.stderr);
        let ports = |value: &Value| -> Vec<u64> {
            let list = value["networks"][0]["ports"].as_array().unwrap();
            list.iter().map(|port| port["host"].as_u64().unwrap()).collect()
        };
        assert_eq!(ports(&piped.json()), [8081, 8082]);
        assert_eq!(ports(&record(lab, &one)), [8081, 8082]);
        let mut claims = lab.claims();
        claims.sort();
        assert_eq!(claims, ["tcp-8081", "tcp-8082"]);
        assert_eq!(lab.elements(), 2);
        // A record that never told of them takes nothing back.
        let piped = lab.pipe(
            "net-attach",
            &[],
            &json!({"staves":1,"container":{"id":one.id,"name":one.name}}).to_string(),
        );
        assert_eq!(piped.status, 0, "{}", piped.stderr);
        assert_eq!(ports(&record(lab, &one)), [8081, 8082]);
    });
}

#[test]
fn what_cannot_be_had_changes_nothing() {
    isolated("networks::what_cannot_be_had_changes_nothing", |lab| {
        network(lab, "web", &json!({"subnets": [{"subnet": "10.90.0.0/24"}]}));
        network(lab, "inside", &json!({"subnets": [{"subnet": "10.92.0.0/24"}], "internal": true}));
        let one = lab.container(1, "{}");
        attach(lab, &["--network", "web:ip=10.90.0.9", "c1"]);
        let two = lab.container(2, r#"{"ports":["8080:80"]}"#);
        let before = record(lab, &two);
        let short = &one.id[..12];
        for (networks, status, says) in [
            (vec!["web:ip=10.90.0.9"], 5, short),
            (vec!["bridge", "web:ip=10.90.0.9"], 5, short),
            (vec!["web:ip=10.93.0.9"], 3, "10.90.0.0/24"),
            (vec!["web:ip=10.90.0.1"], 3, "own"),
            (vec!["web", "nosuch"], 4, "nosuch"),
            (vec!["web", "web"], 3, "twice"),
            (vec!["web", "host"], 3, "excludes"),
            (vec!["web:ifname=lo"], 3, "lo"),
            (vec!["inside"], 3, "no way out"),
            (vec!["web:colour=red"], 2, "colour"),
        ] {
            let mut arguments: Vec<&str> = networks.iter().flat_map(|name| ["--network", name]).collect();
            arguments.push("c2");
            let outcome = lab.tool("net-attach", &arguments);
            assert_eq!(outcome.status, status, "{networks:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(says), "{networks:?}: {}", outcome.stderr);
            assert_eq!(record(lab, &two), before, "{networks:?}");
            assert_eq!(lab.claims(), Vec::<String>::new(), "{networks:?}");
            assert_eq!(lab.leases(), Vec::<String>::new(), "{networks:?}");
            assert_eq!(lab.links().len(), 1, "{networks:?}");
        }
    });
}

#[test]
fn addresses_of_others_are_given_to_no_container() {
    isolated("networks::addresses_of_others_are_given_to_no_container", |lab| {
        let kept =
            json!({"router": "10.90.0.2", "printer": "10.90.0.3", "scale": "10.90.0.4", "door": "10.90.0.5"});
        network(lab, "lan", &json!({"subnets": [{"subnet": "10.90.0.0/29", "aux_addresses": kept}]}));
        let (one, two) = (lab.container(1, "{}"), lab.container(2, "{}"));
        let refused = lab.tool("net-attach", &["--network", "lan:ip=10.90.0.2", &one.name]);
        assert_eq!(refused.status, 5, "{}", refused.stderr);
        assert!(refused.stderr.contains("kept for somebody else"), "{}", refused.stderr);
        let record = attach(lab, &["--network", "lan", &one.name]);
        assert_eq!(record["networks"][0]["addresses"], json!(["10.90.0.6/29"]));
        let refused = lab.tool("net-attach", &["--network", "lan", &two.name]);
        assert!(refused.status == 5 && refused.stderr.contains("no free address"), "{}", refused.stderr);
    });
}

#[test]
fn a_network_without_a_way_anywhere() {
    isolated("networks::a_network_without_a_way_anywhere", |lab| {
        network(lab, "dark", &json!({"driver": "none", "device": ""}));
        let one = lab.container(1, "{}");
        for _ in 0..2 {
            let made = attach(lab, &["--network", "dark", "c1"]);
            assert_eq!(made["networks"][0]["name"], "dark");
            assert_eq!(made["networks"][0]["addresses"], json!([]));
        }
        let links = lab.must(Some(one.pid), "ip -br link");
        assert!(links.lines().count() == 1 && links.contains("LOOPBACK,UP"), "{links}");
        let asked = lab.tool("net-attach", &["--network", "dark:ip=10.1.2.3", "c1"]);
        assert_eq!(asked.status, 3, "{}", asked.stderr);
        assert_eq!(lab.tool("net-detach", &["--network", "dark", "c1"]).status, 0);
        assert_eq!(record(lab, &one)["networks"], json!([]));
    });
}
