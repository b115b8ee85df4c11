//! Waiting for containers to end, with patience that has an end, and what can be done when a shim does not answer.

use crate::{Client, Exit, Request};
use fault::{Explain, Fault, Kind, Result};
use record::{Container, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use store::{ContainerDir, LastRun, LiveState, Lock, Status, Subject};

/// Until when to wait; `None` means for ever.
pub type Deadline = Option<Instant>;

/// How waiting for a container's end went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waited {
    /// `None`: the shim went away without saying.
    Ended(Option<Exit>),
    TimedOut,
}

impl Client {
    /// From here on [`Client::request`] fails with a retryable failure after so long without an answer.
    pub fn limit_patience(&self, patience: Duration) -> Result<()> {
        sockopt::set_socket_timeout(self, sockopt::Timeout::Recv, Some(patience))
            .and_then(|()| sockopt::set_socket_timeout(self, sockopt::Timeout::Send, Some(patience)))
            .explain(|| "limit the patience of a socket".into())
    }

    /// Asks to be told of the container's end; collect the answer with [`Client::exit_by`].
    pub fn subscribe(&self) -> Result<()> {
        crate::send(self, &Request::Wait, &[])
    }

    /// The exit event, if it comes in time. Sends nothing.
    pub fn exit_by(&self, deadline: Deadline) -> Result<Waited> {
        if readable_by(self.as_fd(), deadline)? {
            Ok(Waited::Ended(self.exit()?))
        } else {
            Ok(Waited::TimedOut)
        }
    }

    /// Whether the shim closes the connection, which it does at the latest by ending. Other packets are dropped.
    pub fn closed_by(&self, deadline: Deadline) -> Result<bool> {
        while readable_by(self.as_fd(), deadline)? {
            match crate::receive(self) {
                Ok(Some(_)) => {}
                Ok(None) | Err(Errno::CONNRESET) => return Ok(true),
                Err(error) => {
                    return Err(
                        Fault::failed("listen to the container's shim").because(std::io::Error::from(error))
                    );
                }
            }
        }
        Ok(false)
    }

    /// Ends a shim that does not do what it is asked. The container dies with it.
    pub fn kill_shim(&self) -> Result<()> {
        // The kernel says who listens, so this cannot be some other process with a number written in a file.
        let peer = sockopt::socket_peercred(self).explain(|| "find the container's shim".into())?;
        let pidfd = match pidfd_open(peer.pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return Ok(()),
            other => other.explain(|| "find the container's shim".into())?,
        };
        signal_by(&pidfd, SIGKILL).explain(|| "kill the container's shim".into())
    }
}

/// A container's init that outlived its shim.
#[derive(Debug)]
pub struct Orphan {
    pidfd: OwnedFd,
    cgroup: Vec<PathBuf>,
    pub pid: i32,
}

impl Orphan {
    /// Looks at the last known init: `None` when it is gone, when its number is another process's by now, or when a
    /// shim looks after it.
    pub fn of(dir: &ContainerDir) -> Result<Option<Orphan>> {
        let Some(state) = dir.live_state()? else { return Ok(None) };
        if state.pid <= 1 || dir.has_shim() {
            return Ok(None);
        }
        let Some(pid) = Pid::from_raw(state.pid) else { return Ok(None) };
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(None) };
        // Checked with the descriptor in hand: from here on it cannot become another process.
        if store::start_time(state.pid) != Some(state.pid_started) {
            return Ok(None);
        }
        Ok(Some(Orphan { pidfd, cgroup: state.cgroup, pid: state.pid }))
    }

    /// Whether it has ended meanwhile is no failure.
    pub fn signal(&self, signal: i32) -> Result<()> {
        signal_by(&self.pidfd, signal).explain(|| format!("send signal {signal} to process {}", self.pid))?;
        // Paused when its shim was killed: on version 1 what is frozen does not even end.
        if !self.cgroup.is_empty()
            && let Ok(group) = cgroup::Cgroup::open(&self.cgroup)
            && group.is_to_be_frozen()
        {
            group.thaw()?;
        }
        Ok(())
    }

    pub fn ended_by(&self, deadline: Deadline) -> Result<bool> {
        readable_by(self.pidfd.as_fd(), deadline)
    }

    /// Its control group.
    ///
    /// # Errors
    /// A conflict where there is none that is known: the container is another runtime's.
    pub fn cgroup(&self) -> Result<cgroup::Cgroup> {
        if self.cgroup.is_empty() {
            return Err(Fault::conflict("its shim was killed, and its control group is not known")
                .hint("ctr-restart gives it another shim"));
        }
        cgroup::Cgroup::open(&self.cgroup)
    }
}

impl AsFd for Orphan {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// How a container's run ended: what its shim said, else what is written down, else 137, as a run nobody saw the end
/// of was cut off.
pub fn outcome(exit: Option<Exit>, dir: &ContainerDir) -> Result<Exit> {
    if let Some(exit) = exit {
        return Ok(exit);
    }
    let LastRun { exit_code, error, .. } = dir.last_run()?.unwrap_or_default();
    Ok(Exit::new(exit_code.unwrap_or(137), error))
}

/// The record of a container whose end was just heard of, as [`Subject::current`] gives it once the shim has written
/// everything down. One that is gone by now (`--rm`) is described by what was known `before`.
pub fn ended_record(subject: &Subject, dir: &ContainerDir, before: Record, exit: &Exit) -> Result<Record> {
    let mut record = match subject.current(dir) {
        Err(fault) if fault.kind() == Kind::NotFound => before,
        other => other?,
    };
    let mut container: Container = record.require("container")?;
    let alive = container.status.as_deref().is_some_and(|status| status == "restarting");
    if !alive {
        container.status = Some(Status::Exited.name().to_owned());
        container.pid = None;
    }
    container.exit_code = Some(exit.exit_code);
    if exit.error.is_some() {
        container.error.clone_from(&exit.error);
    }
    record.set("container", &container)?;
    Ok(record)
}

/// Ends whatever runs of a container, ready to be taken apart: an unstarted process is discarded, a running one killed,
/// a shim that does not answer too. The lock that is returned keeps new shims away.
///
/// Fails with a retryable failure when processes do not die within `patience`.
pub fn end(dir: &ContainerDir, patience: Duration) -> Result<Lock> {
    let deadline = Instant::now() + patience;
    let too_long = || Fault::retryable("the container does not end").on(dir.id.as_str());
    loop {
        if let Some(client) = Client::connect(dir)? {
            end_shim(&client, dir, deadline)?;
        }
        if let Some(orphan) = Orphan::of(dir)? {
            orphan.signal(SIGKILL)?;
            if !orphan.ended_by(Some(deadline))? {
                return Err(too_long());
            }
        }
        // A shim closes its socket a moment before its lock; one just begun has its lock before its socket.
        make_run_dir(dir)?;
        if let Some(lock) = Lock::try_exclusive(&dir.run.join("lock"))? {
            return Ok(lock);
        }
        if Instant::now() >= deadline {
            return Err(too_long());
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Whether a container's shim is gone, or is so within a moment: what it was asked last it did not do.
pub fn lost_shim(dir: &ContainerDir) -> bool {
    // A killed process closes its connections before it lets go of its lock, or after.
    let give_up = Instant::now() + Duration::from_secs(1);
    while dir.has_shim() {
        if Instant::now() >= give_up {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// [`ContainerDir::status`] when it can be relied on. A container's lock is held by its shim, and now and then by who clears away what a
/// killed one left: until that is done, what it has written seems to be true ("paused", of what has ended).
pub fn settled_status(dir: &ContainerDir) -> Result<Status> {
    // What has no state never had a shim, or has one that is just beginning; a shim listens before it writes its state.
    if dir.live_state()?.is_some() && dir.has_shim() && Client::connect(dir)?.is_none() {
        lost_shim(dir);
    }
    dir.status()
}

/// Clears away what a killed shim left of a container's last run, for the next one: processes that are only waiting to die,
/// the control group with what is still in it, the state. Of a container that has ended properly nothing is there.
///
/// Fails with a conflict when the container runs on without its shim.
pub fn clear(dir: &ContainerDir, patience: Duration) -> Result<()> {
    let Some(state) = dir.live_state()? else { return Ok(()) };
    if dir.survivor()?.is_some() {
        return Err(Fault::conflict("the container runs on, though its shim was killed")
            .on(dir.id.as_str())
            .hint("ctr-stop ends it, ctr-restart starts it again"));
    }
    let deadline = Instant::now() + patience;
    if let Some(orphan) = Orphan::of(dir)? {
        orphan.signal(SIGKILL)?;
        if !orphan.ended_by(Some(deadline))? {
            return Err(Fault::retryable("what is left of its last run does not end").on(dir.id.as_str()));
        }
    }
    let Some(_lock) = lock_stale(dir, &state, deadline)? else { return Ok(()) };
    if !state.cgroup.is_empty() {
        let group = cgroup::Cgroup::open(&state.cgroup)?;
        if group.directories().iter().any(|directory| directory.exists()) {
            // In a process namespace of the machine's or of another container its first process does not take all along.
            group.kill();
            group.remove()?;
        }
    }
    // The mark overlayfs leaves where a crash could have lost something (overlayfs.rst, "Volatile mount"): the state is gone at
    // boot, so no machine crashed since.
    let _ = std::fs::remove_dir_all(dir.bundle.join("work/work/incompat/volatile"));
    match std::fs::remove_file(dir.run.join("state.json")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).explain(|| format!("clear away {}", dir.run.join("state.json").display()))
        }
        _ => Ok(()),
    }
}

/// The lock of a container whose state was left by a shim that is gone; `None` where a shim looks after it again, which writes a
/// state of its own, or the state is gone.
///
/// Whoever looks whether there is a shim shares the lock for that moment, and who copies has it for longer. A state that stayed behind
/// for their sake would be taken for the truth as long as they hold it.
fn lock_stale(dir: &ContainerDir, state: &LiveState, deadline: Instant) -> Result<Option<Lock>> {
    loop {
        let lock = Lock::try_exclusive(&dir.run.join("lock"))?;
        let same = dir.live_state()?.is_some_and(|now| {
            (now.shim_pid, now.pid, now.pid_started) == (state.shim_pid, state.pid, state.pid_started)
        });
        if !same {
            return Ok(None);
        }
        if lock.is_some() {
            return Ok(lock);
        }
        // A shim that was started meanwhile.
        if Client::connect(dir)?.is_some() {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Err(Fault::retryable("what is left of its last run is held by another program")
                .on(dir.id.as_str())
                .hint("ctr-cp, ctr-export or ctr-commit works on it: try again when it is done"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn make_run_dir(dir: &ContainerDir) -> Result<()> {
    if dir.run.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir.run)
        .explain(|| format!("make directory {}", dir.run.display()))
}

fn end_shim(client: &Client, dir: &ContainerDir, deadline: Instant) -> Result<()> {
    let waiting = dir.live_state()?.is_none_or(|state| state.status == "created");
    let request = if waiting { Request::Discard } else { Request::Signal { signal: SIGKILL, stop: true } };
    // Half of the patience for the polite way.
    let now = Instant::now();
    let polite = deadline.saturating_duration_since(now) / 2;
    client.limit_patience(polite.max(Duration::from_millis(1)))?;
    // A refusal means that things changed meanwhile: the caller looks again.
    let answered = client.request_raw(&request, &[]).is_ok();
    let _ = client.subscribe();
    // After its last word it may still be busy with clients that read slowly; its lock is free by then.
    if client.exit_by(Some(now + polite))? == Waited::TimedOut
        && (!answered || Instant::now() >= now + polite)
    {
        client.kill_shim()?;
        client.closed_by(Some(deadline))?;
    }
    Ok(())
}

fn readable_by(fd: BorrowedFd<'_>, deadline: Deadline) -> Result<bool> {
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) if left.is_some_and(|left| left.is_zero()) => return Ok(false),
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(Fault::failed("wait").because(std::io::Error::from(error))),
        }
    }
}

const SIGKILL: i32 = rustix::process::Signal::KILL.as_raw();

fn signal_by(pidfd: &OwnedFd, signal: i32) -> std::io::Result<()> {
    match sys::process::pidfd_send_signal(pidfd.as_fd(), signal) {
        Err(error) if error.raw_os_error() == Some(Errno::SRCH.raw_os_error()) => Ok(()),
        other => other,
    }
}
