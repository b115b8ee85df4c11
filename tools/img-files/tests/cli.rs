//! The tool as a program, on images made by hand and on real ones.

#[path = "../../img-unpack/tests/images/mod.rs"]
mod images;
mod layers;

use images::put;
use layer::pack::Member;
use layer::{ItemKind, Time};
use layers::Layer;
use serde_json::Value;
use std::process::Command;
use testkit::{Behaviour, FakeRegistry, Place, Ran};

fn files(place: &Place, arguments: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_img-files"));
    place.furnish(&mut command);
    Ran::of(command.args(arguments))
}

fn lines(ran: &Ran) -> Vec<Value> {
    ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn paths(place: &Place, arguments: &[&str]) -> Vec<String> {
    let all = [arguments, &["-q"]].concat();
    files(place, &all).expect(0).stdout.lines().map(str::to_owned).collect()
}

fn two_layers(place: &Place) {
    let base = Layer::new()
        .dir("etc")
        .file("etc/a.conf", b"1")
        .file("etc/gone", &[0; 700])
        .dir("usr")
        .dir("usr/lib")
        .file("usr/lib/x.so", b"22")
        .symlink("lib", "usr/lib");
    let upper = Layer::new()
        .file("etc/a.conf", b"333")
        .file("etc/.wh.gone", b"")
        .hard_link("etc/b.conf", "etc/a.conf")
        .file("lib/y.so", b"4444");
    put(place, "app:1", &[base.tar(), upper.tar()]);
}

#[test]
fn the_merged_tree_is_listed_with_all_that_is_known() {
    let place = Place::new();
    two_layers(&place);
    let ran = files(&place, &["app:1"]).expect(0);
    let all = lines(&ran);
    let told: Vec<&str> = all.iter().map(|file| file["path"].as_str().unwrap()).collect();
    let wanted =
        ["/etc", "/etc/a.conf", "/etc/b.conf", "/lib", "/usr", "/usr/lib", "/usr/lib/x.so", "/usr/lib/y.so"];
    assert_eq!(told, wanted);
    assert_eq!(
        (all[1]["size"].as_u64(), all[1]["mode"].as_str(), all[1]["links"].as_u64()),
        (Some(3), Some("0644"), Some(2))
    );
    assert_eq!((all[3]["type"].as_str(), all[3]["link"].as_str()), (Some("symlink"), Some("usr/lib")));
    assert_eq!(all[1]["mtime"], "1970-01-01T00:00:01Z");
    let layers =
        Ran::of(place.command("img-inspect").arg("app:1")).expect(0).json()["image"]["layers"].clone();
    assert_eq!((&all[0]["layer"], &all[1]["layer"]), (&layers[0]["digest"], &layers[1]["digest"]));
    // Records in, and people's table.
    let piped = place.sh("img-inspect app:1 | img-files").expect(0);
    assert_eq!(piped.stdout, ran.stdout);
    let table = files(&place, &["--output", "table", "app:1"]).expect(0).stdout;
    assert!(table.contains("lrwxrwxrwx   0:0     0      1970-01-01 00:00"), "{table}");
    assert!(table.contains("/lib -> usr/lib"), "{table}");
    // Of several images each line says whose it is.
    let both = lines(&files(&place, &["app:1", "app:1"]).expect(0));
    assert_eq!(both.len(), 2 * all.len());
    assert_eq!(both[0]["image"], "docker.io/library/app:1");
    files(&place, &["nothing"]).expect(4);
    assert_eq!(place.sh("img-files </dev/null").expect(0).stdout, "");
}

#[test]
fn paths_patterns_depth_and_sizes() {
    let place = Place::new();
    two_layers(&place);
    assert_eq!(paths(&place, &["app:1", "-p", "etc/*.conf"]), ["/etc/a.conf", "/etc/b.conf"]);
    assert_eq!(paths(&place, &["app:1", "-p", "**/*.so"]), ["/usr/lib/x.so", "/usr/lib/y.so"]);
    assert_eq!(
        paths(&place, &["app:1", "-p", "/usr/"]),
        ["/usr", "/usr/lib", "/usr/lib/x.so", "/usr/lib/y.so"]
    );
    assert_eq!(paths(&place, &["app:1", "-p", "lib"]), ["/lib"]);
    assert_eq!(paths(&place, &["app:1", "-p", "lib/x.so", "-p", "lib/x.so"]), ["/lib/x.so"]);
    assert_eq!(paths(&place, &["app:1", "--depth", "1"]), ["/etc", "/lib", "/usr"]);
    assert!(paths(&place, &["app:1", "-p", "*.none"]).is_empty());
    let ran = files(&place, &["app:1", "-p", "etc/gone"]).expect(4);
    assert!(ran.stderr.contains("no such file") && ran.stderr.contains("app:1"), "{}", ran.stderr);
    let sizes = lines(&files(&place, &["app:1", "--du", "--depth", "1"]).expect(0));
    let told: Vec<_> =
        sizes.iter().map(|one| (one["path"].as_str().unwrap(), one["size"].as_u64().unwrap())).collect();
    // A file with two names counts once.
    assert_eq!(told, [("/", 9), ("/usr", 6), ("/etc", 3)]);
    let hidden = lines(&files(&place, &["app:1", "--hidden"]).expect(0));
    let told: Vec<_> =
        hidden.iter().map(|one| (one["type"].as_str().unwrap(), one["path"].as_str().unwrap())).collect();
    assert_eq!(told, [("file", "/etc/a.conf"), ("file", "/etc/gone"), ("whiteout", "/etc/gone")]);
    assert_eq!(files(&place, &["app:1", "--hidden", "--du", "--depth", "0"]).expect(0).json()["size"], 701);
}

#[test]
fn a_layer_is_listed_as_it_is() {
    let place = Place::new();
    two_layers(&place);
    let wanted = ["/etc/a.conf", "/etc/gone", "/etc/b.conf", "/lib/y.so"];
    assert_eq!(paths(&place, &["app:1", "--layer", "1"]), wanted);
    assert_eq!(paths(&place, &["app:1", "--layer", "-1"]), wanted);
    let raw = lines(&files(&place, &["app:1", "--layer", "1"]).expect(0));
    assert_eq!((raw[1]["type"].as_str(), raw[2]["type"].as_str()), (Some("whiteout"), Some("hardlink")));
    let digest = raw[0]["layer"].as_str().unwrap();
    assert_eq!(paths(&place, &["app:1", "--layer", digest]), wanted);
    assert_eq!(paths(&place, &["app:1", "--layer", &digest[7..20]]), wanted);
    files(&place, &["app:1", "--layer", "2"]).expect(4);
    files(&place, &["app:1", "--layer", "-3"]).expect(4);
    files(&place, &["app:1", "--layer", "sha256:zz"]).expect(4);
    // One layer that is gone is named.
    std::fs::remove_file(place.root().join("blobs/sha256").join(&digest[7..])).unwrap();
    let ran = files(&place, &["app:1"]).expect(4);
    assert!(ran.stderr.contains(digest) && ran.stderr.contains("img-pull"), "{}", ran.stderr);
}

#[test]
fn odd_files_are_told_exactly() {
    let place = Place::new();
    let bytes = [b"odd-\xff\n".as_slice(), b"x"].concat();
    let xattrs = [(b"user.k".to_vec(), vec![0, 255]), (b"trusted.overlay.opaque".to_vec(), b"y".to_vec())];
    let layer = Layer::new()
        .add(
            &Member {
                path: &bytes,
                xattrs: &xattrs,
                mtime: Time { seconds: -2, nanoseconds: 5 },
                ..Layer::plain("")
            },
            b"",
        )
        .add(
            &Member { kind: ItemKind::BlockDevice, device: (8, 300), mode: 0o4660, ..Layer::plain("sda") },
            b"",
        )
        .file(&"d/".repeat(200), b"")
        .tar();
    put(&place, "odd", &[layer]);
    let all = lines(&files(&place, &["odd"]).expect(0));
    let odd = all.iter().find(|file| file["path"].as_str().unwrap().starts_with("/odd")).unwrap();
    assert_eq!(odd["path_base64"], "L29kZC3/Cng=");
    assert_eq!(odd["xattrs"], serde_json::json!({"user.k": "AP8="}));
    assert_eq!(odd["mtime"], "1969-12-31T23:59:58.000000005Z");
    let device = all.last().unwrap();
    assert_eq!((&device["device"]["minor"], device["mode"].as_str()), (&Value::from(300), Some("4660")));
    let deepest = all.iter().filter(|file| file["path"].as_str().unwrap().starts_with("/d/d")).count();
    assert_eq!(deepest, 199);
    // Control characters do not reach a terminal, nor a line break a list of paths.
    assert!(!files(&place, &["odd", "--output", "table"]).stdout.contains("odd-\u{fffd}\n"));
    assert_eq!(paths(&place, &["odd", "-p", "odd*"]).len(), 1);
}

#[test]
fn hostile_layers_fail_by_name() {
    let place = Place::new();
    for (name, layer) in [
        ("out", Layer::new().file("../x", b"")),
        ("loop", Layer::new().symlink("l", "l").file("l/x", b"")),
        ("nowhere", Layer::new().hard_link("x", "y")),
        ("mark", Layer::new().file("a/.wh.", b"")),
    ] {
        put(&place, name, &[layer.tar()]);
        let ran = files(&place, &[name]).expect(3);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(name), "{}", ran.stderr);
    }
    put(&place, "cut", &[Layer::new().file("x", &[1; 5000]).tar()[..2000].to_vec()]);
    files(&place, &["cut"]).expect(3);
    // A reader that has seen enough ends it quietly.
    let mut many = Layer::new();
    for n in 0..100_000 {
        many = many.file(&format!("{}/{n}", n % 10), b"");
    }
    put(&place, "many", &[many.tar()]);
    let ran = place.sh("img-files many | head -1; echo ${PIPESTATUS[0]}").expect(0);
    assert!(ran.stdout.ends_with("}\n0\n"), "{}", ran.stdout);
    assert_eq!(paths(&place, &["many"]).len(), 100_010);
}

/// What the tool lists is what unpacking makes.
#[test]
fn real_images_are_listed_as_they_unpack() {
    let Some(images) = testkit::images() else { return };
    if !testkit::is_root() {
        return testkit::skip("owners take root");
    }
    for name in ["busybox", "layers", "debian"] {
        let Some(layout) = images.layout(name) else { continue };
        let place = Place::new();
        std::fs::create_dir_all(place.root()).unwrap();
        let ran =
            place.sh(&format!("cp -r {}/. $STAVES_ROOT/ && img-ls | head -1", layout.display())).expect(0);
        let reference = ran.json()["image"]["reference"].as_str().unwrap().to_owned();
        let script = format!(
            "img-unpack --to $DIR/tree '{reference}' >/dev/null && cd $DIR/tree &&
             find . -mindepth 1 -printf '/%P|%y|%m|%U|%G|%T@|%l|' \\( -type f -printf '%s\\n' -o -printf '0\\n' \\) | LC_ALL=C sort"
        );
        let unpacked = place.sh(&script).expect(0).stdout;
        let letters = |kind: &str| match kind {
            "chardevice" => 'c',
            "fifo" => 'p',
            "symlink" => 'l',
            other => other.chars().next().unwrap_or('?'),
        };
        let mut listed: Vec<String> = lines(&files(&place, &[&reference]).expect(0))
            .iter()
            .filter(|file| file["path"] != "/")
            .map(|file| {
                let mode = u32::from_str_radix(file["mode"].as_str().unwrap(), 8).unwrap();
                let time = file["mtime"].as_str().unwrap_or_default().to_owned();
                format!(
                    "{}|{}|{mode:o}|{}|{}|{time}|{}|{}",
                    file["path"].as_str().unwrap(),
                    letters(file["type"].as_str().unwrap()),
                    file["uid"],
                    file["gid"],
                    file["link"].as_str().unwrap_or(""),
                    file["size"],
                )
            })
            .collect();
        listed.sort_unstable();
        let without_times = |line: &str| -> Vec<String> {
            line.split('|').enumerate().filter(|(at, _)| *at != 5).map(|(_, part)| part.to_owned()).collect()
        };
        let unpacked: Vec<_> = unpacked.lines().map(without_times).collect();
        let told: Vec<_> = listed.iter().map(|line| without_times(line)).collect();
        assert!(unpacked.len() > 3, "{name}");
        let first = unpacked.iter().zip(&told).find(|(one, other)| one != other);
        assert_eq!((first, unpacked.len()), (None, told.len()), "{name}");
    }
}

#[test]
fn an_image_in_a_registry_is_listed_and_one_that_is_another_is_not() {
    let (registry, place) = (FakeRegistry::start(), Place::new());
    let layers = [Layer::new().dir("etc").file("etc/a", b"a").tar(), Layer::new().file("b", b"b").tar()];
    let pushed = registry.put_image("app", "1", &[&layers[0], &layers[1]]);
    let image = format!("docker://{}/app:1", registry.address());
    let words = ["--retry", "0", "-q", "--platform", "linux/amd64", image.as_str()];
    assert_eq!(files(&place, &words).expect(0).stdout, "/b\n/etc\n/etc/a\n");
    assert!(!place.root().join("blobs").exists());
    let mut other = layers[1].clone();
    *other.last_mut().unwrap() = 1;
    // Another of the same size, a shorter and a longer one, and one that breaks off.
    let longer = [layers[1].as_slice(), &[0; 512]].concat();
    let shorter = layers[1][..layers[1].len() - 512].to_vec();
    for (behaviour, why) in [
        (Behaviour::Body(other), "has the digest"),
        (Behaviour::Body(shorter), "announced"),
        (Behaviour::BodyWithoutLength(longer), "longer"),
        (Behaviour::CutAfter(700), "layer"),
    ] {
        registry.misbehave(pushed.layers[1].as_str(), 99, behaviour);
        let ran = files(&place, &words);
        assert!(
            ran.status != 0 && ran.stdout.is_empty() && ran.stderr.contains(why),
            "{} {}",
            ran.status,
            ran.stderr
        );
        registry.stop_misbehaving();
    }
}
