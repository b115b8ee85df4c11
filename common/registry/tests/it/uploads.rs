//! Blobs and manifests that are sent.

use crate::{client, descriptor, lines, noise, repository};
use fault::{Fault, Kind, Result};
use oci::manifest::media_type;
use oci::{Digest, Reference};
use registry::{Client, Mount, Options, Repository};
use std::io::Read;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};
use testkit::{Behaviour, DockerRegistry, FakeRegistry};

/// Sends a blob; tells how often its source was opened, and from where.
fn put(repository: &Repository, bytes: &[u8]) -> (Result<()>, Vec<u64>) {
    let mut opened = Vec::new();
    let result = repository.put_blob(
        &descriptor(bytes),
        None,
        &mut |from| {
            opened.push(from);
            Ok(Box::new(&bytes[from as usize..]))
        },
        &mut |_| {},
    );
    (result, opened)
}

fn has(registry: &FakeRegistry, bytes: &[u8]) -> bool {
    registry.blob("team/app", &Digest::of(bytes)).as_deref() == Some(bytes)
}

#[test]
fn small_ones_in_one_piece_large_ones_as_a_stream() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 1);
    let (small, large) = (noise(1000), noise(3 << 20));
    assert!(!repository.has_blob(&descriptor(&small)).unwrap());
    put(&repository, &small).0.unwrap();
    put(&repository, b"").0.unwrap();
    put(&repository, &large).0.unwrap();
    assert!(has(&registry, &small) && has(&registry, b"") && has(&registry, &large));
    assert!(repository.has_blob(&descriptor(&small)).unwrap());
    let of = |method: &str| lines(&registry).iter().filter(|line| line.starts_with(method)).count();
    assert_eq!((of("POST"), of("PUT"), of("PATCH"), of("GET")), (3, 3, 1, 0));
    let mut told = Vec::new();
    let from = |from: u64| -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(std::io::Cursor::new(noise(3 << 20)[from as usize..].to_vec())))
    };
    repository.put_blob(&descriptor(&large), None, &mut { from }, &mut |at| told.push(at)).unwrap();
    assert!(told.is_sorted() && told.last() == Some(&(3 << 20)), "{told:?}");
}

#[test]
fn a_cut_upload_goes_on_where_it_was_cut() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 1);
    let large = noise(3 << 20);
    registry.misbehave("/uploads/u", 1, Behaviour::CutUpload(1_000_000));
    // The question how far it came is the second request.
    let (result, opened) = put(&repository, &large);
    result.unwrap();
    assert_eq!(opened, [0, 1_000_000]);
    assert!(has(&registry, &large));
    // More cuts than tries without progress are allowed.
    registry.clear();
    for _ in 0..6 {
        registry.misbehave("/uploads/u", 1, Behaviour::CutUpload(400_000));
        registry.misbehave("/uploads/u", 1, Behaviour::IgnoreRange);
    }
    let (result, opened) = put(&repository, &large);
    result.unwrap();
    assert_eq!(opened, [0, 400_000, 800_000, 1_200_000, 1_600_000, 2_000_000, 2_400_000]);
    assert!(has(&registry, &large));
    // Cut each time before anything came.
    registry.misbehave("/uploads/u", usize::MAX, Behaviour::CutUpload(0));
    assert_eq!(put(&repository, &large).0.unwrap_err().kind(), Kind::Retryable);
}

#[test]
fn a_lost_answer_and_a_lost_upload() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 2);
    // All of it arrived, only the answer did not.
    let small = noise(1000);
    registry.misbehave("digest=", 1, Behaviour::NoAnswer);
    put(&repository, &small).0.unwrap();
    assert!(has(&registry, &small));
    let of = |method: &str| lines(&registry).iter().filter(|line| line.starts_with(method)).count();
    assert_eq!((of("POST"), of("PUT"), of("HEAD")), (1, 1, 1), "{:?}", lines(&registry));
    // The registry forgets the upload: from the beginning.
    let large = noise(2 << 20);
    registry.misbehave("/uploads/u", 1, Behaviour::ForgetUpload);
    let (result, opened) = put(&repository, &large);
    result.unwrap();
    assert_eq!(opened, [0, 0]);
    assert!(has(&registry, &large));
    // A wrong end of one that was resumed: once more in one.
    registry.clear();
    registry.misbehave("/uploads/u", 1, Behaviour::CutUpload(1_000_000));
    registry.misbehave("/uploads/u", 1, Behaviour::IgnoreRange);
    registry.misbehave("/uploads/u", 1, Behaviour::IgnoreRange);
    registry.misbehave("digest=", 1, Behaviour::Status(400));
    let (result, opened) = put(&repository, &large);
    result.unwrap();
    assert_eq!(opened, [0, 1_000_000, 0]);
}

#[test]
fn what_is_refused_is_told() {
    let registry = FakeRegistry::start();
    let large = noise(8 << 20);
    for (path, behaviour, kind) in [
        ("/uploads/u", Behaviour::Status(413), Kind::Input),
        ("/uploads/", Behaviour::Status(403), Kind::Denied),
        ("/uploads/", Behaviour::Status(401), Kind::Denied),
        ("/uploads/", Behaviour::Status(405), Kind::Input),
        ("/uploads/", Behaviour::RetryAfter(429, 100_000), Kind::Retryable),
        ("/uploads/", Behaviour::Status(503), Kind::Retryable),
        ("digest=", Behaviour::Status(400), Kind::Input),
        ("digest=", Behaviour::DigestHeader(Digest::of(b"x").to_string()), Kind::Input),
        ("/uploads/", Behaviour::Header("Location", "file:///etc/passwd".into()), Kind::Input),
        ("/uploads/", Behaviour::Header("Location", "http://me:secret@127.0.0.1/".into()), Kind::Input),
        ("/uploads/u", Behaviour::Header("Range", "0-5".into()), Kind::Input),
        ("/uploads/u", Behaviour::Redirect("/v2/elsewhere".into()), Kind::Input),
    ] {
        registry.clear();
        registry.misbehave(path, usize::MAX, behaviour.clone());
        let failed = put(&repository(&registry, 2), &large).0.expect_err(&format!("{behaviour:?}"));
        assert_eq!(failed.kind(), kind, "{behaviour:?}: {failed}");
        registry.stop_misbehaving();
    }
    // What passes is waited for.
    registry.clear();
    let repository = repository(&registry, 2);
    registry.misbehave("/uploads/", 1, Behaviour::RetryAfter(429, 0));
    registry.misbehave("digest=", 1, Behaviour::Status(502));
    put(&repository, &large).0.unwrap();
    assert!(has(&registry, &large));
}

#[test]
fn a_silent_registry_is_given_up_on() {
    let registry = FakeRegistry::start();
    let options = Options { timeout: Duration::from_millis(100), retries: 9, ..Options::default() };
    let reference = Reference::parse(&format!("{}/team/app", registry.address())).unwrap();
    let repository = Client::new(options).repository(&reference);
    for (path, length) in [("/uploads/u", 2 << 20), ("/uploads/u", 1000), ("/uploads/", 1000)] {
        registry.misbehave(path, usize::MAX, Behaviour::Silent);
        let start = Instant::now();
        assert_eq!(put(&repository, &noise(length)).0.unwrap_err().kind(), Kind::Retryable);
        assert!(start.elapsed() < Duration::from_secs(5), "{path} {length}: {:?}", start.elapsed());
        registry.stop_misbehaving();
    }
}

#[test]
fn more_than_there_is_cannot_have_arrived() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 2);
    let large = noise(2 << 20);
    let absurd = Behaviour::Header("Range", "0-99999999999999".into());
    registry.misbehave("/uploads/u", 1, absurd.clone());
    put(&repository, &large).0.unwrap();
    assert!(has(&registry, &large));
    // Of an upload that was cut: it is left, and another one begun.
    registry.clear();
    registry.misbehave("/uploads/u", 1, Behaviour::CutUpload(1_000_000));
    registry.misbehave("/uploads/u", 1, absurd);
    let (result, opened) = put(&repository, &large);
    result.unwrap();
    assert_eq!(opened, [0, 0]);
    assert!(has(&registry, &large));
    // A byte that did not count when it was asked for.
    let small = noise(1000);
    registry.misbehave("digest=", 1, Behaviour::CutUpload(1));
    put(&repository, &small).0.unwrap();
}

#[test]
fn a_source_that_fails_ends_it() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 3);
    let large = noise(2 << 20);
    let short = &large[..5000];
    let failed = repository
        .put_blob(&descriptor(&large), None, &mut |_| Ok(Box::new(short)), &mut |_| {})
        .unwrap_err();
    assert!(failed.to_string().contains("after 5000 of 2097152"), "{failed}");
    let failed = repository
        .put_blob(&descriptor(&large), None, &mut |_| Err(Fault::not_found("gone")), &mut |_| {})
        .unwrap_err();
    assert_eq!(failed.kind(), Kind::NotFound);
}

#[test]
fn an_address_elsewhere_gets_no_credentials() {
    let registry = FakeRegistry::start();
    let elsewhere = FakeRegistry::start();
    registry.require_scopes(&[]);
    let location = format!("http://{}/v2/team/app/blobs/uploads/u1", elsewhere.address());
    let repository = repository(&registry, 0);
    // Log in first.
    put(&repository, b"one").0.unwrap();
    registry.misbehave("/uploads/", 1, Behaviour::Header("Location", location));
    let _ = put(&repository, &noise(2 << 20)).0.unwrap_err();
    let seen = elsewhere.requests();
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|request| !request.headers.contains_key("authorization")), "{seen:?}");
    // What it asks for, it does not get either: it is not who the login is for.
    elsewhere.require_token(None);
    for bytes in [noise(1000), noise(2 << 20)] {
        elsewhere.forget_requests();
        let location = format!("http://{}/v2/team/app/blobs/uploads/u1", elsewhere.address());
        registry.misbehave("/uploads/", 1, Behaviour::Header("Location", location));
        let failed = put(&repository, &bytes).0.unwrap_err();
        // Its answer may be lost, as it does not wait for what is sent.
        assert!(matches!(failed.kind(), Kind::Denied | Kind::Retryable), "{failed}");
        let seen = elsewhere.requests();
        assert!(seen.iter().all(|request| !request.path.contains("/token")), "{seen:?}");
        assert!(seen.iter().all(|request| !request.headers.contains_key("authorization")), "{seen:?}");
    }
}

#[test]
fn a_token_from_before_that_has_ended_is_asked_for_anew() {
    let registry = FakeRegistry::start();
    registry.put_image("team/app", "v1", &[b"layer"]);
    registry.require_token(None);
    let client = client(0);
    let reference = Reference::parse(&format!("{}/team/app:v1", registry.address())).unwrap();
    let tokens = || lines(&registry).iter().filter(|line| line.contains("/token")).count();
    client.repository(&reference).manifest("v1").unwrap();
    client.repository(&reference).manifest("v1").unwrap();
    assert_eq!(tokens(), 1);
    // Another repository of the same client does not know yet that it has.
    registry.change_token("next-token");
    client.repository(&reference).manifest("v1").unwrap();
    assert_eq!(tokens(), 2);
    // One for writing is not the same.
    client.repository(&reference).for_writing().manifest("v1").unwrap();
    assert_eq!(tokens(), 3);
}

#[test]
fn one_login_lists_repositories() {
    let registry = FakeRegistry::start();
    registry.put_image("team/app", "v1", &[b"layer"]);
    registry.require_token(None);
    registry.challenge(&format!("Bearer realm=\"http://{}/token\"", registry.address()));
    assert_eq!(client(0).catalog(&registry.address()).unwrap(), ["team/app"]);
    let asked = lines(&registry);
    assert!(asked.iter().any(|line| line.ends_with("/token?scope=registry:catalog:%2A")), "{asked:?}");
}

#[test]
fn a_stream_whose_end_is_not_known() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 1);
    for length in [0, 1000, 4 << 20, (4 << 20) + 1, 10 << 20] {
        let bytes = noise(length);
        let sent = repository.put_stream(&mut &bytes[..], &mut |_| {}).unwrap();
        assert_eq!(sent, (Digest::of(&bytes), length as u64));
        assert!(has(&registry, &bytes), "{length}");
    }
    // Cut within the second piece, and the answer to the third lost.
    let bytes = noise(13 << 20);
    registry.misbehave("/uploads/u", 1, Behaviour::IgnoreRange);
    registry.misbehave("/uploads/u", 1, Behaviour::CutUpload(3_000_000));
    registry.misbehave("/uploads/u", 2, Behaviour::IgnoreRange);
    registry.misbehave("/uploads/u", 1, Behaviour::NoAnswer);
    let sent = repository.put_stream(&mut &bytes[..], &mut |_| {}).unwrap();
    assert_eq!(sent.0, Digest::of(&bytes));
    assert!(has(&registry, &bytes));
    // A registry that wants larger pieces gets them, within reason.
    registry.misbehave("/uploads/", 1, Behaviour::Header("OCI-Chunk-Min-Length", "8388608".into()));
    registry.forget_requests();
    repository.put_stream(&mut &bytes[..], &mut |_| {}).unwrap();
    assert_eq!(lines(&registry).iter().filter(|line| line.starts_with("PATCH")).count(), 2);
    registry.misbehave("/uploads/", 1, Behaviour::Header("OCI-Chunk-Min-Length", u64::MAX.to_string()));
    assert_eq!(repository.put_stream(&mut &bytes[..], &mut |_| {}).unwrap_err().kind(), Kind::Input);
    // What was read cannot be read again.
    registry.misbehave("/uploads/u", 1, Behaviour::IgnoreRange);
    registry.misbehave("/uploads/u", 1, Behaviour::ForgetUpload);
    let failed = repository.put_stream(&mut &bytes[..], &mut |_| {}).unwrap_err();
    assert_eq!(failed.kind(), Kind::Conflict, "{failed}");
}

#[test]
fn mounts_and_the_tokens_for_them() {
    let registry = FakeRegistry::start();
    let bytes = noise(1000);
    let digest = registry.put_blob_in("base/os", &bytes);
    registry.require_scopes(&["repository:secret:pull"]);
    let hidden = registry.put_blob_in("secret", b"hidden");
    let repository = repository(&registry, 1).for_writing();
    assert!(!repository.has_blob(&descriptor(&bytes)).unwrap());
    assert!(matches!(repository.mount_blob(&digest, "base/os").unwrap(), Mount::Done));
    assert!(has(&registry, &bytes));
    let tokens: Vec<_> = lines(&registry).into_iter().filter(|line| line.contains("/token")).collect();
    assert_eq!(tokens.len(), 2, "{tokens:?}");
    assert!(tokens[0].contains("scope=repository:team/app:pull%2Cpush"), "{tokens:?}");
    assert!(tokens[1].contains("scope=repository:base/os:pull&"), "{tokens:?}");
    // One that may not be read from: refused, and the next request is none the worse for it.
    assert!(matches!(repository.mount_blob(&hidden, "secret").unwrap(), Mount::Refused));
    put(&repository, b"hidden").0.unwrap();
    assert!(has(&registry, b"hidden"));
    // One that does not have it: the upload that is open then is used.
    let other = noise(2000);
    let Mount::Open(session) = repository.mount_blob(&Digest::of(&other), "base/os").unwrap() else {
        panic!("no upload was opened")
    };
    registry.forget_requests();
    let mut source = |_| -> Result<Box<dyn Read + Send>> { Ok(Box::new(std::io::Cursor::new(noise(2000)))) };
    repository.put_blob(&descriptor(&other), Some(session), &mut source, &mut |_| {}).unwrap();
    assert_eq!(lines(&registry).len(), 1);
}

#[test]
fn manifests_are_put_and_removed() {
    let registry = FakeRegistry::start();
    let repository = repository(&registry, 1);
    let stored = repository.put_manifest(b"{}", media_type::OCI_MANIFEST, "v1").unwrap();
    assert_eq!((stored.digest.clone(), stored.subject), (Digest::of(b"{}"), None));
    assert_eq!(registry.manifest_bytes("team/app", "v1"), b"{}");
    let wrong = Digest::of(b"x");
    for (identifier, behaviour) in [
        (wrong.as_str(), Behaviour::IgnoreRange),
        ("v1", Behaviour::DigestHeader(wrong.to_string())),
        ("v1", Behaviour::Status(400)),
    ] {
        registry.misbehave("/manifests/", 1, behaviour);
        let failed = repository.put_manifest(b"{}", media_type::OCI_MANIFEST, identifier).unwrap_err();
        assert_eq!(failed.kind(), Kind::Input);
        registry.stop_misbehaving();
    }
    registry.misbehave("/manifests/", 1, Behaviour::Header("OCI-Subject", wrong.to_string()));
    let stored = repository.put_manifest(b"{}", media_type::OCI_MANIFEST, "v1").unwrap();
    assert_eq!(stored.subject, Some(wrong));
    repository.delete_manifest(stored.digest.as_str()).unwrap();
    assert_eq!(repository.delete_manifest(stored.digest.as_str()).unwrap_err().kind(), Kind::NotFound);
    registry.misbehave("/manifests/", 1, Behaviour::Status(405));
    assert_eq!(repository.delete_manifest("v1").unwrap_err().kind(), Kind::Denied);
    let large = vec![b' '; 5 << 20];
    assert_eq!(
        repository.put_manifest(&large, media_type::OCI_MANIFEST, "v1").unwrap_err().kind(),
        Kind::Input
    );
}

/// Passes connections on to a server, and cuts the first so many of them after so many bytes in either direction.
fn cutting_proxy(to: String, cuts: usize, after: u64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().flatten().enumerate() {
            let Ok(server) = TcpStream::connect(&to) else { return };
            let after = if number < cuts { after } else { u64::MAX };
            let both = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
            for (from, to) in both.map(|(from, to)| (from.unwrap(), to.unwrap())) {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut (&from).take(after), &mut &to);
                    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
                });
            }
        }
    });
    address
}

#[test]
fn a_real_registry_behind_a_bad_line() {
    let storage = tempfile::tempdir().unwrap();
    let Some(registry) = DockerRegistry::start(storage.path(), false) else { return };
    let bytes = noise(20 << 20);
    let line = || {
        let proxy = cutting_proxy(registry.address(), 2, 2_500_000);
        client(3).repository(&Reference::parse(&format!("{proxy}/team/app")).unwrap())
    };
    // This registry drops what was cut within a request.
    let (result, opened) = put(&line(), &bytes);
    result.unwrap();
    assert_eq!(opened.len(), 3, "{opened:?}");
    let mut back = Vec::new();
    line().open_blob(&descriptor(&bytes)).unwrap().read_to_end(&mut back).unwrap();
    assert!(back == bytes);
    let failed = line().put_stream(&mut &bytes[..], &mut |_| {}).unwrap_err();
    assert_eq!(failed.kind(), Kind::Conflict, "{failed}");
}

#[test]
fn a_real_registry_takes_all_of_it() {
    let storage = tempfile::tempdir().unwrap();
    let Some(registry) = DockerRegistry::start(storage.path(), false) else { return };
    let repository = |path: &str| {
        client(1).repository(&Reference::parse(&format!("{}/{path}", registry.address())).unwrap())
    };
    let (one, two) = (repository("team/one").for_writing(), repository("team/two"));
    for length in [0, 1, 1000, 3 << 20, 20 << 20] {
        let bytes = noise(length);
        put(&one, &bytes).0.unwrap();
        assert!(one.has_blob(&descriptor(&bytes)).unwrap(), "{length}");
        let mut back = Vec::new();
        one.open_blob(&descriptor(&bytes)).unwrap().read_to_end(&mut back).unwrap();
        assert!(back == bytes, "{length}");
        assert!(matches!(two.mount_blob(&Digest::of(&bytes), "team/one").unwrap(), Mount::Done), "{length}");
    }
    for length in [0, 5, 4 << 20, (9 << 20) + 7] {
        let bytes: Vec<u8> = noise(length).iter().map(|byte| !byte).collect();
        let (digest, size) = two.put_stream(&mut &bytes[..], &mut |_| {}).unwrap();
        assert_eq!((&digest, size), (&Digest::of(&bytes), length as u64));
        assert!(two.has_blob(&descriptor(&bytes)).unwrap());
    }
    let mount = two.mount_blob(&Digest::of(b"nowhere"), "team/one").unwrap();
    assert!(matches!(mount, Mount::Open(_)), "{mount:?}");
}
