//! The real program, spoken to as docker does.

use std::os::unix::fs::PermissionsExt;
use testkit::{Place, Ran};

fn helper(place: &Place, action: &str, input: &str) -> Ran {
    let file = place.path().join("data/staves/credentials.json");
    let mut command = place.command(env!("CARGO_BIN_EXE_cred-file"));
    Ran::fed(command.arg(action).env("STAVES_CREDENTIALS", file), input)
}

#[test]
fn logins_are_kept_found_and_forgotten() {
    let place = Place::new();
    let file = place.path().join("data/staves/credentials.json");
    let login = r#"{"ServerURL":"https://index.docker.io/v1/","Username":"u","Secret":"hunter2 é\n"}"#;
    assert_eq!(helper(&place, "list", "").expect(0).stdout, "{}\n");
    assert!(!file.exists());
    assert_eq!(helper(&place, "store", login).expect(0).stdout, "");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(file.parent().unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(helper(&place, "get", "https://index.docker.io/v1/\n").expect(0).stdout, format!("{login}\n"));
    assert_eq!(helper(&place, "list", "").expect(0).stdout, "{\"https://index.docker.io/v1/\":\"u\"}\n");
    for (action, server) in [("get", "other"), ("erase", "other")] {
        let ran = helper(&place, action, server).expect(1);
        assert_eq!(ran.stdout, "credentials not found in native keychain\n");
    }
    helper(&place, "erase", "https://index.docker.io/v1/").expect(0);
    helper(&place, "get", "https://index.docker.io/v1/").expect(1);
    assert!(helper(&place, "version", "").expect(0).stdout.contains("cred-file (staves) v"));
    helper(&place, "nonsense", "").expect(2);
}

#[test]
fn many_at_once_lose_nothing() {
    let place = Place::new();
    std::thread::scope(|scope| {
        for number in 0..16 {
            let place = &place;
            scope.spawn(move || {
                let login = format!(r#"{{"ServerURL":"r{number}.example","Username":"u","Secret":"s"}}"#);
                helper(place, "store", &login).expect(0);
            });
        }
    });
    assert_eq!(helper(&place, "list", "").expect(0).json().as_object().unwrap().len(), 16);
}

#[test]
fn a_file_others_can_read_is_refused_and_a_broken_one_not_quoted() {
    let place = Place::new();
    let file = place.path().join("data/staves/credentials.json");
    helper(&place, "store", r#"{"ServerURL":"r","Username":"u","Secret":"hunter2"}"#).expect(0);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let ran = helper(&place, "get", "r").expect(1);
    assert!(
        ran.stdout.contains("others than its owner") && ran.stderr.contains("chmod 600"),
        "{}",
        ran.stdout
    );
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    for bad in ["{\"version\":1,\"logins\":{\"r\":hunter2", "{\"version\":9,\"logins\":{}}", "[]", ""] {
        std::fs::write(&file, bad).unwrap();
        for (action, input) in [("get", "r"), ("store", r#"{"ServerURL":"r","Username":"u","Secret":"s"}"#)] {
            let ran = helper(&place, action, input).expect(1);
            assert!(ran.stdout.contains("is not a file of cred-file's"), "{}", ran.stdout);
            assert!(!ran.stdout.contains("hunter2"));
        }
        assert_eq!(std::fs::read_to_string(&file).unwrap(), bad);
    }
}
