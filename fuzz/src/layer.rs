//! Layers: archives applied to a directory, for an overlay and flat, and looked into without that.

use super::scratch::Scratch;
use layer::scan::scan;
use layer::{Budget, Expected, Limits, Target, View};
use std::path::Path;
use std::sync::Arc;

const BLOCK: usize = 512;

pub fn check(data: &[u8]) {
    let mut unpacks = false;
    for flat in [false, true] {
        let outcome = apply(data, flat);
        unpacks = outcome.is_ok();
        if let Err(fault) = outcome {
            assert!(matches!(fault.kind(), fault::Kind::Input | fault::Kind::Failed), "{fault}");
        }
    }
    match look(data) {
        Ok(()) => {}
        // A tree deeper than any path is only unpacked.
        Err(fault) => {
            assert!(!unpacks || fault.to_string().contains("real path"), "{fault}");
            assert_eq!(fault.kind(), fault::Kind::Input, "{fault}");
        }
    }
}

/// The tree in memory, of the same layer twice, and of the upper one alone. What is found there has a path that is found again.
fn look(data: &[u8]) -> fault::Result<()> {
    let limits = limits();
    let list = Arc::new(scan(data, &limits, &Budget::new(64 << 20), true)?);
    let layers = [Arc::clone(&list), list];
    let view = View::of(&layers, &Budget::new(64 << 20))?;
    view.root().walk(b"", |path, node| {
        let found = view.find(path, false).expect("what is listed is there");
        assert_eq!(found.inode(), node.inode());
        Ok::<(), fault::Fault>(())
    })?;
    if let Some(upper) = View::of_upper(&layers[1..], &Budget::new(64 << 20))? {
        upper.root().walk(b"", |path, _| {
            assert!(upper.find(path, false).is_ok());
            Ok::<(), fault::Fault>(())
        })?;
    }
    Ok(())
}

fn limits() -> Limits {
    Limits { entries: 1000, bytes: Some(4 << 20), ratio: Some(250) }
}

fn apply(data: &[u8], flat: bool) -> fault::Result<()> {
    let yard = Scratch::new("layer");
    std::fs::write(yard.path().join("precious"), b"precious").expect("write a file");
    let root = yard.path().join("root");
    std::fs::create_dir(&root).expect("make a directory");
    let opened = sys::fs::open_dir(rustix::fs::CWD, root.as_path()).expect("open a directory");
    let limits = limits();
    let mut outcome = Ok(());
    if flat {
        let mut target = Target::flat(opened);
        // Twice, so that whiteouts have something below them.
        for _ in 0..2 {
            outcome = outcome
                .and_then(|()| layer::apply(data, Expected::default(), &limits, &mut target).map(drop));
        }
    } else {
        outcome = layer::apply(data, Expected::default(), &limits, &mut Target::layer(opened)).map(drop);
    }
    untouched(yard.path());
    outcome
}

/// Nothing beside the root was made, changed or removed.
fn untouched(yard: &Path) {
    assert_eq!(std::fs::read(yard.join("precious")).expect("it is there"), b"precious");
    assert_eq!(std::fs::read_dir(yard).expect("it is there").count(), 2);
}

/// Corrects the checksum of each header of an archive, so that changed ones are read at all.
pub fn mend(archive: &mut [u8]) {
    let mut at = 0;
    while let Some(block) = archive.get_mut(at..at + BLOCK).and_then(|b| <&mut [u8; BLOCK]>::try_from(b).ok())
    {
        if block.iter().all(|b| *b == 0) {
            return;
        }
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        // Twelve octal digits at most: no sum with it overflows.
        let digits = block[124..136].iter().filter(|b| (b'0'..=b'7').contains(b));
        let size = digits.fold(0, |size, digit| 8 * size + usize::from(digit - b'0'));
        at += BLOCK + size.next_multiple_of(BLOCK);
    }
}
