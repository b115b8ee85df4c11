//! Archives of checkpoints, as `ctr-restore --import` takes them: nothing is written outside of the container's bundle, and nothing in it
//! but images, logs and changed files.
//!
//! Input: the archive, packed or not.

use super::scratch::Scratch;
use ::checkpoint::{IMAGES, Incoming};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use store::Store;

/// More than any input unpacks to that is worth its time.
const MAX_UNPACKED: u64 = 8 << 20;

pub fn check(data: &[u8]) {
    let mut data = data.to_vec();
    if data.starts_with(b"checkpoint.json") {
        super::layer::mend(&mut data);
    }
    if !is_small(&data) {
        return;
    }
    let Ok(incoming) = Incoming::open(data.as_slice()) else { return };
    let promised = incoming.head.clone();
    let yard = Scratch::new("checkpoint");
    std::fs::write(yard.path().join("precious"), "precious").expect("write a file");
    let store = Store::at(yard.path().join("root"), yard.path().join("run"));
    let dir = store.container_dir(&"a".repeat(64));
    std::fs::create_dir_all(dir.bundle.join("upper")).expect("make directories");
    std::fs::write(dir.bundle.join("config.json"), "{}").expect("write a file");
    if let Ok(placed) = incoming.place(&dir) {
        assert_eq!((placed.images, placed.logs), (promised.images, promised.logs));
        assert_eq!(placed.difference, promised.rootfs);
        assert_eq!(names(&dir.bundle.join(IMAGES)).len(), placed.images);
    }
    assert_eq!(std::fs::read(yard.path().join("precious")).expect("it is there"), b"precious");
    assert_eq!(std::fs::read(dir.bundle.join("config.json")).expect("it is there"), b"{}");
    assert!(names(yard.path()).iter().all(|name| matches!(name.as_str(), "precious" | "root" | "run")));
    for name in names(&dir.bundle) {
        let known = matches!(name.as_str(), "upper" | "config.json" | IMAGES) || name.starts_with("log.json");
        assert!(known, "{name}");
    }
}

fn is_small(data: &[u8]) -> bool {
    let Ok(unpacked) = ::image::archive::inflate::inflated(data) else { return true };
    let mut sink = std::io::sink();
    std::io::copy(&mut unpacked.take(MAX_UNPACKED + 1), &mut sink).is_ok_and(|length| length <= MAX_UNPACKED)
        || data.len() < 64
}

fn names(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).expect("it is there");
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
