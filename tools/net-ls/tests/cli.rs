//! The tool as a program.

use serde_json::{Value, json};
use testkit::{Place, Ran};

const LS: &str = env!("CARGO_BIN_EXE_net-ls");

fn put(place: &Place, name: &str, members: &Value) {
    let dir = place.root().join("networks").join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let mut file = json!({"name": name, "driver": "bridge", "device": format!("br-{name}")});
    for (member, value) in members.as_object().unwrap() {
        file[member] = value.clone();
    }
    std::fs::write(dir.join("network.json"), file.to_string()).unwrap();
}

fn ls(place: &Place, arguments: &str) -> Ran {
    place.sh(&format!("{LS} {arguments}"))
}

#[test]
fn the_default_network_is_there_before_it_is_made() {
    let place = Place::new();
    let record = ls(&place, "").expect(0).json();
    assert_eq!(record["networks"][0]["name"], "bridge");
    assert_eq!(record["networks"][0]["subnets"], json!([{"subnet": "10.89.0.0/16", "gateway": "10.89.0.1"}]));
    assert!(!place.root().exists(), "listing makes nothing");
    assert_eq!(ls(&place, "-q --filter type=custom").expect(0).stdout, "");
    ls(&place, "--filter colour=red").expect(2);
}

#[test]
fn filters_and_users() {
    let place = Place::new();
    put(
        &place,
        "web",
        &json!({"subnets": [{"subnet": "10.7.0.0/24"}, {"subnet": "fd00:7::/64"}], "labels": {"a": "b"}}),
    );
    put(&place, "lan", &json!({"driver": "macvlan", "subnets": [{"subnet": "10.8.0.0/24"}], "mine": [1.5]}));
    put(&place, "free", &json!({"subnets": [{"subnet": "10.9.0.0/24"}]}));
    // Neither runs: one was attached, the other is to be.
    place.container(&"1".repeat(64), "front", &json!({"networks": [{"name": "web", "addresses": []}]}));
    place.container(&"2".repeat(64), "back", &json!({"config": {"networks": [{"name": "lan"}]}}));
    let names = |arguments: &str| ls(&place, &format!("-q {arguments}")).expect(0).stdout.replace('\n', " ");
    assert_eq!(names(""), "bridge free lan web ");
    assert_eq!(names("--filter dangling=true"), "free ");
    assert_eq!(names("--filter dangling=false"), "bridge lan web ");
    assert_eq!(names("--filter driver=macvlan"), "lan ");
    assert_eq!(names("--filter label=a=b"), "web ");
    assert_eq!(names("-f name=^w -f name=ree$"), "free web ");
    let lan = ls(&place, "--filter name=lan").expect(0).json();
    assert_eq!((&lan["networks"][0]["mine"], &lan["networks"][0]["in_use"]), (&json!([1.5]), &json!(true)));
    let table = ls(&place, "--output table").expect(0).stdout;
    assert!(table.contains("10.7.0.0/24, fd00:7::/64"), "{table}");
}

#[test]
fn a_damaged_one_hides_no_other() {
    let place = Place::new();
    put(&place, "good", &json!({"subnets": [{"subnet": "10.7.0.0/24"}]}));
    put(&place, "bad", &json!({"subnets": [{"subnet": "10.7.0.9/24"}]}));
    std::fs::create_dir_all(place.root().join("networks/half")).unwrap();
    std::fs::create_dir_all(place.root().join("networks/.odd")).unwrap();
    let ran = ls(&place, "-q").expect(3);
    assert_eq!(ran.stdout, "bridge\ngood\n");
    assert!(
        ran.stderr.contains("networks/bad/network.json") && ran.stderr.lines().count() <= 2,
        "{}",
        ran.stderr
    );
}
