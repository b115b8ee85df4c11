//! Running one plugin (specification, section 2): without a shell, with bounded output, for a limited time.

use crate::refusal::code;
use crate::{Refusal, shown};
use fault::{Explain, Fault, Kind, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Access, MemfdFlags, OFlags, SeekFrom, access, fcntl_setfl, memfd_create, seek};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The most a plugin may answer. A result is a few hundred bytes.
const MOST_OUTPUT_BYTES: usize = 1 << 20;
/// How much of what it says to stderr is kept: the end.
const MOST_LOG_BYTES: usize = 8 << 10;

/// One execution.
pub(crate) struct Execution<'e> {
    /// Of the plugin, for messages.
    pub name: &'e str,
    pub program: &'e Path,
    /// The derived configuration.
    pub input: &'e [u8],
    /// Of `CNI_*` these and no others.
    pub environment: Vec<(&'static str, String)>,
    pub time_limit: Duration,
}

/// Why an execution failed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub fault: Fault,
    /// The plugin knows no such container, and wants no `DEL` for it.
    pub is_unknown_container: bool,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Failure {
        Failure { fault, is_unknown_container: false }
    }
}

/// The program of a plugin in the first folder that has it. The name has been checked to be one.
pub(crate) fn find(folders: &[PathBuf], name: &str) -> Result<PathBuf> {
    for folder in folders {
        let program = folder.join(name);
        let is_program = program.is_file() && access(&program, Access::EXEC_OK).is_ok();
        if is_program {
            return Ok(program);
        }
    }
    let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    Err(Fault::not_found(format!("no CNI plugin {name} in {}", places.join(", ")))
        .hint("install it, or name the folder it is in in STAVES_CNI_PATH"))
}

impl Execution<'_> {
    /// What the plugin printed, if it succeeded.
    pub fn run(&self) -> std::result::Result<Vec<u8>, Failure> {
        let [(out, out_end), (err, err_end)] = [pipe()?, pipe()?];
        let mut command = Command::new(self.program);
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"CNI_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if std::env::var_os("PATH").is_none() {
            // They run iptables and the like by name.
            command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        }
        // In a group of its own, so that plugins it delegates to end with it when its time is up.
        command.process_group(0).stdin(input(self.input)?).stdout(out_end).stderr(err_end);
        let mut child = sys::process::spawn_bound(&mut command)
            .explain(|| format!("start {}", self.program.display()))?;
        // The command holds our copies of the plugin's ends, which would keep the pipes open.
        drop(command);
        let mut out = Output { pipe: Some(out), text: Vec::new(), most: MOST_OUTPUT_BYTES, all: true };
        let mut err = Output { pipe: Some(err), text: Vec::new(), most: MOST_LOG_BYTES, all: false };
        let status = self.wait(&mut child, [&mut out, &mut err])?;
        if status.success() { Ok(out.text) } else { Err(failure(status, &out.text, &err.text)) }
    }

    /// Waits for the plugin's own process: what it left running may go on holding the pipes.
    fn wait(&self, child: &mut Child, outputs: [&mut Output; 2]) -> Result<ExitStatus> {
        let deadline = Instant::now() + self.time_limit;
        let pid = Pid::from_child(child);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).explain(|| format!("watch {}", self.name));
        let ended = pidfd.and_then(|pidfd| watch(&pidfd, deadline, outputs));
        if ended.is_err() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let status = child.wait().explain(|| format!("wait for {}", self.name))?;
        match ended {
            Ok(()) => Ok(status),
            Err(fault) if fault.kind() == Kind::Retryable => Err(Fault::retryable(format!(
                "it took longer than {} seconds and was killed",
                self.time_limit.as_secs_f64()
            ))),
            Err(fault) => Err(fault),
        }
    }
}

fn failure(status: ExitStatus, out: &[u8], err: &[u8]) -> Failure {
    if let Some(refusal) = Refusal::parse(out) {
        return Failure {
            fault: refusal.fault(),
            is_unknown_container: refusal.code == code::UNKNOWN_CONTAINER,
        };
    }
    let said = [err, out].map(|text| shown(&String::from_utf8_lossy(text)));
    let said = said.into_iter().find(|text| !text.is_empty());
    let said = said.map(|text| format!(": {text}")).unwrap_or_default();
    Fault::failed(format!("it ended with {status}{said}")).into()
}

/// Reads the outputs until the process has ended.
fn watch(pidfd: &OwnedFd, deadline: Instant, mut outputs: [&mut Output; 2]) -> Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::retryable("its time is up"));
        }
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut watched = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        for pipe in outputs.iter().filter_map(|output| output.pipe.as_ref()) {
            watched.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
        }
        match poll(&mut watched, Some(&left)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error)).explain(|| "watch it".into()),
        }
        let ended = !watched[0].revents().is_empty();
        drop(watched);
        for output in &mut outputs {
            output.read()?;
        }
        if ended {
            return Ok(());
        }
    }
}

/// What a plugin prints.
struct Output {
    /// `None` once it is closed.
    pipe: Option<OwnedFd>,
    text: Vec<u8>,
    most: usize,
    /// Whether more than that is a failure; else the end is kept.
    all: bool,
}

impl Output {
    /// Takes what there is, a little at a time: a plugin that never stops printing must not keep its time from running out.
    fn read(&mut self) -> Result<()> {
        let mut buffer = [0; 16 << 10];
        for _ in 0..64 {
            let Some(pipe) = &self.pipe else { return Ok(()) };
            match rustix::io::read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(length) => {
                    self.text.extend_from_slice(&buffer[..length]);
                    let excess = self.text.len().saturating_sub(self.most);
                    if self.all && excess > 0 {
                        return Err(Fault::failed(format!("it answered more than {} bytes", self.most)));
                    }
                    self.text.drain(..excess);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(_) => self.pipe = None,
            }
        }
        Ok(())
    }
}

/// The configuration as a file, which takes any length at once and needs no reader.
fn input(json: &[u8]) -> Result<Stdio> {
    let what = || "hand over the configuration".to_owned();
    let file = memfd_create("configuration", MemfdFlags::CLOEXEC).explain(what)?;
    let mut rest = json;
    while !rest.is_empty() {
        let written = rustix::io::write(&file, rest).explain(what)?;
        rest = &rest[written..];
    }
    seek(&file, SeekFrom::Start(0)).explain(what)?;
    Ok(file.into())
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into())?;
    fcntl_setfl(&read, OFlags::NONBLOCK).explain(|| "set up a pipe".into())?;
    Ok((read, write))
}
