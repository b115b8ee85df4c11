//! A mount namespace in which the container's root is a mount, as criu wants it. Nothing is mounted on the host, so nothing can
//! be left there.

use super::outside::{is_bind, source};
use crate::root::{RootFs, Target, attach, clone_tree, is_directory, open_host};
use crate::spec::Spec;
use fault::{Explain, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use oci_spec::runtime::Mount;
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// This process is in a mount namespace of its own as long as this lives.
#[derive(Debug)]
pub struct Scene {
    host: OwnedFd,
}

impl Scene {
    /// The working directory is `/` afterwards. The caller must have one thread.
    pub fn enter() -> Result<Scene> {
        let file = "/proc/self/ns/mnt";
        let host = openat(CWD, file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .explain(|| format!("open {file}"))?;
        unshare(CloneFlags::CLONE_NEWNS)
            .map_err(std::io::Error::from)
            .explain(|| "make a mount namespace".into())?;
        let scene = Scene { host };
        let nothing: Option<&str> = None;
        mount(nothing, "/", nothing, MsFlags::MS_SLAVE | MsFlags::MS_REC, nothing)
            .map_err(std::io::Error::from)
            .explain(|| "keep mounts from the host".into())?;
        Ok(scene)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // It cannot fail for who could leave.
        let _ = setns(&self.host, CloneFlags::CLONE_NEWNS);
    }
}

/// Puts mounts that are nowhere on their places outside, which is in a [`Scene`] only.
pub fn attach_trees(trees: &[(PathBuf, OwnedFd)]) -> Result<()> {
    trees.iter().try_for_each(|(place, tree)| attach(tree, &open_host(place)?, place))
}

/// Makes the root a mount of a [`Scene`], with every place in it that something was mounted on: the root may be another copy than the one
/// the container had.
pub fn mount_root(spec: &Spec, bundle: &Path, rootfs: &Path, root_fs: &RootFs) -> Result<()> {
    let root = root_fs.mount(rootfs)?;
    // The same once more, without what is mounted in it below: an overlay is not to be made twice.
    let bare = clone_tree(&root.fd, true).explain(|| format!("copy the mount of {}", rootfs.display()))?;
    for mount in spec.mounts.iter().filter(|mount| mount.typ().as_deref() != Some("cgroup")) {
        // criu restores what is in a tmpfs.
        if is_on_tmpfs(mount.destination(), &spec.mounts) {
            continue;
        }
        if !is_bind(mount) {
            root.target(mount.destination(), Target::Directory)?;
            continue;
        }
        let source = open_host(&source(mount, bundle))?;
        let kind = if is_directory(&source) { Target::Directory } else { Target::File };
        let target = root.target(mount.destination(), kind)?;
        // There may be places in it, too.
        let tree = clone_tree(&source, true).explain(|| "take the source of a bind mount".into())?;
        attach(&tree, &target, mount.destination())?;
    }
    drop(root);
    umount2(rootfs, MntFlags::MNT_DETACH)
        .map_err(std::io::Error::from)
        .explain(|| format!("unmount {}", rootfs.display()))?;
    attach(&bare, &open_host(rootfs)?, rootfs)
}

fn is_on_tmpfs(destination: &Path, mounts: &[Mount]) -> bool {
    mounts.iter().any(|mount| {
        mount.typ().as_deref() == Some("tmpfs")
            && destination != mount.destination()
            && destination.starts_with(mount.destination())
    })
}
