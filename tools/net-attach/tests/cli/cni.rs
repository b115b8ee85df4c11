//! Networks of CNI plugins: upstream's, and scripts that write down what they are asked.

// A skipped test says so.
#![allow(clippy::print_stderr)]

use crate::lab::{Lab, isolated, wait_for};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A network of these plugins, as members of a configuration list.
pub fn network(lab: &Lab, name: &str, version: &str, plugins: &serde_json::Value) {
    let dir = lab.root().join("networks").join(name);
    fs::create_dir_all(&dir).unwrap();
    let list = serde_json::json!({"cniVersion": version, "name": name, "plugins": plugins});
    let definition = serde_json::json!({"name": name, "driver": "cni", "cni": list});
    fs::write(dir.join("network.json"), definition.to_string()).unwrap();
}

/// A plugin that logs, keeps its standard input, and does what it is told for `ADD`.
fn script(lab: &Lab, name: &str, add: &str) -> PathBuf {
    let dir = lab.dir.join("plugins");
    fs::create_dir_all(&dir).unwrap();
    let at = dir.display();
    let path = dir.join(name);
    let text = format!(
        "#!/bin/sh\ncat >{at}/{name}.$CNI_COMMAND.json\necho \"$CNI_COMMAND ${{CNI_NETNS:+netns}}\" >>{at}/log\n\
         case $CNI_COMMAND in\nADD) {add} ;;\n\
         CHECK) if [ -e {at}/broken ]; then echo '{{\"cniVersion\":\"1.0.0\",\"code\":110,\"msg\":\"its rule is gone\"}}'; rm {at}/broken; exit 1; fi ;;\n\
         VERSION) echo '{{\"supportedVersions\":[\"1.0.0\",\"1.1.0\"]}}' ;;\nesac\n"
    );
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

const ANSWER: &str = r#"ip -n x link 2>/dev/null; nsenter --net=$CNI_NETNS ip link add eth0 type veth peer name p0;
    echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.1.2.3/24","interface":0}]}'"#;

fn log(lab: &Lab) -> String {
    fs::read_to_string(lab.dir.join("plugins/log")).unwrap_or_default().replace('\n', ",")
}

pub fn begun(lab: &Lab, network: &str) -> usize {
    let dir = lab.root().join("networks").join(network).join("attachments");
    fs::read_dir(dir).map_or(0, Iterator::count)
}

fn with_path(lab: &Lab, tool: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = lab.command(tool);
    let path = format!("{}:/opt/cni/bin:/usr/lib/cni", lab.dir.join("plugins").display());
    let output = command.args(arguments).env("STAVES_CNI_PATH", path).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

#[test]
fn upstreams_plugins_attach_and_publish() {
    isolated("cni::upstreams_plugins_attach_and_publish", |lab| {
        let folders = ["/opt/cni/bin", "/usr/lib/cni"];
        let has = |plugin: &str| folders.iter().any(|folder| Path::new(folder).join(plugin).exists());
        if let Some(missing) = ["bridge", "host-local", "portmap"].into_iter().find(|plugin| !has(plugin)) {
            return eprintln!("SKIPPED: CNI plugin {missing} is not installed");
        }
        let neighbour = lab.neighbour();
        lab.must(None, "mount -t tmpfs tmpfs /run; echo 1 >/proc/sys/net/ipv4/ip_forward");
        let plugins = serde_json::json!([
            {"type": "bridge", "bridge": "cni5", "isGateway": true, "hairpinMode": true,
                "capabilities": {"ips": true, "mac": true},
                "ipam": {"type": "host-local", "dataDir": lab.dir.join("leases"),
                    "ranges": [[{"subnet": "10.75.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]);
        network(lab, "db", "1.0.0", &plugins);
        let mut web = lab.container(1, "{}");
        let wish = "db:ip=10.75.0.9,mac=02:00:00:00:00:09";
        let attachment = lab.attach(&web, &["--network", wish, "-p", "8080:80"]);
        assert_eq!(attachment["addresses"][0], "10.75.0.9/24");
        assert_eq!(attachment["gateway"], "10.75.0.1");
        assert_eq!(attachment["mac"], "02:00:00:00:00:09");
        assert_eq!(attachment["interface"], "eth0");
        assert_eq!(attachment["cni"]["ips"][0]["address"], "10.75.0.9/24");
        assert!(lab.hosts_of(&web).contains("10.75.0.9"));
        lab.serve(Some(web.pid), "tcp", 80, "web");
        assert_eq!(lab.call(None, "tcp", "10.75.0.9:80"), "web 10.75.0.1");
        assert_eq!(lab.call(Some(neighbour), "tcp", "192.0.2.1:8080"), "web 192.0.2.2");
        assert_eq!(lab.sh(None, "nft list table inet staves").status, 1, "no firewall of ours");
        assert_eq!((begun(lab, "db"), lab.claims().len()), (1, 1));

        assert_eq!(lab.attach(&web, &["--network", wish]), attachment);
        // What the plugins find missing is told.
        lab.must(None, "iptables -t nat -F");
        let outcome = lab.tool("net-attach", &["--network", wish, "c1"]);
        let told = outcome.stderr.contains("portmap: CHECK:") && outcome.stderr.contains("net-detach");
        assert!(outcome.status == 0 && told, "{}", outcome.stderr);
        let outcome = lab.tool("net-attach", &["--network", "db", "-p", "8081:81", "c1"]);
        assert_eq!(outcome.status, 5, "{}", outcome.stderr);

        // Detached while it runs, and after it has ended.
        for ended in [false, true] {
            if ended {
                lab.attach(&web, &["--network", wish, "-p", "8080:80"]);
                lab.stop(&mut web);
            }
            for _ in 0..2 {
                let outcome = lab.tool("net-detach", &["c1"]);
                assert_eq!(outcome.status, 0, "{}", outcome.stderr);
            }
            assert_eq!((begun(lab, "db"), lab.claims().len()), (0, 0));
            assert_eq!(lab.sh(None, "ls -d leases/db/10.*").stdout, "");
            assert!(!lab.sh(None, "iptables-save").stdout.contains("8080"));
        }
    });
}

#[test]
fn a_plugin_that_hangs_is_not_waited_for() {
    isolated("cni::a_plugin_that_hangs_is_not_waited_for", |lab| {
        script(lab, "slow", "echo $$ >$0.pid; exec sleep 300");
        network(lab, "db", "1.0.0", &serde_json::json!([{"type": "slow"}]));
        let _one = lab.container(1, "{}");
        let plugin = lab.dir.join("plugins/slow.pid");
        for signal in ["INT", "TERM"] {
            let mut command = lab.command("net-attach");
            command.args(["--network", "db", "c1"]).env("STAVES_CNI_PATH", lab.dir.join("plugins"));
            let mut child =
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            wait_for("the plugin", || fs::read_to_string(&plugin).is_ok_and(|pid| pid.ends_with('\n')));
            lab.must(None, &format!("kill -{signal} {}", child.id()));
            wait_for("its end", || child.try_wait().unwrap().is_some());
            assert_eq!(begun(lab, "db"), 1);
            fs::remove_file(&plugin).unwrap();
        }
        let (status, _, stderr) = with_path(lab, "net-detach", &["c1"]);
        assert_eq!((status, begun(lab, "db")), (0, 0), "{stderr}");
        assert_eq!(log(lab), "ADD netns,DEL netns,ADD netns,DEL netns,");
    });
}

#[test]
fn what_plugins_cannot_undo_is_tried_again_and_given_up_by_force() {
    isolated("cni::what_plugins_cannot_undo_is_tried_again_and_given_up_by_force", |lab| {
        if lab.sh(None, &format!("{} --version", lab.command("net-rm").get_program().display())).status != 0 {
            return eprintln!("SKIPPED: net-rm is not built: cargo build --release -p net-rm");
        }
        // It fails as long as there is no file of this name.
        let works = lab.dir.join("works");
        let folder = script(lab, "broken", "exit 1");
        let text = fs::read_to_string(folder.join("broken")).unwrap();
        let del = format!("DEL) test -e {} ;;\nesac", works.display());
        fs::write(folder.join("broken"), text.replace("esac", &del)).unwrap();
        network(lab, "db", "1.0.0", &serde_json::json!([{"type": "broken"}]));
        let _one = lab.container(1, "{}");
        let attach = |lab: &Lab| {
            let (status, _, stderr) = with_path(lab, "net-attach", &["--network", "db", "c1"]);
            assert!(status == 1 && stderr.contains("undoing it failed"), "{status} {stderr}");
            assert_eq!(begun(lab, "db"), 1);
        };
        attach(lab);
        let (status, _, stderr) = with_path(lab, "net-detach", &["c1"]);
        assert!(status == 1 && stderr.contains("CNI plugin broken: DEL"), "{status} {stderr}");
        let dry = with_path(lab, "net-detach", &["--dry-run", "c1"]).1;
        assert!(dry.contains(r#""command":"DEL""#), "{dry}");
        fs::write(&works, "").unwrap();
        assert_eq!((with_path(lab, "net-detach", &["c1"]).0, begun(lab, "db")), (0, 0));

        fs::remove_file(&works).unwrap();
        attach(lab);
        let (status, _, stderr) = with_path(lab, "net-rm", &["db"]);
        assert!(status == 1 && stderr.contains("--force"), "{status} {stderr}");
        // Not even the program is there any more.
        fs::remove_file(folder.join("broken")).unwrap();
        let (status, _, stderr) = with_path(lab, "net-rm", &["--force", "db"]);
        assert_eq!(status, 0, "{stderr}");
        assert!(stderr.contains("may be there still"), "{stderr}");
        assert!(!lab.root().join("networks/db").exists());
        assert_eq!(with_path(lab, "net-prune", &[]).0, 0);
    });
}

#[test]
fn an_attach_that_is_killed_is_undone_by_whoever_comes_next() {
    isolated("cni::an_attach_that_is_killed_is_undone_by_whoever_comes_next", |lab| {
        script(lab, "slow", "echo $$ >$0.pid; exec sleep 300");
        network(lab, "db", "1.0.0", &serde_json::json!([{"type": "slow"}]));
        let _one = lab.container(1, "{}");
        let mut two = lab.container(2, "{}");
        let plugin = lab.dir.join("plugins/slow.pid");
        for name in ["c1", "c2"] {
            let mut command = lab.command("net-attach");
            command.args(["--network", "db", name]).env("STAVES_CNI_PATH", lab.dir.join("plugins"));
            let pid = lab.spawn(&mut command);
            wait_for("the plugin", || fs::read_to_string(&plugin).is_ok_and(|pid| pid.ends_with('\n')));
            lab.kill(pid);
            let sleeper = fs::read_to_string(&plugin).unwrap().trim().to_owned();
            wait_for("its end", || {
                let stat = fs::read_to_string(format!("/proc/{sleeper}/stat"));
                stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
            });
            fs::remove_file(&plugin).unwrap();
        }
        assert_eq!((log(lab).as_str(), begun(lab, "db")), ("ADD netns,ADD netns,", 2));
        let (status, _, stderr) = with_path(lab, "net-detach", &["c1"]);
        assert_eq!(status, 0, "{stderr}");
        assert_eq!((log(lab).as_str(), begun(lab, "db")), ("ADD netns,ADD netns,DEL netns,", 1));
        // A container that is gone has no namespace any more.
        assert_eq!(with_path(lab, "net-prune", &[]).1, "", "nothing of the living");
        lab.remove(&mut two);
        let (_, dry, _) = with_path(lab, "net-prune", &["--dry-run"]);
        assert!(dry.contains("\"attachment\""), "{dry}");
        let (status, pruned, stderr) = with_path(lab, "net-prune", &[]);
        assert_eq!(status, 0, "{stderr}");
        assert!(pruned.contains(&two.id), "{pruned}");
        assert_eq!((log(lab).as_str(), begun(lab, "db")), ("ADD netns,ADD netns,DEL netns,DEL ,", 0));
    });
}

/// A script whose `DEL` fails where the interface is not in the namespace, as that of upstream's host-device.
fn picky(lab: &Lab, name: &str, add: &str) {
    let folder = script(lab, name, add);
    let text = fs::read_to_string(folder.join(name)).unwrap();
    let del = "DEL) test -z \"$CNI_NETNS\" || nsenter --net=$CNI_NETNS ip link del eth0 ;;\nesac";
    fs::write(folder.join(name), text.replace("esac", del)).unwrap();
}

#[test]
fn a_plugin_that_misses_the_interface_is_asked_without_the_namespace() {
    isolated("cni::a_plugin_that_misses_the_interface_is_asked_without_the_namespace", |lab| {
        picky(lab, "taken", r#"echo '{"code":999,"msg":"no such device"}'; exit 1"#);
        picky(lab, "there", ANSWER);
        network(lab, "taken", "1.0.0", &serde_json::json!([{"type": "taken"}]));
        network(lab, "there", "1.0.0", &serde_json::json!([{"type": "there"}]));
        let container = lab.container(1, "{}");
        let (status, _, stderr) = with_path(lab, "net-attach", &["--network", "taken", "c1"]);
        assert!(status == 1 && stderr.contains("no such device"), "{status} {stderr}");
        assert!(!stderr.contains("undoing"), "{stderr}");
        assert_eq!(begun(lab, "taken"), 0);
        fs::remove_file(lab.dir.join("plugins/log")).unwrap();
        // Somebody has taken the interface away.
        assert_eq!(with_path(lab, "net-attach", &["--network", "there", "c1"]).0, 0);
        lab.must(Some(container.pid), "ip link del eth0");
        let (status, _, stderr) = with_path(lab, "net-detach", &["c1"]);
        assert_eq!((status, begun(lab, "there")), (0, 0), "{stderr}");
        assert_eq!(log(lab), "ADD netns,DEL netns,DEL ,");
    });
}

#[test]
fn an_interface_of_the_next_run_is_not_taken_for_that_of_the_last() {
    isolated("cni::an_interface_of_the_next_run_is_not_taken_for_that_of_the_last", |lab| {
        script(lab, "deaf", ANSWER);
        network(lab, "db", "1.0.0", &serde_json::json!([{"type": "deaf"}]));
        let mut one = lab.container(1, "{}");
        let attach = |lab: &Lab| {
            let (status, _, stderr) = with_path(lab, "net-attach", &["--network", "db", "c1"]);
            assert_eq!(status, 0, "{stderr}");
        };
        attach(lab);
        attach(lab);
        assert_eq!(log(lab), "ADD netns,CHECK netns,", "it is there");
        lab.stop(&mut one);
        lab.start(&mut one);
        attach(lab);
        assert_eq!(log(lab), "ADD netns,CHECK netns,DEL ,ADD netns,");
        lab.stop(&mut one);
        lab.start(&mut one);
        let (status, _, stderr) = with_path(lab, "net-detach", &["c1"]);
        assert_eq!(
            (status, log(lab).as_str()),
            (0, "ADD netns,CHECK netns,DEL ,ADD netns,DEL ,"),
            "{stderr}"
        );
    });
}

#[test]
fn what_an_ended_container_had_is_undone_in_its_namespace_if_somebody_holds_it() {
    isolated("cni::what_an_ended_container_had_is_undone_in_its_namespace_if_somebody_holds_it", |lab| {
        script(lab, "deaf", ANSWER);
        network(lab, "db", "1.0.0", &serde_json::json!([{"type": "deaf"}]));
        let mut one = lab.container(1, "{}");
        let other = lab.namespace();
        for (theirs, told) in [(true, "ADD netns,DEL netns,"), (false, "ADD netns,DEL ,")] {
            assert_eq!(with_path(lab, "net-attach", &["--network", "db", "c1"]).0, 0);
            let pid = if theirs { one.pid } else { other };
            let held = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
            let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&held));
            lab.stop(&mut one);
            let ended = ["--ended", "--netns", &path, "c1"];
            let (status, _, stderr) = with_path(lab, "net-detach", &ended);
            assert_eq!((status, log(lab).as_str(), begun(lab, "db")), (0, told, 0), "{stderr}");
            fs::remove_file(lab.dir.join("plugins/log")).unwrap();
            lab.start(&mut one);
        }
        assert_eq!(lab.tool("net-detach", &["--netns", "/proc/self/ns/net", "c1"]).status, 2);
    });
}

/// A real one, whose shim runs net-detach.
#[test]
fn a_container_that_ends_keeps_its_namespace_until_the_plugins_are_done() {
    isolated("cni::a_container_that_ends_keeps_its_namespace_until_the_plugins_are_done", |lab| {
        let tools = ["ctr-run", "ctr-create", "ctr-start", "ctr-shim", "ctr-rm"];
        let path = |tool: &str| PathBuf::from(lab.command(tool).get_program());
        if let Some(missing) = tools.into_iter().find(|tool| !path(tool).exists()) {
            return eprintln!("SKIPPED: {missing} is not built: cargo build --release -p {missing}");
        }
        let busybox = lab.sh(None, "command -v busybox").stdout;
        if busybox.is_empty() {
            return eprintln!("SKIPPED: busybox is not installed");
        }
        let rootfs = lab.dir.join("box");
        fs::create_dir_all(&rootfs).unwrap();
        fs::copy(busybox.trim(), rootfs.join("busybox")).unwrap();
        let folder = script(lab, "deaf", ANSWER);
        let seen = lab.dir.join("seen");
        let text = fs::read_to_string(folder.join("deaf")).unwrap();
        let del = format!("DEL) nsenter --net=$CNI_NETNS ip -br link >{} ;;\nesac", seen.display());
        fs::write(folder.join("deaf"), text.replace("esac", &del)).unwrap();
        network(lab, "db", "1.0.0", &serde_json::json!([{"type": "deaf"}]));
        let rootfs = rootfs.to_str().unwrap();
        let run =
            ["-q", "-d", "--name", "web", "--rootfs", rootfs, "--network", "db", "/busybox", "sleep", "100"];
        let (status, _, stderr) = with_path(lab, "ctr-run", &run);
        assert_eq!(status, 0, "{stderr}");
        let (status, _, stderr) = with_path(lab, "ctr-rm", &["-q", "-f", "web"]);
        assert_eq!((status, log(lab).as_str(), begun(lab, "db")), (0, "ADD netns,DEL netns,", 0), "{stderr}");
        assert!(fs::read_to_string(seen).unwrap().contains("eth0"));
    });
}

#[test]
fn plugins_that_make_no_interface_are_run_once() {
    isolated("cni::plugins_that_make_no_interface_are_run_once", |lab| {
        script(lab, "quiet", r#"echo '{"cniVersion":"1.0.0"}'"#);
        script(lab, "deaf", ANSWER);
        network(lab, "quiet", "1.0.0", &serde_json::json!([{"type": "quiet"}]));
        network(lab, "db", "1.0.0", &serde_json::json!([{"type": "deaf"}]));
        let mut one = lab.container(1, "{}");
        for _ in 0..2 {
            let (status, record, stderr) = with_path(lab, "net-attach", &["--network", "quiet", "c1"]);
            assert_eq!(status, 0, "{stderr}");
            let record: serde_json::Value = serde_json::from_str(&record).unwrap();
            assert_eq!(record["networks"][0].get("interface"), None, "there is none");
        }
        assert_eq!(log(lab), "ADD netns,CHECK netns,");
        // The first name is free for the network that makes one.
        let (_, record, stderr) = with_path(lab, "net-attach", &["--network", "db", "c1"]);
        let record: serde_json::Value = serde_json::from_str(&record).expect(&stderr);
        assert_eq!(record["networks"][1]["interface"], "eth0");
        assert_eq!(with_path(lab, "net-detach", &["--network", "db", "c1"]).0, 0);
        // What stays is looked at.
        assert_eq!(log(lab), "ADD netns,CHECK netns,ADD netns,DEL netns,CHECK netns,");
        // In the namespace of the next run nothing has been done yet.
        lab.stop(&mut one);
        lab.start(&mut one);
        assert_eq!(with_path(lab, "net-attach", &["c1"]).0, 0);
        assert!(log(lab).ends_with(",DEL ,ADD netns,"), "{}", log(lab));
        assert_eq!((with_path(lab, "net-detach", &["c1"]).0, begun(lab, "quiet")), (0, 0));
    });
}

#[test]
fn name_servers_of_plugins_are_the_containers() {
    isolated("cni::name_servers_of_plugins_are_the_containers", |lab| {
        let answer = r#"printf '%s\n' '{"cniVersion":"1.0.0","dns":{"nameservers":["127.0.0.53","10.7.7.7","fd00::7","x"],"domain":"corp.test","search":["corp.test","lab.test","a b"],"options":["ndots:3","no\nnameserver 6.6.6.6"]}}'"#;
        script(lab, "names", answer);
        network(lab, "corp", "1.0.0", &serde_json::json!([{"type": "names"}]));
        let resolv_conf = |lab: &Lab, id: &str| {
            fs::read_to_string(lab.root().join("containers").join(id).join("resolv.conf")).unwrap()
        };
        let one = lab.container(1, r#"{"network": "corp"}"#);
        let (status, _, stderr) = with_path(lab, "net-attach", &["c1"]);
        assert_eq!(status, 0, "{stderr}");
        let told = "nameserver 10.7.7.7\nnameserver fd00::7\nsearch corp.test lab.test\noptions ndots:3\n";
        assert_eq!(resolv_conf(lab, &one.id), told);
        assert_eq!(with_path(lab, "net-detach", &["c1"]).0, 0);
        assert!(!resolv_conf(lab, &one.id).contains("10.7.7.7"));
        // What the container asks for goes before.
        let two = lab.container(2, r#"{"network": "corp", "dns": ["9.9.9.9"], "dns_search": ["."]}"#);
        assert_eq!(with_path(lab, "net-attach", &["c2"]).0, 0);
        assert_eq!(resolv_conf(lab, &two.id), "nameserver 9.9.9.9\noptions ndots:3\n");
        assert_eq!(with_path(lab, "net-detach", &["c2"]).0, 0);
    });
}

#[test]
fn plugins_are_asked_whether_what_they_made_is_still_so() {
    isolated("cni::plugins_are_asked_whether_what_they_made_is_still_so", |lab| {
        let at = script(lab, "watch", ANSWER);
        network(lab, "db", "1.0.0", &serde_json::json!([{"type": "watch"}]));
        let one = lab.container(1, "{}");
        let attach = |lab: &Lab, flags: &[&str]| with_path(lab, "net-attach", &[flags, &["c1"]].concat());
        assert_eq!(attach(lab, &["--network", "db"]).0, 0);
        let (status, _, stderr) = attach(lab, &[]);
        assert_eq!((status, stderr.as_str(), log(lab).as_str()), (0, "", "ADD netns,CHECK netns,"));
        let asked = fs::read_to_string(at.join("watch.CHECK.json")).unwrap();
        let asked: serde_json::Value = serde_json::from_str(&asked).unwrap();
        assert_eq!(asked["prevResult"]["ips"][0]["address"], "10.1.2.3/24");
        // What they say against it is told; the container's connections are left alone.
        fs::write(at.join("broken"), "").unwrap();
        let (status, _, stderr) = attach(lab, &[]);
        let told = stderr.contains("warning: db: CNI plugin watch: CHECK: its rule is gone");
        assert!(status == 0 && told && log(lab).ends_with(",CHECK netns,CHECK netns,"), "{stderr}");
        // Not where it is not to be asked.
        let list = serde_json::json!({"cniVersion": "1.0.0", "name": "silent", "disableCheck": true, "plugins": [{"type": "watch"}]});
        let definition = serde_json::json!({"name": "silent", "driver": "cni", "cni": list});
        network(lab, "silent", "1.0.0", &serde_json::json!([]));
        fs::write(lab.root().join("networks/silent/network.json"), definition.to_string()).unwrap();
        assert_eq!(with_path(lab, "net-detach", &["c1"]).0, 0);
        lab.must(Some(one.pid), "ip link del eth0");
        for _ in 0..2 {
            let (status, _, stderr) = attach(lab, &["--network", "silent"]);
            assert_eq!(status, 0, "{stderr}");
        }
        assert!(log(lab).ends_with(",DEL netns,ADD netns,"), "{}", log(lab));
    });
}

#[test]
fn one_that_cannot_be_undone_keeps_no_others_from_being_pruned() {
    isolated("cni::one_that_cannot_be_undone_keeps_no_others_from_being_pruned", |lab| {
        let folder = script(lab, "deaf", ANSWER);
        for name in ["a", "b"] {
            network(lab, name, "1.0.0", &serde_json::json!([{"type": "deaf"}]));
        }
        let (mut one, mut two, mut three) =
            (lab.container(1, "{}"), lab.container(2, "{}"), lab.container(3, "{}"));
        for (name, container) in [("a", "c1"), ("a", "c2"), ("b", "c3")] {
            assert_eq!(with_path(lab, "net-attach", &["--network", name, container]).0, 0);
        }
        lab.attach(&one, &["--network", "bridge"]);
        for container in [&mut one, &mut two, &mut three] {
            lab.remove(container);
        }
        let text = fs::read_to_string(folder.join("deaf")).unwrap();
        let del = format!("DEL) test $CNI_CONTAINERID != {} ;;\nesac", one.id);
        fs::write(folder.join("deaf"), text.replace("esac", &del)).unwrap();
        let (status, pruned, stderr) = with_path(lab, "net-prune", &[]);
        assert!(status == 1 && stderr.contains("a: CNI plugin deaf: DEL"), "{status} {stderr}");
        for removed in [&two.id, &three.id, "\"lease\""] {
            assert!(pruned.contains(removed), "{removed}: {pruned}");
        }
        assert_eq!((begun(lab, "a"), begun(lab, "b"), lab.leases().len()), (1, 0, 0));
        fs::write(folder.join("deaf"), text).unwrap();
        assert_eq!((with_path(lab, "net-prune", &[]).0, begun(lab, "a")), (0, 0));
    });
}

#[test]
fn what_fails_leaves_nothing_and_what_is_passed_over_is_told() {
    isolated("cni::what_fails_leaves_nothing_and_what_is_passed_over_is_told", |lab| {
        script(lab, "bad", r#"echo '{"code":11,"msg":"no room"}'; exit 1"#);
        script(lab, "deaf", ANSWER);
        let portmap = serde_json::json!([{"type": "bad", "capabilities": {"portMappings": true}}]);
        network(lab, "bad", "1.0.0", &portmap);
        network(lab, "deaf", "1.0.0", &serde_json::json!([{"type": "deaf"}]));
        network(lab, "missing", "1.0.0", &serde_json::json!([{"type": "nowhere"}]));
        network(lab, "wrong", "1.0.0", &serde_json::json!([{"type": "../../bin/sh"}]));
        let container = lab.container(1, "{}");
        for (arguments, status, why) in [
            (vec!["--network", "bad", "-p", "8080:80"], 7, "CNI plugin bad: ADD: no room (error 11)"),
            (vec!["--network", "deaf", "-p", "8080:80"], 3, "no plugin takes port mappings"),
            (vec!["--network", "deaf:ip=10.1.2.4"], 1, "gave 10.1.2.3 instead of 10.1.2.4"),
            (vec!["--network", "missing"], 4, "no CNI plugin nowhere"),
            (vec!["--network", "wrong"], 3, "cannot be a plugin's name"),
        ] {
            let (got, stdout, stderr) = with_path(lab, "net-attach", &[&arguments[..], &["c1"]].concat());
            assert_eq!((got, stdout.as_str()), (status, ""), "{arguments:?}: {stderr}");
            assert!(stderr.contains(why), "{stderr}");
            assert_eq!(lab.claims(), Vec::<String>::new());
            let record =
                fs::read_to_string(lab.root().join("containers").join(&container.id).join("container.json"));
            assert!(!record.unwrap().contains("\"cni\""));
            lab.sh(Some(container.pid), "ip link del eth0");
        }
        for name in ["bad", "deaf", "wrong"] {
            assert_eq!(begun(lab, name), 0, "{name}");
        }
    });
}

#[test]
fn the_plugins_are_told_who_is_still_there() {
    isolated("cni::the_plugins_are_told_who_is_still_there", |lab| {
        script(lab, "deaf", ANSWER);
        network(lab, "db", "1.1.0", &serde_json::json!([{"type": "deaf"}]));
        let (one, mut two) = (lab.container(1, "{}"), lab.container(2, "{}"));
        let (status, _, stderr) = with_path(lab, "net-attach", &["--network", "db", "c1", "c2"]);
        assert_eq!(status, 0, "{stderr}");
        lab.remove(&mut two);
        assert_eq!(with_path(lab, "net-prune", &[]).0, 0);
        let given = fs::read_to_string(lab.dir.join("plugins/deaf.GC.json")).unwrap();
        let given: serde_json::Value = serde_json::from_str(&given).unwrap();
        let valid = serde_json::json!([{"containerID": one.id, "ifname": "eth0"}]);
        assert_eq!(given["cni.dev/valid-attachments"], valid);
        let steps = with_path(lab, "net-detach", &["--dry-run", "c1"]).1;
        assert!(steps.contains(r#""command":"DEL","plugins":["deaf"]"#), "{steps}");
        let (_, steps, _) = with_path(lab, "net-attach", &["--dry-run", "--network", "db", "c1"]);
        assert_eq!(steps, "", "it is attached");
    });
}

#[test]
fn a_network_of_one_plugin_is_made_attached_to_and_removed() {
    isolated("cni::a_network_of_one_plugin_is_made_attached_to_and_removed", |lab| {
        let path = |tool: &str| std::path::PathBuf::from(lab.command(tool).get_program());
        if let Some(missing) = ["net-create", "net-rm"].into_iter().find(|tool| !path(tool).exists()) {
            return eprintln!("SKIPPED: {missing} is not built: cargo build --release -p {missing}");
        }
        script(lab, "deaf", ANSWER);
        let (status, _, stderr) = with_path(
            lab,
            "net-create",
            &["--driver", "deaf", "--opt", "key=7", "--subnet", "10.1.2.0/24", "db"],
        );
        assert_eq!(status, 0, "{stderr}");
        let container = lab.container(1, "{}");
        let (status, record, stderr) = with_path(lab, "net-attach", &["--network", "db", "c1"]);
        assert_eq!(status, 0, "{stderr}");
        assert!(record.contains("10.1.2.3/24"), "{record}");
        let given = fs::read_to_string(lab.dir.join("plugins/deaf.ADD.json")).unwrap();
        let given: serde_json::Value = serde_json::from_str(&given).unwrap();
        assert_eq!((&given["name"], &given["key"]), (&"db".into(), &7.into()));
        assert_eq!(given["ipam"]["ranges"][0][0]["subnet"], "10.1.2.0/24");
        let (status, _, stderr) = with_path(lab, "net-rm", &["db"]);
        assert_eq!(status, 5, "{stderr}");
        let (status, _, stderr) = with_path(lab, "net-rm", &["--force", "db"]);
        assert_eq!(status, 0, "{stderr}");
        assert!(log(lab).ends_with("ADD netns,DEL netns,"), "{}", log(lab));
        assert!(!lab.root().join("networks/db").exists());
        lab.sh(Some(container.pid), "ip link del eth0");
    });
}
