//! A further process in a running container.

use crate::create::{Manners, Stdio, end, number_of, reap};
use crate::gate::StartFailure;
use crate::groups::is_closed;
use crate::message::{self, Failure, Message, receive, send};
use crate::namespaces::{become_superuser, join_all};
use crate::process::{Command, ExecFailure, Limits};
use crate::seccomp::{self, Agent};
use crate::spec::{ConsoleSize, Linux, Process};
use crate::state::State;
use crate::{host_root, init, labels, rdt};
use cgroup::{Cgroup, Entry};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::LinuxNamespaceType as Kind;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{DumpableBehavior, set_dumpable_behavior, set_parent_process_death_signal};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use sys::process::Fork;

pub struct ExecOptions<'a> {
    /// The container's init.
    pub pidfd: OwnedFd,
    pub process: &'a Process,
    /// What holds for every process of the container.
    pub linux: Option<&'a Linux>,
    /// Text of the container's seccomp section.
    pub seccomp: Option<&'a str>,
    pub seccomp_cache: &'a Path,
    /// The container's state, which is asked for where a seccomp agent is to be told of the process.
    pub state: &'a dyn Fn() -> State,
    pub cgroup: &'a Cgroup,
    pub rdt: Option<&'a rdt::Group>,
    /// The process goes on when this one ends.
    pub detach: bool,
    pub stdio: Stdio,
    /// The container has a user namespace that is not the caller's.
    pub user_namespace: bool,
    /// The container has a time namespace that is not the caller's.
    pub time_namespace: bool,
    /// Join the session keyring of the container with this id.
    pub keyring: Option<&'a str>,
    pub manners: Manners,
}

/// A process that is executing its command.
#[derive(Debug)]
pub struct Executed {
    /// As this process sees it.
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub terminal: Option<OwnedFd>,
}

/// Enters the container and runs the process there, as this process's child. This process is in the container's
/// namespaces afterwards, and must have had one thread.
pub fn exec(options: ExecOptions<'_>) -> Result<Executed, StartFailure> {
    exec_inner(options).map_err(|failure| StartFailure { fault: failure.fault, exit_code: failure.exit_code })
}

fn exec_inner(options: ExecOptions<'_>) -> Result<Executed, ExecFailure> {
    labels::check(options.process)?;
    let filter = match options.seccomp {
        Some(section) => Some(seccomp::filter(section, options.seccomp_cache)?),
        None => None,
    };
    // In the container the agent's socket would be another file, or none.
    let agent = match (&filter, options.seccomp) {
        (Some(filter), Some(section)) if filter.notify.is_some() => {
            Some((Agent::of(section)?, (options.state)()))
        }
        _ => None,
    };
    let mut connection = agent.as_ref().map(|(agent, _)| agent.connect()).transpose()?;
    let mut command = Command::new(options.process, filter)?.preserving(options.manners.preserve_fds);
    if let Some(linux) = options.linux {
        command = command.in_container(linux)?;
    }
    if options.manners.home {
        command = command.with_home()?;
    }
    // What an ordinary user was given may be out of reach from where this process is; runc goes on as well.
    let rootless = options.manners.rootless.holds();
    let mut join = match options.cgroup.entries(options.pidfd.as_fd()) {
        Err(fault) if rootless && is_closed(&fault) => Vec::new(),
        entries => entries?,
    };
    set_dumpable_behavior(DumpableBehavior::NotDumpable).explain(|| "become non-dumpable".into())?;
    if options.user_namespace {
        // The child inherits them; in there it could set them no more.
        Limits::of(options.process).set(rustix::process::getpid().as_raw_pid())?;
        command = command.limited_from_outside();
    }
    if let Some(group) = options.rdt {
        group.join(rustix::process::getpid().as_raw_pid())?;
    }
    command.enter_initial_affinity()?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .explain(|| "make a socket pair".into())?;
    let listed = options.linux.map(|linux| linux.namespaces.as_slice());
    let unified = options.cgroup.unified_directory();
    let root = match listed {
        Some(listed) if listed.iter().all(|namespace| namespace.typ() != Kind::Mount) => {
            Some(root_of(&options.pidfd)?)
        }
        _ => None,
    };
    join_all(&options.pidfd, options.user_namespace, options.time_namespace, listed)?;
    // The root of the namespace is the host's.
    if let Some(root) = root {
        host_root::enter(&root)?;
    }
    // Not everybody may make a process there who may join it.
    let made = unified.and_then(|directory| sys::process::clone3(0, Some(directory.as_fd())).ok());
    let is_in_unified = made.is_some();
    let made = made.map_or_else(|| sys::process::clone3(0, None), Ok);
    match made.explain(|| "make a process in the container".into())? {
        Fork::Child => {
            drop(ours);
            join.retain(|entry| !(is_in_unified && entry.is_unified()));
            // To the agent it ends when the parent has sent its message.
            drop(connection);
            run(&command, Join { entries: join, rootless }, options, &theirs)
        }
        Fork::Parent { pid, pidfd } => {
            drop(theirs);
            drop(options.stdio);
            let mut terminal = None;
            loop {
                match receive(&ours)? {
                    None => return Ok(Executed { pid, pidfd, terminal }),
                    Some((Message::Ready, fd)) => terminal = fd,
                    Some((Message::Listener { number }, passed)) => {
                        let given = message::listener(&ours, &pidfd, number, passed, |listener| {
                            match (connection.take(), &agent) {
                                (Some(connection), Some((_, state))) => connection.send(pid, state, listener),
                                _ => Ok(()),
                            }
                        });
                        if let Err(fault) = given {
                            end(&pidfd);
                            return Err(fault.into());
                        }
                    }
                    Some((Message::Failed(failure), _)) => {
                        reap(&pidfd);
                        return Err(ExecFailure {
                            exit_code: failure.exit_code,
                            fault: failure.into_fault(),
                        });
                    }
                    Some(_) => return Err(Fault::failed("the process said something unexpected").into()),
                }
            }
        }
    }
}

/// The root of a container that has none of its own in its mount namespace.
fn root_of(init: &OwnedFd) -> Result<OwnedFd> {
    let gone = || Fault::conflict("the container's first process has ended");
    let root = format!("/proc/{}/root", number_of(init).ok_or_else(gone)?);
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = openat(CWD, &root, flags, Mode::empty()).explain(|| format!("open {root}"))?;
    // As long as it is there, so is its number.
    match sys::process::pidfd_send_signal(init.as_fd(), 0) {
        Ok(()) => Ok(opened),
        Err(_) => Err(gone()),
    }
}

/// How the process joins the container's control groups.
struct Join {
    entries: Vec<Entry>,
    rootless: bool,
}

fn run(command: &Command, join: Join, options: ExecOptions<'_>, socket: &OwnedFd) -> ! {
    let failure = match enter(command, join, options, socket) {
        Ok(()) => command.execute(&[socket.as_fd()]),
        Err(fault) => fault.into(),
    };
    let _ = send(socket, &Message::Failed(Failure::of(&failure.fault, failure.exit_code)), None);
    sys::process::exit_now(failure.exit_code.unwrap_or(126))
}

fn enter(command: &Command, join: Join, options: ExecOptions<'_>, socket: &OwnedFd) -> Result<()> {
    if options.user_namespace {
        become_superuser()?;
    }
    if !options.detach {
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
            .explain(|| "set the parent death signal".into())?;
    }
    for entry in join.entries {
        let joined = entry.enter();
        joined.or_else(|fault| if join.rootless && is_closed(&fault) { Ok(()) } else { Err(fault) })?;
    }
    command.enter_final_affinity(false)?;
    rustix::process::setsid().explain(|| "start a session".into())?;
    if let Some(id) = options.keyring {
        init::join_keyring(id, &options.process.selinux_label)?;
    }
    let mut master = None;
    let streams = match options.stdio {
        Stdio::Inherited => None,
        Stdio::Streams(streams) => Some(streams),
        Stdio::Terminal => {
            let (ours, slave) = terminal()?;
            rustix::process::ioctl_tiocsctty(&slave).explain(|| "take the controlling terminal".into())?;
            if let Some(size) = &options.process.console_size {
                set_size(&ours, size)?;
            }
            // Who does not detach relays it; here since the process does not wait for anybody.
            if !options.detach {
                leave_newlines(&ours)?;
            }
            master = Some(ours);
            let copy = || slave.try_clone().explain(|| "copy the terminal".into());
            Some([copy()?, copy()?, copy()?])
        }
    };
    for (number, stream) in streams.iter().flatten().enumerate() {
        sys::process::duplicate_to(stream.as_fd(), number as i32).explain(|| "set up the streams".into())?;
    }
    command.load_notify(socket)?;
    send(socket, &Message::Ready, master.as_ref().map(AsFd::as_fd))
}

/// What the process prints goes to a terminal in raw mode, or to no terminal: newlines are to stay what they are. To be called before the
/// process prints.
///
/// # Errors
/// Fails if `terminal` is none.
pub fn leave_newlines(terminal: &OwnedFd) -> Result<()> {
    let what = || "set up the terminal".to_owned();
    let mut settings = rustix::termios::tcgetattr(terminal).explain(what)?;
    settings.output_modes.remove(rustix::termios::OutputModes::ONLCR);
    rustix::termios::tcsetattr(terminal, rustix::termios::OptionalActions::Now, &settings).explain(what)
}

pub fn set_size(terminal: &OwnedFd, size: &ConsoleSize) -> Result<()> {
    let cells = |count: u64| u16::try_from(count).unwrap_or(u16::MAX);
    let size = rustix::termios::Winsize {
        ws_row: cells(size.height),
        ws_col: cells(size.width),
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    rustix::termios::tcsetwinsize(terminal, size).explain(|| "set the terminal's size".into())
}

/// A terminal of the container's devpts. Its master must be the real multiplexer's (character device 5:2).
fn terminal() -> Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let master =
        openat(CWD, "/dev/pts/ptmx", flags, Mode::empty()).explain(|| "open /dev/pts/ptmx".into())?;
    let stat = rustix::fs::fstat(&master).explain(|| "look at /dev/pts/ptmx".into())?;
    if stat.st_rdev != rustix::fs::makedev(5, 2) {
        return Err(Fault::denied("/dev/pts/ptmx in the container is not the terminal multiplexer"));
    }
    rustix::pty::unlockpt(&master).explain(|| "unlock the terminal".into())?;
    let pty =
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, pty).explain(|| "open the terminal".into())?;
    Ok((master, slave))
}
