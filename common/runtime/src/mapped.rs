//! The root file system of a container in a user namespace: the owners of its layers' files are mapped by the mounts they are seen through
//! (mount_setattr(2), `MOUNT_ATTR_IDMAP`), so that on disk they stay what the image says.
//!
//! Only who is privileged where the layers are may map them, and overlayfs works on its layers with the credentials of whoever mounts it:
//! these must be privileged there as well, and must be known to the layers' mappings, as what it makes for itself in the work directory
//! belongs to them. So a process outside mounts it as the user the container's superuser is there, keeping its capabilities.

use crate::mappings;
use crate::message::{Failure, Message, receive, send};
use crate::mounts::map_owners;
use crate::root::{RootFs, attach, clone_tree, make_private, open_host};
use crate::spec::Spec;
use fault::{Explain, Fault, Result};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::{capabilities, set_capabilities};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use sys::overlay::Writable;
use sys::process::Fork;

/// The first kernel whose overlayfs takes layers that are mounted nowhere.
const DETACHED_LAYERS: (u32, u32) = (6, 15);

/// Who the superuser of a container is outside.
#[derive(Clone, Copy, Debug)]
struct Superuser {
    uid: u32,
    gid: u32,
}

/// Mounts `rootfs` with the owners mapped as `users` says, nowhere yet. `joined`: that is a namespace that exists, not one of the
/// specification's mappings. `None` for a root that is taken as it is.
///
/// The caller must have one thread.
///
/// # Errors
/// Fails where a file system or the kernel cannot map owners: nothing is ever given to another owner instead.
pub fn mount(
    rootfs: &RootFs,
    root_path: &Path,
    spec: &Spec,
    users: BorrowedFd<'_>,
    joined: bool,
) -> Result<Option<RootFs>> {
    let superuser = || {
        let (uids, gids) = if joined {
            mappings::of_namespace(users)?
        } else {
            (spec.linux.uid_mappings.clone(), spec.linux.gid_mappings.clone())
        };
        let of = |list: &[_], what: &str| {
            mappings::outside(list, 0).ok_or_else(|| {
                Fault::input(format!("the user namespace has no {what} 0"))
                    .hint("map the container's 0: the files of its root belong to it")
            })
        };
        Ok::<_, Fault>(Superuser { uid: of(&uids, "user")?, gid: of(&gids, "group")? })
    };
    let tree = match rootfs {
        RootFs::Overlay { lower, upper, work, volatile } => {
            let writable = Writable { upper, work, volatile: *volatile };
            overlay(lower, writable, superuser()?, users)?
        }
        RootFs::MappedDirectory => {
            let source = open_host(root_path)?;
            let what = || format!("take {} as the root file system", root_path.display());
            let tree = clone_tree(&source, false).explain(what)?;
            map_owners(&tree, false, users, root_path)?;
            tree
        }
        RootFs::Directory | RootFs::OnHost(_) | RootFs::Detached(_) => return Ok(None),
    };
    Ok(Some(RootFs::Detached(Arc::new(tree))))
}

fn overlay(
    lower: &[PathBuf],
    writable: Writable<'_>,
    superuser: Superuser,
    users: BorrowedFd<'_>,
) -> Result<OwnedFd> {
    let is_to_attach = kernel() < DETACHED_LAYERS;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .explain(|| "make a socket pair".into())?;
    let flags = if is_to_attach { libc::CLONE_NEWNS as u64 } else { 0 };
    match sys::process::clone3(flags, None).explain(|| "make a process to mount the root".into())? {
        Fork::Child => {
            drop(ours);
            let made = mount_as(lower, writable, superuser, users, is_to_attach);
            let told = match &made {
                Ok(tree) => send(&theirs, &Message::Made, Some(tree.as_fd())),
                Err(fault) => send(&theirs, &Message::Failed(Failure::of(fault, None)), None),
            };
            sys::process::exit_now(told.is_err().into())
        }
        Fork::Parent { pidfd, .. } => {
            drop(theirs);
            let told = receive(&ours);
            crate::create::reap(&pidfd);
            match told? {
                Some((Message::Made, Some(tree))) => Ok(tree),
                Some((Message::Failed(failure), _)) => Err(failure.into_fault()),
                _ => Err(Fault::failed("the process that mounts the root file system ended")),
            }
        }
    }
}

/// In the process that is made for it.
fn mount_as(
    lower: &[PathBuf],
    writable: Writable<'_>,
    superuser: Superuser,
    users: BorrowedFd<'_>,
    is_to_attach: bool,
) -> Result<OwnedFd> {
    if is_to_attach {
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            .explain(|| "detach from the host's mounts".into())?;
    }
    let mut held = Vec::new();
    let mut mapped = |path: &Path| -> Result<PathBuf> {
        let source = open_host(path)?;
        let tree = clone_tree(&source, false).explain(|| format!("take {} as a layer", path.display()))?;
        make_private(&tree, false, path)?;
        map_owners(&tree, false, users, path)?;
        let path = if is_to_attach {
            // Over itself, in this process's own mount namespace.
            attach(&tree, &source, path)?;
            path.to_owned()
        } else {
            PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()))
        };
        held.push(tree);
        Ok(path)
    };
    let layers = lower.iter().map(|layer| mapped(layer)).collect::<Result<Vec<PathBuf>>>()?;
    // Both through one mount, as overlayfs demands.
    let above = writable.upper.parent().unwrap_or(Path::new("/"));
    let above_mapped = mapped(above)?;
    let beside = |path: &Path| path.strip_prefix(above).map(|name| above_mapped.join(name));
    let (Ok(upper), Ok(work)) = (beside(writable.upper), beside(writable.work)) else {
        return Err(Fault::input("the read-write layer and its work directory lie apart"));
    };
    become_on_files(superuser)?;
    sys::overlay::mount(&layers, Some(Writable { upper: &upper, work: &work, volatile: writable.volatile }))
}

/// Only for what concerns files. The capabilities that go with leaving the superuser there are taken again (capabilities(7)).
fn become_on_files(superuser: Superuser) -> Result<()> {
    let what = || "keep the capabilities for the root file system".to_owned();
    let held = capabilities(None).explain(what)?;
    setfsgid(Gid::from_raw(superuser.gid));
    setfsuid(Uid::from_raw(superuser.uid));
    set_capabilities(None, held).explain(what)
}

/// Major and minor.
fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
