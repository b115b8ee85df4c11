//! Bind mounts: what is taken, with which attributes.

use super::options::{MS_PRIVATE, Options};
use super::prepare::Source;
use crate::root::clone_tree;
use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::{chroot, fchdir};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
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
        Some(Source::Given(tree)) => Ok(Taken { tree, unlocked: false }),
        Some(Source::Mapped(Some(tree))) => Ok(Taken { tree, unlocked: true }),
        // It was not there outside either: this tells why.
        Some(Source::Mapped(None)) => open(source, options).and_then(|_| {
            Err(Fault::failed(format!("map the owners of {}", source.display()))
                .hint("it was not there when the container was made"))
        }),
        Some(Source::Tree(tree)) => match take_here(source, options) {
            Ok(taken) => Ok(taken),
            Err(_) => Ok(Taken { tree, unlocked: true }),
        },
        Some(Source::Users(users)) => {
            let taken = take_here(source, options)?;
            let recursive = options.map_ids.as_ref().is_some_and(|wish| wish.recursive);
            map(&taken.tree, recursive, &users, source)?;
            Ok(taken)
        }
    }
}

/// The same of a source on a mount of the container's own, which nobody could take beforehand; its owners are mapped by who
/// `map`s what is in the user namespace. `None` if it is somewhere else.
pub(super) fn take_from(
    root: &OwnedFd,
    source: &Path,
    options: &Options,
    map: impl FnOnce(&OwnedFd) -> Result<()>,
) -> Result<Option<Taken>> {
    let path = |fd: &OwnedFd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let is_inside = |opened: &OwnedFd| {
        // Over "/" lies a root that nothing was bound in by its path yet.
        path(opened).is_ok_and(|opened| {
            path(root).is_ok_and(|root| root != Path::new("/") && opened.starts_with(root))
        })
    };
    if !open(source, options).is_ok_and(|opened| is_inside(&opened)) {
        return Ok(None);
    }
    let taken = take_here(source, options)?;
    map(&taken.tree)?;
    Ok(Some(taken))
}

fn take_here(source: &Path, options: &Options) -> Result<Taken> {
    Ok(Taken { tree: tree(source, options)?, unlocked: false })
}

/// A detached copy of the source as this process sees it.
pub(super) fn tree(source: &Path, options: &Options) -> Result<OwnedFd> {
    let flags = flags(options);
    if let Some((process, below)) = of_a_process(source) {
        return tree_of_a_process(&process, below, flags, options.recursive)
            .map_err(std::io::Error::from)
            .explain(|| format!("take {} for a bind mount", source.display()));
    }
    let opened = open(source, options)?;
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

fn flags(options: &Options) -> OFlags {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    flags.set(OFlags::NOFOLLOW, options.source_nofollow);
    flags
}

fn open(source: &Path, options: &Options) -> Result<OwnedFd> {
    openat(CWD, source, flags(options), Mode::empty())
        .map_err(std::io::Error::from)
        .explain(|| format!("open {}", source.display()))
}

/// `/proc/N` and what is below `/proc/N/root`, when the source is given through a process's root.
fn of_a_process(source: &Path) -> Option<(PathBuf, &Path)> {
    let rest = source.strip_prefix("/proc").ok()?;
    let mut parts = rest.components();
    let Component::Normal(pid) = parts.next()? else { return None };
    pid.to_str()?.parse::<u32>().ok()?;
    if parts.next()? != Component::Normal("root".as_ref()) {
        return None;
    }
    Some((Path::new("/proc").join(pid), parts.as_path()))
}

/// Takes what another process sees, as `--ipc container:` does with `/dev/shm`. Links in there are that process's, so they
/// must not lead out of its root; and the kernel copies mounts of one's own namespace only, so its namespace is entered for
/// that moment (mount_namespaces(7), setns(2)).
fn tree_of_a_process(
    process: &Path,
    below: &Path,
    flags: OFlags,
    recursive: bool,
) -> rustix::io::Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = |path: &Path, flags| openat(CWD, path, flags, Mode::empty());
    let their_root = open(&process.join("root"), directory)?;
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    let opened = sys::fs::open_resolved(their_root, below, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
    match clone_tree(&opened, recursive) {
        Err(Errno::INVAL) => {}
        done => return done,
    }
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    let theirs = open(&process.join("ns/mnt"), read)?;
    let ours = open(Path::new("/proc/self/ns/mnt"), read)?;
    let root = open(Path::new("/"), directory)?;
    let here = open(Path::new("."), directory)?;
    let enter =
        |namespace: &OwnedFd| move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount));
    enter(&theirs)?;
    let taken = clone_tree(&opened, recursive);
    enter(&ours)?;
    // setns(2) moves the root and the working directory to those of the namespace.
    fchdir(&root)?;
    chroot(".")?;
    fchdir(&here)?;
    taken
}

/// Applies `idmap` or `ridmap`.
pub(super) fn map(tree: &OwnedFd, recursive: bool, users: &OwnedFd, source: &Path) -> Result<()> {
    map_owners(tree, recursive, users.as_fd(), source)
}

/// Maps the owners of what is mounted nowhere yet.
pub(crate) fn map_owners(
    tree: &OwnedFd,
    recursive: bool,
    users: BorrowedFd<'_>,
    source: &Path,
) -> Result<()> {
    map_ids(tree.as_fd(), recursive, users).map_err(|error| {
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
