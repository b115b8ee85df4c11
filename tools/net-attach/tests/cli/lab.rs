//! A host of its own for each test: fresh network and mount namespaces, containers that are no more than a process
//! holding a network namespace, and further namespaces standing in for other hosts.

// A skipped test says so; the methods that need no state read better beside those that do.
#![allow(clippy::print_stderr, clippy::unused_self)]

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const INSIDE: &str = "STAVES_TEST_INSIDE";

/// Runs a test in namespaces of its own, by starting this program again for that test alone.
pub fn isolated(test: &str, body: fn(&mut Lab)) {
    if std::env::var_os(INSIDE).is_some() {
        body(&mut Lab::new(test));
        return;
    }
    if let Some(why) = lacking() {
        eprintln!("SKIPPED: {test}: {why}");
        return;
    }
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "--"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespaces");
}

fn lacking() -> Option<String> {
    let works = |program: &str, arguments: &[&str]| {
        let run = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        run.is_ok_and(|status| status.success())
    };
    if !works("unshare", &["--net", "--mount", "true"]) {
        return Some("no right to make network namespaces".into());
    }
    for (program, argument) in [("nft", "-v"), ("ip", "-V"), ("socat", "-V"), ("nsenter", "-V")] {
        if !works(program, &[argument]) {
            return Some(format!("{program} is not installed"));
        }
    }
    ["net-detach", "net-prune", "net-reload"]
        .iter()
        .find(|tool| !program(tool).exists())
        .map(|tool| format!("{tool} is not built: cargo build --release -p {tool}"))
}

fn program(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_net-attach")).with_file_name(tool)
}

pub struct Lab {
    pub dir: PathBuf,
    /// Of networks that are defined from now on.
    pub driver: &'static str,
    children: Vec<Child>,
}

/// A pretended container.
pub struct Container {
    pub id: String,
    pub name: String,
    pub pid: u32,
    /// What ctr-shim holds as long as it lives.
    shim: Option<File>,
}

pub struct Outcome {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Lab {
    fn new(test: &str) -> Lab {
        // Lists of folders are separated by colons.
        let name = test.replace("::", "-");
        let dir = std::env::temp_dir().join(format!("net-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let mut lab = Lab { dir, driver: "bridge", children: Vec::new() };
        lab.must(None, "ip link set lo up");
        lab
    }

    pub fn root(&self) -> PathBuf {
        self.dir.join("root")
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// Number `n` is part of the id, so that every container has its own.
    pub fn container(&mut self, n: usize, config: &str) -> Container {
        let id = format!("{:08x}{:04x}{}", n.wrapping_mul(0x9e37_79b9) & 0xffff_ffff, n, "0".repeat(52));
        let name = format!("c{n}");
        let bundle = self.root().join("containers").join(&id);
        fs::create_dir_all(&bundle).unwrap();
        fs::create_dir_all(self.root().join("names")).unwrap();
        let _ =
            std::os::unix::fs::symlink(format!("../containers/{id}"), self.root().join("names").join(&name));
        let record = format!(
            "{{\"staves\":1,\"later\":[1.50],\"config\":{config},\"container\":{{\"id\":\"{id}\",\"name\":\"{name}\"}}}}"
        );
        fs::write(bundle.join("container.json"), record).unwrap();
        fs::write(bundle.join("hosts"), "").unwrap();
        fs::write(bundle.join("resolv.conf"), "").unwrap();
        let mut container = Container { id, name, pid: 0, shim: None };
        self.start(&mut container);
        container
    }

    /// Sets a container up: a namespace, a state, a lock.
    pub fn start(&mut self, container: &mut Container) {
        container.pid = self.namespace();
        let run = self.run_dir().join("containers").join(&container.id);
        fs::create_dir_all(&run).unwrap();
        let shim = File::create(run.join("lock")).unwrap();
        shim.lock().unwrap();
        container.shim = Some(shim);
        let started = start_time(container.pid);
        let state = format!(
            "{{\"status\":\"created\",\"pid\":{},\"pid_started\":{started},\"shim_pid\":1}}",
            container.pid
        );
        fs::write(run.join("state.json"), state).unwrap();
    }

    /// The container's process and its shim end without a word.
    pub fn stop(&mut self, container: &mut Container) {
        container.shim = None;
        self.kill(container.pid);
    }

    pub fn remove(&mut self, container: &mut Container) {
        self.stop(container);
        fs::remove_dir_all(self.root().join("containers").join(&container.id)).unwrap();
        fs::remove_dir_all(self.run_dir().join("containers").join(&container.id)).unwrap();
    }

    /// A process in a network namespace of its own.
    pub fn namespace(&mut self) -> u32 {
        let child = self.spawn(Command::new("unshare").args(["--net", "sleep", "300"]));
        let here = fs::read_link("/proc/self/ns/net").unwrap();
        wait_for("a namespace", || {
            let sleeps =
                fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name == "sleep\n");
            sleeps && fs::read_link(format!("/proc/{child}/ns/net")).is_ok_and(|there| there != here)
        });
        child
    }

    /// Another host on a wire: we are 192.0.2.1, it is 192.0.2.2.
    pub fn neighbour(&mut self) -> u32 {
        let pid = self.namespace();
        self.must(None, &format!("ip link add lan0 type veth peer name wire netns {pid}"));
        self.must(None, "ip addr add 192.0.2.1/24 dev lan0 && ip link set lan0 up");
        self.must(Some(pid), "ip link set lo up; ip addr add 192.0.2.2/24 dev wire && ip link set wire up");
        pid
    }

    pub fn spawn(&mut self, command: &mut Command) -> u32 {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let pid = child.id();
        self.children.push(child);
        pid
    }

    pub fn kill(&mut self, pid: u32) {
        if let Some(index) = self.children.iter().position(|child| child.id() == pid) {
            let mut child = self.children.swap_remove(index);
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Says who calls it, to everybody who connects. Returns once it listens.
    pub fn serve(&mut self, at: Option<u32>, protocol: &str, port: u16, word: &str) -> u32 {
        // A program that ends with its input unread would be taken for a failure by socat.
        let (listen, read) = match protocol {
            "udp" => ("UDP4-RECVFROM", "read x; "),
            "tcp6" => ("TCP6-LISTEN", ""),
            _ => ("TCP4-LISTEN", ""),
        };
        let script = format!("{listen}:{port},fork,reuseaddr SYSTEM:'{read}echo {word} $SOCAT_PEERADDR'");
        let pid = self.spawn(within(at, "sh").args(["-c", &format!("exec socat {script}")]));
        let flag = if protocol == "udp" { "-lun" } else { "-ltn" };
        wait_for("a server", || {
            self.sh(at, &format!("ss -H {flag} sport = :{port}")).stdout.contains(&port.to_string())
        });
        pid
    }

    /// What a server answers; empty when it cannot be reached.
    pub fn call(&self, from: Option<u32>, protocol: &str, to: &str) -> String {
        // Over TCP nothing is sent: a server that closes with something unread resets the connection.
        let script = match protocol {
            "udp" => ask_by_udp(to),
            "tcp6" => format!("timeout 10 socat -u TCP6:{to},connect-timeout=1 -"),
            _ => format!("timeout 10 socat -u TCP4:{to},connect-timeout=1 -"),
        };
        self.sh(from, &script).stdout.trim().to_owned()
    }

    pub fn sh(&self, at: Option<u32>, script: &str) -> Outcome {
        outcome(&within(at, "sh").args(["-c", script]).stdin(Stdio::null()).output().unwrap())
    }

    pub fn must(&mut self, at: Option<u32>, script: &str) -> String {
        let outcome = self.sh(at, script);
        assert_eq!(outcome.status, 0, "{script}: {}", outcome.stderr);
        outcome.stdout
    }

    pub fn command(&self, tool: &str) -> Command {
        let mut command = Command::new(program(tool));
        command.env("STAVES_ROOT", self.root()).env("STAVES_RUN", self.run_dir());
        command
    }

    pub fn tool(&self, tool: &str, arguments: &[&str]) -> Outcome {
        outcome(&self.command(tool).args(arguments).stdin(Stdio::null()).output().unwrap())
    }

    pub fn pipe(&self, tool: &str, arguments: &[&str], stdin: &str) -> Outcome {
        let mut command = self.command(tool);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        outcome(&child.wait_with_output().unwrap())
    }

    /// Attaches by name; must work. The attachment.
    pub fn attach(&self, container: &Container, arguments: &[&str]) -> serde_json::Value {
        let outcome = self.tool("net-attach", &[arguments, &[container.name.as_str()]].concat());
        assert_eq!(outcome.status, 0, "{}", outcome.stderr);
        outcome.json()["networks"][0].clone()
    }

    pub fn leases(&self) -> Vec<String> {
        names(&self.root().join("networks/bridge/leases"))
    }

    pub fn claims(&self) -> Vec<String> {
        names(&self.run_dir().join("ports"))
    }

    /// Interfaces of ours on the host.
    pub fn links(&self) -> Vec<String> {
        let listed = self.sh(None, "ip -br link").stdout;
        listed.lines().filter(|line| line.starts_with("stv")).map(str::to_owned).collect()
    }

    pub fn elements(&self) -> usize {
        let maps = ["ports", "ports_at", "ranges"];
        let listed = maps.map(|map| self.sh(None, &format!("nft list map inet staves {map}")).stdout);
        listed.iter().map(|text| text.matches(" : ").count() - text.matches("type ").count()).sum()
    }

    pub fn hosts_of(&self, container: &Container) -> String {
        fs::read_to_string(self.root().join("containers").join(&container.id).join("hosts")).unwrap()
    }

    /// Nothing of ours is left on the host but what users may edit.
    pub fn assert_clean(&self) {
        assert_eq!(self.leases(), Vec::<String>::new());
        assert_eq!(self.claims(), Vec::<String>::new());
        assert_eq!(names(&self.root().join("tmp")), Vec::<String>::new());
        assert_eq!(self.links(), Vec::<String>::new());
        assert_ne!(self.sh(None, "ip link show staves0").status, 0, "the bridge is left");
        assert_eq!(self.sh(None, "nft list tables").stdout, "");
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Outcome {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }
}

fn outcome(output: &Output) -> Outcome {
    Outcome {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A script that sends a line and prints the answer; with options of socat's after the address. What comes is waited for as long as
/// a busy machine may take, and no longer: socat cannot tell that nothing more will.
pub fn ask_by_udp(to: &str) -> String {
    match to.rsplit_once(':') {
        Some((host, port)) if !port.contains(',') => {
            let host = host.trim_matches(['[', ']']);
            format!(
                "bash -c 'exec 3<>/dev/udp/{host}/{port} && echo >&3 && timeout 3 head -n 1 <&3' 2>/dev/null"
            )
        }
        _ => format!("echo | timeout 10 socat -t 2 -T 2 - UDP:{to}"),
    }
}

fn within(pid: Option<u32>, program: &str) -> Command {
    let Some(pid) = pid else { return Command::new(program) };
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "--", program]);
    command
}

fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

pub fn start_time(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit(") ").next().unwrap().split(' ').nth(19).unwrap().parse().unwrap()
}

pub fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !there() {
        assert!(begin.elapsed() < Duration::from_secs(90), "{what} does not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}
