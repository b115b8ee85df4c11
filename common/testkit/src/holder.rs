//! Containers that are no more than a process holding a network namespace: all that the tools of networks ask for.

use crate::{Place, die_with_parent};
use std::process::{Child, Stdio};
use store::{ContainerDir, LiveState, Lock};

/// A container that is set up, as long as this lives.
#[derive(Debug)]
pub struct Holder {
    pub dir: ContainerDir,
    process: Child,
    _shim: Lock,
}

impl Holder {
    /// `sections` as of [`Place::container`].
    pub fn new(place: &Place, id: &str, name: &str, sections: &serde_json::Value) -> Holder {
        let dir = place.container(id, name, sections);
        std::fs::write(dir.bundle.join("hosts"), "").expect("write hosts");
        let process = die_with_parent("unshare")
            .args(["--net", "sleep", "1000000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("run unshare");
        let pid = process.id().cast_signed();
        // Until setpriv and unshare have run, its namespace is ours.
        crate::wait_until("a network namespace", || {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        });
        std::fs::create_dir_all(&dir.run).expect("make the run directory");
        let shim = Lock::exclusive(&dir.run.join("lock")).expect("lock");
        let live = LiveState {
            status: "created".into(),
            pid,
            pid_started: store::start_time(pid).expect("it lives"),
            shim_pid: std::process::id().cast_signed(),
            ..LiveState::default()
        };
        dir.write_live_state(&live).expect("write state.json");
        Holder { dir, process, _shim: shim }
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
