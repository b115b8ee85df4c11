//! Files that are either the old one or the new one, never between.

use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// Replaces `path` with `content` by writing a temporary file beside it and renaming.
///
/// No fsync: the file is there after a crash of the program, and old or new after a crash of the machine on
/// file systems that order data before a renaming (ext4, xfs and btrfs do when a file is replaced).
pub fn write(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    through_temporary(path, content, mode, |temporary| fs::rename(temporary, path))
}

/// As [`write`], but after a crash of the machine the file may be empty: for what is written often and matters little then.
///
/// Exchanged, not replaced: a file system that orders data before a replacement (ext4's `auto_da_alloc`) makes the caller
/// wait for the disk.
pub fn write_unflushed(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    through_temporary(path, content, mode, |temporary| {
        match renameat_with(CWD, temporary, CWD, path, RenameFlags::EXCHANGE) {
            Ok(()) => fs::remove_file(temporary),
            // Nothing there yet, or a file system that cannot.
            Err(_) => fs::rename(temporary, path),
        }
    })
}

/// As [`write`], and on disk when it returns.
pub fn write_durably(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    through_temporary(path, content, mode, |temporary| {
        fs::File::open(temporary)?.sync_all()?;
        fs::rename(temporary, path)?;
        path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    })
}

fn through_temporary(
    path: &Path,
    content: &[u8],
    mode: u32,
    put: impl FnOnce(&Path) -> std::io::Result<()>,
) -> Result<()> {
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}-{number}", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&temporary)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| put(&temporary));
    if written.is_err() {
        // The failure being reported is the one that matters.
        let _ = fs::remove_file(&temporary);
    }
    written.explain(|| format!("write {}", path.display()))
}

/// The file's content; `None` when there is no such file.
///
/// Fails with input for what is no regular file, a link to one aside: a pipe would be waited for, a device may never end.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    read_at_most(path, u64::MAX - 1)
}

/// The same of a file that is never longer. Fails with input for one that is.
pub fn read_at_most(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let what = || format!("read {}", path.display());
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    // Their bits are few and low.
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        // A socket.
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
            return Err(no_file(path));
        }
        Err(error) => return Err(error).explain(what),
    };
    let status = file.metadata().explain(what)?;
    if !status.is_file() {
        return Err(no_file(path));
    }
    let mut content = Vec::with_capacity(status.len().min(most).try_into().unwrap_or(0));
    file.take(most + 1).read_to_end(&mut content).explain(what)?;
    if content.len() as u64 > most {
        return Err(Fault::input(format!("{} is longer than {most} bytes", path.display())));
    }
    Ok(Some(content))
}

fn no_file(path: &Path) -> Fault {
    Fault::input(format!("{} is no file", path.display())).hint("somebody put something else in its place")
}
