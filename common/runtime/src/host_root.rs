//! The root of a container that is in the host's mount namespace.
//!
//! Such a container's mounts are the host's as well. They are made in a tree of its own, put over the root file system in two layers: a mount
//! of that directory alone, which may be seen wherever the host's mounts are shared to and then shares nothing itself, and on it all that is
//! mounted there, for the container's mounts to be made in. So no mount of the host changes how it is shared, nothing that is made inside
//! leaves the tree, and the tree is taken away in one piece, by whoever deletes the container: what it consists of is written down before it
//! is there.

use crate::no_pivot::unescape;
use crate::root::{attach as put, clone_tree, make_private};
use crate::spec::Spec;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::LinuxNamespaceType as Kind;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, fstat, openat, readlink, statx};
use rustix::mount::{UnmountFlags, unmount};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// `STATX_MNT_ID_UNIQUE` (statx(2), Linux 6.8): a number no other mount gets.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// More layers than anybody puts on one directory.
const MAX_LAYERS: usize = 10_000;

/// What is mounted on the host for a container: what is needed to find it again, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoot {
    path: PathBuf,
    /// Inode of the mount namespace (`/proc/PID/ns/mnt`).
    namespace: u64,
    /// Device and inode of the directory.
    directory: (u64, u64),
    /// The lower layer first.
    layers: Vec<Layer>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Layer {
    /// As in `/proc/PID/mountinfo`; given to another mount when this one is gone.
    id: u64,
    /// Where the kernel has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unique: Option<u64>,
}

/// Whether the specification has the container in the runtime's own mount namespace.
pub fn is_asked_for(spec: &Spec) -> bool {
    spec.namespace(Kind::Mount).is_none()
}

/// Makes the root of a container without a mount namespace, for [`RootFs::OnHost`](crate::RootFs). `record` is called before anything is
/// mounted; whatever happens then, [`HostRoot::remove`] removes what there is. `others`: those of other containers.
///
/// # Errors
/// Fails with input if the specification has such a container in a user namespace or in the machine's own root, with a conflict if the
/// root file system lies in the mounts of another one, which will be taken away from under it, and if `record` does.
pub fn attach(
    spec: &Spec,
    bundle: &Path,
    others: &[HostRoot],
    record: impl FnOnce(&HostRoot) -> Result<()>,
) -> Result<OwnedFd> {
    if spec.namespace(Kind::User).is_some() {
        // Its superuser may mount nothing there, nor enter a root that belongs to others.
        return Err(Fault::input(
            "linux.namespaces: a container in a user namespace needs a mount namespace",
        ));
    }
    let wanted = spec.root_path(bundle)?;
    let what = || format!("open the root file system {}", wanted.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = openat(CWD, &wanted, flags, Mode::empty()).explain(what)?;
    let path = path_of(&place).explain(what)?;
    if path == Path::new("/") {
        return Err(Fault::input("root.path: / is the machine's own root")
            .hint("a container that is to have it needs a mount namespace in linux.namespaces"));
    }
    let seen = Layer::of(&place).explain(what)?;
    let table = Table::read()?;
    if others.iter().any(|other| table.is_on(seen.id, &other.layers)) {
        return Err(Fault::conflict(format!(
            "{}: another container's root is mounted there",
            path.display()
        ))
        .hint("delete that container, or give each its own copy"));
    }
    let base = clone_tree(&place, false).explain(what)?;
    let tree = clone_tree(&place, true).explain(what)?;
    // As a copy of shared mounts it would share what is mounted in it.
    make_private(&tree, true, &path)?;
    let layers = vec![Layer::of(&base).explain(what)?, Layer::of(&tree).explain(what)?];
    let directory = inode(&place).explain(what)?;
    record(&HostRoot { path: path.clone(), namespace: own_namespace()?, directory, layers })?;
    put(&base, &place, &path)?;
    // On a shared mount it has become shared.
    make_private(&base, false, &path)?;
    put(&tree, &base, &path)?;
    Ok(tree)
}

impl HostRoot {
    /// Removes the mounts, with everything that was mounted in them, and only these. It is no failure that they are gone.
    ///
    /// # Errors
    /// Fails with a conflict if they are in a mount namespace that is somebody else's.
    pub fn remove(&self) -> Result<()> {
        if own_namespace()? != self.namespace {
            return self.need_nobody();
        }
        for _ in 0..MAX_LAYERS {
            let Some((top, path)) = self.find()? else { return Ok(()) };
            // What is shared with the host's mounts is unmounted there, too.
            make_private(&top, true, &path)?;
            unmount(format!("/proc/self/fd/{}", top.as_raw_fd()), UnmountFlags::DETACH)
                .explain(|| format!("unmount {}", path.display()))?;
        }
        Err(Fault::failed(format!("unmount {}: there is no end of mounts on it", self.path.display())))
    }

    /// What is seen where one of the layers is, if it is that, or was put on it by who may mount in the container.
    fn find(&self) -> Result<Option<(OwnedFd, PathBuf)>> {
        let table = Table::read()?;
        let mut covered = false;
        for layer in self.layers.iter().rev() {
            // Not where it was put: a directory above may have another name by now.
            let Some((_, path)) = table.mounts.get(&layer.id) else { continue };
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(top) = openat(CWD, path, flags, Mode::empty()) else { continue };
            let what = || format!("find the mount on {}", path.display());
            let seen = Layer::of(&top).explain(what)?;
            let is_there = path == &self.path;
            let is_its_own = match self.layers.iter().find(|layer| layer.id == seen.id) {
                Some(layer) => layer.unique == seen.unique && inode(&top).explain(what)? == self.directory,
                None => is_there && table.is_on(seen.id, &self.layers),
            };
            if is_its_own {
                return Ok(Some((top, path.clone())));
            }
            covered |= is_there && self.layers.iter().all(|layer| layer.id != seen.id);
        }
        if covered {
            return Err(Fault::conflict(format!("other mounts cover {}", self.path.display()))
                .hint("unmount what was mounted above it since"));
        }
        Ok(None)
    }

    /// A mount namespace nobody is in any more has taken its mounts with it.
    fn need_nobody(&self) -> Result<()> {
        let what = || "look for the container's mount namespace".to_owned();
        for process in std::fs::read_dir("/proc").explain(what)?.flatten() {
            let is_there = rustix::fs::stat(process.path().join("ns/mnt"));
            if is_there.is_ok_and(|stat| stat.st_ino == self.namespace) {
                let name = process.file_name();
                return Err(Fault::conflict(format!(
                    "the container's mounts on {} are in another mount namespace",
                    self.path.display()
                ))
                .hint(format!(
                    "it is the one of process {0}: nsenter -m -t {0} enters it",
                    name.to_string_lossy()
                )));
            }
        }
        Ok(())
    }
}

impl Layer {
    fn of(mount: &OwnedFd) -> rustix::io::Result<Layer> {
        let ask = |wanted| statx(mount, "", AtFlags::EMPTY_PATH, wanted);
        let unique = ask(MNT_ID_UNIQUE)?;
        let has_unique = unique.stx_mask & MNT_ID_UNIQUE.bits() != 0;
        Ok(Layer { id: ask(StatxFlags::MNT_ID)?.stx_mnt_id, unique: has_unique.then_some(unique.stx_mnt_id) })
    }
}

fn inode(fd: &OwnedFd) -> rustix::io::Result<(u64, u64)> {
    fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

fn path_of(fd: &OwnedFd) -> rustix::io::Result<PathBuf> {
    let link = readlink(format!("/proc/self/fd/{}", fd.as_raw_fd()), Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(link.into_bytes())))
}

fn own_namespace() -> Result<u64> {
    rustix::fs::stat("/proc/thread-self/ns/mnt")
        .map(|stat| stat.st_ino)
        .explain(|| "find the own mount namespace".into())
}

/// The mounts there are, by number: what each is on, and where (proc_pid_mountinfo(5)).
struct Table {
    mounts: HashMap<u64, (u64, PathBuf)>,
}

impl Table {
    fn read() -> Result<Table> {
        let file = "/proc/thread-self/mountinfo";
        std::fs::read(file).map(|text| Table::parse(&text)).explain(|| format!("read {file}"))
    }

    fn parse(text: &[u8]) -> Table {
        let number = |field: Option<&[u8]>| std::str::from_utf8(field?).ok()?.parse().ok();
        let mount = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ');
            let (id, parent) = (number(fields.next())?, number(fields.next())?);
            Some((id, (parent, unescape(fields.nth(2)?))))
        };
        Table { mounts: text.split(|byte| *byte == b'\n').filter_map(mount).collect() }
    }

    /// Whether a mount is one of these, or on one of them.
    fn is_on(&self, mut id: u64, layers: &[Layer]) -> bool {
        // No longer way than there are mounts.
        for _ in 0..=self.mounts.len() {
            if layers.iter().any(|layer| layer.id == id) {
                return true;
            }
            match self.mounts.get(&id) {
                Some((parent, _)) if *parent != id => id = *parent,
                _ => return false,
            }
        }
        false
    }
}

/// Makes the container's root, which is a mount of the host's, the root of this process.
pub(crate) fn enter(root: &OwnedFd) -> Result<()> {
    rustix::process::fchdir(root).explain(|| "enter the root file system".into())?;
    rustix::process::chroot(".").explain(|| "make it the root".into())?;
    rustix::process::chdir("/").explain(|| "enter the new root".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_on_others() {
        let table = Table::parse(
            b"25 1 8:1 / / rw - ext4 x rw\n30 25 0:22 / /a\\040b rw - proc proc rw\n31 30 0:5 / /a\\040b rw - x x rw\n\
              7 8 0:1 / /x rw\n8 7 0:1 / /x rw\nnonsense\n\n9 x\n",
        );
        assert_eq!(table.mounts[&30], (25, PathBuf::from("/a b")));
        let is_on = |id, layer| table.is_on(id, &[Layer { id: layer, unique: None }]);
        assert!(is_on(31, 30) && is_on(31, 25) && is_on(30, 30) && !is_on(30, 31) && !is_on(25, 30));
        // A circle nobody makes.
        assert!(!is_on(7, 9) && !is_on(99, 1));
    }

    #[test]
    fn what_is_not_its_own_stays() {
        use rustix::mount::{MountPropagationFlags, mount_change};
        // This thread's own mounts: the machine's are no stake. It takes root, as there is nothing to be unmounted without.
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
            return;
        }
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let proc = crate::root::open_host(Path::new("/proc")).unwrap();
        let (seen, directory) = (Layer::of(&proc).unwrap(), inode(&proc).unwrap());
        let root = |layer: Layer, directory| HostRoot {
            path: "/proc".into(),
            namespace: own_namespace().unwrap(),
            directory,
            layers: vec![layer],
        };
        // Its number, given to another mount.
        root(seen, (directory.0, directory.1 + 1)).remove().unwrap();
        root(Layer { unique: Some(u64::MAX), ..seen }, directory).remove().unwrap();
        root(Layer { id: u64::MAX, unique: None }, directory).remove().unwrap();
        assert!(Path::new("/proc/self").exists());
        // Nobody is in there.
        HostRoot { namespace: 1, ..root(seen, directory) }.remove().unwrap();
        assert!(Path::new("/proc/self").exists());
    }

    #[test]
    fn mounts_have_numbers() {
        let proc = crate::root::open_host(Path::new("/proc")).unwrap();
        let (_, path) = &Table::read().unwrap().mounts[&Layer::of(&proc).unwrap().id];
        assert_eq!(path, Path::new("/proc"));
    }
}
