//! The child: builds the container around itself, says it is ready, waits, and becomes the command.

use crate::message::{Failure, Message, receive, send};
use crate::mounts::{self, Surroundings};
use crate::process::{Command, ExecFailure, Filter, private_proc, write_proc};
use crate::root::{Root, RootFs};
use crate::spec::Spec;
use crate::{devices, masks};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::mount::{MOUNT_ATTR_RDONLY, MountAttributes};

/// What the child needs, made ready by the parent.
pub struct Plan<'a> {
    pub id: &'a str,
    pub spec: &'a Spec,
    pub bundle: &'a Path,
    pub rootfs: &'a RootFs,
    pub root_path: PathBuf,
    pub filter: Option<Filter>,
    /// The control groups the child was made in; `None` when it will be told which to join.
    pub cgroup: Option<Vec<PathBuf>>,
    pub own_cgroup_namespace: bool,
    /// Namespaces that exist already and are joined.
    pub join_namespaces: Vec<(LinuxNamespaceType, OwnedFd)>,
    pub own_network: bool,
    pub own_uts: bool,
    pub own_mounts: bool,
    /// Standard streams; with a terminal they come from it.
    pub stdio: Option<[OwnedFd; 3]>,
}

/// Runs in the child and does not return.
pub fn run(plan: Plan<'_>, socket: &OwnedFd) -> ! {
    let failure = match set_up_and_wait(plan, socket) {
        Ok(command) => command.execute(),
        Err(failure) => failure,
    };
    // The parent may be gone; there is nobody else to tell.
    let _ = send(socket, &Message::Failed(Failure::of(&failure.fault, failure.exit_code)), None);
    sys::process::exit_now(failure.exit_code.unwrap_or(125))
}

fn set_up_and_wait(mut plan: Plan<'_>, socket: &OwnedFd) -> Result<Command, ExecFailure> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .explain(|| "set the parent death signal".into())?;
    // Nothing inside may look into this process before it is the command (CVE-2016-9962).
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .explain(|| "become non-dumpable".into())?;
    let mut groups = Groups::new(&mut plan, socket)?;
    rustix::process::setsid().explain(|| "start a session".into())?;
    join_keyring(plan.id)?;
    join_namespaces(&plan)?;
    if plan.own_network {
        sys::process::loopback_up().explain(|| "bring up the loopback interface".into())?;
    }
    set_host_name(&plan)?;
    let terminal = build_root(&plan, &mut groups)?;
    groups.joined()?;
    let command = Command::new(plan.spec.process()?, plan.filter.take())?;
    let (master, slave) = match terminal {
        Some((master, slave)) => (Some(master), Some(slave)),
        None => (None, None),
    };
    set_up_streams(plan.stdio.take(), slave)?;
    send(socket, &Message::Ready, master.as_ref().map(AsFd::as_fd))?;
    drop(master);
    match receive(socket)? {
        Some((Message::Start, _)) => Ok(command),
        // The parent gave up, or is gone.
        _ => sys::process::exit_now(125),
    }
}

/// The container's control groups, joined as late as can be where the parent still makes them.
struct Groups<'a> {
    directories: Option<Vec<PathBuf>>,
    own_namespace: bool,
    version_2: bool,
    socket: &'a OwnedFd,
}

impl Groups<'_> {
    fn new<'a>(plan: &mut Plan<'_>, socket: &'a OwnedFd) -> Result<Groups<'a>> {
        let directories = plan.cgroup.take();
        let groups = Groups {
            own_namespace: plan.own_cgroup_namespace,
            version_2: directories.is_some(),
            directories,
            socket,
        };
        if groups.directories.is_some() {
            groups.enter_namespace()?;
        }
        Ok(groups)
    }

    /// After joining, so that the group becomes the root of what the namespace shows.
    fn enter_namespace(&self) -> Result<()> {
        if !self.own_namespace {
            return Ok(());
        }
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP)
            .explain(|| "make a cgroup namespace".into())
    }

    /// Their directories, once they are joined.
    fn joined(&mut self) -> Result<&[PathBuf]> {
        if self.directories.is_none() {
            let Some((Message::Join { cgroup }, _)) = receive(self.socket)? else {
                // The parent gave up, or is gone.
                sys::process::exit_now(125)
            };
            for directory in &cgroup {
                // `tasks`: a process of one thread moves itself without the kernel's global lock.
                let path = directory.join("tasks");
                std::fs::write(&path, "0").explain(|| format!("join the control group {}", path.display()))?;
            }
            self.directories = Some(cgroup);
            self.enter_namespace()?;
        }
        Ok(self.directories.as_deref().unwrap_or_default())
    }
}

fn join_keyring(id: &str) -> Result<()> {
    let name = std::ffi::CString::new(format!("_ses.{id}")).map_err(|_| Fault::input("NUL in the id"))?;
    match sys::process::join_new_session_keyring(&name) {
        Ok(()) => Ok(()),
        // No keyrings in this kernel, or the user's quota of keys is used up: docker goes on as well.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EDQUOT)) => Ok(()),
        Err(error) => Err(error).explain(|| "join a new session keyring".into()),
    }
}

fn join_namespaces(plan: &Plan<'_>) -> Result<()> {
    for (kind, fd) in &plan.join_namespaces {
        let link = match kind {
            LinuxNamespaceType::Network => LinkNameSpaceType::Network,
            LinuxNamespaceType::Ipc => LinkNameSpaceType::InterProcessCommunication,
            LinuxNamespaceType::Uts => LinkNameSpaceType::HostNameAndNISDomainName,
            LinuxNamespaceType::Mount => LinkNameSpaceType::Mount,
            LinuxNamespaceType::Cgroup => LinkNameSpaceType::ControlGroup,
            // The parent has done so: it takes effect for a process's children.
            LinuxNamespaceType::Pid => continue,
            LinuxNamespaceType::User | LinuxNamespaceType::Time => {
                return Err(Fault::input("this namespace cannot be joined"));
            }
        };
        rustix::thread::move_into_link_name_space(fd.as_fd(), Some(link))
            .explain(|| format!("join the {kind} namespace"))?;
    }
    Ok(())
}

fn set_host_name(plan: &Plan<'_>) -> Result<()> {
    if !plan.own_uts {
        return Ok(());
    }
    if !plan.spec.hostname.is_empty() {
        rustix::system::sethostname(plan.spec.hostname.as_bytes())
            .explain(|| format!("set the host name {:?}", plan.spec.hostname))?;
    }
    if !plan.spec.domainname.is_empty() {
        rustix::system::setdomainname(plan.spec.domainname.as_bytes())
            .explain(|| format!("set the domain name {:?}", plan.spec.domainname))?;
    }
    Ok(())
}

/// Mounts everything, then makes it the root. Returns the terminal if there is to be one.
fn build_root(plan: &Plan<'_>, groups: &mut Groups<'_>) -> Result<Option<(OwnedFd, OwnedFd)>> {
    if !plan.own_mounts {
        return Err(Fault::input("a container needs a mount namespace of its own"));
    }
    detach_from_host(plan.spec.linux.rootfs_propagation.as_deref())?;
    let root = plan.rootfs.mount(&plan.root_path)?;
    let mut own_dev = None;
    for mount in &plan.spec.mounts {
        let needs_groups = mount.typ().as_deref() == Some("cgroup");
        let surroundings = Surroundings {
            cgroup_is_v2: groups.version_2,
            cgroup: if needs_groups { groups.joined()? } else { &[] },
            bundle: plan.bundle,
        };
        if let Some(dev) = mounts::make(&root, mount, &surroundings)? {
            own_dev = Some(dev);
        }
    }
    if let Some(dev) = &own_dev {
        devices::fill(&root, dev.as_fd(), &plan.spec.linux.devices)?;
    } else if !plan.spec.mounts.iter().any(|mount| mount.destination() == Path::new("/dev")) {
        let dev = root.target(Path::new("/dev"), crate::root::Target::Directory)?;
        // Opened again for reading, as nodes are made in it.
        let dev = openat(&dev, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .explain(|| "open /dev in the container's root".into())?;
        devices::fill(&root, dev.as_fd(), &plan.spec.linux.devices)?;
    }
    let terminal = if plan.spec.terminal() { Some(devices::console(&root)?) } else { None };
    write_sysctls(plan.spec)?;
    masks::make_readonly(&root, &plan.spec.linux.readonly_paths)?;
    masks::mask(&root, &plan.spec.linux.masked_paths)?;
    make_working_directory(plan.spec, &root);
    pivot(&root)?;
    if plan.spec.root_is_readonly() {
        let readonly = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
        sys::mount::mount_setattr(root.fd.as_fd(), false, readonly)
            .explain(|| "make the root read-only".into())?;
    }
    Ok(terminal)
}

/// What is mounted from here on stays here. Mounts made on the host later still come in, as a bind with `rslave` wants.
fn detach_from_host(propagation: Option<&str>) -> Result<()> {
    let flags = match propagation {
        None | Some("" | "slave" | "rslave") => {
            MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC
        }
        Some("private" | "rprivate") => MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        Some("shared" | "rshared") => return Ok(()),
        Some("unbindable" | "runbindable") => MountPropagationFlags::UNBINDABLE | MountPropagationFlags::REC,
        Some(other) => return Err(Fault::input(format!("rootfsPropagation {other:?} is unknown"))),
    };
    mount_change("/", flags).explain(|| "detach from the host's mounts".into())
}

/// docker makes a missing working directory. What is in its way shows when it is entered.
fn make_working_directory(spec: &Spec, root: &Root) {
    if let Some(process) = &spec.process
        && process.cwd() != Path::new("/")
        && root.open(process.cwd()).is_err()
    {
        let _ = root.make_directories(process.cwd());
    }
}

fn pivot(root: &Root) -> Result<()> {
    rustix::process::fchdir(&root.fd).explain(|| "enter the root file system".into())?;
    sys::mount::pivot_to_working_directory().explain(|| "make it the root".into())?;
    // The old root lies on top at "/" now; under it is the new one.
    unmount(".", UnmountFlags::DETACH).explain(|| "let go of the host's root".into())?;
    rustix::process::chdir("/").explain(|| "enter the new root".into())
}

fn write_sysctls(spec: &Spec) -> Result<()> {
    if spec.linux.sysctl.is_empty() {
        return Ok(());
    }
    let proc = private_proc()?;
    for (name, value) in &spec.linux.sysctl {
        if name.split(['.', '/']).any(|part| part.is_empty() || part == "..") {
            return Err(Fault::input(format!("{name:?} is not a sysctl")));
        }
        // A slash in the name stands for a dot in an interface's name (sysctl(8)).
        let path: String = name
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                other => other,
            })
            .collect();
        write_proc(&proc, &format!("sys/{path}"), value)
            .map_err(|fault| fault.within(format!("set sysctl {name}")))?;
    }
    Ok(())
}

fn set_up_streams(stdio: Option<[OwnedFd; 3]>, terminal: Option<OwnedFd>) -> Result<()> {
    if let Some(slave) = terminal {
        rustix::process::ioctl_tiocsctty(&slave).explain(|| "take the controlling terminal".into())?;
        for number in 0..3 {
            sys::process::duplicate_to(slave.as_fd(), number).explain(|| "set up the streams".into())?;
        }
        return Ok(());
    }
    let Some(streams) = stdio else { return Ok(()) };
    for (number, stream) in streams.iter().enumerate() {
        sys::process::duplicate_to(stream.as_fd(), number as i32).explain(|| "set up the streams".into())?;
    }
    // They are duplicates now; the originals' numbers are closed with them.
    drop(streams);
    Ok(())
}

/// Opens the namespaces that are given by path.
pub fn open_namespaces(spec: &Spec) -> Result<Vec<(LinuxNamespaceType, OwnedFd)>> {
    let mut opened = Vec::new();
    for namespace in &spec.linux.namespaces {
        let Some(path) = namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) else {
            continue;
        };
        let fd = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .explain(|| format!("open the {} namespace {}", namespace.typ(), path.display()))?;
        opened.push((namespace.typ(), fd));
    }
    Ok(opened)
}

/// Joins every namespace of a running process in one call (setns(2) with a pid descriptor, Linux 5.8).
pub fn join_all(pidfd: &OwnedFd) -> Result<()> {
    let all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK;
    rustix::thread::move_into_thread_name_spaces(pidfd.as_fd(), all)
        .explain(|| "enter the container's namespaces".into())
}
