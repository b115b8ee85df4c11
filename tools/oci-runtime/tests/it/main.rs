//! The program as engines use it: real containers of a bundle with busybox in it. Most of this takes root.
#![forbid(unsafe_code)]

mod attacks;
mod checkpoint;
mod command_line;
mod escapes;
mod exec;
mod groups;
mod hooks;
mod host_mounts;
mod hostile;
mod life;
mod logs;
mod many;
mod mounts;
mod rootless;
mod run;
mod seccomp;
mod sockets;
mod systemd;
mod users;

use serde_json::{Value, json};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use testkit::Ran;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_oci-runtime");

/// A bundle, a root for states, and ids nobody else uses. Containers that are left are deleted when dropped.
pub struct Bench {
    dir: tempfile::TempDir,
    number: u32,
}

impl Bench {
    /// `None`, said aloud, where containers cannot be made.
    pub fn new() -> Option<Bench> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        if !testkit::is_root() {
            testkit::skip("making containers takes root");
            return None;
        }
        let busybox = Path::new("/usr/bin/busybox");
        if !busybox.exists() {
            testkit::skip("there is no static busybox to put into a root file system");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("oci-runtime-test-").tempdir().unwrap();
        let bench = Bench { dir, number: NUMBER.fetch_add(1, Ordering::Relaxed) };
        let bin = bench.bundle().join("rootfs/bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::copy(busybox, bin.join("busybox")).unwrap();
        std::fs::set_permissions(bin.join("busybox"), PermissionsExt::from_mode(0o755)).unwrap();
        for name in
            ["sh", "true", "false", "sleep", "cat", "echo", "id", "env", "pwd", "test", "stty", "kill", "dd"]
        {
            symlink("busybox", bin.join(name)).unwrap();
        }
        Ran::of(Command::new(PROGRAM).args(["spec", "--bundle"]).arg(bench.bundle())).expect(0);
        bench.configure(&["sleep", "1000"], |config| config["root"]["readonly"] = json!(false));
        Some(bench)
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn bundle(&self) -> PathBuf {
        self.path().join("bundle")
    }

    pub fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    /// Control groups are named after ids.
    pub fn id(&self, name: &str) -> String {
        format!("test-{}-{}-{name}", std::process::id(), self.number)
    }

    /// Changes config.json: another command, without a terminal, and whatever else.
    pub fn configure(&self, command: &[&str], edit: impl FnOnce(&mut Value)) {
        let path = self.bundle().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config["process"]["args"] = json!(command);
        config["process"]["terminal"] = json!(false);
        edit(&mut config);
        std::fs::write(path, config.to_string()).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("--root").arg(self.root()).args(arguments).stdin(Stdio::null());
        command
    }

    pub fn ran(&self, arguments: &[&str]) -> Ran {
        Ran::of(&mut self.command(arguments))
    }

    /// For what leaves a process behind: with pipes this would wait for its end.
    #[track_caller]
    pub fn make(&self, arguments: &[&str]) {
        let log = self.path().join("made");
        let file = || std::fs::File::options().append(true).create(true).open(&log).unwrap();
        let status = self.command(arguments).stdout(file()).stderr(file()).status().unwrap();
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(status.success(), "{arguments:?}: {status}\n{said}");
    }

    /// A container of the bundle that is created.
    #[track_caller]
    pub fn create(&self, id: &str) {
        self.make(&["create", "--bundle", &self.bundle().display().to_string(), id]);
    }

    /// One that runs.
    #[track_caller]
    pub fn start(&self, id: &str) {
        self.create(id);
        self.ran(&["start", id]).expect(0);
    }

    #[track_caller]
    pub fn state(&self, id: &str) -> Value {
        let ran = self.ran(&["state", id]).expect(0);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    #[track_caller]
    pub fn status(&self, id: &str) -> String {
        self.state(id)["status"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub fn wait_for(&self, id: &str, status: &str) {
        wait_until(|| self.status(id) == status, &format!("{id} is not {status}"));
    }

    /// `run`, in the foreground.
    pub fn run(&self, id: &str, options: &[&str]) -> Ran {
        let bundle = self.bundle().display().to_string();
        let mut arguments = vec!["run", "--bundle", &bundle];
        arguments.extend(options);
        arguments.push(id);
        self.ran(&arguments)
    }

    /// That nothing is left of a container.
    #[track_caller]
    pub fn assert_gone(&self, id: &str) {
        assert!(!self.root().join(id).exists(), "its state is left");
        let left = groups_of(id);
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.root()).into_iter().flatten().flatten() {
            if let Ok(id) = entry.file_name().into_string() {
                let _ = self.ran(&["delete", "--force", &id]);
            }
        }
    }
}

/// Directories of control groups that are named after a container.
pub fn groups_of(id: &str) -> Vec<PathBuf> {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    hierarchies
        .map(|entry| entry.path())
        .chain([PathBuf::from("/sys/fs/cgroup")])
        .map(|hierarchy| hierarchy.join("oci-runtime").join(id))
        .filter(|path| path.exists())
        .collect()
}

#[track_caller]
pub fn wait_until(mut is_so: impl FnMut() -> bool, otherwise: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
pub fn assert_says(ran: &Ran, words: &str) {
    assert!(ran.stderr.contains(words), "not {words:?}:\n{}", ran.stderr);
}
