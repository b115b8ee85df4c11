//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, store, tar};
use serde_json::json;
use std::process::Command;
use testkit::{Place, Ran};

fn tag(place: &Place, arguments: &[&str], stdin: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-tag"));
    place.furnish(&mut command);
    let input = place.path().join("stdin");
    std::fs::write(&input, stdin).unwrap();
    Ran::of(command.args(arguments).stdin(std::fs::File::open(&input).unwrap()))
}

#[test]
fn names_are_given_and_taken() {
    let place = Place::new();
    let digest = put(&place, "a:1", &[tar(&[("a", b"")])]);
    let other = put(&place, "b:1", &[tar(&[("b", b"")])]);
    let record = tag(&place, &["a:1", "reg.example:5000/team/a:2", "b:1"], "").expect(0).json();
    assert_eq!(record["image"]["reference"], "docker.io/library/b:1");
    assert_eq!(
        record["image"]["names"],
        json!(["docker.io/library/a:1", "docker.io/library/b:1", "reg.example:5000/team/a:2"])
    );
    assert_eq!(store(&place).find_image("b:1").unwrap().digest(), &digest);
    // The other one lost its name and is still there.
    let lost = store(&place).find_image(other.as_str()).unwrap();
    assert_eq!((lost.digest(), lost.name()), (&other, None));
    // A dangling one gets a name by its digest, once.
    tag(&place, &[other.short(), "b:2"], "").expect(0);
    let names: Vec<_> = store(&place).images().unwrap();
    assert_eq!(names.iter().filter(|entry| entry.digest() == &other).count(), 1);
    // Again: nothing changes.
    let before = std::fs::read(place.root().join("index.json")).unwrap();
    tag(&place, &["b:2", "b:2"], "").expect(0);
    assert_eq!(std::fs::read(place.root().join("index.json")).unwrap(), before);
}

#[test]
fn a_pipe_brings_the_image() {
    let place = Place::new();
    let digest = put(&place, "a:1", &[tar(&[("a", b"")])]);
    let line = json!({"x": 1, "image": {"reference": "docker.io/library/a:1", "digest": digest, "config": {"edited": true}}, "y": 2});
    let ran = tag(&place, &["c:3"], &line.to_string()).expect(0);
    let record = ran.json();
    assert_eq!(record["image"]["reference"], "docker.io/library/c:3");
    assert_eq!((&record["x"], &record["image"]["config"]), (&json!(1), &json!({"edited": true})));
    assert!(
        ran.stdout.starts_with("{\"x\":1,\"image\"") && ran.stdout.trim_end().ends_with("\"y\":2}"),
        "{}",
        ran.stdout
    );
    let steps = tag(&place, &["--dry-run", "a:1", "d:4"], "").expect(0).json();
    assert_eq!(steps, json!({"step": "tag", "image": digest, "name": "docker.io/library/d:4"}));
    assert!(store(&place).find_image("d:4").is_err());
}

#[test]
fn what_cannot_be() {
    let place = Place::new();
    let digest = put(&place, "a:1", &[tar(&[("a", b"")])]);
    tag(&place, &[], "").expect(2);
    tag(&place, &["c:3"], "").expect(3);
    tag(&place, &["nothing", "c:3"], "").expect(4);
    tag(&place, &["a:1", "Not A Name"], "").expect(3);
    tag(&place, &["a:1", &format!("c@{digest}")], "").expect(2);
    let line = json!({"image": {"reference": "a", "digest": digest}}).to_string();
    let ran = tag(&place, &["c:3"], &format!("{line}\n{line}\n")).expect(3);
    assert!(ran.stderr.contains("several images"), "{}", ran.stderr);
    assert_eq!(store(&place).images().unwrap().len(), 1);
}
