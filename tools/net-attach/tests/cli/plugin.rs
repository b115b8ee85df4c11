//! net-attach as a CNI plugin, run as a container runtime runs one.

// A skipped test says so.
#![allow(clippy::print_stderr)]

use crate::lab::{Lab, isolated};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::{Child, Stdio};
use std::time::Duration;

fn network(lab: &Lab, name: &str, definition: &str) {
    let dir = lab.root().join("networks").join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("network.json"), format!("{{\"name\":\"{name}\",{definition}}}")).unwrap();
}

const WEB: &str =
    r#""driver":"bridge","device":"staves7","subnets":[{"subnet":"10.77.0.0/24"},{"subnet":"fd77::/64"}]"#;

/// A container of somebody else's: a process with a namespace, called by any name.
struct Pod {
    name: &'static str,
    pid: u32,
}

impl Pod {
    fn new(lab: &mut Lab, name: &'static str) -> Pod {
        let pid = lab.namespace();
        lab.must(Some(pid), "ip link set lo up");
        Pod { name, pid }
    }
}

fn configuration(members: &Value) -> Value {
    let mut configuration =
        json!({"cniVersion": "1.0.0", "name": "pods", "type": "net-attach", "network": "web"});
    for (name, value) in members.as_object().unwrap() {
        configuration[name] = value.clone();
    }
    configuration
}

fn spawn(lab: &Lab, command: &str, pod: Option<&Pod>, configuration: &Value) -> Child {
    let mut program = lab.command("net-attach");
    program.env("CNI_COMMAND", command).env("CNI_PATH", "/nowhere");
    if let Some(pod) = pod {
        program.env("CNI_CONTAINERID", pod.name).env("CNI_IFNAME", "eth0");
        program.env("CNI_NETNS", format!("/proc/{}/ns/net", pod.pid));
        program.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=front");
    }
    let pipes = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // One that is killed before it has read is no reason to fail.
    let _ = child.stdin.take().unwrap().write_all(configuration.to_string().as_bytes());
    child
}

/// What it answers; null for nothing.
fn ask(lab: &Lab, command: &str, pod: Option<&Pod>, configuration: &Value) -> Result<Value, Value> {
    let output = spawn(lab, command, pod, configuration).wait_with_output().unwrap();
    let answer = match output.stdout.as_slice() {
        b"" => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    };
    let stderr = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(answer),
        Some(_) => Err(answer),
        None => panic!("{command}: {} {stderr}", output.status),
    }
}

fn leases(lab: &Lab, network: &str) -> Vec<String> {
    let dir = lab.root().join("networks").join(network).join("leases");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn assert_nothing_left(lab: &Lab) {
    assert_eq!(leases(lab, "web"), Vec::<String>::new());
    assert_eq!((lab.claims(), lab.links()), (Vec::new(), Vec::new()));
    assert_eq!(fs::read_dir(lab.run_dir().join("foreign")).map_or(0, Iterator::count), 0);
}

#[test]
fn a_container_of_others_is_on_a_network_of_ours() {
    isolated("plugin::a_container_of_others_is_on_a_network_of_ours", |lab| {
        let neighbour = lab.neighbour();
        network(lab, "web", WEB);
        let pod = Pod::new(lab, "pod.1");
        let asked = configuration(&json!({
            "dns": {"search": ["example.com"]},
            "runtimeConfig": {"ips": ["10.77.0.9/24"], "mac": "02:00:00:00:00:09", "aliases": ["db"],
                "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "TCP"},
                    {"hostPort": 0, "containerPort": 81}]},
        }));
        let result = ask(lab, "ADD", Some(&pod), &asked).unwrap();
        assert_eq!(result["cniVersion"], "1.0.0");
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces[0]["name"], "staves7");
        assert_eq!(interfaces[2]["name"], "eth0");
        assert_eq!(interfaces[2]["mac"], "02:00:00:00:00:09");
        assert_eq!(interfaces[2]["sandbox"], format!("/proc/{}/ns/net", pod.pid));
        assert_eq!(
            result["ips"][0],
            json!({"address": "10.77.0.9/24", "gateway": "10.77.0.1", "interface": 2})
        );
        assert!(result["ips"][1]["address"].as_str().unwrap().ends_with("/64"));
        assert_eq!(result["routes"][0], json!({"dst": "0.0.0.0/0", "gw": "10.77.0.1"}));
        assert_eq!(result["dns"], json!({"search": ["example.com"]}));
        let lease = fs::read_to_string(lab.root().join("networks/web/leases/10.77.0.9")).unwrap();
        let lease: Value = serde_json::from_str(&lease).unwrap();
        assert_eq!((&lease["foreign"], &lease["names"][0]), (&json!(true), &json!("front")));
        assert!(lease["names"].as_array().unwrap().contains(&json!("db")), "{lease}");

        // Reached by all as one of our own, and left alone by those who sweep.
        lab.serve(Some(pod.pid), "tcp", 80, "pod");
        assert_eq!(lab.call(Some(neighbour), "tcp", "192.0.2.1:8080"), "pod 192.0.2.2");
        let own = lab.container(1, "{}");
        lab.attach(&own, &["--network", "web"]);
        assert!(lab.call(Some(own.pid), "tcp", "10.77.0.9:80").starts_with("pod 10.77.0."));
        let taken = lab.container(2, "{}");
        let outcome = lab.tool("net-attach", &["--network", "web:ip=10.77.0.9", &taken.name]);
        assert_eq!(outcome.status, 5, "{}", outcome.stderr);
        let outcome = lab.tool("net-attach", &["--network", "web", "-p", "8080:80", &taken.name]);
        assert_eq!(outcome.status, 5, "{}", outcome.stderr);
        assert_eq!(lab.tool("net-prune", &[]).stdout, "");
        assert_eq!(lab.call(None, "tcp", "192.0.2.1:8080").split(' ').next(), Some("pod"));

        // Twice is an error, and changes nothing.
        let refused = ask(lab, "ADD", Some(&pod), &asked).unwrap_err();
        assert!(refused["msg"].as_str().unwrap().contains("interface eth0 already"), "{refused}");
        let mut checked = asked.clone();
        checked["prevResult"] = result.clone();
        assert_eq!(ask(lab, "CHECK", Some(&pod), &checked), Ok(Value::Null));
        lab.must(Some(pod.pid), "ip addr del 10.77.0.9/24 dev eth0");
        let refused = ask(lab, "CHECK", Some(&pod), &checked).unwrap_err();
        assert!(refused["msg"].as_str().unwrap().contains("lost address 10.77.0.9"), "{refused}");

        assert_eq!(lab.tool("net-detach", &[&own.name]).status, 0);
        for _ in 0..2 {
            assert_eq!(ask(lab, "DEL", Some(&pod), &asked), Ok(Value::Null));
            assert_nothing_left(lab);
            assert!(!lab.sh(Some(pod.pid), "ip link").stdout.contains("eth0"));
        }
        assert!(!lab.sh(None, "nft list table inet staves").stdout.contains("8080"));
        // Older runtimes get what they know.
        let mut older = asked.clone();
        older["cniVersion"] = "0.4.0".into();
        assert_eq!(ask(lab, "ADD", Some(&pod), &older).unwrap()["ips"][0]["version"], "4");
        older["cniVersion"] = "0.2.0".into();
        ask(lab, "DEL", Some(&pod), &older).unwrap();
        assert_eq!(ask(lab, "ADD", Some(&pod), &older).unwrap()["ip4"]["ip"], "10.77.0.9/24");
    });
}

#[test]
fn containers_of_others_ask_the_networks_own_resolver() {
    isolated("plugin::containers_of_others_ask_the_networks_own_resolver", |lab| {
        if lab.sh(None, "command -v dig && command -v setpriv").status != 0 {
            return eprintln!("SKIPPED: dig or setpriv is not installed");
        }
        // Where the state is, the configuration alone says.
        let (root, run) = (lab.dir.join("its-root"), lab.dir.join("its-run"));
        for (name, device, subnet, more) in
            [("web", "staves7", "77", ""), ("inner", "staves8", "78", r#","internal":true"#)]
        {
            let dir = root.join("networks").join(name);
            fs::create_dir_all(&dir).unwrap();
            let definition = format!(
                r#"{{"name":"{name}","driver":"bridge","device":"{device}","subnets":[{{"subnet":"10.{subnet}.0.0/24"}}],"dns":{{"enabled":true}}{more}}}"#
            );
            fs::write(dir.join("network.json"), definition).unwrap();
            let asked = configuration(&json!({"network": name, "root": root, "run": run}));
            let pod = Pod::new(lab, name);
            let result = ask(lab, "ADD", Some(&pod), &asked).unwrap();
            let resolver = format!("10.{subnet}.0.1");
            assert_eq!(result["dns"], json!({"nameservers": [resolver]}));
            let address = result["ips"][0]["address"].as_str().unwrap().split('/').next().unwrap();
            let question = format!("dig +short +tries=1 +time=2 @{resolver} front");
            assert_eq!(lab.must(Some(pod.pid), &question).trim(), address);

            // One that was killed is started by whoever comes by, here the plugin that detaches another.
            let lock = run.join("networks").join(name).join("dns.lock");
            let lock = lock.display();
            let kill = format!("kill -9 $(cat {lock}) && flock {lock} true");
            lab.must(None, &kill);
            let second = Pod::new(lab, "second");
            ask(lab, "ADD", Some(&second), &asked).unwrap();
            lab.must(None, &kill);
            ask(lab, "DEL", Some(&second), &asked).unwrap();
            assert_eq!(lab.must(Some(pod.pid), &question).trim(), address);
            ask(lab, "DEL", Some(&pod), &asked).unwrap();
        }
    });
}

#[test]
fn those_that_are_gone_are_swept_and_collected() {
    isolated("plugin::those_that_are_gone_are_swept_and_collected", |lab| {
        network(lab, "web", WEB);
        let mapping = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8081, "containerPort": 80}]}});
        let (one, two) = (Pod::new(lab, "one"), Pod::new(lab, "two"));
        ask(lab, "ADD", Some(&one), &configuration(&mapping)).unwrap();
        ask(lab, "ADD", Some(&two), &configuration(&json!({}))).unwrap();
        lab.kill(one.pid);
        let outcome = lab.tool("net-prune", &[]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        assert!(outcome.stdout.contains("8081"), "{}", outcome.stdout);
        assert_eq!((leases(lab, "web").len(), lab.claims().len()), (2, 0));
        // Its runtime detaches it all the same.
        ask(lab, "DEL", Some(&one), &configuration(&json!({}))).unwrap();

        let three = Pod::new(lab, "three");
        ask(lab, "ADD", Some(&three), &configuration(&json!({}))).unwrap();
        let gc = |name: &str, valid: &Value| {
            let members = json!({"cniVersion": "1.1.0", "name": name, "cni.dev/valid-attachments": valid});
            ask(lab, "GC", None, &configuration(&members))
        };
        let valid = json!([{"containerID": "two", "ifname": "eth0"}]);
        assert_eq!(gc("others", &json!([])), Ok(Value::Null));
        assert_eq!(leases(lab, "web").len(), 4, "of another configuration");
        assert_eq!(gc("pods", &valid), Ok(Value::Null));
        assert_eq!(leases(lab, "web").len(), 2);
        assert!(!lab.sh(Some(three.pid), "ip link").stdout.contains("eth0"));
        assert_eq!(gc("pods", &json!("all")).unwrap_err()["code"], 7);
        ask(lab, "DEL", Some(&two), &configuration(&json!({}))).unwrap();
        assert_nothing_left(lab);
    });
}

#[test]
fn what_cannot_be_done_is_refused_by_number() {
    isolated("plugin::what_cannot_be_done_is_refused_by_number", |lab| {
        network(lab, "web", WEB);
        let pod = Pod::new(lab, "pod");
        let here = Pod { name: "host", pid: std::process::id() };
        let version = ask(lab, "VERSION", None, &json!({"cniVersion": "1.1.0"})).unwrap();
        assert_eq!(version["supportedVersions"].as_array().unwrap().len(), 7);
        assert_eq!(ask(lab, "STATUS", None, &configuration(&json!({}))), Ok(Value::Null));
        for (command, members, code, why) in [
            ("STATUS", json!({"network": "nowhere"}), 50, "no such network"),
            ("ADD", json!({"network": "nowhere"}), 100, "no such network"),
            ("ADD", json!({"network": "../web"}), 7, "../web"),
            ("ADD", json!({"network": 7}), 7, "no string"),
            ("ADD", json!({"ipam": {"type": "host-local"}}), 2, "ipam is not known"),
            ("ADD", json!({"runtimeConfig": {"bandwidth": {}}}), 2, "bandwidth is not known"),
            ("ADD", json!({"runtimeConfig": {"ips": ["10.78.0.1"]}}), 7, "not of the network's subnets"),
            ("ADD", json!({"runtimeConfig": {"ips": "all"}}), 7, "ips"),
            ("ADD", json!({"runtimeConfig": {"mac": "ff:ff"}}), 7, "hardware address"),
            ("ADD", json!({"runtimeConfig": {"portMappings": [{"hostPort": 1}]}}), 7, "portMappings"),
            ("ADD", json!({"cniVersion": "3.0.0"}), 1, "not known"),
            ("ADD", json!({"staves": 1}), 7, "unset CNI_COMMAND"),
            ("CHECK", json!({}), 7, "prevResult is missing"),
            ("ADD", json!({"root": "here"}), 7, "no absolute path"),
            ("ADD", json!({"root": lab.dir.join("elsewhere")}), 100, "no such network"),
            ("DANCE", json!({}), 4, "CNI_COMMAND"),
        ] {
            let refused = ask(lab, command, Some(&pod), &configuration(&members)).unwrap_err();
            assert_eq!(refused["code"], code, "{refused}");
            let said = format!("{} {}", refused["msg"], refused["details"]);
            assert!(said.contains(why), "{said}");
            assert_nothing_left(lab);
        }
        let refused = ask(lab, "ADD", Some(&here), &configuration(&json!({}))).unwrap_err();
        assert!(refused["msg"].as_str().unwrap().contains("host's own"), "{refused}");
        // Arguments make it the tool it is.
        let mut tool = lab.command("net-attach");
        let output = tool.arg("nobody").env("CNI_COMMAND", "ADD").stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(4));
    });
}

#[test]
fn killed_at_any_moment_it_leaves_what_del_removes() {
    isolated("plugin::killed_at_any_moment_it_leaves_what_del_removes", |lab| {
        network(lab, "web", WEB);
        let mapping = json!({"runtimeConfig": {"portMappings": [{"hostPort": 8082, "containerPort": 80}]}});
        let asked = configuration(&mapping);
        let pod = Pod::new(lab, "pod");
        // Made ready once.
        ask(lab, "ADD", Some(&pod), &asked).unwrap();
        ask(lab, "DEL", Some(&pod), &asked).unwrap();
        for step in 0..40_u64 {
            let mut child = spawn(lab, "ADD", Some(&pod), &asked);
            std::thread::sleep(Duration::from_micros(step * 150));
            let _ = child.kill();
            child.wait().unwrap();
            if step % 2 == 0 {
                // Again without DEL, as a runtime may that knows nothing of the first.
                let again = ask(lab, "ADD", Some(&pod), &asked);
                assert!(again.is_ok() || again.clone().unwrap_err()["code"] == 100, "{again:?}");
            }
            ask(lab, "DEL", Some(&pod), &asked).unwrap();
            lab.tool("net-prune", &[]);
            assert_nothing_left(lab);
            assert!(!lab.sh(Some(pod.pid), "ip link").stdout.contains("eth0"));
        }
    });
}

#[test]
fn a_container_of_others_is_on_the_wire_of_a_macvlan() {
    isolated("plugin::a_container_of_others_is_on_the_wire_of_a_macvlan", |lab| {
        let neighbour = lab.neighbour();
        let probe = "ip link add link lan0 name probe0 type macvlan && ip link del probe0";
        if lab.sh(None, probe).status != 0 {
            return eprintln!("SKIPPED: the kernel has no macvlan");
        }
        let subnet =
            r#""subnets":[{"subnet":"192.0.2.0/24","gateway":"192.0.2.2","ip_range":"192.0.2.128/25"}]"#;
        network(lab, "web", &format!(r#""driver":"macvlan","parent":"lan0",{subnet}"#));
        let pod = Pod::new(lab, "pod");
        // As it is left in by older runtimes.
        let capabilities = json!({"portMappings": true});
        let asked = configuration(&json!({"isDefaultGateway": false, "capabilities": capabilities}));
        let result = ask(lab, "ADD", Some(&pod), &asked).unwrap();
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 1);
        assert!(!lab.sh(Some(pod.pid), "ip route").stdout.contains("default"));
        lab.serve(Some(pod.pid), "tcp", 80, "pod");
        let at = result["ips"][0]["address"].as_str().unwrap().replace("/24", ":80");
        assert_eq!(lab.call(Some(neighbour), "tcp", &at), "pod 192.0.2.2");
        let mut checked = asked.clone();
        checked["prevResult"] = result;
        assert_eq!(ask(lab, "CHECK", Some(&pod), &checked), Ok(Value::Null));
        ask(lab, "DEL", Some(&pod), &asked).unwrap();
        assert!(!lab.sh(Some(pod.pid), "ip link").stdout.contains("eth0"));
        assert_nothing_left(lab);
    });
}

#[test]
fn a_network_is_not_removed_under_containers_of_others() {
    isolated("plugin::a_network_is_not_removed_under_containers_of_others", |lab| {
        if lab.sh(None, &format!("{} --version", lab.command("net-rm").get_program().display())).status != 0 {
            return eprintln!("SKIPPED: net-rm is not built: cargo build --release -p net-rm");
        }
        network(lab, "web", WEB);
        let pod = Pod::new(lab, "pod");
        ask(lab, "ADD", Some(&pod), &configuration(&json!({}))).unwrap();
        let outcome = lab.tool("net-rm", &["web"]);
        assert_eq!(outcome.status, 5, "{}", outcome.stderr);
        assert!(outcome.stderr.contains("front"), "{}", outcome.stderr);
        let outcome = lab.tool("net-rm", &["--force", "web"]);
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        assert!(!lab.sh(Some(pod.pid), "ip link").stdout.contains("eth0"));
        assert_nothing_left(lab);
        ask(lab, "DEL", Some(&pod), &configuration(&json!({}))).unwrap();
    });
}
