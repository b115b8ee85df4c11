//! `/dev`: the nodes and links every container has, and those asked for (OCI runtime specification, config-linux.md,
//! "Default Devices"), and its console.
//!
//! Nodes are only made on the container's own `/dev` and its root. What else is mounted belongs to somebody else, and an image
//! can lead there by links (CVE-2026-41579).

use crate::root::{Root, Target, attach, clone_tree, inside_error, make_private, open_host};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, access, chownat, fstat, mkdirat, mknodat,
    openat, openat2, readlinkat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::umask;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

const DEFAULT_NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: [(&str, &str); 4] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// Largest numbers the kernel has (linux/kdev_t.h).
const MAX_MAJOR: i64 = (1 << 12) - 1;
const MAX_MINOR: i64 = (1 << 20) - 1;

/// What `/dev` is.
#[derive(Debug)]
pub enum Dev {
    /// A directory of the root file system.
    OfRoot,
    /// A file system mounted for this container.
    Own(OwnedFd),
    /// Somebody else's directory, bound there.
    Foreign,
}

/// A node that has to be there.
#[derive(Clone, Debug)]
struct Node {
    path: PathBuf,
    kind: FileType,
    number: u64,
    mode: Mode,
    owner: (u32, u32),
}

/// Refuses devices that cannot be.
pub fn check(devices: &[LinuxDevice]) -> Result<()> {
    nodes(devices).map(drop)
}

/// Makes all that must be in `/dev`, and the devices asked for wherever they are to be. Where something is bound over `/dev`
/// nothing is made in it, but what was asked for must be there.
pub fn set_up(root: &Root, dev: &Dev, asked: &[LinuxDevice]) -> Result<()> {
    let asked = nodes(asked)?;
    let maker = match dev {
        Dev::Own(fd) => Maker::new(root, Some(fd.as_fd())),
        Dev::OfRoot => {
            let fd = own_directory(root)?;
            return Maker::new(root, Some(fd.as_fd())).make_all(&asked, true);
        }
        Dev::Foreign => Maker::new(root, None),
    };
    maker.make_all(&asked, !matches!(dev, Dev::Foreign))
}

/// Fills a `/dev` that is the container's own file system.
pub fn fill(root: &Root, dev: BorrowedFd<'_>, asked: &[LinuxDevice]) -> Result<()> {
    Maker::new(root, Some(dev)).make_all(&nodes(asked)?, true)
}

/// The root's `/dev`, made if it is missing. Neither a link nor a mount may be in its place.
fn own_directory(root: &Root) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let open = || openat2(&root.fd, "dev", flags, Mode::empty(), resolve);
    let opened = match open() {
        Err(Errno::NOENT) => mkdirat(&root.fd, "dev", Mode::from_raw_mode(0o755)).and_then(|()| open()),
        opened => opened,
    };
    opened.map_err(|error| match error {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => {
            Fault::denied("/dev in the container's root must be an ordinary directory")
                .because(std::io::Error::from(error))
        }
        _ => inside_error(Path::new("/dev"), error),
    })
}

fn nodes(devices: &[LinuxDevice]) -> Result<Vec<Node>> {
    devices.iter().enumerate().map(|(index, device)| node(index, device)).collect()
}

fn node(index: usize, device: &LinuxDevice) -> Result<Node> {
    let bad =
        |member: &str, what: String| Err(Fault::input(format!("linux.devices[{index}].{member}: {what}")));
    let mut path = PathBuf::from("/");
    for component in device.path().components() {
        match component {
            Component::Normal(name) => path.push(name),
            Component::ParentDir => return bad("path", format!("{} is not plain", device.path().display())),
            _ => {}
        }
    }
    if !device.path().is_absolute() || path == Path::new("/") || path == Path::new("/dev") {
        return bad("path", format!("\"{}\" is no absolute path of a device", device.path().display()));
    }
    let kind = match device.typ() {
        LinuxDeviceType::B => FileType::BlockDevice,
        LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
        LinuxDeviceType::P => FileType::Fifo,
        LinuxDeviceType::A => return bad("type", "a is no type of a device: b, c, u and p are".to_owned()),
    };
    let number = if kind == FileType::Fifo {
        0
    } else {
        for (member, number, most) in
            [("major", device.major(), MAX_MAJOR), ("minor", device.minor(), MAX_MINOR)]
        {
            if !(0..=most).contains(&number) {
                return bad(member, format!("{number} is not from 0 to {most}"));
            }
        }
        rustix::fs::makedev(device.major() as u32, device.minor() as u32)
    };
    Ok(Node {
        path,
        kind,
        number,
        // Some give the type's bits, too.
        mode: Mode::from_raw_mode(device.file_mode().unwrap_or(0o666) & 0o7777),
        owner: (device.uid().unwrap_or(0), device.gid().unwrap_or(0)),
    })
}

struct Maker<'a> {
    root: &'a Root,
    dev: Option<BorrowedFd<'a>>,
}

impl<'a> Maker<'a> {
    fn new(root: &'a Root, dev: Option<BorrowedFd<'a>>) -> Maker<'a> {
        Maker { root, dev }
    }

    fn make_all(&self, asked: &[Node], with_defaults: bool) -> Result<()> {
        // mknod(2) applies it; without it nothing has to be set afterwards.
        let before = umask(Mode::empty());
        let made = self.make_each(asked, with_defaults);
        umask(before);
        made
    }

    fn make_each(&self, asked: &[Node], with_defaults: bool) -> Result<()> {
        for node in asked {
            // That one is a link, always.
            if node.path != Path::new("/dev/ptmx") || self.dev.is_none() {
                self.make(node)?;
            }
        }
        let Some(dev) = self.dev.filter(|_| with_defaults) else { return Ok(()) };
        for (name, major, minor) in DEFAULT_NODES {
            let path = Path::new("/dev").join(name);
            // What was asked for is not made otherwise.
            if asked.iter().all(|node| node.path != path) {
                let number = rustix::fs::makedev(major, minor);
                let mode = Mode::from_raw_mode(0o666);
                self.make(&Node { path, kind: FileType::CharacterDevice, number, mode, owner: (0, 0) })?;
            }
        }
        for (name, target) in LINKS {
            link(dev, name, target, false)?;
        }
        if access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok() {
            link(dev, "core", "/proc/kcore", false)?;
        }
        // The terminals are those of the container's own devpts.
        link(dev, "ptmx", "pts/ptmx", true)
    }

    fn make(&self, node: &Node) -> Result<()> {
        let name = node.path.file_name().unwrap_or_default();
        let failed = |error: Errno| {
            Fault::failed(format!("make the device {}", node.path.display()))
                .because(std::io::Error::from(error))
        };
        let directory = match self.directory(node) {
            Ok(Some(directory)) => directory,
            // On somebody else's file system.
            Ok(None) | Err(Errno::XDEV) => return self.must_be_there(node),
            Err(error) => return Err(failed(error)),
        };
        match mknodat(&directory, name, node.kind, node.mode, node.number) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                let stat = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
                return must_match(node, &stat);
            }
            Err(Errno::PERM) => return bind_from_host(&directory, name, node),
            Err(error) => return Err(failed(error)),
        }
        if node.owner == (0, 0) {
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(node.owner.0), Gid::from_raw(node.owner.1));
        chownat(&directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(std::io::Error::from)
            .explain(|| format!("set the owner of {}", node.path.display()))
    }

    /// Where a node is made, itself made if it is missing; `None` or `EXDEV` when that is neither in the container's own `/dev`
    /// nor on its root. In `/dev` no link is followed.
    fn directory(&self, node: &Node) -> rustix::io::Result<Option<OwnedFd>> {
        let parent = node.path.parent().unwrap_or(Path::new("/"));
        if let Ok(inside) = parent.strip_prefix("/dev") {
            let Some(dev) = self.dev else { return Ok(None) };
            let mut reached = dev.try_clone_to_owned().map_err(|error| errno(&error))?;
            for name in inside {
                reached = open_or_make(&reached, name)?;
            }
            return Ok(Some(reached));
        }
        let inside = parent.strip_prefix("/").unwrap_or(parent);
        let inside = if inside.as_os_str().is_empty() { Path::new(".") } else { inside };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        match sys::fs::open_resolved(&self.root.fd, inside, flags, Mode::empty(), resolve) {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::NOENT) => {
                let mut reached = self.root.fd.try_clone().map_err(|error| errno(&error))?;
                for name in inside {
                    reached = open_or_make(&reached, name)?;
                }
                Ok(Some(reached))
            }
            Err(error) => Err(error),
        }
    }

    fn must_be_there(&self, node: &Node) -> Result<()> {
        let found = self.root.open(&node.path).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR => Fault::not_found(format!(
                "the device {} is not there, and what is mounted there is not the container's to make it in",
                node.path.display()
            )),
            _ => inside_error(&node.path, error),
        })?;
        let stat = fstat(&found).explain(|| format!("look at {}", node.path.display()))?;
        must_match(node, &stat)
    }
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

fn open_or_make(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    match openat2(directory, name, flags, Mode::empty(), resolve) {
        Err(Errno::NOENT) => {
            mkdirat(directory, name, Mode::from_raw_mode(0o755))?;
            openat2(directory, name, flags, Mode::empty(), resolve)
        }
        opened => opened,
    }
}

fn must_match(node: &Node, stat: &Stat) -> Result<()> {
    let same_kind = FileType::from_raw_mode(stat.st_mode) == node.kind;
    if same_kind && (node.kind == FileType::Fifo || stat.st_rdev == node.number) {
        return Ok(());
    }
    Err(Fault::conflict(format!("{} exists and is not the device asked for", node.path.display())))
}

/// Where nodes may not be made (in a user namespace), the host's own is bound.
fn bind_from_host(directory: &OwnedFd, name: &OsStr, node: &Node) -> Result<()> {
    let subject = node.path.display();
    let device = open_host(&node.path)
        .map_err(|fault| fault.hint("devices may not be made here, so that the host must have it"))?;
    let stat = fstat(&device).explain(|| format!("look at {subject}"))?;
    must_match(node, &stat).map_err(|fault| fault.within("the host's"))?;
    let tree = clone_tree(&device, false).explain(|| format!("take {subject}"))?;
    // What is mounted over it must not lie over the host's.
    make_private(&tree, false, &node.path)?;
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    // A file to be covered; what is there already will do as well.
    let _ = openat(directory, name, flags | OFlags::EXCL, Mode::RUSR | Mode::WUSR);
    let place = openat(directory, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
        .explain(|| format!("make {subject}"))?;
    let kind = fstat(&place).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if !matches!(kind, Ok(FileType::RegularFile | FileType::CharacterDevice | FileType::BlockDevice)) {
        return Err(Fault::conflict(format!("{subject} exists and is not the device asked for")));
    }
    attach(&tree, &place, &node.path)
}

/// `replace`: what else is there goes; without it what is there stays.
fn link(dev: BorrowedFd<'_>, name: &str, target: &str, replace: bool) -> Result<()> {
    let made = match symlinkat(target, dev, name) {
        Err(Errno::EXIST) if !replace => Ok(()),
        Err(Errno::EXIST) => match readlinkat(dev, name, Vec::new()) {
            Ok(text) if text.as_bytes() == target.as_bytes() => Ok(()),
            _ => unlinkat(dev, name, AtFlags::empty()).and_then(|()| symlinkat(target, dev, name)),
        },
        made => made,
    };
    made.map_err(std::io::Error::from).explain(|| format!("make the link /dev/{name}"))
}

/// A terminal on the container's own devpts, bound over `/dev/console`. Returns its master and slave sides.
pub fn console(root: &Root) -> Result<(OwnedFd, OwnedFd)> {
    let pts = root.open(Path::new("/dev/pts")).map_err(|error| {
        Fault::input("a terminal needs a devpts on /dev/pts").because(std::io::Error::from(error))
    })?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let master = openat(&pts, "ptmx", flags, Mode::empty()).explain(|| "open /dev/pts/ptmx".into())?;
    let stat = fstat(&master).explain(|| "look at /dev/pts/ptmx".into())?;
    if stat.st_rdev != rustix::fs::makedev(5, 2) {
        return Err(Fault::denied("/dev/pts/ptmx in the container is not the terminal multiplexer"));
    }
    rustix::pty::unlockpt(&master).explain(|| "unlock the terminal".into())?;
    // By ioctl, not by name: what lies at a name may be something else (CVE-2025-52565).
    let slave = rustix::pty::ioctl_tiocgptpeer(
        &master,
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC,
    )
    .explain(|| "open the terminal".into())?;
    let tree = clone_tree(slave.as_fd(), false).explain(|| "take the terminal for /dev/console".into())?;
    attach(&tree, console_target(root)?, Path::new("/dev/console"))?;
    Ok((master, slave))
}

/// A link would let the image choose what the terminal is mounted on, /proc among it.
fn console_target(root: &Root) -> Result<OwnedFd> {
    let path = Path::new("/dev/console");
    match root.open_without_links(path) {
        Err(Errno::NOENT) => root.target(path, Target::File),
        Ok(fd) => Ok(fd),
        Err(error) => Err(inside_error(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn device(changes: &serde_json::Value) -> LinuxDevice {
        let mut device = json!({"path": "/dev/x", "type": "c", "major": 10, "minor": 229});
        for (name, value) in changes.as_object().unwrap() {
            device[name] = value.clone();
        }
        serde_json::from_value(device).unwrap()
    }

    #[test]
    fn devices_are_named_plainly() {
        let made =
            node(0, &device(&json!({"path": "//dev/./dri/card0", "fileMode": 0o20640, "gid": 44}))).unwrap();
        assert_eq!(made.path, Path::new("/dev/dri/card0"));
        assert_eq!((made.mode.as_raw_mode(), made.owner), (0o640, (0, 44)));
        let fifo = node(0, &device(&json!({"type": "p", "major": -1, "minor": -1}))).unwrap();
        assert_eq!((fifo.kind, fifo.number), (FileType::Fifo, 0));
        for (changes, member) in [
            (json!({"path": ""}), "path"),
            (json!({"path": "/"}), "path"),
            (json!({"path": "dev/x"}), "path"),
            (json!({"path": "/dev/../etc/x"}), "path"),
            (json!({"type": "a"}), "type"),
            (json!({"major": 4096}), "major"),
            (json!({"minor": -1}), "minor"),
        ] {
            let fault = check(&[device(&json!({})), device(&changes)]).unwrap_err().to_string();
            assert!(fault.starts_with(&format!("linux.devices[1].{member}: ")), "{fault}");
        }
    }
}
