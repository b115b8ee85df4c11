//! The passwd and group files of a container that runs.

use cli::{Explain, Fault, Kind, Result};
use oci::users::UserFiles;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::io::Read;
use std::os::fd::OwnedFd;

/// Longest passwd or group file read, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// The container's passwd and group files as they are now.
pub fn of_process(pid: i32) -> Result<UserFiles> {
    let root = openat(
        CWD,
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .explain(|| "open the container's root".into())?;
    Ok(UserFiles { passwd: text(&root, "etc/passwd")?, group: text(&root, "etc/group")? })
}

/// Opened inside the root whatever links lead to; only a regular file of bearable length is read.
fn text(root: &OwnedFd, path: &str) -> Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(fd) = sys::fs::open_in_root(root, path, flags) else { return Ok(None) };
    let file = std::fs::File::from(fd);
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .explain(|| format!("read /{path} in the container"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Fault::new(Kind::Input, format!("/{path} in the container is too long")));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
