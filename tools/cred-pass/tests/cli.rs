//! The real program with the real pass and gpg, in a place of their own.

use std::process::Command;
use testkit::{Place, Ran, find_program, skip};

/// A password store with a key that takes no passphrase. Its agent ends with the directory.
struct Store {
    place: Place,
}

impl Store {
    fn new() -> Option<Store> {
        for program in ["pass", "gpg"] {
            if find_program(program).is_none() {
                skip(&format!("{program} is not installed"));
                return None;
            }
        }
        let mut place = Place::new();
        // Short, because gpg's agent listens on a socket in it.
        let home = place.path().join("g");
        std::fs::create_dir(&home).unwrap();
        Ran::of(Command::new("chmod").arg("700").arg(&home)).expect(0);
        place.set("HOME", place.path().display().to_string());
        place.set("GNUPGHOME", home.display().to_string());
        place.set("PASSWORD_STORE_DIR", place.path().join("store").display().to_string());
        let store = Store { place };
        let key = "gpg --batch --quiet --pinentry-mode loopback --passphrase '' --quick-gen-key test@example future-default default never";
        let ran = store.place.sh(key);
        if ran.status != 0 {
            skip(&format!("gpg makes no key here: {}", ran.stderr.trim()));
            return None;
        }
        store.place.sh("pass init test@example").expect(0);
        Some(store)
    }

    fn helper(&self, action: &str, input: &str) -> Ran {
        Ran::fed(self.place.command(env!("CARGO_BIN_EXE_cred-pass")).arg(action), input)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.place.sh("gpgconf --kill gpg-agent");
    }
}

#[test]
fn logins_are_in_the_password_store_under_dockers_names() {
    let Some(store) = Store::new() else { return };
    assert_eq!(store.helper("list", "").expect(0).stdout, "{}\n");
    let login = r#"{"ServerURL":"https://r.example/?>","Username":"u@x","Secret":"hunter2\nsecond"}"#;
    store.helper("store", login).expect(0);
    assert_eq!(store.helper("get", "https://r.example/?>").expect(0).stdout, format!("{login}\n"));
    // base64url of the server, padded, as docker-credential-pass has it.
    let shown =
        store.place.sh("pass show docker-credential-helpers/aHR0cHM6Ly9yLmV4YW1wbGUvPz4=/u@x").expect(0);
    assert_eq!(shown.stdout, "hunter2\nsecond");
    // What others put there is found, the line's end at its end left out.
    let other = "docker-credential-helpers/b3RoZXIuZXhhbXBsZQ==/them";
    store.place.sh(&format!("echo secret | pass insert -m {other}")).expect(0);
    assert_eq!(store.helper("get", "other.example").expect(0).json()["Secret"], "secret");
    let list = store.helper("list", "").expect(0).json();
    assert_eq!(list, serde_json::json!({"https://r.example/?>": "u@x", "other.example": "them"}));
    // Another user takes the place of the first.
    store.helper("store", &login.replace("u@x", "v")).expect(0);
    assert_eq!(store.helper("get", "https://r.example/?>").expect(0).json()["Username"], "v");
    store.helper("erase", "https://r.example/?>").expect(0);
    for action in ["get", "erase"] {
        let ran = store.helper(action, "https://r.example/?>").expect(1);
        assert_eq!(ran.stdout, "credentials not found in native keychain\n");
    }
    // Nothing of it is in plain anywhere.
    let found = store.place.sh("grep -r hunter2 \"$DIR\"");
    assert_eq!((found.status, found.stdout.as_str()), (1, ""));
    for user in ["a/b", "../../x", ".hidden"] {
        let ran = store.helper("store", &login.replace("u@x", user)).expect(1);
        assert!(ran.stdout.contains("cannot be") && !ran.stdout.contains("hunter2"), "{}", ran.stdout);
    }
}

#[test]
fn either_helper_takes_over_from_the_other() {
    let Some(store) = Store::new() else { return };
    if find_program("docker-credential-pass").is_none() {
        return skip("docker-credential-pass (golang-docker-credential-helpers) is not installed");
    }
    let theirs = |action: &str, input: &str| {
        store.place.sh(&format!("printf %s '{input}' | docker-credential-pass {action}"))
    };
    let login = |server: &str| format!(r#"{{"ServerURL":"{server}","Username":"u","Secret":"hunter2"}}"#);
    store.helper("store", &login("ours.example")).expect(0);
    assert_eq!(theirs("get", "ours.example").expect(0).json()["Secret"], "hunter2");
    theirs("store", &login("https://theirs.example/v1/")).expect(0);
    assert_eq!(store.helper("get", "https://theirs.example/v1/").expect(0).json()["Secret"], "hunter2");
    let list = store.helper("list", "").expect(0).json();
    assert_eq!(
        theirs("list", "").expect(0).json()["https://theirs.example/v1/"],
        list["https://theirs.example/v1/"]
    );
    theirs("erase", "ours.example").expect(0);
    store.helper("get", "ours.example").expect(1);
    store.helper("erase", "https://theirs.example/v1/").expect(0);
    // Of what it does not have, Debian's says an empty name and password.
    assert!(!theirs("get", "https://theirs.example/v1/").stdout.contains("hunter2"));
}

#[test]
fn without_a_password_store_it_says_so() {
    let mut place = Place::new();
    place.set("PASSWORD_STORE_DIR", place.path().join("none").display().to_string());
    let ran = Ran::of(place.command(env!("CARGO_BIN_EXE_cred-pass")).arg("list")).expect(1);
    assert!(ran.stdout.contains("no password store") && ran.stderr.contains("pass init"), "{}", ran.stdout);
}
