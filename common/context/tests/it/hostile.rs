//! Contexts and roots that mean harm.

use crate::place::{How, Place, chmod, copy, fill, list};
use context::{Context, Options, Ownership, Target, Times};
use fault::Kind;
use rustix::fd::AsFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use testkit::{is_root, skip};

#[test]
fn links_lead_nowhere_but_inside() {
    let place = Place::new();
    let secret = place.dir.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let up = "../".repeat(40);
    fill(&place.context(), &["d/", "in"]);
    for (name, to) in [
        ("absolute", secret.to_str().unwrap().to_owned()),
        ("up", "../secret".to_owned()),
        ("far-up", format!("{up}{}", secret.display())),
        ("d/up", "../../secret".to_owned()),
        ("procfs", "/proc/self/root/etc/passwd".to_owned()),
        ("fd", "/proc/self/fd/0".to_owned()),
    ] {
        symlink(to, place.context().join(name)).unwrap();
        let fault = place.copy(&[name], "/x/").expect_err(name);
        assert_eq!(fault.kind(), Kind::NotFound, "{name}");
        assert!(place.open().read(name, 100).unwrap().is_none(), "{name}");
    }
    symlink(place.dir.path(), place.context().join("dir")).unwrap();
    for source in ["dir", "dir/secret", "dir/*", "d*/secret", "up/../secret"] {
        let chosen = place.select(&[source]);
        assert!(chosen.is_err() || chosen.unwrap().is_empty(), "{source}");
    }
    for source in ["../secret", "/../../secret", "d/../../secret", "../*"] {
        let outcome = place.select(&[source]);
        assert!(outcome.is_err() || !outcome.unwrap().bytes().to_string().contains("secret"), "{source}");
    }
    // All of it is copied as the links they are.
    place.copy(&["."], "/all/").unwrap();
    assert!(list(&place.root()).contains(&"all/up -> ../secret".to_owned()));
    assert!(!list(&place.root()).iter().any(|line| line.ends_with("=secret")));
}

#[test]
fn destinations_stay_in_the_root() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    fill(&place.context(), &["f", "t/d/f", "t/l/f"]);
    fill(&place.root(), &["etc/passwd"]);
    let up = format!("{}{}", "../".repeat(30), outside.display());
    for (name, to) in [
        ("absolute", outside.to_str().unwrap()),
        ("up", up.as_str()),
        ("one-up", "../outside"),
        ("etc-link", "/etc"),
    ] {
        symlink(to, place.root().join(name)).unwrap();
    }
    for destination in [
        "/absolute/",
        "/up/",
        "/one-up/",
        "/absolute/x/y",
        "/up/../../../../x",
        "/../../../outside/f",
        "/one-up/f",
    ] {
        // Wherever that is, it is inside.
        place.copy(&["f"], destination).unwrap();
        assert_eq!(list(&outside), Vec::<String>::new(), "{destination}");
    }
    place.copy(&["f"], "/etc-link/").unwrap();
    assert_eq!(std::fs::read(place.root().join("etc/f")).unwrap(), b"f");
    // A link below the destination is not followed, and does not become a directory.
    std::fs::create_dir(place.root().join("into")).unwrap();
    symlink(&outside, place.root().join("into/l")).unwrap();
    assert_eq!(place.copy(&["t"], "/into").unwrap_err().kind(), Kind::Conflict);
    assert_eq!(list(&outside), Vec::<String>::new());
    // A file in place of a link replaces the link and not what it leads to.
    std::fs::write(outside.join("target"), "kept").unwrap();
    symlink(outside.join("target"), place.root().join("into/f")).unwrap();
    place.copy(&["f"], "/into/").unwrap();
    assert_eq!(std::fs::read(outside.join("target")).unwrap(), b"kept");
    assert_eq!(std::fs::read(place.root().join("into/f")).unwrap(), b"f");
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let place = Place::new();
    fill(&place.context(), &["a"]);
    let at = |name: &str| place.context().join(name);
    mknodat(CWD, at("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let _listener = UnixListener::bind(at("socket")).unwrap();
    if is_root() {
        mknodat(
            CWD,
            at("zero"),
            FileType::CharacterDevice,
            Mode::from_raw_mode(0o666),
            rustix::fs::makedev(1, 5),
        )
        .unwrap();
    } else {
        skip("devices take root");
    }
    let begun = Instant::now();
    let chosen = place.select(&["."]).unwrap();
    chosen.digest().unwrap();
    let written = place.write(&chosen, "/x/", &How::default()).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!((written.skipped, written.example.as_deref()), (1, Some("socket")));
    assert!(place.root().join("x/pipe").symlink_metadata().unwrap().file_type().is_fifo());
    if is_root() {
        let zero = place.root().join("x/zero").symlink_metadata().unwrap();
        assert!(zero.file_type().is_char_device() && zero.rdev() == rustix::fs::makedev(1, 5));
    }
    // As sources of their own, and where an archive is looked for.
    let unpack = How { unpack: true, ..How::default() };
    place.write(&place.select(&["pipe"]).unwrap(), "/p", &unpack).unwrap();
    assert_eq!(place.write(&place.select(&["socket"]).unwrap(), "/s", &unpack).unwrap().skipped, 1);
    assert!(place.open().read("pipe", 10).is_err() && place.open().read("socket", 10).is_err());
}

#[test]
fn names_need_not_be_text() {
    let place = Place::new();
    for name in [b"\xff\xfe".as_slice(), b"new\nline", b" ", b"-rf", b"a*b", b"[x]", b"\\", b"\xe2\x98"] {
        std::fs::write(place.context().join(OsStr::from_bytes(name)), name).unwrap();
        let chosen = place.open().select(&[name], &Options::default()).unwrap();
        chosen.digest().unwrap();
        place.write(&chosen, "/one/", &How::default()).unwrap();
        let copied = place.root().join("one").join(OsStr::from_bytes(name));
        assert_eq!(std::fs::read(copied).unwrap(), name);
    }
    place.copy(&["."], "/all/").unwrap();
    assert_eq!(std::fs::read_dir(place.root().join("all")).unwrap().count(), 8);
    assert_eq!(place.select(&["?"]).unwrap().count(), 2);
    assert_eq!(place.open().select(&[b"a\0b"], &copy()).unwrap_err().kind(), Kind::Input);
}

#[test]
fn trees_may_be_deep_and_too_deep() {
    let place = Place::new();
    let mut dir = openat(CWD, place.context(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..1900 {
        mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
        dir = openat(&dir, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    drop(openat(&dir, "f", OFlags::WRONLY | OFlags::CREATE, Mode::from_raw_mode(0o644)).unwrap());
    rootfs::allow_many_files();
    let chosen = place.select(&["."]).unwrap();
    assert_eq!(chosen.count(), 1901);
    chosen.digest().unwrap();
    let written = place.write(&chosen, "/", &How::default()).unwrap();
    assert_eq!(written.files, 1901);
    for _ in 0..200 {
        mkdirat(&dir, "d", Mode::from_raw_mode(0o755)).unwrap();
        dir = openat(&dir, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    assert_eq!(place.select(&["."]).unwrap_err().kind(), Kind::Input);
    for name in ["context", "root"] {
        sys::fs::remove_tree(CWD, place.dir.path().join(name).as_path()).unwrap();
    }
}

#[test]
fn a_hundred_thousand_files_are_no_matter() {
    // In memory, if there is such a place: making them is not what is tested.
    let place = Place::below(Path::new("/dev/shm"));
    for dir in 0..100 {
        let dir = place.context().join(format!("d{dir}"));
        std::fs::create_dir(&dir).unwrap();
        for file in 0..1000 {
            File::create(dir.join(file.to_string())).unwrap();
        }
    }
    let begun = Instant::now();
    let chosen = place.open_ignoring("**/*.tmp\nnode_modules\n!keep\n").select(&["."], &copy()).unwrap();
    assert_eq!(chosen.count(), 100_100);
    chosen.digest().unwrap();
    assert_eq!(place.select(&["*/99*"]).unwrap().count(), 1100);
    assert!(begun.elapsed() < Duration::from_mins(1), "{:?}", begun.elapsed());
}

#[test]
fn a_directory_that_becomes_a_link_while_it_is_read_leads_nowhere() {
    let place = Place::new();
    let outside = place.dir.path().join("outside");
    fill(&outside, &["f0", "f1", "f2", "f3"]);
    for name in ["f0", "f1", "f2", "f3"] {
        std::fs::write(outside.join(name), "secret").unwrap();
    }
    fill(&place.context(), &["d/f0", "d/f1", "d/f2", "d/f3"]);
    let (dir, aside) = (place.context().join("d"), place.dir.path().join("aside"));
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) {
                std::fs::rename(&dir, &aside).unwrap();
                symlink(&outside, &dir).unwrap();
                std::fs::remove_file(&dir).unwrap();
                std::fs::rename(&aside, &dir).unwrap();
            }
        });
        let (mut read, mut written) = (0, 0);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let Ok(chosen) = place.select(&["d"]) else { continue };
            read += usize::from(chosen.digest().is_ok());
            let _ = std::fs::remove_dir_all(place.root().join("x"));
            // Whatever comes of it, it is not the secret.
            written += usize::from(place.write(&chosen, "/x", &How::default()).is_ok());
            assert!(!list(&place.root()).iter().any(|line| line.contains("secret")));
        }
        ends.store(true, Ordering::Relaxed);
        assert!(read > 0 && written > 0, "{read} {written}");
    });
}

#[test]
fn what_changes_between_digest_and_copy_is_told() {
    let place = Place::new();
    fill(&place.context(), &["a", "b", "d/c"]);
    let chosen = place.select(&["."]).unwrap();
    // Without a digest nothing was promised.
    std::fs::write(place.context().join("a"), "A").unwrap();
    assert_eq!(place.write(&chosen, "/one/", &How::default()).unwrap().changed, Vec::<String>::new());
    let chosen = place.select(&["."]).unwrap();
    chosen.digest().unwrap();
    std::fs::write(place.context().join("b"), "B").unwrap();
    chmod(&place.context().join("d"), 0o700);
    assert_eq!(place.write(&chosen, "/two/", &How::default()).unwrap().changed, ["b", "d"]);
    std::fs::remove_file(place.context().join("b")).unwrap();
    symlink("/etc/passwd", place.context().join("b")).unwrap();
    let fault = place.write(&chosen, "/three/", &How::default()).unwrap_err();
    assert_eq!(fault.kind(), Kind::Conflict);
    assert!(!place.root().join("three/b").exists());
}

#[test]
fn a_stage_is_read_as_it_is_mounted() {
    if !is_root() {
        return skip("overlays take root");
    }
    let place = Place::new();
    let dir = place.dir.path();
    fill(dir, &["lower/etc/passwd", "lower/gone", "upper/etc/new", "work/"]);
    let (upper, work) = (dir.join("upper"), dir.join("work"));
    let writable = sys::overlay::Writable { upper: &upper, work: &work, volatile: true };
    let Ok(root) = sys::overlay::mount(&[dir.join("lower")], Some(writable)) else {
        return skip("overlays cannot be mounted here");
    };
    let chosen = Context::root(root.try_clone().unwrap()).select(&["/etc", "gone"], &copy()).unwrap();
    chosen.digest().unwrap();
    place.write(&chosen, "/x/", &How::default()).unwrap();
    let copied = ["x/", "x/gone=lower/gone", "x/new=upper/etc/new", "x/passwd=lower/etc/passwd"];
    assert_eq!(list(&place.root()), copied);
    // And written to: over what lower layers have, and beside it.
    fill(&place.context(), &["etc/passwd", "etc/more"]);
    let chosen = place.select(&["."]).unwrap();
    let target = Target {
        root: root.as_fd(),
        destination: b"/",
        ownership: Ownership::Keep,
        chmod: None,
        times: Times::At(7),
        unpack: false,
    };
    chosen.write(&target).unwrap();
    assert_eq!(list(&upper), ["etc/", "etc/more=etc/more", "etc/new=upper/etc/new", "etc/passwd=etc/passwd"]);
    assert_eq!(upper.join("etc").metadata().unwrap().mtime(), 7);
    assert_eq!(list(&dir.join("lower")), ["etc/", "etc/passwd=lower/etc/passwd", "gone=lower/gone"]);
}
