//! Staying with a process until it ends: signals go to it, and what is typed, and its output comes back.

use crate::console::HostTerminal;
use crate::log::Log;
use fault::{Explain, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use std::os::fd::{AsFd, OwnedFd};

/// Signals, read one by one from the moment this is made: none is missed that comes before anybody waits.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    pub fn block() -> Result<Signals> {
        // Not those that say that this very program is wrong, and SIGPIPE, which is an error of writing here.
        let all = (1..=64).filter(|signal| {
            !matches!(
                *signal,
                libc::SIGKILL
                    | libc::SIGSTOP
                    | libc::SIGSEGV
                    | libc::SIGBUS
                    | libc::SIGFPE
                    | libc::SIGILL
                    | libc::SIGTRAP
                    | libc::SIGPIPE
                    // The C library's own.
                    | 32
                    | 33
            )
        });
        let all: Vec<i32> = all.collect();
        sys::process::signal_descriptor(&all).map(Signals).explain(|| "prepare for signals".into())
    }

    /// The next that waits to be read.
    fn next(&self) -> Option<i32> {
        // A `signalfd_siginfo`.
        let mut info = [0u8; 128];
        match rustix::io::read(&self.0, &mut info) {
            Ok(128) => Some(i32::from_ne_bytes([info[0], info[1], info[2], info[3]])),
            _ => None,
        }
    }
}

/// The process's terminal, between it and this program's.
pub struct Relay<'a> {
    pub master: OwnedFd,
    pub host: &'a HostTerminal,
}

/// Returns the process's exit status, or 128 + the number of the signal that killed it.
pub fn attend(
    pid: i32,
    pidfd: &OwnedFd,
    signals: &Signals,
    relay: Option<Relay<'_>>,
    log: &Log,
) -> Result<u8> {
    let mut streams = relay.map(Streams::new).transpose()?;
    let _raw = match &streams {
        Some(streams) => Some(streams.host.make_raw()?),
        None => None,
    };
    loop {
        let mut fds = vec![PollFd::new(&signals.0, PollFlags::IN)];
        if let Some(streams) = &streams {
            streams.watch(&mut fds);
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error)).explain(|| "wait for the process".into()),
        }
        let signalled = !fds[0].revents().is_empty();
        drop(fds);
        if let Some(streams) = &mut streams {
            streams.pass();
        }
        if !signalled {
            continue;
        }
        while let Some(signal) = signals.next() {
            match signal {
                libc::SIGCHLD => {
                    if let Some(status) = reap(pid) {
                        if let Some(streams) = &mut streams {
                            streams.pass_output();
                        }
                        return Ok(status);
                    }
                }
                libc::SIGWINCH => {
                    if let Some(streams) = &streams {
                        streams.host.pass_size(&streams.master);
                    }
                }
                other => {
                    log.debug(|| format!("forwarding signal {other} to {pid}"));
                    if let Err(error) = sys::process::pidfd_send_signal(pidfd.as_fd(), other) {
                        log.debug(|| format!("forwarding signal {other}: {error}"));
                    }
                }
            }
        }
    }
}

/// Takes every child that has ended; the status of the one waited for if it is among them.
fn reap(pid: i32) -> Option<u8> {
    let mut status = None;
    while let Ok(Some((child, how))) = rustix::process::wait(WaitOptions::NOHANG) {
        if Some(child) == Pid::from_raw(pid) {
            status = Some(exit_status(how));
        }
    }
    status
}

fn exit_status(how: WaitStatus) -> u8 {
    match (how.exit_status(), how.terminating_signal()) {
        (Some(status), _) => status as u8,
        (None, Some(signal)) => 128 + signal as u8,
        (None, None) => 255,
    }
}

struct Streams<'a> {
    master: OwnedFd,
    host: &'a HostTerminal,
    /// stdin is not at its end.
    input: bool,
    /// The process's terminal is open.
    output: bool,
    /// Typed and not yet taken by a process that does not read.
    pending: Vec<u8>,
    buffer: Vec<u8>,
}

impl<'a> Streams<'a> {
    fn new(relay: Relay<'a>) -> Result<Streams<'a>> {
        let Relay { master, host } = relay;
        // Who types ahead of a process that writes and does not read must not stop both.
        fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK).explain(|| "set up the terminal".into())?;
        host.pass_size(&master);
        Ok(Streams {
            master,
            host,
            input: true,
            output: true,
            pending: Vec::new(),
            buffer: vec![0; 32 << 10],
        })
    }

    fn watch<'b>(&'b self, fds: &mut Vec<PollFd<'b>>) {
        if self.output {
            let writing = if self.pending.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            fds.push(PollFd::new(&self.master, PollFlags::IN | writing));
        }
        if self.input && self.pending.is_empty() {
            fds.push(PollFd::from_borrowed_fd(rustix::stdio::stdin(), PollFlags::IN));
        }
    }

    fn pass(&mut self) {
        self.pass_output();
        self.pass_pending();
        if self.input && self.pending.is_empty() && is_readable(rustix::stdio::stdin()) {
            match rustix::io::read(rustix::stdio::stdin(), &mut self.buffer[..]) {
                Ok(0) => self.input = false,
                Ok(count) => {
                    self.pending.extend_from_slice(&self.buffer[..count]);
                    self.pass_pending();
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => self.input = false,
            }
        }
    }

    fn pass_pending(&mut self) {
        while !self.pending.is_empty() {
            match rustix::io::write(&self.master, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.pending.clear();
                    self.input = false;
                }
            }
        }
    }

    /// All there is of it.
    fn pass_output(&mut self) {
        while self.output {
            match rustix::io::read(&self.master, &mut self.buffer[..]) {
                Ok(0) => self.output = false,
                Ok(count) => write_all(&self.buffer[..count]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // Nobody has it open any more.
                Err(_) => self.output = false,
            }
        }
    }
}

fn is_readable(fd: impl AsFd) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Who closed stdout does not want it.
fn write_all(mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(rustix::stdio::stdout(), bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let stdout = rustix::stdio::stdout();
                let _ = poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None);
            }
            Err(_) => return,
        }
    }
}
