//! The tool as a program.

use serde_json::json;
use store::{Lease, Lock};
use testkit::{Place, Ran};

const INSPECT: &str = env!("CARGO_BIN_EXE_net-inspect");

fn inspect(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{INSPECT} {arguments}"))
}

#[test]
fn who_is_on_it() {
    let place = Place::new();
    let dir = place.root().join("networks/web");
    std::fs::create_dir_all(&dir).unwrap();
    let file = json!({"name": "web", "driver": "bridge", "device": "br-web", "mine": {"a": 1},
        "subnets": [{"subnet": "10.7.0.0/24"}, {"subnet": "fd00:7::/64", "gateway": "fd00:7::9"}]});
    std::fs::write(dir.join("network.json"), file.to_string()).unwrap();
    let store = place.store();
    let leases = store.leases("web").unwrap();
    // Only the first is looked after.
    let ids = ["1".repeat(64), "2".repeat(64)];
    for (n, id) in ids.iter().enumerate() {
        let attachment = json!({"name": "web", "interface": "eth1", "addresses": [format!("10.7.0.{}/24", n + 2)],
            "mac": "02:42:0a:07:00:02", "ports": []});
        place.container(id, &format!("c{n}"), &json!({"networks": [attachment]}));
        let lease = Lease {
            container: id.clone(),
            interface: "eth1".into(),
            names: vec![format!("c{n}")],
            ..Lease::default()
        };
        for address in [format!("10.7.0.{}", n + 2), format!("fd00:7::{}", n + 2)] {
            assert!(leases.take(&store, address.parse().unwrap(), &lease).unwrap());
        }
    }
    let run = store.container_dir(&ids[0]).run;
    std::fs::create_dir_all(&run).unwrap();
    let _shim = Lock::exclusive(&run.join("lock")).unwrap();
    let record = inspect(&place, "web").expect(0).json();
    let shown = &record["networks"][0];
    let containers = json!([{"id": ids[0], "name": "c0", "interface": "eth1", "addresses": ["10.7.0.2/24", "fd00:7::2/64"],
        "mac": "02:42:0a:07:00:02"}]);
    assert_eq!(shown["containers"], containers);
    assert_eq!(
        (&shown["in_use"], &shown["active"], &shown["mine"]["a"]),
        (&json!(true), &json!(false), &json!(1))
    );
    assert_eq!(shown["subnets"][1]["gateway"], "fd00:7::9");
    // Of a container's record, beside what it says of its attachment.
    let record =
        r#"{"later":[1.50],"networks":[{"name":"web","mac":"02:00:00:00:00:01"},{"name":"bridge"}]}"#;
    let ran = place.sh(&format!("echo '{record}' | {INSPECT}")).expect(0);
    assert_eq!(ran.stdout.lines().count(), 2);
    let first: serde_json::Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["networks"][0]["mac"], &first["networks"][0]["device"]),
        (&json!("02:00:00:00:00:01"), &json!("br-web"))
    );
    assert!(ran.stdout.contains("\"later\":[1.50]"), "{}", ran.stdout);
    // People see it in several lines.
    assert!(inspect(&place, "--output table web").expect(0).stdout.lines().count() > 10);
    inspect(&place, "none-such").expect(4);
    inspect(&place, "../web").expect(2);
    assert_eq!(inspect(&place, "< /dev/null").expect(0).stdout, "");
}
