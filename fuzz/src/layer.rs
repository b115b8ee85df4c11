//! Layers: archives applied to a directory, for an overlay and flat.

use super::scratch::Scratch;
use layer::{Expected, Limits, Target};
use std::path::Path;

const BLOCK: usize = 512;

pub fn check(data: &[u8]) {
    for flat in [false, true] {
        if let Err(fault) = apply(data, flat) {
            assert!(matches!(fault.kind(), fault::Kind::Input | fault::Kind::Failed), "{fault}");
        }
    }
}

fn apply(data: &[u8], flat: bool) -> fault::Result<()> {
    let yard = Scratch::new("layer");
    std::fs::write(yard.path().join("precious"), b"precious").expect("write a file");
    let root = yard.path().join("root");
    std::fs::create_dir(&root).expect("make a directory");
    let opened = sys::fs::open_dir(rustix::fs::CWD, root.as_path()).expect("open a directory");
    let limits = Limits { entries: 1000, bytes: Some(4 << 20), ratio: Some(250) };
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
