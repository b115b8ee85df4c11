//! `--init`: the first process in the container, which starts the command, passes signals on and reaps what is orphaned.
//!
//! The same program as the shim, under another name, so that there is one file to bind into the container.

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Name under which the program is this one.
pub const NAME: &str = "staves-init";

pub fn is_asked_for(arguments: &[OsString]) -> bool {
    arguments.first().is_some_and(|name| Path::new(name).file_name().is_some_and(|name| name == NAME))
}

/// `staves-init -- COMMAND…`: ends with the command's status.
pub fn main(arguments: &[OsString]) -> ExitCode {
    let command: Vec<&OsString> = arguments.iter().skip(1).skip_while(|argument| *argument == "--").collect();
    let Some((program, rest)) = command.split_first() else { return ExitCode::from(127) };
    let forwarded: Vec<i32> = (1..=31)
        .filter(|signal| {
            !matches!(
                *signal,
                libc::SIGKILL
                    | libc::SIGSTOP
                    | libc::SIGFPE
                    | libc::SIGILL
                    | libc::SIGSEGV
                    | libc::SIGBUS
                    | libc::SIGABRT
                    | libc::SIGTRAP
                    | libc::SIGSYS
                    | libc::SIGTTIN
                    | libc::SIGTTOU
            )
        })
        .collect();
    let Ok(signals) = sys::process::signal_descriptor(&forwarded) else { return ExitCode::FAILURE };
    let mut command = Command::new(program);
    command.args(rest).process_group(0);
    let child = sys::process::spawn_with_default_signals(&mut command);
    let child = match child {
        Ok(child) => child,
        Err(error) => {
            return ExitCode::from(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let child = Pid::from_child(&child);
    // Its process group gets the terminal, if there is one, or Ctrl-C would end this process instead.
    let _ = rustix::termios::tcsetpgrp(rustix::stdio::stdin(), child);
    loop {
        let mut info = [0u8; 128];
        let Ok(read) = rustix::io::read(&signals, &mut info) else {
            wait_readable(&signals);
            continue;
        };
        if read < 4 {
            continue;
        }
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        if number == libc::SIGCHLD {
            if let Some(status) = reap(child) {
                return ExitCode::from(status);
            }
        } else if let Some(signal) = Signal::from_named_raw(number) {
            let _ = rustix::process::kill_process_group(child, signal);
        }
    }
}

fn wait_readable(fd: impl AsFd) {
    let mut polled = [rustix::event::PollFd::new(&fd, rustix::event::PollFlags::IN)];
    let _ = rustix::event::poll(&mut polled, None);
}

/// Takes every process that has ended; the status if the command is among them.
fn reap(command: Pid) -> Option<u8> {
    let mut status = None;
    while let Ok(Some((pid, how))) = rustix::process::wait(WaitOptions::NOHANG) {
        if pid == command {
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
