//! Bind mounts: what is taken, with which attributes.

use super::options::{MS_PRIVATE, Options};
use super::prepare::Source;
use crate::root::clone_tree;
use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat, readlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::mount::{MountAttributes, map_ids, mount_setattr};

/// A mount of the source that is nowhere yet.
pub(super) struct Taken {
    pub tree: OwnedFd,
    /// It was taken outside the container's user namespace, where nothing was locked.
    unlocked: bool,
}

/// Takes the source, or what was prepared for it. What cannot be reached from inside a user namespace was taken outside; what
/// can is taken here, as it may lie on the container's own mounts.
pub(super) fn take(source: &Path, options: &Options, prepared: Option<Source>) -> Result<Taken> {
    match prepared {
        None => take_here(source, options),
        Some(Source::Mapped(tree)) => Ok(Taken { tree, unlocked: true }),
        Some(Source::Tree(tree)) => match take_here(source, options) {
            Ok(taken) => Ok(taken),
            Err(_) => Ok(Taken { tree, unlocked: true }),
        },
        Some(Source::Users(users)) => {
            let taken = take_here(source, options)?;
            map(&taken.tree, options, &users, source)?;
            Ok(taken)
        }
    }
}

fn take_here(source: &Path, options: &Options) -> Result<Taken> {
    Ok(Taken { tree: tree(source, options)?, unlocked: false })
}

/// A detached copy of the source as this process sees it.
pub(super) fn tree(source: &Path, options: &Options) -> Result<OwnedFd> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, options.source_nofollow);
    let opened = openat(CWD, source, flags, Mode::empty())
        .map_err(std::io::Error::from)
        .explain(|| format!("open {}", source.display()))?;
    clone_tree(&opened, options.recursive).map_err(|error| {
        let fault = Fault::failed(format!("take {} for a bind mount", source.display()))
            .because(std::io::Error::from(error));
        match error {
            // The kernel does not uncover in a user namespace what was covered outside.
            Errno::INVAL if !options.recursive => {
                fault.hint("what is mounted below may have to come along: rbind")
            }
            _ => fault,
        }
    })
}

/// Applies `idmap` or `ridmap`.
pub(super) fn map(tree: &OwnedFd, options: &Options, users: &OwnedFd, source: &Path) -> Result<()> {
    let recursive = options.map_ids.as_ref().is_some_and(|wish| wish.recursive);
    map_ids(tree.as_fd(), recursive, users.as_fd()).map_err(|error| {
        let hint = match error.raw_os_error() {
            Some(libc::EINVAL) => "its file system may not be able to, on this kernel",
            Some(libc::EPERM) => {
                "this takes CAP_SYS_ADMIN outside all containers, on a mount that is not mapped already"
            }
            _ => "idmapped mounts need Linux 5.12",
        };
        Fault::failed(format!("map the owners of {}", source.display())).because(error).hint(hint)
    })
}

impl Taken {
    /// Gives it its propagation and attributes. Private unless asked otherwise: nothing mounted in the container shows up
    /// outside.
    pub fn set_up(&self, options: &Options, path: &Path) -> Result<()> {
        let mut propagations = options.propagation.iter().copied();
        let (propagation, deep) = propagations.next().unwrap_or((MS_PRIVATE, true));
        let together = MountAttributes { propagation, ..MountAttributes::default() };
        // One call does for a mount that is alone.
        if options.recursive {
            set_attributes(&self.tree, deep, together, path)?;
            self.set_own(options, MountAttributes::default(), path)?;
        } else {
            self.set_own(options, together, path)?;
        }
        for (propagation, deep) in propagations {
            let attributes = MountAttributes { propagation, ..MountAttributes::default() };
            set_attributes(&self.tree, deep, attributes, path)?;
        }
        set_attributes(&self.tree, true, options.deep, path)
    }

    /// In a user namespace what was set outside stays (mount_namespaces(7), "Restrictions"), so that only what was asked to be
    /// cleared must be.
    fn set_own(&self, options: &Options, together: MountAttributes, path: &Path) -> Result<()> {
        let with = |attributes: Option<MountAttributes>| {
            let attributes = attributes.unwrap_or_default();
            MountAttributes { propagation: together.propagation, ..attributes }
        };
        let locked = with(options.of_locked_bind());
        if self.unlocked {
            return set_attributes(&self.tree, false, locked, path);
        }
        match set_attributes(&self.tree, false, with(options.of_bind()), path) {
            Err(fault) if fault.os_error() == Some(libc::EPERM) => {
                set_attributes(&self.tree, false, locked, path)
            }
            result => result,
        }
    }
}

pub(super) fn set_attributes(
    mount: &OwnedFd,
    recursive: bool,
    attributes: MountAttributes,
    path: &Path,
) -> Result<()> {
    if attributes.set == 0 && attributes.clear == 0 && attributes.propagation == 0 {
        return Ok(());
    }
    mount_setattr(mount.as_fd(), recursive, attributes)
        .explain(|| format!("set the attributes of the mount on {}", path.display()))
}

/// Where a source is that is named from the bundle.
pub(super) fn source_path(source: Option<&PathBuf>, bundle: &Path) -> PathBuf {
    source.map_or_else(|| bundle.to_owned(), |source| bundle.join(source))
}

/// A link's text, if the path is one.
pub(super) fn read_link(source: &Path) -> Option<std::ffi::CString> {
    readlinkat(CWD, source, Vec::new()).ok()
}

pub(super) fn is_link(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}
