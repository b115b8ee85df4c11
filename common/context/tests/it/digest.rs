//! What a selection's digest depends on, and what not.

use crate::place::{How, Place, chmod, copy, fill, write_to};
use context::{Context, Ignore, Memory, Options, Selection};
use oci::Digest;
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use testkit::{is_root, skip};

fn of(chosen: &Selection) -> Digest {
    chosen.digest().unwrap()
}

fn all(place: &Place) -> Digest {
    of(&place.select(&["."]).unwrap())
}

/// A change to a context, and whether the digest of all of it is to change.
type Change = (&'static str, bool, fn(&Path));

#[test]
fn it_changes_if_the_result_does_and_only_then() {
    let changes: &[Change] = &[
        ("nothing", false, |_| {}),
        ("content", true, |dir| std::fs::write(dir.join("a"), "A").unwrap()),
        ("content of the same size", true, |dir| std::fs::write(dir.join("d/b"), "d/x").unwrap()),
        ("the same content again", false, |dir| std::fs::write(dir.join("a"), "a").unwrap()),
        ("a time", false, |dir| {
            let file = File::options().write(true).open(dir.join("a")).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1)).unwrap();
        }),
        ("a mode", true, |dir| chmod(&dir.join("a"), 0o600)),
        ("a directory's mode", true, |dir| chmod(&dir.join("d"), 0o700)),
        ("the mode of what holds all", false, |dir| chmod(dir, 0o700)),
        ("a name", true, |dir| std::fs::rename(dir.join("a"), dir.join("A")).unwrap()),
        ("a place", true, |dir| std::fs::rename(dir.join("a"), dir.join("d/a")).unwrap()),
        ("a file more", true, |dir| std::fs::write(dir.join("d/more"), "").unwrap()),
        ("a directory more", true, |dir| std::fs::create_dir(dir.join("d/more")).unwrap()),
        ("a file less", true, |dir| std::fs::remove_file(dir.join("a")).unwrap()),
        ("a link's target", true, |dir| {
            std::fs::remove_file(dir.join("l")).unwrap();
            symlink("d/b", dir.join("l")).unwrap();
        }),
        ("a link in place of its file", true, |dir| {
            std::fs::remove_file(dir.join("a")).unwrap();
            symlink("d/b", dir.join("a")).unwrap();
        }),
        ("a file in place of its link", true, |dir| {
            std::fs::remove_file(dir.join("l")).unwrap();
            std::fs::write(dir.join("l"), "a").unwrap();
        }),
        ("an empty directory in place of an empty file", true, |dir| {
            std::fs::remove_file(dir.join("empty")).unwrap();
            std::fs::create_dir(dir.join("empty")).unwrap();
        }),
        ("another inode", false, |dir| {
            std::fs::copy(dir.join("a"), dir.join("new")).unwrap();
            std::fs::rename(dir.join("new"), dir.join("a")).unwrap();
        }),
        ("an ignored file", false, |dir| std::fs::write(dir.join("x.log"), "new").unwrap()),
        ("a file in an ignored directory", false, |dir| {
            std::fs::create_dir(dir.join("ignored")).unwrap();
            std::fs::write(dir.join("ignored/x"), "new").unwrap();
        }),
        ("a file that is not ignored", true, |dir| std::fs::write(dir.join("keep.log"), "new").unwrap()),
    ];
    for (what, changes, change) in changes {
        let place = Place::new();
        fill(&place.context(), &["a", "d/b", "l -> a"]);
        File::create(place.context().join("empty")).unwrap();
        let digest =
            || of(&place.open_ignoring("*.log\nignored\n!keep.log").select(&["."], &copy()).unwrap());
        let before = digest();
        change(&place.context());
        assert_eq!(before != digest(), *changes, "{what}");
    }
}

#[test]
fn names_count_where_they_are_kept() {
    let place = Place::new();
    fill(&place.context(), &["d/a", "e/a", "f", "g"]);
    for name in ["e/a", "f", "g"] {
        std::fs::write(place.context().join(name), "d/a").unwrap();
    }
    let digest = |sources: &[&str]| of(&place.select(sources).unwrap());
    assert_eq!(digest(&["d"]), digest(&["e"]));
    assert_eq!(digest(&["d/a"]), digest(&["e/a"]));
    assert_ne!(digest(&["f"]), digest(&["g"]));
    assert_ne!(digest(&["f"]), digest(&["d"]));
    assert_ne!(digest(&["f", "g"]), digest(&["g", "f"]));
    assert_ne!(digest(&["d", "e"]), digest(&["d"]));
    assert_eq!(digest(&["[fg]"]), digest(&["f", "g"]));
    assert_eq!(digest(&["d"]), digest(&["./d/"]));
    let parents =
        |source: &str| of(&place.open().select(&[source], &Options { parents: true, ..copy() }).unwrap());
    assert_ne!(parents("d/a"), parents("e/a"));
    assert_eq!(parents("d/./a"), parents("e/./a"));
}

#[test]
fn owners_count_for_stages_only() {
    if !is_root() {
        return skip("files of others take root");
    }
    let place = Place::new();
    fill(&place.context(), &["a"]);
    let stage = || {
        let root = Context::root(File::open(place.context()).unwrap().into());
        of(&root.select(&["."], &copy()).unwrap())
    };
    let (local, of_stage) = (all(&place), stage());
    chown(place.context().join("a"), Some(5), Some(6)).unwrap();
    assert_eq!(local, all(&place));
    assert_ne!(of_stage, stage());
}

#[test]
fn attributes_count() {
    let place = Place::new();
    fill(&place.context(), &["d/a"]);
    let mut digests = vec![all(&place)];
    for (name, attribute, value) in
        [("d/a", "user.x", "1"), ("d/a", "user.x", "2"), ("d/a", "user.y", "1"), ("d", "user.x", "1")]
    {
        let set = rustix::fs::setxattr(
            place.context().join(name),
            attribute,
            value.as_bytes(),
            rustix::fs::XattrFlags::empty(),
        );
        if set.is_err() {
            return skip("no extended attributes here");
        }
        let digest = all(&place);
        assert!(!digests.contains(&digest), "{name} {attribute}={value}");
        digests.push(digest);
    }
}

#[test]
fn it_is_the_same_on_every_machine() {
    let place = Place::new();
    fill(&place.context(), &["a", "d/b", "d/e/", "l -> a"]);
    for name in ["a", "d/b"] {
        chmod(&place.context().join(name), 0o644);
    }
    for name in ["d", "d/e"] {
        chmod(&place.context().join(name), 0o755);
    }
    // Were this to change, every build would be done once more.
    assert_eq!(
        all(&place).as_str(),
        "sha256:f354e52dea97d921d17bf3f1101149cff62c1641cbb2472841d21830430753b3"
    );
}

#[derive(Clone, Debug)]
enum Thing {
    File(u8, bool),
    Directory(bool),
    Link(u8),
}

/// A tree of few names, so that trees are often alike.
fn tree() -> impl Strategy<Value = Vec<(String, Thing)>> {
    let thing = prop_oneof![
        3 => (0u8..3, any::<bool>()).prop_map(|(content, x)| Thing::File(content, x)),
        1 => any::<bool>().prop_map(Thing::Directory),
        1 => (0u8..2).prop_map(Thing::Link),
    ];
    prop::collection::vec(("[ab](/[ab]){0,2}", thing), 0..6)
}

/// Makes what can be made of it; tells what it is in words.
fn make(dir: &Path, tree: &[(String, Thing)]) -> Vec<String> {
    for (path, thing) in tree {
        let path = dir.join(path);
        // What lies in the way wins.
        if path.symlink_metadata().is_ok()
            || path.parent().is_some_and(|dir| std::fs::create_dir_all(dir).is_err())
        {
            continue;
        }
        match thing {
            Thing::File(content, run) => {
                std::fs::write(&path, [*content]).unwrap();
                chmod(&path, if *run { 0o755 } else { 0o644 });
            }
            Thing::Directory(open) => {
                std::fs::create_dir(&path).unwrap();
                chmod(&path, if *open { 0o755 } else { 0o700 });
            }
            Thing::Link(to) => drop(symlink(format!("to-{to}"), &path)),
        }
    }
    describe(dir)
}

/// Everything that copying keeps.
fn describe(dir: &Path) -> Vec<String> {
    let names = crate::place::list(dir).into_iter();
    names
        .map(|line| {
            let name = line.split(" -> ").next().unwrap().split('=').next().unwrap().to_owned();
            let is_link = line.contains(" -> ");
            let mode = if is_link { 0 } else { crate::place::mode(&dir.join(name.trim_end_matches('/'))) };
            format!("{mode:o} {line}")
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn digests_are_equal_if_and_only_if_the_results_are(one in tree(), other in tree()) {
        let (first, second) = (Place::new(), Place::new());
        let (ours, theirs) = (make(&first.context(), &one), make(&second.context(), &other));
        prop_assert_eq!(all(&first) == all(&second), ours == theirs, "{:?} {:?}", ours, theirs);
        // What is written is what was chosen, and has the same digest.
        let chosen = first.select(&["."]).unwrap();
        first.write(&chosen, "/", &How::default()).unwrap();
        prop_assert_eq!(describe(&first.root()), ours);
        let copied = Context::directory(&first.root(), Ignore::none(), Memory::none()).unwrap();
        prop_assert_eq!(of(&copied.select(&["."], &copy()).unwrap()), of(&chosen));
        // And once more over itself it changes nothing.
        write_to(&first.root(), &chosen, "/", &How::default()).unwrap();
        prop_assert_eq!(describe(&first.root()), describe(&first.context()));
    }
}
