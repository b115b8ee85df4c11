//! The tool as a program.

use serde_json::json;
use testkit::{Place, Ran};

fn put(place: &Place, name: &str, more: &serde_json::Value) {
    let dir = place.root().join("volumes").join(name);
    std::fs::create_dir_all(dir.join("_data")).unwrap();
    let mut info = json!({"name": name, "driver": "local"});
    info.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(dir.join("volume.json"), info.to_string()).unwrap();
}

fn prune(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{} {arguments}", env!("CARGO_BIN_EXE_vol-prune")))
}

#[test]
fn what_nobody_uses_goes_and_names_stay_unless_all_go() {
    let place = Place::new();
    assert_eq!(prune(&place, "").expect(0).stdout, "");
    put(&place, "named", &json!({}));
    put(&place, "kept", &json!({"labels": {"keep": ""}}));
    put(&place, "anonymous", &json!({"anonymous": true}));
    put(&place, "used", &json!({"anonymous": true}));
    place.container(&"1".repeat(64), "web", &json!({"volumes": [{"name": "used", "target": "/d"}]}));
    put(&place, "aged", &json!({"created_at": "2026-01-02T03:04:05Z"}));
    assert_eq!(prune(&place, "-q -a --filter until=2026-01-02").expect(0).stdout, "");
    assert_eq!(prune(&place, "-q -a --filter until=24h --filter label!=x").expect(0).stdout, "aged\n");
    prune(&place, "--filter until=soon").expect(2);
    let planned = prune(&place, "--dry-run -a").expect(0);
    assert_eq!(planned.stdout.lines().count(), 3, "{}", planned.stdout);
    assert_eq!(prune(&place, "-q").expect(0).stdout, "anonymous\n");
    let record = prune(&place, "--filter all=true --filter 'label!=keep'").expect(0).json();
    assert_eq!(record["volumes"][0]["name"], "named");
    assert!(record["reclaimed_bytes"].is_u64());
    let table = prune(&place, "-a -f --output table").expect(0).stdout;
    assert!(table.starts_with("Deleted Volumes:\nkept\nTotal reclaimed space: "), "{table}");
    assert!(place.root().join("volumes/used").exists());
    prune(&place, "--filter colour=red").expect(2);
}
