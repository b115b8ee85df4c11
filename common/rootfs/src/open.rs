//! Opening a container's root file system from outside, whatever the container is doing.

use crate::owners::Owners;
use fault::{Explain, Fault, Kind, Result};
use record::Rootfs;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
};
use rustix::process::{chroot, fchdir};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;
use shim::{Client, Request};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{ContainerDir, LiveState, Lock, Store};
use sys::mount::{MOUNT_ATTR_RDONLY, MountAttributes, mount_setattr};
use sys::overlay::Writable;

/// How long somebody else may be at work on a container that does not run.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Mounts of a specification that are made again for a container that does not run.
const MAX_MOUNTS: usize = 10_000;

/// What is seen of a container's files, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Its own files, to be read: what is mounted in it is not seen, but what lies below.
    Own,
    /// What its processes see, to be read.
    Seen,
    /// The same, to be changed.
    Changed,
}

/// A container's root directory.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// Of a container that does not run: as long as it is held nobody starts or removes it.
    _lock: Option<Lock>,
    /// Numbers of file systems a walk does not go into.
    closed: Vec<u64>,
    owners: Option<Owners>,
}

impl Root {
    /// Opens it. This process may be in a mount namespace of its own afterwards, in which the container's mounts are; the machine's has
    /// none of them.
    ///
    /// # Errors
    /// [`Kind::Conflict`] for a container that is just being started or ended, [`Kind::NotFound`] when what it stands on is gone.
    pub fn open(store: &Store, dir: &ContainerDir, access: Access) -> Result<Root> {
        Self::try_open(store, dir, access).map_err(|fault| fault.on(dir.id.as_str()))
    }

    fn try_open(store: &Store, dir: &ContainerDir, access: Access) -> Result<Root> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if dir.is_alive() {
                if let Some(root) = live(dir, access)? {
                    return Ok(root);
                }
            } else {
                store.make_dir(&dir.run)?;
                // The lock makes what is written look true, so nothing false may be.
                shim::clear(dir, PATIENCE)?;
                // Held by others for a moment to see whether it is, so it is tried again.
                if let Some(lock) = Lock::try_exclusive(&dir.run.join("lock"))? {
                    if !dir.exists() {
                        return Err(Fault::not_found("no such container"));
                    }
                    return ended(dir, access, lock);
                }
            }
            if Instant::now() > deadline {
                return Err(
                    Fault::retryable("it is being started, ended or copied to").hint("try again in a moment")
                );
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// Numbers of file systems a walk does not go into: the kernel's own, the container's `/dev`.
    pub fn closed(&self) -> &[u64] {
        &self.closed
    }

    /// How owners are mapped of what is seen in it; `None` where they are what they are inside.
    pub fn owners(&self) -> Option<&Owners> {
        self.owners.as_ref()
    }

    /// Opens a path in the root as `O_PATH`. Symbolic links are followed inside the root, a last one only with `follow`.
    pub fn look_up(&self, path: &[u8], follow: bool) -> rustix::io::Result<OwnedFd> {
        let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
        open_in(&self.fd, path, flags)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Opens a path as if `root` were the root directory.
pub fn open_in(root: impl AsFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = match path.iter().position(|byte| *byte != b'/') {
        Some(start) => &path[start..],
        None => b".",
    };
    sys::fs::open_in_root(root, path, flags)
}

/// The root of a container that has processes. `None` when it has not any more, or not yet.
fn live(dir: &ContainerDir, access: Access) -> Result<Option<Root>> {
    let Some(state) = dir.live_state()? else { return Ok(None) };
    if state.status == "created" {
        // Until it is set up, the waiting process may still have the machine's root.
        let Some(client) = Client::connect(dir)? else { return Ok(None) };
        client.limit_patience(PATIENCE)?;
        client.request(&Request::Ready, &[])?;
    }
    let Some(process) = process_of(&state)? else { return Ok(None) };
    let root = match access {
        Access::Seen | Access::Changed => open_proc(&process, "root", OFlags::PATH | OFlags::DIRECTORY)?,
        Access::Own => own_tree(&process)?,
    };
    let owners = owners_of(&process)?;
    // Had the number been given to another process, its start time would differ.
    if store::start_time(state.pid) != Some(state.pid_started) {
        return Ok(None);
    }
    let closed = closed_in(&root)?;
    Ok(Some(Root { fd: root, _lock: None, closed, owners }))
}

/// How owners are mapped in its user namespace.
fn owners_of(process: &OwnedFd) -> Result<Option<Owners>> {
    let read = |name: &str| {
        let file = std::fs::File::from(open_proc(process, name, OFlags::RDONLY)?);
        std::io::read_to_string(file).explain(|| format!("read the container's {name}"))
    };
    Ok(Owners::parse(&read("uid_map")?, &read("gid_map")?))
}

/// The directory of init in this machine's `/proc`.
fn process_of(state: &LiveState) -> Result<Option<OwnedFd>> {
    let path = format!("/proc/{}", state.pid);
    match openat(CWD, path.as_str(), OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT | Errno::SRCH) => Ok(None),
        other if state.pid > 0 => other.explain(|| format!("open {path}")).map(Some),
        _ => Ok(None),
    }
}

fn open_proc(process: &OwnedFd, name: &str, flags: OFlags) -> Result<OwnedFd> {
    openat(process, name, flags | OFlags::CLOEXEC, Mode::empty()).map_err(|error| {
        let fault =
            Fault::failed(format!("open the container's {name}")).because(std::io::Error::from(error));
        match error {
            Errno::NOENT | Errno::SRCH => fault.as_kind(Kind::Retryable).hint("it has just ended; try again"),
            Errno::ACCESS | Errno::PERM => fault.as_kind(Kind::Denied),
            _ => fault,
        }
    })
}

/// A copy of the mount of the container's root alone. The kernel copies mounts of one's own namespace only, so that of the container is
/// entered for this one call (mount_namespaces(7)).
fn own_tree(process: &OwnedFd) -> Result<OwnedFd> {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let their_root = open_proc(process, "root", directory)?;
    let theirs = open_proc(process, "ns/mnt", OFlags::RDONLY)?;
    let what = || "copy the mount of the container's root".to_owned();
    let ours =
        openat(CWD, "/proc/self/ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).explain(what)?;
    let root = openat(CWD, "/", directory, Mode::empty()).explain(what)?;
    let here = openat(CWD, ".", directory, Mode::empty()).explain(what)?;
    let enter =
        |namespace: &OwnedFd| move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount));
    enter(&theirs).explain(|| "enter the container's mount namespace".into())?;
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(&their_root, "", flags);
    // setns(2) moves the root and the working directory to those of the namespace.
    enter(&ours)
        .and_then(|()| fchdir(&root))
        .and_then(|()| chroot("."))
        .and_then(|()| fchdir(&here))
        .explain(|| "leave the container's mount namespace".into())?;
    tree.explain(what)
}

/// The root of a container that has no processes, built as its shim would.
fn ended(dir: &ContainerDir, access: Access, lock: Lock) -> Result<Root> {
    let record = dir.load()?;
    let rootfs = record.rootfs()?.ok_or_else(|| Fault::input("the container has no rootfs section"))?;
    let spec = read_spec(dir)?;
    let tree = tree_of(dir, &rootfs, access)?;
    if spec["root"]["readonly"] == true && access == Access::Changed {
        set_readonly(&tree)?;
    }
    if access != Access::Own {
        mount_inside(&tree, dir, &spec)?;
    }
    let closed = Vec::new();
    // On disk owners are what they are inside.
    Ok(Root { fd: tree, _lock: Some(lock), closed, owners: None })
}

fn read_spec(dir: &ContainerDir) -> Result<Value> {
    let path = dir.bundle.join("config.json");
    let content = store::atomic::read(&path)?
        .ok_or_else(|| Fault::not_found(format!("{} is not there", path.display())))?;
    serde_json::from_slice(&content).explain_as(Kind::Input, || format!("read {}", path.display()))
}

/// A mount that is attached nowhere and gone when it is closed.
fn tree_of(dir: &ContainerDir, rootfs: &Rootfs, access: Access) -> Result<OwnedFd> {
    match (rootfs.driver.as_str(), &rootfs.path) {
        ("overlay", _) => {
            let mut lower: Vec<PathBuf> = rootfs.layers.iter().map(PathBuf::from).collect();
            let (upper, work) = (dir.bundle.join("upper"), dir.bundle.join("work"));
            if access == Access::Changed {
                let writable = Writable { upper: &upper, work: &work, volatile: false };
                return sys::overlay::mount(&lower, Some(writable));
            }
            // Nothing is to be changed, not even by the kernel: the read-write layer is the topmost of the others.
            lower.push(upper);
            sys::overlay::mount(&lower, None)
        }
        ("directory", Some(path)) => {
            let recursive =
                if access == Access::Own { OpenTreeFlags::empty() } else { OpenTreeFlags::AT_RECURSIVE };
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
            open_tree(CWD, path.as_str(), flags).explain(|| format!("open the root file system {path}"))
        }
        (driver, _) => Err(Fault::input(format!("rootfs driver {driver:?} is unknown"))),
    }
}

fn set_readonly(tree: &OwnedFd) -> Result<()> {
    let attributes = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    mount_setattr(tree.as_fd(), false, attributes).explain(|| "make the root read-only".into())
}

/// Puts the container's volumes and bound files where its processes would see them, in a mount namespace of this process's own, which
/// takes them along when it ends.
fn mount_inside(tree: &OwnedFd, dir: &ContainerDir, spec: &Value) -> Result<()> {
    let mounts = spec["mounts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let binds: Vec<Bind> = mounts.iter().take(MAX_MOUNTS).filter_map(Bind::of).collect();
    if binds.is_empty() {
        return Ok(());
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).explain(|| "make a mount namespace".into())?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .explain(|| "keep mounts to this process".into())?;
    let place = dir.bundle.join("rootfs");
    move_mount(tree, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .explain(|| format!("mount the root on {}", place.display()))?;
    binds.iter().try_for_each(|bind| bind.mount(tree))
}

/// A bind mount of the specification.
struct Bind<'a> {
    source: &'a Path,
    target: &'a str,
    recursive: bool,
    read_only: bool,
}

impl<'a> Bind<'a> {
    fn of(mount: &'a Value) -> Option<Bind<'a>> {
        let options: Vec<&str> = mount["options"].as_array()?.iter().filter_map(Value::as_str).collect();
        let recursive = options.contains(&"rbind");
        if !recursive && !options.contains(&"bind") {
            return None;
        }
        Some(Bind {
            source: Path::new(mount["source"].as_str()?),
            target: mount["destination"].as_str()?,
            recursive,
            read_only: options.iter().any(|option| matches!(*option, "ro" | "rro")),
        })
    }

    fn mount(&self, root: &OwnedFd) -> Result<()> {
        let what = || format!("mount {} on {}", self.source.display(), self.target);
        // One that never ran may lack it; there is nothing to be seen then.
        let target = match open_in(root, self.target.as_bytes(), OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other.explain(what)?,
        };
        let recursive = if self.recursive { OpenTreeFlags::AT_RECURSIVE } else { OpenTreeFlags::empty() };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | recursive;
        let source = match open_tree(CWD, self.source, flags) {
            // A source that is gone meanwhile keeps the container from running, not its files from being read.
            Err(Errno::NOENT) => return Ok(()),
            other => other.explain(what)?,
        };
        if self.read_only {
            set_readonly(&source)?;
        }
        let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        match move_mount(&source, "", &target, "", empty) {
            // A file on a directory, or the other way round: its own start would fail as well.
            Err(Errno::NOTDIR | Errno::ISDIR | Errno::INVAL) => Ok(()),
            other => other.explain(what),
        }
    }
}

/// The file systems of the container's `/proc`, `/sys` and `/dev`, where these are not part of its root.
fn closed_in(root: &OwnedFd) -> Result<Vec<u64>> {
    let own = fstat(root).explain(|| "look at the container's root".into())?.st_dev;
    let mut closed = Vec::new();
    for name in ["proc", "sys", "dev"] {
        // One that is a link leads to a directory that has its own name.
        if let Ok(stat) = statat(root, name, AtFlags::SYMLINK_NOFOLLOW)
            && stat.st_dev != own
        {
            closed.push(stat.st_dev);
        }
    }
    Ok(closed)
}
