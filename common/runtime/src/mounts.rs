//! The mounts of the specification, each made detached and then put on an opened target.

mod bind;
mod cgroup;
mod copyup;
mod filesystem;
mod options;
mod prepare;
mod target;

pub use options::NAMES as OPTIONS;
pub use prepare::{Owners, Prepared, Users, check, prepare, prepare_with};

pub(crate) use bind::map_owners;

use crate::devices::Dev;
use crate::root::{Root, Target, attach, is_directory};
use bind::set_attributes;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::Mount;
use options::{MS_SLAVE, Options};
use rustix::fs::{Mode, OFlags, openat, readlinkat, symlinkat};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use sys::mount::{MOUNT_ATTR_ATIME, MOUNT_ATTR_RDONLY, MountAttributes};
use target::{Cover, find_or_make, find_or_make_without_links, refuse_by_name, refuse_by_place};

/// What mounting needs to know beside the mount itself.
pub struct Surroundings<'a> {
    /// The container's control group directories, for a `cgroup` mount.
    pub cgroup: &'a [PathBuf],
    pub cgroup_is_v2: bool,
    pub bundle: &'a Path,
    /// Has the owners of a tree mapped outside, for the mount at this place ([`Owners::map`]).
    pub map_outside: &'a dyn Fn(usize, &OwnedFd) -> Result<()>,
}

/// Makes a container's mounts, one after the other.
#[derive(Debug)]
pub struct Mounter<'a> {
    root: &'a Root,
    root_path: PathBuf,
    prepared: Prepared,
    own_cgroup_namespace: bool,
    /// The mounts are the host's, which has not let go of its own as a mount namespace does.
    on_host: bool,
    dev: Dev,
    /// What becomes read-only when all is in place, and whether with all that is mounted below.
    readonly_later: Vec<(OwnedFd, bool, PathBuf)>,
}

impl<'a> Mounter<'a> {
    /// `root_path`: where the root is outside. `own_cgroup_namespace`: the container has one that is not the host's.
    pub fn new(
        root: &'a Root,
        root_path: &Path,
        prepared: Prepared,
        own_cgroup_namespace: bool,
    ) -> Mounter<'a> {
        Mounter {
            root,
            root_path: target::normalise(root_path, Path::new("/")),
            prepared,
            own_cgroup_namespace,
            on_host: false,
            dev: Dev::OfRoot,
            readonly_later: Vec::new(),
        }
    }

    /// For a container in the host's mount namespace: what is bound gets the host's mounts and gives none back, as in a namespace of its own.
    #[must_use]
    pub fn on_host(mut self) -> Mounter<'a> {
        self.on_host = true;
        self
    }

    /// Makes the mount that is at this place in the specification's list.
    pub fn make(&mut self, index: usize, mount: &Mount, surroundings: &Surroundings<'_>) -> Result<()> {
        self.make_one(index, mount, surroundings).map_err(|fault| prepare::about(index, mount, fault))
    }

    fn make_one(&mut self, index: usize, mount: &Mount, surroundings: &Surroundings<'_>) -> Result<()> {
        let mut options = Options::parse(mount)?;
        let path = target::normalise(mount.destination(), &self.root_path);
        let kind = mount.typ().as_deref().unwrap_or("none");
        let is_dev = path == Path::new("/dev");
        if options.remount {
            return self.remount(kind, mount, &options, &path);
        }
        // Mount points and devices are still to be made there.
        let later = if (is_dev || (kind == "tmpfs" && !options.bind)) && options.is_readonly() {
            Some(options.take_readonly())
        } else {
            None
        };
        let made = if options.bind {
            self.bind(index, mount, &options, &path, surroundings)?
        } else {
            Some(self.filesystem(kind, mount, &options, &path, surroundings)?)
        };
        let Some(made) = made else { return Ok(()) };
        if let Some(deep) = later {
            let copy = made.try_clone().explain(|| "copy a descriptor".into())?;
            self.readonly_later.push((copy, deep, path));
        }
        if is_dev {
            self.dev = if options.bind { Dev::Foreign } else { Dev::Own(made) };
        }
        Ok(())
    }

    /// Whether [`Surroundings::map_outside`] may be called for this mount.
    pub fn may_ask(&self, index: usize) -> bool {
        self.prepared.may_ask(index)
    }

    /// What [`crate::devices::set_up`] has to fill.
    pub fn dev(&self) -> &Dev {
        &self.dev
    }

    /// Makes read-only what had to be filled before. Nothing can be mounted or made in it afterwards.
    pub fn finish(self) -> Result<()> {
        let readonly = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
        for (mount, deep, path) in self.readonly_later {
            set_attributes(&mount, deep, readonly, &path)?;
        }
        Ok(())
    }

    /// `None`: a link was made and nothing mounted.
    fn bind(
        &mut self,
        index: usize,
        mount: &Mount,
        options: &Options,
        path: &Path,
        surroundings: &Surroundings<'_>,
    ) -> Result<Option<OwnedFd>> {
        let source = bind::source_path(mount.source().as_ref(), surroundings.bundle);
        if options.copy_symlink
            && let Some(link) = bind::read_link(&source)
        {
            self.link(&link, path)?;
            return Ok(None);
        }
        let prepared = self.prepared.take(index);
        if options.map_ids.is_some() && prepared.is_none() {
            return Err(Fault::failed("its owners were not mapped outside the container"));
        }
        let of_own = match prepared {
            Some(prepare::Source::Mapped(_)) => bind::take_from(&self.root.fd, &source, options, |tree| {
                (surroundings.map_outside)(index, tree)
            })?,
            _ => None,
        };
        let taken = of_own.map_or_else(|| bind::take(&source, options, prepared), Ok)?;
        if self.on_host {
            let slave = MountAttributes { propagation: MS_SLAVE, ..MountAttributes::default() };
            set_attributes(&taken.tree, true, slave, path)?;
        }
        taken.set_up(options, path)?;
        refuse_by_name(path, Cover::Bind(&taken.tree))?;
        let kind = if is_directory(&taken.tree) { Target::Directory } else { Target::File };
        let target = if options.target_nofollow {
            self.link_or_target(path, kind)?
        } else {
            find_or_make(self.root, path, kind)?.0
        };
        refuse_by_place(&target, path)?;
        attach(&taken.tree, &target, path)?;
        Ok(Some(taken.tree))
    }

    fn filesystem(
        &self,
        kind: &str,
        mount: &Mount,
        options: &Options,
        path: &Path,
        surroundings: &Surroundings<'_>,
    ) -> Result<OwnedFd> {
        refuse_by_name(path, Cover::Filesystem(kind))?;
        let (target, existed) = if matches!(kind, "proc" | "sysfs") {
            (find_or_make_without_links(self.root, path, kind)?, true)
        } else {
            let (target, existed) = find_or_make(self.root, path, Target::Directory)?;
            refuse_by_place(&target, path)?;
            (target, existed)
        };
        if kind == "cgroup" && !surroundings.cgroup_is_v2 {
            let made = cgroup::version_1(&target, path, options, surroundings)?;
            let readonly = MountAttributes { set: options.asked(), ..MountAttributes::default() };
            set_attributes(&made, false, readonly, path)?;
            set_attributes(&made, true, options.deep, path)?;
            propagate(&made, options, path)?;
            return Ok(made);
        }
        if filesystem::is_long(mount, options) {
            filesystem::mount_long(kind, mount, options, &target)?;
            let made = self.root.open(path).map_err(|error| crate::root::inside_error(path, error))?;
            let attributes = MountAttributes {
                set: options.of_new(),
                clear: MOUNT_ATTR_ATIME,
                ..MountAttributes::default()
            };
            set_attributes(&made, false, attributes, path)?;
            set_attributes(&made, true, options.deep, path)?;
            propagate(&made, options, path)?;
            return Ok(made);
        }
        let made = match kind {
            "cgroup" | "cgroup2" => {
                cgroup::version_2(mount, options, surroundings, self.own_cgroup_namespace)?
            }
            _ => new_filesystem(kind, mount, options, existed.then_some(&target), path)?,
        };
        set_attributes(&made, true, options.deep, path)?;
        attach(&made, &target, path)?;
        propagate(&made, options, path)?;
        Ok(made)
    }

    /// Changes the mount that is there, and without `bind` its file system.
    fn remount(&self, kind: &str, mount: &Mount, options: &Options, path: &Path) -> Result<()> {
        // A link could lead to a file system that is not the container's to change.
        let target =
            self.root.open_without_links(path).map_err(|error| crate::root::inside_error(path, error))?;
        if !options.bind {
            filesystem::reconfigure(kind, mount, options, &target)?;
        }
        let set = |attributes| set_attributes(&target, false, attributes, path);
        let changed = match set(options.of_bind().unwrap_or_default()) {
            Err(fault) if fault.os_error() == Some(libc::EPERM) => {
                set(options.of_locked_bind().unwrap_or_default())
            }
            changed => changed,
        };
        changed.and_then(|()| set_attributes(&target, true, options.deep, path)).map_err(
            |fault| match fault.os_error() {
                Some(libc::EINVAL) => fault.hint("what is remounted must have been mounted there before"),
                _ => fault,
            },
        )?;
        propagate(&target, options, path)
    }

    /// `dest-nofollow`: a link is what is mounted on.
    fn link_or_target(&self, path: &Path, kind: Target) -> Result<OwnedFd> {
        let (parent, name) = self.parent(path)?;
        match openat(&parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) if bind::is_link(&fd) => Ok(fd),
            _ => Ok(find_or_make(self.root, path, kind)?.0),
        }
    }

    /// `copy-symlink`.
    fn link(&self, text: &CString, path: &Path) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let same = |existing: CString| existing == *text;
        match symlinkat(text, &parent, name) {
            Ok(()) => Ok(()),
            Err(Errno::EXIST) if readlinkat(&parent, name, Vec::new()).is_ok_and(same) => Ok(()),
            Err(error) => Err(Fault::failed(format!("make the link {} again", path.display()))
                .because(std::io::Error::from(error))),
        }
    }

    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p std::ffi::OsStr)> {
        let (parent, name) = path
            .parent()
            .zip(path.file_name())
            .ok_or_else(|| Fault::denied("a mount on / would lie on the top of the container's root"))?;
        Ok((find_or_make(self.root, parent, Target::Directory)?.0, name))
    }
}

/// `hidden`: the directory it will hide.
fn new_filesystem(
    kind: &str,
    mount: &Mount,
    options: &Options,
    hidden: Option<&OwnedFd>,
    path: &Path,
) -> Result<OwnedFd> {
    // As runc has it: a tmpfs has the mode of the directory it hides if none is asked for.
    let inherits = kind == "tmpfs" && options.data.iter().all(|(key, _)| key != "mode");
    let mode = hidden.filter(|_| inherits).map(target::mode_of).transpose()?;
    let made = filesystem::new(kind, mount, options, mode).map_err(filesystem::Refusal::into_fault)?;
    if let Some(hidden) = hidden.filter(|_| options.copy_up) {
        copyup::copy(hidden, &made, path)?;
    }
    Ok(made)
}

fn propagate(mount: &OwnedFd, options: &Options, path: &Path) -> Result<()> {
    for (propagation, recursive) in options.propagation.iter().copied() {
        set_attributes(
            mount,
            recursive,
            MountAttributes { propagation, ..MountAttributes::default() },
            path,
        )?;
    }
    Ok(())
}
