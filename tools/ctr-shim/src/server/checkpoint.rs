//! The run saved by criu, and made again from what it saved.

#[allow(clippy::wildcard_imports)] // A part of one type.
use super::*;

impl Server {
    /// One client at a time saves the container's processes: it does so itself, this waits for their end.
    pub(super) fn begin_checkpoint(&mut self, index: usize) -> Result<()> {
        if self.phase != Phase::Running || self.ending.is_some() {
            return Err(Fault::conflict("the container is not running"));
        }
        if self.paused {
            return Err(Fault::conflict("the container is paused").hint("ctr-unpause lets it run on"));
        }
        if self.settings.runtime.is_some() {
            return Err(Fault::input("another runtime runs the container, which it alone can checkpoint")
                .hint("make it without --runtime"));
        }
        if self.is_being_checkpointed() {
            return Err(Fault::conflict("somebody else is checkpointing it"));
        }
        self.clients[index].checkpoints = true;
        Ok(())
    }

    fn is_being_checkpointed(&self) -> bool {
        self.clients.iter().any(|client| client.checkpoints && !client.gone)
    }

    /// criu ends what it has saved by KILL.
    pub(super) fn is_end_of_checkpoint(&self, code: i32) -> bool {
        code == 128 + libc::SIGKILL && self.is_being_checkpointed()
    }

    /// Whoever saved it is gone. Killed, it may have left the processes stopped.
    pub(super) fn end_checkpoint(&mut self) {
        if !self.paused
            && let Some(run) = &self.run
        {
            run.thaw_if_frozen();
        }
    }

    /// Reads what the container has written so far.
    pub(super) fn drain(&mut self) {
        for stream in 0..2 {
            while self.run.as_ref().is_some_and(|run| run.outputs[stream].is_some()) {
                if !self.has_output(stream) || !self.read_output(stream) {
                    break;
                }
            }
        }
    }

    /// The saved processes take the place of the waiting one. After a failure the container has ended, as it had before.
    pub(super) fn restore(&mut self, wishes: Wishes) -> Result<Reply, Refusal> {
        if self.phase != Phase::Waiting {
            return Err(Fault::conflict("the container is running already").into());
        }
        let outcome = match self.failure.take() {
            Some(fault) => Err(fault),
            None => self.make_restored(wishes),
        };
        let run = match outcome {
            Ok(run) => run,
            Err(fault) => {
                self.release_network();
                self.leave();
                self.phase = Phase::Over;
                return Err(fault.on(self.dir.id.as_str()).into());
            }
        };
        let pid = run.pid();
        self.run = Some(run);
        self.phase = Phase::Running;
        self.started = Some(Instant::now());
        self.deadline = self.settings.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.stopped_by_user = false;
        self.checkpointed = false;
        self.last_run = LastRun { started_at: Some(now()), ..LastRun::default() };
        // In the order of a start, for its reasons.
        let _ = self.write_state("running");
        let _ = self.dir.write_last_run(&self.last_run);
        self.restart_anyway = false;
        self.begin_health();
        self.tell("restore", serde_json::Value::Null);
        Ok(Reply { ok: true, pid: Some(pid), error: None })
    }

    fn make_restored(&mut self, wishes: Wishes) -> Result<Run> {
        // Its place in the control group and its overlay are needed.
        self.kill_and_reap();
        self.end_run();
        self.free_files();
        container::restore(&self.store, &self.dir, &self.settings, self.network.as_ref(), wishes)
    }
}
