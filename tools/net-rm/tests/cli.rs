//! The tool as a program, with containers that hold a network namespace, in a network of the test's own.

use serde_json::{Value, json};
use testkit::{Holder, Place, Ran};

const RM: &str = env!("CARGO_BIN_EXE_net-rm");
const OTHERS: [&str; 5] = ["net-create", "net-attach", "net-inspect", "net-ls", "net-prune"];

/// A place in a network of its own, where the other tools are built.
fn place() -> Option<Place> {
    if !testkit::own_network() {
        return None;
    }
    for program in OTHERS {
        if !testkit::profile_dir().join(program).is_file() {
            testkit::skip(&format!("{program} is not built: cargo build --release -p {program}"));
            return None;
        }
    }
    if testkit::find_program("nft").is_none() {
        testkit::skip("nft is not installed");
        return None;
    }
    Some(Place::new())
}

fn rm(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{RM} {arguments}"))
}

fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

fn names(dir: std::path::PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Interfaces of ours on the host.
fn links(place: &Place) -> String {
    let listed = place.sh("ip -br link").expect(0).stdout;
    let ours = listed.lines().filter(|line| line.starts_with("stv") || line.starts_with("staves"));
    ours.filter_map(|line| line.split([' ', '@']).next()).fold(String::new(), |all, name| all + name + " ")
}

/// Whether the container gets an answer from an address, be it that nobody listens.
fn reaches(place: &Place, container: &Holder, address: &str) -> bool {
    let script = format!("exec timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/9'");
    place.sh(&format!("nsenter -t {} -n bash -c {script:?}", container.pid())).stderr.contains("refused")
}

#[test]
fn one_that_containers_are_on_is_refused_and_they_are_named() {
    let Some(place) = place() else { return };
    place.sh("net-create -q --subnet 10.7.0.0/24 one; net-create -q --subnet 10.8.0.0/24 two").expect(0);
    let web = Holder::new(&place, &id('1'), "web", &json!({}));
    let both = place.sh("net-attach --network one --network two web").expect(0).json();
    assert_eq!(both["networks"].as_array().unwrap().len(), 2, "{both}");
    let refused = rm(&place, "one").expect(5);
    assert!(refused.stderr.contains("attached to it: web"), "{}", refused.stderr);
    rm(&place, "--dry-run one").expect(5);
    let planned = rm(&place, "--dry-run --force one").expect(0).stdout;
    let steps: Vec<Value> = planned.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(steps[0], json!({"step": "detach", "network": "one", "container": web.dir.id}));
    assert_eq!(steps[1], json!({"step": "remove_network", "network": "one"}));
    assert!(links(&place).contains("staves1 ") && links(&place).contains("staves2 "), "{}", links(&place));

    // The other network stays as it is, and so does what both share.
    let removed = rm(&place, "--force one").expect(0).json();
    assert_eq!(
        (&removed["networks"][0]["name"], &removed["networks"][0]["containers"]),
        (&json!("one"), &json!([]))
    );
    assert_eq!(names(place.root().join("networks")), ["two"]);
    let record = web.dir.load().unwrap().networks().unwrap();
    assert_eq!(record.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["two"]);
    assert!(!links(&place).contains("staves1 ") && links(&place).contains("staves2 "), "{}", links(&place));
    place.sh("nft list table inet staves").expect(0);
    assert!(reaches(&place, &web, "10.8.0.1"));

    // With the last container the second is free, and nothing is left.
    drop(web);
    rm(&place, "two").expect(0);
    assert_eq!(links(&place), "");
    assert_eq!(place.sh("nft list tables").expect(0).stdout, "");
    assert_eq!(names(place.root().join("tmp")), Vec::<String>::new());
    assert_eq!(names(place.run().join("networks")), Vec::<String>::new());
    rm(&place, "two").expect(4);
    assert_eq!(rm(&place, "--force two").expect(0).stdout, "");
}

#[test]
fn the_default_network_stays() {
    let place = Place::new();
    rm(&place, "bridge").expect(5);
    rm(&place, "--force bridge").expect(5);
    for wrong in ["host", "none", "../x", "''"] {
        rm(&place, wrong).expect(2);
    }
    assert_eq!(rm(&place, "< /dev/null").expect(0).stdout, "");
    place.sh(&format!(r#"echo '{{"networks":[{{"name":"../../x"}}]}}' | {RM}"#)).expect(2);
}

#[test]
fn halves_and_damaged_ones_go() {
    let place = Place::new();
    let dir = place.root().join("networks");
    std::fs::create_dir_all(dir.join("half/leases")).unwrap();
    std::fs::create_dir_all(dir.join("bad/leases")).unwrap();
    std::fs::write(dir.join("bad/network.json"), "{").unwrap();
    std::fs::write(dir.join("half/leases/10.7.0.2"), "no lease").unwrap();
    rm(&place, "half").expect(0);
    let refused = rm(&place, "bad").expect(3);
    assert!(refused.stderr.contains("--force"), "{}", refused.stderr);
    rm(&place, "--force bad").expect(0);
    assert_eq!(names(dir), Vec::<String>::new());
}

#[test]
fn a_definition_that_changed_is_what_the_bridge_becomes() {
    let Some(place) = place() else { return };
    place.sh("net-create -q --subnet 10.7.0.0/24 --mtu 1400 one").expect(0);
    let web = Holder::new(&place, &id('1'), "web", &json!({}));
    place.sh("net-attach --network one web").expect(0);
    let show = || place.sh("ip addr show staves1").expect(0).stdout;
    assert!(show().contains("mtu 1400") && show().contains("10.7.0.1/24"), "{}", show());
    let before = place.sh("ip -o link show staves1 | cut -d: -f1").expect(0).stdout;
    let edit = "jq '.mtu=1300 | .subnets=[{subnet:\"10.9.0.0/24\",gateway:\"10.9.0.254\"}]'";
    let file = "$STAVES_ROOT/networks/one/network.json";
    place.sh(&format!("{edit} {file} >$DIR/new && mv $DIR/new {file}")).expect(0);
    let other = Holder::new(&place, &id('2'), "other", &json!({}));
    let made = place.sh("net-attach --network one other").expect(0).json();
    assert!(made["networks"][0]["addresses"][0].as_str().unwrap().starts_with("10.9.0."), "{made}");
    assert!(
        show().contains("mtu 1300") && show().contains("10.9.0.254/24") && !show().contains("10.7."),
        "{}",
        show()
    );
    assert_eq!(place.sh("ip -o link show staves1 | cut -d: -f1").expect(0).stdout, before, "the same bridge");
    // It is still known for ours, whatever the first subnet was.
    drop((web, other));
    rm(&place, "one").expect(0);
    assert_eq!(links(&place), "");
}

#[test]
fn both_families_forward_and_internal_ones_do_not() {
    let Some(place) = place() else { return };
    if !std::path::Path::new("/proc/sys/net/ipv6").is_dir() {
        return testkit::skip("the kernel has no IPv6");
    }
    let sysctl =
        |name: &str| place.sh(&format!("cat /proc/sys/net/{name}")).expect(0).stdout.trim().to_owned();
    testkit::ip("link add up0 type veth peer name far0");
    let set =
        "echo 1 >/proc/sys/net/ipv6/conf/up0/accept_ra; echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6
        echo 0 >/proc/sys/net/ipv6/conf/all/forwarding; echo 0 >/proc/sys/net/ipv4/ip_forward";
    place.sh(set).expect(0);
    place.sh("net-create -q --internal --ipv6 in; net-create -q --ipv6 out").expect(0);
    let web = Holder::new(&place, &id('1'), "web", &json!({}));
    let ran = place.sh("net-attach --network in web").expect(0);
    assert!(!ran.stderr.contains("forward"), "{}", ran.stderr);
    let inside = ran.json()["networks"][0].clone();
    assert_eq!((&inside["gateway"], &inside["gateway6"]), (&Value::Null, &Value::Null), "{inside}");
    assert_eq!((sysctl("ipv4/ip_forward"), sysctl("ipv6/conf/all/forwarding")), ("0".into(), "0".into()));
    assert_eq!(inside["addresses"].as_array().unwrap().len(), 2);

    let other = Holder::new(&place, &id('2'), "other", &json!({}));
    let ran = place.sh("net-attach --network out other").expect(0);
    assert!(ran.stderr.contains("net.ipv6.conf.all.forwarding was off and is on now"), "{}", ran.stderr);
    assert!(ran.stderr.contains("accept_ra of") && ran.stderr.contains("up0"), "{}", ran.stderr);
    assert_eq!(
        (sysctl("ipv6/conf/all/forwarding"), sysctl("ipv6/conf/up0/accept_ra")),
        ("1".into(), "2".into())
    );
    // Containers do not become the host's router.
    assert_eq!(
        (sysctl("ipv6/conf/staves1/accept_ra"), sysctl("ipv6/conf/staves2/accept_ra")),
        ("0".into(), "0".into())
    );
    let gateway = ran.json()["networks"][0]["gateway6"].as_str().unwrap().to_owned();
    assert!(reaches(&place, &other, &gateway));
    drop((web, other));
    place.sh("net-prune").expect(0);
    assert_eq!(links(&place), "");
}

#[test]
fn subnets_that_came_to_overlap_are_refused() {
    let Some(place) = place() else { return };
    place.sh("net-create -q --subnet 10.7.0.0/24 one; net-create -q --subnet 10.8.0.0/24 two").expect(0);
    let _web = Holder::new(&place, &id('1'), "web", &json!({}));
    testkit::ip("link add up0 type veth peer name far0");
    testkit::ip("address add 10.7.0.77/16 dev up0");
    let ran = place.sh("net-attach --network one web").expect(5);
    assert!(ran.stderr.contains("10.7.0.0/24 is in use on up0"), "{}", ran.stderr);
    let file = "$STAVES_ROOT/networks/two/network.json";
    place.sh(&format!("sed -i s/10.8.0/10.89.7/ {file}")).expect(0);
    let ran = place.sh("net-attach --network two web").expect(5);
    assert!(ran.stderr.contains("by network bridge"), "{}", ran.stderr);
    place.sh("net-prune").expect(0);
    assert_eq!(links(&place), "");
}

#[test]
fn removing_and_attaching_at_once_leaves_one_or_the_other() {
    let Some(place) = place() else { return };
    let _web = Holder::new(&place, &id('1'), "web", &json!({}));
    for round in 0..15 {
        place.sh("net-create -q --subnet 10.7.0.0/24 one").expect(0);
        place
            .sh("net-attach --network one web >/dev/null 2>$DIR/attach & net-rm one >/dev/null 2>&1; wait")
            .expect(0);
        let attached =
            place.sh("net-inspect one 2>/dev/null | jq -r '.networks[0].containers[].name'").stdout;
        let removed = !place.root().join("networks/one/network.json").exists();
        let record = place.store().container_dir(&id('1')).load().unwrap().networks().unwrap();
        // Attached to what is there, or removed and told of.
        assert_eq!(attached.trim().is_empty(), record.is_empty(), "round {round}: {attached} {record:?}");
        if removed {
            let told = std::fs::read_to_string(place.path().join("attach")).unwrap();
            assert!(record.is_empty() && told.contains("no such network"), "round {round}: {told}");
        }
        rm(&place, "--force one").expect(0);
        assert_eq!(links(&place), "", "round {round}");
        assert!(!place.root().join("networks/one").exists());
    }
    assert_eq!(place.sh("nft list tables").expect(0).stdout, "");
}

#[test]
fn killed_at_any_moment_the_next_one_completes_it() {
    let Some(place) = place() else { return };
    let mut usual = std::time::Duration::from_millis(30);
    for moment in 0..40 {
        place
            .sh("net-create -q --ipv6 --subnet 10.7.0.0/24 one; net-create -q --subnet 10.8.0.0/24 two")
            .expect(0);
        let web = Holder::new(&place, &id('1'), "web", &json!({}));
        place.sh("net-attach --network one --network two -p 8080:80 web").expect(0);
        let began = std::time::Instant::now();
        let mut child = place.command(RM).args(["-q", "--force", "one"]).spawn().unwrap();
        if moment == 0 {
            child.wait().unwrap();
            usual = began.elapsed();
        } else {
            std::thread::sleep(usual.mul_f64(1.1) * moment / 40);
            child.kill().unwrap();
            child.wait().unwrap();
        }
        // Half of it hides nothing, and the same again does the rest.
        place.sh("net-ls -q").expect(0);
        rm(&place, "-q --force one").expect(0);
        assert!(!place.root().join("networks/one").exists(), "moment {moment}");
        let left = place.sh("net-inspect two").expect(0).json();
        assert_eq!(left["networks"][0]["containers"].as_array().unwrap().len(), 1, "moment {moment}: {left}");
        rm(&place, "-q --force two").expect(0);
        place.store().sweep_scratch().unwrap();
        drop(web);
        place
            .sh("net-prune; rm -rf $STAVES_ROOT/containers $STAVES_ROOT/names $STAVES_RUN/containers")
            .expect(0);
        assert_eq!(links(&place), "", "moment {moment}");
        assert_eq!(place.sh("nft list tables").expect(0).stdout, "", "moment {moment}");
        assert_eq!(names(place.root().join("tmp")), Vec::<String>::new(), "moment {moment}");
        assert_eq!(names(place.run().join("ports")), Vec::<String>::new(), "moment {moment}");
    }
}

#[test]
fn links_on_top_of_others_go_with_what_was_made_for_them() {
    let Some(place) = place() else { return };
    testkit::ip("link add up0 type veth peer name far0");
    testkit::ip("link set up0 up");
    if !place.sh("ip link add probe link up0 type macvlan mode bridge && ip link del probe").stderr.is_empty()
    {
        return testkit::skip("the kernel has no macvlan");
    }
    place.sh("net-create -q --driver macvlan --parent up0 --subnet 192.0.2.0/24 lan").expect(0);
    let web = Holder::new(&place, &id('1'), "web", &json!({}));
    place.sh("net-attach --network lan web").expect(0);
    let refused = rm(&place, "lan").expect(5);
    assert!(refused.stderr.contains("attached to it: web"), "{}", refused.stderr);
    rm(&place, "--force lan").expect(0);
    assert_eq!(place.sh(&format!("nsenter -t {} -n ip -br link | grep -c eth0", web.pid())).stdout, "0\n");
    place.sh("ip link show up0").expect(0);
    assert_eq!(names(place.root().join("networks")), Vec::<String>::new());
}
