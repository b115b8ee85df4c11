//! What a container changed in its files, as a layer.

use fault::{Explain, Result};
use rootfs::{Changes, LayerTarball};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::fs::File;
use std::io::{BufWriter, Seek};
use store::ContainerDir;

const CHUNK: usize = 256 << 10;

/// A file without a name that holds the layer, and how many files could not be told in it because their names mean something else there.
///
/// It goes through a file because an archive tells a member's size before its content.
///
/// # Errors
/// For a container that is no overlay; when something cannot be read or the disk is full.
pub fn difference(dir: &ContainerDir) -> Result<(File, u64)> {
    let what = || format!("make a file in {}", dir.bundle.display());
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let file: File = openat(CWD, &dir.bundle, flags, Mode::RUSR | Mode::WUSR).explain(what)?.into();
    let to = BufWriter::with_capacity(CHUNK, file.try_clone().explain(what)?);
    let mut layer = LayerTarball::new(to);
    Changes::of(dir)?.visit(&mut layer)?;
    let misnamed = layer.misnamed;
    layer.finish()?;
    let mut file = file;
    file.rewind().explain(what)?;
    Ok((file, misnamed))
}
