//! Where images are pulled from, and as whom: mirrors, other locations, logins, tokens.

use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use testkit::fake_registry::auth_file;
use testkit::{Behaviour, FakeRegistry, Place, Ran, ip, own_network};

/// A place with its own `registries.conf`, and nothing of this machine's.
fn place(registries_conf: &str) -> Place {
    let mut place = Place::new();
    for (name, below) in [("HOME", ""), ("XDG_CONFIG_HOME", "config"), ("XDG_RUNTIME_DIR", "runtime")] {
        place.set(name, place.path().join(below).display().to_string());
    }
    let file = place.path().join("registries.conf");
    std::fs::write(&file, registries_conf).unwrap();
    place.set("CONTAINERS_REGISTRIES_CONF", file.display().to_string());
    place.set("CONTAINERS_REGISTRIES_CONF_DIR", place.path().join("registries.conf.d").display().to_string());
    place
}

fn pull(place: &Place, words: &[&str]) -> Ran {
    let mut command = place.command(env!("CARGO_BIN_EXE_img-pull"));
    Ran::of(command.args(["--timeout", "1", "--retry", "1"]).args(words))
}

/// Pulls into a store that has nothing yet.
fn pull_anew(place: &Place, reference: &str) -> Ran {
    let _ = std::fs::remove_dir_all(place.root());
    pull(place, &[reference])
}

/// Two registries that have the same image, the second as `cache/app`.
fn two() -> (FakeRegistry, FakeRegistry, String) {
    let (own, mirror) = (FakeRegistry::start(), FakeRegistry::start());
    own.put_image("team/app", "v1", &[b"layer", b"another"]);
    mirror.put_image("cache/app", "v1", &[b"layer", b"another"]);
    let reference = format!("{}/team/app:v1", own.address());
    (own, mirror, reference)
}

fn mirrored(own: &FakeRegistry, mirror: &str, more: &str) -> String {
    format!(
        "[[registry]]\nprefix = \"{}/team\"\n[[registry.mirror]]\nlocation = \"{mirror}\"\n{more}\n",
        own.address()
    )
}

fn asked(registry: &FakeRegistry) -> usize {
    let count = registry.requests().len();
    registry.forget_requests();
    count
}

#[test]
fn a_mirror_is_asked_first_and_its_failure_goes_unnoticed() {
    let (own, mirror, reference) = two();
    let place = place(&mirrored(&own, &format!("{}/cache", mirror.address()), ""));
    let record = pull_anew(&place, &reference).expect(0).json();
    assert_eq!(record["image"]["reference"], json!(reference));
    assert_eq!(asked(&own), 0);
    assert!(asked(&mirror) > 3);
    for behaviour in [
        Behaviour::Status(404),
        Behaviour::Status(500),
        Behaviour::Status(429),
        Behaviour::Status(403),
        Behaviour::Garbage,
        Behaviour::Silent,
        Behaviour::Redirect("file:///etc/passwd".into()),
    ] {
        mirror.misbehave("/", 99, behaviour.clone());
        let ran = pull_anew(&place, &reference).expect(0);
        assert_eq!(ran.stderr, "", "{behaviour:?}");
        assert!(asked(&own) > 3, "{behaviour:?}");
        mirror.stop_misbehaving();
        let tries = asked(&mirror);
        // One that does not have it may have the next; any other is left alone for a while.
        assert!(
            if matches!(behaviour, Behaviour::Status(404)) { tries > 3 } else { tries == 1 },
            "{behaviour:?} {tries}"
        );
    }
    // What it makes up is not believed, and asked of the registry.
    mirror.misbehave("/manifests/", 99, Behaviour::Body(b"{}".to_vec()));
    pull_anew(&place, &reference).expect(0);
    assert!(asked(&own) > 3);
    mirror.stop_misbehaving();
    mirror.forget_requests();
    // A part of it only.
    mirror.misbehave("/blobs/", 1, Behaviour::Status(404));
    pull_anew(&place, &reference).expect(0);
    assert_eq!(asked(&own), 1);
    // Of the right length and wrong, of a wrong one, without end.
    for body in [
        Behaviour::Body(b"LAYER".to_vec()),
        Behaviour::Body(vec![b'x'; 5000]),
        Behaviour::BodyWithoutLength(vec![b'x'; 5000]),
        Behaviour::Length(9999),
    ] {
        mirror.misbehave("/blobs/", 99, body.clone());
        assert_eq!(pull_anew(&place, &reference).expect(0).json(), record, "{body:?}");
        mirror.stop_misbehaving();
        own.forget_requests();
    }
    // Begun by the mirror and cut, it is gone on with at the registry.
    mirror.misbehave("/blobs/", 99, Behaviour::CutAfter(3));
    pull_anew(&place, &reference).expect(0);
    let ranges: Vec<_> =
        own.requests().iter().filter_map(|request| request.headers.get("range").cloned()).collect();
    assert!(ranges.contains(&"bytes=3-4".to_owned()), "{ranges:?}");
    own.forget_requests();
    drop(mirror);
    assert_eq!(pull_anew(&place, &reference).expect(0).json(), record);
    own.misbehave("/", 99, Behaviour::Status(404));
    let ran = pull_anew(&place, &reference).expect(4);
    assert!(
        ran.stderr.contains("mirror 127.0.0.1:") && ran.stderr.contains("the registry itself: "),
        "{}",
        ran.stderr
    );
}

#[test]
fn mirrors_may_be_for_digests_only() {
    let (own, mirror, reference) = two();
    let more = "pull-from-mirror = \"digest-only\"";
    let place = place(&mirrored(&own, &format!("{}/cache", mirror.address()), more));
    let digest =
        pull_anew(&place, &reference).expect(0).json()["image"]["digest"].as_str().unwrap().to_owned();
    assert_eq!(asked(&mirror), 0);
    pull_anew(&place, &reference.replace(":v1", &format!("@{digest}"))).expect(0);
    assert!(asked(&mirror) > 3);
}

#[test]
fn another_location_takes_the_place_of_the_first_and_drop_ins_the_place_of_tables() {
    let (own, mirror, reference) = two();
    let place = place(&format!("[[registry]]\nprefix = \"{}/team\"\nblocked = true\n", own.address()));
    let ran = pull_anew(&place, &reference).expect(6);
    assert!(ran.stderr.contains("is blocked in") && ran.stderr.contains("registries.conf"), "{}", ran.stderr);
    let folder = place.path().join("registries.conf.d");
    std::fs::create_dir(&folder).unwrap();
    let table = format!(
        "[[registry]]\nprefix = \"{}/team\"\nlocation = \"{}/cache\"\n",
        own.address(),
        mirror.address()
    );
    std::fs::write(folder.join("50-here.conf"), table).unwrap();
    assert_eq!(pull_anew(&place, &reference).expect(0).json()["image"]["reference"], json!(reference));
    assert_eq!(asked(&own), 0);
    std::fs::write(folder.join("60-bad.conf"), "[[registry]]\nlocation = [").unwrap();
    let ran = pull_anew(&place, &reference).expect(3);
    assert!(ran.stderr.contains("60-bad.conf line 2"), "{}", ran.stderr);
}

#[test]
fn a_login_stays_with_its_host() {
    let (own, mirror, reference) = two();
    own.require_password("u", "hunter2");
    mirror.require_password("m", "other");
    let mut place = place(&mirrored(&own, &format!("{}/cache", mirror.address()), ""));
    let file = place.path().join("auth.json");
    place.set("REGISTRY_AUTH_FILE", file.display().to_string());
    std::fs::write(&file, auth_file(&own.address(), "u", "hunter2")).unwrap();
    pull_anew(&place, &reference).expect(0);
    // It had no login for the mirror, and showed it none.
    let shown = mirror.requests().into_iter().filter(|request| request.headers.contains_key("authorization"));
    assert_eq!((shown.count(), asked(&mirror)), (0, 1));
    assert!(asked(&own) > 3);
    let both: Value = serde_json::from_str(&auth_file(&own.address(), "u", "hunter2")).unwrap();
    let mut both = both;
    let of_mirror: Value = serde_json::from_str(&auth_file("m", "m", "other")).unwrap();
    both["auths"][format!("{}/cache", mirror.address())] = of_mirror["auths"]["m"].clone();
    std::fs::write(&file, both.to_string()).unwrap();
    pull_anew(&place, &reference).expect(0);
    assert_eq!(asked(&own), 0);
}

#[test]
fn hosts_toml_says_who_has_what() {
    let (own, mirror, reference) = two();
    mirror.put_image("team/app", "v1", &[b"layer", b"another"]);
    let place = place("");
    let folder = place.path().join("config/containers/certs.d").join(own.address());
    std::fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n[host.\"http://{}\".header]\nx-who = \"me\"\n",
        mirror.address(),
        mirror.address()
    );
    std::fs::write(folder.join("hosts.toml"), &text).unwrap();
    pull_anew(&place, &reference).expect(0);
    // What the tag stands for is asked of the registry, what has a digest of the mirror.
    let paths: Vec<String> = own.requests().into_iter().map(|request| request.path).collect();
    assert!(paths.iter().all(|path| path == "/v2/team/app/manifests/v1"), "{paths:?}");
    let requests = mirror.requests();
    assert!(requests.len() >= 3);
    for request in requests {
        assert!(request.path.contains(&format!("?ns={}", own.address())), "{}", request.path);
        assert_eq!(request.headers["x-who"], "me");
    }
    // The registry itself elsewhere, below another path.
    std::fs::write(
        folder.join("hosts.toml"),
        format!("server = \"http://{}/v2/cache/..\"", mirror.address()),
    )
    .unwrap();
    own.forget_requests();
    mirror.forget_requests();
    assert_ne!(pull_anew(&place, &reference).status, 0);
    assert!(mirror.requests()[0].path.starts_with("/v2/cache/../v2/team/app/"), "{:?}", mirror.requests());
    std::fs::write(folder.join("hosts.toml"), "[host.\"ftp://x\"]").unwrap();
    assert!(pull_anew(&place, &reference).expect(3).stderr.contains("ftp://x"));
}

#[test]
fn a_token_is_shared_and_renewed_when_it_ends() {
    let registry = FakeRegistry::start();
    registry.put_image("team/app", "v1", &[b"layer"]);
    registry.put_image("team/app", "v2", &[b"other"]);
    registry.require_token(None);
    let place = place("");
    let reference = |tag: &str| format!("{}/team/app:{tag}", registry.address());
    let tokens = || registry.requests().iter().filter(|request| request.path.starts_with("/token")).count();
    pull(&place, &[&reference("v1"), &reference("v2")]).expect(0);
    assert_eq!(tokens(), 1);

    registry.forget_requests();
    // Its time ends between the manifest and the blobs.
    registry.misbehave("/blobs/", 2, Behaviour::Status(503));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !registry.requests().iter().any(|request| request.path.contains("/blobs/")) {
                std::thread::sleep(Duration::from_millis(2));
            }
            registry.change_token("next-token");
        });
        pull_anew(&place, &reference("v1")).expect(0);
    });
    assert_eq!(tokens(), 2);
}

/// Leads connections to an address that is not loopback to one that is, and counts those that begin as plain HTTP does.
fn elsewhere(to: String) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("192.0.2.7:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let plain = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&plain);
    std::thread::spawn(move || {
        for mut near in listener.incoming().flatten() {
            let (to, count) = (to.clone(), Arc::clone(&count));
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut first = [0];
                near.read_exact(&mut first)?;
                if first[0].is_ascii_uppercase() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let mut far = TcpStream::connect(to)?;
                far.write_all(&first)?;
                let (mut back, mut there) = (near.try_clone()?, far.try_clone()?);
                std::thread::spawn(move || {
                    // Either end may go first.
                    let _ = std::io::copy(&mut there, &mut back);
                    let _ = back.shutdown(Shutdown::Both);
                });
                std::io::copy(&mut near, &mut far)?;
                far.shutdown(Shutdown::Write)
            });
        }
    });
    (address, plain)
}

#[test]
fn plain_connections_leave_this_machine_only_where_that_is_asked_for() {
    if !own_network() {
        return;
    }
    ip("address add 192.0.2.7/32 dev lo");
    let registry = FakeRegistry::start();
    registry.put_image("team/app", "v1", &[b"layer"]);
    let (address, plain) = elsewhere(registry.address());
    let plain = || plain.swap(0, Ordering::Relaxed);
    let reference = format!("{address}/team/app:v1");
    let conf = |text: String| place(&text);

    let place = conf(String::new());
    let ran = pull_anew(&place, &reference);
    assert!(ran.status != 0 && plain() == 0, "{}", ran.stderr);
    pull(&place, &["--tls-verify=false", &reference]).expect(0);
    assert!(plain() > 0);
    let place = conf(format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n"));
    pull_anew(&place, &reference).expect(0);
    assert!(plain() > 0);
    // Insecure is another part of it, and a mirror without being said to be.
    let place = conf(format!("[[registry]]\nlocation = \"{address}/other\"\ninsecure = true\n"));
    assert_ne!(pull_anew(&place, &reference).status, 0);
    assert_eq!(plain(), 0);
    for (insecure, status) in [(false, 4), (true, 0)] {
        let near = FakeRegistry::start();
        let place = conf(format!(
            "[[registry]]\nprefix = \"{}\"\n[[registry.mirror]]\nlocation = \"{address}\"\ninsecure = {insecure}\n",
            near.address()
        ));
        pull_anew(&place, &format!("{}/team/app:v1", near.address())).expect(status);
        assert_eq!(plain() > 0, insecure);
    }
    // What is plain goes through a proxy, too.
    let (proxy, _) = elsewhere(registry.address());
    let place = conf(format!("[[registry]]\nlocation = \"{address}\"\ninsecure = true\n"));
    let mut through = place.command(env!("CARGO_BIN_EXE_img-pull"));
    through.args(["--timeout", "1", "--retry", "0", &reference]).env("http_proxy", format!("http://{proxy}"));
    registry.forget_requests();
    Ran::of(&mut through).expect(0);
    let requests = registry.requests();
    let whole = format!("http://{address}/v2/");
    assert!(
        !requests.is_empty() && requests.iter().all(|request| request.path.starts_with(&whole)),
        "{requests:?}"
    );
}
