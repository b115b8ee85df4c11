//! The health check: when it is due, the process that runs it, what came of it. docker's rules (its `HEALTHCHECK`).

mod check;

pub use check::{Check, Target};

use crate::settings::Stop;
use oci::wishes::{HealthPlan, OnFailure};
use record::{Health, HealthResult};
use std::time::{Duration, Instant};

/// Results kept.
const KEPT: usize = 5;
/// Bytes of output kept of each; also of what a check that took too long had printed.
pub const OUTPUT: usize = 4096;
/// What is killed may be frozen, or wait for a disk.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// What is to be done about the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Same,
    /// Its status has changed.
    Changed,
    /// It has become unhealthy, and this is wished for then.
    Act(OnFailure),
}

/// Watches over one run of the container.
#[derive(Debug)]
pub struct Monitor {
    plan: HealthPlan,
    stop: Stop,
    health: Health,
    started: Instant,
    /// When the next check begins.
    due: Instant,
    check: Option<Check>,
    /// It is being stopped: SIGKILL follows then.
    kill_at: Option<Instant>,
    acted: bool,
}

impl Monitor {
    pub fn new(plan: &HealthPlan, stop: Stop) -> Monitor {
        let now = Instant::now();
        let mut monitor = Monitor {
            plan: plan.clone(),
            stop,
            health: Health { status: "starting".to_owned(), ..Health::default() },
            started: now,
            due: now,
            check: None,
            kill_at: None,
            acted: false,
        };
        monitor.due = now + monitor.interval();
        monitor
    }

    pub fn health(&self) -> &Health {
        &self.health
    }

    pub fn plan(&self) -> &HealthPlan {
        &self.plan
    }

    pub fn stop(&self) -> Stop {
        self.stop
    }

    pub fn check(&self) -> Option<&Check> {
        self.check.as_ref()
    }

    pub fn check_mut(&mut self) -> Option<&mut Check> {
        self.check.as_mut()
    }

    /// When to look again without being told.
    pub fn next(&self) -> Option<Instant> {
        let check = match &self.check {
            Some(check) => Some(check.deadline),
            None if self.acted => None,
            None => Some(self.due),
        };
        [check, self.kill_at].into_iter().flatten().min()
    }

    pub fn is_due(&self) -> bool {
        self.check.is_none() && !self.acted && Instant::now() >= self.due
    }

    /// Puts the next check off by an interval.
    pub fn put_off(&mut self) {
        self.due = Instant::now() + self.interval();
    }

    pub fn began(&mut self, check: Check) {
        self.check = Some(check);
    }

    /// The container is being stopped.
    pub fn stopping(&mut self) {
        self.acted = true;
        self.kill_at = self.stop.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    }

    pub fn is_to_be_killed(&mut self) -> bool {
        let due = self.kill_at.is_some_and(|at| Instant::now() >= at);
        if due {
            self.kill_at = None;
        }
        due
    }

    /// Kills a check that takes too long. `processes` are those of the container, `frozen` whether they are stopped: then nothing
    /// can be said against it.
    pub fn limit(&mut self, frozen: impl FnOnce() -> bool, processes: impl Fn() -> Vec<i32>) {
        let timeout = self.plan.timeout;
        let Some(check) = self.check.as_mut().filter(|check| Instant::now() >= check.deadline) else {
            return;
        };
        if frozen() {
            check.deadline = Instant::now() + timeout;
            return;
        }
        check.timed_out = true;
        check.deadline = Instant::now() + KILL_AGAIN;
        check.kill(&processes);
    }

    /// Takes the result of a check that has ended.
    pub fn settle(&mut self) -> Option<Verdict> {
        let result = self.check.as_mut()?.ended(self.plan.timeout)?;
        let began = self.check.take().map_or_else(Instant::now, |check| check.began);
        self.due = Instant::now() + self.interval();
        Some(self.judge(result, began))
    }

    /// One that could not even begin.
    pub fn failed(&mut self, why: &str) -> Verdict {
        let now = crate::server::now();
        self.due = Instant::now() + self.interval();
        let result = HealthResult {
            start: now.clone(),
            end: now,
            exit_code: 125,
            output: why.to_owned(),
            ..HealthResult::default()
        };
        self.judge(result, Instant::now())
    }

    fn judge(&mut self, result: HealthResult, began: Instant) -> Verdict {
        let succeeded = result.exit_code == 0;
        let health = &mut self.health;
        if health.log.len() >= KEPT {
            health.log.drain(..=health.log.len() - KEPT);
        }
        health.log.push(result);
        let before = health.status.clone();
        if succeeded {
            health.failing_streak = 0;
            "healthy".clone_into(&mut health.status);
        } else if before != "starting" || began.duration_since(self.started) >= self.plan.start_period {
            health.failing_streak = health.failing_streak.saturating_add(1);
            if health.failing_streak >= self.plan.retries {
                "unhealthy".clone_into(&mut health.status);
            }
        }
        if health.status == before {
            Verdict::Same
        } else if health.status == "unhealthy" && self.plan.on_failure != OnFailure::None && !self.acted {
            Verdict::Act(self.plan.on_failure)
        } else {
            Verdict::Changed
        }
    }

    fn interval(&self) -> Duration {
        if self.health.status == "starting" && self.started.elapsed() < self.plan.start_period {
            self.plan.start_interval
        } else {
            self.plan.interval
        }
    }

    /// The container has ended: so has its check.
    pub fn end(mut self) {
        if let Some(check) = self.check.take() {
            check.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn monitor(retries: u32, start_period: Duration, on_failure: OnFailure) -> Monitor {
        let plan = HealthPlan {
            command: vec!["x".to_owned()],
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(1),
            retries,
            start_period,
            start_interval: Duration::from_secs(5),
            on_failure,
        };
        Monitor::new(&plan, Stop { signal: 15, timeout: None })
    }

    fn result(exit_code: i32) -> HealthResult {
        HealthResult { exit_code, ..HealthResult::default() }
    }

    #[test]
    fn so_many_failures_in_a_row_are_unhealthy() {
        let mut monitor = monitor(2, Duration::ZERO, OnFailure::None);
        let mut judge = |code| (monitor.judge(result(code), Instant::now()), monitor.health.status.clone());
        assert_eq!(judge(1), (Verdict::Same, "starting".to_owned()));
        assert_eq!(judge(0), (Verdict::Changed, "healthy".to_owned()));
        assert_eq!(judge(1), (Verdict::Same, "healthy".to_owned()));
        assert_eq!(judge(-1), (Verdict::Changed, "unhealthy".to_owned()));
        assert_eq!(judge(1), (Verdict::Same, "unhealthy".to_owned()));
        assert_eq!(judge(0), (Verdict::Changed, "healthy".to_owned()));
        assert_eq!((monitor.health.log.len(), monitor.health.failing_streak), (KEPT, 0));
        assert_eq!(monitor.health.log[0].exit_code, 0);
    }

    #[test]
    fn failures_in_the_start_period_do_not_count_until_one_has_succeeded() {
        let mut monitor = monitor(1, Duration::from_hours(1), OnFailure::Kill);
        assert_eq!(monitor.interval(), Duration::from_secs(5));
        assert_eq!(monitor.judge(result(1), Instant::now()), Verdict::Same);
        assert_eq!(monitor.health.failing_streak, 0);
        assert_eq!(monitor.judge(result(0), Instant::now()), Verdict::Changed);
        assert_eq!(monitor.interval(), Duration::from_secs(30));
        assert_eq!(monitor.judge(result(1), Instant::now()), Verdict::Act(OnFailure::Kill));
    }
}
