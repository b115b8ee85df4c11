//! The root file system, and opening what is inside it.
//!
//! Everything in it is hostile: no path is ever joined to a host path. Paths are opened relative to the root's descriptor with
//! `RESOLVE_IN_ROOT`, and what is mounted is mounted on descriptors.

use fault::{Explain, Fault, Result};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use sys::mount::{MountAttributes, mount_setattr};

/// Where a container's root comes from.
#[derive(Clone, Debug)]
pub enum RootFs {
    /// Unpacked layers, lowest first, under a read-write layer of the container's own.
    /// `volatile`: see [`sys::overlay::Writable`].
    Overlay { lower: Vec<PathBuf>, upper: PathBuf, work: PathBuf, volatile: bool },
    /// A directory as it is.
    Directory,
    /// A directory, whose owners are mapped where the container has a user namespace.
    MappedDirectory,
    /// A mount that is nowhere yet. It is put over "/", which is not in the way of any path: what is below the caller's root stays in
    /// reach, and nobody has to reach a mount point with no more than a container's privileges.
    Detached(Arc<OwnedFd>),
    /// What [`crate::host_root::attach`] has made, for a container in the host's mount namespace.
    OnHost(Arc<OwnedFd>),
}

/// The attached root of a container under construction.
#[derive(Debug)]
pub struct Root {
    pub fd: OwnedFd,
}

impl RootFs {
    /// Whether its owners are mapped for a container in a user namespace.
    pub fn is_mapped(&self) -> bool {
        matches!(self, RootFs::Overlay { .. } | RootFs::MappedDirectory)
    }

    /// Mounts the root at `mount_point`, in this mount namespace, if it is not there already.
    pub fn mount(&self, mount_point: &Path) -> Result<Root> {
        let tree = match self {
            RootFs::Overlay { lower, upper, work, volatile } => {
                sys::overlay::mount(lower, Some(sys::overlay::Writable { upper, work, volatile: *volatile }))?
            }
            // A mount of its own, as pivot_root(2) wants one.
            RootFs::Directory | RootFs::MappedDirectory => open_tree(
                CWD,
                mount_point,
                OpenTreeFlags::OPEN_TREE_CLONE
                    | OpenTreeFlags::OPEN_TREE_CLOEXEC
                    | OpenTreeFlags::AT_RECURSIVE,
            )
            .explain(|| format!("open the root file system {}", mount_point.display()))?,
            RootFs::OnHost(fd) => {
                return Ok(Root { fd: fd.try_clone().explain(|| "copy a descriptor".into())? });
            }
            RootFs::Detached(fd) => {
                let fd = fd.try_clone().explain(|| "copy a descriptor".into())?;
                move_mount(&fd, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                    .explain(|| "mount the root file system".into())?;
                return Ok(Root { fd });
            }
        };
        move_mount(&tree, "", CWD, mount_point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .explain(|| format!("mount the root file system on {}", mount_point.display()))?;
        Ok(Root { fd: tree })
    }
}

/// What a mount is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Directory,
    File,
}

impl Root {
    /// Opens a path inside the root, as `O_PATH`. Symbolic links are followed inside the root.
    pub fn open(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH, ResolveFlags::empty())
    }

    /// The same, refusing symbolic links anywhere in the path.
    pub fn open_without_links(&self, path: &Path) -> rustix::io::Result<OwnedFd> {
        self.open_with(path, OFlags::PATH, ResolveFlags::NO_SYMLINKS)
    }

    fn open_with(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let inside = path.strip_prefix("/").unwrap_or(path);
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | resolve;
        sys::fs::open_resolved(&self.fd, inside, flags, Mode::empty(), resolve)
    }

    /// Opens a path inside the root to mount on, made if it is missing (directories 0755, an empty file 0644).
    pub fn target(&self, path: &Path, kind: Target) -> Result<OwnedFd> {
        match self.open(path) {
            Ok(fd) => return Ok(fd),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(inside_error(path, error)),
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        match kind {
            Target::Directory => self.make_directories(path)?,
            Target::File => {
                self.make_directories(parent)?;
                let inside = path.strip_prefix("/").unwrap_or(path);
                let flags =
                    OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                sys::fs::open_resolved(&self.fd, inside, flags, Mode::from_raw_mode(0o644), resolve)
                    .map_err(|error| inside_error(path, error))?;
            }
        }
        self.open(path).map_err(|error| inside_error(path, error))
    }

    /// `mkdir -p` inside the root. Each step is opened before the next is made in it, so a link cannot lead out.
    pub fn make_directories(&self, path: &Path) -> Result<()> {
        let mut reached = PathBuf::from("/");
        let mut parent: Option<OwnedFd> = None;
        for component in path.components() {
            let Component::Normal(name) = component else {
                if component == Component::ParentDir {
                    reached.pop();
                    parent = None;
                }
                continue;
            };
            let next = reached.join(name);
            let fd = match self.open(&next) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => {
                    let dir = match parent.take() {
                        Some(dir) => dir,
                        None => self.open(&reached).map_err(|error| inside_error(&reached, error))?,
                    };
                    match mkdirat(&dir, name, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(inside_error(&next, error)),
                    }
                    // A dangling link stays missing, and is an error here.
                    self.open(&next).map_err(|error| inside_error(&next, error))?
                }
                Err(error) => return Err(inside_error(&next, error)),
            };
            parent = Some(fd);
            reached = next;
        }
        Ok(())
    }

    /// A regular file's content, if it is there and is one and is not too long.
    pub fn read_small_file(&self, path: &Path, limit: u64) -> Option<String> {
        let fd = self.open_with(path, OFlags::RDONLY | OFlags::NONBLOCK, ResolveFlags::empty()).ok()?;
        let stat = fstat(&fd).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size as u64 > limit {
            return None;
        }
        std::io::read_to_string(std::fs::File::from(fd)).ok()
    }
}

/// Puts a detached mount on an opened target.
pub fn attach(mount: impl AsFd, target: impl AsFd, subject: &Path) -> Result<()> {
    move_mount(
        mount,
        "",
        target,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .explain(|| format!("mount on {}", subject.display()))
}

/// A detached copy of what a descriptor shows.
pub fn clone_tree(of: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(of, "", flags)
}

/// Keeps what is mounted on it, and its removal, from any other mount.
pub(crate) fn make_private(mount: &OwnedFd, recursive: bool, subject: &Path) -> Result<()> {
    const MS_PRIVATE: u64 = 1 << 18;
    let private = MountAttributes { propagation: MS_PRIVATE, ..MountAttributes::default() };
    mount_setattr(mount.as_fd(), recursive, private)
        .explain(|| format!("keep what is mounted on {} from being shared", subject.display()))
}

pub fn is_directory(fd: impl AsFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Opens a host path as `O_PATH`.
pub fn open_host(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .explain(|| format!("open {}", path.display()))
}

pub fn inside_error(path: &Path, error: Errno) -> Fault {
    let fault = Fault::failed(format!("open {} in the container's root", path.display()))
        .because(std::io::Error::from(error));
    if error == Errno::LOOP { fault.hint("a symbolic link is in the way") } else { fault }
}

/// Whether something is at a path, links not followed.
pub fn exists_at(dir: impl AsFd, name: &str) -> bool {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}
