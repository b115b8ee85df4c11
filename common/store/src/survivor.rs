//! Containers that outlived the shim that looked after them.
//!
//! A killed shim takes its container along by the parent-death signal, but not always: the kernel forgets that signal when a process becomes
//! another user (prctl(2), `PR_SET_PDEATHSIG`), as servers do that begin as root. Such a container runs on, and has to be seen.

use crate::{ContainerDir, LiveState, of_process, start_time};
use fault::Result;

impl ContainerDir {
    /// The state of a container that runs, or is paused, though its shim is gone. `None` also where its first process is only
    /// waiting to die: on version 1 a killed process that is frozen.
    pub fn survivor(&self) -> Result<Option<LiveState>> {
        // Most containers that do not run have no state at all.
        let Some(state) = self.live_state()? else { return Ok(None) };
        Ok(Some(state).filter(|state| !self.has_shim() && survives(state)))
    }

    /// Whether it has processes that run or wait to be started, so that what belongs to it must stay.
    pub fn is_alive(&self) -> bool {
        self.has_shim() || self.survivor().is_ok_and(|state| state.is_some())
    }
}

/// Of the state a shim left that is gone.
pub(crate) fn survives(state: &LiveState) -> bool {
    // What waits to be started is this project's own program, which the signal reaches.
    matches!(state.status.as_str(), "running" | "paused")
        && state.pid > 1
        && start_time(state.pid) == Some(state.pid_started)
        && !is_doomed(state.pid)
}

/// Whether it is ending (`PF_EXITING` of proc_pid_stat(5)), or SIGKILL is pending, for the thread or for the process
/// (proc_pid_status(5)).
fn is_doomed(pid: i32) -> bool {
    const SIGKILL: u64 = 1 << (9 - 1);
    const EXITING: u64 = 4;
    let flags = of_process(pid, "stat").and_then(|stat| {
        // The name in brackets may hold anything.
        stat.rsplit_once(')')?.1.split_whitespace().nth(6)?.parse::<u64>().ok()
    });
    if flags.is_none_or(|flags| flags & EXITING != 0) {
        return true;
    }
    let Some(status) = of_process(pid, "status") else { return true };
    let pending = |line: &str| {
        let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
        u64::from_str_radix(set.trim(), 16).ok()
    };
    status.lines().filter_map(pending).any(|set| set & SIGKILL != 0)
}
