use crate::build::{Item, Layer, gzip, header};
use crate::{apply, apply_within, is_root, open};
use layer::{Expected, Limits, Target};
use oci::Digest;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;
use tempfile::tempdir;

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, name, &mut buffer[..]).ok()?;
    buffer.truncate(length);
    Some(buffer)
}

/// `cap_net_raw=ep`, version 2.
const CAPABILITY: &[u8] = &[1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[test]
fn everything_an_entry_says_is_kept() {
    if !is_root("everything_an_entry_says_is_kept") {
        return;
    }
    let dir = tempdir().unwrap();
    let layer = Layer::new()
        .item(&Item { kind: b'5', path: b"./", mode: 0o711, ids: (5, 6), mtime: 77, ..Item::default() })
        .item(&Item { kind: b'5', path: b"bin/", mode: 0o2751, ids: (7, 8), mtime: 88, ..Item::default() })
        .pax(&[
            ("SCHILY.xattr.security.capability", CAPABILITY),
            ("SCHILY.xattr.user.note", b"a\nb\0c"),
            ("mtime", b"-12.25"),
        ])
        .item(&Item { path: b"bin/su", data: b"#!", mode: 0o4755, ids: (1000, 1001), ..Item::default() })
        .hard_link("bin/su2", "./bin/su")
        .symlink("bin/link", "/etc/../su")
        .hard_link("bin/link2", "bin/link")
        .device(b'3', "null", (1, 3))
        .device(b'4', "disk", (8, 1))
        .item(&Item { kind: b'6', path: b"pipe", mode: 0o620, ids: (3, 4), mtime: 99, ..Item::default() })
        .file("implied/deep/file", b"x")
        .gzip();
    let applied = apply(dir.path(), &layer).unwrap();
    assert_eq!(applied.entries, 10);
    let at = |name: &str| dir.path().join(name).symlink_metadata().unwrap();
    assert_eq!((at("").mode() & 0o7777, at("").uid(), at("").gid(), at("").mtime()), (0o711, 5, 6, 77));
    assert_eq!((at("bin").mode() & 0o7777, at("bin").gid(), at("bin").mtime()), (0o2751, 8, 88));
    let su = at("bin/su");
    assert_eq!((su.mode() & 0o7777, su.uid(), su.gid(), su.nlink()), (0o4755, 1000, 1001, 2));
    assert_eq!((su.mtime(), su.mtime_nsec()), (-13, 750_000_000));
    assert_eq!(at("bin/su2").ino(), su.ino());
    assert_eq!(xattr(&dir.path().join("bin/su"), "security.capability").as_deref(), Some(CAPABILITY));
    assert_eq!(xattr(&dir.path().join("bin/su"), "user.note").unwrap(), b"a\nb\0c");
    assert_eq!(fs::read_link(dir.path().join("bin/link")).unwrap(), Path::new("/etc/../su"));
    assert_eq!(at("bin/link2").ino(), at("bin/link").ino());
    assert_eq!((at("bin/link").mtime(), at("bin/link").nlink()), (1, 2));
    assert!(at("null").file_type().is_char_device() && at("disk").file_type().is_block_device());
    assert_eq!(at("null").rdev(), rustix::fs::makedev(1, 3));
    assert!(at("pipe").file_type().is_fifo());
    assert_eq!((at("pipe").mode() & 0o7777, at("pipe").uid(), at("pipe").mtime()), (0o620, 3, 99));
    assert_eq!(at("implied").mode() & 0o7777, 0o755);
}

#[test]
fn packed_in_any_way_and_checked_by_both_digests() {
    let tar = Layer::new().file("file", b"content").tar();
    let diff_id = Digest::of(&tar);
    let members = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
    let zstd = zstd::encode_all(&tar[..], 3).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &zstd].concat();
    for blob in [tar.clone(), gzip(&tar), members, zstd, skippable] {
        let dir = tempdir().unwrap();
        let digest = Digest::of(&blob);
        let expected = Expected { digest: Some(&digest), diff_id: Some(&diff_id) };
        let mut target = Target::layer(open(dir.path()));
        let applied = layer::apply(&blob[..], expected, &Limits::default(), &mut target).unwrap();
        assert_eq!((applied.blob_bytes, applied.tar_bytes), (blob.len() as u64, tar.len() as u64));
        assert_eq!(fs::read(dir.path().join("file")).unwrap(), b"content");
        for wrong in [
            Expected { digest: Some(&diff_id), diff_id: Some(&Digest::of(b"x")) },
            Expected { digest: Some(&Digest::of(b"x")), diff_id: Some(&diff_id) },
        ] {
            let dir = tempdir().unwrap();
            let mut target = Target::layer(open(dir.path()));
            let fault = layer::apply(&blob[..], wrong, &Limits::default(), &mut target).unwrap_err();
            assert_eq!(fault.kind(), fault::Kind::Input);
        }
    }
}

#[test]
fn names_long_and_odd() {
    let dir = tempdir().unwrap();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    let target = "t".repeat(300);
    let odd: Vec<u8> = (1..=255).filter(|b| *b != b'/').collect();
    let layer = Layer::new()
        .item(&Item {
            kind: b'L',
            path: b"././@LongLink",
            data: format!("{long}\0").as_bytes(),
            ..Item::default()
        })
        .file("cut", b"gnu")
        .pax(&[("path", format!("pax/{long}").as_bytes()), ("linkpath", target.as_bytes())])
        .symlink("cut", "cut")
        .pax(&[("path", &odd)])
        .file("cut", b"odd")
        .file("//slashes//./here", b"x")
        .file("a/../b/c", b"x")
        .file(" ", b"blank")
        .tar();
    apply(dir.path(), &layer).unwrap();
    assert_eq!(fs::read(dir.path().join(&long)).unwrap(), b"gnu");
    assert_eq!(fs::read_link(dir.path().join("pax").join(&long)).unwrap(), Path::new(&target));
    assert_eq!(fs::read(dir.path().join(std::ffi::OsStr::from_bytes(&odd))).unwrap(), b"odd");
    for name in ["slashes/here", "b/c", " "] {
        assert!(dir.path().join(name).exists(), "{name}");
    }
}

#[test]
fn later_entries_replace_earlier_ones_whatever_they_were() {
    let dir = tempdir().unwrap();
    let layer = Layer::new()
        .file("a", b"1")
        .hard_link("b", "a")
        .file("a", b"2")
        .dir("d")
        .file("d/x/y", b"1")
        .file("d", b"file over directory")
        .file("e", b"1")
        .dir("e")
        .file("e/x", b"in")
        .symlink("s", "e")
        .file("s", b"file over link")
        .symlink("t", "e")
        .dir("t")
        .file("t/x", b"not in e")
        .dir("twice")
        .file("twice/kept", b"1")
        .item(&Item { kind: b'5', path: b"twice", mode: 0o700, mtime: 5, ..Item::default() })
        .hard_link("a", "a")
        .tar();
    apply(dir.path(), &layer).unwrap();
    let read = |name: &str| String::from_utf8(fs::read(dir.path().join(name)).unwrap()).unwrap();
    assert_eq!((read("a"), read("b")), ("2".into(), "1".into()));
    assert_eq!((read("d"), read("s")), ("file over directory".into(), "file over link".into()));
    assert_eq!((read("e/x"), read("t/x"), read("twice/kept")), ("in".into(), "not in e".into(), "1".into()));
    assert_eq!(dir.path().join("twice").metadata().unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn links_on_the_way_lead_where_they_would_in_a_container() {
    let dir = tempdir().unwrap();
    let layer = Layer::new()
        .dir("usr")
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .symlink("up", "../../../../usr/lib")
        .symlink("usr/self", "..")
        .file("lib/one", b"1")
        .file("abs/two", b"2")
        .file("up/three", b"3")
        .file("usr/self/usr/lib/four", b"4")
        .file("usr/self/usr", b"replaces the directory that is open")
        .file("usr2/x", b"5")
        .tar();
    apply(dir.path(), &layer).unwrap();
    assert!(dir.path().join("usr").is_file());
    assert!(dir.path().join("usr2/x").is_file());
    let dir = tempdir().unwrap();
    let layer = Layer::new()
        .dir("usr/lib")
        .symlink("lib", "usr/lib")
        .symlink("abs", "/usr/lib")
        .symlink("up", "../../../../usr/lib")
        .file("lib/one", b"1")
        .file("abs/two", b"2")
        .file("up/three", b"3")
        .hard_link("abs/four", "lib/one")
        .tar();
    apply(dir.path(), &layer).unwrap();
    for name in ["one", "two", "three", "four"] {
        assert!(dir.path().join("usr/lib").join(name).is_file(), "{name}");
    }
}

#[test]
fn directories_have_their_times_when_all_is_done() {
    let dir = tempdir().unwrap();
    let timed = |path: &'static [u8], mtime| Item { kind: b'5', path, mode: 0o755, mtime, ..Item::default() };
    let mut layer = Layer::new().item(&timed(b"a", 10)).item(&timed(b"a/b", 20)).item(&timed(b"c", 30));
    // Comes back to directories left before, and goes deeper than directories are kept open.
    layer = layer.file("a/b/1", b"").file("c/1", b"").file("a/2", b"").file("a/b/2", b"").symlink("l", "a/b");
    layer = layer.file("l/3", b"").item(&timed(b".", 40)).file("last", b"");
    let mut path = String::from("deep");
    for _ in 0..80 {
        layer = layer.pax(&[("path", path.as_bytes())]).item(&timed(b"deep", 50));
        path.push_str("/d");
    }
    path.push_str("/file");
    layer = layer.pax(&[("path", path.as_bytes())]).file("x", b"");
    apply(dir.path(), &layer.tar()).unwrap();
    let mtime = |name: &str| dir.path().join(name).metadata().unwrap().mtime();
    assert_eq!((mtime("a"), mtime("a/b"), mtime("c"), mtime("")), (10, 20, 30, 40));
    let mut path = dir.path().join("deep");
    for level in 0..80 {
        assert_eq!(path.metadata().unwrap().mtime(), 50, "{level}");
        path.push("d");
    }
}

#[test]
fn sparse_files_in_all_four_formats() {
    let dir = tempdir().unwrap();
    let mut old = header(&Item { kind: b'S', path: b"old", data: b"0123456789", ..Item::default() });
    {
        let gnu = old.as_gnu_mut().unwrap();
        gnu.sparse[0].set_offset(4096);
        gnu.sparse[0].set_length(4);
        gnu.set_is_extended(true);
        gnu.set_real_size(1 << 20);
    }
    old.set_cksum();
    let mut extension = tar::GnuExtSparseHeader::new();
    extension.sparse[0].set_offset(8192);
    extension.sparse[0].set_length(6);
    let mut in_data = b"2\n4096\n4\n8192\n6\n".to_vec();
    in_data.resize(512, 0);
    in_data.extend_from_slice(b"0123456789");
    let size = (1 << 20).to_string();
    let layer = Layer::new()
        .raw(old.as_bytes())
        .raw(extension.as_bytes())
        .data(b"0123456789")
        .pax(&[
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"4096"),
            ("GNU.sparse.numbytes", b"4"),
            ("GNU.sparse.offset", b"8192"),
            ("GNU.sparse.numbytes", b"6"),
        ])
        .file("pax00", b"0123456789")
        .pax(&[
            ("GNU.sparse.name", b"pax01"),
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.map", b"4096,4,8192,6"),
        ])
        .file("GNUSparseFile.0/pax01", b"0123456789")
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"pax10"),
            ("GNU.sparse.realsize", size.as_bytes()),
        ])
        .file("GNUSparseFile.0/pax10", &in_data)
        .file("after", b"x")
        .tar();
    apply(dir.path(), &layer).unwrap();
    let mut wanted = vec![0u8; 1 << 20];
    wanted[4096..4100].copy_from_slice(b"0123");
    wanted[8192..8198].copy_from_slice(b"456789");
    for name in ["old", "pax00", "pax01", "pax10"] {
        assert!(fs::read(dir.path().join(name)).unwrap() == wanted, "{name}");
    }
    assert!(dir.path().join("after").exists());
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    if !is_root("whiteouts_become_what_overlayfs_reads") {
        return;
    }
    let dir = tempdir().unwrap();
    let layer = Layer::new()
        .file("etc/.wh.gone", b"")
        .dir("opaque")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/own", b"")
        // Before and after what the layer itself has there.
        .file(".wh.first", b"")
        .file("first", b"new")
        .file("second", b"new")
        .file(".wh.second", b"")
        .file(".wh.tree", b"")
        .dir("tree")
        .file("tree/x", b"")
        .dir("tree2")
        .file(".wh.tree2", b"")
        .file(".wh.implied", b"")
        .file("implied/x", b"")
        .file(".wh..wh.plnk/1.2", b"")
        .file(".wh..wh.aufs", b"")
        .tar();
    apply(dir.path(), &layer).unwrap();
    let gone = dir.path().join("etc/gone").symlink_metadata().unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for name in ["opaque", "tree", "tree2", "implied"] {
        assert_eq!(
            xattr(&dir.path().join(name), "trusted.overlay.opaque").as_deref(),
            Some(&b"y"[..]),
            "{name}"
        );
    }
    for name in ["first", "second"] {
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), b"new");
    }
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.as_bytes().starts_with(b".wh.")), "{names:?}");
}

#[test]
fn many_small_entries() {
    let dir = tempdir().unwrap();
    let mut layer = Layer::new();
    for index in 0..20_000 {
        layer = layer.file(&format!("d{}/{index}", index / 1000), b"x");
    }
    let blob = layer.gzip();
    assert_eq!(apply(dir.path(), &blob).unwrap().entries, 20_000);
    let dir = tempdir().unwrap();
    let limits = Limits { entries: 19_999, ..Limits::default() };
    assert!(apply_within(dir.path(), &blob, &limits).unwrap_err().to_string().contains("19999 entries"));
}
