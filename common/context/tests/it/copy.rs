//! COPY's rules, one after the other.

use crate::place::{How, Place, chmod, copy, fill, list, mode, owner};
use context::{Context, Options, Ownership, Times};
use fault::Kind;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, chown};
use testkit::{is_root, skip};

/// Context, root before, sources, destination, root after.
type Row = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    &'static [&'static str],
);

/// Context, root before, sources, destination, what comes of it.
type Refusal = (
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    Kind,
    &'static str,
);

#[test]
fn files_go_where_docker_puts_them() {
    let rows: &[Row] = &[
        // A name, a directory, one that is there.
        (&["a"], &[], &["a"], "/x", &["x=a"]),
        (&["a"], &[], &["a"], "/x/", &["x/", "x/a=a"]),
        (&["a"], &[], &["/a"], "/d/e/x", &["d/", "d/e/", "d/e/x=a"]),
        (&["a"], &["x/"], &["a"], "/x", &["x/", "x/a=a"]),
        (&["a"], &["x/"], &["a"], "/x/.", &["x/", "x/a=a"]),
        (&["a"], &["x"], &["a"], "/x", &["x=a"]),
        (&["a"], &[], &["a"], "/", &["a=a"]),
        (&["a"], &[], &["./b/../a"], "rel", &["rel=a"]),
        (&["a", "b"], &[], &["a", "b"], "/x/", &["x/", "x/a=a", "x/b=b"]),
        // Directories: their contents.
        (&["d/a", "d/e/b"], &[], &["d"], "/x", &["x/", "x/a=d/a", "x/e/", "x/e/b=d/e/b"]),
        (&["d/a"], &["x/"], &["d/"], "/x", &["x/", "x/a=d/a"]),
        (&["d/a"], &["x/old"], &["d"], "/x/", &["x/", "x/a=d/a", "x/old=x/old"]),
        (&["d/a", "e/a"], &[], &["d", "e"], "/x/", &["x/", "x/a=e/a"]),
        (&["a", "d/b"], &[], &["."], "/", &["a=a", "d/", "d/b=d/b"]),
        (&["d/"], &[], &["d"], "/x", &["x/"]),
        // Patterns.
        (&["a.c", "b.c", "b.h"], &[], &["*.c"], "/x/", &["x/", "x/a.c=a.c", "x/b.c=b.c"]),
        (&["d/a", "e/b"], &[], &["[de]"], "/x", &["x/", "x/a=d/a", "x/b=e/b"]),
        (&["d/a", "e/a", "e/f/a"], &[], &["*/a"], "/x/", &["x/", "x/a=e/a"]),
        (&["a[0]"], &[], &["a[[]0]"], "/x", &["x=a[0]"]),
        (&["a.c"], &[], &["*.h"], "/x/", &[]),
        (&["a.c"], &[], &["no/*.h"], "/x/", &[]),
        // Links: followed as a source, kept below one.
        (&["a", "l -> a"], &[], &["l"], "/x", &["x=a"]),
        (&["a", "l -> a"], &[], &["l"], "/x/", &["x/", "x/l=a"]),
        (&["d/a", "l -> /d"], &[], &["l"], "/x", &["x/", "x/a=d/a"]),
        (&["d/a", "l -> ../../d"], &[], &["l/a"], "/x", &["x=d/a"]),
        (
            &["d/a", "d/l -> a", "d/no -> /none"],
            &[],
            &["d"],
            "/x",
            &["x/", "x/a=d/a", "x/l -> a", "x/no -> /none"],
        ),
        (&["d/a", "l -> d"], &[], &["*"], "/x", &["x/", "x/a=d/a"]),
        // Links in the root.
        (&["a"], &["real/", "l -> real"], &["a"], "/l", &["l -> real", "real/", "real/a=a"]),
        (
            &["a"],
            &["real/", "l -> /real"],
            &["a"],
            "/l/n/",
            &["l -> /real", "real/", "real/n/", "real/n/a=a"],
        ),
        (&["a"], &["f", "l -> f"], &["a"], "/l", &["f=a", "l -> f"]),
        (&["a"], &["l -> new/f"], &["a"], "/l", &["l -> new/f", "new/", "new/f=a"]),
        (&["d/f"], &["t", "x/f -> ../t"], &["d"], "/x", &["t=t", "x/", "x/f=d/f"]),
        (&["d/f -> b"], &["x/f"], &["d"], "/x", &["x/", "x/f -> b"]),
    ];
    for (context, root, sources, destination, after) in rows {
        let place = Place::new();
        fill(&place.context(), context);
        fill(&place.root(), root);
        let chosen = place.select(sources).unwrap();
        let written = place.write(&chosen, destination, &How::default());
        assert_eq!(list(&place.root()), *after, "{context:?} {root:?} COPY {sources:?} {destination}");
        let written = written.unwrap();
        assert_eq!((written.skipped, written.changed.len()), (0, 0));
        assert_eq!(written.files, chosen.count() as u64);
        assert_eq!(written.bytes, chosen.bytes());
    }
}

#[test]
fn what_cannot_be_is_said() {
    let rows: &[Refusal] = &[
        (&[], &[], &["a"], "/", Kind::NotFound, "a is not in the context"),
        (&["a"], &[], &["a/b"], "/", Kind::NotFound, "a/b is not in the context"),
        (&["l -> none"], &[], &["l"], "/", Kind::NotFound, "l is not in the context"),
        (&["l -> l"], &[], &["l"], "/", Kind::Input, "circles"),
        (&["l -> ../../../etc/passwd"], &[], &["l"], "/", Kind::NotFound, "l is not in the context"),
        (&["a"], &["x"], &["a"], "/x/", Kind::Conflict, "/x/ is there and no directory"),
        (&["a"], &["x"], &["a"], "/x/y", Kind::Conflict, "leads through x, which is no directory"),
        (&["d/a"], &["x"], &["d"], "/x", Kind::Conflict, "/x is there and no directory"),
        (&["d/a"], &["x/a/"], &["d"], "/x", Kind::Conflict, "a is a directory"),
        (&["d/a/b"], &["x/a"], &["d"], "/x", Kind::Conflict, "a is there and no directory"),
        (&["d/a/b"], &["y/", "x/a -> ../y"], &["d"], "/x", Kind::Conflict, "a is there and no directory"),
        (&["a"], &["x/a/"], &["a"], "/x/", Kind::Conflict, "a is a directory"),
        (&["a", "b"], &[], &["a", "b"], "/x", Kind::Conflict, "several files go to /x"),
        (&["a"], &[], &["[a"], "/x", Kind::Input, "[a"),
        (&["a"], &["l -> l"], &["a"], "/l/x", Kind::Input, "circles"),
    ];
    for (context, root, sources, destination, kind, says) in rows {
        let place = Place::new();
        fill(&place.context(), context);
        fill(&place.root(), root);
        let fault = place.copy(sources, destination).expect_err("it has to fail");
        let text = format!("{}: {fault}", fault.subject().unwrap_or_default());
        assert!(text.contains(says), "COPY {sources:?} {destination}: {text}");
        assert_eq!(fault.kind(), *kind, "{text}");
    }
}

#[test]
fn ignored_files_are_not_there_and_that_is_said() {
    let place = Place::new();
    fill(
        &place.context(),
        &["a", "secret", "docs/a", "docs/readme", "l -> secret", "logs/x.log", "logs/b/y.log", "logs/b/keep"],
    );
    let context = place.open_ignoring("secret\ndocs\n!docs/readme\n**/*.log\n");
    let fault = context.select(&["secret"], &copy()).unwrap_err();
    assert_eq!(fault.kind(), Kind::NotFound);
    assert_eq!(fault.hint_text(), Some(".dockerignore leaves it out by \"secret\""));
    assert!(context.select(&["l"], &copy()).unwrap_err().hint_text().unwrap().contains("secret"));
    assert!(context.select(&["docs/a"], &copy()).unwrap_err().hint_text().unwrap().contains("docs"));
    assert!(context.select(&["s*"], &copy()).unwrap().is_empty());
    let all = context.select(&["."], &copy()).unwrap();
    place.write(&all, "/all/", &How::default()).unwrap();
    let docs = context.select(&["docs"], &copy()).unwrap();
    place.write(&docs, "/docs/", &How::default()).unwrap();
    assert_eq!(
        list(&place.root()),
        [
            "all/",
            "all/a=a",
            "all/docs/",
            "all/docs/readme=docs/readme",
            "all/l -> secret",
            "all/logs/",
            "all/logs/b/",
            "all/logs/b/keep=logs/b/keep",
            "docs/",
            "docs/readme=docs/readme"
        ]
    );
    // The Dockerfile may be ignored and is read all the same.
    assert_eq!(context.read("secret", 100).unwrap().as_deref(), Some(b"secret".as_slice()));
    assert_eq!(context.read("none", 100).unwrap(), None);
    assert!(context.read("secret", 3).is_err() && context.read("docs", 100).is_err());
}

#[test]
fn an_ignored_directory_is_never_read() {
    if is_root() {
        // To root nothing is unreadable: that it is not read shows in what it does not remember.
        let place = Place::new();
        fill(&place.context(), &["a", "big/b/c"]);
        let times = |name: &str| {
            let status = place.context().join(name).metadata().unwrap();
            (status.atime(), status.atime_nsec())
        };
        // Older than the last change, so that the next reading is noted (relatime).
        for name in ["big", "."] {
            let old = std::fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
            File::open(place.context().join(name)).unwrap().set_times(old).unwrap();
        }
        let (before, control) = (times("big"), times("."));
        let context = place.open_ignoring("big\n");
        assert_eq!(context.select(&["."], &copy()).unwrap().count(), 1);
        assert_eq!(times("big"), before);
        if times(".") == control {
            skip("this file system does not note when directories are read");
        }
        return;
    }
    let place = Place::new();
    fill(&place.context(), &["a", "closed/b"]);
    chmod(&place.context().join("closed"), 0);
    let count = place.open_ignoring("closed\n").select(&["."], &copy()).map(|chosen| chosen.count());
    chmod(&place.context().join("closed"), 0o700);
    assert_eq!(count.unwrap(), 1);
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    let files = ["x/a.txt", "x/b.md", "y/a.txt", "y/z/a.txt", "y/z/c", "top"];
    let rows: &[(&[&str], &str, &[&str])] = &[
        (
            &["./x/a.txt", "./y/a.txt"],
            "/p/",
            &["p/", "p/x/", "p/x/a.txt=x/a.txt", "p/y/", "p/y/a.txt=y/a.txt"],
        ),
        (&["x/./*.txt"], "/p/", &["p/", "p/a.txt=x/a.txt"]),
        (&["y/./z/a.txt"], "/p", &["p/", "p/z/", "p/z/a.txt=y/z/a.txt"]),
        (
            &["**/a.txt"],
            "/",
            &["x/", "x/a.txt=x/a.txt", "y/", "y/a.txt=y/a.txt", "y/z/", "y/z/a.txt=y/z/a.txt"],
        ),
        (&["y/z"], "/", &["y/", "y/z/", "y/z/a.txt=y/z/a.txt", "y/z/c=y/z/c"]),
        (&["./*/./*.md"], "/", &["b.md=x/b.md"]),
        (&["*/./z/c"], "/", &["z/", "z/c=y/z/c"]),
        (&["none*/x"], "/", &[]),
        (&["x/./."], "/", &["a.txt=x/a.txt", "b.md=x/b.md"]),
    ];
    for (sources, destination, after) in rows {
        let place = Place::new();
        fill(&place.context(), &files);
        let chosen = place.open().select(sources, &Options { parents: true, ..copy() }).unwrap();
        place.write(&chosen, destination, &How::default()).unwrap();
        assert_eq!(list(&place.root()), *after, "COPY --parents {sources:?} {destination}");
    }
    let place = Place::new();
    fill(&place.context(), &files);
    for missing in ["none", "x/none", "none/./a", "x/./none"] {
        let fault = place.open().select(&[missing], &Options { parents: true, ..copy() }).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound, "{missing}");
    }
    chmod(&place.context().join("y"), 0o711);
    let chosen = place.open().select(&["y/z/c"], &Options { parents: true, ..copy() }).unwrap();
    place.write(&chosen, "/", &How::default()).unwrap();
    assert_eq!(mode(&place.root().join("y")), 0o711);
}

#[test]
fn excluded_files_stay_behind() {
    let files = ["hom.txt", "home.md", "d/a.txt", "d/e/b.txt", "d/e/c.md"];
    let rows: &[(&[&str], &[&str], &[&str])] = &[
        (&["*.txt"], &["hom*"], &["home.md=home.md"]),
        (&["*.txt"], &["d"], &["e/", "e/b.txt=d/e/b.txt", "e/c.md=d/e/c.md"]),
        (&["**/*.txt"], &["d"], &["e/", "e/c.md=d/e/c.md"]),
        (&["e"], &["d"], &["a.txt=d/a.txt"]),
        (&["e", "!e/c.md"], &["d"], &["a.txt=d/a.txt", "e/", "e/c.md=d/e/c.md"]),
        (&["*"], &["d"], &[]),
    ];
    for (exclude, sources, after) in rows {
        let place = Place::new();
        fill(&place.context(), &files);
        let exclude = exclude.iter().map(|text| (*text).to_owned()).collect();
        let chosen = place.open().select(sources, &Options { exclude, ..copy() }).unwrap();
        place.write(&chosen, "/", &How::default()).unwrap();
        assert_eq!(list(&place.root()), *after, "COPY {sources:?} --exclude {:?}", rows[0].0);
    }
    let bad = Options { exclude: vec!["[".into()], ..copy() };
    assert!(Place::new().open().select(&["."], &bad).unwrap_err().to_string().contains("--exclude"));
}

#[test]
fn modes_owners_and_times() {
    let place = Place::new();
    fill(&place.context(), &["d/run", "d/e/f", "d/l -> run"]);
    chmod(&place.context().join("d/run"), 0o4750);
    chmod(&place.context().join("d/e"), 0o2711);
    chmod(&place.context().join("d/e/f"), 0o600);
    let file = File::options().write(true).open(place.context().join("d/e/f")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890_123_456_789))
        .unwrap();
    let chosen = place.select(&["d"]).unwrap();
    place.write(&chosen, "/new/x", &How::default()).unwrap();
    let at = |path: &str| place.root().join(path);
    assert_eq!((mode(&at("new")), mode(&at("new/x"))), (0o755, 0o755));
    assert_eq!(
        (mode(&at("new/x/run")), mode(&at("new/x/e")), mode(&at("new/x/e/f"))),
        (0o4750, 0o2711, 0o600)
    );
    let status = at("new/x/e/f").metadata().unwrap();
    assert_eq!((status.mtime(), status.mtime_nsec()), (1_234_567_890, 123_456_789));

    let how = How { chmod: Some("u=rwX,go=rX"), times: Times::At(77), ..How::default() };
    place.write(&chosen, "/words/x/", &how).unwrap();
    assert_eq!(
        (mode(&at("words/x/run")), mode(&at("words/x/e")), mode(&at("words/x/e/f"))),
        (0o755, 0o2755, 0o644)
    );
    for path in ["words", "words/x", "words/x/run", "words/x/l", "words/x/e", "words/x/e/f"] {
        assert_eq!(at(path).symlink_metadata().unwrap().mtime(), 77, "{path}");
    }
    let how = How { chmod: Some("0700"), ..How::default() };
    place.write(&chosen, "/octal/x/", &how).unwrap();
    for path in ["octal", "octal/x", "octal/x/run", "octal/x/e", "octal/x/e/f"] {
        assert_eq!(mode(&at(path)), 0o700, "{path}");
    }
    for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
        let how = How { ownership: Ownership::To { uid, gid }, ..How::default() };
        assert!(place.write(&chosen, "/o/x/", &how).is_err() && !at("o").exists());
    }
    let how = How { ownership: Ownership::To { uid: 12, gid: 34 }, ..How::default() };
    if !is_root() {
        assert_eq!(place.write(&chosen, "/o/x/", &how).unwrap_err().kind(), Kind::Denied);
        return skip("owners are root's to give");
    }
    place.write(&chosen, "/o/x/", &how).unwrap();
    for path in ["o", "o/x", "o/x/run", "o/x/e", "o/x/e/f", "o/x/l"] {
        assert_eq!(owner(&at(path)), (12, 34), "{path}");
    }
    // Changing the owner must not take the set-user-id bit away.
    assert_eq!(mode(&at("o/x/run")), 0o4750);
}

#[test]
fn a_local_contexts_files_are_roots_and_a_stages_keep_their_owner() {
    if !is_root() {
        return skip("files of others take root");
    }
    let place = Place::new();
    fill(&place.context(), &["d/f", "d/l -> f"]);
    for path in ["d", "d/f"] {
        chown(place.context().join(path), Some(5), Some(6)).unwrap();
    }
    std::os::unix::fs::lchown(place.context().join("d/l"), Some(7), Some(8)).unwrap();
    place.copy(&["."], "/local/").unwrap();
    let stage = Context::root(File::open(place.context()).unwrap().into());
    let chosen = stage.select(&["/"], &copy()).unwrap();
    place.write(&chosen, "/stage/", &How::default()).unwrap();
    let at = |path: &str| owner(&place.root().join(path));
    assert_eq!([at("local/d"), at("local/d/f"), at("local/d/l")], [(0, 0); 3]);
    assert_eq!(
        [at("stage"), at("stage/d"), at("stage/d/f"), at("stage/d/l")],
        [(0, 0), (5, 6), (5, 6), (7, 8)]
    );
}

#[test]
fn hard_links_and_holes_stay() {
    let place = Place::new();
    fill(&place.context(), &["d/a", "d/e/", "out"]);
    std::fs::hard_link(place.context().join("d/a"), place.context().join("d/e/b")).unwrap();
    // One outside of what is chosen is a file of its own.
    std::fs::hard_link(place.context().join("out"), place.context().join("d/c")).unwrap();
    let sparse = File::create(place.context().join("d/sparse")).unwrap();
    sparse.set_len(64 << 20).unwrap();
    sparse.write_all_at(b"middle", 32 << 20).unwrap();
    place.copy(&["d"], "/x/").unwrap();
    let status = |name: &str| place.root().join(name).metadata().unwrap();
    assert_eq!((status("x/a").ino(), status("x/a").nlink()), (status("x/e/b").ino(), 2));
    assert_eq!(
        (status("x/c").nlink(), std::fs::read(place.root().join("x/c")).unwrap()),
        (1, b"out".to_vec())
    );
    assert_eq!(status("x/sparse").len(), 64 << 20);
    assert!(status("x/sparse").blocks() * 512 < 1 << 20, "{} blocks", status("x/sparse").blocks());
    let mut read = [0; 6];
    File::open(place.root().join("x/sparse")).unwrap().read_exact_at(&mut read, 32 << 20).unwrap();
    assert_eq!(&read, b"middle");
}

#[test]
fn attributes_are_copied() {
    let place = Place::new();
    fill(&place.context(), &["d/e/f"]);
    let path = |root: &std::path::Path, name: &str| root.join(name);
    for name in ["d/e", "d/e/f"] {
        let set = rustix::fs::setxattr(
            path(&place.context(), name),
            "user.colour",
            b"blue",
            rustix::fs::XattrFlags::empty(),
        );
        if set.is_err() {
            return skip("no extended attributes here");
        }
    }
    place.copy(&["d"], "/x/").unwrap();
    for name in ["x/e", "x/e/f"] {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(path(&place.root(), name), "user.colour", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"blue", "{name}");
    }
}
