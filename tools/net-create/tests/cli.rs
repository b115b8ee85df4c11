//! The tool as a program.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use testkit::{Place, Ran};

const CREATE: &str = env!("CARGO_BIN_EXE_net-create");

fn create(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{CREATE} {arguments}"))
}

fn file(place: &Place, name: &str) -> Value {
    let path = place.root().join("networks").join(name).join("network.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn put(place: &Place, name: &str, content: &str) {
    let dir = place.root().join("networks").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("network.json"), content).unwrap();
}

#[test]
fn what_is_not_given_is_chosen_clear_of_what_is_there() {
    if !testkit::own_network() {
        return;
    }
    let place = Place::new();
    testkit::ip("link add staves1 type veth peer name other");
    testkit::ip("address add 10.90.0.5/24 dev staves1");
    testkit::ip("link set staves1 up");
    testkit::ip("link set other up");
    testkit::ip("route add 10.90.2.0/23 dev staves1");
    // VPNs stand in for the default route so; all that is reached by it is not taken.
    testkit::ip("route add 0.0.0.0/1 dev staves1");
    let record = create(&place, "--ipv6 --label a=b --mtu 1400 web").expect(0).json();
    let made = &record["networks"][0];
    assert_eq!((&made["device"], &made["subnets"][0]["subnet"]), (&json!("staves2"), &json!("10.90.1.0/24")));
    assert_eq!(made["subnets"][0]["gateway"], "10.90.1.1");
    let six = made["subnets"][1]["subnet"].as_str().unwrap();
    assert!(six.starts_with("fd") && six.ends_with("::/64"), "{six}");
    assert_eq!(
        (&made["active"], &made["in_use"], &made["dns"]["enabled"]),
        (&json!(false), &json!(false), &json!(true))
    );
    let kept = file(&place, "web");
    assert_eq!((&kept["mtu"], &kept["labels"]["a"]), (&json!(1400), &json!("b")));
    assert!(kept["created_at"].as_str().unwrap().ends_with('Z'));
    // Files are all that is made.
    assert!(!std::path::Path::new("/proc/sys/net/ipv4/conf/staves2").exists());
    assert_eq!(create(&place, "-q next").expect(0).stdout, "next\n");
    assert_eq!(file(&place, "next")["subnets"][0]["subnet"], "10.90.4.0/24");
    // A second address family gets its own of the machine's prefix.
    create(&place, "--ipv6 third").expect(0);
    let second = file(&place, "third")["subnets"][1]["subnet"].as_str().unwrap().to_owned();
    assert!(second != six && second[..12] == six[..12], "{second} {six}");
    let clash = create(&place, "--subnet 10.90.2.0/28 clash").expect(5);
    assert!(clash.stderr.contains("10.90.2.0/23, which the host reaches elsewhere"), "{}", clash.stderr);
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn made_again_it_is_found_or_another() {
    let place = Place::new();
    create(&place, "--subnet 10.7.0.0/24 --opt com.docker.network.bridge.name=br-web web").expect(0);
    assert_eq!(file(&place, "web")["device"], "br-web");
    let before = file(&place, "web");
    create(&place, "--subnet 10.7.0.0/24 web").expect(0);
    create(&place, "web").expect(0);
    for other in ["--internal web", "--subnet 10.8.0.0/24 web", "--driver none web", "--device br-web other"]
    {
        create(&place, other).expect(5);
    }
    create(&place, "--ignore --internal -q web").expect(0);
    // What is in the way of a subnet is no network of that name.
    let ran = create(&place, "--ignore --subnet 10.7.0.0/16 wide").expect(5);
    assert!(ran.stderr.contains("10.7.0.0/24 of network web"), "{}", ran.stderr);
    assert_eq!(file(&place, "web"), before);
    create(&place, "bridge").expect(5);
    for wrong in [
        "none",
        "../x",
        "--subnet 10.1.0.1/24 a",
        "--gateway 10.1.0.1 a",
        "--driver overlay a",
        "--opt vlan=3 a",
        "--mode l2 a",
        "--dns 1.1.1.1 --no-dns a",
        "--dns one a",
        "--mtu 5 a",
        "--subnet 10.1.0.0/24 a b",
        "--label =x a",
        "--subnet 127.0.0.0/8 a",
        "--device a/b a",
    ] {
        let ran = create(&place, wrong).expect(2);
        assert!(ran.stdout.is_empty(), "{wrong}: {}", ran.stdout);
    }
    assert_eq!(std::fs::read_dir(place.root().join("networks")).unwrap().count(), 1);
}

#[test]
fn what_docker_and_podman_know_is_written_down_or_refused_with_a_way_out() {
    let place = Place::new();
    let options = [
        "com.docker.network.bridge.enable_icc=false",
        "com.docker.network.bridge.enable_ip_masquerade=false",
        "com.docker.network.bridge.host_binding_ipv4=127.0.0.1",
        "no_default_route=1",
    ]
    .map(|option| format!("--opt {option}"))
    .join(" ");
    let more = "--attachable --scope local --ipam-driver default --route 10.5.0.0/16,10.7.0.9,100 --subnet 10.7.0.0/24";
    create(&place, &format!("{options} {more} shut")).expect(0);
    let made = file(&place, "shut");
    assert_eq!([&made["no_icc"], &made["no_masquerade"], &made["no_default_route"]], [&json!(true); 3]);
    assert_eq!(made["host_binding"], "127.0.0.1");
    assert_eq!(made["routes"], json!([{"destination": "10.5.0.0/16", "gateway": "10.7.0.9", "metric": 100}]));
    create(&place, &format!("{options} {more} shut")).expect(0);
    create(&place, "--opt no_default_route=0 shut").expect(5);
    create(&place, "--route 10.5.0.0/16,10.7.0.8 shut").expect(5);
    create(&place, "--opt outbound_addr4=192.0.2.9 --opt outbound_addr6=2001:db8::9 seen").expect(0);
    assert_eq!(file(&place, "seen")["outbound"], json!(["192.0.2.9", "2001:db8::9"]));

    // IPv6 alone, and the same when it is asked for again.
    for _ in 0..2 {
        create(&place, "--ipv4=false six").expect(0);
    }
    let six = file(&place, "six");
    let subnets = six["subnets"].as_array().unwrap();
    assert!(subnets.len() == 1 && subnets[0]["subnet"].as_str().unwrap().starts_with("fd"), "{six}");
    create(&place, "--ipv4 --ipv6=false four").expect(0);
    assert_eq!(file(&place, "four")["subnets"].as_array().unwrap().len(), 1);
    // One that is there with the other family is another.
    create(&place, "--ipv4=false four").expect(5);
    create(&place, "--ipv6 four").expect(5);

    for (wrong, hint) in [
        ("--ipv4=false --ipv6=false a", "--driver none"),
        ("--ipv4=false --subnet 10.1.0.0/24 a", ""),
        ("--ipv6=false --subnet fd01::/64 a", ""),
        ("--route 10.5.0.0/16,10.8.0.9 --subnet 10.1.0.0/24 a", ""),
        ("--route 0.0.0.0/0,10.1.0.9 --subnet 10.1.0.0/24 a", ""),
        ("--route 10.5.0.0/16,blackhole a", "DESTINATION,GATEWAY"),
        ("--route 10.5.0.0/16,10.1.0.9 --driver none a", ""),
        ("--ingress a", "leave it out"),
        ("--config-only a", "net-inspect"),
        ("--config-from b a", "net-inspect"),
        ("--scope swarm a", "leave it out"),
        ("--ipam-driver dhcp --driver macvlan a", "--driver cni:macvlan"),
        ("--ipam-opt a=b a", "--driver cni:macvlan"),
        ("--opt com.docker.network.bridge.enable_icc=maybe a", ""),
        ("--opt com.docker.network.bridge.enable_ip_masquerade=false --opt outbound_addr4=192.0.2.9 a", ""),
        ("--opt outbound_addr4=127.0.0.1 a", ""),
        ("--opt com.docker.network.bridge.host_binding_ipv4=224.0.0.1 a", ""),
        ("--driver macvlan --opt outbound_addr4=192.0.2.9 a", ""),
    ] {
        let ran = create(&place, wrong).expect(2);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(hint), "{wrong}: {}", ran.stderr);
    }
}

#[test]
fn a_plan_is_what_is_done() {
    let place = Place::new();
    let step = create(&place, "--dry-run --ipv6 web").expect(0).json();
    assert_eq!((&step["step"], &step["network"]), (&json!("make_network"), &json!("web")));
    assert!(!place.root().exists(), "a plan makes nothing");
    create(&place, "--ipv6 web").expect(0);
    let made = file(&place, "web");
    assert_eq!(step["subnets"], json!([made["subnets"][0]["subnet"], made["subnets"][1]["subnet"]]));
    assert_eq!(create(&place, "--dry-run --ipv6 web").expect(0).stdout, "");
    create(&place, "--dry-run --internal web").expect(5);
}

#[test]
fn fifty_at_once_are_fifty() {
    let place = Place::new();
    let running: Vec<_> = (0..50)
        .map(|n| {
            let mut command = place.command(CREATE);
            command.args(["--ipv6", "-q", &format!("n{n}")]).stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
        .collect();
    for child in running {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let (mut subnets, mut devices) = (BTreeSet::new(), BTreeSet::new());
    for n in 0..50 {
        let made = file(&place, &format!("n{n}"));
        for subnet in made["subnets"].as_array().unwrap() {
            assert!(subnets.insert(subnet["subnet"].as_str().unwrap().to_owned()), "{subnet} twice");
        }
        assert!(devices.insert(made["device"].as_str().unwrap().to_owned()), "{made}");
    }
    assert_eq!((subnets.len(), devices.len()), (100, 50));
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn one_name_many_times_at_once_is_one_network() {
    let place = Place::new();
    let ran = place.sh(&format!("for n in $(seq 20); do {CREATE} web & done | sort -u | wc -l")).expect(0);
    assert_eq!((ran.stdout.trim(), ran.stderr.as_str()), ("1", ""));
}

#[test]
fn what_inspect_prints_is_made() {
    let place = Place::new();
    create(&place, "--internal --label a=b --subnet 10.7.0.0/24 --ip-range 10.7.0.128/25 web").expect(0);
    let script = format!(
        "{CREATE} web --ignore | jq -c '.mine=1.50 | .networks[0] |= (.name=\"two\" | del(.subnets, .device))'"
    );
    let made = place.sh(&format!("{script} | {CREATE}")).expect(0);
    assert!(made.stdout.contains("\"mine\":1.50") || made.stdout.contains("\"mine\":1.5"), "{}", made.stdout);
    let two = file(&place, "two");
    assert_eq!((&two["internal"], &two["labels"]["a"]), (&json!(true), &json!("b")));
    assert_eq!((&two["subnets"][0]["subnet"], &two["active"]), (&json!("10.90.0.0/24"), &Value::Null));
    // The same record again makes nothing new; one that overlaps is refused.
    place.sh(&format!("{CREATE} web --ignore | {CREATE}")).expect(0);
    place.sh(&format!("{CREATE} web --ignore | jq -c '.networks[0].name=\"x\"' | {CREATE}")).expect(5);
    let record = r#"{"networks":[{"name":"bridge","addresses":["10.89.0.2/16"]}]}"#;
    place.sh(&format!("echo '{record}' | {CREATE}")).expect(3);
    for wrong in [r#"{"networks":[]}"#, "{}", r#"{"networks":[{"name":7}]}"#, "", "{"] {
        place.sh(&format!("echo '{wrong}' | {CREATE}")).expect(3);
    }
    for hostile in ["../../x", "a/b", ".", ""] {
        place
            .sh(&format!(r#"echo '{{"networks":[{{"name":"{hostile}","driver":"bridge"}}]}}' | {CREATE}"#))
            .expect(2);
    }
    assert_eq!(std::fs::read_dir(place.root().join("networks")).unwrap().count(), 2);
}

#[test]
fn damaged_definitions_are_told_of_and_in_nobodys_way() {
    let place = Place::new();
    let long = format!(r#"{{"name":"x","driver":"bridge","x":"{}"}}"#, "x".repeat(2 << 20));
    let many: Vec<Value> = (0..200).map(|n| json!({"subnet": format!("10.{n}.0.0/16")})).collect();
    let many = json!({"name": "x", "driver": "bridge", "device": "d", "subnets": many}).to_string();
    let deep = "[".repeat(100_000);
    for (n, content) in [
        "",
        "{",
        "[]",
        "7",
        &long,
        &many,
        &deep,
        r#"{"driver":"bridge","device":"../x","subnet":"10.90.0.0/24"}"#,
    ]
    .into_iter()
    .enumerate()
    {
        put(&place, &format!("bad{n}"), content);
    }
    // Somebody else's name does not make it somebody else.
    put(&place, "odd", r#"{"name":"../evil","driver":"bridge","device":"odd0","subnet":"10.90.0.0/24"}"#);
    let ran = create(&place, "web").expect(0);
    assert_eq!(ran.stderr.matches("a damaged network").count(), 8, "{}", ran.stderr);
    assert_eq!(file(&place, "web")["subnets"][0]["subnet"], "10.90.1.0/24");
    create(&place, "bad1").expect(3);
}

#[test]
fn addresses_of_others_are_kept_for_them() {
    let place = Place::new();
    let ask =
        "--subnet 10.7.0.0/29 --subnet fd00:7::/64 --aux-address router=10.7.0.2 --aux-address six=fd00:7::9";
    let made = create(&place, &format!("{ask} lan")).expect(0).json();
    assert_eq!(made["networks"][0]["subnets"][0]["aux_addresses"], json!({"router": "10.7.0.2"}));
    assert_eq!(file(&place, "lan")["subnets"][1]["aux_addresses"], json!({"six": "fd00:7::9"}));
    // The same again is the same; other addresses are another network.
    create(&place, &format!("{ask} lan")).expect(0);
    create(&place, "--subnet 10.7.0.0/29 --aux-address router=10.7.0.3 lan").expect(5);
    for wrong in
        ["router=10.8.0.2", "router=10.7.1.1", "router", "=10.7.1.2", "a=10.7.1.2 --aux-address b=10.7.1.2"]
    {
        create(&place, &format!("--subnet 10.7.1.0/24 --aux-address {wrong} other")).expect(2);
    }
    create(&place, "--aux-address router=10.7.1.2 other").expect(2);
}

#[test]
fn plugins_are_configured_by_options_or_by_a_file() {
    let mut place = Place::new();
    let plugins = place.path().join("plugins");
    std::fs::create_dir_all(&plugins).unwrap();
    std::fs::write(plugins.join("wire"), "").unwrap();
    // A file nobody may execute is no plugin.
    create(&place, "--driver wire zero").expect(2);
    std::fs::set_permissions(plugins.join("wire"), std::fs::Permissions::from_mode(0o755)).unwrap();
    place.set("STAVES_CNI_PATH", plugins.display().to_string());
    let made = create(&place, "--driver wire --opt ipMasq=true --opt mtu=1400 one").expect(0).json();
    let plugin = &made["networks"][0]["cni"]["plugins"][0];
    assert_eq!(
        (&plugin["type"], &plugin["ipMasq"], &plugin["mtu"]),
        (&json!("wire"), &json!(true), &json!(1400))
    );
    assert_eq!(plugin["ipam"]["ranges"][0][0]["subnet"], made["networks"][0]["subnets"][0]["subnet"]);
    assert_eq!(made["networks"][0]["driver"], "cni");
    let list = json!({"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "wire", "x": 1}, {"type": "portmap"}]});
    std::fs::write(place.path().join("list"), list.to_string()).unwrap();
    create(&place, "--cni $DIR/list two").expect(0);
    assert_eq!(file(&place, "two")["cni"], list);
    for (wrong, status) in [
        ("--driver cni three", 2),
        ("--driver bridge --cni $DIR/list three", 2),
        ("--driver wire --internal three", 2),
        ("--cni $DIR/list --opt a=b three", 2),
        ("--cni $DIR/none three", 2),
        ("--cni /dev/zero three", 3),
        ("--driver ../plugins/wire three", 2),
    ] {
        create(&place, wrong).expect(status);
    }
}

#[test]
fn killed_at_any_moment_it_is_there_whole_or_not_at_all() {
    let place = Place::new();
    let began = std::time::Instant::now();
    create(&place, "-q first").expect(0);
    let usual = began.elapsed();
    for moment in 0..60 {
        let name = format!("n{moment}");
        let mut child = place.command(CREATE).args(["-q", &name]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(usual.mul_f64(1.1) * moment / 60);
        child.kill().unwrap();
        child.wait().unwrap();
        let path = place.root().join("networks").join(&name).join("network.json");
        if path.exists() {
            assert_eq!(file(&place, &name)["name"], *name);
        }
        create(&place, &format!("-q {name}")).expect(0);
    }
    place.store().sweep_scratch().unwrap();
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
}
