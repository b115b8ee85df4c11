//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, tar};
use std::process::Command;
use testkit::{Place, Ran};

fn history(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-history"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn layers_are_told_latest_first() {
    let place = Place::new();
    put(&place, "a:1", &[tar(&[("a", b"")]), tar(&[("b", b"content")])]);
    let record = history(&place, &["a:1"]).expect(0).json();
    let layers = record["image"]["layers"].as_array().unwrap();
    let steps = record["history"].as_array().unwrap();
    let told: Vec<_> = steps.iter().filter_map(|step| step.get("digest")).collect();
    assert_eq!(told, [&layers[1]["digest"], &layers[0]["digest"]]);
    let ids = history(&place, &["-q", "a:1"]).expect(0).stdout;
    assert_eq!(ids.lines().next(), layers[1]["digest"].as_str());
    let table = history(&place, &["--output", "table", "a:1"]).expect(0).stdout;
    assert!(table.starts_with("LAYER") && table.lines().count() == steps.len() + 1, "{table}");
    let short = &layers[0]["digest"].as_str().unwrap()["sha256:".len()..][..12];
    assert!(table.lines().last().unwrap().starts_with(short), "{table}");
    history(&place, &["nothing"]).expect(4);
}
