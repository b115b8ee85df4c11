//! Mounts that have no path: made when a container is, by its shim, nowhere yet, and handed to its mount namespace, so that they are
//! gone with it. What is to be made is in `trees.json` of the bundle; of secrets it has the sources only.

use crate::plugin::Plugin;
use crate::{Info, find, options, secret, volume_dir};
use fault::{Explain, Fault, Kind, Result};
use oci::spec::{Tree, TreeUse};
use oci::wishes::{Secret, SecretGoes};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, move_mount, open_tree,
};
use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use store::{ContainerDir, Store};
use sys::mount::{MOUNT_ATTR_RDONLY, MountAttributes, mount_setattr};
use sys::overlay::Writable;
use sys::process::Fork;

const FILE: &str = "trees.json";
/// What plugins have mounted for the container, in its run directory.
const BY_PLUGINS: &str = "plugin-mounts.json";
const MAX_FILE: u64 = 16 << 20;
/// `CLONE_NEWNS` (clone(2)).
const NEW_MOUNTS: u64 = 0x0002_0000;

/// What was made ready for one run of a container.
#[derive(Debug, Default)]
pub struct Ready {
    /// By where they go in the container.
    pub trees: Vec<(PathBuf, OwnedFd)>,
    /// `NAME=value`: secrets. To be handed on and forgotten.
    pub env: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct ByPlugin {
    driver: String,
    volume: String,
    id: String,
}

/// Writes down what is to be made, before the container is started first.
pub fn write(dir: &ContainerDir, trees: &[TreeUse]) -> Result<()> {
    let path = dir.bundle.join(FILE);
    if trees.is_empty() {
        return match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).explain(|| format!("remove {}", path.display()))
            }
            _ => Ok(()),
        };
    }
    let text = serde_json::to_vec(trees).explain(|| format!("write {}", path.display()))?;
    store::atomic::write(&path, &text, 0o600)
}

/// Makes all of it. What plugins mount is to be given back by [`release`], whether this fails or not.
///
/// The caller must have one thread.
pub fn ready(store: &Store, dir: &ContainerDir) -> Result<Ready> {
    let mut ready = Ready::default();
    let Some(wanted) = read::<Vec<TreeUse>>(&dir.bundle.join(FILE))? else { return Ok(ready) };
    // What a shim that was killed left.
    let _ = release(dir);
    let mut secrets = Vec::new();
    for (number, used) in wanted.iter().enumerate() {
        let tree = match &used.tree {
            Tree::Volume { name, subpath } => volume(store, dir, name, subpath.as_deref(), number),
            Tree::Image { layers, subpath, .. } => image(layers, subpath.as_deref()),
            Tree::Overlay { lower, writes } => overlay(dir, lower, writes.as_ref(), number),
            Tree::Secret(secret) => {
                secrets.push(secret);
                continue;
            }
        };
        let tree = tree.map_err(|fault| fault.within(format!("mount at {}", used.target)))?;
        ready.trees.push((PathBuf::from(&used.target), tree));
    }
    add_secrets(store, &secrets, &mut ready)?;
    Ok(ready)
}

/// Has plugins unmount what they mounted for a container that has ended. What fails is tried again the next time.
pub fn release(dir: &ContainerDir) -> Result<()> {
    let path = dir.run.join(BY_PLUGINS);
    let Some(mounted) = read::<Vec<ByPlugin>>(&path)? else { return Ok(()) };
    let mut failed = None;
    for one in mounted {
        let unmounted = Plugin::find(&one.driver).and_then(|plugin| plugin.unmount(&one.volume, &one.id));
        failed = failed.or(unmounted.err());
    }
    match failed {
        Some(fault) => Err(fault),
        None => std::fs::remove_file(&path).explain(|| format!("remove {}", path.display())),
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Ok(status) if status.len() > MAX_FILE => {
            return Err(Fault::input(format!("{} is {} bytes long", path.display(), status.len())));
        }
        _ => {}
    }
    let what = || format!("read {}", path.display());
    let Some(text) = store::atomic::read(path)? else { return Ok(None) };
    serde_json::from_slice(&text).map(Some).explain_as(Kind::Input, what)
}

fn volume(
    store: &Store,
    dir: &ContainerDir,
    name: &str,
    subpath: Option<&str>,
    number: usize,
) -> Result<OwnedFd> {
    let info = find(store, name)?;
    if info.is_local()
        && let Some(tree) = options::mount(&info.options).map_err(|fault| fault.on(name))?
    {
        return match subpath {
            Some(subpath) => part(&tree, subpath),
            None => Ok(tree),
        };
    }
    let path = if info.is_local() {
        volume_dir(store.root(), name).join("_data")
    } else {
        by_plugin(dir, &info, number)?
    };
    let root = open_directory(&path)?;
    let source = match subpath {
        Some(subpath) => inside(&root, subpath)?,
        None => root,
    };
    clone_tree(&source, true).explain(|| format!("take {} for a bind mount", path.display()))
}

fn by_plugin(dir: &ContainerDir, info: &Info, number: usize) -> Result<PathBuf> {
    let path = dir.run.join(BY_PLUGINS);
    let id = format!("{}-{number}", dir.id);
    let mut mounted = read::<Vec<ByPlugin>>(&path)?.unwrap_or_default();
    mounted.push(ByPlugin { driver: info.driver.clone(), volume: info.name.clone(), id: id.clone() });
    let text = serde_json::to_vec(&mounted).explain(|| format!("write {}", path.display()))?;
    // Before it is mounted: what was not mounted can be unmounted without harm.
    store::atomic::write(&path, &text, 0o600)?;
    Plugin::find(&info.driver)?.mount(&info.name, &id)
}

fn image(layers: &[PathBuf], subpath: Option<&str>) -> Result<OwnedFd> {
    let tree = match layers {
        [] => return Err(Fault::input("the image has no layers")),
        [layer] => {
            let root = open_directory(layer)?;
            clone_tree(&root, false).explain(|| format!("take {}", layer.display()))?
        }
        layers => sys::overlay::mount(layers, None)?,
    };
    let tree = match subpath {
        Some(subpath) => part(&tree, subpath)?,
        None => tree,
    };
    let readonly = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    mount_setattr(tree.as_fd(), false, readonly).explain(|| "make it read-only".into())?;
    Ok(tree)
}

fn overlay(
    dir: &ContainerDir,
    lower: &Path,
    writes: Option<&(PathBuf, PathBuf)>,
    number: usize,
) -> Result<OwnedFd> {
    let own;
    let (upper, work) = if let Some((upper, work)) = writes {
        (upper, work)
    } else {
        own = own_writes(dir, lower, number)?;
        (&own.0, &own.1)
    };
    let volatile = writes.is_none();
    sys::overlay::mount(&[lower.to_path_buf()], Some(Writable { upper, work, volatile }))
}

/// Empty for each run: what was written in the one before is gone.
fn own_writes(dir: &ContainerDir, lower: &Path, number: usize) -> Result<(PathBuf, PathBuf)> {
    let place = dir.bundle.join("overlays").join(number.to_string());
    store::remove_tree(&place)?;
    let (upper, work) = (place.join("upper"), place.join("work"));
    for path in [&upper, &work] {
        std::fs::create_dir_all(path).explain(|| format!("make directory {}", path.display()))?;
    }
    // The root's owner and mode are those of the topmost layer.
    let stat = rustix::fs::stat(lower).explain(|| format!("look at {}", lower.display()))?;
    let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(CWD, &upper, Some(owner.0), Some(owner.1), AtFlags::empty())
        .and_then(|()| {
            rustix::fs::chmodat(CWD, &upper, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())
        })
        .explain(|| format!("set the owner and mode of {}", upper.display()))?;
    Ok((upper, work))
}

fn add_secrets(store: &Store, secrets: &[&Secret], ready: &mut Ready) -> Result<()> {
    for secret in secrets {
        let about = |fault: Fault| fault.within(format!("secret {}", secret.name));
        let value = secret::read(store, &secret.source).map_err(about)?;
        match &secret.goes {
            SecretGoes::Variable(name) => ready.env.push(secret::variable(name, value).map_err(about)?),
            SecretGoes::File { target, uid, gid, mode } => {
                let folder = secret::folder()?;
                secret::write(&folder, "secret", &value, (*uid, *gid, *mode)).map_err(about)?;
                ready.trees.push((PathBuf::from(target), part(&folder, "secret").map_err(about)?));
            }
        }
    }
    Ok(())
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .explain(|| format!("open {}", path.display()))
}

/// A path inside a directory. Symbolic links in it are followed as if that were the root of all, by the kernel in one go, so
/// that nobody who writes there can lead out of it.
fn inside(root: &OwnedFd, subpath: &str) -> Result<OwnedFd> {
    sys::fs::open_in_root(root, subpath, OFlags::PATH).map_err(|error| {
        let error = std::io::Error::from(error);
        let kind =
            if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::of_io(&error) };
        Fault::new(kind, format!("open the subpath {subpath}")).because(error)
    })
}

fn clone_tree(source: &OwnedFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    open_tree(source, "", flags)
}

/// A part of what is mounted nowhere yet.
fn part(tree: &OwnedFd, subpath: &str) -> Result<OwnedFd> {
    let source = inside(tree, subpath)?;
    match clone_tree(&source, false) {
        // Linux before 6.15 copies only what is mounted somewhere.
        Err(Errno::INVAL) => part_elsewhere(tree, subpath),
        other => other.explain(|| format!("take the subpath {subpath}")),
    }
}

/// [`part`], with the tree mounted in a mount namespace of a process that is made for that.
fn part_elsewhere(tree: &OwnedFd, subpath: &str) -> Result<OwnedFd> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into())?;
    match sys::process::clone3(NEW_MOUNTS, None).explain(|| "make a mount namespace".into())? {
        Fork::Child => {
            drop(read);
            let taken = mounted_here(tree, subpath);
            let word = taken.as_ref().map_or(-1, AsRawFd::as_raw_fd).to_ne_bytes();
            let _ = rustix::io::write(&write, &word);
            // The parent takes the descriptor out of this process while it is here.
            drop(write);
            std::thread::sleep(std::time::Duration::from_mins(1));
            sys::process::exit_now(0)
        }
        Fork::Parent { pidfd, .. } => {
            drop(write);
            let mut word = [0u8; 4];
            let number = match rustix::io::read(&read, &mut word[..]) {
                Ok(4) => i32::from_ne_bytes(word),
                _ => -1,
            };
            let taken = if number < 0 {
                Err(Fault::failed(format!("take the subpath {subpath}")))
            } else {
                rustix::process::pidfd_getfd(&pidfd, number, rustix::process::PidfdGetfdFlags::empty())
                    .explain(|| format!("take the subpath {subpath}"))
            };
            let _ = sys::process::pidfd_send_signal(pidfd.as_fd(), 9);
            let _ = rustix::process::waitid(
                rustix::process::WaitId::PidFd(pidfd.as_fd()),
                rustix::process::WaitIdOptions::EXITED,
            );
            taken
        }
    }
}

fn mounted_here(tree: &OwnedFd, subpath: &str) -> Result<OwnedFd> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .explain(|| "detach from the host's mounts".into())?;
    move_mount(tree, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).explain(|| "mount it".into())?;
    let source = inside(tree, subpath)?;
    clone_tree(&source, false).explain(|| "take it".into())
}
