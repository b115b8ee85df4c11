//! What is remembered of files is never stale, and survives neither damage nor doubt.

use crate::place::{Place, chmod, copy, fill};
use context::{Context, Ignore, Memory};
use oci::Digest;
use proptest::prelude::*;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use store::Store;

fn store(place: &Place) -> Store {
    Store::at(place.dir.path().join("store"), place.dir.path().join("run"))
}

fn digest(place: &Place, memory: Memory) -> Digest {
    let context = Context::directory(&place.context(), Ignore::none(), memory).unwrap();
    let digest = context.select(&["."], &copy()).unwrap().digest().unwrap();
    context.remember().unwrap();
    digest
}

fn remembered(place: &Place) -> Digest {
    digest(place, Memory::of(&store(place), &place.context()))
}

fn fresh(place: &Place) -> Digest {
    digest(place, Memory::none())
}

/// The one file of the memory.
fn file(place: &Place) -> PathBuf {
    let dir = place.dir.path().join("store/cache/files");
    let mut files: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files.remove(0)
}

/// Long enough ago to be remembered.
fn rest() {
    std::thread::sleep(Duration::from_millis(2100));
}

/// Reads nothing: whether files are remembered shows in a file's content not being read.
fn reads_of(place: &Place, name: &str, act: impl FnOnce()) -> bool {
    let path = place.context().join(name);
    let times = || {
        let status = path.metadata().unwrap();
        (status.atime(), status.atime_nsec())
    };
    // Older than the last change, so that the next reading is noted (relatime).
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    let old = std::fs::FileTimes::new().set_accessed(std::time::UNIX_EPOCH);
    file.set_times(old).unwrap();
    let before = times();
    act();
    times() != before
}

#[test]
fn what_has_rested_is_not_read_again() {
    let place = Place::new();
    fill(&place.context(), &["a", "d/b"]);
    // Setting a time is a change of its own.
    if !reads_of(&place, "a", || drop(std::fs::read(place.context().join("a")).unwrap())) {
        return testkit::skip("this file system does not note when files are read");
    }
    assert!(reads_of(&place, "a", || drop(remembered(&place))), "read although unknown");
    rest();
    let digest = remembered(&place);
    assert_eq!(remembered(&place), digest);
    let before = place.context().join("a").metadata().unwrap().atime();
    std::fs::write(place.context().join("other"), "new").unwrap();
    assert_ne!(remembered(&place), digest);
    assert_eq!(place.context().join("a").metadata().unwrap().atime(), before);
    assert_eq!(remembered(&place), fresh(&place));
    // 72 bytes for each of two files and two directories, one of which has changed.
    let size = file(&place).metadata().unwrap().len();
    assert!((20 + 3 * 72..=20 + 6 * 72).contains(&size) && (size - 20).is_multiple_of(72), "{size}");
}

#[test]
fn a_remembered_answer_is_used() {
    let place = Place::new();
    fill(&place.context(), &["a"]);
    rest();
    let digest = remembered(&place);
    // Another answer, under the right checksum: believed, as nothing was read.
    let path = file(&place);
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(remembered(&place), digest, "a checksum that is wrong is no memory");
    let mut crc = flate2::Crc::new();
    crc.update(&bytes[20..]);
    bytes[16..20].copy_from_slice(&crc.sum().to_le_bytes());
    std::fs::write(&path, &bytes).unwrap();
    assert_ne!(remembered(&place), digest);
}

#[test]
fn damage_is_forgotten() {
    let place = Place::new();
    fill(&place.context(), &["a", "b", "c"]);
    rest();
    let digest = remembered(&place);
    let good = std::fs::read(file(&place)).unwrap();
    for damage in [
        Vec::new(),
        vec![0; 20],
        vec![0xff; 100_000],
        good[..good.len() - 1].to_vec(),
        good[..20].to_vec(),
        [&good[..], b"more"].concat(),
        good.iter().rev().copied().collect(),
        [&good[..16], &[0; 4], &good[20..]].concat(),
    ] {
        std::fs::write(file(&place), &damage).unwrap();
        assert_eq!(remembered(&place), digest, "{} bytes", damage.len());
    }
    std::fs::remove_file(file(&place)).unwrap();
    std::fs::create_dir(place.dir.path().join("store/cache/files/x")).unwrap();
    assert_eq!(remembered(&place), digest);
}

#[test]
fn a_change_of_anything_is_seen() {
    let place = Place::new();
    fill(&place.context(), &["a", "b"]);
    rest();
    let mut last = remembered(&place);
    let path = |name: &str| place.context().join(name);
    let changes: [&dyn Fn(); 5] = [
        &|| std::fs::write(path("a"), "x").unwrap(),
        &|| {
            // The same size and, put back, the same time of modification.
            let time = path("b").metadata().unwrap().modified().unwrap();
            std::fs::write(path("b"), "y").unwrap();
            std::fs::File::options().write(true).open(path("b")).unwrap().set_modified(time).unwrap();
        },
        &|| std::fs::rename(path("a"), path("c")).unwrap(),
        &|| chmod(&path("c"), 0o600),
        &|| {
            // Two files change places.
            std::fs::rename(path("b"), path("t")).unwrap();
            std::fs::rename(path("c"), path("b")).unwrap();
            std::fs::rename(path("t"), path("c")).unwrap();
        },
    ];
    for (number, change) in changes.iter().enumerate() {
        change();
        let now = remembered(&place);
        assert_ne!(now, last, "{number}");
        assert_eq!(now, fresh(&place), "{number}");
        last = now;
    }
}

#[test]
fn builds_at_the_same_time_lose_nothing_of_each_other() {
    let place = Place::new();
    fill(&place.context(), &["one/a", "two/b"]);
    rest();
    let open = || {
        Context::directory(&place.context(), Ignore::none(), Memory::of(&store(&place), &place.context()))
            .unwrap()
    };
    let (first, second) = (open(), open());
    first.select(&["one"], &copy()).unwrap().digest().unwrap();
    second.select(&["two"], &copy()).unwrap().digest().unwrap();
    first.remember().unwrap();
    second.remember().unwrap();
    // Two files, two directories.
    assert_eq!(file(&place).metadata().unwrap().len(), 20 + 4 * 72);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..20 {
                    std::fs::write(place.context().join(format!("file-{round}")), "x").unwrap();
                    let _ = remembered(&place);
                }
            });
        }
    });
    assert_eq!(remembered(&place), fresh(&place));
    assert_eq!(file(&place).metadata().unwrap().len() % 72, 20);
}

#[derive(Clone, Debug)]
enum Edit {
    /// One byte, in place: size and second stay as they are.
    Write(u8, u8),
    Replace(u8, u8),
    Swap(u8, u8),
    Build,
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => (0u8..3, 0u8..4).prop_map(|(file, byte)| Edit::Write(file, byte)),
        2 => (0u8..3, 0u8..4).prop_map(|(file, byte)| Edit::Replace(file, byte)),
        1 => (0u8..3, 0u8..3).prop_map(|(one, other)| Edit::Swap(one, other)),
        4 => Just(Edit::Build),
    ]
}

fn apply(dir: &Path, edit: &Edit) {
    let path = |file: u8| dir.join(format!("file-{file}"));
    match edit {
        Edit::Write(file, byte) => std::fs::write(path(*file), [*byte]).unwrap(),
        Edit::Replace(file, byte) => {
            std::fs::write(dir.join("new"), [*byte]).unwrap();
            std::fs::rename(dir.join("new"), path(*file)).unwrap();
        }
        Edit::Swap(one, other) if one != other && path(*one).exists() && path(*other).exists() => {
            std::fs::rename(path(*one), dir.join("new")).unwrap();
            std::fs::rename(path(*other), path(*one)).unwrap();
            std::fs::rename(dir.join("new"), path(*other)).unwrap();
        }
        _ => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_ever_stale(edits in prop::collection::vec(edit(), 1..40), pause in 0u64..2) {
        let place = Place::new();
        for edit in &edits {
            apply(&place.context(), edit);
            if matches!(edit, Edit::Build) {
                prop_assert_eq!(remembered(&place), fresh(&place));
            }
        }
        std::thread::sleep(Duration::from_millis(pause * 40));
        prop_assert_eq!(remembered(&place), fresh(&place));
    }
}

#[test]
fn edits_around_the_moment_of_remembering_are_seen() {
    let place = Place::new();
    let end = std::time::Instant::now() + Duration::from_secs(6);
    let mut number = 0u32;
    // Builds and edits without a pause, then with pauses around the second after which files are remembered.
    while std::time::Instant::now() < end {
        let pause = [0, 0, 1, 3, 950, 1010, 2005][number as usize % 7];
        std::fs::write(place.context().join("f"), number.to_be_bytes()).unwrap();
        std::fs::write(place.context().join("g"), (number / 7).to_be_bytes()).unwrap();
        let _ = remembered(&place);
        std::thread::sleep(Duration::from_millis(pause));
        assert_eq!(remembered(&place), fresh(&place), "{number} after {pause} ms");
        number += 1;
    }
}
