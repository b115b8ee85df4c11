//! Owner, mode, attributes and times of what is in the tree; what of it an ordinary user cannot set is written down.

use super::{IMPLIED_MODE, Metadata, Tree, io, os, show};
use crate::name::is_overlays;
use crate::scan::ItemKind;
use crate::unset::{Line, OVERRIDE, override_stat};
use fault::{Fault, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{
    AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, fchmod, fchown, fsetxattr, fstat,
    futimens,
};
use rustix::io::Errno;

type Xattr = (Vec<u8>, Vec<u8>);

impl Tree {
    /// The entry for the root itself.
    pub fn dress_root(&mut self, metadata: &Metadata<'_>) -> Result<()> {
        let root =
            self.frames[0].fd.try_clone().map_err(|e| Fault::failed("duplicate a descriptor").because(e))?;
        // Nothing is on the way to the root.
        self.through_link = false;
        self.dress_dir(root.as_fd(), metadata, b".", true)?;
        self.frames[0].times = Some(metadata.times.clone());
        Ok(())
    }

    /// The root, before an entry for it comes.
    pub fn imply_root(&self) -> Result<()> {
        self.imply(self.root(), b".")
    }

    /// A directory no entry was for so far: it is root's.
    pub(super) fn imply(&self, fd: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        if self.manner.privileged {
            return Ok(());
        }
        let never = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let metadata = Metadata {
            kind: ItemKind::Directory,
            device: (0, 0),
            mode: IMPLIED_MODE,
            uid: 0,
            gid: 0,
            times: Timestamps { last_access: never, last_modification: never },
            xattrs: &[],
        };
        self.write_down(fd, &metadata, path, &[], false)
    }

    pub(super) fn dress_dir(
        &mut self,
        fd: BorrowedFd<'_>,
        metadata: &Metadata<'_>,
        path: &[u8],
        existed: bool,
    ) -> Result<()> {
        // An ordinary user could not fill a directory without these rights.
        let mode = if self.manner.privileged { metadata.mode } else { metadata.mode | 0o700 };
        self.dress(fd, &Metadata { mode, times: metadata.times.clone(), ..*metadata }, path)?;
        let lost = self.set_xattrs(metadata.xattrs, path, |name, value| {
            fsetxattr(fd, name, value, XattrFlags::empty())
        })?;
        self.write_down(fd, metadata, path, &lost, existed)
    }

    /// Owner, then mode (chown takes set-uid away), of a file or directory that is open.
    fn dress(&self, fd: BorrowedFd<'_>, metadata: &Metadata<'_>, path: &[u8]) -> Result<()> {
        let stat = fstat(fd).map_err(|e| os("read", path, e))?;
        if self.manner.privileged && (stat.st_uid != metadata.uid || stat.st_gid != metadata.gid) {
            let (owner, group) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            fchown(fd, Some(owner), Some(group)).map_err(|e| os("set the owner of", path, e))?;
        }
        if stat.st_mode & 0o7777 != metadata.mode {
            fchmod(fd, Mode::from_raw_mode(metadata.mode)).map_err(|e| os("set the mode of", path, e))?;
        }
        Ok(())
    }

    /// Everything about a file that was written: the times last.
    pub fn dress_file(&mut self, fd: BorrowedFd<'_>, metadata: &Metadata<'_>, path: &[u8]) -> Result<()> {
        let set = |name: &[u8], value: &[u8]| fsetxattr(fd, name, value, XattrFlags::empty());
        if self.manner.privileged {
            self.dress(fd, metadata, path)?;
            // After chown and after the last write: both take security.capability away.
            let lost = self.set_xattrs(metadata.xattrs, path, set)?;
            self.write_down(fd, metadata, path, &lost, false)?;
        } else {
            // The mode may forbid to write, and with that to set attributes.
            let lost = self.set_xattrs(metadata.xattrs, path, set)?;
            self.write_down(fd, metadata, path, &lost, false)?;
            self.dress(fd, metadata, path)?;
        }
        futimens(fd, &metadata.times).map_err(|e| os("set the times of", path, e))
    }

    /// Owner, mode and times of what cannot be opened: symbolic links, devices, pipes.
    pub fn dress_special(
        &mut self,
        name: &[u8],
        metadata: &Metadata<'_>,
        mode: bool,
        path: &[u8],
    ) -> Result<()> {
        if self.manner.privileged {
            let (owner, group) = (Uid::from_raw(metadata.uid), Gid::from_raw(metadata.gid));
            rustix::fs::chownat(self.top(), name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| os("set the owner of", path, e))?;
        }
        if mode {
            // Made a moment ago and no symbolic link, so there is none to follow.
            rustix::fs::chmodat(self.top(), name, Mode::from_raw_mode(metadata.mode), AtFlags::empty())
                .map_err(|e| os("set the mode of", path, e))?;
        }
        let lost = if metadata.xattrs.is_empty() {
            Vec::new()
        } else {
            // A link is not followed by lsetxattr, and the last component is never `..`.
            let dir = rustix::fd::AsRawFd::as_raw_fd(&self.top());
            let mut by_path = format!("/proc/self/fd/{dir}/").into_bytes();
            by_path.extend_from_slice(name);
            self.set_xattrs(metadata.xattrs, path, |name, value| {
                rustix::fs::lsetxattr(by_path.as_slice(), name, value, XattrFlags::empty())
            })?
        };
        if !self.manner.privileged || !lost.is_empty() {
            self.write_line(metadata, path, &lost)?;
        }
        rustix::fs::utimensat(self.top(), name, &metadata.times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|e| os("set the times of", path, e))
    }

    /// What is not in the tree at all.
    pub fn write_absent(&self, metadata: &Metadata<'_>, path: &[u8]) -> Result<()> {
        self.write_line(metadata, path, &metadata.xattrs.iter().collect::<Vec<_>>())
    }

    /// Owner, mode and type into the attribute for them, and where that cannot be, and for what else could not be set, a line.
    fn write_down(
        &self,
        fd: BorrowedFd<'_>,
        metadata: &Metadata<'_>,
        path: &[u8],
        lost: &[&Xattr],
        existed: bool,
    ) -> Result<()> {
        // Any failure means that there is no place for it; a full disk shows with the next file.
        let is_kept = self.manner.privileged
            || fsetxattr(fd, OVERRIDE, override_stat(metadata).as_bytes(), XattrFlags::empty()).is_ok();
        // What an earlier entry for the directory lost may not be true of this one.
        if is_kept && lost.is_empty() && !(existed && self.recorded() > 0) {
            return Ok(());
        }
        self.write_line(metadata, path, lost)
    }

    fn write_line(&self, metadata: &Metadata<'_>, path: &[u8], lost: &[&Xattr]) -> Result<()> {
        match self.unset.borrow_mut().as_mut() {
            Some(unset) => unset.write(&Line::of(&self.real_path(path), metadata, lost)),
            None => Ok(()),
        }
    }

    /// Returns those that could not be set.
    fn set_xattrs<'a>(
        &mut self,
        xattrs: &'a [Xattr],
        path: &[u8],
        set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
    ) -> Result<Vec<&'a Xattr>> {
        let mut lost = Vec::new();
        for xattr in xattrs {
            let (name, value) = xattr;
            if is_overlays(name) {
                self.skipped.note(|s| &mut s.overlay_xattrs, path, name);
                lost.push(xattr);
                continue;
            }
            // An ordinary user's own has that name, and it is not the image that says what is in it.
            let is_taken = !self.manner.privileged && name == OVERRIDE.as_bytes();
            match if is_taken { Err(Errno::PERM) } else { set(name, value) } {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => {
                    self.skipped.note(|s| &mut s.xattrs, path, name);
                    lost.push(xattr);
                }
                // ext4 says the disk is full when attributes do not fit into their one block.
                Err(error @ (Errno::NOSPC | Errno::TOOBIG | Errno::RANGE | Errno::INVAL)) => {
                    let what =
                        format!("set the attribute {} of {} ({} bytes)", show(name), show(path), value.len());
                    return Err(Fault::input(what).because(io(error)));
                }
                Err(error) => return Err(os(&format!("set the attribute {} of", show(name)), path, error)),
            }
        }
        Ok(lost)
    }
}

/// A directory of an upper layer has its own attributes, not those of the lower one it lies over.
pub(super) fn drop_xattrs(fd: BorrowedFd<'_>, keep: &[Xattr]) -> rustix::io::Result<()> {
    let mut buffer = [0u8; 1024];
    let names = match rustix::fs::flistxattr(fd, &mut buffer) {
        Ok(length) => &buffer[..length],
        // Without support there are none; with more than fit, they are the file system's own.
        Err(_) => return Ok(()),
    };
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if !keep.iter().any(|(kept, _)| kept == name) && !name.starts_with(b"security.selinux") {
            match rustix::fs::fremovexattr(fd, name) {
                Ok(()) | Err(Errno::NODATA | Errno::PERM | Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
