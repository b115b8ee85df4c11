//! The tool as a program, against containers made by hand.

use serde_json::json;
use std::process::Command;
use testkit::{Place, Ran};

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-inspect"));
    place.furnish(&mut command);
    command.args(arguments);
    command
}

#[test]
fn the_whole_record_up_to_date() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({"config": {"env": ["A=b"], "mine": 1}}));
    std::fs::write(dir.bundle.join("config.json"), "{\n  \"ociVersion\": \"1.2.0\"\n}\n").unwrap();
    let ran = Ran::of(&mut command(&place, &["web"])).expect(0);
    assert_eq!(ran.stdout.lines().count(), 1);
    let record = ran.json();
    assert_eq!(record["config"], json!({"env": ["A=b"], "mine": 1}));
    assert_eq!(record["container"]["status"], "created");
    assert!(record.get("spec").is_none());
    let ran = Ran::of(&mut command(&place, &["--spec", "aaaa"])).expect(0);
    assert_eq!(ran.stdout.lines().count(), 1);
    assert_eq!(ran.json()["spec"]["ociVersion"], "1.2.0");
    let pretty = Ran::of(&mut command(&place, &["--output", "table", "web"])).expect(0).stdout;
    assert!(pretty.starts_with("{\n  \"staves\": 1,\n"), "{pretty}");
}

#[test]
fn a_record_is_replaced_by_the_containers_own() {
    let place = Place::new();
    place.container(&"a".repeat(64), "web", &json!({"config": {"env": ["A=b"]}}));
    let input = format!(
        r#"{{"config":{{"env":["OLD"]}},"note":1.50,"container":{{"id":"{}","name":"x"}}}}"#,
        "a".repeat(64)
    );
    let text = Ran::fed(&mut command(&place, &[]), input).expect(0).stdout;
    assert!(text.contains(r#""env":["A=b"]"#) && text.contains(r#""note":1.50"#), "{text}");
}

#[test]
fn failures() {
    let place = Place::new();
    let dir = place.container(&"a".repeat(64), "web", &json!({}));
    let ran = Ran::of(&mut command(&place, &["nobody", "web"])).expect(4);
    assert_eq!(ran.stdout.lines().count(), 1);
    std::fs::write(dir.bundle.join("container.json"), b"{").unwrap();
    let ran = Ran::of(&mut command(&place, &["web"])).expect(3);
    assert!(ran.stderr.contains("container.json"), "{}", ran.stderr);
    Ran::of(&mut command(&place, &[])).expect(0);
}
