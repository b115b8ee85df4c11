//! The real program against real registries; docker and skopeo on what it keeps, and it on what they keep.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use testkit::docker_registry::skopeo;
use testkit::{Behaviour, DockerRegistry, FakeRegistry, Place, Ran, find_program, skip};

/// The password of `u`, as bcrypt with the least work: `htpasswd -Bbn -C 4 u hunter2`.
const HTPASSWD: &str = "u:$2y$04$msj6j6/w1KKJsSIUzHOzq..9EkPsCrVpfw8X6lPGK56o.JDhuY5B.\n";

/// A place where nothing of this machine's own users is read.
fn place() -> Place {
    let mut place = Place::new();
    for (name, below) in [("HOME", ""), ("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "runtime")] {
        place.set(name, place.path().join(below).display().to_string());
    }
    std::fs::create_dir(place.path().join("runtime")).unwrap();
    place.set("CONTAINERS_REGISTRIES_CONF", "/dev/null");
    place.set("CONTAINERS_REGISTRIES_CONF_DIR", "/nonexistent");
    // Client-side: what the daemon does is not what is tested.
    place.set("DOCKER_HOST", "unix:///nonexistent");
    place
}

fn command(place: &Place, words: &[&str]) -> Command {
    let mut command = place.command(env!("CARGO_BIN_EXE_reg-login"));
    command.args(words);
    command
}

fn login(place: &Place, words: &[&str]) -> Ran {
    Ran::of(&mut command(place, words))
}

/// With the password on stdin.
fn feed(mut command: Command, input: &str) -> Ran {
    Ran::fed(&mut command, input)
}

fn with_password(place: &Place, words: &[&str], password: &str) -> Ran {
    let mut all = vec!["-u", "u", "--password-stdin"];
    all.extend(words);
    feed(command(place, &all), password)
}

/// A real registry that knows `u` with the password `hunter2`.
fn registry(place: &Place) -> Option<DockerRegistry> {
    let htpasswd = place.path().join("htpasswd");
    std::fs::write(&htpasswd, HTPASSWD).unwrap();
    let settings = format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", htpasswd.display());
    DockerRegistry::start_with(&place.path().join("storage"), false, &settings, "")
}

fn docker_config(place: &Place) -> PathBuf {
    place.path().join(".docker/config.json")
}

fn read(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

/// A credential helper with what it is given in a file beside it.
fn helper(place: &Place, name: &str, script: &str) {
    let folder = place.path().join("helpers");
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("docker-credential-{name}"));
    std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
}

fn path_with_helpers(place: &Place) -> String {
    let own = testkit::profile_dir();
    format!("{}/helpers:{}:{}", place.path().display(), own.display(), std::env::var("PATH").unwrap())
}

#[test]
fn a_login_is_checked_and_kept() {
    let place = place();
    let Some(registry) = registry(&place) else { return };
    let address = registry.address();
    let file = docker_config(&place);
    let refused = with_password(&place, &[&address], "wrong\n").expect(6);
    assert!(refused.stderr.contains("401") && !refused.stderr.contains("wrong"), "{}", refused.stderr);
    assert!(!file.exists());

    let record = with_password(&place, &[&address], "hunter2\n").expect(0).json();
    assert_eq!(record, json!({"staves": 1, "login": {"registry": address, "user": "u", "kept_in": file}}));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(read(&file)["auths"], json!({&address: {"auth": "dTpodW50ZXIy"}}));
    let user = login(&place, &["--get-login", "--output", "table", &address]).expect(0);
    assert_eq!(user.stdout, "u\n");
    // What is kept is checked when no other is given.
    assert_eq!(login(&place, &[&address]).expect(0).json()["login"]["user"], "u");
    std::fs::write(&file, json!({"auths": {&address: {"auth": "dTp4"}}}).to_string()).unwrap();
    let stale = login(&place, &[&address]);
    assert_ne!(stale.status, 0);
    assert_eq!(login(&place, &["--get-login", "-q", &address]).expect(0).stdout, "u\n");
    assert_eq!(login(&place, &["--get-login", "quay.io"]).expect(4).stdout, "");

    let warned = login(&place, &["-u", "u", "-p", "hunter2", &address]).expect(0);
    assert!(warned.stderr.contains("--password-stdin"), "{}", warned.stderr);
    assert!(!warned.stderr.contains("hunter2") && !warned.stdout.contains("hunter2"));
}

#[test]
fn a_file_that_is_named_is_used_and_nothing_else() {
    let place = place();
    let Some(registry) = registry(&place) else { return };
    let address = registry.address();
    let file = place.path().join("auth.json");
    std::fs::write(&file, r#"{"mine":[1],"auths":{"other.example":{"auth":"eDp5"}}}"#).unwrap();
    let named = file.display().to_string();
    with_password(&place, &["--authfile", &named, &address], "hunter2").expect(0);
    assert_eq!(
        read(&file).to_string(),
        json!({"mine": [1], "auths": {"other.example": {"auth": "eDp5"}, &address: {"auth": "dTpodW50ZXIy"}}}).to_string()
    );
    assert!(!docker_config(&place).exists());
    login(&place, &["--get-login", &address]).expect(4);
    login(&place, &["--get-login", "--authfile", &named, &address]).expect(0);
    let mut by_variable = command(&place, &["--get-login", &address]);
    Ran::of(by_variable.env("REGISTRY_AUTH_FILE", &file)).expect(0);
}

#[test]
fn skopeo_and_docker_use_it_and_it_uses_theirs() {
    let place = place();
    let Some(registry) = registry(&place) else { return };
    let address = registry.address();
    let repository = format!("docker://{address}/none/such");
    let run = |mut command: Command, words: &[&str]| {
        place.furnish(&mut command);
        Ran::of(command.args(words))
    };
    let has_skopeo = find_program("skopeo").is_some();
    if has_skopeo {
        with_password(&place, &[&address], "hunter2").expect(0);
        let tags = run(skopeo(), &["list-tags", "--tls-verify=false", &repository]);
        // It got past the login: there is no such repository.
        assert!(tags.stderr.contains("404"), "{}", tags.stderr);
        std::fs::remove_file(docker_config(&place)).unwrap();
        let tags = run(skopeo(), &["list-tags", "--tls-verify=false", &repository]);
        assert!(tags.stderr.contains("authentication required"), "{}", tags.stderr);
        let words = ["login", "--tls-verify=false", "-u", "u", "-p", "hunter2", &address];
        run(skopeo(), &words).expect(0);
        assert_eq!(login(&place, &[&address]).expect(0).json()["login"]["user"], "u");
        run(skopeo(), &["logout", &address]).expect(0);
        login(&place, &["--get-login", &address]).expect(4);
    } else {
        skip("skopeo is not installed");
    }
    if find_program("docker").is_none() {
        return skip("docker's command line is not installed");
    }
    // A file without any login makes docker look for a helper itself.
    let other = json!({"auths": {"other.example": {"auth": "eDp5"}}}).to_string();
    std::fs::create_dir_all(docker_config(&place).parent().unwrap()).unwrap();
    std::fs::write(docker_config(&place), other).unwrap();
    let mut docker = place.command("docker");
    docker.args(["login", "-u", "u", "--password-stdin", &address]);
    feed(docker, "hunter2").expect(0);
    assert_eq!(login(&place, &[&address]).expect(0).json()["login"]["user"], "u");
    std::fs::remove_file(docker_config(&place)).unwrap();
    with_password(&place, &[&address], "hunter2").expect(0);
    // Without a daemon it gets no further than to read it.
    let again = run(Command::new("docker"), &["login", &address]);
    assert!(
        again.stderr.contains("[Username: u]") || again.stdout.contains("[Username: u]"),
        "{}",
        again.stderr
    );
}

#[test]
fn docker_keeps_logins_with_our_helper_and_we_with_it_too() {
    let place = place();
    let program = testkit::profile_dir().join("cred-file");
    if !program.is_file() {
        return skip("cred-file is not built");
    }
    let Some(registry) = registry(&place) else { return };
    let address = registry.address();
    std::fs::create_dir(place.path().join("helpers")).unwrap();
    symlink(program, place.path().join("helpers/docker-credential-staves-file")).unwrap();
    let kept = place.path().join("kept.json");
    let config = docker_config(&place);
    std::fs::create_dir(config.parent().unwrap()).unwrap();
    std::fs::write(&config, r#"{"credsStore": "staves-file"}"#).unwrap();
    let equip = |mut command: Command| {
        command.env("PATH", path_with_helpers(&place)).env("STAVES_CREDENTIALS", &kept);
        command
    };

    let words = ["-u", "u", "--password-stdin", &address];
    let record = feed(equip(command(&place, &words)), "hunter2").expect(0).json();
    assert_eq!(record["login"]["kept_in"], "docker-credential-staves-file");
    assert_eq!(read(&config), json!({"credsStore": "staves-file", "auths": {&address: {}}}));
    assert!(std::fs::read_to_string(&kept).unwrap().contains("hunter2"));
    let user = Ran::of(&mut equip(command(&place, &["--get-login", &address]))).expect(0);
    assert_eq!(user.json()["login"]["user"], "u");
    if find_program("docker").is_none() {
        return skip("docker's command line is not installed");
    }
    let mut again = equip(place.command("docker"));
    let again = Ran::of(again.args(["login", &address]));
    assert!(
        again.stderr.contains("[Username: u]") || again.stdout.contains("[Username: u]"),
        "{}",
        again.stderr
    );
    Ran::of(equip(place.command("docker")).args(["logout", &address])).expect(0);
    assert!(!std::fs::read_to_string(&kept).unwrap().contains("hunter2"));
    let mut docker = equip(place.command("docker"));
    docker.args(["login", "-u", "u", "--password-stdin", &address]);
    feed(docker, "hunter2").expect(0);
    Ran::of(&mut equip(command(&place, &[&address]))).expect(0);
    // podman's and skopeo's files name helpers by registry.
    std::fs::write(&config, json!({"credHelpers": {&address: "staves-file"}}).to_string()).unwrap();
    if find_program("skopeo").is_some() {
        let repository = format!("docker://{address}/none/such");
        let mut tags = skopeo();
        place.furnish(&mut tags);
        let tags = Ran::of(equip(tags).args(["list-tags", "--tls-verify=false", &repository]));
        assert!(tags.stderr.contains("404"), "{}", tags.stderr);
    }
}

#[test]
fn hostile_helpers_are_told_of_and_no_path_is_run() {
    let place = place();
    let config = docker_config(&place);
    std::fs::create_dir(config.parent().unwrap()).unwrap();
    helper(&place, "evil", "touch \"$0.ran\"; yes '{\"Username\":\"u\",\"Secret\":\"hunter2\"'");
    helper(&place, "terminal", "printf '\\033[2Jgone: hunter\\n'; exit 1");
    for (name, word) in [
        ("../helpers/docker-credential-evil", "not a name of a credential helper"),
        ("evil", "more than a megabyte"),
        ("terminal", "gone"),
        ("absent", "is not installed"),
    ] {
        let text = json!({"credHelpers": {"r.example": name}}).to_string();
        std::fs::write(&config, text).unwrap();
        let mut command = command(&place, &["--get-login", "r.example"]);
        let ran = Ran::of(command.env("PATH", path_with_helpers(&place)));
        assert!(matches!(ran.status, 1 | 3), "{}", ran.stderr);
        assert!(ran.stderr.contains(word) && !ran.stderr.contains('\u{1b}'), "{}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "{}", ran.stderr);
        assert_eq!(
            place.path().join("helpers/docker-credential-evil.ran").exists(),
            name != "../helpers/docker-credential-evil"
        );
    }
}

#[test]
fn hostile_registries_and_token_servers_are_told_of() {
    let place = place();
    let registry = FakeRegistry::start();
    let address = registry.address();
    registry.require_token(Some(("u", "hunter2")));
    assert_eq!(with_password(&place, &[&address], "hunter2").expect(0).json()["login"]["user"], "u");
    let refused = with_password(&place, &[&address], "hunter3").expect(6);
    assert!(refused.stderr.contains("401"), "{}", refused.stderr);
    // What it says of the token's life is no reason to refuse the token.
    for life in ["-5", "\"soon\"", "1e99", "18446744073709551615"] {
        let body = format!("{{\"access_token\":\"good-token\",\"expires_in\":{life}}}");
        registry.misbehave("/token", 1, Behaviour::Body(body.into_bytes()));
        with_password(&place, &[&address], "hunter2").expect(0);
    }
    for (body, status) in [
        (&b"hunter2"[..], 3),
        (b"{}", 3),
        (b"{\"token\":\"a\\nInjected: yes\"}", 3),
        (b"{\"token\":7}", 3),
        (&vec![b'['; 2 << 20], 3),
    ] {
        registry.stop_misbehaving();
        registry.misbehave("/token", 1, Behaviour::Body(body.to_vec()));
        let ran = with_password(&place, &[&address], "hunter2").expect(status);
        assert!(ran.stderr.contains("is not a token") && !ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
    registry.stop_misbehaving();
    registry.misbehave("/token", 9, Behaviour::Redirect("https://elsewhere.example/".into()));
    assert_ne!(with_password(&place, &[&address], "hunter2").status, 0);
    registry.stop_misbehaving();
    for (challenge, status) in [
        ("Negotiate", 6),
        ("Bearer realm=\"file:///etc/passwd\"", 6),
        ("Bearer realm=\"http://token.example/\"", 6),
    ] {
        registry.challenge(challenge);
        let ran = with_password(&place, &[&address], "hunter2").expect(status);
        assert!(!ran.stderr.contains("hunter2"), "{challenge}: {}", ran.stderr);
    }
    // Scopes that are none are asked for nowhere, and no more than a few that are.
    let many: Vec<String> = (0..100).map(|number| format!("repository:{number}:pull")).collect();
    registry.challenge(&format!("Bearer realm=\"http://{address}/token\",scope=\"a b {}\"", many.join(" ")));
    registry.forget_requests();
    with_password(&place, &[&address], "hunter2").expect(0);
    let requests = registry.requests();
    let asked = &requests.iter().find(|request| request.path.starts_with("/token")).unwrap().path;
    assert!(asked.matches("scope=").count() <= 16 && !asked.contains("scope=a"), "{asked}");
    // Nothing is asked: kept, and said so.
    let open = FakeRegistry::start();
    let ran = with_password(&place, &[&open.address()], "x").expect(0);
    assert!(ran.stderr.contains("unchecked"), "{}", ran.stderr);
}

#[test]
fn arguments_are_checked() {
    let place = place();
    for words in [
        &["https://user:secret@r.example"][..],
        &["r.example/x:tag"],
        &["-u", "u", "-p", "x", "--password-stdin"],
        &["-u", "a:b", "-p", "x", "r.example"],
        &["-p", "x", "r.example"],
    ] {
        let ran = login(&place, words).expect(2);
        assert_eq!(ran.stdout, "");
    }
    // No terminal, and nobody to ask.
    let mut alone = Command::new("setsid");
    place.furnish(&mut alone);
    let ran = Ran::of(alone.arg("--wait").arg(env!("CARGO_BIN_EXE_reg-login")).arg("r.example")).expect(2);
    assert!(ran.stderr.contains("no terminal"), "{}", ran.stderr);
}

/// Types on a terminal of its own, by util-linux's script; returns what the terminal showed.
fn on_a_terminal(place: &Place, words: &str, typed: &[&str]) -> Ran {
    let mut command = Command::new("script");
    place.furnish(&mut command);
    let program = env!("CARGO_BIN_EXE_reg-login");
    let inner = format!(
        "stty sane; {program} --output json {words}; code=$?; stty -a | grep -o ' -*echo '; exit $code"
    );
    let mut child = command
        .args(["-q", "-e", "-c", &inner, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut shown = Vec::new();
    for line in typed {
        // What is typed before it is asked for would be shown.
        while !shown.ends_with(b": ") {
            let mut bytes = [0; 100];
            let count = stdout.read(&mut bytes).unwrap();
            assert!(count > 0, "it ended: {}", String::from_utf8_lossy(&shown));
            shown.extend(&bytes[..count]);
        }
        stdin.write_all(line.as_bytes()).unwrap();
        shown.push(b'\n');
    }
    stdout.read_to_end(&mut shown).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    Ran {
        stdout: String::from_utf8_lossy(&shown).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code().unwrap(),
    }
}

#[test]
fn a_password_that_is_typed_is_not_shown() {
    let place = place();
    if find_program("script").is_none() {
        return skip("script (bsdutils) is not installed");
    }
    let Some(registry) = registry(&place) else { return };
    let address = registry.address();
    let ran = on_a_terminal(&place, &address, &["u\n", "wrong\u{15}hunter22\u{7f}\n"]).expect(0);
    assert!(ran.stdout.contains("User name for") && ran.stdout.contains("\"user\":\"u\""), "{}", ran.stdout);
    assert!(!ran.stdout.contains("hunter") && !ran.stdout.contains("wrong"), "{}", ran.stdout);
    assert!(ran.stdout.contains(" echo "), "{}", ran.stdout);
    std::fs::remove_file(docker_config(&place)).unwrap();
    let ran = on_a_terminal(&place, &format!("-u u {address}"), &["hunt\u{3}"]).expect(1);
    assert!(ran.stdout.contains("interrupted") && ran.stdout.contains(" echo "), "{}", ran.stdout);
    assert!(!docker_config(&place).exists());
}
