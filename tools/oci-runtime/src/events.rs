//! `events`.

use crate::call::Call;
use crate::groups;
use crate::inspect::print;
use crate::options::Opt;
use crate::state::Container;
use cgroup::{Cgroup, Version};
use fault::{Explain, Fault, Result};
use runtime::Status;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const INTERVAL: Duration = Duration::from_secs(5);

pub fn events(call: &Call<'_>) -> Result<u8> {
    let container = Container::load(call)?;
    let interval = match call.options.text(Opt::Interval)? {
        None => INTERVAL,
        Some(text) => duration(text)
            .ok_or_else(|| Fault::usage(format!("invalid value {text:?} for flag -interval")))?,
    };
    if interval.is_zero() {
        return Err(Fault::usage("duration interval must be greater than 0"));
    }
    let id = &container.stored.id;
    let not_running = || Fault::conflict(format!("container with id {id} is not running"));
    if container.status()? == Status::Stopped {
        return Err(not_running());
    }
    let group = container.need_cgroup()?;
    if call.options.has(Opt::Stats) {
        print_stats(id, &group)?;
        return Ok(0);
    }
    let init = container.open_init()?.ok_or_else(not_running)?;
    follow(id, &group, &init, interval)?;
    Ok(0)
}

/// Prints statistics now and then, and tells when the container ran out of memory, until its first process ends.
fn follow(id: &str, group: &Cgroup, init: &OwnedFd, interval: Duration) -> Result<()> {
    let mut watch = OomWatch::new(group)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(init, PollFlags::IN), watch.poll_fd()];
        let ready = match poll(&mut fds, Some(&left)) {
            Err(Errno::INTR) => continue,
            other => other.map_err(std::io::Error::from).explain(|| "wait for events".into())?,
        };
        let ended = !fds[0].revents().is_empty();
        // What came last may be why it ended.
        if (ended || !fds[1].revents().is_empty()) && watch.take(group) {
            print(&format!("{}\n", serde_json::json!({"type": "oom", "id": id})))?;
        }
        if ended {
            return Ok(());
        }
        if ready == 0 {
            print_stats(id, group)?;
            next = Instant::now() + interval;
        }
    }
}

fn print_stats(id: &str, group: &Cgroup) -> Result<()> {
    let event = serde_json::json!({"type": "stats", "id": id, "data": group.stats()});
    print(&format!("{event}\n"))
}

/// Wakes when a process of the group wants memory there is none of.
enum OomWatch {
    /// By an event descriptor (cgroup-v1/memory.rst, "OOM Control"); the file has to stay open.
    V1 { event: OwnedFd, control: PathBuf, _file: File },
    /// By an exceptional condition of a file (cgroup-v2.rst, "memory.events"); how many were killed so far.
    V2 { events: File, kills: u64 },
}

impl OomWatch {
    fn new(group: &Cgroup) -> Result<OomWatch> {
        let memory =
            groups::directory(group, "memory").ok_or_else(|| Fault::failed("memory controller missing"))?;
        let open = |name: &str| {
            let path = memory.join(name);
            File::open(&path).explain(|| format!("open {}", path.display()))
        };
        if group.version() == Version::V2 {
            return Ok(OomWatch::V2 { events: open("memory.events")?, kills: group.oom_kills() });
        }
        let file = open("memory.oom_control")?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .explain(|| "make an event descriptor".into())?;
        let control = memory.join("cgroup.event_control");
        std::fs::write(&control, format!("{} {}", event.as_raw_fd(), file.as_raw_fd()))
            .explain(|| format!("write {}", control.display()))?;
        Ok(OomWatch::V1 { event, control, _file: file })
    }

    fn poll_fd(&self) -> PollFd<'_> {
        match self {
            OomWatch::V1 { event, .. } => PollFd::new(event, PollFlags::IN),
            OomWatch::V2 { events, .. } => PollFd::new(events, PollFlags::PRI),
        }
    }

    /// Takes what it woke for; whether it was that.
    fn take(&mut self, group: &Cgroup) -> bool {
        let mut buffer = [0; 4096];
        match self {
            // It wakes when the group is removed, too.
            OomWatch::V1 { event, control, .. } => {
                rustix::io::read(event, &mut buffer).is_ok() && control.exists()
            }
            OomWatch::V2 { events, kills } => {
                // Read again from its beginning, it waits for the next change.
                let _ = rustix::io::pread(events, &mut buffer, 0);
                let before = std::mem::replace(kills, group.oom_kills());
                *kills > before
            }
        }
    }
}

/// As Go writes them: `5s`, `1m30s`, `1.5h`, `100ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let seconds = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (text, wanted) in [
            ("5s", 5000),
            ("100ms", 100),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("0", 0),
            ("2000us", 2),
            (".5s", 500),
        ] {
            assert_eq!(duration(text), Some(Duration::from_millis(wanted)), "{text}");
        }
        for text in ["", "5", "s", "-5s", "5x", "1..5s", "5s5", "9999999999999999999999h"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }
}
