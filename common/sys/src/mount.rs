//! What rustix lacks of the new mount API.

use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::mount::{OpenTreeFlags, open_tree};
use std::ffi::CStr;
use std::io;
use std::path::Path;

/// Attributes and propagation of a mount, for [`mount_setattr`].
#[derive(Clone, Copy, Debug, Default)]
pub struct MountAttributes {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_PRIVATE`, `MS_SHARED`, `MS_SLAVE`, `MS_UNBINDABLE`; 0 leaves it.
    pub propagation: u64,
}

pub const MOUNT_ATTR_RDONLY: u64 = 0x1;
pub const MOUNT_ATTR_NOSUID: u64 = 0x2;
pub const MOUNT_ATTR_NODEV: u64 = 0x4;
pub const MOUNT_ATTR_NOEXEC: u64 = 0x8;
/// The three access time settings are one field of this mask.
pub const MOUNT_ATTR_ATIME: u64 = 0x70;
pub const MOUNT_ATTR_RELATIME: u64 = 0;
pub const MOUNT_ATTR_NOATIME: u64 = 0x10;
pub const MOUNT_ATTR_STRICTATIME: u64 = 0x20;
pub const MOUNT_ATTR_NODIRATIME: u64 = 0x80;
pub const MOUNT_ATTR_NOSYMFOLLOW: u64 = 0x20_0000;

/// Changes the mount a descriptor stands for (mount_setattr(2), Linux 5.12), and with `recursive` those below it.
pub fn mount_setattr(mount: BorrowedFd<'_>, recursive: bool, attributes: MountAttributes) -> io::Result<()> {
    let attr = libc::mount_attr {
        attr_set: attributes.set,
        attr_clr: attributes.clear,
        propagation: attributes.propagation,
        userns_fd: 0,
    };
    set_attributes(mount, recursive, &attr)
}

/// Shows the owners of a detached mount's files as the users and groups of a user namespace map them: what is its user 0
/// on disk is who that is outside of it. Needs CAP_SYS_ADMIN where the file system was mounted, and a file system that can
/// do it (`EINVAL`).
pub fn map_ids(mount: BorrowedFd<'_>, recursive: bool, users: BorrowedFd<'_>) -> io::Result<()> {
    const MOUNT_ATTR_IDMAP: u64 = 0x10_0000;
    let attr = libc::mount_attr {
        attr_set: MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: users.as_raw_fd() as u64,
    };
    set_attributes(mount, recursive, &attr)
}

fn set_attributes(mount: BorrowedFd<'_>, recursive: bool, attr: &libc::mount_attr) -> io::Result<()> {
    const NOTHING: &CStr = c"";
    let mut flags = libc::AT_EMPTY_PATH;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    // SAFETY: the descriptor is open, the path an empty C string, and `attr` a valid structure of the size given. A
    // descriptor named in it is only looked up.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            NOTHING.as_ptr(),
            flags,
            std::ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What the kernel says in words about the last failure on a file system context (fsopen(2)): empty if nothing.
pub fn context_messages(context: BorrowedFd<'_>) -> String {
    let mut text = String::new();
    let mut buffer = [0u8; 1024];
    while let Ok(length) = rustix::io::read(context, &mut buffer) {
        if length == 0 {
            break;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(String::from_utf8_lossy(&buffer[..length]).trim_end());
    }
    text
}

/// pivot_root(".", "."): the new root, which is the working directory, and the old one stacked on it.
pub fn pivot_to_working_directory() -> io::Result<()> {
    const HERE: &CStr = c".";
    // SAFETY: both arguments are valid C strings.
    let result = unsafe { libc::syscall(libc::SYS_pivot_root, HERE.as_ptr(), HERE.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A descriptor through which a program can be executed but never written to, whatever it does with
/// `/proc/self/exe` once it runs (CVE-2019-5736): a detached, read-only mount of the file alone.
pub fn readonly_executable(path: &Path) -> io::Result<OwnedFd> {
    let tree = open_tree(CWD, path, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?;
    mount_setattr(
        tree.as_fd(),
        false,
        MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() },
    )?;
    Ok(tree)
}
