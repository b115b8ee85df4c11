//! The tool as a program, against containers made by hand.

use serde_json::json;
use std::process::Command;
use testkit::{FakeShim, Place, Ran};

fn port(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ctr-port"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

#[test]
fn lines_and_objects() {
    let place = Place::new();
    let ports = json!([{"host": 8080, "container": 80, "protocol": "tcp"},
        {"ip": "127.0.0.1", "host": 53, "container": 53, "protocol": "udp"}]);
    let web =
        place.container(&"a".repeat(64), "web", &json!({"networks": [{"name": "bridge", "ports": ports}]}));
    assert_eq!(port(&place, &["web"]).expect(0).json()["ports"], json!([]));
    let _shim = FakeShim::start(&web, "running", &[]);
    let record = port(&place, &["web"]).expect(0).json();
    assert_eq!(record["ports"][1], json!({"container": 80, "protocol": "tcp", "host": 8080}));
    let text = port(&place, &["--output", "table", "web"]).expect(0).stdout;
    assert_eq!(text, "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n");
    assert_eq!(port(&place, &["--output", "table", "web", "53/udp"]).expect(0).stdout, "127.0.0.1:53\n");
    assert!(port(&place, &["--output", "table", "--all"]).expect(0).stdout.starts_with("web\t53/udp"));
    let missing = port(&place, &["web", "53"]).expect(4);
    assert!(missing.stderr.contains("53/tcp is not published"), "{}", missing.stderr);
    port(&place, &["web", "x"]).expect(2);
    // As docker tells it: a line for each family the container is reached by.
    let both =
        json!({"networks": [{"name": "web", "addresses": ["10.90.0.2/24", "fd00::2/64"], "ports": ports}]});
    let six = place.container(&"b".repeat(64), "six", &both);
    let _shim = FakeShim::start(&six, "running", &[]);
    let text = port(&place, &["--output", "table", "six"]).expect(0).stdout;
    assert_eq!(text, "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n80/tcp -> [::]:8080\n");
    assert_eq!(port(&place, &["six"]).expect(0).json()["ports"].as_array().unwrap().len(), 2);
    port(&place, &["nobody"]).expect(4);
    assert_eq!(port(&place, &[]).expect(0).stdout, "");
}
