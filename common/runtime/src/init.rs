//! The child: builds the container around itself, says it is ready, waits, and becomes the command.

use crate::create::Manners;
use crate::exec::set_size;
use crate::gate;
use crate::hooks::{self, Place, Point};
use crate::message::{Failure, Message, receive, send};
use crate::mounts::{Mounter, Prepared, Surroundings};
use crate::namespaces::{Namespaces, become_superuser};
use crate::process::{Command, ExecFailure, private_proc, write_proc};
use crate::root::{Root, RootFs};
use crate::seccomp::Filter;
use crate::spec::Spec;
use crate::state::{State, Status};
use crate::{devices, host_root, labels, masks, timens};
use cgroup::Version;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::LinuxNamespaceType as Kind;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{DumpableBehavior, set_dumpable_behavior, set_parent_process_death_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::mount::{MOUNT_ATTR_RDONLY, MountAttributes};

/// What the child needs, made ready by the parent.
pub struct Plan<'a> {
    pub state: &'a State,
    pub spec: &'a Spec,
    pub bundle: &'a Path,
    pub rootfs: &'a RootFs,
    pub root_path: PathBuf,
    /// What the mounts need from outside.
    pub prepared: Prepared,
    pub filter: Option<Filter>,
    /// The control groups the child was made in; `None` when it will be told which to join.
    pub cgroup: Option<Vec<PathBuf>>,
    pub cgroup_is_v2: bool,
    pub namespaces: &'a Namespaces,
    /// Those by path the child is in from its beginning.
    pub entered: Vec<Kind>,
    /// Standard streams; without them those of the terminal or, if there is none, the parent's.
    pub stdio: Option<[OwnedFd; 3]>,
    pub entrance: Entrance,
    pub dies_with_parent: bool,
    pub manners: Manners,
}

/// Where the order to start comes from.
pub enum Entrance {
    Parent,
    Listener(OwnedFd),
}

/// In a user namespace a process may not do so itself.
pub fn is_limited_from_outside(namespaces: &Namespaces) -> bool {
    namespaces.owns(Kind::User) || namespaces.joined(Kind::User).is_some()
}

/// Runs in the child and does not return.
pub fn run(plan: Plan<'_>, socket: OwnedFd) -> ! {
    let mut asker = socket;
    let failure = match set_up_and_wait(plan, &mut asker) {
        Ok(command) => command.execute(&[asker.as_fd()]),
        Err(failure) => failure,
    };
    // Whoever asked may be gone; there is nobody else to tell.
    let _ = send(&asker, &Message::Failed(Failure::of(&failure.fault, failure.exit_code)), None);
    sys::process::exit_now(failure.exit_code.unwrap_or(125))
}

/// `asker`: who is to be told of failures, first the parent, then whoever gives the order to start.
fn set_up_and_wait(mut plan: Plan<'_>, asker: &mut OwnedFd) -> Result<Command, ExecFailure> {
    if plan.namespaces.owns(Kind::User) {
        let Some((Message::Mapped, _)) = receive(&*asker)? else { given_up() };
        become_superuser()?;
    }
    set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .explain(|| "set the parent death signal".into())?;
    enter_time_namespace(&plan)?;
    // Nothing inside may look into this process before it is the command (CVE-2016-9962).
    set_dumpable_behavior(DumpableBehavior::NotDumpable).explain(|| "become non-dumpable".into())?;
    let mut groups = Groups::new(&mut plan, asker)?;
    rustix::process::setsid().explain(|| "start a session".into())?;
    let process = plan.spec.process()?;
    if !plan.manners.no_new_keyring {
        join_keyring(&plan.state.id, &process.selinux_label)?;
    }
    plan.namespaces.join(&plan.entered)?;
    if plan.namespaces.owns(Kind::Network) {
        sys::process::loopback_up().explain(|| "bring up the loopback interface".into())?;
    }
    set_host_name(&plan)?;
    let prepared = std::mem::take(&mut plan.prepared);
    let terminal = build_root(&plan, prepared, &mut groups)?;
    let command = command(&plan, plan.filter.clone())?;
    command.enter_final_affinity(true)?;
    command.raise_limits()?;
    if plan.manners.find_command {
        command.check_program()?;
    }
    if let (Some((master, _)), Some(size)) = (&terminal, &process.console_size) {
        set_size(master, size)?;
    }
    let (master, slave) = terminal.map_or((None, None), |(master, slave)| (Some(master), Some(slave)));
    set_up_streams(plan.stdio.take(), slave)?;
    command.load_notify(asker)?;
    if !plan.dies_with_parent {
        set_parent_process_death_signal(None).explain(|| "clear the parent death signal".into())?;
    }
    send(&*asker, &Message::Ready, master.as_ref().map(AsFd::as_fd))?;
    drop(master);
    if let Entrance::Listener(listener) = &plan.entrance {
        *asker = gate::wait(listener)?;
    }
    match receive(&*asker)? {
        Some((Message::Start, _)) => Ok(command),
        _ => given_up(),
    }
}

/// The parent gave up, or is gone.
fn given_up() -> ! {
    sys::process::exit_now(125)
}

fn command(plan: &Plan<'_>, filter: Option<Filter>) -> Result<Command> {
    let mut command = Command::new(plan.spec.process()?, filter)?
        .in_container(&plan.spec.linux)?
        .preserving(plan.manners.preserve_fds)
        .with_start_hooks(&plan.spec.hooks, own_state(plan, Status::Created));
    if plan.manners.home {
        command = command.with_home()?;
    }
    if is_limited_from_outside(plan.namespaces) {
        command = command.limited_from_outside();
    }
    Ok(command)
}

/// The container's state as hooks inside it are told.
fn own_state(plan: &Plan<'_>, status: Status) -> State {
    State { status, pid: Some(rustix::process::getpid().as_raw_pid()), ..plan.state.clone() }
}

fn enter_time_namespace(plan: &Plan<'_>) -> Result<()> {
    if !plan.namespaces.owns(Kind::Time) {
        return Ok(());
    }
    // The file to be written belongs to the host's superuser otherwise.
    if is_limited_from_outside(plan.namespaces) {
        set_dumpable_behavior(DumpableBehavior::Dumpable).explain(|| "become dumpable".into())?;
    }
    timens::enter_new(&plan.spec.linux.time_offsets)
}

/// The container's control groups, joined as late as can be where the parent still makes them.
struct Groups {
    directories: Option<Vec<PathBuf>>,
    own_namespace: bool,
    version_2: bool,
    socket: OwnedFd,
}

impl Groups {
    fn new(plan: &mut Plan<'_>, socket: &OwnedFd) -> Result<Groups> {
        let directories = plan.cgroup.take();
        let groups = Groups {
            own_namespace: plan.namespaces.owns(Kind::Cgroup),
            version_2: plan.cgroup_is_v2,
            directories,
            socket: socket.try_clone().explain(|| "copy a descriptor".into())?,
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
            let Some((Message::Join { cgroup, joined }, _)) = receive(&self.socket)? else { given_up() };
            let version = if self.version_2 { Version::V2 } else { Version::V1 };
            for directory in cgroup.iter().filter(|_| !joined) {
                let path = cgroup::join_file(version, directory);
                match std::fs::write(&path, "0") {
                    // No limit depends on it.
                    Err(_) if cgroup::is_for_tracking(version, directory) => {}
                    joined => joined.explain(|| format!("join the control group {}", path.display()))?,
                }
            }
            self.directories = Some(cgroup);
            self.enter_namespace()?;
        }
        Ok(self.directories.as_deref().unwrap_or_default())
    }
}

pub fn join_keyring(id: &str, label: &str) -> Result<()> {
    let name = std::ffi::CString::new(format!("_ses.{id}")).map_err(|_| Fault::input("NUL in the id"))?;
    let labelled = !label.is_empty();
    if labelled {
        labels::label_keys(Some(label))?;
    }
    let joined = match sys::process::join_new_session_keyring(&name) {
        // No keyrings in this kernel, or the user's quota of keys is used up: docker goes on as well.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EDQUOT)) => Ok(()),
        joined => joined.explain(|| "join a new session keyring".into()),
    };
    if labelled {
        labels::label_keys(None)?;
    }
    joined
}

fn set_host_name(plan: &Plan<'_>) -> Result<()> {
    if !plan.namespaces.owns(Kind::Uts) && plan.namespaces.joined(Kind::Uts).is_none() {
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
fn build_root(
    plan: &Plan<'_>,
    prepared: Prepared,
    groups: &mut Groups,
) -> Result<Option<(OwnedFd, OwnedFd)>> {
    let is_on_host = matches!(plan.rootfs, RootFs::OnHost(_));
    if is_on_host == (plan.namespaces.owns(Kind::Mount) || plan.namespaces.joined(Kind::Mount).is_some()) {
        return Err(Fault::input("a container needs a mount namespace of its own, or one by path"));
    }
    let propagation = Propagation::of(plan.spec.linux.rootfs_propagation.as_deref())?;
    if !is_on_host {
        mount_change("/", propagation.before).explain(|| "detach from the host's mounts".into())?;
    }
    let root = plan.rootfs.mount(&plan.root_path)?;
    let own_cgroups = plan.namespaces.owns(Kind::Cgroup) || plan.namespaces.joined(Kind::Cgroup).is_some();
    let mut mounter = Mounter::new(&root, &plan.root_path, prepared, own_cgroups);
    if is_on_host {
        mounter = mounter.on_host();
    }
    for (index, mount) in plan.spec.mounts.iter().enumerate() {
        // The parent answers no question before it has said which groups to join.
        if mount.typ().as_deref() == Some("cgroup") || mounter.may_ask(index) {
            groups.joined()?;
        }
        let surroundings = Surroundings {
            cgroup_is_v2: groups.version_2,
            cgroup: groups.directories.as_deref().unwrap_or_default(),
            bundle: plan.bundle,
            map_outside: &|index, tree| map_outside(&groups.socket, index, tree),
        };
        mounter.make(index, mount, &surroundings)?;
    }
    devices::set_up(&root, mounter.dev(), &plan.spec.linux.devices)?;
    let terminal = if plan.spec.terminal() { Some(devices::console(&root)?) } else { None };
    write_sysctls(plan.spec)?;
    masks::make_readonly(&root, &plan.spec.linux.readonly_paths)?;
    masks::mask(&root, &plan.spec.linux.masked_paths)?;
    mounter.finish()?;
    make_working_directory(plan.spec, &root);
    // At the latest: from inside they cannot be seen.
    groups.joined()?;
    run_hooks(plan, groups)?;
    if is_on_host {
        host_root::enter(&root.fd)?;
    } else if plan.manners.no_pivot {
        crate::no_pivot::move_over(&root, &plan.root_path)?;
    } else {
        pivot(&root)?;
    }
    if let Some(flags) = propagation.after {
        mount_change("/", flags).explain(|| "set the root's propagation".into())?;
    }
    if plan.spec.root_is_readonly() {
        let readonly = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
        sys::mount::mount_setattr(root.fd.as_fd(), false, readonly)
            .explain(|| "make the root read-only".into())?;
    }
    Ok(terminal)
}

fn map_outside(socket: &OwnedFd, index: usize, tree: &OwnedFd) -> Result<()> {
    send(socket, &Message::MapOwners { index }, Some(tree.as_fd()))?;
    match receive(socket)? {
        Some((Message::OwnersMapped, _)) => Ok(()),
        _ => given_up(),
    }
}

/// `linux.rootfsPropagation`.
struct Propagation {
    /// What is mounted from here on stays here. Mounts made on the host later still come in, as a bind with `rslave` wants.
    before: MountPropagationFlags,
    /// Of the root, once it is that.
    after: Option<MountPropagationFlags>,
}

impl Propagation {
    fn of(name: Option<&str>) -> Result<Propagation> {
        use MountPropagationFlags as Flags;
        let slave = Flags::DOWNSTREAM | Flags::REC;
        let (before, after) = match name {
            None | Some("" | "rslave") => (slave, None),
            Some("slave") => (slave, Some(Flags::DOWNSTREAM)),
            Some("private") => (Flags::PRIVATE | Flags::REC, Some(Flags::PRIVATE)),
            Some("rprivate") => (Flags::PRIVATE | Flags::REC, None),
            Some("shared") => (slave, Some(Flags::SHARED)),
            Some("rshared") => (slave, Some(Flags::SHARED | Flags::REC)),
            Some("unbindable") => (slave, Some(Flags::UNBINDABLE)),
            Some("runbindable") => (slave, Some(Flags::UNBINDABLE | Flags::REC)),
            Some(other) => {
                return Err(Fault::input(format!("linux.rootfsPropagation: {other:?} is unknown")));
            }
        };
        Ok(Propagation { before, after })
    }
}

/// Those outside by the parent, then those in the container's namespaces, all while the host's root is still there.
fn run_hooks(plan: &Plan<'_>, groups: &Groups) -> Result<()> {
    let hooks = &plan.spec.hooks;
    if hooks.is_empty() {
        return Ok(());
    }
    send(&groups.socket, &Message::Mounted, None)?;
    let Some((Message::Proceed, _)) = receive(&groups.socket)? else { given_up() };
    // As runc and crun have it: people's hooks name files of the container without a slash in front.
    let place = Place { directory: Some(&plan.root_path), environment: None };
    hooks::run(hooks, Point::CreateContainer, &own_state(plan, Status::Creating), place)
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
