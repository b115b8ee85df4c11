//! Containers made by hand, and a shim that only answers, for testing the tools around containers without root.

use crate::Place;
use record::Record;
use shim::{Exit, Reply, Request, listen, receive, send};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use store::{ContainerDir, LastRun, LiveState, Lock, Store};

impl Place {
    /// The store in this place.
    pub fn store(&self) -> Store {
        Store::at(self.root(), self.run())
    }

    /// A container that was never set up: a bundle, a record, a name. `sections` is a JSON object whose members go into the
    /// record; members of its `container` are kept.
    pub fn container(&self, id: &str, name: &str, sections: &serde_json::Value) -> ContainerDir {
        let dir = self.store().container_dir(id);
        std::fs::create_dir_all(dir.bundle.join("upper")).expect("make a bundle");
        self.store().take_name(name, id).expect("take a name");
        let mut record = Record::new();
        for (member, value) in sections.as_object().into_iter().flatten() {
            record.set(member, value).expect("a section");
        }
        let mut container = sections.get("container").cloned().unwrap_or_else(|| serde_json::json!({}));
        container["id"] = id.into();
        container["name"] = name.into();
        if container.get("created_at").is_none() {
            container["created_at"] = "2026-01-02T03:04:05Z".into();
        }
        record.set("container", &container).expect("a section");
        dir.save(&record).expect("write a record");
        dir
    }

    /// The same, having run and ended.
    pub fn ended_container(&self, id: &str, name: &str, exit_code: i32) -> ContainerDir {
        let dir = self.container(id, name, &serde_json::json!({}));
        dir.write_last_run(&last_run(Some(exit_code))).expect("write last_run.json");
        dir
    }
}

fn last_run(exit_code: Option<i32>) -> LastRun {
    LastRun {
        started_at: Some("2026-01-02T03:04:06Z".into()),
        finished_at: exit_code.map(|_| "2026-01-02T03:04:07Z".into()),
        exit_code,
        ..LastRun::default()
    }
}

/// Stands in for `ctr-shim`: holds the lock, answers requests, and lets the container end when told to.
#[derive(Debug)]
pub struct FakeShim {
    state: Arc<State>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct State {
    dir: ContainerDir,
    /// Signals the container ends on, KILL always.
    ends_on: Vec<i32>,
    requests: Mutex<Vec<Request>>,
    /// -1 as long as it runs.
    ending: AtomicI32,
    /// Vanish without a word, as a killed shim does.
    vanish: AtomicBool,
    mute: bool,
}

impl FakeShim {
    /// For a container whose process runs (`running`) or waits to be started (`created`).
    pub fn start(dir: &ContainerDir, status: &str, ends_on: &[i32]) -> FakeShim {
        FakeShim::with(dir, status, ends_on, false)
    }

    /// One that accepts connections and never answers.
    pub fn mute(dir: &ContainerDir) -> FakeShim {
        FakeShim::with(dir, "running", &[], true)
    }

    fn with(dir: &ContainerDir, status: &str, ends_on: &[i32], mute: bool) -> FakeShim {
        std::fs::create_dir_all(&dir.run).expect("make the run directory");
        // Whoever looks whether the container has a shim shares its lock for that moment.
        let lock = Lock::exclusive(&dir.run.join("lock")).expect("lock");
        let live = LiveState {
            status: status.into(),
            shim_pid: std::process::id() as i32,
            started_at: Some("2026-01-02T03:04:06Z".into()),
            ..LiveState::default()
        };
        dir.write_live_state(&live).expect("write state.json");
        if status == "running" {
            dir.write_last_run(&last_run(None)).expect("write last_run.json");
        }
        let listener = listen(&dir.run).expect("listen");
        let state = Arc::new(State {
            dir: dir.clone(),
            ends_on: ends_on.to_vec(),
            requests: Mutex::new(Vec::new()),
            ending: AtomicI32::new(-1),
            vanish: AtomicBool::new(false),
            mute,
        });
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || serve(&shared, &listener, lock));
        FakeShim { state, thread: Some(thread) }
    }

    /// The container's process ends of itself.
    pub fn exit(&self, code: i32) {
        self.state.ending.store(code, Ordering::SeqCst);
    }

    /// As if the shim were killed.
    pub fn vanish(&self) {
        self.state.vanish.store(true, Ordering::SeqCst);
    }

    /// Waits until the container ended; returns what was asked of it.
    pub fn join(mut self) -> Vec<Request> {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the fake shim does not panic");
        }
        self.requests()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().expect("not poisoned").clone()
    }

    /// Blocks until so many requests have come.
    pub fn wait_for_requests(&self, count: usize) {
        while self.requests().len() < count {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for FakeShim {
    fn drop(&mut self) {
        self.vanish();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(state: &State, listener: &OwnedFd, lock: Lock) {
    let mut clients: Vec<OwnedFd> = Vec::new();
    let mut waiting: Vec<OwnedFd> = Vec::new();
    while !state.vanish.load(Ordering::SeqCst) {
        if let Ok(client) = rustix::net::accept(listener) {
            clients.push(client);
        }
        clients.retain(|client| state.mute || answer(state, client, &mut waiting));
        let code = state.ending.load(Ordering::SeqCst);
        if code >= 0 {
            // The order a real one keeps: written down, told, let go.
            let started = state.dir.last_run().ok().flatten().is_some();
            if started {
                let _ = state.dir.write_last_run(&last_run(Some(code)));
            }
            let _ = std::fs::remove_file(state.dir.run.join("state.json"));
            for client in waiting.drain(..) {
                let _ = send(&client, &Exit::new(code, None), &[]);
            }
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(clients);
    drop(lock);
}

/// False when the client is gone.
fn answer(state: &State, client: &OwnedFd, waiting: &mut Vec<OwnedFd>) -> bool {
    let mut fds = [rustix::event::PollFd::new(client, rustix::event::PollFlags::IN)];
    let none = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut fds, Some(&none)).unwrap_or(0) == 0 {
        return true;
    }
    let Ok(Some(packet)) = receive(client.as_fd()) else { return false };
    let Ok(request) = serde_json::from_slice::<Request>(&packet.bytes) else { return false };
    state.requests.lock().expect("not poisoned").push(request.clone());
    match request {
        Request::Wait => {
            waiting.push(client.try_clone().expect("duplicate a socket"));
            return true;
        }
        Request::Discard => state.ending.store(0, Ordering::SeqCst),
        Request::Signal { signal, .. } if signal == 9 || state.ends_on.contains(&signal) => {
            state.ending.store(128 + signal, Ordering::SeqCst);
        }
        Request::Start => {
            let mut live = state.dir.live_state().ok().flatten().unwrap_or_default();
            live.status = "running".into();
            let _ = state.dir.write_live_state(&live);
            let _ = state.dir.write_last_run(&last_run(None));
        }
        _ => {}
    }
    send(client, &Reply { ok: true, ..Reply::default() }, &[]).is_ok()
}
