use crate::build::{Item, Layer, gzip};
use crate::{apply, apply_within, is_root};
use fault::Kind;
use layer::scan::scan;
use layer::{Budget, Limits, View};
use std::fs;
use std::io::Read;
use std::path::Path;
use tempfile::{TempDir, tempdir};

/// A layer's directory with something precious beside it.
fn yard() -> (TempDir, std::path::PathBuf) {
    let yard = tempdir().unwrap();
    fs::create_dir(yard.path().join("outside")).unwrap();
    fs::write(yard.path().join("outside/precious"), b"precious").unwrap();
    let root = yard.path().join("root");
    fs::create_dir(&root).unwrap();
    (yard, root)
}

fn untouched(yard: &Path) {
    assert_eq!(fs::read(yard.join("outside/precious")).unwrap(), b"precious");
    let names = |dir: &Path| {
        let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(yard), ["outside", "root"]);
    assert_eq!(names(&yard.join("outside")), ["precious"]);
}

#[test]
fn nothing_leads_out() {
    for (what, make) in [
        ("..", (|_| Layer::new().file("../outside/evil", b"x")) as fn(&Path) -> Layer),
        ("a/../../", |_| Layer::new().file("a/../../outside/evil", b"x")),
        ("absolute ..", |_| Layer::new().file("/../outside/evil", b"x")),
        ("link, relative", |_| Layer::new().symlink("l", "../outside").file("l/evil", b"x")),
        ("link, absolute", |outside| {
            Layer::new().symlink("l", outside.to_str().unwrap()).file("l/evil", b"x")
        }),
        ("link to link", |_| {
            Layer::new().symlink("a", "..").symlink("b", "a/outside").file("b/precious", b"x")
        }),
        ("hard link, relative", |_| Layer::new().hard_link("h", "../outside/precious").file("h", b"x")),
        ("hard link, absolute", |outside| {
            Layer::new().hard_link("h", outside.join("precious").to_str().unwrap())
        }),
        ("hard link through a link", |_| {
            Layer::new().symlink("l", "../outside").hard_link("h", "l/precious")
        }),
        ("directory through a link", |_| Layer::new().symlink("l", "../outside").dir("l/evil")),
        ("device through a link", |_| Layer::new().symlink("l", "../outside").device(b'3', "l/evil", (1, 3))),
        ("whiteout through a link", |_| Layer::new().symlink("l", "../outside").file("l/.wh.precious", b"")),
        ("opaque through a link", |_| Layer::new().symlink("l", "../outside").file("l/.wh..wh..opq", b"")),
        ("magic link", |_| Layer::new().symlink("l", "/proc/self/cwd").file("l/evil", b"x")),
        ("whiteout of the directory above", |_| Layer::new().file("d/.wh...", b"")),
        ("whiteout of the directory itself", |_| Layer::new().file("d/.wh..", b"")),
        ("whiteout of nothing", |_| Layer::new().file("d/.wh.", b"")),
        ("whiteout of a path", |_| Layer::new().file("d/.wh./x", b"")),
        ("below a whiteout", |_| Layer::new().file(".wh.d/x", b"")),
        ("PAX path", |_| Layer::new().pax(&[("path", b"../outside/evil")]).file("x", b"x")),
        ("link replaced below an open directory", |_| {
            Layer::new().dir("d").file("d/x", b"").symlink("d", "../outside").file("d/evil", b"x")
        }),
        ("root as a file", |_| Layer::new().file(".", b"")),
        ("root as a link", |_| Layer::new().symlink(".", "../outside").file("evil", b"x")),
        ("empty name", |_| Layer::new().file("", b"x")),
    ] {
        for flat in [false, true] {
            let (yard, root) = yard();
            let blob = make(&yard.path().join("outside")).tar();
            let outcome = if flat {
                // Twice, so that whiteouts have something to act on.
                crate::flatten(&root, &[Layer::new().dir("d").tar(), blob])
            } else {
                apply(&root, &blob).map(|_| ())
            };
            untouched(yard.path());
            match outcome {
                Err(fault) => {
                    assert_eq!(fault.kind(), Kind::Input, "{what}: {fault}");
                    assert!(fault.subject().is_some(), "{what}: {fault}");
                }
                // Nothing lower there to remove.
                Ok(()) if flat && what.contains("through a link") => {}
                Ok(()) => panic!("{what} (flat: {flat}) was accepted"),
            }
        }
    }
}

#[test]
fn links_that_stay_inside_are_harmless() {
    let (yard, root) = yard();
    let layer = Layer::new()
        .symlink("l", "/../../../../in")
        .dir("in")
        .file("l/x", b"x")
        .symlink("outside", "../outside/precious")
        .file("outside", b"replaces the link")
        .tar();
    apply(&root, &layer).unwrap();
    untouched(yard.path());
    assert!(root.join("in/x").is_file() && root.join("outside").symlink_metadata().unwrap().is_file());
}

#[test]
fn what_overlayfs_would_take_for_its_own_is_left_out() {
    if !is_root("what_overlayfs_would_take_for_its_own_is_left_out") {
        return;
    }
    let dir = tempdir().unwrap();
    let layer = Layer::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.kept", b"1"),
        ])
        .dir("d")
        .device(b'3', "deleted", (0, 0))
        .file("x", b"")
        .tar();
    let applied = apply(dir.path(), &layer).unwrap();
    assert_eq!((applied.skipped.overlay_xattrs, applied.skipped.devices), (3, 1));
    assert!(!dir.path().join("deleted").exists());
    let mut names = [0u8; 4096];
    let length = rustix::fs::listxattr(dir.path().join("d"), &mut names[..]).unwrap();
    let names = String::from_utf8_lossy(&names[..length]).into_owned();
    assert!(!names.contains("overlay") && names.contains("trusted.kept"), "{names}");
    let layer = Layer::new().file(".wh.x", b"").hard_link("y", "x").tar();
    assert_eq!(apply(dir.path().join("d").as_path(), &layer).unwrap_err().kind(), Kind::Input);
}

#[test]
fn malformed_archives_are_input_failures() {
    let good = Layer::new().dir("d").file("d/file", &[7; 5000]).tar();
    let gz = gzip(&good);
    let mut bad_sum = good.clone();
    bad_sum[20] ^= 1;
    let mut bad_crc = gz.clone();
    let at = bad_crc.len() - 6;
    bad_crc[at] ^= 1;
    let mut trailing = gz.clone();
    trailing.extend_from_slice(b"garbage");
    let zstd = zstd::encode_all(&good[..], 3).unwrap();
    let huge_pax = Item { kind: b'x', path: b"x", data: &vec![b'1'; 2 << 20], ..Item::default() };
    let numbers =
        |key: &'static str, value: &'static [u8]| Layer::new().pax(&[(key, value)]).file("x", b"").tar();
    let mut headers_only = Layer::new();
    for _ in 0..100 {
        headers_only = headers_only.pax(&[("comment", b"x")]);
    }
    let comment = vec![b'1'; 600 << 10];
    let half = |layer: Layer| layer.pax(&[("comment", &comment)]);
    let blobs: Vec<(&str, Vec<u8>)> = vec![
        ("cut in a header", good[..700].to_vec()),
        ("cut in data", good[..3000].to_vec()),
        ("gzip cut", gz[..gz.len() / 2].to_vec()),
        ("gzip without its end", gz[..gz.len() - 3].to_vec()),
        ("gzip of a cut tar", gzip(&good[..3000])),
        ("zstd cut", zstd[..zstd.len() - 5].to_vec()),
        ("checksum", bad_sum),
        ("gzip's checksum", bad_crc),
        ("rubbish behind gzip", trailing),
        ("no archive", vec![b'x'; 2000]),
        ("bzip2", b"BZh91AY&SY".to_vec()),
        ("xz", b"\xfd7zXZ\0\0\0".to_vec()),
        ("huge PAX header", Layer::new().item(&huge_pax).file("x", b"").tar()),
        ("PAX headers huge together", half(half(Layer::new())).file("x", b"").tar()),
        ("PAX size", numbers("size", b"9223372036854775807")),
        ("PAX size too large", numbers("size", b"18446744073709551615")),
        ("uid", numbers("uid", b"4294967295")),
        ("gid", numbers("gid", b"-1")),
        ("mtime", numbers("mtime", b"yesterday")),
        ("NUL in a name", numbers("path", b"a\0b")),
        ("long component", numbers("path", &[b'a'; 256])),
        (
            "sparse overlap",
            Layer::new()
                .pax(&[("GNU.sparse.size", b"100"), ("GNU.sparse.map", b"50,5,0,5")])
                .file("x", b"0123456789")
                .tar(),
        ),
        (
            "sparse map cut",
            Layer::new()
                .pax(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"9")])
                .file("x", b"3\n1\n")
                .tar(),
        ),
        ("only headers", headers_only.tar()),
        ("odd kind", Layer::new().item(&Item { kind: b'?', path: b"x", ..Item::default() }).tar()),
        ("empty link", Layer::new().symlink("x", "").tar()),
        ("hard link to nothing", Layer::new().hard_link("x", "y").tar()),
        ("hard link to a directory", Layer::new().dir("y").hard_link("x", "y").tar()),
        ("file as a parent", Layer::new().file("x", b"").file("x/y", b"").tar()),
        ("dangling parent", Layer::new().symlink("x", "nowhere").file("x/y", b"").tar()),
        ("link round in a circle", Layer::new().symlink("x", "y").symlink("y", "x").file("x/y", b"").tar()),
    ];
    for (what, blob) in blobs {
        let dir = tempdir().unwrap();
        let fault = apply(dir.path(), &blob).expect_err(what);
        assert_eq!(fault.kind(), Kind::Input, "{what}: {fault}");
    }
    for (what, blob) in [
        ("no end mark", Layer::new().file("x", b"1").open_end()),
        ("nothing", Vec::new()),
        ("only an end mark", vec![0; 1024]),
        ("rubbish behind the end", [good.clone(), vec![b'x'; 1000]].concat()),
    ] {
        let dir = tempdir().unwrap();
        apply(dir.path(), &blob).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    }
}

#[test]
fn random_damage_never_panics() {
    let good = Layer::new()
        .pax(&[("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"1")])
        .dir("d")
        .file("d/file", b"content")
        .symlink("d/l", "file")
        .hard_link("d/h", "d/file")
        .file("d/.wh.x", b"")
        .tar();
    // Every byte of the headers, some of the padding.
    for at in (0..good.len()).filter(|at| good[*at] != 0 || at % 13 == 0) {
        for flip in [0x01, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= flip;
            // Mend the sum, so that the damage gets further.
            let start = at / 512 * 512;
            if at - start < 148 || at - start >= 156 {
                let mut header = tar::Header::new_old();
                header.as_mut_bytes().copy_from_slice(&bad[start..start + 512]);
                header.set_cksum();
                if flip != 0x01 {
                    bad[start..start + 512].copy_from_slice(header.as_bytes());
                }
            }
            let dir = tempdir().unwrap();
            let applied = apply(dir.path(), &bad).is_ok();
            let listed = scan(&bad[..], &Limits::default(), &Budget::default(), true);
            let view = listed.and_then(|list| View::of(&[std::sync::Arc::new(list)], &Budget::default()));
            assert!(view.is_ok() || !applied, "{:?}", view.err());
        }
    }
}

#[test]
fn bombs_stop_at_the_limits() {
    let zeros = |count: usize| gzip(&Layer::new().file("zeros", &vec![0; count]).tar());
    let dir = tempdir().unwrap();
    let limits = Limits { bytes: Some(1 << 20), ..Limits::default() };
    let fault = apply_within(dir.path(), &zeros(2 << 20), &limits).unwrap_err();
    assert_eq!(fault.kind(), Kind::Input);
    assert!(fault.to_string().contains("1048576"), "{fault}");
    assert!(apply_within(tempdir().unwrap().path(), &zeros(1 << 19), &limits).is_ok());
}

#[test]
fn a_failing_source_is_told_from_a_bad_layer() {
    struct Broken(usize);
    impl Read for Broken {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            if self.0 == 0 {
                return Err(std::io::Error::other(fault::Fault::retryable("the connection broke")));
            }
            let length = buffer.len().min(self.0);
            buffer[..length].fill(0);
            let magic = [0x1f, 0x8b, 8];
            buffer[..3.min(length)].copy_from_slice(&magic[..3.min(length)]);
            self.0 -= length;
            Ok(length)
        }
    }
    for bytes in [0, 1, 12] {
        let dir = tempdir().unwrap();
        let mut target = layer::Target::layer(crate::open(dir.path()));
        let expected = layer::Expected::default();
        let fault = layer::apply(Broken(bytes), expected, &Limits::default(), &mut target).unwrap_err();
        assert_eq!(fault.kind(), Kind::Retryable, "{fault}");
    }
}

#[test]
fn a_tree_deeper_than_any_path_is_replaced_all_the_same() {
    let (yard, root) = yard();
    // A link to the end of what a path can name, and on from there.
    let deep = "d/".repeat(1500);
    let layer = Layer::new()
        .pax(&[("path", format!("top/{deep}x").as_bytes())])
        .file("x", b"")
        .pax(&[("linkpath", format!("top/{deep}").as_bytes())])
        .symlink("l", "l")
        .pax(&[("path", format!("l/{deep}y").as_bytes())])
        .file("x", b"")
        .file("top", b"all gone")
        .tar();
    apply(&root, &layer).unwrap();
    assert_eq!(fs::read(root.join("top")).unwrap(), b"all gone");
    untouched(yard.path());
}
