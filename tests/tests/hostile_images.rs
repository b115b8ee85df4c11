//! Hostile images by every way an image can come: pulled, copied, loaded, imported; unpacked for an overlay and flat, and looked into.
//! Each is refused with a clear error or rendered harmless, nothing outside changes, nothing half-made stays, and memory stays flat.

use oci::Digest;
use oci::manifest::media_type as t;
use pipelines::hostile::{Archive, MadeUp, docker_archive};
use pipelines::{Bench, DockerRegistry, FakeRegistry, Ran};
use serde_json::{Value, json};
use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tar::EntryType;

/// What a case ends with, whichever way it came.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// Status 3, before anything is made of it.
    Refused,
    /// It does no harm.
    Harmless,
    /// One of the two: what a link stands for is not the same alone and on top of the layers below.
    Either,
}
use End::{Either, Harmless, Refused};

/// Each ends with an unpacked image, or says why not. `$A` is docker's archive of the image, `$L` its topmost layer.
const WAYS: [(&str, &str); 5] = [
    ("load", "img-load -q -i $A --name h:1 >/dev/null && img-unpack -q h:1"),
    ("flat", "img-load -q -i $A --name h:1 >/dev/null && img-unpack -q --to $DIR/flat h:1"),
    (
        "copy",
        "img-copy -q docker-archive:$A oci:$DIR/layout:h && img-copy -q oci:$DIR/layout:h store:h:1 && img-unpack -q h:1",
    ),
    ("pull", "img-copy -q docker-archive:$A docker://$W/h:1 && img-pull $W/h:1 | img-unpack -q"),
    ("import", "img-import -q - h:1 <$L >/dev/null && img-unpack -q h:1"),
];

fn bench() -> Option<(Bench, DockerRegistry)> {
    let mut bench = Bench::new()?;
    let storage = bench.place.path().join("storage");
    std::fs::create_dir_all(&storage).unwrap();
    let registry = DockerRegistry::start(&storage, false)?;
    bench.place.set("W", registry.address());
    std::fs::create_dir_all(bench.place.path().join("victim")).unwrap();
    std::fs::write(bench.place.path().join("victim/file"), "untouched").unwrap();
    Some((bench, registry))
}

#[track_caller]
fn clear(ran: &Ran, what: &str) {
    assert!(
        !ran.stderr.contains("panicked") && !ran.stderr.contains("RUST_BACKTRACE"),
        "{what}: {}",
        ran.stderr
    );
    // 4: what a hard link leads to, or an image for this machine, is not there.
    assert!(matches!(ran.status, 0 | 3 | 4), "{what}: {} {}", ran.status, ran.stderr);
    assert!(
        ran.status == 0 || ran.stderr.lines().any(|line| line.starts_with("img-")),
        "{what}: {}",
        ran.stderr
    );
}

/// What went otherwise than it should, by whichever way.
fn try_layers(bench: &Bench, name: &str, layers: &[Vec<u8>], end: End) -> Vec<String> {
    let mut wrong = Vec::new();
    let place = bench.place.path();
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    std::fs::write(place.join("a.tar"), docker_archive(layers, &diff_ids)).unwrap();
    std::fs::write(place.join("l.tar"), layers.last().unwrap()).unwrap();
    for (way, script) in WAYS {
        let ran = bench.sh(&format!(
            "export A=$DIR/a.tar L=$DIR/l.tar; rm -rf $STAVES_ROOT $DIR/flat $DIR/layout; {script} >/dev/null"
        ));
        let what = format!("{name} by {way}");
        clear(&ran, &what);
        // Alone, the topmost layer may have nothing wrong.
        if end != Either && (way != "import" || layers.len() == 1) && (ran.status != 0) != (end == Refused) {
            wrong.push(format!("{what}: {} {}", ran.status, ran.stderr));
        }
        let look = bench.sh("cat $DIR/victim/file; ls -A $DIR/victim; ls -A $STAVES_ROOT/tmp 2>/dev/null; ls -A /tmp | grep ^staves-hostile");
        assert_eq!(look.stdout, "untouchedfile\n", "{what}: something outside changed, or is left");
        if ran.status != 0 {
            assert!(!place.join("flat").exists(), "{what}: half a tree is left");
        }
        // Whoever only looks does it by the same rules.
        clear(&bench.sh("img-files h:1 >/dev/null"), &what);
        clear(&bench.sh("img-cat h:1 a >/dev/null"), &what);
        clear(&bench.sh("img-prune --all >/dev/null; img-ls"), &what);
    }
    wrong
}

#[test]
fn names_and_links_that_lead_out() {
    let Some((bench, _registry)) = bench() else { return };
    let victim = bench.place.path().join("victim").display().to_string();
    let up = "../../../../../../../../../../../../../../../..";
    let file = |archive: Archive, name: &str| archive.file(name, b"x").finish();
    let new = Archive::new;
    let climbing = format!("{up}/tmp/staves-hostile");
    let cases: Vec<(&str, Vec<Vec<u8>>, End)> = vec![
        ("a name that climbs", vec![file(new().dir("a"), &climbing)], Refused),
        ("a name that climbs after a directory", vec![file(new().dir("a"), "a/../../x")], Refused),
        ("an absolute name", vec![file(new(), "/tmp/staves-hostile")], Harmless),
        ("a symbolic link out, then through it", vec![file(new().link("way", &victim), "way/in")], Either),
        ("a relative one", vec![file(new().link("way", &format!("{up}{victim}")), "way/in")], Either),
        ("one in the layer below", vec![new().link("way", &victim).finish(), file(new(), "way/in")], Either),
        (
            "a symbolic link over a directory",
            vec![new().dir("way").finish(), file(new().link("way", &victim), "way/in")],
            Either,
        ),
        ("a hard link out", vec![new().hard_link("stolen", "/etc/shadow").finish()], Refused),
        (
            "a hard link that climbs",
            vec![new().hard_link("stolen", &format!("{up}/etc/shadow")).finish()],
            Refused,
        ),
        (
            "a hard link through a symbolic one",
            vec![new().link("etc", "/etc").hard_link("stolen", "etc/shadow").finish()],
            Refused,
        ),
        (
            "a hard link to the victim, then written",
            vec![file(new().hard_link("v", &format!("{victim}/file")), "v")],
            Refused,
        ),
        ("links in a circle", vec![file(new().link("a", "b").link("b", "a"), "a/x")], Refused),
        ("the root as a link", vec![new().link("./", &victim).file("in", b"x").finish()], Refused),
        (
            "whiteouts of . and ..",
            vec![new().dir("a").file("a/b", b"x").finish(), new().file("a/.wh...", b"").finish()],
            Refused,
        ),
        ("a whiteout of .", vec![new().dir("a").finish(), new().file(".wh..", b"").finish()], Refused),
        ("a whiteout of nothing", vec![new().dir("a").finish(), new().file(".wh.", b"").finish()], Refused),
        (
            "a whiteout behind a link out",
            vec![new().link("way", &victim).finish(), new().file("way/.wh.file", b"").finish()],
            Either,
        ),
        (
            "an opaque directory behind a link out",
            vec![new().link("way", &victim).finish(), new().file("way/.wh..wh..opq", b"").finish()],
            Either,
        ),
    ];
    let wrong: Vec<String> =
        cases.iter().flat_map(|(name, layers, end)| try_layers(&bench, name, layers, *end)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn entries_and_headers_no_writer_makes() {
    let Some((bench, _registry)) = bench() else { return };
    let new = Archive::new;
    let many = |entries: usize| (0..entries).fold(new(), |archive, _| archive.file("a", b"again")).finish();
    let octal = |digits: &[u8]| {
        let mut size = [b'0'; 12];
        size[11 - digits.len()..11].copy_from_slice(digits);
        size[11] = 0;
        size
    };
    let minus_one = [0xff; 12];
    let enormous = [0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let mut cases: Vec<(String, Vec<u8>, End)> = vec![
        ("one name a thousand times".into(), many(1000), Harmless),
        (
            "a file, a directory and a link of one name".into(),
            new().file("a", b"x").dir("a").file("a/b", b"x").link("a", "/etc").file("a", b"y").finish(),
            Harmless,
        ),
        (
            "a directory where a file was, and below it".into(),
            new().file("a", b"x").file("a/b/c", b"x").finish(),
            Either,
        ),
        ("cut in a file".into(), new().file("a", &[7; 5000]).finish()[..2000].to_vec(), Refused),
        ("no tar".into(), b"this is no tar".repeat(100), Refused),
    ];
    for (what, kind) in [
        ("a file", EntryType::Regular),
        ("PAX headers", EntryType::XHeader),
        ("global PAX headers", EntryType::XGlobalHeader),
        ("a long name", EntryType::GNULongName),
        ("a long link", EntryType::GNULongLink),
        ("a sparse file", EntryType::GNUSparse),
    ] {
        for (kind_of_size, size) in [
            ("of -1 bytes", minus_one),
            ("of 8 EiB", enormous),
            ("of 8 GiB that do not come", octal(b"77777777777")),
        ] {
            cases.push((
                format!("{what} {kind_of_size}"),
                new().file("a", b"x").header(kind, "h", size).finish(),
                Refused,
            ));
        }
    }
    let wrong: Vec<String> = cases
        .iter()
        .flat_map(|(name, layer, end)| try_layers(&bench, name, std::slice::from_ref(layer), *end))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const LAYER: &[u8] = b"a";

/// An image whose parts are right, to be spoilt.
fn good() -> (Value, MadeUp) {
    let layer = Archive::new().file("a", LAYER).finish();
    let config = json!({"os": "linux", "architecture": oci::Platform::host().architecture,
        "rootfs": {"type": "layers", "diff_ids": [Digest::of(&layer)]}});
    let config = config.to_string().into_bytes();
    let of = |bytes: &[u8], kind: &str| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
    let manifest = json!({"schemaVersion": 2, "mediaType": t::OCI_MANIFEST, "config": of(&config, t::OCI_CONFIG),
        "layers": [of(&layer, t::OCI_LAYER)]});
    let blobs = vec![(Digest::of(&config), config), (Digest::of(&layer), layer)];
    let made = MadeUp {
        root: manifest.to_string().into_bytes(),
        media_type: t::OCI_MANIFEST.into(),
        blobs,
        ..MadeUp::default()
    };
    (manifest, made)
}

fn index_of(children: &[(&[u8], &str)]) -> Value {
    let platform = json!({"os": "linux", "architecture": oci::Platform::host().architecture});
    let entries: Vec<Value> = children
        .iter()
        .map(|(bytes, kind)| json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len(), "platform": platform}))
        .collect();
    json!({"schemaVersion": 2, "mediaType": t::OCI_INDEX, "manifests": entries})
}

fn documents() -> Vec<(&'static str, MadeUp)> {
    let (manifest, good) = good();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = manifest.clone();
        change(&mut changed);
        MadeUp { root: changed.to_string().into_bytes(), ..good.clone() }
    };
    let typed = |made: MadeUp, media_type: &str| MadeUp { media_type: media_type.into(), ..made };
    let layer = |member: &'static str, value: Value| with(&move |m| m["layers"][0][member] = value.clone());
    // An index in an index in an index …
    let mut nested = good.clone();
    for _ in 0..7 {
        let index = index_of(&[(&nested.root, &nested.media_type)]).to_string().into_bytes();
        let (below, kind) = (
            std::mem::replace(&mut nested.root, index),
            std::mem::replace(&mut nested.media_type, t::OCI_INDEX.into()),
        );
        nested.documents.push((below, kind));
    }
    let schema_1 = json!({"schemaVersion": 1, "name": "x", "tag": "1", "architecture": "amd64", "history": [],
        "fsLayers": [{"blobSum": Digest::of(b"x")}], "signatures": []});
    let mut damaged = good.clone();
    damaged.blobs[1].1[600] ^= 1;
    let mut other_config = good.clone();
    other_config.blobs[0].1[0] = b' ';
    let deep = format!("{{\"schemaVersion\":2,\"x\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let long = format!("{{\"schemaVersion\":2,\"manifests\":[],\"x\":\"{}\"}}", "x".repeat(5 << 20));
    let crowd: Vec<Value> = (0..2001).map(|_| manifest["config"].clone()).collect();
    vec![
        (
            "schema 1",
            typed(
                with(&|m| *m = schema_1.clone()),
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
            ),
        ),
        ("schema 1 without a type", typed(with(&|m| *m = schema_1.clone()), t::DOCKER_MANIFEST)),
        ("a manifest and an index at once", with(&|m| m["manifests"] = json!([]))),
        (
            "a manifest handed over as an index",
            typed(with(&|m| drop(m.as_object_mut().unwrap().shift_remove("mediaType"))), t::OCI_INDEX),
        ),
        ("a manifest that says it is an index", with(&|m| m["mediaType"] = json!(t::OCI_INDEX))),
        ("indexes in indexes", nested),
        ("a layer with other addresses", layer("urls", json!(["http://127.0.0.1:1/secret"]))),
        (
            "a foreign layer",
            layer("mediaType", json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")),
        ),
        (
            "a layer that may not be passed on",
            layer("mediaType", json!("application/vnd.oci.image.layer.nondistributable.v1.tar")),
        ),
        ("a digest that is a path", layer("digest", json!("sha256:../../../../../../etc/passwd"))),
        ("a digest nobody knows", layer("digest", json!("md5:d41d8cd98f00b204e9800998ecf8427e"))),
        ("a digest of another layer", layer("digest", json!(Digest::of(b"another")))),
        ("a size below nothing", layer("size", json!(-1))),
        ("a size above everything", layer("size", json!(u64::MAX))),
        ("a size that is not the layer's", layer("size", json!(4))),
        ("a fractional size", layer("size", json!(1.5))),
        ("a layer that is no layer", layer("mediaType", json!(t::OCI_CONFIG))),
        (
            "layers as arrays",
            with(&|m| m["layers"] = json!([[t::OCI_LAYER, Digest::of(b"x"), 1, null, null, null]])),
        ),
        (
            "a manifest as an array",
            with(&|m| *m = json!([2, t::OCI_MANIFEST, m["config"], m["layers"], null])),
        ),
        ("more layers than diff ids", with(&|m| m["layers"] = json!([m["layers"][0], m["layers"][0]]))),
        ("no layers for a diff id", with(&|m| m["layers"] = json!([]))),
        ("thousands of layers", with(&|m| m["layers"] = json!(crowd))),
        ("a damaged layer", damaged),
        ("a damaged configuration", other_config),
        ("brackets without end", MadeUp { root: deep.into_bytes(), ..good.clone() }),
        ("five megabytes", MadeUp { root: long.into_bytes(), ..good }),
    ]
}

/// Nothing of these gets a name in the store, whichever way it came.
#[test]
fn documents_that_lie() {
    let Some((mut bench, _registry)) = bench() else { return };
    let ways = [
        ("pull", "img-pull --retry 0 $F/made-up:1"),
        ("copy from a registry", "img-copy --retry 0 docker://$F/made-up:1 store:made-up:1"),
        ("copy of all platforms", "img-copy --retry 0 -a docker://$F/made-up:1 oci:$DIR/copied:1"),
        ("copy from a layout", "img-copy oci:$DIR/layout:made-up:1 store:made-up:1"),
        ("copy of all of a layout", "img-copy -a oci:$DIR/layout:made-up:1 dir:$DIR/copied"),
        ("convert", "img-copy -a --format docker oci:$DIR/layout:made-up:1 oci:$DIR/copied:1"),
        ("load", "tar -C $DIR/layout -cf - . | img-load --name made-up:1"),
    ];
    for (name, made) in documents() {
        // One of its own, as it has blobs by the names that are theirs.
        let fake = FakeRegistry::start();
        bench.place.set("F", fake.address());
        made.push(&fake);
        made.layout(&bench.place.path().join("layout"));
        for (way, script) in ways {
            let ran = bench.sh(&format!("rm -rf $STAVES_ROOT $DIR/copied; {script}"));
            let what = format!("{name} by {way}");
            clear(&ran, &what);
            // A copy takes artifacts, too, and does not look into configurations; the store does.
            let as_artifact = [
                "thousands of layers",
                "a layer that is no layer",
                "more layers than diff ids",
                "no layers for a diff id",
                "a foreign layer",
                "a layer that may not be passed on",
            ]
            .contains(&name)
                && script.contains("$DIR/copied");
            assert!(ran.status != 0 || as_artifact, "{what} was taken: {}", ran.stdout);
            let listed = bench.sh("img-ls; ls -A $STAVES_ROOT/tmp $STAVES_ROOT/partial 2>/dev/null | grep -v :; jq -c .manifests[] $DIR/copied/index.json 2>/dev/null");
            assert!(listed.stdout.trim().is_empty() || ran.status == 0, "{what}: {}", listed.stdout);
        }
    }
    // The one they were made from is taken, so that what is refused is what was changed.
    let (_, made) = good();
    let fake = FakeRegistry::start();
    bench.place.set("F", fake.address());
    made.push(&fake);
    made.layout(&bench.place.path().join("layout"));
    for (way, script) in ways {
        let ran = bench.sh(&format!("rm -rf $STAVES_ROOT $DIR/copied; {script}"));
        assert_eq!(ran.status, 0, "{way}: {}", ran.stderr);
    }
}

/// Runs a tool to its end; its status and the most memory it had, in KiB.
fn peak_memory(bench: &Bench, tool: &str, arguments: &[&str], input: Option<&Path>) -> (i32, u64) {
    let mut command = bench.place.command(tool);
    command.args(arguments).current_dir(bench.place.path()).stdout(Stdio::null());
    if let Some(input) = input {
        command.stdin(File::open(input).unwrap());
    }
    let mut child = command.spawn().expect("run a tool");
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        peak = peak.max(now);
        if let Some(status) = child.try_wait().expect("wait for a tool") {
            return (status.code().unwrap_or(-1), peak);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Buffers of a few threads; a bomb is much larger.
const FLAT: u64 = 64 << 10;

#[test]
fn bombs_are_refused_in_flat_memory() {
    let Some((bench, _registry)) = bench() else { return };
    let place = bench.place.path();
    bench
        .sh("cd $DIR; truncate -s 400M zeros; tar -cf - zeros | tee >(sha256sum | cut -c1-64 >id) >(xz -0 -T1 >bomb.xz) | gzip -1 >bomb.gz; sleep 0.2
             { printf '{\"manifests\":['; head -c 400M /dev/zero | tr '\\0' ' '; } >index.json; tar -cf - index.json | gzip -1 >document.gz; rm index.json
             { tar -cf - id; cat zeros; } | gzip -1 >tail.gz; rm zeros; wait")
        .expect(0);
    let id = std::fs::read_to_string(place.join("id")).unwrap();
    let diff_id = Digest::parse(&format!("sha256:{}", id.trim())).unwrap();
    let bomb = std::fs::read(place.join("bomb.gz")).unwrap();
    assert!(bomb.len() < 4 << 20);
    std::fs::write(place.join("a.tar"), docker_archive(&[bomb], &[diff_id])).unwrap();
    let run = |tool: &str, arguments: &[&str], input: Option<&str>, wanted: i32| {
        let input = input.map(|name| place.join(name));
        let (status, peak) = peak_memory(&bench, tool, arguments, input.as_deref());
        assert_eq!(status, wanted, "{tool} {arguments:?}");
        assert!(peak < FLAT, "{tool} {arguments:?} took {peak} KiB");
    };
    // What is packed in the layer is of no interest to who stores it; who unpacks it stops at the limit.
    run("img-load", &["-q", "-i", "a.tar", "--name", "bomb:1"], None, 0);
    run("img-unpack", &["--max-size", "20m", "bomb:1"], None, 3);
    run("img-copy", &["-q", "docker-archive:a.tar", "oci:copied:1"], None, 0);
    run("img-import", &["-q", "-", "imported:1"], Some("bomb.gz"), 0);
    run("img-unpack", &["--max-size", "20m", "imported:1"], None, 3);
    run("img-unpack", &["--max-size", "20m", "--to", "flat", "imported:1"], None, 3);
    // Of xz what is inside is stored, as no layer may be packed so.
    run("img-import", &["-q", "-", "xz:1"], Some("bomb.xz"), 0);
    run("img-load", &[], Some("document.gz"), 3);
    run("img-load", &[], Some("tail.gz"), 3);
    run("img-files", &["imported:1"], None, 0);
    let left = left_behind(&bench);
    assert_eq!(left, "");
}

fn left_behind(bench: &Bench) -> String {
    let left = bench
        .sh("ls -A $STAVES_ROOT/tmp $STAVES_ROOT/layers 2>/dev/null | grep -v :; ls $DIR/flat 2>/dev/null");
    left.stdout.trim().to_owned()
}

/// A frame of zstd names the memory its reader has to have (RFC 8878, 3.1.1.1.2): 2 MiB at the usual level, 128 MiB at the highest, up to
/// terabytes in hostile ones.
#[test]
fn zstd_bombs_are_refused_in_the_memory_their_frames_may_ask_for() {
    let Some((bench, registry)) = bench() else { return };
    let place = bench.place.path();
    bench
        .sh("cd $DIR; truncate -s 400M zeros; tar -cf zeros.tar zeros; rm zeros; sha256sum zeros.tar | cut -c1-64 >id
             zstd -q -3 zeros.tar -o usual; zstd -q --ultra -22 zeros.tar -o highest; zstd -q --long=31 zeros.tar -o beyond; rm zeros.tar")
        .expect(0);
    let id = std::fs::read_to_string(place.join("id")).unwrap();
    let diff_id = Digest::parse(&format!("sha256:{}", id.trim())).unwrap();
    for (name, most) in [("usual", FLAT), ("highest", FLAT + (128 << 10)), ("beyond", FLAT)] {
        let bomb = std::fs::read(place.join(name)).unwrap();
        assert!(bomb.len() < 1 << 20, "{name}");
        std::fs::write(place.join("a.tar"), docker_archive(&[bomb], std::slice::from_ref(&diff_id))).unwrap();
        let reference = format!("{}/{name}:1", registry.address());
        let run = |tool: &str, arguments: &[&str], wanted: i32| {
            let (status, peak) = peak_memory(&bench, tool, arguments, None);
            assert_eq!(status, wanted, "{name}: {tool} {arguments:?}");
            assert!(peak < most, "{name}: {tool} {arguments:?} took {peak} KiB");
        };
        run("img-load", &["-q", "-i", "a.tar", "--name", &reference], 0);
        run("img-push", &["-q", &reference, &reference], 0);
        run("img-rm", &["-q", &reference], 0);
        run("img-pull", &["-q", &reference], 0);
        run("img-unpack", &["--max-size", "20m", &reference], 3);
        run("img-pull", &["-q", "--unpack", &reference], if name == "beyond" { 3 } else { 0 });
        run("img-files", &[&reference], if name == "beyond" { 3 } else { 0 });
        run("img-rm", &["-q", &reference], 0);
        bench.sh("img-prune -q").expect(0);
        assert_eq!(left_behind(&bench), "", "{name}");
    }
}

/// `STAVES_ENTRIES` sets their number, 20000 by default. Of a million in memory's file system, `img-import` takes 3 MiB and `img-unpack`
/// 4 MiB, in a minute.
#[test]
fn many_entries_take_no_memory() {
    let Some((bench, _registry)) = bench() else { return };
    let entries: usize =
        std::env::var("STAVES_ENTRIES").ok().and_then(|text| text.parse().ok()).unwrap_or(20_000);
    let place = bench.place.path();
    let archive = |name: &dyn Fn(usize) -> String| {
        (0..entries).fold(Archive::new(), |archive, number| archive.file(&name(number), b"")).finish()
    };
    let layer = archive(&|number| format!("{}/{}/{number}", number % 100, number % 7));
    std::fs::write(place.join("l.tar"), &layer).unwrap();
    drop(layer);
    let import = peak_memory(&bench, "img-import", &["-q", "-", "many:1"], Some(&place.join("l.tar")));
    let unpack = peak_memory(&bench, "img-unpack", &["-q", "many:1"], None);
    let flat = peak_memory(&bench, "img-unpack", &["-q", "--to", "flat", "many:1"], None);
    let load = peak_memory(&bench, "img-load", &["-q"], Some(&place.join("l.tar")));
    for ((status, peak), what, wanted) in
        [(import, "img-import", 0), (unpack, "img-unpack", 0), (flat, "--to", 0), (load, "img-load", 3)]
    {
        assert_eq!(status, wanted, "{what}");
        assert!(peak < FLAT / 4, "{what} of {entries} entries took {peak} KiB");
    }
}
