//! The tool as a program, on images made by hand.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;
#[path = "../../img-files/tests/layers/mod.rs"]
mod layers;

use images::put;
use layer::Time;
use layer::pack::Member;
use layers::Layer;
use serde_json::{Value, json};
use std::process::Command;
use testkit::{FakeRegistry, Place, Ran};

fn diff(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-diff"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Change, path and what of files.
fn files(ran: &Ran) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    lines(ran)
        .iter()
        .filter(|line| line["kind"] == "file")
        .map(|line| {
            let what: Vec<String> = line["what"].as_array().into_iter().flatten().map(text).collect();
            (text(&line["change"]), text(&line["path"]), what.join(","))
        })
        .collect()
}

fn base() -> Layer {
    let layer =
        Layer::new().dir("etc").file("etc/same", b"same").file("etc/text", b"one").file("etc/gone", b"12345");
    layer.file("mode", b"").file("kind", b"").symlink("link", "a").dir("lost").file("lost/a", b"1")
}

fn owner(path: &str) -> Member<'_> {
    Member { uid: 5, mtime: Time { seconds: 1, nanoseconds: 7 }, mode: 0o600, ..Layer::plain(path) }
}

#[test]
fn files_differ_in_what_they_are() {
    let place = Place::new();
    put(&place, "app:1", &[base().tar()]);
    let upper = Layer::new()
        .file("etc/text", b"two")
        .file("etc/.wh.gone", b"")
        .add(&owner("mode"), b"")
        .dir("kind")
        .file("kind/new", b"1234")
        .symlink("link", "b")
        .file(".wh.lost", b"");
    put(&place, "app:2", &[base().tar(), upper.tar()]);
    let ran = diff(&place, &["app:1", "app:2", "--only", "file"]).expect(0);
    let wanted = [
        ("deleted", "/etc/gone", ""),
        ("changed", "/etc/text", "content"),
        ("changed", "/kind", "type,content,mode"),
        ("added", "/kind/new", ""),
        ("changed", "/link", "link"),
        ("deleted", "/lost", ""),
        ("deleted", "/lost/a", ""),
        ("changed", "/mode", "mode,owner,mtime"),
    ];
    let wanted: Vec<_> =
        wanted.iter().map(|(a, b, c)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned())).collect();
    assert_eq!(files(&ran), wanted);
    let all = lines(&ran);
    assert_eq!(
        (all[0]["size_change"].as_i64(), all[0]["old"]["size"].as_u64(), all[0].get("new")),
        (Some(-5), Some(5), None)
    );
    assert_ne!(all[1]["old"]["digest"], all[1]["new"]["digest"]);
    assert_eq!((&all[7]["old"]["mode"], &all[7]["new"]["mode"]), (&json!("0644"), &json!("0600")));
    // The other way round it is the other way round.
    let back = files(&diff(&place, &["app:2", "app:1", "--only", "file"]).expect(0));
    assert_eq!(back[0], ("added".to_owned(), "/etc/gone".to_owned(), String::new()));
    let some = diff(&place, &["app:1", "app:2", "--ignore", "owner,mtime,mode", "-p", "mode", "-p", "etc/*"])
        .expect(0);
    assert_eq!(files(&some), wanted[..2]);
    let table = diff(&place, &["app:1", "app:2", "--output", "table"]).expect(0).stdout;
    let line = |words: &[&str]| table.lines().any(|line| line.split_whitespace().eq(words.iter().copied()));
    assert!(line(&["D", "file", "-5B", "/etc/gone"]), "{table}");
    assert!(line(&["C", "file", "link", "/link"]), "{table}");
    assert_eq!(
        diff(&place, &["app:1", "app:2", "-q", "-p", "etc"]).expect(0).stdout,
        "/etc/gone\n/etc/text\n"
    );
}

#[test]
fn the_same_is_not_different_however_it_is_packed() {
    let place = Place::new();
    put(&place, "one", &[base().tar()]);
    put(&place, "two", &[Layer::new().dir("etc").file("etc/same", b"other").tar(), base().tar()]);
    // More layers and the same files: a sparse reading of both says so.
    let ran = diff(&place, &["one", "two", "--exit-code", "--only", "file"]).expect(0);
    assert_eq!(ran.stdout, "");
    diff(&place, &["one", "one", "--exit-code"]).expect(0);
    diff(&place, &["one", "two", "--exit-code"]).expect(1);
    diff(&place, &["one", "two"]).expect(0);
    diff(&place, &["one", "nothing", "--exit-code"]).expect(4);
    let piped = place.sh("img-inspect one two | img-diff; img-inspect two | img-diff one; img-inspect one | img-diff - two").expect(0);
    let each = diff(&place, &["one", "two"]).expect(0).stdout;
    assert_eq!(piped.stdout, each.repeat(3));
    place.sh("img-inspect one two | img-diff one").expect(3);
    place.sh("img-diff </dev/null").expect(3);
    put(&place, "broken", &[Layer::new().file("../x", b"").tar()]);
    diff(&place, &["one", "broken"]).expect(3);
}

#[test]
fn configurations_and_manifests_are_compared_by_member() {
    let place = Place::new();
    put(&place, "one", &[base().tar()]);
    place.sh("img-edit one --env A=1 --env B=2 --cmd x -l k=v -t two && img-edit two --env A=3 --unset env.B --annotation n=1 -t three").expect(0);
    let told = |arguments: &[&str]| -> Vec<(String, String, Value, Value)> {
        let of = |line: &Value, name: &str| line.get(name).cloned().unwrap_or(Value::Null);
        lines(&diff(&place, arguments).expect(0))
            .iter()
            .filter(|line| line["member"] != "created")
            .map(|line| {
                let kind = format!("{} {}", line["kind"].as_str().unwrap(), line["change"].as_str().unwrap());
                (
                    kind,
                    line["member"].as_str().unwrap_or_default().to_owned(),
                    of(line, "old"),
                    of(line, "new"),
                )
            })
            .collect()
    };
    let row =
        |kind: &str, member: &str, old: Value, new: Value| (kind.to_owned(), member.to_owned(), old, new);
    assert_eq!(
        told(&["one", "two"]),
        [
            row("config changed", "config.Cmd", json!(["sh"]), json!(["x"])),
            row("config added", "config.Labels.k", Value::Null, json!("v")),
            row("config added", "config.Env.A", Value::Null, json!("1")),
            row("config added", "config.Env.B", Value::Null, json!("2")),
        ]
    );
    assert_eq!(
        told(&["two", "three"]),
        [
            row("manifest added", "annotations.n", Value::Null, json!("1")),
            row("config changed", "config.Env.A", json!("1"), json!("3")),
            row("config deleted", "config.Env.B", json!("2"), Value::Null),
        ]
    );
    assert_eq!(told(&["two", "three", "--only", "manifest"]).len(), 1);
}

#[test]
fn layers_say_why_they_are_not_the_same() {
    let place = Place::new();
    let entries = |mtime: i64| {
        let dated = Member { mtime: Time { seconds: mtime, nanoseconds: 0 }, ..Layer::plain("etc/b") };
        Layer::new().dir("etc").file("etc/a", b"1").add(&dated, b"2").tar()
    };
    put(&place, "one", &[entries(1)]);
    put(&place, "dated", &[entries(2)]);
    put(&place, "moved", &[Layer::new().dir("etc").file("etc/b", b"2").file("etc/a", b"1").tar()]);
    let mut other = entries(1);
    // The name of a user: what unpacking makes of it is the same.
    let at = 512 + 265;
    other[at] = b'x';
    let sum: u32 =
        (512..1024).map(|at| if (660..668).contains(&at) { 32 } else { u32::from(other[at]) }).sum();
    other[660..668].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    put(&place, "named", &[other]);
    put(&place, "more", &[entries(1), entries(1)]);
    let first = |name: &str| diff(&place, &["--layers", "one", name]).expect(0).json();
    let dated = first("dated");
    assert_eq!((&dated["what"], &dated["entry"]), (&json!("entries"), &json!(2)));
    assert_eq!(dated["first"]["differs"], json!(["mtime"]));
    assert_eq!(dated["first"]["old"]["mtime"], "1970-01-01T00:00:01Z");
    assert_eq!(
        (&dated["first"]["new"]["path"], &dated["first"]["new"]["mtime"]),
        (&json!("/etc/b"), &json!("1970-01-01T00:00:02Z"))
    );
    let moved = first("moved");
    assert_eq!((&moved["what"], &moved["first"]["new"]["path"]), (&json!("order"), &json!("/etc/b")));
    let named = first("named");
    let offset = named["offset"].as_u64().unwrap();
    assert!(named["what"] == "headers" && (660..668).contains(&offset), "{named}");
    let more = first("more");
    assert_eq!((&more["change"], &more["index"]), (&json!("added"), &json!(1)));
    let table = diff(&place, &["--layers", "one", "dated", "--output", "table"]).expect(0).stdout;
    assert!(table.contains("entry 2 is -rw-r--r-- 0:0 1 1970-01-01 00:00 /etc/b where it was"), "{table}");
    assert!(table.contains("/etc/b (mtime)"), "{table}");
    diff(&place, &["--layers", "--exit-code", "one", "dated"]).expect(1);
}

/// Real layers: what one image has on top of itself is what differs.
#[test]
fn real_images_differ_in_what_was_put_on_top() {
    let Some(images) = testkit::images() else { return };
    let Some(layout) = images.layout("busybox") else { return };
    let place = Place::new();
    std::fs::create_dir_all(place.root()).unwrap();
    let script = "cp -r \"$1\"/. $STAVES_ROOT/ && img-ls | head -1 | jq -r .image.reference";
    let mut command = place.command("bash");
    let name = Ran::of(command.args(["-c", script, "-"]).arg(&layout)).expect(0).stdout;
    let name = name.trim();
    // Its own archive in one layer is the same image in another.
    let flat = Command::new("bash")
        .args(["-c", "img-cat --tar \"$1\" /", "-", name])
        .env(
            "PATH",
            std::env::join_paths([testkit::profile_dir(), "/usr/bin".into(), "/bin".into()]).unwrap(),
        )
        .env("STAVES_ROOT", place.root())
        .env("STAVES_RUN", place.run())
        .output()
        .unwrap();
    assert!(flat.status.success(), "{}", String::from_utf8_lossy(&flat.stderr));
    let upper = Layer::new().file("bin/new", b"new").file("bin/.wh.busybox", b"").tar();
    put(&place, "flat", std::slice::from_ref(&flat.stdout));
    put(&place, "changed", &[flat.stdout, upper]);
    assert_eq!(diff(&place, &[name, "flat", "--only", "file"]).expect(0).stdout, "");
    let changed = files(&diff(&place, &[name, "changed", "--only", "file"]).expect(0));
    let told: Vec<(&str, &str)> =
        changed.iter().map(|(change, path, _)| (change.as_str(), path.as_str())).collect();
    assert_eq!(told, [("deleted", "/bin/busybox"), ("added", "/bin/new")]);
}

#[test]
fn images_are_compared_where_they_are() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let layers = [Layer::new().dir("etc").file("etc/a", b"a").tar(), Layer::new().file("b", b"b").tar()];
    registry.put_image("app", "1", &[&layers[0], &layers[1]]);
    put(&place, "app:1", &[layers[0].clone(), Layer::new().file("b", b"B").tar()]);
    let image = format!("docker://{}/app:1", registry.address());
    let words = ["--only", "file", "--exit-code", "--ignore", "mtime"];
    let ran = diff(&place, &[words.as_slice(), &["app:1", &image]].concat()).expect(1);
    assert_eq!(files(&ran), [("changed".into(), "/b".into(), "content".into())]);
    let ran = diff(&place, &[words.as_slice(), &["--platform", "linux/amd64", &image, &image]].concat());
    assert_eq!(ran.expect(0).stdout, "");
}
