//! `kill`.

use crate::call::Call;
use crate::options::Opt;
use crate::process;
use crate::state::Container;
use fault::{Fault, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::os::fd::AsFd;

pub fn kill(call: &Call<'_>) -> Result<u8> {
    let container = Container::load(call)?;
    let number = parse(call.options.operand(1)?)?;
    let all = call.options.has(Opt::All);
    if all && !container.has_init() && container.stored.own_pid_namespace {
        // Nothing is left that could be meant.
        return Ok(0);
    }
    signal(&container, number, all)?;
    Ok(0)
}

/// A name with or without `SIG`, or any number: the kernel knows which there are.
fn parse(text: &str) -> Result<i32> {
    match text {
        "" => Ok(libc::SIGTERM),
        number if number.parse::<i32>().is_ok() => Ok(number.parse().unwrap_or_default()),
        name => oci::wishes::signal(name).map_err(|_| Fault::usage(format!("unknown signal {name:?}"))),
    }
}

/// To the first process, or to all: asked for, or because a killed first process would leave them.
pub fn signal(container: &Container, number: i32, all: bool) -> Result<()> {
    if all || (number == libc::SIGKILL && !container.stored.own_pid_namespace) {
        return signal_all(container, number);
    }
    let pidfd = container.open_init()?.ok_or_else(not_running)?;
    process::signal(&pidfd, number)?;
    if number == libc::SIGKILL {
        thaw(container);
    }
    Ok(())
}

fn signal_all(container: &Container, number: i32) -> Result<()> {
    let Some(group) = container.cgroup()? else {
        let pidfd = container.open_init()?.ok_or_else(not_running)?;
        return process::signal(&pidfd, number);
    };
    let processes = group.all_processes()?;
    if processes.is_empty() && !container.has_init() {
        return Err(not_running().within("unable to kill all processes"));
    }
    if number == libc::SIGKILL {
        thaw(container);
        group.kill();
        return Ok(());
    }
    for pid in processes.into_iter().filter_map(Pid::from_raw) {
        // One that has ended meanwhile needs none.
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let _ = sys::process::pidfd_send_signal(pidfd.as_fd(), number);
        }
    }
    Ok(())
}

/// A frozen process of version 1 does not even die. One of version 2 does, and its group stays as it is: empty and frozen.
fn thaw(container: &Container) {
    if let Ok(Some(group)) = container.cgroup()
        && group.is_to_be_frozen()
    {
        let _ = group.thaw();
    }
}

fn not_running() -> Fault {
    Fault::conflict("container not running")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("", 15),
            ("9", 9),
            ("0", 0),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigterm", 15),
            ("99", 99),
            ("RTMIN+1", 35),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        assert_eq!(parse("NOPE").unwrap_err().to_string(), "unknown signal \"NOPE\"");
    }
}
