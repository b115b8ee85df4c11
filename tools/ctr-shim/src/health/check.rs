//! One check: a command in the container, run by a process between, as the shim itself stays outside.

use super::OUTPUT;
use crate::server::now;
use cgroup::Cgroup;
use fault::{Explain, Fault, Result};
use record::HealthResult;
use runtime::{ExecOptions, Executed, Manners, NamespaceKind, Spec, StartFailure, Stdio};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open};
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::ContainerDir;
use sys::process::Fork;

/// How often processes are looked for that were made while others were stopped.
const ROUNDS: usize = 16;
/// Bytes of one read.
const CHUNK: usize = 4096;
/// Reads in one turn: what prints without end must not keep the shim busy.
const READS: usize = 16;

/// Where a check runs.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    pub dir: &'a ContainerDir,
    /// The container's first process.
    pub pid: i32,
    pub pidfd: BorrowedFd<'a>,
    /// Its control group's directories; none if another runtime made it.
    pub cgroup: &'a [PathBuf],
    pub seccomp_cache: &'a Path,
}

#[derive(Debug)]
pub struct Check {
    /// The process between.
    pid: i32,
    pidfd: OwnedFd,
    output: Option<OwnedFd>,
    kept: Vec<u8>,
    start: String,
    pub began: Instant,
    pub deadline: Instant,
    pub timed_out: bool,
}

impl Check {
    /// Begins a check that may take so long.
    pub fn begin(command: &[String], timeout: Duration, target: Target<'_>) -> Result<Check> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into())?;
        crate::container::set_nonblocking(&read)?;
        let init = target.pidfd.try_clone_to_owned().explain(|| "copy a descriptor".into())?;
        let shim = rustix::process::getpid();
        match sys::process::clone3(0, None).explain(|| "make a process".into())? {
            Fork::Child => between(command, target, shim, init, &write),
            Fork::Parent { pid, pidfd } => {
                let began = Instant::now();
                Ok(Check {
                    pid,
                    pidfd,
                    output: Some(read),
                    kept: Vec::new(),
                    start: now(),
                    began,
                    deadline: began + timeout,
                    timed_out: false,
                })
            }
        }
    }

    /// Readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    /// Takes what it has printed. Only the beginning is kept; the rest is read, so that it can go on.
    pub fn read(&mut self) {
        let mut chunk = [0; CHUNK];
        for _ in 0..READS {
            let Some(fd) = &self.output else { return };
            match rustix::io::read(fd, &mut chunk[..]) {
                Ok(0) => self.output = None,
                Ok(count) => {
                    let room = OUTPUT.saturating_sub(self.kept.len());
                    self.kept.extend_from_slice(&chunk[..count.min(room)]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => self.output = None,
            }
        }
    }

    /// The result, once it has ended. What it left running in the background is the container's.
    pub fn ended(&mut self, timeout: Duration) -> Option<HealthResult> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let code = match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options) {
            Ok(None) | Err(Errno::INTR) => return None,
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                (None, None) => 255,
            },
            Err(_) => 255,
        };
        self.read();
        let printed = String::from_utf8_lossy(&self.kept).into_owned();
        let (exit_code, output) = if self.timed_out {
            (-1, format!("the health check took longer than {} s: {printed}", timeout.as_secs_f64()))
        } else {
            (code, printed)
        };
        Some(HealthResult {
            start: std::mem::take(&mut self.start),
            end: now(),
            exit_code,
            output,
            ..HealthResult::default()
        })
    }

    /// Kills it with all that came of it: the descendants, and whatever is in a session of one of these. All are stopped before the
    /// first is killed, as the children of a killed process would be nobody's. `processes` are those of the container.
    pub fn kill(&self, processes: &impl Fn() -> Vec<i32>) {
        let mut found: HashSet<i32> = HashSet::from([self.pid]);
        let mut stopped: Vec<OwnedFd> = Vec::new();
        for _ in 0..ROUNDS {
            let known = stopped.len();
            // Children have larger numbers than their parents, mostly; a few rounds find the others.
            for pid in processes() {
                if !found.contains(&pid)
                    && let Some(pidfd) =
                        Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
                    && let Some((parent, session)) = relations(pid)
                    && (found.contains(&parent) || found.contains(&session))
                {
                    let _ = sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGSTOP);
                    found.insert(pid);
                    stopped.push(pidfd);
                }
            }
            if stopped.len() == known {
                break;
            }
        }
        for pidfd in &stopped {
            let _ = sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
        }
        let _ = sys::process::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
    }

    /// The container has ended, and with it the check's command; the process between must be gone, too.
    pub fn end(self) {
        let _ = sys::process::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        while let Err(Errno::INTR) =
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        {}
    }
}

/// Parent and session of a process (proc_pid_stat(5)).
fn relations(pid: i32) -> Option<(i32, i32)> {
    let text = store::of_process(pid, "stat")?;
    // The name before it may contain anything.
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

/// The process between: enters the container, runs the command and ends as it does.
fn between(command: &[String], target: Target<'_>, shim: Pid, init: OwnedFd, write: &OwnedFd) -> ! {
    // With the shim the container ends, and all that is asked of it.
    let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    if rustix::process::getppid() != Some(shim) {
        sys::process::exit_now(125);
    }
    // Above all the lock, the container's streams and the clients' connections: none of them are used or dropped here.
    let closed = sys::process::close_all_from(3, &[init.as_fd(), write.as_fd()]);
    let closed = closed.explain(|| "close descriptors".into()).map_err(failure);
    let code = match closed.and_then(|()| execute(command, target, init, write)) {
        Ok(executed) => wait(&executed),
        Err(failure) => {
            let _ = rustix::io::write(write, failure.fault.to_string().as_bytes());
            failure.exit_code.unwrap_or(125)
        }
    };
    sys::process::exit_now(code)
}

fn failure(fault: Fault) -> StartFailure {
    StartFailure { fault, exit_code: None }
}

fn execute(
    command: &[String],
    target: Target<'_>,
    init: OwnedFd,
    write: &OwnedFd,
) -> Result<Executed, StartFailure> {
    let spec = Spec::load(&target.dir.bundle).map_err(failure)?;
    let mut process = spec.process().map_err(failure)?.clone();
    process.args = command.to_vec();
    process.terminal = false;
    let cgroup = match target.cgroup {
        [] => Cgroup::of_process(target.pid),
        directories => Cgroup::open(directories),
    }
    .map_err(failure)?;
    let copy = || write.try_clone().explain(|| "copy a descriptor".into()).map_err(failure);
    let null = std::fs::File::open("/dev/null").explain(|| "open /dev/null".into()).map_err(failure)?;
    runtime::exec(ExecOptions {
        pidfd: init,
        process: &process,
        linux: Some(&spec.linux),
        seccomp: spec.linux.seccomp.as_deref().map(serde_json::value::RawValue::get),
        seccomp_cache: target.seccomp_cache,
        state: &|| runtime::State {
            oci_version: spec.oci_version.clone(),
            id: target.dir.id.clone(),
            status: runtime::Status::Running,
            pid: Some(target.pid),
            bundle: target.dir.bundle.clone(),
            annotations: spec.annotations.clone(),
        },
        cgroup: &cgroup,
        rdt: None,
        detach: false,
        stdio: Stdio::Streams([null.into(), copy()?, copy()?]),
        user_namespace: spec.namespace(NamespaceKind::User).is_some(),
        time_namespace: spec.namespace(NamespaceKind::Time).is_some(),
        keyring: None,
        manners: Manners::default(),
    })
}

fn wait(executed: &Executed) -> i32 {
    loop {
        match rustix::process::waitid(WaitId::PidFd(executed.pidfd.as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => {
                return match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => code,
                    (None, Some(signal)) => 128 + signal,
                    (None, None) => 255,
                };
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(_) => return 255,
        }
    }
}
