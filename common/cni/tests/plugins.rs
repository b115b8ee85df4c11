//! The plugins everybody uses, as Debian packages them, in namespaces of the test's own.

// A skipped test says so.
#![allow(clippy::print_stderr)]

use cni::{Attachment, Configuration, Runtime, Success, Version};
use serde_json::{Map, json};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const INSIDE: &str = "STAVES_TEST_INSIDE";
const FOLDERS: &str = "/opt/cni/bin:/usr/lib/cni";

/// Runs a test in namespaces of its own, by starting this program again for that test alone.
fn isolated(test: &str, needs: &[&str], body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let runtime = Runtime::in_path(FOLDERS);
    if let Some(missing) = needs.iter().find(|plugin| !runtime.has(plugin)) {
        eprintln!("SKIPPED: {test}: CNI plugin {missing} is not installed");
        return;
    }
    let unshare = ["--net", "--mount", "--propagation", "private", "--"];
    let can = Command::new("unshare").args(unshare).args(["ip", "link"]).output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {test}: no right to make network namespaces, or no ip(8)");
        return;
    }
    let status = Command::new("unshare")
        .args(unshare)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespaces");
}

/// A process that holds a network namespace.
struct Container(Child);

impl Container {
    fn new() -> Container {
        let child =
            Command::new("unshare").args(["--net", "sleep", "300"]).stdout(Stdio::null()).spawn().unwrap();
        let begin = Instant::now();
        let here = std::fs::read_link("/proc/self/ns/net").unwrap();
        let there = format!("/proc/{}/ns/net", child.id());
        let is_ready = || {
            std::fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|comm| comm == "sleep\n")
                && std::fs::read_link(&there).is_ok_and(|there| there != here)
        };
        while !is_ready() {
            assert!(begin.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(5));
        }
        Container(child)
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn inside(&self, script: &str) -> String {
        sh(&format!("nsenter --net={} sh -c '{script}'", self.namespace()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Somebody is there to say that nobody listens.
fn is_reached(address: &str) -> bool {
    sh(&format!("timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/9'")).contains("refused")
}

/// What host-local keeps its leases in, a file system of this mount namespace alone, as is /run with the lock of iptables.
const LEASES: &str = "/run/cni";

fn prepare() {
    sh("mount -t tmpfs tmpfs /run; ip link set lo up");
}

fn lease(network: &str) -> Vec<String> {
    let dir = Path::new(LEASES).join(network);
    let names = std::fs::read_dir(dir).map(|entries| {
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    });
    names.unwrap_or_default().into_iter().filter(|name| name.starts_with("10.")).collect()
}

#[test]
fn a_whole_chain_is_added_checked_and_deleted() {
    let needs = ["bridge", "host-local", "portmap", "firewall", "tuning", "bandwidth"];
    isolated("a_whole_chain_is_added_checked_and_deleted", &needs, || {
        prepare();
        let network = |version: &str| {
            // Upstream's does not know versions before 0.4.0.
            let last = if version == "0.3.1" { "tuning" } else { "firewall" };
            Configuration::from_value(json!({"cniVersion": version, "name": "db", "plugins": [
                {"type": "bridge", "bridge": "cni7", "isGateway": true, "ipMasq": false,
                    "capabilities": {"mac": true, "ips": true},
                    "ipam": {"type": "host-local", "dataDir": LEASES, "ranges": [[{"subnet": "10.77.0.0/24"}]],
                        "routes": [{"dst": "0.0.0.0/0"}]}},
                {"type": "tuning", "sysctl": {"net.ipv4.conf.eth7.arp_filter": "1"}},
                {"type": "portmap", "capabilities": {"portMappings": true}, "snat": false},
                {"type": last},
                {"type": "bandwidth", "capabilities": {"bandwidth": true}},
            ]}))
            .unwrap()
        };
        let runtime = Runtime::in_path(FOLDERS);
        assert!(runtime.versions("bridge").unwrap().contains(&Version::V1_0_0));
        for version in ["0.3.1", "0.4.0", "1.0.0"] {
            let network = network(version);
            let container = Container::new();
            let namespace = container.namespace();
            let capabilities = json!({
                "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}],
                "mac": "02:00:00:00:00:07",
                "ips": ["10.77.0.99"],
                "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 1_000_000,
                    "egressRate": 1_000_000, "egressBurst": 1_000_000},
            });
            let attachment = Attachment {
                container: "c1",
                namespace: &namespace,
                interface: "eth7",
                arguments: &[("IgnoreUnknown".into(), "1".into())],
                capabilities: capabilities.as_object().unwrap().clone(),
            };
            let result = runtime.add(&network, &attachment).unwrap();
            assert_eq!(result["cniVersion"], version);
            let success = Success::parse(&result, Version::V1_0_0).unwrap();
            let inside = success.inside("eth7").unwrap();
            assert_eq!(
                (inside.mac.as_str(), inside.sandbox.as_str()),
                ("02:00:00:00:00:07", namespace.as_str())
            );
            let ip = success.addresses("eth7").next().unwrap();
            assert_eq!(ip.address.to_string(), "10.77.0.99/24");
            assert_eq!(ip.gateway.unwrap().to_string(), "10.77.0.1");
            let shown = container.inside("ip -o -4 addr show eth7; ip route");
            assert!(shown.contains("10.77.0.99/24") && shown.contains("default via 10.77.0.1"), "{shown}");
            assert_eq!(container.inside("cat /proc/sys/net/ipv4/conf/eth7/arp_filter").trim(), "1");
            assert!(is_reached("10.77.0.99"));
            assert!(sh("iptables-save -t nat").contains("8080"));
            assert_eq!(lease("db"), ["10.77.0.99"]);

            // That of portmap 1.1.1 asks for rules of IPv6 whatever the addresses are.
            let mut checked = network.to_value();
            checked["plugins"].as_array_mut().unwrap().retain(|plugin| plugin["type"] != "portmap");
            let checked = Configuration::from_value(checked).unwrap();
            assert_eq!(runtime.check(&checked, &attachment, &result).unwrap(), version != "0.3.1");
            if version != "0.3.1" {
                container.inside("ip addr flush dev eth7");
                let fault = runtime.check(&checked, &attachment, &result).unwrap_err();
                assert!(fault.to_string().starts_with("CNI plugin bridge: CHECK: "), "{fault}");
            }
            // Its namespace is gone, as after a crash: all is given back nonetheless, and again.
            drop(container);
            let gone = Attachment { namespace: "", ..attachment };
            for _ in 0..2 {
                runtime.delete(&network, &gone, Some(&result)).unwrap();
                assert_eq!(lease("db"), [""; 0]);
                assert!(!sh("iptables-save -t nat").contains("8080"));
            }
        }
        // A version they do not know.
        let container = Container::new();
        let attachment = Attachment {
            container: "c1",
            namespace: &container.namespace(),
            interface: "eth7",
            arguments: &[],
            capabilities: Map::new(),
        };
        let fault = runtime.add(&network("1.1.0"), &attachment).unwrap_err();
        assert!(fault.to_string().contains("(error 1)"), "{fault}");
        assert!(fault.hint_text().unwrap().contains("cniVersion"));
    });
}

#[test]
fn the_second_plugins_failure_undoes_the_first() {
    isolated("the_second_plugins_failure_undoes_the_first", &["bridge", "host-local", "tuning"], || {
        prepare();
        let network = Configuration::from_value(json!({"cniVersion": "1.0.0", "name": "half", "plugins": [
            {"type": "bridge", "bridge": "cni8", "ipam": {"type": "host-local", "dataDir": LEASES, "subnet": "10.78.0.0/24"}},
            {"type": "tuning", "sysctl": {"net.ipv4.no_such_thing": "1"}},
        ]}))
        .unwrap();
        let container = Container::new();
        let attachment = Attachment {
            container: "c1",
            namespace: &container.namespace(),
            interface: "eth0",
            arguments: &[],
            capabilities: Map::new(),
        };
        let fault = Runtime::in_path(FOLDERS).add(&network, &attachment).unwrap_err();
        assert!(fault.to_string().starts_with("CNI plugin tuning: ADD: "), "{fault}");
        assert_eq!(lease("half"), [""; 0]);
        assert!(!container.inside("ip link").contains("eth0"));
        assert!(!sh("ip link show type veth").contains("veth"));
    });
}

#[test]
fn one_plugin_and_a_subnet_are_enough() {
    isolated("one_plugin_and_a_subnet_are_enough", &["ptp", "host-local"], || {
        prepare();
        let range = json!({"subnet": "10.79.0.0/24", "gateway": "10.79.0.1"});
        let network = Configuration::of_plugin("plain", "ptp", Map::new(), vec![range]).unwrap();
        let mut document = network.to_value();
        document["plugins"][0]["ipam"]["dataDir"] = LEASES.into();
        let network = Configuration::from_value(document).unwrap();
        let container = Container::new();
        let attachment = Attachment {
            container: "c1",
            namespace: &container.namespace(),
            interface: "eth0",
            arguments: &[],
            capabilities: Map::new(),
        };
        let runtime = Runtime::in_path(FOLDERS);
        let result = runtime.add(&network, &attachment).unwrap();
        let success = Success::parse(&result, Version::V1_0_0).unwrap();
        let address = success.addresses("eth0").next().unwrap().address;
        assert!(is_reached(&address.address.to_string()));
        runtime.delete(&network, &attachment, Some(&result)).unwrap();
        assert_eq!(lease("plain"), [""; 0]);
    });
}
