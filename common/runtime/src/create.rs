//! The parent's side of making a container.

use crate::init::{self, Plan, open_namespaces};
use crate::message::{Message, receive, send};
use crate::process::Filter;
use crate::root::RootFs;
use crate::seccomp;
use crate::spec::Spec;
use cgroup::{Cgroup, Version};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::LinuxNamespaceType;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::process::Fork;

/// The container's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// stdin, stdout, stderr.
    Streams([OwnedFd; 3]),
    /// They come from the container's own terminal.
    Terminal,
}

pub struct Options<'a> {
    pub id: &'a str,
    pub bundle: &'a Path,
    pub spec: &'a Spec,
    pub rootfs: &'a RootFs,
    pub stdio: Stdio,
    /// Directory of compiled seccomp programs.
    pub seccomp_cache: &'a Path,
    /// A network namespace to use instead of a new one: a restarted container keeps its own.
    pub network_namespace: Option<OwnedFd>,
}

/// A container whose first process exists and is not started yet.
#[derive(Debug)]
pub struct Created {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
    socket: OwnedFd,
}

/// Makes a container's namespaces, control groups and first process, and returns while that still builds its root file system:
/// [`Created::ready`] waits for it.
///
/// The caller must have one thread and be the one to wait(2) for the process. On failure nothing is left.
pub fn create(options: Options<'_>) -> Result<Created> {
    let spec = options.spec;
    // First of all, so that a profile that cannot be compiled has made nothing yet.
    let filter = match &spec.linux.seccomp {
        Some(section) => Some(seccomp::filter(section.get(), options.seccomp_cache)?),
        None => None,
    };
    let mut joined = open_namespaces(spec)?;
    if let Some(network) = options.network_namespace {
        joined.retain(|(kind, _)| *kind != LinuxNamespaceType::Network);
        joined.push((LinuxNamespaceType::Network, network));
    }
    let default_path = format!("/staves/{}", options.id);
    let path = spec.linux.cgroups_path.as_deref().filter(|path| !path.is_empty()).unwrap_or(&default_path);
    let make_cgroup = || Cgroup::create(path, spec.linux.resources.as_ref());
    // A process is made in a version 2 group. Version 1's many groups are made while it is at work, and it joins them.
    let group = match cgroup::version() {
        Some(Version::V1) => None,
        _ => Some(make_cgroup()?),
    };
    let child = Child {
        stdio: &options.stdio,
        spec,
        rootfs: options.rootfs,
        bundle: options.bundle,
        id: options.id,
        filter,
        joined,
    };
    let (pid, pidfd, socket) = match child.make(group.as_ref()) {
        Ok(made) => made,
        Err(fault) => {
            if let Some(cgroup) = group {
                let _ = cgroup.remove();
            }
            return Err(fault);
        }
    };
    drop(options.stdio);
    if let Some(cgroup) = group {
        return Ok(Created { pid, pidfd, cgroup, socket });
    }
    match make_cgroup() {
        Ok(cgroup) => {
            // A child that has ended by now has left word, and is asked for it by `ready`.
            let _ = send(&socket, &Message::Join { cgroup: cgroup.directories().to_vec() }, None);
            Ok(Created { pid, pidfd, cgroup, socket })
        }
        Err(fault) => {
            end(&pidfd);
            Err(fault)
        }
    }
}

struct Child<'a> {
    stdio: &'a Stdio,
    spec: &'a Spec,
    rootfs: &'a RootFs,
    bundle: &'a Path,
    id: &'a str,
    filter: Option<Filter>,
    joined: Vec<(LinuxNamespaceType, OwnedFd)>,
}

impl Child<'_> {
    /// `cgroup`: the group to be made in; without one it will be told which to join.
    fn make(self, cgroup: Option<&Cgroup>) -> Result<(i32, OwnedFd, OwnedFd)> {
        let own = |kind: LinuxNamespaceType| {
            self.spec.namespace(kind).is_some() && !self.joined.iter().any(|(other, _)| *other == kind)
        };
        let mut flags = 0;
        for (kind, flag) in [
            (LinuxNamespaceType::Mount, libc::CLONE_NEWNS),
            (LinuxNamespaceType::Pid, libc::CLONE_NEWPID),
            (LinuxNamespaceType::Network, libc::CLONE_NEWNET),
            (LinuxNamespaceType::Ipc, libc::CLONE_NEWIPC),
            (LinuxNamespaceType::Uts, libc::CLONE_NEWUTS),
        ] {
            if own(kind) {
                flags |= flag as u64;
            }
        }
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .explain(|| "make a socket pair".into())?;
        let directory = cgroup.map(Cgroup::v2_directory).transpose()?.flatten();
        let streams = match self.stdio {
            Stdio::Terminal => None,
            Stdio::Streams(streams) => {
                let copies: std::io::Result<Vec<OwnedFd>> = streams.iter().map(OwnedFd::try_clone).collect();
                let copies = copies.explain(|| "copy the streams".into())?;
                Some(<[OwnedFd; 3]>::try_from(copies).map_err(|_| Fault::failed("copy the streams"))?)
            }
        };
        let plan = Plan {
            id: self.id,
            spec: self.spec,
            bundle: self.bundle,
            rootfs: self.rootfs,
            root_path: self.spec.root_path(self.bundle)?,
            filter: self.filter,
            cgroup: cgroup.map(|cgroup| cgroup.directories().to_vec()),
            own_cgroup_namespace: own(LinuxNamespaceType::Cgroup),
            own_network: own(LinuxNamespaceType::Network),
            own_uts: own(LinuxNamespaceType::Uts),
            own_mounts: own(LinuxNamespaceType::Mount),
            join_namespaces: self.joined,
            stdio: streams,
        };
        let own_pid_namespace = enter_pid_namespace(&plan.join_namespaces)?;
        let forked = sys::process::clone3(flags, directory.as_ref().map(AsFd::as_fd));
        match forked {
            Ok(Fork::Child) => {
                drop(ours);
                init::run(plan, &theirs)
            }
            Ok(Fork::Parent { pid, pidfd }) => {
                leave_pid_namespace(own_pid_namespace)?;
                Ok((pid, pidfd, ours))
            }
            Err(error) => {
                leave_pid_namespace(own_pid_namespace)?;
                Err(error)
                    .explain(|| "make the container's first process".into())
                    .map_err(|fault| fault.hint("sys-check tells which namespaces this machine offers"))
            }
        }
    }
}

/// A pid namespace is joined by the children of the process that joins it. Returns our own to go back to.
fn enter_pid_namespace(joined: &[(LinuxNamespaceType, OwnedFd)]) -> Result<Option<std::fs::File>> {
    let Some((_, fd)) = joined.iter().find(|(kind, _)| *kind == LinuxNamespaceType::Pid) else {
        return Ok(None);
    };
    let own = std::fs::File::open("/proc/self/ns/pid").explain(|| "open the own pid namespace".into())?;
    join_pid_namespace(fd)?;
    Ok(Some(own))
}

fn leave_pid_namespace(own: Option<std::fs::File>) -> Result<()> {
    match own {
        Some(own) => join_pid_namespace(&own),
        None => Ok(()),
    }
}

fn join_pid_namespace(fd: impl AsFd) -> Result<()> {
    let link = rustix::thread::LinkNameSpaceType::ProcessID;
    rustix::thread::move_into_link_name_space(fd.as_fd(), Some(link))
        .explain(|| "join the pid namespace".into())
}

/// Kills and reaps a container's first process.
fn end(pidfd: &OwnedFd) {
    let _ = sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
    let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
}

/// How [`Created::start`] failed.
pub struct StartFailure {
    pub fault: Fault,
    /// 126 or 127 when it was the command that could not be run.
    pub exit_code: Option<i32>,
}

impl Created {
    /// Waits until the process is set up ("created" in the runtime specification). Returns the master side of its terminal
    /// if it has one. To be called once. After a failure the process is reaped and its control group gone.
    pub fn ready(&self) -> Result<Option<OwnedFd>> {
        let fault = match receive(&self.socket) {
            Ok(Some((Message::Ready, terminal))) => return Ok(terminal),
            Ok(Some((Message::Failed(failure), _))) => failure.into_fault(),
            Ok(_) => Fault::failed("the container's first process ended while it was set up")
                .hint("the memory limit may be too small for it"),
            Err(fault) => fault,
        };
        end(&self.pidfd);
        let _ = self.cgroup.remove();
        Err(fault)
    }

    /// Lets the process execute the command; returns when it has. After a failure the process is ending.
    pub fn start(&self) -> Result<(), StartFailure> {
        let failure = |fault| StartFailure { fault, exit_code: None };
        send(&self.socket, &Message::Start, None).map_err(failure)?;
        match receive(&self.socket).map_err(failure)? {
            None => Ok(()),
            Some((Message::Failed(reason), _)) => {
                Err(StartFailure { exit_code: reason.exit_code, fault: reason.into_fault() })
            }
            Some(_) => Err(failure(Fault::failed("the container's first process said something unexpected"))),
        }
    }
}
