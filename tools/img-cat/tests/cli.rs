//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;
#[path = "../../img-files/tests/layers/mod.rs"]
mod layers;

use images::put;
use layer::Time;
use layer::pack::Member;
use layers::Layer;
use std::process::{Command, Output};
use testkit::{Behaviour, FakeRegistry, Place, Ran};

/// More than one buffer.
static LONG: [u8; 300_000] = [7; 300_000];

fn cat(place: &Place, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-cat"));
    place.furnish(&mut command);
    command.args(arguments).output().unwrap()
}

/// What it prints when all is well.
fn printed(place: &Place, arguments: &[&str]) -> Vec<u8> {
    let output = cat(place, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// How it fails.
fn failed(place: &Place, arguments: &[&str]) -> (Option<i32>, String) {
    let output = cat(place, arguments);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn put_app(place: &Place, name: &str, base: Layer) {
    let upper = Layer::new()
        .dir("etc")
        .file("etc/a", b"upper a")
        .file("etc/.wh.b", b"")
        .hard_link("etc/same", "etc/c")
        .symlink("etc/absolute", "/etc/a")
        .symlink("etc/up", "../../../etc/c")
        .symlink("loop", "loop")
        .file("etc/twice", b"first")
        .file("etc/twice", b"last");
    put(place, name, &[base.tar(), upper.tar()]);
}

fn base() -> Layer {
    let lib = Layer::new().dir("usr").dir("usr/lib").file("usr/lib/x", b"x").symlink("lib", "usr/lib");
    lib.dir("etc").file("etc/a", b"lower a").file("etc/b", b"lower b").file("etc/c", &LONG)
}

#[test]
fn the_image_shows_the_uppermost() {
    let place = Place::new();
    put_app(&place, "app", base());
    for (path, wanted) in [
        ("etc/a", b"upper a".as_slice()),
        ("/etc/a", b"upper a"),
        ("etc/absolute", b"upper a"),
        ("../etc/./a", b"upper a"),
        ("etc/twice", b"last"),
        ("lib/x", b"x"),
        ("etc/c", &LONG),
        ("etc/same", &LONG),
        ("etc/up", &LONG),
    ] {
        assert_eq!(printed(&place, &["app", path]), wanted, "{path}");
    }
    assert_eq!(printed(&place, &["app", "etc/a", "lib/x", "etc/twice", "etc/a"]), b"upper axlastupper a");
    let piped = place.sh("img-inspect app | img-cat - etc/a etc/twice").expect(0);
    assert_eq!(piped.stdout, "upper alast");
    for (path, status, why) in [
        ("etc/b", 4, "no such file"),
        ("nothing", 4, "no such file"),
        ("etc/a/x", 4, "no directory"),
        ("loop", 4, "symbolic links"),
        ("etc", 3, "is a directory"),
        ("/", 3, "is a directory"),
    ] {
        let (code, text) = failed(&place, &["app", path]);
        assert!(code == Some(status) && text.contains(why) && text.contains(path), "{path}: {code:?} {text}");
    }
    // Whoever read it has seen enough; of an archive nothing less than all is enough.
    let ran = place.sh("img-cat app etc/c etc/c etc/c | head -c 3 | wc -c; echo ${PIPESTATUS[0]}").expect(0);
    assert_eq!(ran.stdout, "3\n0\n");
    place.sh("img-cat --tar app etc | head -c 3 >/dev/null; exit ${PIPESTATUS[0]}").expect(1);
    // What can be printed is.
    let output = cat(&place, &["app", "etc/b", "etc/a"]);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(4), b"upper a".as_slice()));
    assert_eq!(failed(&place, &["nothing", "x"]).0, Some(4));
    Ran::of(place.command("bash").args(["-c", "img-cat - x </dev/null"])).expect(3);
}

#[test]
fn names_are_bytes() {
    let place = Place::new();
    let odd = Member { path: b"odd-\xff", ..Layer::plain("") };
    put(&place, "app", &[Layer::new().add(&odd, b"content").tar()]);
    assert_eq!(
        place.sh("img-cat app $'odd-\\xff'; img-files app -q -p $'od?-\\xff'").expect(0).stdout,
        "content/odd-\u{fffd}\n"
    );
}

#[test]
fn layers_that_do_not_matter_are_not_read() {
    let place = Place::new();
    // Nothing of the lowest layer can be read.
    let upper =
        Layer::new().dir("etc").file("etc/a", b"a").symlink("etc/l", "a").file("etc/.wh.b", b"").tar();
    put(&place, "app", &[b"no archive at all".to_vec(), upper.clone()]);
    assert_eq!(printed(&place, &["app", "etc/a", "etc/l"]), b"aa");
    assert_eq!(failed(&place, &["app", "etc/b"]).0, Some(4));
    assert_eq!(failed(&place, &["app", "etc/other"]).0, Some(3));
    // Whether etc is a directory, only the lower layers know.
    let no_directory = Layer::new().file("etc/a", b"a").tar();
    put(&place, "other", &[b"no archive at all".to_vec(), no_directory]);
    assert_eq!(failed(&place, &["other", "etc/a"]).0, Some(3));
}

#[test]
fn an_archive_of_paths_is_what_tar_reads() {
    let place = Place::new();
    put_app(&place, "app", base());
    let listed =
        place.sh("img-cat --tar app etc | tar -tv --full-time --utc | sed 's/  */ /g'").expect(0).stdout;
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(lines[0], "drwxr-xr-x 0/0 0 1970-01-01 00:00:01 etc/");
    assert!(listed.contains("lrwxrwxrwx 0/0 0 1970-01-01 00:00:01 etc/absolute -> /etc/a"), "{listed}");
    assert!(listed.contains("hrw-r--r-- 0/0 0 1970-01-01 00:00:01 etc/same link to etc/c"), "{listed}");
    assert_eq!(lines.len(), 7, "{listed}");
    assert_eq!(printed(&place, &["--tar", "app", "etc"]), printed(&place, &["--tar", "app", "/etc/"]));
    let content = place.sh("img-cat --tar app lib/x etc/a | tar -xO").expect(0).stdout;
    assert!(content == "xupper a" || content == "upper ax", "{content}");
    assert_eq!(place.sh("img-cat --tar app lib | tar -t").expect(0).stdout, "lib\n");
    // Half an archive is none.
    let output = cat(&place, &["--tar", "app", "etc", "nothing"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0));
}

#[test]
fn an_archive_of_everything_unpacks_to_the_same_image() {
    let place = Place::new();
    let long = format!("{}/{}", "l".repeat(120), "n".repeat(200));
    let xattrs = [(b"user.staves".to_vec(), vec![0, 1, b'\n'])];
    let odd = Member {
        uid: 3_000_000,
        mode: 0o4711,
        mtime: Time { seconds: -2, nanoseconds: 750_000_000 },
        xattrs: &xattrs,
        ..Layer::plain(&long)
    };
    put_app(
        &place,
        "app",
        base().dir(&"l".repeat(120)).add(&odd, b"content").symlink("far", &"x/".repeat(150)),
    );
    // An image of that archive as its only layer has the same files.
    put(&place, "again", &[printed(&place, &["--tar", "app", "/"])]);
    let told = "img-files $1 | jq -c 'del(.layer)'";
    let same = place.sh(&format!("f() {{ {told}; }}; diff <(f app) <(f again) && f again | wc -l")).expect(0);
    assert!(same.stdout.trim().parse::<u32>().unwrap() >= 15, "{}", same.stdout);
    assert_eq!(printed(&place, &["again", &long]), b"content");
    assert_eq!(printed(&place, &["again", "etc/same"]), LONG);
}

#[test]
fn of_an_image_in_a_registry_no_more_is_fetched_than_to_the_end_of_the_file() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let noise = vec![9; 8 << 20];
    let lower = base().file("etc/only-below", b"below").tar();
    let upper = Layer::new()
        .dir("etc")
        .symlink("link", "etc/a")
        .file("etc/a", b"upper a")
        .file("etc/b", b"upper b")
        .file("noise", &noise)
        .file("late", b"late")
        .tar();
    let pushed = registry.put_image("app", "1", &[&lower, &upper]);
    let image = format!("docker://{}/app:1", registry.address());
    let cat = |path: &str| {
        cat(&place, &["--retry", "0", "--timeout", "20", "--platform", "linux/amd64", &image, path])
    };
    // The highest layer, and what comes after the file never does.
    registry.misbehave(pushed.layers[1].as_str(), 99, Behaviour::CutAfter(1 << 20));
    for (path, wanted) in [("etc/a", "upper a"), ("/etc/b", "upper b"), ("link", "upper a")] {
        registry.forget_requests();
        let output = cat(path);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            wanted,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success());
        let blobs: Vec<String> = registry
            .requests()
            .iter()
            .filter(|r| r.path.contains("/blobs/"))
            .map(testkit::fake_registry::Request::line)
            .collect();
        assert!(blobs.len() == 2 && blobs[1].contains(pushed.layers[1].as_str()), "{blobs:?}");
    }
    let output = cat("late");
    assert!(!output.status.success() && output.stdout.is_empty());
    registry.stop_misbehaving();
    for (path, wanted) in [("late", "late"), ("etc/only-below", "below"), ("lib/x", "x")] {
        assert_eq!(String::from_utf8_lossy(&cat(path).stdout), wanted);
    }
    assert_eq!(cat("etc/none").status.code(), Some(4));
    assert_eq!(cat("etc").status.code(), Some(3));
    let several = printed(&place, &["--platform", "linux/amd64", &image, "etc/only-below", "late", "etc/a"]);
    assert_eq!(several, b"belowlateupper a");
    assert!(!place.root().join("blobs").exists());
    // A layer that is read to its end is known to be the one.
    let mut other = lower.clone();
    *other.last_mut().unwrap() = 1;
    registry.misbehave(pushed.layers[0].as_str(), 99, Behaviour::Body(other));
    let output = cat("etc/none");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(3) && stderr.contains("has the digest"), "{stderr}");
}

#[test]
fn of_a_link_to_what_another_layer_hides_the_truth_is_told() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let layers = [
        base().file("etc/x", b"lowest").tar(),
        Layer::new().dir("etc").file("etc/x", b"hidden").symlink("sh", "etc/x").file("etc/y", b"y").tar(),
        Layer::new().dir("etc").file("etc/.wh..wh..opq", b"").file("etc/z", b"z").tar(),
        Layer::new().file("deep/file", b"no directory is listed").tar(),
    ];
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    registry.put_image("app", "1", &layers);
    let image = format!("docker://{}/app:1", registry.address());
    for (path, wanted) in [
        ("sh", None),
        ("etc/x", None),
        ("etc/y", None),
        ("etc/z", Some("z")),
        ("deep/file", Some("no directory is listed")),
    ] {
        let output = cat(&place, &["--platform", "linux/amd64", &image, path]);
        match wanted {
            Some(wanted) => assert_eq!(String::from_utf8_lossy(&output.stdout), wanted),
            None => assert_eq!((output.status.code(), output.stdout.len()), (Some(4), 0), "{path}"),
        }
    }
}
