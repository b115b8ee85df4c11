//! The tool as a program.

use serde_json::json;
use std::process::Command;
use testkit::{Place, Ran};

fn ls(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vol-ls"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn put(place: &Place, name: &str, more: &serde_json::Value) {
    let dir = place.root().join("volumes").join(name);
    std::fs::create_dir_all(dir.join("_data")).unwrap();
    let mut info = json!({"name": name, "driver": "local"});
    info.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    std::fs::write(dir.join("volume.json"), info.to_string()).unwrap();
}

#[test]
fn lists_filters_and_names_who_uses_them() {
    let place = Place::new();
    assert_eq!(ls(&place, &[]).expect(0).stdout, "");
    put(&place, "used", &json!({"labels": {"a": "b"}}));
    put(&place, "free", &json!({"anonymous": true, "later": 1}));
    place.container(&"1".repeat(64), "web", &json!({"volumes": [{"name": "used", "target": "/d"}]}));
    let all = ls(&place, &[]).expect(0);
    assert_eq!(all.stdout.lines().count(), 2);
    let used = all.json();
    assert_eq!(used["volumes"][0]["containers"][0]["name"], "web");
    assert_eq!(used["volumes"][0]["containers"][0]["running"], false);
    let names = |filter: &str| ls(&place, &["-q", "-f", filter]).expect(0).stdout;
    assert_eq!(names("dangling=true"), "free\n");
    assert_eq!(names("dangling=false"), "used\n");
    assert_eq!(names("label=a=b"), "used\n");
    assert_eq!(names("label!=a"), "free\n");
    assert_eq!(names("name=^fr"), "free\n");
    assert_eq!(names("driver=x"), "");
    ls(&place, &["-f", "colour=red"]).expect(2);
    let table = ls(&place, &["--output", "table"]).expect(0).stdout;
    assert!(table.starts_with("DRIVER   VOLUME NAME   CONTAINERS\nlocal    free"), "{table}");
}

#[test]
fn a_damaged_one_does_not_hide_the_others() {
    let place = Place::new();
    put(&place, "good", &json!({}));
    put(&place, "bad", &json!({}));
    std::fs::write(place.root().join("volumes/bad/volume.json"), b"{\"name\":5").unwrap();
    std::fs::create_dir_all(place.root().join("volumes/none")).unwrap();
    let ran = ls(&place, &["-q"]).expect(3);
    assert_eq!(ran.stdout, "good\n");
    assert!(ran.stderr.contains("volumes/bad/volume.json"), "{}", ran.stderr);
}
