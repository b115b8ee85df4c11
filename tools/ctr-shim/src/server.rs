//! The loop: one thread, one poll(2).

mod change;
mod checkpoint;
mod health;
mod life;
mod streams;

use crate::about;
use crate::attach::{Client, Sink, write_some};
use crate::container::{self, Kept, Run, set_nonblocking};
use crate::health::Monitor;
use crate::log::Log;
use crate::restart::{self, BackOff};
use crate::settings::Settings;
use fault::{Explain, Fault, Result};
use runtime::StartFailure;
use runtime::checkpoint::Wishes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions};
use shim::{Exit, Failure, Reply, Request};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store::{ContainerDir, LastRun, LiveState, Lock, StoppedBy, Store, Who};

/// Bytes taken from a stream at once.
const CHUNK: usize = 64 << 10;

/// How long clients that do not read may hold up the end of the shim, unless they are waited for without end.
const LONGEST_DRAIN: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Set up and waiting to be started.
    Waiting,
    Running,
    /// Between two runs, until the time given.
    Restarting(Instant),
    /// Nothing more to do but to let clients take what is theirs.
    Over,
}

pub struct Server {
    store: Store,
    dir: ContainerDir,
    settings: Settings,
    /// Where the other tools are.
    tools: Option<PathBuf>,
    lock: Option<Lock>,
    listener: OwnedFd,
    signals: OwnedFd,
    clients: Vec<Client>,
    log: Log,
    run: Option<Run>,
    /// Why the container could not be set up; whoever starts it is told.
    failure: Option<Fault>,
    network: Option<Kept>,
    /// [`Run::mounts`] of a run that has ended, until everybody has been told.
    mounts: Option<OwnedFd>,
    phase: Phase,
    started: Option<Instant>,
    /// When it is killed for having run too long.
    deadline: Option<Instant>,
    last_run: LastRun,
    restarts: u32,
    back_off: BackOff,
    stopped_by_user: bool,
    /// It was ended because its processes are saved.
    checkpointed: bool,
    /// Every process is stopped where it is.
    paused: bool,
    /// Another run was asked for: how the present one is being ended.
    ending: Option<change::Ending>,
    /// The machine is being shut down, or whoever asked the shim to end thinks so.
    shutting_down: bool,
    /// Whatever the restart policy says.
    restart_anyway: bool,
    /// Of a container with a health check, while it runs.
    health: Option<Box<Monitor>>,
    /// For events.
    who: Who,
    /// Of the record `who` was read from.
    who_version: Option<store::Version>,
    /// What the container's stdin has not taken yet.
    input: Vec<u8>,
    /// The client closed its side: close the container's when all is written.
    input_ended: bool,
    chunk: Vec<u8>,
}

impl Server {
    /// Takes the lock, opens the socket and makes the container; [`Server::complete`] waits until that is set up.
    pub fn set_up(bundle: &Path, run_dir: &Path, tools: Option<&Path>) -> Result<Server> {
        let (store, dir) = locate(bundle, run_dir)?;
        let on = about(dir.id.clone());
        // What is in it is for its owner alone.
        store.make_dir(&dir.run).map_err(&on)?;
        let lock = take_lock(&dir)?;
        // Before it is read, so that a change between the two is seen later.
        let who_version = dir.version();
        let record = dir.load()?;
        let settings = Settings::of(&record, &dir.bundle).map_err(&on)?;
        let who = Who::container(&record);
        drop(record);
        let signals = sys::process::signal_descriptor(&[
            libc::SIGCHLD,
            libc::SIGTERM,
            libc::SIGINT,
            libc::SIGHUP,
            libc::SIGPIPE,
        ])
        .explain(|| "prepare for signals".into())?;
        let log = Log::open(&dir.bundle, &settings.log).map_err(&on)?;
        let listener = shim::listen(&dir.run).map_err(&on)?;
        let own = [lock.file().as_fd(), listener.as_fd(), signals.as_fd()];
        let run = container::create(&store, &dir, &settings, &cache(&store), None, &own).map_err(&on)?;
        // Kept open, so that the network outlives a restart.
        let network = Kept::of(run.pid());
        let last_run = dir.last_run().ok().flatten().unwrap_or_default();
        let server = Server {
            store,
            dir,
            settings,
            tools: tools.map(Path::to_owned),
            lock: Some(lock),
            listener,
            signals,
            clients: Vec::new(),
            log,
            run: Some(run),
            failure: None,
            network,
            mounts: None,
            phase: Phase::Waiting,
            started: None,
            deadline: None,
            last_run,
            restarts: 0,
            back_off: BackOff::new(),
            stopped_by_user: false,
            checkpointed: false,
            paused: false,
            ending: None,
            shutting_down: false,
            restart_anyway: false,
            health: None,
            who,
            who_version,
            input: Vec::new(),
            input_ended: false,
            chunk: vec![0; CHUNK],
        };
        server.write_state("created").map_err(&on)?;
        Ok(server)
    }

    /// Waits until the container is set up. A failure is for whoever starts it.
    pub fn complete(&mut self) {
        let Some(run) = &mut self.run else { return };
        if let Err(fault) = run.ready() {
            self.run = None;
            self.network = None;
            self.failure = Some(fault);
            let _ = self.write_state("created");
        }
    }

    pub fn pid(&self) -> i32 {
        self.run.as_ref().map_or(0, Run::pid)
    }

    pub fn serve(&mut self) {
        let mut over_since: Option<Instant> = None;
        loop {
            if self.phase == Phase::Over {
                let since = *over_since.get_or_insert_with(Instant::now);
                let late = since.elapsed() > LONGEST_DRAIN;
                // Who is waited for without end while the container runs is waited for afterwards, too.
                let done = |client: &Client| client.is_drained() || late && client.patience.is_some();
                if self.clients.iter().all(done) {
                    return;
                }
            }
            self.turn();
        }
    }

    /// Waits for something to happen and deals with it.
    fn turn(&mut self) {
        let (ready, timeout) = self.wait();
        if self.deadline.is_some_and(|at| Instant::now() >= at) {
            self.deadline = None;
            // Its end comes as that of any other.
            let _ = self.signal(libc::SIGKILL);
        }
        if timeout {
            self.restart();
        }
        self.end_in_time();
        self.let_go();
        for what in ready {
            match what {
                Source::Listener => self.accept(),
                Source::Signals => self.take_signals(),
                Source::Request(index) => self.request(index),
                Source::ClientInput(index) => self.read_client(index),
                Source::ClientOutput(index, stream) => self.flush_client(index, stream),
                Source::Output(stream) => {
                    self.read_output(stream);
                }
                Source::Input => self.flush_input(),
                Source::Check => {}
                Source::CheckOutput => {
                    if let Some(check) = self.health.as_mut().and_then(|monitor| monitor.check_mut()) {
                        check.read();
                    }
                }
                Source::Log => self.log.resume(),
            }
        }
        if self.health.is_some() {
            self.attend_health();
        }
        self.clients.retain(|client| !client.gone);
    }

    fn wait(&self) -> (Vec<Source>, bool) {
        let mut sources: Vec<Source> = Vec::with_capacity(8);
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(8);
        let mut add = |source, fd, flags| {
            sources.push(source);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        if self.phase != Phase::Over {
            add(Source::Listener, self.listener.as_fd(), PollFlags::IN);
            add(Source::Signals, self.signals.as_fd(), PollFlags::IN);
        }
        let held_up = |stream: usize| {
            self.clients.iter().any(|c| c.outputs[stream].as_ref().is_some_and(Sink::is_behind))
        };
        // Before it is started there is nothing to read, and its terminal would report a hang-up.
        if let Some(run) = self.run.as_ref().filter(|_| self.phase == Phase::Running) {
            for (stream, fd) in run.outputs.iter().enumerate() {
                if let Some(fd) = fd
                    && !held_up(stream)
                    && !self.log.is_behind()
                {
                    add(Source::Output(stream), fd.as_fd(), PollFlags::IN);
                }
            }
            if let Some(fd) = run.input.as_ref().filter(|_| !self.input.is_empty()) {
                add(Source::Input, fd.as_fd(), PollFlags::OUT);
            }
        }
        if let Some(fd) = self.log.waits_for() {
            add(Source::Log, fd, PollFlags::OUT);
        }
        for (index, client) in self.clients.iter().enumerate() {
            if client.gone {
                continue;
            }
            if self.phase != Phase::Over {
                add(Source::Request(index), client.socket.as_fd(), PollFlags::IN);
                if let Some(fd) =
                    client.input.as_ref().filter(|_| self.input.is_empty() && self.phase == Phase::Running)
                {
                    add(Source::ClientInput(index), fd.as_fd(), PollFlags::IN);
                }
            }
            for (stream, sink) in client.outputs.iter().enumerate() {
                if let Some(sink) = sink {
                    // Without pending bytes only a reader's going away is of interest; poll(2) always tells.
                    let flags = if sink.has_pending() { PollFlags::OUT } else { PollFlags::empty() };
                    add(Source::ClientOutput(index, stream), sink.fd.as_fd(), flags);
                }
            }
        }
        if let Some(check) = self.health.as_ref().and_then(|monitor| monitor.check()) {
            add(Source::Check, check.pidfd(), PollFlags::IN);
            if let Some(output) = check.output() {
                add(Source::CheckOutput, output, PollFlags::IN);
            }
        }
        let until = |at: Instant| at.saturating_duration_since(Instant::now());
        let limit = match self.phase {
            Phase::Restarting(at) => Some(until(at)),
            Phase::Running => {
                let check = self.health.as_ref().and_then(|monitor| monitor.next());
                check.into_iter().chain(self.deadline).min().map(until)
            }
            Phase::Over => Some(Duration::from_secs(1)),
            Phase::Waiting => None,
        };
        let ending = self.ending.as_ref().and_then(change::Ending::left);
        let slow = self.clients.iter().filter_map(Client::let_go_at).min();
        let slow = slow.map(|at| at.saturating_duration_since(Instant::now()));
        let limit = limit.into_iter().chain(ending).chain(slow).min();
        let limit = limit.and_then(|limit| rustix::event::Timespec::try_from(limit).ok());
        let happened = poll(&mut fds, limit.as_ref()).unwrap_or(0);
        let due = matches!(self.phase, Phase::Restarting(at) if Instant::now() >= at);
        if happened == 0 {
            return (Vec::new(), due);
        }
        let ready = fds.iter().zip(&sources).filter(|(fd, _)| !fd.revents().is_empty());
        (ready.map(|(_, source)| *source).collect(), due)
    }

    // Clients

    fn accept(&mut self) {
        while let Ok(socket) = rustix::net::accept_with(
            &self.listener,
            rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        ) {
            self.clients.push(Client::new(socket));
        }
    }

    fn request(&mut self, index: usize) {
        let packet = match shim::receive(&self.clients[index].socket) {
            Ok(Some(packet)) => packet,
            Err(Errno::AGAIN) => return,
            _ => {
                self.drop_client(index);
                return;
            }
        };
        let outcome = serde_json::from_slice::<Request>(&packet.bytes)
            .map_err(|error| Fault::input("not a request").because(error).into())
            .and_then(|request| self.act(index, &request, packet.fds));
        let reply = match outcome {
            Ok(Some(reply)) => reply,
            // Answered by the exit event.
            Ok(None) => return,
            Err(Refusal { fault, exit_code }) => {
                Reply { error: Some(Failure::of(&fault, exit_code)), ..Reply::default() }
            }
        };
        if shim::send(&self.clients[index].socket, &reply, &[]).is_err() {
            self.drop_client(index);
        }
    }

    fn act(&mut self, index: usize, request: &Request, fds: Vec<OwnedFd>) -> Result<Option<Reply>, Refusal> {
        let done = || Reply { ok: true, ..Reply::default() };
        match request {
            Request::Ready => match &self.failure {
                Some(fault) => Ok(Some(Reply { error: Some(Failure::of(fault, None)), ..Reply::default() })),
                None => Ok(Some(Reply { ok: true, pid: Some(self.pid()), error: None })),
            },
            Request::Start => {
                // Whoever asks is told of a failure by the reply, before which no exit event may come.
                let waits = std::mem::replace(&mut self.clients[index].waits, false);
                let reply = self.start()?;
                self.clients[index].waits = waits;
                Ok(Some(reply))
            }
            Request::Signal { signal, stop } => {
                self.stopped_by_user |= stop;
                self.restart_anyway &= !stop;
                if *stop {
                    self.forget_restart();
                }
                if *stop && matches!(self.phase, Phase::Restarting(_)) {
                    self.settle_end();
                    return Ok(Some(done()));
                }
                self.signal(*signal)?;
                // What is to end has to run for it.
                if *stop || *signal == libc::SIGKILL {
                    self.let_run()?;
                }
                self.tell("kill", serde_json::json!({"signal": signal}));
                Ok(Some(done()))
            }
            Request::Wait => {
                self.clients[index].waits = true;
                Ok(None)
            }
            Request::Attach { stdin, stdout, stderr, patience } => {
                self.clients[index].patience = patience.map(Duration::from_secs);
                self.attach(index, [*stdin, *stdout, *stderr], fds)?;
                Ok(Some(done()))
            }
            Request::Resize { rows, columns } => {
                self.resize(*rows, *columns)?;
                Ok(Some(done()))
            }
            Request::Recreate => {
                self.recreate()?;
                Ok(Some(Reply { ok: true, pid: Some(self.pid()), error: None }))
            }
            Request::Discard => {
                self.discard()?;
                Ok(Some(done()))
            }
            Request::Pause => {
                self.pause()?;
                Ok(Some(done()))
            }
            Request::Unpause => {
                self.unpause()?;
                Ok(Some(done()))
            }
            Request::Restart { signal, timeout } => {
                self.run_again(*signal, *timeout)?;
                self.clients[index].awaits_restart = true;
                Ok(None)
            }
            Request::Checkpoint => {
                self.begin_checkpoint(index)?;
                Ok(Some(done()))
            }
            Request::Drain => {
                self.drain();
                Ok(Some(done()))
            }
            Request::Restore { tcp_established, file_locks } => {
                let wishes = Wishes {
                    tcp_established: *tcp_established,
                    file_locks: *file_locks,
                    ..Wishes::default()
                };
                Ok(Some(self.restore(wishes)?))
            }
            Request::Update { resources, config } => {
                self.update(resources, config)?;
                Ok(Some(done()))
            }
        }
    }

    fn attach(&mut self, index: usize, wanted: [bool; 3], fds: Vec<OwnedFd>) -> Result<()> {
        let mut fds = fds.into_iter();
        let mut next = |wanted: bool| -> Result<Option<OwnedFd>> {
            if !wanted {
                return Ok(None);
            }
            let fd = fds.next().ok_or_else(|| Fault::input("a descriptor is missing"))?;
            set_nonblocking(&fd)?;
            Ok(Some(fd))
        };
        let input = next(wanted[0])?;
        let outputs = [next(wanted[1])?.map(Sink::new), next(wanted[2])?.map(Sink::new)];
        let client = &mut self.clients[index];
        client.input = input.filter(|_| self.run.as_ref().is_some_and(|run| run.input.is_some()));
        client.outputs = outputs;
        client.waits = true;
        self.tell("attach", serde_json::Value::Null);
        Ok(())
    }

    /// Clients the container has waited for long enough.
    fn let_go(&mut self) {
        let now = Instant::now();
        for client in &mut self.clients {
            if client.let_go_at().is_some_and(|at| at <= now) {
                let told = Exit { event: shim::LET_GO.to_owned(), ..Exit::default() };
                let _ = shim::send(&client.socket, &told, &[]);
                client.gone = true;
            }
        }
    }

    fn drop_client(&mut self, index: usize) {
        // Its pipe's end is the end of input only when it said so by closing the pipe; that is seen by reading it.
        self.clients[index].gone = true;
        if std::mem::take(&mut self.clients[index].checkpoints) {
            self.end_checkpoint();
        }
    }

    fn resize(&mut self, rows: u16, columns: u16) -> Result<()> {
        let terminal = self
            .run
            .as_ref()
            .and_then(|run| run.terminal.as_ref())
            .ok_or_else(|| Fault::conflict("the container has no terminal"))?;
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size).explain(|| "set the terminal's size".into())
    }

    // Streams
}

/// How long a shim that answers may take to end, and another program to let go of the container's lock.
const SHIM_PATIENCE: Duration = Duration::from_millis(200);
const LOCK_PATIENCE: Duration = Duration::from_secs(10);

/// What poll(2) said something about.
#[derive(Clone, Copy, Debug)]
enum Source {
    Listener,
    Signals,
    Request(usize),
    ClientInput(usize),
    ClientOutput(usize, usize),
    Output(usize),
    Input,
    /// The health check's process has ended.
    Check,
    CheckOutput,
    Log,
}

/// A request that was not done.
struct Refusal {
    fault: Fault,
    exit_code: Option<i32>,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal { fault, exit_code: None }
    }
}

/// Whoever looks whether the container has a shim holds its lock for that moment, and who copies or clears away for longer, so it is
/// waited for; but not for a shim to end.
fn take_lock(dir: &ContainerDir) -> Result<Lock> {
    let begun = Instant::now();
    loop {
        if let Some(lock) = Lock::try_exclusive(&dir.run.join("lock")).map_err(about(dir.id.clone()))? {
            return Ok(lock);
        }
        // One that ends has its lock a little longer than its socket, one that begins a little before.
        if begun.elapsed() >= SHIM_PATIENCE && shim::Client::connect(dir)?.is_some() {
            return Err(Fault::conflict("another shim looks after it").on(dir.id.as_str()));
        }
        if begun.elapsed() >= LOCK_PATIENCE {
            return Err(Fault::retryable("another program holds its lock")
                .on(dir.id.as_str())
                .hint("ctr-cp, ctr-export or ctr-commit works on it: try again when it is done"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The store around `…/containers/<id>`, twice.
fn locate(bundle: &Path, run: &Path) -> Result<(Store, ContainerDir)> {
    let wrong = || {
        Fault::usage(format!("{} and {} are not a container's directories", bundle.display(), run.display()))
    };
    let above = |path: &Path| path.parent().and_then(Path::parent).map(Path::to_path_buf);
    let id = bundle
        .file_name()
        .and_then(|name| name.to_str())
        .filter(|name| store::is_id(name))
        .ok_or_else(wrong)?;
    if run.file_name() != bundle.file_name() {
        return Err(wrong());
    }
    let store = Store::at(above(bundle).ok_or_else(wrong)?, above(run).ok_or_else(wrong)?);
    let dir = store.container_dir(id);
    Ok((store, dir))
}

fn cache(store: &Store) -> PathBuf {
    store.root().join("cache/seccomp")
}

pub fn now() -> String {
    jiff::Timestamp::now().to_string()
}
