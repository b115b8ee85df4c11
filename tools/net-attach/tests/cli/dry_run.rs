//! `--dry-run` of the three tools: what it says comes true, and nothing changes by saying it.

use crate::lab::{Container, Lab, isolated, wait_for};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

/// All that the tools could change, times of directories included: a file made and removed again would show. Not what the
/// kernel changes by itself: the states of links, and interfaces of namespaces that are ending.
fn everything(lab: &Lab) -> Vec<String> {
    let dir = lab.dir.display();
    let script = format!(
        "find {dir} -printf '%p %T@ %l\\n' | sort; find {dir} -type f -exec cat {{}} +
         ip -br link | cut -d' ' -f1; ip -4 -br addr | grep -o '^[^ ]*\\|[0-9.]*/[0-9]*'
         cat /proc/sys/net/ipv4/ip_forward; nft list ruleset"
    );
    lab.sh(None, &script).stdout.lines().map(str::to_owned).collect()
}

#[track_caller]
fn assert_unchanged(lab: &Lab, before: &[String]) {
    let now = everything(lab);
    let changed: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
    let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
    assert!(changed.is_empty() && gone.is_empty(), "new: {changed:#?}\ngone: {gone:#?}");
}

/// The steps a tool plans. It must succeed and change nothing.
#[track_caller]
fn plan(lab: &Lab, tool: &str, arguments: &[&str]) -> Vec<Value> {
    let before = everything(lab);
    let outcome = lab.tool(tool, &[&["--dry-run"], arguments].concat());
    assert_eq!(outcome.status, 0, "{tool} {arguments:?}: {}", outcome.stderr);
    assert_unchanged(lab, &before);
    outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Ends a container, and waits for its interface to go with its namespace.
fn stop(lab: &mut Lab, container: &mut Container) {
    lab.stop(container);
    let interface = format!("stv{}", &container.id[..12]);
    wait_for("the namespace's end", || !lab.links().iter().any(|link| link.starts_with(&interface)));
}

fn names(steps: &[Value]) -> Vec<&str> {
    steps.iter().map(|step| step["step"].as_str().unwrap()).collect()
}

fn step<'s>(steps: &'s [Value], name: &str) -> &'s Value {
    steps.iter().find(|step| step["step"] == name).unwrap_or_else(|| panic!("no {name} in {steps:?}"))
}

#[test]
fn attaching() {
    isolated("dry_run::attaching", |lab| {
        lab.must(None, "echo 0 >/proc/sys/net/ipv4/ip_forward");
        let mut web = lab.container(1, r#"{"ports":["8080:80"]}"#);
        let flags = ["-p", "30000-30009:53/udp", "-p", "30000-30009:54/udp", "c1"];
        let steps = plan(lab, "net-attach", &flags);
        let expected = [
            "make_network",
            "set_up_bridge",
            "set_sysctl",
            "set_sysctl",
            "set_sysctl",
            "set_sysctl",
            "set_up_table",
            "claim_ports",
            "lease_address",
            "save_record",
            "make_interface",
            "publish_ports",
            "write_files",
        ];
        assert_eq!(names(&steps), expected);
        assert!(steps.iter().all(|step| step["container"] == web.id));
        assert_eq!(step(&steps, "set_up_bridge")["device"], "staves0");
        assert_eq!(steps[2]["name"], "net.ipv6.conf.staves0.accept_ra");
        assert_eq!(steps[5]["name"], "net.ipv4.ip_forward");
        let words = lab.tool("net-attach", &["--dry-run", "--output", "table", "c1"]).stdout;
        assert!(words.contains("\nset_up_table  table=staves  container="), "{words}");

        let made = lab.attach(&web, &flags[..4]);
        let interface = step(&steps, "make_interface");
        for member in ["interface", "host_interface", "mac"] {
            assert_eq!(interface[member], made[member], "{member}");
        }
        assert_eq!(interface["addresses"][0], made["addresses"][0]);
        assert_eq!(interface["gateways"][0], made["gateway"]);
        assert_eq!(step(&steps, "claim_ports")["ports"], made["ports"]);
        assert_eq!(step(&steps, "publish_ports")["ports"], made["ports"]);

        // All is there; then ports are added.
        assert_eq!(plan(lab, "net-attach", &["c1"]), Vec::<Value>::new());
        let steps = plan(lab, "net-attach", &["-p", "81", "c1"]);
        assert_eq!(names(&steps), ["claim_ports", "extend_lease", "save_record", "publish_ports"]);
        let ports = lab.attach(&web, &["-p", "81"])["ports"].as_array().unwrap().clone();
        assert_eq!(step(&steps, "claim_ports")["ports"], json!([ports.last().unwrap()]));

        // Bridge gone under our feet.
        lab.must(None, "ip link del staves0");
        assert!(names(&plan(lab, "net-attach", &["c1"])).contains(&"set_up_bridge"));
        lab.attach(&web, &[]);
        // Started again: its old ports are taken back, its address is preferred.
        stop(lab, &mut web);
        lab.start(&mut web);
        let steps = plan(lab, "net-attach", &["c1"]);
        assert_eq!(step(&steps, "unpublish_ports")["ports"].as_array().unwrap().len(), 4);
        assert_eq!(step(&steps, "make_interface")["addresses"][0], made["addresses"][0]);
        // Ended, with a bundle: it would be set up.
        stop(lab, &mut web);
        std::fs::write(lab.root().join("containers").join(&web.id).join("config.json"), "{}").unwrap();
        assert_eq!(names(&plan(lab, "net-attach", &["c1"]))[0], "set_up");
        let refused = lab.tool("net-attach", &["--dry-run", "--network", "none", "c1"]);
        assert_eq!((refused.status, refused.stdout.as_str()), (3, ""), "{}", refused.stderr);
    });
}

#[test]
fn refusals_are_those_of_attaching() {
    isolated("dry_run::refusals_are_those_of_attaching", |lab| {
        // Room for five containers.
        let network = lab.root().join("networks/bridge");
        std::fs::create_dir_all(&network).unwrap();
        std::fs::write(
            network.join("network.json"),
            r#"{"name":"bridge","driver":"bridge","device":"staves0","subnet":"10.77.0.0/29","gateway":"10.77.0.1"}"#,
        )
        .unwrap();
        let mut first = lab.container(1, "{}");
        let second = lab.container(2, "{}");
        lab.attach(&first, &["-p", "8080:80"]);
        lab.serve(None, "tcp", 6000, "host");
        lab.must(Some(second.pid), "ip link add eth0 type veth peer name other");
        let before = everything(lab);
        for (arguments, status, words) in [
            (&["-p", "8080:80", "c2"][..], 5, "published by container c1"),
            (&["-p", "8000-8100:8000-8100", "c2"], 5, "8080 is published by container c1"),
            (&["-p", "6000:80", "c2"], 5, "in use by process"),
            (&["-p", "192.0.2.77:80:80", "c2"], 3, "no address of this host"),
            (&["-p", "81:80", "-p", "81:82", "c2"], 3, "81/tcp"),
            (&["-p", "9000:80", "-p", "9000-9000:81", "c2"], 3, "9000/tcp"),
            (&["-p", "9000:80", "-p", "9000:81/udp", "c2"], 5, "eth0 already"),
            (&["--network", "other", "c2"], 4, "no such network"),
            (&["nobody"], 4, "no such container"),
        ] {
            let outcome = lab.tool("net-attach", &[&["--dry-run"], arguments].concat());
            assert_eq!(outcome.status, status, "{arguments:?}: {}", outcome.stderr);
            assert!(outcome.stderr.contains(words), "{arguments:?}: {}", outcome.stderr);
            assert_eq!(outcome.stdout, "");
        }
        let empty = lab.pipe("net-attach", &["--dry-run"], "");
        assert_eq!((empty.status, empty.stdout.as_str()), (3, ""));
        assert_unchanged(lab, &before);
        lab.must(Some(second.pid), "ip link del eth0");

        // The last address, then that of a container that ended.
        lab.attach(&second, &[]);
        for n in 3..6 {
            let other = lab.container(n, "{}");
            lab.attach(&other, &[]);
            std::mem::forget(other);
        }
        let late = lab.container(6, "{}");
        let full = lab.tool("net-attach", &["--dry-run", "c6"]);
        assert_eq!(full.status, 5);
        assert!(full.stderr.contains("no free address in 10.77.0.0/29"), "{}", full.stderr);
        stop(lab, &mut first);
        let steps = plan(lab, "net-attach", &["-p", "8080:80", "c6"]);
        assert_eq!(step(&steps, "release_remains")["of"], first.id);
        let made = lab.attach(&late, &["-p", "8080:80"]);
        assert_eq!(step(&steps, "make_interface")["addresses"][0], made["addresses"][0]);
        // Not set up.
        let refused = lab.tool("net-attach", &["--dry-run", "c1"]);
        assert_eq!(refused.status, 5);
        assert!(refused.stderr.contains("not set up"), "{}", refused.stderr);
    });
}

#[test]
fn detaching() {
    isolated("dry_run::detaching", |lab| {
        let web = lab.container(1, "{}");
        assert_eq!(plan(lab, "net-detach", &["c1"]), Vec::<Value>::new());
        let made = lab.attach(&web, &["-p", "8080:80"]);
        let record = lab.tool("net-attach", &["c1"]).stdout;
        let steps = plan(lab, "net-detach", &["c1"]);
        let expected =
            ["unpublish_ports", "remove_interface", "release_address", "save_record", "write_files"];
        assert_eq!(names(&steps), expected);
        assert_eq!(steps[0]["ports"], made["ports"]);
        assert_eq!(steps[1]["interface"], made["host_interface"]);
        assert_eq!(steps[2]["address"].as_str(), made["addresses"][0].as_str().unwrap().split('/').next());
        // The record of the same attachment adds nothing.
        let piped = lab.pipe("net-detach", &["--dry-run"], &record);
        assert_eq!(piped.stdout.lines().count(), expected.len(), "{}", piped.stdout);
        assert_eq!(lab.links().len(), 1);
        assert_eq!(lab.tool("net-detach", &["c1"]).status, 0);
        assert_eq!(plan(lab, "net-detach", &["c1"]), Vec::<Value>::new());
        // A record of what is another's by now names nothing to undo.
        assert_eq!(lab.pipe("net-detach", &["--dry-run"], &record).stdout, "");
        assert_eq!(lab.tool("net-detach", &["--dry-run", "nobody"]).status, 4);
    });
}

#[test]
fn pruning() {
    isolated("dry_run::pruning", |lab| {
        assert_eq!(plan(lab, "net-prune", &[]), Vec::<Value>::new());
        let alive = lab.container(1, "{}");
        let mut gone = lab.container(2, "{}");
        let mut ended = lab.container(3, "{}");
        lab.attach(&alive, &["-p", "8080:80"]);
        lab.attach(&gone, &["-p", "8081:80", "-p", "127.0.0.1:9000-9009:9000-9009"]);
        lab.attach(&ended, &["-p", "8082:80"]);
        stop(lab, &mut gone);
        lab.remove(&mut gone);
        stop(lab, &mut ended);
        // Left by killed tools: a claim, a link, an element nobody's lease lists.
        symlink(&gone.id, lab.run_dir().join("ports/tcp-7000")).unwrap();
        lab.must(None, "ip link add stv0123456789ab type veth peer name other");
        lab.must(None, "nft add element inet staves ports '{ tcp . 7001 : 10.89.0.77 . 80 }'");
        let planned = as_planned(lab);
        assert_eq!(planned.len(), 2 + 1 + 1 + 1, "{planned:?}");
        assert_eq!(lab.links().len(), 1);

        // With the last container everything goes.
        let mut alive = alive;
        stop(lab, &mut alive);
        let planned = as_planned(lab);
        assert_eq!(
            planned.iter().map(|thing| &thing["kind"]).collect::<Vec<_>>(),
            ["lease", "bridge", "table"]
        );
        assert_eq!(plan(lab, "net-prune", &[]), Vec::<Value>::new());
        lab.assert_clean();
    });
}

/// Plans, removes, and finds that the one was the other.
fn as_planned(lab: &Lab) -> Vec<Value> {
    let mut planned = plan(lab, "net-prune", &[]);
    for step in &mut planned {
        assert_eq!(step.as_object_mut().unwrap().remove("step"), Some(json!("remove")));
    }
    let outcome = lab.tool("net-prune", &[]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
    let record = |line| serde_json::from_str::<Value>(line).unwrap()["pruned"].clone();
    let pruned: Vec<Value> = outcome.stdout.lines().map(record).collect();
    assert_eq!(planned, pruned);
    planned
}
