//! Namespaces made, and joined by path (namespaces(7)).

use crate::spec::Spec;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Kind};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, move_into_link_name_space, move_into_thread_name_spaces,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Made by flags of clone3(2), the user namespace first and the others in it.
const MADE_BY_CLONE: [(Kind, libc::c_int); 6] = [
    (Kind::User, libc::CLONE_NEWUSER),
    (Kind::Mount, libc::CLONE_NEWNS),
    (Kind::Pid, libc::CLONE_NEWPID),
    (Kind::Network, libc::CLONE_NEWNET),
    (Kind::Ipc, libc::CLONE_NEWIPC),
    (Kind::Uts, libc::CLONE_NEWUTS),
];

/// Which namespaces a container gets, and whence.
#[derive(Debug)]
pub struct Namespaces {
    joined: Vec<(Kind, OwnedFd)>,
    own: Vec<Kind>,
}

impl Namespaces {
    /// Opens those that are given by path. `network`, `user`: to use in place of what the specification says.
    pub fn open(spec: &Spec, network: Option<OwnedFd>, user: Option<OwnedFd>) -> Result<Namespaces> {
        let mut namespaces = Namespaces { joined: Vec::new(), own: Vec::new() };
        for namespace in &spec.linux.namespaces {
            let kind = namespace.typ();
            if (kind == Kind::Network && network.is_some()) || (kind == Kind::User && user.is_some()) {
                continue;
            }
            match namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty()) {
                None => namespaces.own.push(kind),
                Some(path) => {
                    let fd = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                        .explain(|| format!("open the {kind} namespace {}", path.display()))?;
                    if kind == Kind::Mount && is_own(fd.as_fd(), "mnt") {
                        return Err(Fault::input(format!(
                            "linux.namespaces: the mount namespace {} is the one this program is in, which would lose its root",
                            path.display()
                        )));
                    }
                    namespaces.joined.push((kind, fd));
                }
            }
        }
        namespaces.joined.extend(network.map(|fd| (Kind::Network, fd)));
        namespaces.joined.extend(user.map(|fd| (Kind::User, fd)));
        Ok(namespaces)
    }

    /// Whether the container gets one of its own.
    pub fn owns(&self, kind: Kind) -> bool {
        self.own.contains(&kind)
    }

    /// One that exists and is joined.
    pub fn joined(&self, kind: Kind) -> Option<&OwnedFd> {
        self.joined.iter().find(|(joined, _)| *joined == kind).map(|(_, fd)| fd)
    }

    pub fn clone_flags(&self) -> u64 {
        MADE_BY_CLONE.iter().filter(|(kind, _)| self.owns(*kind)).map(|(_, flag)| *flag as u64).sum()
    }

    /// Whether what exists is to be entered before the child is made. A user namespace that exists has to be, as others are made
    /// in it; and another one may be closed to whoever is in the container's user namespace, where that does not own it.
    pub fn are_entered_first(&self) -> bool {
        let mut joined = self.joined.iter();
        self.joined(Kind::User).is_some()
            || (self.owns(Kind::User) && joined.any(|(kind, _)| !matches!(kind, Kind::Pid | Kind::Mount)))
    }

    /// Joins, with the caller's privileges, what these suffice for; which that is. The rest [`Namespaces::join`] tries from inside
    /// the user namespace. A mount namespace is left to it: one that cannot be joined there cannot be mounted in.
    pub fn enter_with_privileges(&self) -> Vec<Kind> {
        let outer = self.joined.iter().filter(|(kind, _)| *kind != Kind::Mount);
        let entered =
            outer.filter_map(|(kind, fd)| link(*kind).and_then(|link| join(fd, link).ok()).map(|()| *kind));
        entered.collect()
    }

    /// Joins what exists, in the child, but what is `entered` already. A pid namespace was joined by the parent, and a user
    /// namespace before: they take effect for a process's children.
    pub fn join(&self, entered: &[Kind]) -> Result<()> {
        for (kind, fd) in self.joined.iter().filter(|(kind, _)| !entered.contains(kind)) {
            let Some(link) = link(*kind) else { continue };
            join(fd, link).map_err(|fault| fault.within(format!("join the {kind} namespace")))?;
        }
        Ok(())
    }
}

/// What setns(2) calls those that the joining process itself comes into at once.
fn link(kind: Kind) -> Option<LinkNameSpaceType> {
    match kind {
        Kind::Network => Some(LinkNameSpaceType::Network),
        Kind::Ipc => Some(LinkNameSpaceType::InterProcessCommunication),
        Kind::Uts => Some(LinkNameSpaceType::HostNameAndNISDomainName),
        Kind::Mount => Some(LinkNameSpaceType::Mount),
        Kind::Cgroup => Some(LinkNameSpaceType::ControlGroup),
        Kind::Time => Some(LinkNameSpaceType::Time),
        Kind::Pid | Kind::User => None,
    }
}

/// Whether a namespace is the one of this thread. `name`: of the file in `/proc/PID/ns`.
pub fn is_own(namespace: BorrowedFd<'_>, name: &str) -> bool {
    let own = rustix::fs::stat(format!("/proc/thread-self/ns/{name}"));
    let id = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    own.is_ok() && own.map(id) == rustix::fs::fstat(namespace).map(id)
}

pub fn join(namespace: impl AsFd, kind: LinkNameSpaceType) -> Result<()> {
    move_into_link_name_space(namespace.as_fd(), Some(kind)).explain(|| "setns".into())
}

/// The caller's children are made in a pid namespace as long as this lives.
#[derive(Debug)]
pub struct ChildrenElsewhere {
    own: OwnedFd,
}

impl ChildrenElsewhere {
    pub fn enter(namespace: &OwnedFd) -> Result<ChildrenElsewhere> {
        let own = openat(CWD, "/proc/self/ns/pid", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .explain(|| "open the own pid namespace".into())?;
        join(namespace, LinkNameSpaceType::ProcessID)
            .map_err(|fault| fault.within("join the pid namespace"))?;
        Ok(ChildrenElsewhere { own })
    }
}

impl Drop for ChildrenElsewhere {
    fn drop(&mut self) {
        // One's own can be joined by whoever could join another.
        let _ = join(&self.own, LinkNameSpaceType::ProcessID);
    }
}

/// Joins every namespace of a running process in one call (setns(2) with a pid descriptor, Linux 5.8). `user`: its user
/// namespace too, which must be another than the caller's, and `time`: its time namespace. `listed`: those its specification
/// has, as the others are the host's, which an ordinary user may not join although it is in them.
pub fn join_all(pidfd: &OwnedFd, user: bool, time: bool, listed: Option<&[LinuxNamespace]>) -> Result<()> {
    let mut all = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::CONTROL_GROUP
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK;
    all.set(ThreadNameSpaceType::USER, user);
    all.set(ThreadNameSpaceType::TIME, time);
    let mut joined = move_into_thread_name_spaces(pidfd.as_fd(), all);
    if joined == Err(Errno::PERM)
        && let Some(listed) = listed
    {
        let own: ThreadNameSpaceType = listed.iter().map(|namespace| flag(namespace.typ())).collect();
        joined = move_into_thread_name_spaces(pidfd.as_fd(), all & own);
    }
    joined.map_err(std::io::Error::from).explain(|| "enter the container's namespaces".into())
}

fn flag(kind: Kind) -> ThreadNameSpaceType {
    match kind {
        Kind::Mount => ThreadNameSpaceType::MOUNT,
        Kind::Cgroup => ThreadNameSpaceType::CONTROL_GROUP,
        Kind::Uts => ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME,
        Kind::Ipc => ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION,
        Kind::User => ThreadNameSpaceType::USER,
        Kind::Pid => ThreadNameSpaceType::PROCESS_ID,
        Kind::Network => ThreadNameSpaceType::NETWORK,
        Kind::Time => ThreadNameSpaceType::TIME,
    }
}

/// The superuser of the user namespace this process has just come into, if that knows one.
pub fn become_superuser() -> Result<()> {
    use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
    let (gid, uid) = (rustix::fs::Gid::ROOT, rustix::fs::Uid::ROOT);
    match set_thread_groups(&[]) {
        // Of one mapped without privileges the groups stay.
        Ok(()) | Err(Errno::PERM) => {}
        Err(error) => {
            return Err(std::io::Error::from(error)).explain(|| "leave the supplementary groups".into());
        }
    }
    set_thread_res_gid(gid, gid, gid)
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .explain(|| "become the superuser of the user namespace".into())
        .map_err(|fault: Fault| fault.hint("linux.uidMappings and gidMappings must have containerID 0"))
}
