//! Waiting for what a running container does.

use crate::Waiting;
use crate::condition::{Condition, Protocol};
use crate::end::Changes;
use crate::patience::{Patience, Turn};
use cli::{Explain, Fault, Result};
use ctr_logs::entry::Entry;
use ctr_logs::files::{self, Line, LogFile};
use jiff::Timestamp;
use record::Container;
use regex_lite::Regex;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::time::Duration;
use store::{ContainerDir, Status};

/// A socket that is listened on tells nobody.
const PORT_STEP: Duration = Duration::from_millis(50);
/// Everything else is told of; should a message be lost, so often it is looked for all the same.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest line of the kernel's tables of sockets, in bytes.
const LONGEST_SOCKET: u64 = 4096;

/// Waits until all conditions hold at once; but a line that was printed once stays printed.
pub fn until(dir: &ContainerDir, conditions: &[Condition], patience: Patience<'_>) -> Result<Waiting<()>> {
    let mut logs: Vec<Option<LogWatch>> =
        conditions.iter().map(|condition| LogWatch::of(dir, condition)).collect::<Result<_>>()?;
    let ports = conditions.iter().any(|condition| matches!(condition, Condition::Port { .. }));
    let step = if ports { PORT_STEP } else { LOOK_AGAIN };
    let mut changes = Changes::watch_all(dir)?;
    let mut watched_run = dir.run.is_dir();
    loop {
        // Asked before looking: what was printed before the end is then read.
        let status = dir.status()?;
        let ended = status == Status::Exited && !dir.has_shim();
        let unmet = unmet(dir, status, conditions, &mut logs)?;
        let Some(unmet) = unmet else { return Ok(Waiting::Done(())) };
        if ended {
            let code = shim::outcome(None, dir)?.exit_code;
            return Err(Fault::conflict(format!("it ended (with {code}) before {}", unmet.words()))
                .hint(format!("ctr-logs {}", dir.id.get(..12).unwrap_or(&dir.id))));
        }
        if !watched_run && dir.run.is_dir() {
            changes = Changes::watch_all(dir)?;
            watched_run = true;
        }
        match changes.next(patience, step)? {
            Turn::Look => {}
            Turn::TimedOut => return Ok(Waiting::TimedOut),
            Turn::Enough => return Ok(Waiting::Enough),
        }
        if !dir.exists() {
            return Err(Fault::not_found(format!("it was removed before {}", unmet.words())));
        }
    }
}

/// The first condition that does not hold.
fn unmet<'a>(
    dir: &ContainerDir,
    status: Status,
    conditions: &'a [Condition],
    logs: &mut [Option<LogWatch>],
) -> Result<Option<&'a Condition>> {
    let runs = matches!(status, Status::Running | Status::Paused);
    let mut first = None;
    for (condition, log) in conditions.iter().zip(logs) {
        let holds = match condition {
            Condition::Running => runs,
            Condition::Exited => status == Status::Exited,
            Condition::Healthy => is_healthy(dir)? && runs,
            Condition::Port { number, protocol } => runs && listens(dir, *number, *protocol)?,
            // Every one of them is read on, whatever the others say.
            Condition::Log(_) => log.as_mut().is_some_and(|log| log.look(dir).unwrap_or(false)),
        };
        if !holds && first.is_none() {
            first = Some(condition);
        }
    }
    Ok(first)
}

fn is_healthy(dir: &ContainerDir) -> Result<bool> {
    let container: Container = dir.current()?.require("container")?;
    if !container.extra.contains_key("healthcheck") {
        return Err(Fault::conflict("it has no health check, so it will never be healthy")
            .hint("ctr-create --health-cmd gives it one"));
    }
    Ok(container.health.is_some_and(|health| health.status == "healthy"))
}

/// Whether a socket of the container's network namespace is bound to the port and waits for whoever comes (proc_pid_net(5)).
fn listens(dir: &ContainerDir, port: u16, protocol: Protocol) -> Result<bool> {
    let Some(state) = dir.live_state()? else { return Ok(false) };
    let (names, waiting) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], "0A"),
        // Unconnected: a server takes from everybody.
        Protocol::Udp => (["udp", "udp6"], "07"),
    };
    for name in names {
        let path = format!("/proc/{}/net/{name}", state.pid);
        match File::open(&path) {
            Ok(file) => {
                if has_socket(BufReader::new(file), port, waiting).explain(|| format!("read {path}"))? {
                    return Ok(store::start_time(state.pid) == Some(state.pid_started));
                }
            }
            // No IPv6, or it has just ended.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).explain(|| format!("open {path}")),
        }
    }
    Ok(false)
}

fn has_socket(mut table: impl BufRead, port: u16, waiting: &str) -> std::io::Result<bool> {
    let mut line = String::new();
    loop {
        line.clear();
        if std::io::Read::take(&mut table, LONGEST_SOCKET).read_line(&mut line)? == 0 {
            return Ok(false);
        }
        // `  0: 0100007F:1F90 00000000:0000 0A …`
        let mut words = line.split_whitespace().skip(1);
        let local = words.next().and_then(|address| address.rsplit_once(':'));
        let is_port = local.is_some_and(|(_, number)| u16::from_str_radix(number, 16) == Ok(port));
        if is_port && words.nth(1) == Some(waiting) {
            return Ok(true);
        }
    }
}

/// Reads what the present run prints.
struct LogWatch {
    pattern: Regex,
    /// Of the newest file.
    path: PathBuf,
    last: Option<LogFile>,
    /// Of the run whose lines were looked at.
    since: Option<Timestamp>,
    met: bool,
}

impl LogWatch {
    fn of(dir: &ContainerDir, condition: &Condition) -> Result<Option<LogWatch>> {
        let Condition::Log(pattern) = condition else { return Ok(None) };
        let path = ctr_logs::path_of_log(dir)?;
        Ok(Some(LogWatch { pattern: pattern.clone(), path, last: None, since: None, met: false }))
    }

    /// Reads on; whether a line of this run has matched.
    fn look(&mut self, dir: &ContainerDir) -> Result<bool> {
        let started = dir.last_run()?.and_then(|run| run.started_at).and_then(|text| text.parse().ok());
        let Some(started) = started else { return Ok(false) };
        if self.since != Some(started) {
            // Another run: what an earlier one printed does not count.
            self.since = Some(started);
            self.met = false;
        }
        let newer = files::open_newer(&self.path, self.last.as_ref())?;
        if let Some(file) = &mut self.last {
            self.met |=
                read(file, &self.pattern, started, !newer.is_empty()).explain(|| "read the log".into())?;
        }
        for mut file in newer {
            self.met |= read(&mut file, &self.pattern, started, false).explain(|| "read the log".into())?;
            self.last = Some(file);
        }
        Ok(self.met)
    }
}

/// Looks at the new lines of a file; `complete` if no more will be written to it.
fn read(file: &mut LogFile, pattern: &Regex, since: Timestamp, complete: bool) -> std::io::Result<bool> {
    let mut met = false;
    let matches = |line: &[u8]| {
        Entry::parse(line).is_some_and(|entry| {
            entry.moment().is_none_or(|moment| moment >= since)
                && pattern.is_match(entry.log.trim_end_matches(['\n', '\r']))
        })
    };
    loop {
        match file.next_line()? {
            Line::Whole(range) => met |= !met && matches(file.line(range)),
            Line::TooLong => {}
            Line::End { torn } => {
                if torn && complete {
                    met |= matches(file.torn());
                    file.give_up_torn();
                }
                return Ok(met);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_are_listened_on() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n\
            \x20  0: 0100007F:1F90 00000000:0000 0A 00000000:00000000\n\
            \x20  1: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A x\n\
            \x20  2: 0100007F:0051 0100007F:1F90 01 x\ngarbage\n";
        let has = |port| has_socket(table.as_bytes(), port, "0A").unwrap();
        assert!(has(8080) && has(80) && !has(81) && !has(0));
    }
}
