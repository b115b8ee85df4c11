//! The tool as a program, over several networks.

use serde_json::{Value, json};
use testkit::{Holder, Place, Ran};

const PRUNE: &str = env!("CARGO_BIN_EXE_net-prune");

fn prune(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{PRUNE} {arguments}"))
}

/// Without interfaces: those of a namespace that is ending go by themselves, sooner or later.
fn kinds(ran: &Ran) -> Vec<String> {
    let of = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap();
        let thing = if record["pruned"].is_object() { &record["pruned"] } else { &record };
        format!("{} {}", thing["kind"].as_str().unwrap(), thing["name"].as_str().unwrap())
    };
    ran.stdout.lines().map(of).filter(|thing| !thing.starts_with("interface ")).collect()
}

fn put(place: &Place, name: &str, content: &str) {
    let dir = place.root().join("networks").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("network.json"), content).unwrap();
}

fn network(name: &str, subnet: &str) -> String {
    json!({"name": name, "driver": "bridge", "device": format!("br-{name}"), "subnets": [{"subnet": subnet}], "labels": {"l": name}})
        .to_string()
}

/// Whether the container gets an answer from an address, be it that nobody listens.
fn reaches(place: &Place, container: &Holder, address: &str) -> bool {
    let script = format!("exec timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/9'");
    place.sh(&format!("nsenter -t {} -n bash -c {script:?}", container.pid())).stderr.contains("refused")
}

#[test]
fn halves_go_and_damaged_ones_are_told_of() {
    if !testkit::own_network() {
        return;
    }
    let place = Place::new();
    put(&place, "good", &network("good", "10.7.0.0/24"));
    put(&place, "bad", "{");
    let half = place.root().join("networks/half/leases");
    std::fs::create_dir_all(&half).unwrap();
    // Of an attachment that was being made while the network was removed.
    std::fs::write(
        half.join("10.8.0.2"),
        json!({"container": "1".repeat(64), "interface": "eth0"}).to_string(),
    )
    .unwrap();
    let expected = ["lease 10.8.0.2", "network half"];
    assert_eq!(kinds(&prune(&place, "--dry-run").expect(0)), expected);
    assert!(half.exists());
    let ran = prune(&place, "").expect(0);
    assert_eq!(kinds(&ran), expected);
    assert!(ran.stderr.contains("left alone") && ran.stderr.contains("bad"), "{}", ran.stderr);
    assert!(!place.root().join("networks/half").exists() && place.root().join("networks/good").exists());
    assert_eq!(prune(&place, "").expect(0).stdout, "");
}

#[test]
fn unused_networks_go_when_asked_for() {
    if !testkit::own_network() {
        return;
    }
    let place = Place::new();
    for (number, name) in ["free", "kept", "wished", "attached", "bridge"].into_iter().enumerate() {
        put(&place, name, &network(name, &format!("10.7.{number}.0/24")));
    }
    place.container(&"1".repeat(64), "one", &json!({"config": {"network": "wished"}}));
    place.container(&"2".repeat(64), "two", &json!({"networks": [{"name": "attached"}]}));
    assert_eq!(prune(&place, "").expect(0).stdout, "");
    // By age: what has none is not older than anything.
    let mut aged: serde_json::Value = serde_json::from_str(&network("aged", "10.7.7.0/24")).unwrap();
    aged["created_at"] = json!("2026-01-02T03:04:05Z");
    put(&place, "aged", &aged.to_string());
    assert_eq!(prune(&place, "--unused --filter until=2026-01-02T03:04:05Z").expect(0).stdout, "");
    assert_eq!(prune(&place, "--unused --filter until=24h --filter label=x").expect(0).stdout, "");
    assert_eq!(kinds(&prune(&place, "--unused --filter until=1767323046").expect(0)), ["network aged"]);
    prune(&place, "--unused --filter until=soon").expect(2);
    let all = ["network free", "network kept"];
    assert_eq!(kinds(&prune(&place, "--dry-run --unused").expect(0)), all);
    assert_eq!(kinds(&prune(&place, "--unused --filter label!=l=kept").expect(0)), ["network free"]);
    assert_eq!(kinds(&prune(&place, "-u -f").expect(0)), ["network kept"]);
    assert_eq!(std::fs::read_dir(place.root().join("networks")).unwrap().count(), 3);
    prune(&place, "--filter label=a").expect(2);
    // What a container needs cannot be known if its record cannot be read.
    std::fs::write(place.root().join("containers").join("1".repeat(64)).join("container.json"), "{").unwrap();
    put(&place, "free", &network("free", "10.7.9.0/24"));
    assert_ne!(prune(&place, "--unused").status, 0);
    assert!(place.root().join("networks/free").exists());
}

#[test]
fn the_table_goes_with_the_last_of_several() {
    if !testkit::own_network() {
        return;
    }
    for program in ["net-attach", "net-detach"] {
        if !testkit::profile_dir().join(program).is_file() {
            return testkit::skip(&format!("{program} is not built: cargo build --release -p {program}"));
        }
    }
    if testkit::find_program("nft").is_none() {
        return testkit::skip("nft is not installed");
    }
    let place = Place::new();
    put(&place, "one", &network("one", "10.7.0.0/24"));
    put(&place, "two", &network("two", "10.8.0.0/24"));
    let first = Holder::new(&place, &"1".repeat(64), "first", &json!({}));
    let second = Holder::new(&place, &"2".repeat(64), "second", &json!({}));
    place
        .sh("net-attach --network one -p 8080:80 first && net-attach --network two -p 8081:80 second")
        .expect(0);
    assert_eq!(prune(&place, "").expect(0).stdout, "", "all is in use");
    // The first one's end: its network's bridge goes, and the second's container stays reached.
    drop(first);
    let planned = kinds(&prune(&place, "--dry-run").expect(0));
    let ran = kinds(&prune(&place, "").expect(0));
    assert!(
        ran.contains(&"bridge br-one".to_owned()) && !ran.iter().any(|line| line.starts_with("table")),
        "{ran:?}"
    );
    assert_eq!(planned, ran);
    let table = place.sh("nft list table inet staves").expect(0).stdout;
    assert!(table.contains("8081") || table.contains("tproxy") || table.contains("br-two"), "{table}");
    assert!(!table.contains("8080"), "{table}");
    place.sh("ip link show br-two").expect(0);
    assert!(reaches(&place, &second, "10.8.0.1"));
    drop(second);
    let ran = kinds(&prune(&place, "").expect(0));
    assert!(ran.contains(&"bridge br-two".to_owned()) && ran.contains(&"table staves".to_owned()), "{ran:?}");
    assert_eq!(place.sh("nft list tables").expect(0).stdout, "");
    assert_eq!(place.sh("ip -br link | grep -c '^stv\\|^br-'").stdout, "0\n");

    // Somebody who removes the directory by hand leaves a bridge, which is known by what it was made as.
    let third = Holder::new(&place, &"3".repeat(64), "third", &json!({}));
    place.sh("net-attach --network two third && rm -r $STAVES_ROOT/networks/two").expect(0);
    drop(third);
    let planned = kinds(&prune(&place, "--dry-run").expect(0));
    assert_eq!(planned, kinds(&prune(&place, "").expect(0)));
    assert!(
        planned.contains(&"bridge br-two".to_owned()) && planned.contains(&"table staves".to_owned()),
        "{planned:?}"
    );
    assert_eq!(place.sh("nft list tables").expect(0).stdout, "");
    assert_eq!(std::fs::read_dir(place.run().join("networks")).unwrap().count(), 1);
}
