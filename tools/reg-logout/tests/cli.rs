//! The real program on files and helpers.

use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use testkit::{Place, Ran};

fn place() -> Place {
    let mut place = Place::new();
    for (name, below) in [("HOME", ""), ("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "runtime")] {
        place.set(name, place.path().join(below).display().to_string());
    }
    place.set("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    place.set("CONTAINERS_REGISTRIES_CONF_DIR", "/nonexistent");
    let path = std::env::var("PATH").unwrap();
    place.set("PATH", format!("{}:{path}", place.path().display()));
    std::fs::create_dir(place.path().join(".docker")).unwrap();
    place
}

fn logout(place: &Place, words: &[&str]) -> Ran {
    let mut command: Command = place.command(env!("CARGO_BIN_EXE_reg-logout"));
    Ran::of(command.args(words))
}

fn write(place: &Place, below: &str, value: &Value) {
    let file = place.path().join(below);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, value.to_string()).unwrap();
}

fn read(place: &Place) -> Value {
    serde_json::from_slice(&std::fs::read(place.path().join(".docker/config.json")).unwrap()).unwrap()
}

#[test]
fn one_login_goes_and_the_others_stay() {
    let place = place();
    let auth = json!({"auth": "dTpw"});
    let auths = json!({"a.example": auth, "https://index.docker.io/v1/": auth, "docker.io": auth, "a.example/x": auth,
        "https://a.example/v2/": auth});
    write(&place, ".docker/config.json", &json!({"z": 1, "auths": auths, "HttpHeaders": {}}));
    let record = logout(&place, &[]).expect(0).json();
    assert_eq!(record, json!({"staves": 1, "logout": {"registry": "docker.io"}}));
    logout(&place, &["a.example"]).expect(0);
    assert_eq!(
        read(&place).to_string(),
        r#"{"z":1,"auths":{"a.example/x":{"auth":"dTpw"}},"HttpHeaders":{}}"#
    );
    let gone = logout(&place, &["a.example"]).expect(4);
    assert!(gone.stderr.contains("a.example: not logged in"), "{}", gone.stderr);
    logout(&place, &["a.example/x"]).expect(0);
    assert_eq!(read(&place)["auths"], json!({}));
    logout(&place, &["--all", "a.example"]).expect(2);
    logout(&place, &["--authfile", "/nonexistent/x", "a.example"]).expect(4);
}

#[test]
fn all_means_helpers_too_and_other_files_are_named() {
    let place = place();
    let program = place.path().join("docker-credential-test");
    let script = "#!/bin/sh\nread -r server\ncase $1 in\n\
        get) [ \"$server\" = h.example ] && [ ! -e \"$0.gone\" ] || { echo credentials not found in native keychain; exit 1; }\n\
        printf '{\"ServerURL\":\"%s\",\"Username\":\"u\",\"Secret\":\"s\"}' \"$server\";;\n\
        erase) echo \"$server\" >\"$0.gone\";;\nesac\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let auths = json!({"h.example": {}, "b.example": {"auth": "dTpw"}});
    let helpers = json!({"h.example": "test", "never.example": "test"});
    write(&place, ".docker/config.json", &json!({"auths": auths, "credHelpers": helpers}));
    write(&place, "config/containers/auth.json", &json!({"auths": {"b.example": {"auth": "dTpw"}}}));
    let ran = logout(&place, &["--all"]).expect(0);
    let names: Vec<_> = ran.stdout.lines().map(|line| line.contains("h.example")).collect();
    assert_eq!(names, [false, true], "{}", ran.stdout);
    assert!(ran.stderr.contains("config/containers/auth.json still has a login"), "{}", ran.stderr);
    assert_eq!(read(&place), json!({"auths": {}, "credHelpers": helpers}));
    let gone = std::fs::read_to_string(place.path().join("docker-credential-test.gone")).unwrap();
    assert_eq!(gone, "h.example\n");
    assert_eq!(logout(&place, &["--all"]).expect(0).stdout, "");
}
