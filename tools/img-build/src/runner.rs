//! The process that runs one instruction's command in a container of its own.
//!
//! A container is made by a process of one thread; builds have several. So `img-build` starts itself again, hands the
//! process an [`Order`] on stdin and reads a [`Report`] from its stdout; what the command writes goes to its stderr. The
//! order's pipe stays open as long as the build lives: when it closes, the container is ended and everything of it removed,
//! however the build has ended.

use cli::{Explain, Fault, Kind, Result};
use runtime::{Created, Gate, Manners, Options, RootFs, Spec, Stdio};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shim::Failure;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio as Pipe};
use std::sync::Arc;
use store::{ContainerDir, Store};

/// The hidden option that makes a runner of the tool. Its value ends with the container's id, by which `ctr-prune` knows that somebody
/// looks after the container.
pub const FLAG: &str = "--run-step";
const MAX_ORDER: u64 = 32 << 20;
/// Of the interface in the container.
const INTERFACE: &str = "eth0";

/// What is to be run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Has `config.json`, `trees.json`, `hosts`, `hostname`, `resolv.conf`.
    pub bundle: PathBuf,
    /// Layers, lowest first.
    pub lower: Vec<PathBuf>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// The network to be on; `None`: the specification says all.
    pub network: Option<String>,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// 128 and more: killed by a signal.
    Exited { code: i32, out_of_memory: bool },
    /// It could not be run.
    Failed(Failure),
}

/// Runs an order to its end. For a process of one thread.
pub fn run() -> Result<()> {
    let mut input = std::io::stdin().lock();
    let mut line = Vec::new();
    read_line(&mut input, &mut line)?;
    drop(input);
    let order: Order = serde_json::from_slice(&line).explain_as(Kind::Input, || "read the order".into())?;
    let report = match execute(&order) {
        Ok(report) => report,
        Err((fault, code)) => Report::Failed(Failure::of(&fault, code)),
    };
    let mut text = serde_json::to_vec(&report).explain(|| "write the report".into())?;
    text.push(b'\n');
    // The build may be gone.
    let _ = std::io::stdout().lock().write_all(&text);
    Ok(())
}

fn read_line(input: &mut impl Read, line: &mut Vec<u8>) -> Result<()> {
    let mut byte = [0; 1];
    let mut buffered = std::io::BufReader::new(input.take(MAX_ORDER));
    // The pipe stays open behind the line, and nothing comes after it.
    while buffered.read(&mut byte).explain(|| "read the order".into())? == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    Ok(())
}

/// 126 or 127 where it was the command's fault.
type Why = (Fault, Option<i32>);

fn execute(order: &Order) -> std::result::Result<Report, Why> {
    let plain = |fault: Fault| (fault, None);
    let store = Store::from_env().map_err(plain)?;
    let mut spec = Spec::load(&order.bundle).map_err(plain)?;
    let dir =
        ContainerDir { id: order.id.clone(), bundle: order.bundle.clone(), run: order.bundle.join("run") };
    let ready = volume::trees::ready(&store, &dir).map_err(plain)?;
    if let Some(process) = &mut spec.process {
        process.env.extend(ready.env);
    }
    let trees = placed(&spec, ready.trees).map_err(plain)?;
    // Not by the container's first process: layers are known here by descriptors of this mount namespace.
    let writable = sys::overlay::Writable { upper: &order.upper, work: &order.work, volatile: true };
    let mounted = sys::overlay::mount(&order.lower, Some(writable)).map_err(plain)?;
    let rootfs = RootFs::Detached(Arc::new(mounted));
    let created = runtime::create(Options {
        id: &order.id,
        bundle: &order.bundle,
        spec: &spec,
        rootfs: &rootfs,
        stdio: streams().map_err(plain)?,
        seccomp_cache: &store.root().join("cache/seccomp"),
        network_namespace: None,
        user_namespace: None,
        trees,
        gate: Gate::Caller,
        dies_with_parent: true,
        callers_alone: &[],
        manners: Manners::default(),
    })
    .map_err(plain)?;
    let end = created.ready().map(drop).map_err(plain).and_then(|()| {
        let network = order.network.as_deref().map(|name| Network { name, order, pid: created.pid });
        if let Some(network) = &network
            && let Err(fault) = network.attach()
        {
            end(&created);
            return Err((fault, None));
        }
        let ended = match created.start() {
            Ok(()) => wait(&created).map_err(plain),
            Err(failure) => {
                end(&created);
                Err((failure.fault, failure.exit_code))
            }
        };
        if let Some(network) = network {
            network.detach();
        }
        ended
    });
    let out_of_memory = created.cgroup.oom_kills() > 0;
    if !created.cgroup.remove_if_empty() {
        created.cgroup.kill();
        // What stays is swept by ctr-prune.
        let _ = created.cgroup.remove();
    }
    Ok(Report::Exited { code: end?, out_of_memory })
}

/// Trees by the places of their mounts in the specification.
fn placed(spec: &Spec, trees: Vec<(PathBuf, OwnedFd)>) -> Result<Vec<(usize, OwnedFd)>> {
    let place = |(target, tree): (PathBuf, OwnedFd)| {
        let index = spec.mounts.iter().rposition(|mount| *mount.destination() == target);
        let none = || Fault::input(format!("the specification has no mount at {}", target.display()));
        index.map(|index| (index, tree)).ok_or_else(none)
    };
    trees.into_iter().map(place).collect()
}

/// Nothing to read; both outputs are one, so that lines stay in their order.
fn streams() -> Result<Stdio> {
    let null = std::fs::File::open("/dev/null").explain(|| "open /dev/null".into())?;
    let out = || rustix::io::fcntl_dupfd_cloexec(std::io::stderr(), 3).explain(|| "copy a descriptor".into());
    Ok(Stdio::Streams([null.into(), out()?, out()?]))
}

/// Until the command ends, or the build does.
fn wait(created: &Created) -> Result<i32> {
    let stdin = std::io::stdin();
    loop {
        let mut fds = [
            PollFd::new(&created.pidfd, PollFlags::IN),
            PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut fds, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(std::io::Error::from(error)).explain(|| "wait for the command".into()),
        }
        if fds[1].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
            let _ = sys::process::pidfd_send_signal(created.pidfd.as_fd(), libc::SIGKILL);
        }
        if !fds[0].revents().is_empty() {
            return reap(created);
        }
        if fds[1].revents().intersects(PollFlags::HUP | PollFlags::ERR) {
            return reap(created);
        }
    }
}

fn reap(created: &Created) -> Result<i32> {
    let status = waitid(WaitId::PidFd(created.pidfd.as_fd()), WaitIdOptions::EXITED)
        .explain(|| "wait for the command".into())?;
    let status = status.ok_or_else(|| Fault::failed("wait for the command: no status"))?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => 128 + signal,
        (None, None) => 255,
    })
}

fn end(created: &Created) {
    let _ = sys::process::pidfd_send_signal(created.pidfd.as_fd(), libc::SIGKILL);
    let _ = reap(created);
}

/// One of our networks, through `net-attach` as the plugin it is for containers that are not the store's.
struct Network<'a> {
    name: &'a str,
    order: &'a Order,
    pid: i32,
}

impl Network<'_> {
    fn attach(&self) -> Result<()> {
        let output = self.command("ADD")?;
        if output.0 {
            return Ok(());
        }
        let answer: Value = serde_json::from_slice(&output.1).unwrap_or_default();
        let said = |member: &str| answer[member].as_str().filter(|text| !text.is_empty());
        let why = said("details").or(said("msg")).unwrap_or("net-attach failed").to_owned();
        Err(Fault::failed(format!("attach to the network {}", self.name))
            .because(why)
            .hint("--network host and --network none need no network of their own"))
    }

    fn detach(&self) {
        // What is left is swept by net-prune.
        let _ = self.command("DEL");
    }

    fn command(&self, what: &str) -> Result<(bool, Vec<u8>)> {
        let program = shim::sibling("net-attach")?;
        let store = Store::from_env()?;
        let configuration = json!({
            "cniVersion": "1.0.0",
            "name": self.name,
            "type": "net-attach",
            "root": store.root(),
            "run": store.run(),
        });
        let mut child = Command::new(&program)
            .env("CNI_COMMAND", what)
            .env("CNI_CONTAINERID", &self.order.id)
            .env("CNI_NETNS", format!("/proc/{}/ns/net", self.pid))
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", program.parent().unwrap_or(Path::new("/")))
            .stdin(Pipe::piped())
            .stdout(Pipe::piped())
            .spawn()
            .explain(|| format!("start {}", program.display()))?;
        if let Some(mut input) = child.stdin.take() {
            // It answers whatever of it came.
            let _ = input.write_all(configuration.to_string().as_bytes());
        }
        let output = child.wait_with_output().explain(|| format!("run {}", program.display()))?;
        Ok((output.status.success(), output.stdout))
    }
}
