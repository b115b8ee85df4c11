//! Processes, known by number and start time: a number alone may be given to another.

use fault::{Explain, Fault, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, geteuid, pidfd_open};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Of `/proc/PID/stat` (proc(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub state: u8,
    /// Ticks of the clock since boot.
    pub started: u64,
}

pub fn stat(pid: i32) -> Option<Stat> {
    if pid <= 0 {
        return None;
    }
    parse(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name, in brackets, may hold anything.
fn parse(text: &[u8]) -> Option<Stat> {
    let end = text.iter().rposition(|byte| *byte == b')')?;
    let mut fields = text[end + 1..].split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let state = *fields.next()?.first()?;
    let started = std::str::from_utf8(fields.nth(18)?).ok()?.trim_end().parse().ok()?;
    Some(Stat { state, started })
}

/// Whether the process with this number began then and has not ended.
pub fn lives(pid: i32, started: u64) -> bool {
    stat(pid).is_some_and(|stat| stat.started == started && !matches!(stat.state, b'Z' | b'X' | b'x'))
}

/// A descriptor of that very process; `None` when it has ended.
pub fn open(pid: i32, started: u64) -> Result<Option<OwnedFd>> {
    let Some(raw) = Pid::from_raw(pid).filter(|_| pid > 0) else { return Ok(None) };
    let pidfd = match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        Err(Errno::SRCH | Errno::INVAL) => return Ok(None),
        Err(error) => {
            return Err(std::io::Error::from(error)).explain(|| format!("open process {pid}"));
        }
    };
    // Looked at after opening: had the number been given away before, the start would differ.
    Ok(lives(pid, started).then_some(pidfd))
}

/// Whether it has ended when the time is up.
pub fn wait_for_end(pidfd: &OwnedFd, at_most: Duration) -> bool {
    let deadline = Instant::now() + at_most;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut watched = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut watched, Some(&left)) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

pub fn signal(pidfd: &OwnedFd, number: i32) -> Result<()> {
    sys::process::pidfd_send_signal(pidfd.as_fd(), number).map_err(|error| match error.raw_os_error() {
        Some(libc::ESRCH) => Fault::conflict("container not running"),
        _ => Fault::failed("unable to signal init").because(error),
    })
}

pub fn effective_uid() -> u32 {
    geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_processes_do_not_confuse() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["(sh)", "(a) Z 1 (b)", "()", "( ) R 9 )"] {
            let text = format!("12 {name} {rest}\n");
            assert_eq!(parse(text.as_bytes()), Some(Stat { state: b'S', started: 4711 }), "{text}");
        }
        for text in [
            "",
            "12",
            "12 (sh",
            "12 (sh) ",
            "12 (sh) S 1 2",
            "1 (x) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 x",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let own = std::process::id() as i32;
        let started = stat(own).unwrap().started;
        assert!(lives(own, started) && !lives(own, started + 1));
        assert!(open(own, started).unwrap().is_some());
        for pid in [0, -1, i32::MIN, i32::MAX] {
            assert!(open(pid, started).unwrap().is_none(), "{pid}");
        }
    }
}
