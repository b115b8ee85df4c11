//! ADD of addresses: names, modes, times, checksums, what is asked again and what is not.

use crate::place::{How, Place, list, mode};
use crate::server::{Page, Server};
use context::web::Web;
use context::{Login, Options};
use fault::Kind;
use oci::Digest;
use std::os::unix::fs::MetadataExt;
use store::Store;

fn web(place: &Place) -> Web {
    let store = Store::at(place.dir.path().join("store"), place.dir.path().join("run"));
    let options = registry::Options {
        timeout: std::time::Duration::from_secs(5),
        retries: 1,
        ..registry::Options::default()
    };
    Web::new(&store, registry::Client::new(options))
}

fn body(text: &str) -> Page {
    Page { body: text.as_bytes().to_vec(), ..Page::default() }
}

#[test]
fn a_file_is_fetched_once_and_asked_about_afterwards() {
    let (place, server) = (Place::new(), Server::new());
    let headers =
        vec![("etag", "\"one\"".to_owned()), ("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT".to_owned())];
    let url = server.put("/dir/data.bin", vec![Page { headers, ..body("content") }]);
    let page = web(&place).fetch(&url, None).unwrap();
    assert_eq!((page.name.as_str(), page.size, page.modified), ("data.bin", 7, Some(1_445_412_480)));
    assert_eq!(page.digest, Digest::of(b"content"));
    let again = web(&place).fetch(&url, None).unwrap();
    assert_eq!(
        (again.name, again.digest, again.modified),
        (page.name.clone(), page.digest.clone(), page.modified)
    );
    let requests = server.requests();
    assert_eq!(requests.len(), 2);
    assert!(!requests[0].headers.contains_key("if-none-match"));
    assert_eq!(requests[1].headers["if-none-match"], "\"one\"");

    let chosen = page.context().unwrap().select(&[&page.name], &Options::default()).unwrap();
    place.write(&chosen, "/in/", &How::default()).unwrap();
    assert_eq!(list(&place.root()), ["in/", "in/data.bin=content"]);
    let status = place.root().join("in/data.bin").metadata().unwrap();
    assert_eq!((mode(&place.root().join("in/data.bin")), status.mtime()), (0o600, 1_445_412_480));
    place.write(&chosen, "/named", &How { chmod: Some("644"), ..How::default() }).unwrap();
    assert_eq!(mode(&place.root().join("named")), 0o644);

    // With a checksum that fits, nobody is asked.
    assert!(web(&place).fetch(&url, Some(&page.digest)).is_ok());
    assert_eq!(server.requests().len(), 2);
    // What changed is fetched anew.
    server.put("/dir/data.bin", vec![Page { headers: vec![("etag", "\"two\"".into())], ..body("changed") }]);
    let changed = web(&place).fetch(&url, None).unwrap();
    assert_eq!((changed.digest, changed.modified), (Digest::of(b"changed"), None));
    // The content first chosen is still what is written.
    place.write(&chosen, "/late", &How::default()).unwrap();
    assert!(list(&place.root()).contains(&"late=content".to_owned()));
}

#[test]
fn what_is_damaged_in_the_cache_is_fetched_again() {
    let (place, server) = (Place::new(), Server::new());
    let url = server.put("/f", vec![Page { headers: vec![("etag", "\"x\"".into())], ..body("right") }]);
    let digest = web(&place).fetch(&url, None).unwrap().digest;
    let kept = place.dir.path().join(format!("store/cache/http/sha256-{}", digest.hex()));
    for damage in [b"wrong".as_slice(), b"", b"right and more"] {
        std::fs::write(&kept, damage).unwrap();
        let page = web(&place).fetch(&url, None).unwrap();
        assert_eq!(std::io::read_to_string(page.open().unwrap()).unwrap(), "right");
        assert!(!server.requests().last().unwrap().headers.contains_key("if-none-match"));
    }
    for entry in std::fs::read_dir(kept.parent().unwrap()).unwrap().flatten() {
        std::fs::write(entry.path(), [0xff; 300]).unwrap();
    }
    assert_eq!(web(&place).fetch(&url, None).unwrap().digest, digest);
    assert_eq!(list(&place.dir.path().join("store/tmp")), Vec::<String>::new());
}

#[test]
fn checksums_are_held() {
    let (place, server) = (Place::new(), Server::new());
    let url = server.put("/f", vec![body("content")]);
    let right = Digest::of(b"content");
    assert_eq!(web(&place).fetch(&url, Some(&right)).unwrap().digest, right);
    let sha512 = Digest::parse(
        "sha512:b2d1d285b5199c85f988d03649c37e44fd3dde01e5d69c50fef90651962f48110e9340b60d49a479c4c0b53f5f07d690686dd87d2481937a512e8b85ee7c617f",
    )
    .unwrap();
    assert_eq!(web(&place).fetch(&url, Some(&sha512)).unwrap().digest, right);
    let fault = web(&place).fetch(&url, Some(&Digest::of(b"other"))).unwrap_err();
    assert_eq!(fault.kind(), Kind::Input);
    assert!(fault.to_string().contains(right.as_str()), "{fault}");
}

#[test]
fn names_come_from_the_path_else_from_the_server() {
    let (place, server) = (Place::new(), Server::new());
    let named = |name: &str| Page {
        headers: vec![("content-disposition", format!("attachment; filename=\"{name}\""))],
        ..body("x")
    };
    for (path, page, name) in [
        ("/a/b.txt", named("other"), "b.txt"),
        ("/a%20b", body("x"), "a b"),
        ("/", named("from-server"), "from-server"),
        ("/", named("../../etc/passwd"), "passwd"),
        ("/", named(".."), "__unnamed__"),
        ("/", body("x"), "__unnamed__"),
    ] {
        let url = server.put(path, vec![page]);
        assert_eq!(web(&place).fetch(&url, None).unwrap().name, name, "{path}");
    }
    let url = server.put("/q", vec![body("x")]);
    assert_eq!(web(&place).fetch(&format!("{url}?x=/y/z#frag"), None).unwrap().name, "q");
    assert_eq!(server.requests().last().unwrap().path, "/q?x=/y/z");
}

#[test]
fn redirects_are_followed_and_users_told_to_one_server_only() {
    let (place, server, other) = (Place::new(), Server::new(), Server::new());
    let target = other.put("/final", vec![body("moved")]);
    let to = |location: &str| Page {
        status: 302,
        headers: vec![("location", location.to_owned())],
        ..Page::default()
    };
    server.put("/one", vec![to("/two")]);
    server.put("/two", vec![to(&target)]);
    let url = format!("http://u:p%40ss@{}/one", &server.url()[7..]);
    let page = web(&place).fetch(&url, None).unwrap();
    // The name is that of what was asked for.
    assert_eq!((page.digest, page.name.as_str()), (Digest::of(b"moved"), "one"));
    let basic = "Basic dTpwQHNz";
    assert!(server.requests().iter().all(|request| request.headers["authorization"] == basic));
    assert!(!other.requests()[0].headers.contains_key("authorization"));
    let circle = server.put("/circle", vec![to("/circle")]);
    assert_eq!(web(&place).fetch(&circle, None).unwrap_err().kind(), Kind::Input);
    for bad in ["file:///etc/passwd", "ftp://x/y", "http://u:p@127.0.0.1/"] {
        let url = server.put("/bad", vec![to(bad)]);
        assert_eq!(web(&place).fetch(&url, None).unwrap_err().kind(), Kind::Input, "{bad}");
    }
}

#[test]
fn a_login_is_told_to_its_server_alone() {
    let (place, server, other) = (Place::new(), Server::new(), Server::new());
    let target = other.put("/final", vec![body("moved")]);
    let to = Page { status: 302, headers: vec![("location", target)], ..Page::default() };
    let url = server.put("/one", vec![to]);
    for (login, sent) in
        [(Login::token("s3cret\n"), "Bearer s3cret"), (Login::header("Basic xyz"), "Basic xyz")]
    {
        let login = login.unwrap();
        assert!(!format!("{login:?}").contains("s3cret"));
        web(&place).fetch_as(&url, None, Some(&login)).unwrap();
        assert_eq!(server.requests().last().unwrap().headers["authorization"], sent);
        assert!(!other.requests().last().unwrap().headers.contains_key("authorization"));
    }
    for bad in ["", "\n", "a\nb: c", "\u{e9}"] {
        assert!(Login::token(bad).is_err() && Login::header(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn refusals_cuts_and_too_much() {
    let (place, server) = (Place::new(), Server::new());
    for (status, kind) in [
        (404, Kind::NotFound),
        (410, Kind::NotFound),
        (401, Kind::Denied),
        (403, Kind::Denied),
        (418, Kind::Failed),
        (503, Kind::Retryable),
    ] {
        let url = server.put("/refused", vec![Page { status, ..Page::default() }]);
        assert_eq!(web(&place).fetch(&url, None).unwrap_err().kind(), kind, "{status}");
    }
    let unavailable = Page { status: 503, ..Page::default() };
    let url = server.put("/later", vec![unavailable, body("at last")]);
    assert_eq!(web(&place).fetch(&url, None).unwrap().size, 7);
    let cut = Page { cut_after: Some(10), ..body(&"x".repeat(1000)) };
    let url = server.put("/cut", vec![cut.clone(), body("whole")]);
    assert_eq!(web(&place).fetch(&url, None).unwrap().size, 5);
    let url = server.put("/always-cut", vec![cut]);
    assert_eq!(web(&place).fetch(&url, None).unwrap_err().kind(), Kind::Retryable);
    let small = web(&place).with_limit(100);
    for no_length in [false, true] {
        let url = server.put("/long", vec![Page { no_length, ..body(&"x".repeat(101)) }]);
        assert_eq!(small.fetch(&url, None).unwrap_err().kind(), Kind::Input);
        let url = server.put("/fits", vec![Page { no_length, ..body(&"x".repeat(100)) }]);
        assert_eq!(small.fetch(&url, None).unwrap().size, 100);
    }
    let liar = server.put("/unasked", vec![Page { status: 304, ..Page::default() }]);
    assert_eq!(web(&place).fetch(&liar, None).unwrap_err().kind(), Kind::Input);
    for bad in ["http://", "nonsense", "http://127.0.0.1:1/x?token=secret"] {
        let fault = web(&place).fetch(bad, None).unwrap_err();
        assert!(!format!("{fault} {:?}", fault.subject()).contains("secret"), "{fault}");
    }
    assert_eq!(list(&place.dir.path().join("store/tmp")), Vec::<String>::new());
}
