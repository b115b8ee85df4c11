//! Between the command and the user: its terminal if it has one, signals, its end.

use crate::{Args, wait};
use cli::{Explain, Fault, Result};
use ctr_start::terminal::{self, DetachKeys, Raw};
use runtime::Executed;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::isatty;
use std::os::fd::{AsFd, OwnedFd};

/// The user's end, opened before this process is in the container's file system.
pub struct UserTerminal {
    tty: Option<OwnedFd>,
    interactive: bool,
}

impl UserTerminal {
    pub fn open(args: &Args) -> Result<UserTerminal> {
        if args.tty && args.interactive && !args.detach && !isatty(rustix::stdio::stdin()) {
            return Err(Fault::usage("-it needs a terminal, and stdin is none")
                .hint("leave -t out to pipe something in"));
        }
        let tty = if args.tty { terminal::open().ok() } else { None };
        Ok(UserTerminal { tty, interactive: args.interactive })
    }
}

/// Stays until the command ends; its exit status.
pub fn attend(executed: &Executed, user: &UserTerminal, mut keys: DetachKeys) -> Result<u8> {
    let signals = sys::process::signal_descriptor(&[
        libc::SIGCHLD,
        libc::SIGINT,
        libc::SIGTERM,
        libc::SIGHUP,
        libc::SIGQUIT,
        libc::SIGUSR1,
        libc::SIGUSR2,
        libc::SIGWINCH,
    ])
    .explain(|| "prepare for signals".into())?;
    let master = executed.terminal.as_ref();
    let tty = user.tty.as_ref();
    let _raw = match (tty, user.interactive && master.is_some()) {
        (Some(tty), true) => Some(Raw::enter(tty.as_fd())?),
        _ => None,
    };
    pass_size(tty, master);
    let mut input = tty.filter(|_| user.interactive && master.is_some());
    let mut output = master;
    let mut buffer = vec![0; 64 << 10];
    loop {
        if let Some(status) = wait(executed) {
            drain(output, &mut buffer);
            return Ok(status);
        }
        let mut fds = vec![PollFd::new(&signals, PollFlags::IN), PollFd::new(&executed.pidfd, PollFlags::IN)];
        let first_stream = fds.len();
        fds.extend(output.map(|fd| PollFd::new(fd, PollFlags::IN)));
        let input_at = fds.len();
        fds.extend(input.map(|fd| PollFd::new(fd, PollFlags::IN)));
        if poll(&mut fds, None).is_err() {
            continue;
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let (output_ready, input_ready) =
            (output.is_some() && ready(first_stream), input.is_some() && ready(input_at));
        if ready(0) {
            take_signals(&signals, executed, tty);
        }
        if output_ready && !pass(output, &mut buffer) {
            output = None;
        }
        if input_ready && let (Some(from), Some(to)) = (input, master) {
            match rustix::io::read(from, &mut buffer[..]) {
                Ok(0) => input = None,
                Ok(count) => {
                    let (bytes, detached) = keys.scan(&buffer[..count]);
                    write_all(to, &bytes);
                    if detached {
                        return Ok(0);
                    }
                }
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => input = None,
            }
        }
    }
}

/// From the command's terminal to stdout; `false` at its end.
fn pass(from: Option<&OwnedFd>, buffer: &mut [u8]) -> bool {
    let Some(from) = from else { return false };
    match rustix::io::read(from, &mut *buffer) {
        Ok(0) => false,
        Ok(count) => {
            write_all(rustix::stdio::stdout(), &buffer[..count]);
            true
        }
        Err(Errno::INTR | Errno::AGAIN) => true,
        Err(_) => false,
    }
}

/// What the command wrote last, without waiting for processes it left behind.
fn drain(from: Option<&OwnedFd>, buffer: &mut [u8]) {
    let Some(master) = from else { return };
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        let mut fds = [PollFd::new(master, PollFlags::IN)];
        let readable =
            matches!(poll(&mut fds, Some(&now)), Ok(1..)) && fds[0].revents().contains(PollFlags::IN);
        if !readable || !pass(from, buffer) {
            return;
        }
    }
}

fn take_signals(signals: &OwnedFd, executed: &Executed, tty: Option<&OwnedFd>) {
    let mut info = [0u8; 128];
    while let Ok(read) = rustix::io::read(signals, &mut info) {
        if read < 4 {
            return;
        }
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        match number {
            libc::SIGCHLD => {}
            libc::SIGWINCH => pass_size(tty, executed.terminal.as_ref()),
            // It may have ended already; then its status comes next.
            number => drop(sys::process::pidfd_send_signal(executed.pidfd.as_fd(), number)),
        }
    }
}

fn pass_size(tty: Option<&OwnedFd>, master: Option<&OwnedFd>) {
    if let (Some(tty), Some(master)) = (tty, master)
        && let Some(size) = terminal::size(tty)
    {
        let _ = rustix::termios::tcsetwinsize(master, size);
    }
}

fn write_all(to: impl AsFd, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        match rustix::io::write(&to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [PollFd::new(&to, PollFlags::OUT)];
                let _ = poll(&mut fds, None);
            }
            // Nobody is there any more.
            Err(_) => return,
        }
    }
}
