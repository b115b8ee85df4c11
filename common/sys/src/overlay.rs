//! Overlay mounts by the new mount API.

use fault::{Explain, Fault, Result};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A detached overlay of `lower`, lowest first; read-write with an upper and a work directory, else read-only. It is
/// gone when the descriptor is closed, unless it was put somewhere by then.
pub fn mount(lower: &[PathBuf], writable: Option<(&Path, &Path)>) -> Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .explain(|| "open an overlay file system".into())
        .map_err(|fault| fault.hint("the kernel needs the overlay module: modprobe overlay"))?;
    let failed = |error: Errno, what: &str| {
        let said = crate::mount::context_messages(context.as_fd());
        let fault =
            Fault::failed(format!("set up the overlay ({what})")).because(std::io::Error::from(error));
        if said.is_empty() { fault } else { fault.hint(format!("the kernel says: {said}")) }
    };
    set_lower_layers(context.as_fd(), lower).map_err(|error| failed(error, "lower layers"))?;
    if let Some((upper, work)) = writable {
        for (key, value) in [("upperdir", upper), ("workdir", work)] {
            fsconfig_set_string(&context, key, value).map_err(|error| failed(error, key))?;
        }
    }
    fsconfig_create(&context).map_err(|error| failed(error, "create"))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|error| failed(error, "mount"))
}

/// One by one, topmost first, where the kernel can (6.5); else in one string with its separators escaped.
fn set_lower_layers(context: BorrowedFd<'_>, lower: &[PathBuf]) -> rustix::io::Result<()> {
    let mut one_by_one = true;
    for (index, layer) in lower.iter().rev().enumerate() {
        match fsconfig_set_string(context, "lowerdir+", layer) {
            Ok(()) => {}
            Err(Errno::INVAL) if index == 0 => {
                one_by_one = false;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    if one_by_one && !lower.is_empty() {
        return Ok(());
    }
    let mut joined = Vec::new();
    for (index, layer) in lower.iter().rev().enumerate() {
        if index > 0 {
            joined.push(b':');
        }
        for byte in layer.as_os_str().as_bytes() {
            if matches!(byte, b':' | b'\\') {
                joined.push(b'\\');
            }
            joined.push(*byte);
        }
    }
    fsconfig_set_string(context, "lowerdir", OsStr::from_bytes(&joined))
}
