//! `/dev`: the nodes and links every container has, and those asked for (OCI runtime specification, config-linux.md,
//! "Default Devices").

use crate::root::{Root, Target, attach, clone_tree, exists_at, open_host};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, chmodat, chownat, mknodat, openat, symlinkat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Component, Path};

const DEFAULT_NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
];

/// Fills a `/dev` that is the container's own file system.
pub fn fill(root: &Root, dev: BorrowedFd<'_>, asked: &[LinuxDevice]) -> Result<()> {
    for (name, major, minor) in DEFAULT_NODES {
        node(root, dev, Path::new(name), FileType::CharacterDevice, (major, minor), 0o666, None)?;
    }
    for (name, target) in LINKS {
        match symlinkat(target, dev, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => {
                return Err(std::io::Error::from(error)).explain(|| format!("make the link /dev/{name}"));
            }
        }
    }
    if exists_at(dev, "pts") {
        // The specification's ptmx is a link into the container's own devpts.
        let _ = rustix::fs::unlinkat(dev, "ptmx", AtFlags::empty());
        symlinkat("pts/ptmx", dev, "ptmx").explain(|| "make the link /dev/ptmx".into())?;
    }
    for device in asked {
        let inside = device
            .path()
            .strip_prefix("/dev")
            .map_err(|_| Fault::input(format!("device {} is not below /dev", device.path().display())))?;
        if inside.components().any(|c| !matches!(c, Component::Normal(_))) || inside.as_os_str().is_empty() {
            return Err(Fault::input(format!("device path {} is not plain", device.path().display())));
        }
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => {
                return Err(Fault::input(format!("device {} has no type", device.path().display())));
            }
        };
        let numbers = (device.major() as u32, device.minor() as u32);
        let owner = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
        let mode = device.file_mode().unwrap_or(0o666);
        node(root, dev, inside, kind, numbers, mode, Some(owner))?;
    }
    Ok(())
}

fn node(
    root: &Root,
    dev: BorrowedFd<'_>,
    name: &Path,
    kind: FileType,
    (major, minor): (u32, u32),
    mode: u32,
    owner: Option<(u32, u32)>,
) -> Result<()> {
    let full = Path::new("/dev").join(name);
    if name.components().count() > 1 {
        root.make_directories(full.parent().unwrap_or(Path::new("/dev")))?;
    }
    match mknodat(dev, name, kind, Mode::from_raw_mode(mode & 0o7777), rustix::fs::makedev(major, minor)) {
        Ok(()) => {}
        // One of the defaults asked for again.
        Err(Errno::EXIST) => return Ok(()),
        Err(Errno::PERM) => return bind_from_host(root, &full),
        Err(error) => {
            return Err(std::io::Error::from(error)).explain(|| format!("make {}", full.display()));
        }
    }
    // mknod(2) applies the umask.
    chmodat(dev, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
        .explain(|| format!("set the mode of {}", full.display()))?;
    if let Some((uid, gid)) = owner
        && (uid, gid) != (0, 0)
    {
        chownat(dev, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
            .explain(|| format!("set the owner of {}", full.display()))?;
    }
    Ok(())
}

/// Where nodes may not be made (no CAP_MKNOD here), the host's own is bound.
fn bind_from_host(root: &Root, path: &Path) -> Result<()> {
    let tree = clone_tree(open_host(path)?, false).explain(|| format!("take {}", path.display()))?;
    let target = root.target(path, Target::File)?;
    attach(&tree, &target, path)
}

/// A terminal on the container's own devpts, bound over `/dev/console`. Returns its master and slave sides.
pub fn console(root: &Root) -> Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    let pts = root.open(Path::new("/dev/pts")).map_err(|error| {
        Fault::input("a terminal needs a devpts on /dev/pts").because(std::io::Error::from(error))
    })?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = openat(&pts, "ptmx", flags, Mode::empty()).explain(|| "open /dev/pts/ptmx".into())?;
    rustix::pty::unlockpt(&master).explain(|| "unlock the terminal".into())?;
    // By ioctl, not by name: what lies at a name may be something else (CVE-2025-52565).
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC,
    )
    .explain(|| "open the terminal".into())?;
    let tree = clone_tree(slave.as_fd(), false).explain(|| "take the terminal for /dev/console".into())?;
    let path = Path::new("/dev/console");
    let target = root.target(path, Target::File)?;
    attach(&tree, &target, path)?;
    Ok((master, slave))
}
