//! Upstream's plugins with real traffic: those that want a kernel with macvlan, ipvlan, VLANs and vrf. `scripts/test` runs these
//! in the guest, whose kernel has them all.

// A skipped test says so.
#![allow(clippy::print_stderr)]

use crate::cni::{begun, network};
use crate::lab::{Container, Lab, isolated, wait_for};
use crate::vlan::can;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

const FOLDERS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// Whether the plugins are installed and the kernel can make what they make.
fn has(lab: &Lab, plugins: &[&str], links: &[&str]) -> bool {
    let missing = |plugin: &&&str| !FOLDERS.iter().any(|folder| Path::new(folder).join(plugin).exists());
    if let Some(missing) = plugins.iter().find(missing) {
        eprintln!("SKIPPED: CNI plugin {missing} is not installed");
        return false;
    }
    links.iter().all(|link| can(lab, link))
}

/// Leases of host-local and the lock of iptables are of this mount namespace alone. The neighbour answers.
fn prepare(lab: &mut Lab) -> u32 {
    let neighbour = lab.neighbour();
    lab.must(None, "mount -t tmpfs tmpfs /run; echo 1 >/proc/sys/net/ipv4/ip_forward");
    lab.serve(Some(neighbour), "tcp", 80, "neighbour");
    neighbour
}

/// host-local with addresses of the neighbour's wire.
fn on_the_wire(from: u8) -> Value {
    let range = json!({"subnet": "192.0.2.0/24", "gateway": "192.0.2.2",
        "rangeStart": format!("192.0.2.{from}"), "rangeEnd": format!("192.0.2.{}", from + 9)});
    json!({"type": "host-local", "dataDir": "/run/leases", "ranges": [[range]], "routes": [{"dst": "0.0.0.0/0"}]})
}

fn address(attachment: &Value) -> &str {
    attachment["addresses"][0].as_str().unwrap().split('/').next().unwrap()
}

fn links(lab: &Lab, container: &Container) -> String {
    lab.sh(Some(container.pid), "ip -br link").stdout
}

fn detach(lab: &Lab, container: &Container) {
    let outcome = lab.tool("net-detach", &[&container.name]);
    assert_eq!(outcome.status, 0, "{}", outcome.stderr);
}

/// Attached it reaches the neighbour, attached again nothing is run again, and detached nothing is left.
fn comes_and_goes(lab: &Lab, container: &Container, name: &str) {
    for round in 0..2 {
        let attachment = lab.attach(container, &["--network", name]);
        let seen = format!("neighbour {}", address(&attachment));
        assert_eq!(lab.call(Some(container.pid), "tcp", "192.0.2.2:80"), seen, "{name} {round}");
        assert_eq!(lab.attach(container, &["--network", name]), attachment, "{name} {round}");
        assert_eq!(begun(lab, name), 1);
        detach(lab, container);
        assert!(!links(lab, container).contains("eth0"), "{name} {round}");
        assert_eq!(begun(lab, name), 0);
        assert_eq!(lab.sh(None, &format!("ls -d /run/leases/{name}/192.*")).stdout, "");
    }
}

#[test]
fn links_on_top_of_the_hosts() {
    isolated("plugins::links_on_top_of_the_hosts", |lab| {
        let needs = ["macvlan", "ipvlan", "vlan", "tuning", "host-local", "static"];
        let kinds = ["macvlan", "ipvlan", "vlan id 7"];
        lab.must(None, "ip link add lan0 type veth peer name wire0");
        let kinds = kinds.map(|kind| format!("link lan0 name probe0 type {kind}"));
        let all = has(lab, &needs, &kinds.each_ref().map(String::as_str));
        lab.must(None, "ip link del lan0");
        if !all {
            return;
        }
        let neighbour = prepare(lab);
        network(
            lab,
            "mac",
            "1.0.0",
            &json!([
                {"type": "macvlan", "master": "lan0", "ipam": on_the_wire(128), "capabilities": {"ips": true}},
                {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}, "capabilities": {"mac": true}, "mtu": 1400},
            ]),
        );
        network(lab, "ip", "1.0.0", &json!([{"type": "ipvlan", "master": "lan0", "ipam": on_the_wire(138)}]));
        network(
            lab,
            "tagged",
            "1.0.0",
            &json!([{"type": "vlan", "master": "lan0", "vlanId": 7,
            "ipam": {"type": "static", "addresses": [{"address": "198.51.100.5/24", "gateway": "198.51.100.2"}],
                "routes": [{"dst": "192.0.2.2/32"}]}}]),
        );
        lab.must(
            Some(neighbour),
            "ip link add link wire name wire.7 type vlan id 7; ip link set wire.7 up; ip addr add 198.51.100.2/24 dev wire.7",
        );
        let (one, two) = (lab.container(1, "{}"), lab.container(2, "{}"));
        for name in ["mac", "ip", "tagged"] {
            comes_and_goes(lab, &one, name);
        }
        // What is asked for.
        let asked = "mac:ip=192.0.2.133,mac=02:00:00:00:00:77";
        let attachment = lab.attach(&one, &["--network", asked]);
        assert_eq!((address(&attachment), &attachment["mac"]), ("192.0.2.133", &json!("02:00:00:00:00:77")));
        let inside = lab.must(Some(one.pid), "cat /proc/sys/net/core/somaxconn; ip link show eth0");
        assert!(
            inside.starts_with("500\n") && inside.contains("mtu 1400") && inside.contains(":77 "),
            "{inside}"
        );
        // With another network beside it; the second is left when the first goes.
        let outcome = lab.tool("net-attach", &["--network", "mac", "--network", "tagged", "c1"]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        let networks = outcome.json()["networks"].clone();
        assert_eq!((&networks[0]["mac"], &networks[1]["interface"]), (&attachment["mac"], &json!("eth1")));
        let at = format!("{}:81", address(&lab.attach(&two, &["--network", "mac"])));
        lab.serve(Some(two.pid), "tcp", 81, "two");
        assert_eq!(lab.call(Some(one.pid), "tcp", &at), "two 192.0.2.133");
        assert_eq!(lab.tool("net-detach", &["--network", "mac", "c1"]).status, 0);
        assert_eq!(lab.call(Some(one.pid), "tcp", "198.51.100.2:80"), "neighbour 198.51.100.5");
        detach(lab, &one);
        detach(lab, &two);
        // An address is to be known with the length of its prefix.
        network(
            lab,
            "bare",
            "1.0.0",
            &json!([{"type": "vlan", "master": "lan0", "vlanId": 7, "ipam": {"type": "static"}}]),
        );
        let outcome = lab.tool("net-attach", &["--network", "bare:ip=198.51.100.6", "c1"]);
        assert!(outcome.status == 3 && outcome.stderr.contains("driver-opt=IP="), "{}", outcome.stderr);
        lab.attach(&one, &["--network", "bare:driver-opt=IP=198.51.100.6/24"]);
        assert_eq!(lab.call(Some(one.pid), "tcp", "198.51.100.2:80"), "neighbour 198.51.100.6");
        detach(lab, &one);
        // Beside those of its configuration.
        let attachment = lab.attach(&one, &["--network", "tagged:ip=198.51.100.7"]);
        let addresses = attachment["addresses"].as_array().unwrap();
        assert!(addresses.contains(&json!("198.51.100.7/24")), "{attachment}");
    });
}

#[test]
fn a_device_of_the_hosts_moves_in_and_back_out() {
    isolated("plugins::a_device_of_the_hosts_moves_in_and_back_out", |lab| {
        if !has(lab, &["host-device", "static", "tuning"], &["name probe0 type dummy"]) {
            return;
        }
        let neighbour = prepare(lab);
        let pair = format!("ip link add dev9 type veth peer name peer9 netns {neighbour}");
        let answer = "ip addr add 10.10.0.2/24 dev peer9; ip link set peer9 up";
        lab.must(None, &format!("{pair}; ip link add dev8 type dummy"));
        lab.must(Some(neighbour), answer);
        let device = |device: &str, address: &str| {
            json!([{"type": "host-device", "device": device,
                "ipam": {"type": "static", "addresses": [{"address": address}]}}, {"type": "tuning", "mtu": 1300}])
        };
        network(lab, "pair", "1.0.0", &device("dev9", "10.10.0.5/24"));
        network(lab, "dummy", "1.0.0", &device("dev8", "10.11.0.5/24"));
        let (mut one, two) = (lab.container(1, "{}"), lab.container(2, "{}"));
        for container in [&one, &two] {
            let attachment = lab.attach(container, &["--network", "pair"]);
            assert_eq!(lab.call(Some(container.pid), "tcp", "10.10.0.2:80"), "neighbour 10.10.0.5");
            assert_eq!(lab.attach(container, &["--network", "pair"]), attachment);
            assert_ne!(lab.sh(None, "ip link show dev9").status, 0, "it is inside");
            detach(lab, container);
            lab.must(None, "ip link show dev9");
            assert!(!links(lab, container).contains("eth0"));
        }
        // One that is taken: whoever is refused is not stuck with it.
        assert_eq!(lab.tool("net-attach", &["--network", "pair", "--network", "dummy", "c1"]).status, 0);
        let outcome = lab.tool("net-attach", &["--network", "pair", "c2"]);
        assert!(
            outcome.status == 1 && outcome.stderr.contains("CNI plugin host-device: ADD"),
            "{}",
            outcome.stderr
        );
        assert!(!outcome.stderr.contains("undoing"), "{}", outcome.stderr);
        assert_eq!(begun(lab, "pair"), 1);
        detach(lab, &two);
        // Undone in the namespace of a container that has ended both come back, as ctr-shim has it.
        let held = std::fs::File::open(format!("/proc/{}/ns/net", one.pid)).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&held));
        lab.stop(&mut one);
        let outcome = lab.tool("net-detach", &["--ended", "--netns", &path, "c1"]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        drop(held);
        lab.must(None, "ip link show dev9 && ip link show dev8");
        // Where nobody does, the pair ends with the namespace. The next run finds another one of that name.
        lab.start(&mut one);
        lab.attach(&one, &[]);
        lab.stop(&mut one);
        wait_for("the pair's end", || lab.sh(Some(neighbour), "ip link show peer9").status != 0);
        lab.must(None, &format!("{pair}; ip link add dev8 type dummy"));
        lab.must(Some(neighbour), answer);
        lab.start(&mut one);
        let outcome = lab.tool("net-attach", &["c1"]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        assert_eq!(lab.call(Some(one.pid), "tcp", "10.10.0.2:80"), "neighbour 10.10.0.5");
        // Removed while it is attached.
        lab.remove(&mut one);
        assert_eq!(lab.tool("net-prune", &[]).status, 0);
        assert_eq!((begun(lab, "pair"), begun(lab, "dummy")), (0, 0));
    });
}

#[test]
fn chains_behind_a_bridge() {
    isolated("plugins::chains_behind_a_bridge", |lab| {
        let needs = ["bridge", "host-local", "firewall", "portmap", "bandwidth", "vrf", "sbr"];
        if !has(lab, &needs, &["name probe0 type vrf table 9"]) {
            return;
        }
        let neighbour = prepare(lab);
        let bridge = |number: u8| {
            json!({"type": "bridge", "bridge": format!("cni{number}"), "isGateway": true, "ipMasq": number == 1,
                "ipam": {"type": "host-local", "dataDir": "/run/leases", "subnet": format!("10.7{number}.0.0/24"),
                    "routes": [{"dst": "0.0.0.0/0"}]}})
        };
        network(
            lab,
            "wall",
            "1.0.0",
            &json!([bridge(1), {"type": "firewall", "backend": "iptables"},
            {"type": "portmap", "capabilities": {"portMappings": true}},
            {"type": "bandwidth", "capabilities": {"bandwidth": true}}]),
        );
        network(lab, "blue", "1.0.0", &json!([bridge(2), {"type": "vrf", "vrfname": "blue", "table": 101}]));
        network(lab, "own", "1.0.0", &json!([bridge(3), {"type": "sbr"}]));
        lab.must(Some(neighbour), "ip route add 10.0.0.0/8 via 192.0.2.1");
        let rate = r#"{"ingressRate":80000000,"ingressBurst":80000000,"egressRate":80000000,"egressBurst":80000000}"#;
        let wishes = json!({"networks": [{"name": "wall", "driver_opts": {"bandwidth": rate}}, {"name": "blue"},
            {"name": "own"}], "ports": ["8080:80"]});
        let mut one = lab.container(1, &wishes.to_string());
        assert_eq!(lab.tool("net-attach", &["c1"]).status, 0);
        detach(lab, &one);
        let left = lab.must(Some(one.pid), "ip -br link; ip rule");
        assert!(!left.contains("eth") && !left.contains("blue") && !left.contains("lookup 100"), "{left}");
        let outcome = lab.tool("net-attach", &["c1"]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        let networks = outcome.json()["networks"].clone();
        // In by the published port, out with the host's address.
        lab.serve(Some(one.pid), "tcp", 80, "web");
        assert_eq!(lab.call(Some(neighbour), "tcp", "192.0.2.1:8080"), "web 192.0.2.2");
        assert_eq!(
            lab.call(Some(one.pid), "tcp", "192.0.2.2:80,so-bindtodevice=eth0"),
            "neighbour 192.0.2.1"
        );
        let host_interface = networks[0]["host_interface"].as_str().unwrap();
        let outside = lab.must(None, &format!("iptables-save; tc qdisc show dev {host_interface}"));
        assert!(outside.contains("-A CNI-FORWARD") && outside.contains("tbf"), "{outside}");
        // By a table of its own, and by rules for its address.
        let inside = lab.must(Some(one.pid), "ip -br link show master blue; ip rule");
        let rule = format!("from {} lookup 100", address(&networks[2]));
        assert!(inside.contains("eth1") && inside.contains(&rule), "{inside}");
        lab.serve(None, "tcp", 81, "host");
        let to_the_host = lab.call(Some(one.pid), "tcp", "10.72.0.1:81,so-bindtodevice=eth1");
        assert_eq!(to_the_host, format!("host {}", address(&networks[1])));
        let by_rule = lab.call(Some(one.pid), "tcp", &format!("192.0.2.2:80,bind={}", address(&networks[2])));
        assert_eq!(by_rule, format!("neighbour {}", address(&networks[2])));
        assert_eq!(lab.tool("net-attach", &["c1"]).json()["networks"], networks);
        // Ended, and undone as ctr-shim does it: bridge takes back its masquerading only in the namespace.
        let held = std::fs::File::open(format!("/proc/{}/ns/net", one.pid)).unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&held));
        lab.stop(&mut one);
        let outcome = lab.tool("net-detach", &["--ended", "--netns", &path, "c1"]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        let rules = lab.must(None, "iptables-save");
        assert!(!rules.contains("10.71.") && !rules.contains("8080"), "{rules}");
        assert_eq!(lab.sh(None, "ls -d /run/leases/*/10.*").stdout, "");
        assert_eq!(["wall", "blue", "own"].map(|name| begun(lab, name)), [0, 0, 0]);
        assert_eq!(lab.claims(), Vec::<String>::new());
    });
}

#[test]
fn addresses_of_a_dhcp_server() {
    isolated("plugins::addresses_of_a_dhcp_server", |lab| {
        lab.must(None, "ip link add lan0 type veth peer name wire0");
        let all = has(lab, &["macvlan", "dhcp"], &["link lan0 name probe0 type macvlan"]);
        lab.must(None, "ip link del lan0");
        if !all || lab.sh(None, "busybox udhcpd --help").status == 127 {
            return eprintln!("SKIPPED: no macvlan, or no busybox");
        }
        let neighbour = prepare(lab);
        network(
            lab,
            "lan",
            "1.0.0",
            &json!([{"type": "macvlan", "master": "lan0", "ipam": {"type": "dhcp"}}]),
        );
        let one = lab.container(1, "{}");
        let outcome = lab.tool("net-attach", &["--network", "lan", "c1"]);
        assert!(outcome.status == 1 && outcome.stderr.contains("run `dhcp daemon`"), "{}", outcome.stderr);
        let configuration = lab.dir.join("udhcpd.conf");
        let leases = lab.dir.join("udhcpd.leases");
        std::fs::write(&leases, "").unwrap();
        let text = format!(
            "start 192.0.2.100\nend 192.0.2.109\ninterface wire\nlease_file {}\npidfile {}\noption subnet 255.255.255.0\n\
             option router 192.0.2.2\noption lease 600\n",
            leases.display(),
            lab.dir.join("udhcpd.pid").display()
        );
        std::fs::write(&configuration, text).unwrap();
        lab.spawn(
            Command::new("nsenter")
                .args(["-t", &neighbour.to_string(), "-n", "busybox", "udhcpd", "-f"])
                .arg(&configuration),
        );
        let folder = FOLDERS.iter().find(|folder| Path::new(folder).join("dhcp").exists()).unwrap();
        lab.spawn(Command::new(Path::new(folder).join("dhcp")).arg("daemon"));
        wait_for("the daemon", || Path::new("/run/cni/dhcp.sock").exists());
        // What the failed one left is undone first.
        let attachment = lab.attach(&one, &["--network", "lan"]);
        assert!(address(&attachment).starts_with("192.0.2.10"), "{attachment}");
        assert_eq!(attachment["gateway"], "192.0.2.2");
        let seen = format!("neighbour {}", address(&attachment));
        assert_eq!(lab.call(Some(one.pid), "tcp", "192.0.2.2:80"), seen);
        assert_eq!(lab.attach(&one, &["--network", "lan"]), attachment);
        detach(lab, &one);
        assert_eq!((begun(lab, "lan"), links(lab, &one).contains("eth0")), (0, false));
    });
}
