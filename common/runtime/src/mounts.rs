//! The mounts of the specification, each made detached and then put on an opened target.

use crate::root::{Root, Target, attach, clone_tree, is_directory, open_host};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::Mount;
use rustix::fs::{FsWord, fstatfs};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::mount::{
    MOUNT_ATTR_ATIME, MOUNT_ATTR_NOATIME, MOUNT_ATTR_NODEV, MOUNT_ATTR_NODIRATIME, MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID, MOUNT_ATTR_NOSYMFOLLOW, MOUNT_ATTR_RDONLY, MOUNT_ATTR_STRICTATIME, MountAttributes,
    mount_setattr,
};

const PROC_SUPER_MAGIC: FsWord = 0x9fa0;
const MS_UNBINDABLE: u64 = 1 << 17;
const MS_PRIVATE: u64 = 1 << 18;
const MS_SLAVE: u64 = 1 << 19;
const MS_SHARED: u64 = 1 << 20;

/// Files of /proc that may be covered, as lxcfs does; anything else there would let a container lie to the runtime.
const PROC_FILES: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
];

/// `options` of a mount, sorted into what each is.
#[derive(Debug, Default)]
struct Options {
    bind: bool,
    recursive: bool,
    attributes: MountAttributes,
    /// Attributes for everything below as well (`rro` …).
    deep: MountAttributes,
    propagation: Option<(u64, bool)>,
    /// For the file system itself.
    data: Vec<(String, Option<String>)>,
}

impl Options {
    fn parse(mount: &Mount) -> Result<Options> {
        let mut options = Options::default();
        for option in mount.options().iter().flatten() {
            options.add(option).map_err(|fault| fault.on(mount.destination().display().to_string()))?;
        }
        if mount.typ().as_deref() == Some("bind") && !options.bind {
            options.bind = true;
        }
        Ok(options)
    }

    fn add(&mut self, option: &str) -> Result<()> {
        let (own, deep) = (&mut self.attributes, &mut self.deep);
        match option {
            "defaults" | "" => {}
            "bind" => self.bind = true,
            "rbind" => {
                self.bind = true;
                self.recursive = true;
            }
            "ro" => turn(own, true, MOUNT_ATTR_RDONLY),
            "rw" => turn(own, false, MOUNT_ATTR_RDONLY),
            "nosuid" => turn(own, true, MOUNT_ATTR_NOSUID),
            "suid" => turn(own, false, MOUNT_ATTR_NOSUID),
            "nodev" => turn(own, true, MOUNT_ATTR_NODEV),
            "dev" => turn(own, false, MOUNT_ATTR_NODEV),
            "noexec" => turn(own, true, MOUNT_ATTR_NOEXEC),
            "exec" => turn(own, false, MOUNT_ATTR_NOEXEC),
            "nodiratime" => turn(own, true, MOUNT_ATTR_NODIRATIME),
            "diratime" => turn(own, false, MOUNT_ATTR_NODIRATIME),
            "nosymfollow" => turn(own, true, MOUNT_ATTR_NOSYMFOLLOW),
            "symfollow" => turn(own, false, MOUNT_ATTR_NOSYMFOLLOW),
            "noatime" => own.set = own.set & !MOUNT_ATTR_ATIME | MOUNT_ATTR_NOATIME,
            "strictatime" => own.set = own.set & !MOUNT_ATTR_ATIME | MOUNT_ATTR_STRICTATIME,
            "relatime" | "atime" | "norelatime" | "nostrictatime" => own.set &= !MOUNT_ATTR_ATIME,
            "rro" => turn(deep, true, MOUNT_ATTR_RDONLY),
            "rrw" => turn(deep, false, MOUNT_ATTR_RDONLY),
            "rnosuid" => turn(deep, true, MOUNT_ATTR_NOSUID),
            "rsuid" => turn(deep, false, MOUNT_ATTR_NOSUID),
            "rnodev" => turn(deep, true, MOUNT_ATTR_NODEV),
            "rdev" => turn(deep, false, MOUNT_ATTR_NODEV),
            "rnoexec" => turn(deep, true, MOUNT_ATTR_NOEXEC),
            "rexec" => turn(deep, false, MOUNT_ATTR_NOEXEC),
            "rnodiratime" => turn(deep, true, MOUNT_ATTR_NODIRATIME),
            "rdiratime" => turn(deep, false, MOUNT_ATTR_NODIRATIME),
            "rnosymfollow" => turn(deep, true, MOUNT_ATTR_NOSYMFOLLOW),
            "rsymfollow" => turn(deep, false, MOUNT_ATTR_NOSYMFOLLOW),
            // One field of several values, of which relatime is 0: it is cleared, then set.
            "rnoatime" => set_access_time(deep, MOUNT_ATTR_NOATIME),
            "rstrictatime" => set_access_time(deep, MOUNT_ATTR_STRICTATIME),
            "rrelatime" | "ratime" | "rnorelatime" | "rnostrictatime" => set_access_time(deep, 0),
            "private" => self.propagation = Some((MS_PRIVATE, false)),
            "rprivate" => self.propagation = Some((MS_PRIVATE, true)),
            "shared" => self.propagation = Some((MS_SHARED, false)),
            "rshared" => self.propagation = Some((MS_SHARED, true)),
            "slave" => self.propagation = Some((MS_SLAVE, false)),
            "rslave" => self.propagation = Some((MS_SLAVE, true)),
            "unbindable" => self.propagation = Some((MS_UNBINDABLE, false)),
            "runbindable" => self.propagation = Some((MS_UNBINDABLE, true)),
            "tmpcopyup" | "idmap" | "ridmap" | "remount" | "mand" | "sync" | "async" | "dirsync" => {
                return Err(Fault::input(format!("mount option {option} is not supported")));
            }
            other => match other.split_once('=') {
                Some((key, value)) => self.data.push((key.to_owned(), Some(value.to_owned()))),
                None => self.data.push((other.to_owned(), None)),
            },
        }
        Ok(())
    }
}

fn turn(attributes: &mut MountAttributes, on: bool, flag: u64) {
    let (to, from) = if on {
        (&mut attributes.set, &mut attributes.clear)
    } else {
        (&mut attributes.clear, &mut attributes.set)
    };
    *to |= flag;
    *from &= !flag;
}

fn set_access_time(attributes: &mut MountAttributes, value: u64) {
    attributes.clear |= MOUNT_ATTR_ATIME;
    attributes.set = attributes.set & !MOUNT_ATTR_ATIME | value;
}

/// What mounting needs to know beside the mount itself.
pub struct Surroundings<'a> {
    /// The container's control group directories, for a `cgroup` mount on a version 1 machine.
    pub cgroup: &'a [PathBuf],
    pub cgroup_is_v2: bool,
    pub bundle: &'a Path,
}

/// Makes one mount. Returns the mount's descriptor when it is the container's own `/dev`.
pub fn make(root: &Root, mount: &Mount, surroundings: &Surroundings<'_>) -> Result<Option<OwnedFd>> {
    let destination = mount.destination();
    let options = Options::parse(mount)?;
    let kind = mount.typ().as_deref().unwrap_or("none");
    if options.bind {
        bind(root, mount, &options, surroundings)?;
        return Ok(None);
    }
    if kind == "cgroup" && !surroundings.cgroup_is_v2 {
        cgroup_v1(root, destination, &options, surroundings)?;
        return Ok(None);
    }
    let kind = if kind == "cgroup" { "cgroup2" } else { kind };
    let target = root.target(destination, Target::Directory)?;
    if matches!(kind, "proc" | "sysfs") {
        // A link there could put the real one elsewhere and a false one in its place (CVE-2019-19921).
        root.open_without_links(destination)
            .map_err(|error| crate::root::inside_error(destination, error))?;
    } else {
        refuse_proc(&target, destination, kind)?;
    }
    let made = filesystem(kind, mount, &options)?;
    attach(&made, &target, destination)?;
    propagate(&made, &options, destination)?;
    Ok((destination == Path::new("/dev") && kind == "tmpfs").then_some(made))
}

fn filesystem(kind: &str, mount: &Mount, options: &Options) -> Result<OwnedFd> {
    let destination = mount.destination();
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)
        .explain(|| format!("mount {} on {}", kind, destination.display()))?;
    let failed = |error: Errno, what: &str| {
        let said = sys::mount::context_messages(context.as_fd());
        let fault = Fault::failed(format!("mount {kind} on {} ({what})", destination.display()))
            .because(std::io::Error::from(error));
        if said.is_empty() { fault } else { fault.hint(format!("the kernel says: {said}")) }
    };
    if let Some(source) = mount.source() {
        fsconfig_set_string(&context, "source", source).map_err(|error| failed(error, "source"))?;
    }
    for (key, value) in &options.data {
        let set = match value {
            Some(value) => fsconfig_set_string(&context, key.as_str(), value.as_str()),
            None => fsconfig_set_flag(&context, key.as_str()),
        };
        set.map_err(|error| failed(error, key))?;
    }
    fsconfig_create(&context).map_err(|error| failed(error, "create"))?;
    let attributes = MountAttrFlags::from_bits_retain(options.attributes.set as _);
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|error| failed(error, "mount"))
}

fn bind(root: &Root, mount: &Mount, options: &Options, surroundings: &Surroundings<'_>) -> Result<()> {
    let destination = mount.destination();
    let source = mount
        .source()
        .as_ref()
        .ok_or_else(|| Fault::input(format!("the bind mount on {} has no source", destination.display())))?;
    if let Some((name, _)) = options.data.first() {
        return Err(Fault::input(format!("mount option {name} is unknown for a bind mount"))
            .on(destination.display().to_string()));
    }
    let source = surroundings.bundle.join(source);
    let opened = open_host(&source)?;
    let tree = clone_tree(&opened, options.recursive)
        .explain(|| format!("take {} for a bind mount", source.display()))?;
    let kind = if is_directory(&opened) { Target::Directory } else { Target::File };
    // Private unless asked otherwise: nothing mounted in the container shows up outside.
    let (propagation, deep) = options.propagation.unwrap_or((MS_PRIVATE, true));
    set_attributes(&tree, deep, MountAttributes { propagation, ..MountAttributes::default() }, destination)?;
    set_attributes(&tree, false, clear_atime_too(options.attributes), destination)?;
    set_attributes(&tree, true, options.deep, destination)?;
    let target = root.target(destination, kind)?;
    refuse_proc(&target, destination, "bind")?;
    attach(&tree, &target, destination)
}

/// Setting one access time attribute means clearing the field first (mount_setattr(2)).
fn clear_atime_too(mut attributes: MountAttributes) -> MountAttributes {
    if attributes.set & MOUNT_ATTR_ATIME != 0 {
        attributes.clear |= MOUNT_ATTR_ATIME;
    }
    attributes
}

fn set_attributes(
    mount: &OwnedFd,
    recursive: bool,
    attributes: MountAttributes,
    subject: &Path,
) -> Result<()> {
    if attributes.set == 0 && attributes.clear == 0 && attributes.propagation == 0 {
        return Ok(());
    }
    mount_setattr(mount.as_fd(), recursive, attributes)
        .explain(|| format!("set the attributes of the mount on {}", subject.display()))
}

fn propagate(mount: &OwnedFd, options: &Options, subject: &Path) -> Result<()> {
    let Some((propagation, recursive)) = options.propagation else { return Ok(()) };
    set_attributes(mount, recursive, MountAttributes { propagation, ..MountAttributes::default() }, subject)
}

/// A mount over /proc, or in it but for a few files, would fool whoever writes there later (CVE-2025-52881).
fn refuse_proc(target: &OwnedFd, destination: &Path, kind: &str) -> Result<()> {
    let on_proc = fstatfs(target).is_ok_and(|stat| stat.f_type == PROC_SUPER_MAGIC);
    let named_proc = destination == Path::new("/proc");
    if !on_proc && !named_proc {
        return Ok(());
    }
    if kind == "bind" && on_proc && PROC_FILES.iter().any(|file| Path::new(file) == destination) {
        return Ok(());
    }
    Err(Fault::denied(format!("a mount on {} would cover /proc", destination.display())))
}

/// A tmpfs with the container's own directory of each hierarchy bound in it.
fn cgroup_v1(
    root: &Root,
    destination: &Path,
    options: &Options,
    surroundings: &Surroundings<'_>,
) -> Result<()> {
    let target = root.target(destination, Target::Directory)?;
    refuse_proc(&target, destination, "cgroup")?;
    let tmpfs = {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).explain(|| "mount tmpfs".into())?;
        fsconfig_set_string(&context, "mode", "755").explain(|| "mount tmpfs".into())?;
        fsconfig_create(&context).explain(|| "mount tmpfs".into())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).explain(|| "mount tmpfs".into())?
    };
    attach(&tmpfs, &target, destination)?;
    for directory in surroundings.cgroup {
        let hierarchy = directory
            .strip_prefix(cgroup::MOUNT)
            .ok()
            .and_then(|rest| rest.components().next())
            .ok_or_else(|| Fault::input(format!("{} is not a control group", directory.display())))?;
        let name = hierarchy.as_os_str();
        rustix::fs::mkdirat(&tmpfs, name, rustix::fs::Mode::from_raw_mode(0o755))
            .explain(|| format!("make {}/{}", destination.display(), name.display()))?;
        let tree = clone_tree(open_host(directory)?, false)
            .explain(|| format!("take {} for a bind mount", directory.display()))?;
        let attributes = MountAttributes {
            set: options.attributes.set | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
            clear: 0,
            propagation: MS_PRIVATE,
        };
        set_attributes(&tree, false, attributes, destination)?;
        let place = rustix::fs::openat(
            &tmpfs,
            name,
            rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC | rustix::fs::OFlags::NOFOLLOW,
            rustix::fs::Mode::empty(),
        )
        .explain(|| format!("open {}/{}", destination.display(), name.display()))?;
        attach(&tree, &place, destination)?;
    }
    set_attributes(&tmpfs, false, options.attributes, destination)
}
