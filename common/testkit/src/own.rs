//! A machine of one's own, as far as a test needs one: a network namespace with nothing in it, other hosts beside
//! it, state directories.

use nix::sched::{CloneFlags, unshare};
use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// Whether this is root in the first user namespace's sense: most of what containers need.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Says aloud that a test, or a part of one, cannot run here.
pub fn skip(why: &str) {
    // Not eprintln: the test harness would swallow it when the test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {why}");
}

/// Where cargo puts what it builds, found from the running test program.
pub fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a profile's directory has a parent").to_owned()
}

/// Where the tools of this build are: `target/release`.
pub fn profile_dir() -> PathBuf {
    let program = std::env::current_exe().expect("the test program has a path");
    let deps = program.parent().expect("a program is in a directory");
    deps.parent().expect("deps is in a directory").to_owned()
}

pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}

/// A command whose process is killed when the thread that starts it ends, so that no failing test leaves one behind.
pub fn die_with_parent(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Moves the calling thread, and every process it starts from now on, into a new network namespace where only loopback
/// is. Returns false, said aloud, where that is not allowed.
pub fn own_network() -> bool {
    if !is_root() {
        skip("a network namespace takes root");
        return false;
    }
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        skip(&format!("no network namespace: {error}"));
        return false;
    }
    ip("link set lo up");
    true
}

/// Runs `ip` with these words in the present network namespace.
pub fn ip(words: &str) {
    let status =
        Command::new("ip").args(words.split_whitespace()).status().expect("run ip (package iproute2)");
    assert!(status.success(), "ip {words} failed");
}

/// Another host, beside the calling thread's network: `203.0.113.2`, reached over the link `up0` where the thread has
/// `203.0.113.1`; it is the default route, so that it stands for the whole world outside.
#[derive(Debug)]
pub struct OtherHost {
    holder: Child,
}

impl OtherHost {
    pub const ADDRESS: &str = "203.0.113.2";
    /// What it knows us by.
    pub const OURS: &str = "203.0.113.1";

    pub fn new() -> OtherHost {
        let holder = die_with_parent("unshare")
            .args(["--net", "sleep", "1000000"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("run unshare");
        let host = OtherHost { holder };
        host.wait_for_namespace();
        let pid = host.holder.id();
        ip(&format!("link add up0 type veth peer name eth0 netns {pid}"));
        ip("address add 203.0.113.1/24 dev up0");
        ip("link set up0 up");
        for words in ["link set lo up", "address add 203.0.113.2/24 dev eth0", "link set eth0 up"] {
            let status = host.command("ip").args(words.split(' ')).status().expect("run ip");
            assert!(status.success(), "ip {words} failed in the other host");
        }
        ip("route add default via 203.0.113.2");
        host
    }

    /// A process in its network namespace.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    /// A command that runs on the other host.
    pub fn command(&self, program: &str) -> Command {
        let mut command = die_with_parent("nsenter");
        command.arg("-t").arg(self.holder.id().to_string()).arg("-n").arg(program);
        command
    }

    fn wait_for_namespace(&self) {
        let ours = std::fs::read_link("/proc/thread-self/ns/net").expect("proc is mounted");
        crate::wait_until("the other host", || {
            let theirs = std::fs::read_link(format!("/proc/{}/ns/net", self.holder.id()));
            // Until setpriv and unshare have run, it is still in ours.
            theirs.is_ok_and(|theirs| theirs != ours)
        });
    }
}

impl Default for OtherHost {
    fn default() -> OtherHost {
        OtherHost::new()
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// What a command printed and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    pub stdout: String,
    pub stderr: String,
    /// Exit status; 128 and the signal if one ended it.
    pub status: i32,
}

impl Ran {
    pub fn of(command: &mut Command) -> Ran {
        Ran::from(command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}")))
    }

    /// With something on its stdin, which it may leave unread.
    pub fn fed(command: &mut Command, input: impl AsRef<[u8]>) -> Ran {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
        let mut stdin = child.stdin.take().expect("a pipe was asked for");
        let input = input.as_ref();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let _ = stdin.write_all(input);
            });
            Ran::end(child)
        })
    }

    /// Of one that was started: what comes through pipes of its own until it ends.
    pub fn end(child: Child) -> Ran {
        Ran::from(child.wait_with_output().unwrap_or_else(|error| panic!("wait for a child: {error}")))
    }

    /// The same, having made sure that it ended so.
    #[track_caller]
    // Often that is all there is to know.
    #[allow(clippy::return_self_not_must_use)]
    pub fn expect(self, status: i32) -> Ran {
        assert_eq!(self.status, status, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The last non-empty line of stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let line = self.stdout.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {line:?}\nstderr:\n{}", self.stderr))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        use std::os::unix::process::ExitStatusExt;
        Ran {
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
        }
    }
}

/// State directories of one's own, and the tools of this build working on them. Removes the containers and then everything
/// when dropped.
#[derive(Debug)]
pub struct Place {
    dir: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Place {
    pub fn new() -> Place {
        Place::below(&std::env::temp_dir())
    }

    /// On the file system of `parent`.
    pub fn below(parent: &Path) -> Place {
        let dir =
            tempfile::Builder::new().prefix("staves-test-").tempdir_in(parent).expect("make a directory");
        Place { dir, variables: Vec::new() }
    }

    /// A directory for the test's own files.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// `$STAVES_ROOT`.
    pub fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// `$STAVES_RUN`.
    pub fn run(&self) -> PathBuf {
        self.path().join("run")
    }

    /// Sets a variable for every command to come.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// A tool of this build, or any program, with this place as its state and the tools first in PATH.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(resolve(program));
        self.furnish(&mut command);
        command
    }

    /// Gives a command this place's environment.
    pub fn furnish(&self, command: &mut Command) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(profile_dir()).chain(std::env::split_paths(&path));
        command
            .env("PATH", std::env::join_paths(dirs).expect("PATH has no odd characters"))
            .env("STAVES_ROOT", self.root())
            .env("STAVES_RUN", self.run())
            .env("DIR", self.path())
            .stdin(Stdio::null())
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
    }

    /// Runs a shell script (bash, pipefail) with the tools in PATH, `$DIR` being [`Place::path`].
    pub fn sh(&self, script: &str) -> Ran {
        Ran::of(self.command("bash").args(["-o", "pipefail", "-c", script]))
    }
}

/// A tool of this build, or else whatever PATH has.
fn resolve(program: &str) -> PathBuf {
    let built = profile_dir().join(program);
    if built.is_file() { built } else { PathBuf::from(program) }
}

impl Default for Place {
    fn default() -> Place {
        Place::new()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.root().join("containers").is_dir() {
            // Best effort: a test that failed may have left anything.
            let _ =
                Ran::of(self.command("bash").args(["-c", "ctr-ls --all -q --no-trunc | xargs -r ctr-rm -f"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_host_can_be_reached_and_is_gone_afterwards() {
        if !own_network() {
            return;
        }
        let host = OtherHost::new();
        let ping = Ran::of(host.command("ip").args(["-4", "-o", "address", "show", "eth0"])).expect(0);
        assert!(ping.stdout.contains(OtherHost::ADDRESS), "{}", ping.stdout);
        let ours = Ran::of(Command::new("ip").args(["-o", "link"])).expect(0);
        assert_eq!(ours.stdout.lines().count(), 2, "{}", ours.stdout);
    }

    #[test]
    fn a_place_is_in_the_environment() {
        let mut place = Place::new();
        place.set("COLOUR", "blue");
        let ran = place.sh("echo $COLOUR; test \"$STAVES_ROOT\" = \"$DIR/root\"; false | true").expect(1);
        assert_eq!(ran.stdout, "blue\n");
    }
}
