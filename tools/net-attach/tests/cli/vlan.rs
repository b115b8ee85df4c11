//! macvlan and ipvlan: containers on the wire of one of the host's interfaces, another namespace being who else is there.

// A skipped test says so.
#![allow(clippy::print_stderr)]

use crate::lab::{Container, Lab, isolated};
use std::fs;

fn network(lab: &Lab, name: &str, definition: &str) {
    let dir = lab.root().join("networks").join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("network.json"), format!("{{\"name\":\"{name}\",{definition}}}")).unwrap();
}

fn leases(lab: &Lab, network: &str) -> Vec<String> {
    let dir = lab.root().join("networks").join(network).join("leases");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Whether the kernel can make such a link on top of the host's interface.
pub fn can(lab: &Lab, link: &str) -> bool {
    let can = lab.sh(None, &format!("ip link add {link} && ip link del probe0")).status == 0;
    if !can {
        eprintln!("SKIPPED: the kernel cannot `ip link add {link}`");
    }
    can
}

fn address(attachment: &serde_json::Value) -> String {
    attachment["addresses"][0].as_str().unwrap().split('/').next().unwrap().to_owned()
}

fn show(lab: &Lab, container: &Container) -> String {
    lab.sh(Some(container.pid), "ip -d link show eth0; ip route").stdout
}

/// The neighbour is at 192.0.2.2, and the network gives away the upper half.
const ON_THE_WIRE: &str =
    r#""subnets":[{"subnet":"192.0.2.0/24","gateway":"192.0.2.2","ip_range":"192.0.2.128/25"}]"#;

#[test]
fn a_macvlan_link_is_on_the_parents_wire() {
    isolated("vlan::a_macvlan_link_is_on_the_parents_wire", |lab| {
        let neighbour = lab.neighbour();
        if !can(lab, "link lan0 name probe0 type macvlan mode bridge") {
            return;
        }
        network(lab, "lan", &format!(r#""driver":"macvlan","parent":"lan0",{ON_THE_WIRE}"#));
        let (mut web, other) = (lab.container(1, "{}"), lab.container(2, "{}"));
        let attachment = lab.attach(&web, &["--network", "lan"]);
        let address_of_web = address(&attachment);
        assert_eq!(attachment.get("host_interface"), None);
        assert_eq!(attachment["gateway"], "192.0.2.2");
        let number: u8 = address_of_web.rsplit('.').next().unwrap().parse().unwrap();
        assert_eq!(attachment["mac"], format!("02:42:c0:00:02:{number:02x}"));
        let shown = show(lab, &web);
        assert!(shown.contains("macvlan mode bridge") && shown.contains("default via 192.0.2.2"), "{shown}");
        lab.attach(&other, &["--network", "lan"]);
        // From everywhere but the host itself, without a published port, and with its own address.
        lab.serve(Some(web.pid), "tcp", 80, "web");
        lab.serve(Some(neighbour), "tcp", 80, "neighbour");
        assert_eq!(lab.call(Some(neighbour), "tcp", &format!("{address_of_web}:80")), "web 192.0.2.2");
        assert!(
            lab.call(Some(other.pid), "tcp", &format!("{address_of_web}:80")).starts_with("web 192.0.2.")
        );
        let seen = format!("neighbour {address_of_web}");
        assert_eq!(lab.call(Some(web.pid), "tcp", "192.0.2.2:80"), seen);
        assert_eq!(lab.elements(), 0);

        // Again is the same; a port is not to be had.
        assert_eq!(lab.attach(&web, &["--network", "lan"]), attachment);
        let outcome = lab.tool("net-attach", &["-p", "8080:80", "--network", "lan", "c1"]);
        assert_eq!(outcome.status, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("no bridge of this host"), "{}", outcome.stderr);

        // Detached while it runs, the link goes; attached again it is where it was.
        assert_eq!(lab.tool("net-detach", &["c1"]).status, 0);
        assert!(!lab.sh(Some(web.pid), "ip link").stdout.contains("eth0"));
        assert_eq!(leases(lab, "lan").len(), 1);
        assert_eq!(address(&lab.attach(&web, &["--network", "lan"])), address_of_web);
        // Taken out by somebody, it is made anew.
        lab.must(Some(web.pid), "ip link del eth0");
        lab.attach(&web, &["--network", "lan"]);
        assert_eq!(lab.call(Some(web.pid), "tcp", "192.0.2.2:80"), seen);

        // One that ends leaves an address, which net-prune frees; the host's own interface stays.
        lab.stop(&mut web);
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        assert_eq!(leases(lab, "lan").len(), 1);
        assert_eq!(lab.tool("net-detach", &["c2"]).status, 0);
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        assert_eq!(lab.sh(None, "ip link show lan0").status, 0);
    });
}

#[test]
fn what_cannot_be_made_is_refused_and_leaves_nothing() {
    isolated("vlan::what_cannot_be_made_is_refused_and_leaves_nothing", |lab| {
        lab.neighbour();
        let container = lab.container(1, "{}");
        for (name, definition, status, why) in [
            ("a", r#""driver":"macvlan","parent":"nowhere0""#, 4, "no interface nowhere0"),
            ("b", r#""driver":"macvlan","parent":"nowhere0.7""#, 4, "no interface nowhere0.7"),
            ("c", r#""driver":"macvlan","parent":"lan0","mode":"l2""#, 3, "macvlan has no mode"),
            ("d", r#""driver":"ipvlan","parent":"lan0","mode":"bridge""#, 3, "ipvlan has no mode"),
        ] {
            network(lab, name, &format!("{definition},{ON_THE_WIRE}"));
            let outcome = lab.tool("net-attach", &["--network", name, "c1"]);
            assert_eq!(outcome.status, status, "{}", outcome.stderr);
            assert!(outcome.stderr.contains(why), "{}", outcome.stderr);
            assert_eq!(leases(lab, name), Vec::<String>::new());
        }
        if can(lab, "link lan0 name probe0 type macvlan mode bridge") {
            network(lab, "lan", &format!(r#""driver":"macvlan","parent":"lan0",{ON_THE_WIRE}"#));
            lab.must(Some(container.pid), "ip link add eth0 type veth peer name other0");
            let outcome = lab.tool("net-attach", &["--network", "lan", "c1"]);
            assert_eq!(outcome.status, 5, "{}", outcome.stderr);
            assert_eq!(leases(lab, "lan"), Vec::<String>::new());
            assert_eq!(lab.sh(Some(container.pid), "ip link show eth0").status, 0, "not ours to remove");
        }
    });
}

#[test]
fn containers_of_a_private_macvlan_do_not_see_each_other() {
    isolated("vlan::containers_of_a_private_macvlan_do_not_see_each_other", |lab| {
        let neighbour = lab.neighbour();
        if !can(lab, "link lan0 name probe0 type macvlan mode private") {
            return;
        }
        let mode = r#""driver":"macvlan","parent":"lan0","mode":"private","mtu":1400"#;
        network(lab, "lan", &format!("{mode},{ON_THE_WIRE}"));
        let (web, other) = (lab.container(1, "{}"), lab.container(2, "{}"));
        let at = format!("{}:80", address(&lab.attach(&web, &["--network", "lan"])));
        lab.attach(&other, &["--network", "lan"]);
        lab.serve(Some(web.pid), "tcp", 80, "web");
        assert_eq!(lab.call(Some(neighbour), "tcp", &at), "web 192.0.2.2");
        assert_eq!(lab.call(Some(other.pid), "tcp", &at), "");
        let shown = show(lab, &web);
        assert!(shown.contains("mode private") && shown.contains("mtu 1400"), "{shown}");
    });
}

#[test]
fn a_parent_is_under_one_link_in_mode_passthru_and_none_of_the_other_kind() {
    isolated("vlan::a_parent_is_under_one_link_in_mode_passthru_and_none_of_the_other_kind", |lab| {
        let neighbour = lab.neighbour();
        let links = ["macvlan mode passthru", "ipvlan mode l2"];
        if !links.iter().all(|link| can(lab, &format!("link lan0 name probe0 type {link}"))) {
            return;
        }
        lab.serve(Some(neighbour), "tcp", 80, "neighbour");
        let subnets = [128, 160, 192].map(|part| {
            format!(r#""subnets":[{{"subnet":"192.0.2.{part}/27","gateway":"192.0.2.{}"}}]"#, part + 1)
        });
        network(
            lab,
            "one",
            &format!(r#""driver":"macvlan","parent":"lan0","mode":"passthru",{}"#, subnets[0]),
        );
        network(lab, "vepa", &format!(r#""driver":"macvlan","parent":"lan0","mode":"vepa",{}"#, subnets[1]));
        network(lab, "ip", &format!(r#""driver":"ipvlan","parent":"lan0","internal":true,{}"#, subnets[2]));
        let (web, _other) = (lab.container(1, "{}"), lab.container(2, "{}"));
        let on_the_way = |lab: &Lab, name: &str| {
            let at = address(&lab.attach(&web, &["--network", name]));
            lab.sh(Some(web.pid), "ip route replace 192.0.2.2 dev eth0");
            lab.sh(Some(neighbour), "ip route replace 192.0.2.128/25 dev wire");
            assert_eq!(lab.call(Some(web.pid), "tcp", "192.0.2.2:80"), format!("neighbour {at}"), "{name}");
        };
        for (name, others, why) in [
            ("one", ["one", "ip"], "passthru"),
            ("vepa", ["one", "ip"], "not both"),
            ("ip", ["one", "vepa"], "not both"),
        ] {
            on_the_way(lab, name);
            for other in others {
                let outcome = lab.tool("net-attach", &["--network", other, "c2"]);
                assert_eq!(outcome.status, 5, "{name}, {other}: {}", outcome.stderr);
                let hint = outcome.stderr.contains("passthru") || outcome.stderr.contains(why);
                assert!(hint, "{name}, {other}: {}", outcome.stderr);
                assert_eq!(leases(lab, other).len(), usize::from(other == name), "{other}");
            }
            assert_eq!(lab.tool("net-detach", &["c1"]).status, 0);
        }
    });
}

#[test]
fn an_ipvlan_link_has_the_parents_hardware_address() {
    isolated("vlan::an_ipvlan_link_has_the_parents_hardware_address", |lab| {
        let neighbour = lab.neighbour();
        if !can(lab, "link lan0 name probe0 type ipvlan mode l2") {
            return;
        }
        for (name, mode) in [("two", "l2"), ("three", "l3"), ("threes", "l3s")] {
            network(
                lab,
                name,
                &format!(r#""driver":"ipvlan","parent":"lan0","mode":"{mode}",{ON_THE_WIRE}"#),
            );
            let (mut web, mut other) = (lab.container(1, "{}"), lab.container(2, "{}"));
            let attachment = lab.attach(&web, &["--network", name]);
            let at = address(&attachment);
            lab.attach(&other, &["--network", name]);
            let mac = lab.must(None, "ip -o link show lan0 | sed 's/.*ether //; s/ .*//'");
            assert_eq!(attachment["mac"], mac.trim());
            let shown = show(lab, &web);
            let way_out = if mode == "l2" { "default via 192.0.2.2" } else { "default dev eth0" };
            assert!(shown.contains(&format!("ipvlan  mode {mode}")) && shown.contains(way_out), "{shown}");
            lab.serve(Some(web.pid), "tcp", 80, "web");
            assert!(lab.call(Some(other.pid), "tcp", &format!("{at}:80")).starts_with("web "), "{mode}");
            if mode == "l2" {
                assert_eq!(lab.call(Some(neighbour), "tcp", &format!("{at}:80")), "web 192.0.2.2");
            }
            assert_eq!(lab.attach(&web, &["--network", name]), attachment);
            for container in [&mut web, &mut other] {
                assert_eq!(lab.tool("net-detach", &[&container.name]).status, 0);
                assert!(!lab.sh(Some(container.pid), "ip link").stdout.contains("eth0"));
                lab.remove(container);
                fs::remove_file(lab.root().join("names").join(&container.name)).unwrap();
            }
        }
    });
}

#[test]
fn parents_are_made_when_they_are_missing_and_go_with_the_last() {
    isolated("vlan::parents_are_made_when_they_are_missing_and_go_with_the_last", |lab| {
        let neighbour = lab.neighbour();
        if !can(lab, "link lan0 name probe0 type vlan id 50") || !can(lab, "name probe0 type dummy") {
            return;
        }
        lab.must(
            Some(neighbour),
            "ip link add link wire name wire.50 type vlan id 50 && ip link set wire.50 up
             ip addr add 198.51.100.2/24 dev wire.50",
        );
        let subnet = r#""subnets":[{"subnet":"198.51.100.0/24","gateway":"198.51.100.2"}]"#;
        network(lab, "tagged", &format!(r#""driver":"macvlan","parent":"lan0.50",{subnet}"#));
        network(lab, "inside", r#""driver":"macvlan","subnets":[{"subnet":"10.66.0.0/24"}]"#);
        let (web, other) = (lab.container(1, "{}"), lab.container(2, "{}"));
        let tagged = address(&lab.attach(&web, &["--network", "tagged"]));
        lab.serve(Some(web.pid), "tcp", 80, "web");
        assert_eq!(lab.call(Some(neighbour), "tcp", &format!("{tagged}:80")), "web 198.51.100.2");
        let shown = lab.must(None, "ip -d link show lan0.50");
        assert!(shown.contains("alias made by staves") && shown.contains("id 50"), "{shown}");

        let outcome = lab.tool("net-attach", &["--network", "inside", "c1", "c2"]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        let inside = lab.sh(Some(web.pid), "ip -o -4 addr show eth1").stdout;
        let inside = inside.split_whitespace().nth(3).unwrap().split('/').next().unwrap().to_owned();
        assert!(lab.call(Some(other.pid), "tcp", &format!("{inside}:80")).starts_with("web 10.66.0."));
        assert!(!lab.sh(Some(other.pid), "ip route").stdout.contains("default"));

        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        assert_eq!(lab.sh(None, "ip link show lan0.50").status, 0, "somebody is attached");
        assert_eq!(lab.tool("net-detach", &["c1", "c2"]).status, 0);
        let pruned = lab.tool("net-prune", &[]).stdout;
        assert!(pruned.contains("lan0.50"), "{pruned}");
        assert_eq!(lab.sh(None, "ip link show lan0.50").status, 1);
        assert_eq!(lab.must(None, "ip link show type dummy"), "");
        // One that was there before is not ours to remove.
        lab.must(None, "ip link add link lan0 name lan0.50 type vlan id 50 && ip link set lan0.50 up");
        lab.attach(&web, &["--network", "tagged"]);
        assert_eq!(lab.tool("net-detach", &["c1"]).status, 0);
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        assert_eq!(lab.sh(None, "ip link show lan0.50").status, 0);
    });
}
