//! The tool as a program.

use serde_json::json;
use std::process::Command;
use testkit::{Place, Ran};

fn create(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vol-create"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn piped(place: &Place, input: &str) -> Ran {
    let program = env!("CARGO_BIN_EXE_vol-create");
    let file = place.path().join("input");
    std::fs::write(&file, input).unwrap();
    place.sh(&format!("{program} < $DIR/input"))
}

#[test]
fn a_volume_is_made_once_and_is_the_same_each_time() {
    let place = Place::new();
    let made = create(&place, &["data", "-l", "a=b", "--label", "c"]).expect(0).json();
    let volume = &made["volumes"][0];
    assert_eq!(
        (&volume["name"], &volume["driver"], &volume["labels"], &volume["anonymous"]),
        (&json!("data"), &json!("local"), &json!({"a": "b", "c": ""}), &json!(false))
    );
    let mountpoint = volume["mountpoint"].as_str().unwrap();
    assert!(std::fs::metadata(mountpoint).unwrap().is_dir());
    assert_eq!(create(&place, &["data"]).expect(0).json(), made);
    assert_eq!(create(&place, &["--name", "data", "-q"]).expect(0).stdout, "data\n");
    create(&place, &["data", "-l", "a=c"]).expect(5);
    create(&place, &["data", "-o", "type=tmpfs", "-o", "device=tmpfs"]).expect(5);
    create(&place, &["data", "-d", "nobody"]).expect(5);
    assert_eq!(std::fs::read_dir(place.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn many_at_once_make_one() {
    let place = Place::new();
    let program = env!("CARGO_BIN_EXE_vol-create");
    let ran = place
        .sh(&format!("seq 20 | xargs -P 20 -I{{}} {program} same | jq -r '.volumes[0].created_at' | sort -u"))
        .expect(0);
    assert_eq!(ran.stdout.lines().count(), 1, "{}", ran.stdout);
    assert_eq!(std::fs::read_dir(place.root().join("volumes")).unwrap().count(), 1);
}

#[test]
fn without_a_name_one_is_made_up() {
    let place = Place::new();
    let made = create(&place, &["-l", "x"]).expect(0).json();
    let name = made["volumes"][0]["name"].as_str().unwrap().to_owned();
    assert_eq!((name.len(), &made["volumes"][0]["anonymous"]), (64, &json!(true)));
    create(&place, &[]).expect(3);
    let planned = create(&place, &["--dry-run", "later"]).expect(0);
    assert!(planned.stdout.contains("make_volume"), "{}", planned.stdout);
    assert!(!place.root().join("volumes/later").exists());
}

#[test]
fn records_are_made_and_pass_through() {
    let place = Place::new();
    let ran = piped(&place, r#"{"mine":1.50,"volumes":[{"name":"one","labels":{"k":"v"},"created_at":"2020-01-01T00:00:00Z","target":"/x"},{"name":"two"}]}"#)
        .expect(0);
    assert_eq!(ran.stdout.lines().count(), 2);
    assert!(ran.stdout.lines().all(|line| line.contains(r#""mine":1.50"#)), "{}", ran.stdout);
    let one: serde_json::Value = serde_json::from_str(ran.stdout.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&one["volumes"][0]["target"], &one["volumes"][0]["labels"]["k"]),
        (&json!("/x"), &json!("v"))
    );
    assert_ne!(one["volumes"][0]["created_at"], "2020-01-01T00:00:00Z");
    piped(&place, "{}").expect(3);
    piped(&place, r#"{"volumes":[]}"#).expect(3);
    piped(&place, r#"{"volumes":[{"name":"../x"}]}"#).expect(2);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    for wrong in [
        &["x"][..],
        &["a/b"],
        &[".hidden"],
        &["data", "-o", "size=1g"],
        &["data", "-o", "type=tmpfs"],
        &["data", "-o", "colour"],
        &["data", "-o", "type=none", "-o", "device=relative", "-o", "o=bind"],
        &["data", "-l", "=x"],
    ] {
        create(&place, wrong).expect(2);
    }
    assert!(!place.root().join("volumes/data").exists());
    let secret = ["share", "-o", "type=cifs", "-o", "device=//s/x", "-o", "o=username=u,password=hush"];
    let ran = create(&place, &secret).expect(0);
    assert!(!ran.stdout.contains("hush"), "{}", ran.stdout);
}

#[test]
fn what_is_no_volume_is_left_alone() {
    let place = Place::new();
    std::fs::create_dir_all(place.root().join("volumes/mine/_data")).unwrap();
    create(&place, &["mine"]).expect(5);
    std::fs::create_dir_all(place.root().join("volumes/bad")).unwrap();
    std::fs::write(place.root().join("volumes/bad/volume.json"), b"{").unwrap();
    create(&place, &["bad"]).expect(3);
}
