//! The health check in the loop.

#[allow(clippy::wildcard_imports)] // A part of one type.
use super::*;
use crate::health::{Check, Monitor, Target, Verdict};
use cgroup::Cgroup;
use oci::wishes::OnFailure;

impl Server {
    /// The container has just been started.
    pub(super) fn begin_health(&mut self) {
        let Some(plan) = &self.settings.health else { return };
        let monitor = Monitor::new(plan, self.settings.stop);
        // A state that cannot be written must not end a container that runs.
        let _ = self.dir.write_health(monitor.health());
        self.health = Some(Box::new(monitor));
    }

    pub(super) fn end_health(&mut self) {
        if let Some(monitor) = self.health.take() {
            monitor.end();
        }
    }

    /// What is due now.
    pub(super) fn attend_health(&mut self) {
        let Some(monitor) = &mut self.health else { return };
        if self.phase != Phase::Running {
            return;
        }
        let Some(run) = &self.run else { return };
        if monitor.is_to_be_killed() {
            let _ = run.signal(libc::SIGKILL);
        }
        let group = || match run.cgroup.as_slice() {
            [] => Cgroup::of_process(run.pid()),
            directories => Cgroup::open(directories),
        };
        let frozen = || group().is_ok_and(|group| group.is_to_be_frozen());
        let processes = || group().and_then(|group| group.all_processes()).unwrap_or_default();
        let mut verdict = monitor.settle();
        monitor.limit(frozen, processes);
        if monitor.is_due() {
            if frozen() {
                monitor.put_off();
            } else {
                let cache = cache(&self.store);
                let target = Target {
                    dir: &self.dir,
                    pid: run.pid(),
                    pidfd: run.pidfd(),
                    cgroup: &run.cgroup,
                    seccomp_cache: &cache,
                };
                match Check::begin(&monitor.plan().command, monitor.plan().timeout, target) {
                    Ok(check) => monitor.began(check),
                    Err(fault) => verdict = Some(monitor.failed(&fault.to_string())),
                }
            }
        }
        let Some(verdict) = verdict else { return };
        let _ = self.dir.write_health(monitor.health());
        if verdict == Verdict::Same {
            return;
        }
        let status = monitor.health().status.clone();
        self.tell("health_status", serde_json::json!({"health_status": status}));
        if let Verdict::Act(action) = verdict {
            self.act_on_failure(action);
        }
    }

    fn act_on_failure(&mut self, action: OnFailure) {
        let (Some(monitor), Some(run)) = (&mut self.health, &self.run) else { return };
        let signal = if action == OnFailure::Kill { libc::SIGKILL } else { monitor.stop().signal };
        monitor.stopping();
        let _ = run.signal(signal);
        match action {
            OnFailure::Stop => self.stopped_by_user = true,
            OnFailure::Restart => self.restart_anyway = true,
            OnFailure::None | OnFailure::Kill => {}
        }
        self.tell("kill", serde_json::json!({"signal": signal}));
    }

    /// Writes an event down, under the name the container has by now.
    pub(super) fn tell(&mut self, action: &str, attributes: serde_json::Value) {
        let version = self.dir.version();
        if version != self.who_version {
            // Gone with a container that removes itself: then it has the name it had.
            if let Ok(record) = self.dir.load() {
                self.who = Who::container(&record);
            }
            self.who_version = version;
        }
        self.store.event(&self.who, action, attributes);
    }
}
