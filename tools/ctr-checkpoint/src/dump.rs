//! Having criu save a container, with its shim in the know.

use crate::Args;
use cgroup::Cgroup;
use cli::{Fault, Result};
use record::Record;
use runtime::checkpoint::{self as criu, Criu, Images, Stage, Wishes, stats};
use runtime::{RootFs, Spec};
use serde_json::{Value, json};
use shim::{Client, Request};
use std::path::Path;
use std::time::{Duration, Instant};
use store::{ContainerDir, LiveState, Status};

/// How long the shim of a container whose processes are gone may take.
const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// runc's settings, which those who configured criu for containers have; it need not be there.
const CRIU_CONFIG: &str = "/etc/criu/runc.conf";

/// A container that can be saved.
pub struct Job<'a> {
    args: &'a Args,
    dir: &'a ContainerDir,
    spec: Spec,
    state: LiveState,
    criu: Criu,
    removes_itself: bool,
}

impl<'a> Job<'a> {
    /// # Errors
    /// For everything that can be known before anything is done.
    pub fn prepare(args: &'a Args, dir: &'a ContainerDir, stored: &Record) -> Result<Job<'a>> {
        match dir.status()? {
            Status::Running => {}
            Status::Paused => {
                return Err(Fault::conflict("the container is paused").hint("ctr-unpause lets it run on"));
            }
            other => {
                return Err(Fault::conflict(format!("the container does not run: it is {}", other.name()))
                    .hint("ctr-start starts it"));
            }
        }
        let config = stored.config()?;
        if config.runtime.is_some() {
            return Err(Fault::input("another runtime runs the container, which it alone can checkpoint")
                .hint("make it without --runtime"));
        }
        if config.auto_remove && args.export.is_none() && !args.leave_running {
            return Err(Fault::conflict(
                "the container removes itself when it ends, and its checkpoint with it",
            )
            .hint("--export FILE, or --leave-running"));
        }
        let is_overlay = stored.rootfs()?.is_some_and(|rootfs| rootfs.driver == "overlay");
        if args.export.is_some() && !args.ignore_rootfs && !is_overlay {
            return Err(Fault::conflict(
                "its root file system is a plain directory: nothing tells what was changed in it",
            )
            .hint("--ignore-rootfs, with the directory there where it is restored"));
        }
        let mut spec = Spec::load(&dir.bundle)?;
        criu::check(&spec)?;
        let gone = || Fault::conflict("the container has just ended");
        let state = dir.live_state()?.filter(|state| state.pid > 0).ok_or_else(gone)?;
        if store::start_time(state.pid) != Some(state.pid_started) {
            return Err(gone());
        }
        if state.cgroup.is_empty() {
            return Err(Fault::conflict("it has no control group, by which its processes could be stopped"));
        }
        criu::leave_network_outside(&mut spec, Path::new(&format!("/proc/{}/ns/net", state.pid)));
        Ok(Job { args, dir, spec, state, criu: Criu::find()?, removes_itself: config.auto_remove })
    }

    /// Saves it. `saved` is called when the images are written and the processes stand still; a failure there lets them run on, as any does.
    /// Returns what criu counted if that was asked for.
    pub fn run(&self, saved: &mut dyn FnMut() -> Result<()>) -> Result<Option<Value>> {
        let Some(client) = Client::connect(self.dir)? else {
            return Err(Fault::conflict("the container has just ended"));
        };
        client.request(&Request::Checkpoint, &[])?;
        let began = Instant::now();
        let done = self.dump(saved);
        if done.is_err() {
            checkpoint::abandon(self.dir);
        }
        done?;
        let took = began.elapsed();
        if !self.args.leave_running {
            self.wait_for_end()?;
        }
        // Its bundle is gone with it, or about to be.
        if self.removes_itself && !self.args.leave_running {
            return Ok(self
                .args
                .print_stats
                .then(|| json!({"runtime_checkpoint_duration": took.as_micros() as u64})));
        }
        checkpoint::commit(self.dir)?;
        let statistics = if self.args.print_stats { Some(self.statistics(took)?) } else { None };
        if !self.args.keep {
            checkpoint::remove_traces(self.dir);
        }
        Ok(statistics)
    }

    fn dump(&self, saved: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let images = Images::make(&checkpoint::begin(self.dir)?)?;
        let work = Images::open(&self.dir.bundle)?;
        let rootfs = self.spec.root_path(&self.dir.bundle)?;
        let whole = criu::Container {
            spec: &self.spec,
            bundle: &self.dir.bundle,
            rootfs: &rootfs,
            root_fs: &RootFs::Directory,
            trees: &[],
            images: &images,
            work: Some(&work),
            wishes: Wishes {
                leave_running: self.args.leave_running,
                tcp_established: self.args.tcp_established,
                file_locks: self.args.file_locks,
                config_file: Some(CRIU_CONFIG.to_owned()),
                ..Wishes::default()
            },
        };
        let group = Cgroup::open(&self.state.cgroup)?;
        criu::dump(&self.criu, &whole, &group, self.state.pid, &mut |stage| {
            if matches!(stage, Stage::PostDump) { saved() } else { Ok(()) }
        })
    }

    /// criu has killed the processes; the shim writes down that they ended so.
    fn wait_for_end(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.dir.has_shim() {
            if Instant::now() > deadline {
                return Err(Fault::retryable(
                    "the container is saved, but its shim has not seen its end yet",
                ));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Ok(())
    }

    /// Times in microseconds.
    fn statistics(&self, took: Duration) -> Result<Value> {
        Ok(json!({
            "runtime_checkpoint_duration": took.as_micros() as u64,
            "criu_statistics": stats::of(&self.dir.bundle.join(stats::DUMP))?,
        }))
    }
}

/// RFC 3339.
pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}
