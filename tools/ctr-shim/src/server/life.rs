//! What becomes of the container: started, signalled, ended, started again, let go of.

#[allow(clippy::wildcard_imports)] // The other half of one type.
use super::*;
use oci::wishes::RestartPolicy;
use std::os::unix::ffi::OsStrExt;

impl Server {
    pub(super) fn start(&mut self) -> Result<Reply, Refusal> {
        if self.phase != Phase::Waiting {
            return Err(Fault::conflict("the container is running already").into());
        }
        // Whoever asks for a start is attached by now, so no output can come before its reader.
        let pid = self.pid();
        let outcome = match (self.failure.take(), &self.run) {
            (Some(fault), _) => Err(StartFailure { fault, exit_code: None }),
            (None, Some(run)) => run.start(&self.dir.id),
            (None, None) => return Err(Fault::conflict("the container has ended").into()),
        };
        if let Err(failure) = outcome {
            self.never_started(&failure);
            return Err(Refusal {
                fault: failure.fault.on(self.dir.id.as_str()),
                exit_code: failure.exit_code,
            });
        }
        self.phase = Phase::Running;
        self.started = Some(Instant::now());
        self.deadline = self.settings.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        self.stopped_by_user = false;
        self.checkpointed = false;
        let was_stopped = self.last_run.stopped_by == Some(StoppedBy::User);
        self.last_run = LastRun { started_at: Some(now()), restarts: self.restarts, ..LastRun::default() };
        // A state that cannot be written must not end a container that runs. In this order, because one that was set up and has
        // a last run is taken for one that has ended.
        let _ = self.write_state("running");
        self.write_last_run(was_stopped);
        self.outlast_the_machine();
        if let Some(run) = &self.run
            && let Err(fault) = run.after_start(&self.dir)
        {
            // runtime.md, "Lifecycle": a poststart hook that fails ends the container.
            let _ = run.signal(libc::SIGKILL);
            return Err(fault.on(self.dir.id.as_str()).into());
        }
        self.restart_anyway = false;
        self.begin_health();
        self.tell("start", serde_json::Value::Null);
        Ok(Reply { ok: true, pid: Some(pid), error: None })
    }

    fn never_started(&mut self, failure: &StartFailure) {
        let exit = failure.exit_code.unwrap_or(128);
        self.last_run = LastRun {
            started_at: None,
            finished_at: Some(now()),
            exit_code: Some(exit),
            error: Some(failure.fault.to_string()),
            restarts: self.restarts,
            ..LastRun::default()
        };
        self.tell("die", serde_json::json!({"exit_code": exit}));
        self.reap();
        self.end_run();
        self.phase = Phase::Over;
        self.finish(exit);
    }

    pub(super) fn signal(&mut self, signal: i32) -> Result<()> {
        // Nothing is there to be killed, but somebody waits for its end.
        if signal == libc::SIGKILL
            && let Some(fault) = self.failure.take()
        {
            self.never_started(&StartFailure { fault, exit_code: None });
            return Ok(());
        }
        if self.phase == Phase::Waiting && signal != libc::SIGKILL {
            return Err(Fault::conflict("the container is not running").hint("ctr-start starts it"));
        }
        let run = self.run.as_ref().ok_or_else(|| Fault::conflict("the container is not running"))?;
        run.signal(signal).explain(|| format!("send signal {signal}"))
    }

    pub(super) fn take_signals(&mut self) {
        let mut info = [0u8; 128];
        while let Ok(read) = rustix::io::read(&self.signals, &mut info) {
            if read < 4 {
                break;
            }
            let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
            // Ended by the machine's own shutting down, say: the container is asked to end, too.
            if number == libc::SIGTERM {
                self.stopped_by_user = true;
                self.shutting_down = true;
                self.forget_restart();
                let _ = self.signal(libc::SIGTERM);
                let _ = self.let_run();
            }
        }
        self.look_for_exit();
    }

    /// Takes the container's end, if it has come.
    pub(super) fn look_for_exit(&mut self) {
        let ended = self.run.as_ref().and_then(|run| {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            rustix::process::waitid(WaitId::PidFd(run.pidfd()), options).ok().flatten()
        });
        if let Some(status) = ended {
            let code = match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => code,
                (None, Some(signal)) => 128 + signal,
                (None, None) => 255,
            };
            self.ended(code);
        }
        // Orphans of another runtime's making.
        let checks = self.health.as_ref().is_some_and(|monitor| monitor.check().is_some());
        if self.settings.runtime.is_some() && !checks {
            while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        }
    }

    pub(super) fn ended(&mut self, code: i32) {
        self.deadline = None;
        if self.phase == Phase::Waiting {
            // Killed before it was started: nothing has run.
            self.last_run = LastRun { finished_at: Some(now()), exit_code: Some(code), ..LastRun::default() };
        }
        // Everything it wrote is in the pipes now, as all its processes are gone.
        self.drain();
        self.log.finish();
        self.checkpointed = self.is_end_of_checkpoint(code);
        self.end_health();
        self.last_run.finished_at = Some(now());
        self.last_run.exit_code = Some(code);
        self.last_run.stopped_by = self.stopped_by();
        self.last_run.oom_killed = self.end_run();
        let ran = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        if self.last_run.oom_killed {
            self.tell("oom", serde_json::Value::Null);
        }
        if self.started.is_some() {
            self.tell("die", serde_json::json!({"exit_code": code, "seconds": ran.as_secs()}));
        }
        if self.ending.take().is_some() && !self.checkpointed {
            (self.restarts, self.back_off) = (0, BackOff::new());
            self.between_runs(code, Duration::ZERO);
            return;
        }
        let anyway = self.restart_anyway && !self.stopped_by_user;
        let again = !self.checkpointed;
        if again
            && (anyway || restart::wanted(self.settings.restart, code, self.restarts, self.stopped_by_user))
            && self.started.is_some()
        {
            self.restarts += 1;
            let wait = self.back_off.next(ran);
            self.between_runs(code, wait);
            return;
        }
        self.phase = Phase::Over;
        self.finish(code);
    }

    fn between_runs(&mut self, code: i32, wait: Duration) {
        let _ = self.dir.write_last_run(&self.last_run);
        self.phase = Phase::Restarting(Instant::now() + wait);
        let _ = self.write_state("restarting");
        self.tell_end(code);
    }

    fn stopped_by(&self) -> Option<StoppedBy> {
        if self.shutting_down {
            Some(StoppedBy::Machine)
        } else if self.checkpointed {
            Some(StoppedBy::Checkpoint)
        } else {
            self.stopped_by_user.then_some(StoppedBy::User)
        }
    }

    pub(super) fn has_output(&self, stream: usize) -> bool {
        let Some(fd) = self.run.as_ref().and_then(|run| run.outputs[stream].as_ref()) else { return false };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }

    /// Lets go of a run that has ended; whether it lacked memory.
    pub(super) fn end_run(&mut self) -> bool {
        self.input.clear();
        self.input_ended = false;
        // Killed from outside while it was paused; what is left of it has to end.
        let _ = self.let_run();
        self.run.take().is_some_and(|mut run| {
            self.mounts = run.mounts.take();
            let out_of_memory = run.clean_up(&self.dir.id);
            run.after_stop(&self.dir);
            // What fails is tried again when it is set up again or removed.
            let _ = volume::trees::release(&self.dir);
            out_of_memory
        })
    }

    pub(super) fn restart(&mut self) {
        let network = self.network.as_ref().and_then(|fd| fd.try_clone().ok());
        let outcome = self.make_run(network);
        match outcome {
            Ok(run) => {
                self.run = Some(run);
                self.phase = Phase::Waiting;
                // A failure ends the shim and is in last_run.json.
                let started = self.start();
                self.answer_restart(started);
            }
            Err(fault) => {
                self.last_run.error = Some(fault.to_string());
                self.answer_restart(Err(fault.into()));
                self.settle_end();
            }
        }
    }

    fn make_run(&mut self, network: Option<Kept>) -> Result<Run> {
        self.free_files();
        let store = &self.store;
        let lock = self.lock.as_ref().map(|lock| lock.file().as_fd());
        let own: Vec<_> = lock.into_iter().chain([self.listener.as_fd(), self.signals.as_fd()]).collect();
        let mut run = container::create(store, &self.dir, &self.settings, &cache(store), network, &own)?;
        run.ready()?;
        Ok(run)
    }

    /// The last run's read-write layer is free for another.
    pub(super) fn free_files(&mut self) {
        self.mounts = None;
        if self.settings.auto_remove {
            // The mark overlayfs leaves where a crash could have lost something (overlayfs.rst, "Volatile mount"): no machine
            // crashed between two runs of one shim.
            let _ = std::fs::remove_dir_all(self.dir.bundle.join("work/work/incompat/volatile"));
        }
    }

    /// No further run after the last one.
    pub(super) fn settle_end(&mut self) {
        self.phase = Phase::Over;
        self.last_run.stopped_by = self.stopped_by();
        let code = self.last_run.exit_code.unwrap_or(255);
        self.finish(code);
    }

    /// Before start: the bundle was changed.
    pub(super) fn recreate(&mut self) -> Result<()> {
        if self.phase != Phase::Waiting {
            return Err(Fault::conflict("the container is running"));
        }
        let record = self.dir.load()?;
        let settings = Settings::of(&record, &self.dir.bundle)?;
        (self.who, self.who_version) = (Who::container(&record), None);
        let log = Log::open(&self.dir.bundle, &settings.log)?;
        self.kill_and_reap();
        self.end_run();
        self.settings = settings;
        self.log = log;
        let network = self.network.as_ref().and_then(|fd| fd.try_clone().ok());
        self.failure = None;
        match self.make_run(network) {
            Ok(run) => {
                self.run = Some(run);
                self.write_state("created")
            }
            Err(fault) => {
                // What is left is a container that was never set up; ctr-start tries again.
                self.leave();
                self.phase = Phase::Over;
                Err(fault)
            }
        }
    }

    pub(super) fn discard(&mut self) -> Result<()> {
        if self.phase != Phase::Waiting {
            return Err(Fault::conflict("the container is running").hint("stop it, or use force"));
        }
        self.kill_and_reap();
        self.end_run();
        self.leave();
        self.phase = Phase::Over;
        Ok(())
    }

    pub(super) fn kill_and_reap(&mut self) {
        if let Some(run) = &self.run {
            let _ = run.signal(libc::SIGKILL);
        }
        self.reap();
    }

    pub(super) fn reap(&mut self) {
        if let Some(run) = &self.run {
            let _ = rustix::process::waitid(WaitId::PidFd(run.pidfd()), WaitIdOptions::EXITED);
        }
    }

    /// The last things to do for a container that has ended, before anybody is told.
    pub(super) fn finish(&mut self, code: i32) {
        if !self.settings.auto_remove {
            self.write_last_run(true);
        }
        self.release_network();
        let remains = self.lock.as_ref().filter(|_| self.settings.auto_remove).map(|lock| {
            // What stays is swept by ctr-prune; there is nobody to tell.
            ctr_rm::take_away(&self.store, &self.dir, true, lock)
        });
        self.leave();
        self.tell_end(code);
        // Nobody has to wait for the container's mounts to be taken down, or for its files to be deleted.
        self.mounts = None;
        drop(remains);
    }

    /// Lets go of the network namespace, and gives back the addresses; published ports are the network tool's business, as are
    /// CNI plugins, which are given the namespace once more: without it some leave behind what they made outside, and devices
    /// of the host's that were moved into it would go with it.
    pub(super) fn release_network(&mut self) {
        let network = self.network.take();
        let Ok(record) = self.dir.load() else { return };
        let attachments = record.networks().unwrap_or_default();
        let network = network.filter(|_| attachments.iter().any(|attachment| attachment.cni.is_some()));
        let held = network.as_ref().map(|kept| ["--netns".to_owned(), kept.network_path()]);
        let ports = store::release_all(&self.store, &self.dir.id, &attachments);
        if !ports {
            // net-detach tells of it itself.
            for attachment in &attachments {
                let attributes = serde_json::json!({"container": self.dir.id});
                self.store.event(&Who::network(&attachment.name), "disconnect", attributes);
            }
        } else if let Some(tools) = &self.tools {
            let _ = std::process::Command::new(tools.join("net-detach"))
                .args(["--ended", &self.dir.id])
                .args(held.iter().flatten())
                .env("STAVES_ROOT", self.store.root())
                .env("STAVES_RUN", self.store.run())
                .stdin(std::process::Stdio::null())
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status();
        }
    }

    /// `final_word`: what is written decides whether it runs after the machine has lost its power. With most policies nothing does.
    fn write_last_run(&self, final_word: bool) {
        let decides =
            matches!(self.settings.restart, RestartPolicy::UnlessStopped | RestartPolicy::OnFailure(_));
        let _ = if final_word && decides {
            self.dir.write_last_run_durably(&self.last_run)
        } else {
            self.dir.write_last_run(&self.last_run)
        };
    }

    /// It is to run again after the machine has lost its power, so it must be on disk that there is such a container.
    fn outlast_the_machine(&self) {
        if self.settings.restart == RestartPolicy::No || self.settings.auto_remove || self.restarts > 0 {
            return;
        }
        if let Ok(bundle) = std::ffi::CString::new(self.dir.bundle.as_os_str().as_bytes()) {
            // Without another process it gets there in its own time.
            let _ = sys::background::sync(&bundle);
        }
    }

    /// The container is nobody's any more; the lock is let go of last.
    pub(super) fn leave(&mut self) {
        for name in ["shim.sock", "state.json"] {
            let _ = std::fs::remove_file(self.dir.run.join(name));
        }
        self.lock = None;
    }

    pub(super) fn tell_end(&mut self, code: i32) {
        let exit = Exit::new(code, self.last_run.error.clone());
        for client in self.clients.iter_mut().filter(|client| client.waits && !client.gone) {
            // The pipes end after what is pending in them; the client reads them to their end before it acts on this.
            if shim::send(&client.socket, &exit, &[]).is_err() {
                client.gone = true;
            }
            client.waits = false;
            client.input = None;
            for output in &mut client.outputs {
                if output.as_ref().is_some_and(|sink| !sink.has_pending()) {
                    *output = None;
                }
            }
        }
    }

    pub(super) fn write_state(&self, status: &str) -> Result<()> {
        let pid = self.pid();
        if let Some(path) = self.settings.pidfile.as_deref().filter(|_| pid > 0) {
            store::atomic::write(path, pid.to_string().as_bytes(), 0o644)?;
        }
        self.dir.write_live_state(&LiveState {
            status: status.to_owned(),
            pid,
            pid_started: store::start_time(pid).unwrap_or(0),
            shim_pid: std::process::id() as i32,
            started_at: self.last_run.started_at.clone(),
            restart_count: self.restarts,
            cgroup: self.run.as_ref().map(|run| run.cgroup.clone()).unwrap_or_default(),
        })
    }
}
