//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;

use images::{put, retag, tar};
use oci::Digest;
use serde_json::json;
use std::process::Command;
use testkit::{Place, Ran};

fn inspect(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-inspect"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn all_there_is_to_know() {
    let place = Place::new();
    let digest = put(&place, "a", &[tar(&[("a", b"")])]);
    retag(&place, "a", "b:2");
    let record = inspect(&place, &["a"]).expect(0).json();
    let image = &record["image"];
    assert_eq!(image["names"], json!(["docker.io/library/a:latest", "docker.io/library/b:2"]));
    assert_eq!(
        (image["digest"].as_str(), image["config"]["config"]["Cmd"][0].as_str()),
        (Some(digest.as_str()), Some("sh"))
    );
    let raw = inspect(&place, &["--raw", "a"]).expect(0).stdout;
    assert_eq!(Digest::of(raw.as_bytes()), digest);
    let config = inspect(&place, &["--config", "b:2"]).expect(0).stdout;
    assert_eq!(Digest::of(config.as_bytes()).as_str(), image["id"].as_str().unwrap());
    assert_eq!(
        inspect(&place, &["-q", digest.short()]).expect(0).stdout.trim(),
        image["id"].as_str().unwrap()
    );
    assert!(inspect(&place, &["--output", "table", "a"]).expect(0).stdout.lines().count() > 10);
    let ran = inspect(&place, &["nothing", "a"]).expect(4);
    assert!(
        ran.stderr.contains("nothing: no such image") && ran.stdout.lines().count() == 1,
        "{}",
        ran.stderr
    );
}
