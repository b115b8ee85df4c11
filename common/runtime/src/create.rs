//! The parent's side of making a container.

use crate::gate::{self, Gate, StartFailure};
use crate::groups::Rootless;
use crate::hooks::{self, Hooks, Place, Point};
use crate::init::{self, Entrance, Plan};
use crate::message::{self, Message, receive, send};
use crate::mounts::{self, Prepared};
use crate::namespaces::{ChildrenElsewhere, Namespaces, join};
use crate::process::Limits;
use crate::root::RootFs;
use crate::seccomp::{self, Agent, Filter};
use crate::spec::Spec;
use crate::state::{State, Status};
use crate::{devices, groups, mapped, mappings, netdevices, rdt};
use cgroup::{Cgroup, Unified, Version, systemd};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::LinuxNamespaceType as Kind;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::LinkNameSpaceType;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use sys::process::Fork;

/// The container's standard streams.
#[derive(Debug)]
pub enum Stdio {
    /// stdin, stdout, stderr.
    Streams([OwnedFd; 3]),
    /// They come from the container's own terminal.
    Terminal,
    /// The caller's.
    Inherited,
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
    /// The same of a user namespace, which must have the specification's mappings: it owns the network namespace that is kept.
    pub user_namespace: Option<OwnedFd>,
    /// Where the order to start comes from.
    pub gate: Gate<'a>,
    /// Sources of bind mounts, by the places of these in the specification: trees that are mounted nowhere yet.
    pub trees: Vec<(usize, OwnedFd)>,
    /// The container ends when the caller does.
    pub dies_with_parent: bool,
    /// What the first process is not to hold even until it is started: locks and listening sockets, which would seem to be the
    /// caller's as long as it has not died with the caller.
    pub callers_alone: &'a [BorrowedFd<'a>],
    pub manners: Manners,
}

/// What engines ask of an OCI runtime by flags.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// Put the root over "/" instead of exchanging them, for hosts whose own root is a ramdisk.
    pub no_pivot: bool,
    /// Leave the session keyring as it is.
    pub no_new_keyring: bool,
    /// How many descriptors after the standard streams the command gets.
    pub preserve_fds: u32,
    /// runc's environment: each variable once, and `HOME` where it is missing.
    pub home: bool,
    /// A command that is not there is told when the container is created, not when it is started.
    pub find_command: bool,
    /// Go on without control groups where they are closed to the caller.
    pub rootless: Rootless,
    /// `linux.cgroupsPath` is the caller's own choice, not the specification's.
    pub default_group: bool,
    /// Have control groups made by this systemd; `linux.cgroupsPath` is `slice:prefix:name` then.
    pub systemd: Option<systemd::Manager>,
}

/// A container whose first process exists and is not started yet.
#[derive(Debug)]
pub struct Created {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
    pub rdt: Option<rdt::Group>,
    /// `SECCOMP_FILTER_FLAG_*` of its filters; `None` without one.
    pub seccomp_flags: Option<u32>,
    socket: OwnedFd,
    /// What is to be run outside, when the child has come to it.
    hooks: Option<(Hooks, State)>,
    /// Who is to have the child's seccomp listener.
    agent: Option<(Agent, State)>,
    /// What the child may not set itself.
    limits: Option<Limits>,
    /// How the owners of mounts are mapped that the child finds in the container.
    owners: mounts::Owners,
}

/// Makes a container's namespaces, control groups and first process, and returns while that still builds its root file system:
/// [`Created::ready`] waits for it.
///
/// The caller must have one thread and be the one to wait(2) for the process. On failure nothing is left.
pub fn create(options: Options<'_>) -> Result<Created> {
    let spec = options.spec;
    spec.process()?.check_capabilities()?;
    // First of all, so that what cannot be done has made nothing yet.
    spec.check_machine()?;
    devices::check(&spec.linux.devices)?;
    let (filter, agent) = match &spec.linux.seccomp {
        Some(section) => {
            let filter = seccomp::filter(section.get(), options.seccomp_cache)?;
            let agent = filter.notify.as_ref().map(|_| Agent::of(section.get())).transpose()?;
            (Some(filter), agent)
        }
        None => (None, None),
    };
    let rdt = match &spec.linux.intel_rdt {
        Some(wishes) => Some((rdt::root()?, wishes)),
        None => None,
    };
    let is_kept = options.user_namespace.is_some();
    let namespaces = Namespaces::open(spec, options.network_namespace, options.user_namespace)?;
    if let Some(user) = namespaces.joined(Kind::User).filter(|_| !is_kept) {
        mappings::agree(&spec.linux, user.as_fd())?;
    }
    let joined = namespaces.joined(Kind::User).map(AsFd::as_fd);
    let mut users = mounts::Users::new(spec, joined);
    let mut prepared = mounts::prepare_with(spec, options.bundle, &mut users)?;
    for (index, tree) in options.trees {
        prepared.give(index, tree)?;
    }
    let mapped = if options.rootfs.is_mapped() && spec.namespace(Kind::User).is_some() {
        let root_path = spec.root_path(options.bundle)?;
        let users = users.of_container()?;
        mapped::mount(options.rootfs, &root_path, spec, users.as_fd(), joined.is_some())?
    } else {
        None
    };
    let owners = std::mem::take(&mut prepared.owners);
    let entrance = match options.gate {
        Gate::Caller => None,
        Gate::Socket(path) => Some(gate::listen(path)?),
    };
    let make_groups = || groups::make(options.id, spec, options.manners);
    let wanted = options.manners.systemd.map(|manager| groups::of_systemd(manager, spec)).transpose()?;
    // A process is made in a version 2 group. Version 1's many groups are made while it is at work, and it joins them. systemd
    // makes none without a process in it.
    let version = cgroup::version();
    let group = match version {
        Some(Version::V1) => None,
        _ if wanted.is_some() => None,
        _ => Some(make_groups()?),
    };
    let seccomp_flags = filter.as_ref().map(Filter::all_flags);
    let state = State {
        oci_version: spec.oci_version.clone(),
        id: options.id.to_owned(),
        status: Status::Creating,
        pid: None,
        bundle: options.bundle.to_owned(),
        annotations: spec.annotations.clone(),
    };
    let unified = match version {
        Some(Version::V1) if wanted.is_none() => groups::make_unified(options.id, spec),
        _ => None,
    };
    let child = Child {
        unified: unified.as_ref().and_then(Unified::open),
        stdio: &options.stdio,
        spec,
        rootfs: mapped.as_ref().unwrap_or(options.rootfs),
        bundle: options.bundle,
        state: &state,
        prepared,
        filter,
        namespaces: &namespaces,
        entrance,
        dies_with_parent: options.dies_with_parent,
        callers_alone: options.callers_alone,
        manners: options.manners,
        cgroup_is_v2: version == Some(Version::V2),
    };
    let (pid, pidfd, socket, in_unified) = match child.make(group.as_ref()) {
        Ok(made) => made,
        Err(fault) => {
            if let Some(unified) = unified {
                unified.remove();
            }
            if let Some(cgroup) = group {
                let _ = cgroup.remove_with_new_parents();
            }
            return Err(fault);
        }
    };
    drop(options.stdio);
    let hooks = Some(&spec.hooks).filter(|hooks| !hooks.is_empty());
    let state = State { pid: Some(pid), ..state };
    let agent = agent.map(|agent| (agent, state.clone()));
    let hooks = hooks.map(|hooks| (hooks.clone(), state));
    let furnished = furnish(spec, &namespaces, pid, &socket, rdt.as_ref().map(|_| options.id));
    let limits =
        init::is_limited_from_outside(&namespaces).then(|| spec.process().map(Limits::of)).transpose()?;
    let is_late = group.is_none();
    let make_late = || match &wanted {
        Some(wanted) => wanted.create(pid, spec.linux.resources.as_ref()),
        None => make_groups(),
    };
    match furnished.and_then(|rdt| Ok((group.map_or_else(make_late, Ok)?, rdt))) {
        Ok((cgroup, rdt)) => {
            let cgroup = cgroup.with(unified);
            // Version 2's one group systemd has moved it to.
            let has_joined = wanted.is_some() && cgroup.version() == Version::V2;
            let ready = groups::hand_over(&cgroup, spec, &namespaces, options.manners).and_then(|()| {
                let outside = init::is_limited_from_outside(&namespaces);
                if is_late {
                    have_join(&cgroup, &socket, pid, outside, has_joined, in_unified)
                } else {
                    Ok(())
                }
            });
            if let Err(fault) = ready {
                end(&pidfd);
                let _ = cgroup.remove_with_new_parents();
                return Err(fault);
            }
            Ok(Created { pid, pidfd, cgroup, rdt, seccomp_flags, socket, hooks, agent, limits, owners })
        }
        Err(fault) => {
            // What went wrong in the child comes first: systemd takes no process that has ended.
            let fault = wanted.and_then(|_| last_words(&pidfd, &socket)).unwrap_or(fault);
            end(&pidfd);
            if let Some(unified) = unified {
                unified.remove();
            }
            Err(fault)
        }
    }
}

/// What a child that has ended has said.
fn last_words(pidfd: &OwnedFd, socket: &OwnedFd) -> Option<Fault> {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)).ok().filter(|ended| *ended > 0)?;
    loop {
        // What else it said nobody answers any more.
        if let (Message::Failed(failure), _) = receive(socket).ok()?? {
            return Some(failure.into_fault());
        }
    }
}

/// Has the child join the groups it was not made in, unless it `has_joined` them. `outside`: in a user namespace it may not do
/// so itself. `in_unified`: it was made in that part of it.
fn have_join(
    cgroup: &Cgroup,
    socket: &OwnedFd,
    pid: i32,
    outside: bool,
    has_joined: bool,
    in_unified: bool,
) -> Result<()> {
    if outside && !has_joined {
        for entry in cgroup.join_files()?.into_iter().filter(|entry| !(in_unified && entry.is_unified())) {
            entry.put(pid)?;
        }
    }
    let directories = cgroup.directories().iter();
    let directories = directories.filter(|directory| !in_unified || cgroup::is_version_1(directory));
    let message = Message::Join { cgroup: directories.cloned().collect(), joined: outside || has_joined };
    // A child that has ended by now has left word, and is asked for it by `ready`.
    let _ = send(socket, &message, None);
    Ok(())
}

/// Gives the new process what has to come from outside.
fn furnish(
    spec: &Spec,
    namespaces: &Namespaces,
    pid: i32,
    socket: &OwnedFd,
    rdt_for: Option<&str>,
) -> Result<Option<rdt::Group>> {
    if namespaces.owns(Kind::User) {
        mappings::write(pid, &spec.linux.uid_mappings, &spec.linux.gid_mappings)?;
    }
    if !spec.linux.net_devices.is_empty() {
        // What is to be joined the child may not have joined yet.
        let own = match namespaces.joined(Kind::Network) {
            Some(namespace) => namespace.try_clone(),
            None => std::fs::File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from),
        };
        let namespace = own.explain(|| "open the container's network namespace".into())?;
        netdevices::move_into(&spec.linux.net_devices, namespace.as_fd())?;
    }
    if namespaces.owns(Kind::User) {
        send(socket, &Message::Mapped, None)?;
    }
    match (&spec.linux.intel_rdt, rdt_for) {
        (Some(wishes), Some(id)) => rdt::apply(&rdt::root()?, wishes, id, pid).map(Some),
        _ => Ok(None),
    }
}

struct Child<'a> {
    stdio: &'a Stdio,
    spec: &'a Spec,
    rootfs: &'a RootFs,
    bundle: &'a Path,
    state: &'a State,
    prepared: Prepared,
    filter: Option<Filter>,
    namespaces: &'a Namespaces,
    entrance: Option<OwnedFd>,
    dies_with_parent: bool,
    callers_alone: &'a [BorrowedFd<'a>],
    manners: Manners,
    cgroup_is_v2: bool,
    /// The part of its groups that it is made in, if that can be.
    unified: Option<OwnedFd>,
}

impl Child<'_> {
    /// `cgroup`: the group to be made in; without one it will be told which to join. The last one returned: whether it was made in
    /// `unified`.
    fn make(self, cgroup: Option<&Cgroup>) -> Result<(i32, OwnedFd, OwnedFd, bool)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .explain(|| "make a socket pair".into())?;
        let directory = cgroup.map(Cgroup::v2_directory).transpose()?.flatten();
        let streams = match self.stdio {
            Stdio::Terminal | Stdio::Inherited => None,
            Stdio::Streams(streams) => {
                let copies: std::io::Result<Vec<OwnedFd>> = streams.iter().map(OwnedFd::try_clone).collect();
                let copies = copies.explain(|| "copy the streams".into())?;
                Some(<[OwnedFd; 3]>::try_from(copies).map_err(|_| Fault::failed("copy the streams"))?)
            }
        };
        let mut plan = Plan {
            state: self.state,
            spec: self.spec,
            bundle: self.bundle,
            rootfs: self.rootfs,
            root_path: self.spec.root_path(self.bundle)?,
            prepared: self.prepared,
            filter: self.filter,
            cgroup: cgroup.map(|cgroup| cgroup.directories().to_vec()),
            cgroup_is_v2: self.cgroup_is_v2,
            namespaces: self.namespaces,
            entered: Vec::new(),
            stdio: streams,
            entrance: match self.entrance {
                Some(listener) => Entrance::Listener(listener),
                None => Entrance::Parent,
            },
            dies_with_parent: self.dies_with_parent,
            manners: self.manners,
        };
        let elsewhere = plan.namespaces.joined(Kind::Pid).map(ChildrenElsewhere::enter).transpose()?;
        let mut make_in = |group: Option<&OwnedFd>| {
            if plan.namespaces.are_entered_first() {
                return make_by_another(plan.namespaces, group, &mut plan.entered);
            }
            sys::process::clone3(plan.namespaces.clone_flags(), group.map(AsFd::as_fd))
                .map(Some)
                .explain(|| "make the container's first process".into())
                .map_err(|fault| fault.hint("sys-check tells which namespaces this machine offers"))
        };
        // Not everybody may make a process there who may join it.
        let in_unified = self.unified.as_ref().and_then(|unified| make_in(Some(unified)).ok());
        let is_in_unified = in_unified.is_some();
        let made = in_unified.map_or_else(|| make_in(directory.as_ref()), Ok)?;
        match made {
            Some(Fork::Child) => {
                drop(ours);
                // Without it the container would only be told of wrongly for a moment.
                let _ = sys::process::close_in_child(self.callers_alone);
                init::run(plan, theirs)
            }
            Some(Fork::Parent { pid, pidfd }) => {
                drop(elsewhere);
                Ok((pid, pidfd, ours, is_in_unified))
            }
            None => Err(Fault::failed("make the container's first process in its user namespace")
                .hint("this process may not join or make that namespace, or it knows no superuser")),
        }
    }
}

/// Namespaces belong to the user namespace their maker is in: a process in between enters what exists and makes the child, the
/// caller's own by CLONE_PARENT. It sends the child's descriptor, or nothing. `entered`: what the child is in then.
fn make_by_another(
    namespaces: &Namespaces,
    group: Option<&OwnedFd>,
    entered: &mut Vec<Kind>,
) -> Result<Option<Fork>> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .explain(|| "make a socket pair".into())?;
    let between = sys::process::clone3(0, group.map(AsFd::as_fd))
        .explain(|| "make a process to enter the namespaces".into())?;
    let Fork::Parent { pidfd, .. } = between else {
        drop(ours);
        *entered = namespaces.enter_with_privileges();
        let joined = namespaces.joined(Kind::User).map_or(Ok(()), |user| {
            join(user, LinkNameSpaceType::User).and_then(|()| crate::namespaces::become_superuser())
        });
        if joined.is_err() {
            sys::process::exit_now(1)
        }
        let flags = namespaces.clone_flags() | libc::CLONE_PARENT as u64;
        return match sys::process::clone3(flags, None) {
            Ok(Fork::Child) => Ok(Some(Fork::Child)),
            Ok(Fork::Parent { pidfd, .. }) => {
                let told = send(&theirs, &Message::Made, Some(pidfd.as_fd()));
                sys::process::exit_now(told.is_err().into())
            }
            Err(_) => sys::process::exit_now(1),
        };
    };
    drop(theirs);
    let told = receive(&ours);
    reap(&pidfd);
    match told? {
        Some((Message::Made, Some(pidfd))) => {
            let pid =
                number_of(&pidfd).ok_or_else(|| Fault::failed("the container's first process is gone"))?;
            Ok(Some(Fork::Parent { pid, pidfd }))
        }
        _ => Ok(None),
    }
}

/// What a process is called here: its maker may be in another pid namespace, and know it by another number.
pub(crate) fn number_of(pidfd: &OwnedFd) -> Option<i32> {
    let information = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    let pid = information.lines().find_map(|line| line.strip_prefix("Pid:"))?.trim().parse().ok()?;
    Some(pid).filter(|pid| *pid > 0)
}

/// Kills and reaps a container's first process.
pub(crate) fn end(pidfd: &OwnedFd) {
    let _ = sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    reap(pidfd);
}

pub(crate) fn reap(pidfd: &OwnedFd) {
    let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
    let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
}

impl Created {
    /// Waits until the process is set up ("created" in the runtime specification), and runs the hooks that are run
    /// meanwhile. Returns the master side of its terminal if it has one. To be called once. After a failure the process is
    /// reaped and its control group gone.
    pub fn ready(&self) -> Result<Option<OwnedFd>> {
        let fault = match self.wait_until_ready() {
            Ok(terminal) => return Ok(terminal),
            Err(fault) => fault,
        };
        end(&self.pidfd);
        let _ = self.cgroup.remove_with_new_parents();
        if let Some(group) = &self.rdt {
            let _ = group.remove();
        }
        Err(fault)
    }

    fn wait_until_ready(&self) -> Result<Option<OwnedFd>> {
        loop {
            match receive(&self.socket)? {
                Some((Message::Ready, terminal)) => {
                    // No earlier: what is opened for the mounts may be more than the process is to open.
                    self.limits.as_ref().map_or(Ok(()), |limits| limits.set(self.pid))?;
                    return Ok(terminal);
                }
                Some((Message::Mounted, _)) => {
                    self.run_hooks()?;
                    send(&self.socket, &Message::Proceed, None)?;
                }
                Some((Message::MapOwners { index }, Some(tree))) => {
                    self.owners.map(index, &tree)?;
                    send(&self.socket, &Message::OwnersMapped, None)?;
                }
                Some((Message::Listener { number }, passed)) => {
                    message::listener(&self.socket, &self.pidfd, number, passed, |listener| {
                        let Some((agent, state)) = &self.agent else { return Ok(()) };
                        agent.connect()?.send(self.pid, state, listener)
                    })?;
                }
                Some((Message::Failed(failure), _)) => return Err(failure.into_fault()),
                _ => {
                    return Err(Fault::failed("the container's first process ended while it was set up")
                        .hint("the memory limit may be too small for it"));
                }
            }
        }
    }

    fn run_hooks(&self) -> Result<()> {
        let Some((hooks, state)) = &self.hooks else { return Ok(()) };
        let place = Place { directory: Some(&state.bundle), environment: None };
        hooks::run(hooks, Point::Prestart, state, place)?;
        hooks::run(hooks, Point::CreateRuntime, state, place)
    }

    /// Lets the process execute the command; returns when it has. After a failure the process is ending. For
    /// [`Gate::Caller`].
    pub fn start(&self) -> Result<(), StartFailure> {
        gate::start(&self.socket)
    }
}
