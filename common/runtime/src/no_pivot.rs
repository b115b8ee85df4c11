//! A container's root put over the host's, where that is a ramdisk and cannot be exchanged for another: `--no-pivot`.

use crate::masks::empty_tmpfs;
use crate::root::{Root, attach, open_host};
use fault::{Explain, Fault, Result};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, UnmountFlags, move_mount, unmount};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// `path`: where it is mounted.
pub fn move_over(root: &Root, path: &Path) -> Result<()> {
    hide_whole_filesystems(path)?;
    rustix::process::fchdir(&root.fd).explain(|| "enter the root file system".into())?;
    move_mount(&root.fd, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .explain(|| "put it over the host's root".into())?;
    rustix::process::chroot(".").explain(|| "make it the root".into())?;
    rustix::process::chdir("/").explain(|| "enter the new root".into())
}

/// The host's mounts stay in the mount namespace, out of reach but not out of the kernel's sight: while a procfs or sysfs is there of which
/// nothing is covered, who is root of a user namespace in the container may mount another, and in that nothing is masked or read-only
/// (user_namespaces(7)).
fn hide_whole_filesystems(root: &Path) -> Result<()> {
    let table = std::fs::read("/proc/self/mountinfo").explain(|| "read /proc/self/mountinfo".into())?;
    for line in table.split(|byte| *byte == b'\n') {
        let Some(place) = whole_filesystem(line).filter(|place| !place.starts_with(root)) else { continue };
        match unmount(&place, UnmountFlags::DETACH) {
            // Gone with what it was on.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            // In a user namespace mounts from outside it cannot be taken apart.
            Err(Errno::INVAL | Errno::PERM) => attach(empty_tmpfs()?, open_host(&place)?, &place)?,
            Err(error) => {
                let fault = Fault::failed(format!("unmount {}", place.display()));
                return Err(fault.because(std::io::Error::from(error)));
            }
        }
    }
    Ok(())
}

/// Where a line of mountinfo (proc_pid_mountinfo(5)) has a procfs or sysfs from its root on.
fn whole_filesystem(line: &[u8]) -> Option<PathBuf> {
    let fields: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    let separator = fields.iter().skip(6).position(|field| *field == b"-")? + 6;
    let is_pseudo = matches!(fields.get(separator + 1), Some(&(b"proc" | b"sysfs")));
    (is_pseudo && fields[3] == b"/").then(|| unescape(fields[4]))
}

/// Space, tab, newline and backslash are octal there.
pub(crate) fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        bytes.push(value.unwrap_or(*first));
        rest = if value.is_some() { &tail[3..] } else { tail };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pseudo_filesystems_are_found() {
        let of = |line: &str| whole_filesystem(line.as_bytes());
        assert_eq!(of("25 30 0:22 / /proc rw - proc proc rw"), Some("/proc".into()));
        assert_eq!(of(r"25 30 0:22 / /a\040b\134 rw shared:1 master:2 - sysfs s rw"), Some(r"/a b\".into()));
        assert_eq!(of("25 30 0:22 /sys /proc/sys ro - proc proc rw"), None);
        assert_eq!(of("25 30 0:22 / /proc rw - tmpfs proc rw"), None);
        for bad in ["", "- - - - - - -", "25 30 0:22 / /proc rw -", "1 2 3 / /x rw"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
