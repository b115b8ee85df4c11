//! The tool as a program, against containers made by hand.

use serde_json::json;
use std::fs;
use std::process::Command;
use store::Lease;
use testkit::{FakeShim, Place, Ran};

fn rm(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-rm"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

/// Nothing of any container is left anywhere.
fn assert_clean(place: &Place) {
    for dir in ["root/containers", "root/names", "root/tmp", "run/containers"] {
        let left: Vec<_> = fs::read_dir(place.path().join(dir)).into_iter().flatten().flatten().collect();
        assert!(left.is_empty(), "{dir}: {left:?}");
    }
}

#[test]
fn an_ended_container_goes_with_all_that_is_its_own() {
    let place = Place::new();
    let leases = place.store().leases("bridge").unwrap();
    let id = "a".repeat(64);
    let dir = place.container(
        &id,
        "web",
        &json!({
            "networks": [{"name": "bridge", "addresses": ["10.89.0.2/16"]}],
            "volumes": [{"name": "f00d", "anonymous": true}, {"name": "kept", "anonymous": false}],
        }),
    );
    dir.write_last_run(&store::LastRun { exit_code: Some(0), ..Default::default() }).unwrap();
    let address = "10.89.0.2".parse().unwrap();
    leases.take(&place.store(), address, &Lease { container: id.clone(), ..Lease::default() }).unwrap();
    for volume in ["f00d", "kept"] {
        fs::create_dir_all(place.root().join("volumes").join(volume).join("_data/x")).unwrap();
    }
    fs::create_dir_all(dir.bundle.join("upper/deep/er")).unwrap();
    std::os::unix::fs::symlink("/", dir.bundle.join("upper/link")).unwrap();
    let record = rm(&place, &["-v", "web"]).expect(0).json();
    assert_eq!(record["container"]["status"], "removed");
    assert_clean(&place);
    assert!(leases.addresses().unwrap().is_empty());
    assert!(!place.root().join("volumes/f00d").exists());
    assert!(place.root().join("volumes/kept").exists());
    rm(&place, &["web"]).expect(4);
    assert!(rm(&place, &["-f", "web"]).expect(0).stderr.contains("warning: no such container"));
}

#[test]
fn a_running_one_only_by_force() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    let shim = FakeShim::start(&dir, "running", &[]);
    let ran = rm(&place, &["web"]).expect(5);
    assert!(ran.stderr.contains("it is running") && ran.stderr.contains("--force"), "{}", ran.stderr);
    let steps: Vec<String> = rm(&place, &["--dry-run", "-f", "web"])
        .expect(0)
        .stdout
        .lines()
        .map(|line| {
            let step: serde_json::Value = serde_json::from_str(line).unwrap();
            step["step"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(steps, ["kill", "remove_files"]);
    assert!(shim.requests().is_empty());
    rm(&place, &["-f", "web"]).expect(0);
    assert!(shim.join().contains(&shim::Request::Signal { signal: 9, stop: true }));
    assert_clean(&place);
}

#[test]
fn a_waiting_one_is_discarded() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    let shim = FakeShim::start(&dir, "created", &[]);
    assert_eq!(rm(&place, &["--output", "table", "web"]).expect(0).stdout, "web\n");
    assert!(shim.join().contains(&shim::Request::Discard));
    assert_clean(&place);
}

#[test]
fn a_broken_one_can_be_removed() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    fs::write(dir.bundle.join("container.json"), b"{\"container\":").unwrap();
    rm(&place, &[&"a".repeat(64)]).expect(0);
    assert!(!dir.bundle.exists());
}

#[test]
fn a_volume_somebody_else_uses_stays() {
    let place = Place::new();
    let volumes = json!({"volumes": [{"name": "f00d", "anonymous": true}]});
    place.container(&"a".repeat(64), "one", &volumes);
    place.container(&"b".repeat(64), "two", &json!({"volumes": [{"name": "f00d"}]}));
    fs::create_dir_all(place.root().join("volumes/f00d/_data")).unwrap();
    rm(&place, &["-v", "one"]).expect(0);
    assert!(place.root().join("volumes/f00d").exists());
    rm(&place, &["-v", "two"]).expect(0);
    assert!(place.root().join("volumes/f00d").exists());
}

#[test]
fn many_at_once() {
    let place = Place::new();
    let names: Vec<String> = (0..30).map(|n| format!("c{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        place.ended_container(&format!("{n:064}"), name, 0);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let ran = rm(&place, &[&names[..], &["nobody"]].concat()).expect(4);
    assert_eq!(ran.stdout.lines().count(), 30);
    assert_clean(&place);
}
