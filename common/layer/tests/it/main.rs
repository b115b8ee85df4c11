//! Layers made by hand, good ones and hostile ones, applied to real directories. Most need root: owners and devices.
#![forbid(unsafe_code)]
// A skipped test says so.
#![allow(clippy::print_stderr)]

mod build;
mod flat;
mod full_disk;
mod good;
mod hostile;
mod random;
mod view;

use layer::{Applied, Expected, Limits, Target};
use std::path::Path;

pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root for owners and devices");
    }
    root
}

pub fn open(dir: &Path) -> rustix::fd::OwnedFd {
    sys::fs::open_dir(rustix::fs::CWD, dir).unwrap()
}

/// Applies one layer for an overlay.
pub fn apply(dir: &Path, blob: &[u8]) -> fault::Result<Applied> {
    apply_within(dir, blob, &Limits::default())
}

pub fn apply_within(dir: &Path, blob: &[u8], limits: &Limits) -> fault::Result<Applied> {
    layer::apply(blob, Expected::default(), limits, &mut Target::layer(open(dir)))
}

/// Applies several layers flat.
pub fn flatten(dir: &Path, blobs: &[Vec<u8>]) -> fault::Result<()> {
    let mut target = Target::flat(open(dir));
    for blob in blobs {
        layer::apply(&blob[..], Expected::default(), &Limits::default(), &mut target)?;
    }
    Ok(())
}
