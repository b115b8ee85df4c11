//! `--runtime`: the same container with another OCI runtime.
//!
//! Such a runtime wants its root file system mounted and would lose the network at a restart, so the shim enters a mount
//! namespace of its own, mounts the overlay there, makes the network namespace, and starts the runtime with both: still nothing
//! is mounted on the host.

use crate::settings::Settings;
use fault::{Explain, Fault, Result};
use runtime::{RootFs, StartFailure, Stdio};
use rustix::fs::{CWD, FileType};
use rustix::mount::{MountPropagationFlags, MoveMountFlags, UnmountFlags, mount_change, move_mount, unmount};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with,
};
use serde_json::Value;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use store::ContainerDir;
use volume::trees::Ready;

#[derive(Debug)]
pub struct Created {
    pub pid: i32,
    pub pidfd: OwnedFd,
    program: PathBuf,
    run: PathBuf,
}

/// `PROGRAM create`, and the master side of the terminal if there is one.
pub fn create(
    program: &Path,
    dir: &ContainerDir,
    settings: &Settings,
    stdio: Stdio,
    ready: Ready,
) -> Result<(Created, Option<OwnedFd>)> {
    // The container's process is the runtime's child, and ours once the runtime has ended.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .explain(|| "become a subreaper".into())?;
    let spec_path = dir.bundle.join("config.json");
    let text = std::fs::read(&spec_path).explain(|| format!("read {}", spec_path.display()))?;
    let mut spec: Value =
        serde_json::from_slice(&text).explain(|| format!("read {}", spec_path.display()))?;
    if namespaces(&spec).any(|namespace| namespace["type"] == "user") {
        return Err(Fault::input(
            "another runtime cannot be given a user namespace: nobody maps its files' owners",
        )
        .hint("leave --runtime or --userns out"));
    }
    enter_own_mounts(dir, &settings.rootfs)?;
    if !ready.env.is_empty() {
        return Err(Fault::input(
            "a secret as a variable cannot be given to another runtime: it would be in a file",
        )
        .hint("type=mount, or leave --runtime out"));
    }
    attach(dir, &mut spec, ready.trees)?;
    let network = if own_network(&spec) { Some(network_namespace()?) } else { None };
    let bundle = write_bundle(dir, spec, network)?;
    let pid_file = dir.run.join("pid");
    let mut command = base_command(program, &dir.run);
    command.arg("create").arg("--bundle").arg(&bundle).arg("--pid-file").arg(&pid_file);
    let console = match stdio {
        Stdio::Terminal => {
            let (socket, directory) = console_socket(&dir.run)?;
            // Seen from the runtime, which is another process.
            let path = format!("/proc/{}/fd/{}/console.sock", std::process::id(), directory.as_raw_fd());
            command.arg("--console-socket").arg(path);
            Some((socket, directory))
        }
        Stdio::Streams([stdin, stdout, stderr]) => {
            command.stdin(stdin).stdout(stdout).stderr(stderr);
            None
        }
        Stdio::Inherited => None,
    };
    let status = command.arg(&dir.id).status().explain(|| format!("run {}", program.display()))?;
    // The container's ends of the pipes are the runtime's streams; kept here they would never close.
    drop(command);
    if !status.success() {
        return Err(failed(program, "create", &dir.run, &status.to_string()));
    }
    let text = std::fs::read_to_string(&pid_file).explain(|| format!("read {}", pid_file.display()))?;
    let pid = text.trim().parse().ok().filter(|pid| *pid > 0);
    let pid: i32 = pid.ok_or_else(|| Fault::failed(format!("{} wrote no process id", program.display())))?;
    let raw = rustix::process::Pid::from_raw(pid).ok_or_else(|| Fault::failed("process id 0"))?;
    let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())
        .explain(|| format!("open process {pid}"))?;
    let terminal = console.map(|(socket, _directory)| receive_terminal(&socket)).transpose()?;
    Ok((Created { pid, pidfd, program: program.to_path_buf(), run: dir.run.clone() }, terminal))
}

impl Created {
    pub fn start(&self, id: &str) -> Result<(), StartFailure> {
        let status = base_command(&self.program, &self.run).arg("start").arg(id).status();
        let fault = match status {
            Ok(status) if status.success() => return Ok(()),
            Ok(status) => failed(&self.program, "start", &self.run, &status.to_string()),
            Err(error) => Fault::failed(format!("run {}", self.program.display())).because(error),
        };
        // Runtimes tell it in words only.
        let hint = fault.hint_text().unwrap_or_default();
        let exit_code = if hint.contains("no such file") || hint.contains("not found") {
            Some(127)
        } else if hint.contains("permission denied") {
            Some(126)
        } else {
            None
        };
        Err(StartFailure { fault, exit_code })
    }

    /// `PROGRAM VERB ID`, for verbs that change what runs.
    pub fn run(&self, verb: &str, id: &str) -> Result<()> {
        match base_command(&self.program, &self.run).args([verb, id]).status() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(failed(&self.program, verb, &self.run, &status.to_string())),
            Err(error) => Err(Fault::failed(format!("run {}", self.program.display())).because(error)),
        }
    }

    pub fn delete(&self, id: &str) {
        // Best effort: the container is gone, this is about the runtime's own files.
        let _ = base_command(&self.program, &self.run).args(["delete", "--force", id]).status();
    }
}

fn base_command(program: &Path, run: &Path) -> Command {
    use std::process::Stdio;
    let mut command = Command::new(program);
    command.arg("--root").arg(run.join("runtime")).arg("--log").arg(run.join("runtime.log"));
    // Of a service's: runc would wait for the container's own message.
    command.env_remove("NOTIFY_SOCKET");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn failed(program: &Path, verb: &str, run: &Path, status: &str) -> Fault {
    let said = std::fs::read_to_string(run.join("runtime.log")).unwrap_or_default();
    let last = said.lines().last().unwrap_or("it left no message").to_owned();
    Fault::failed(format!("{} {verb}: {status}", program.display())).hint(last)
}

fn own_network(spec: &Value) -> bool {
    namespaces(spec).any(|namespace| namespace["type"] == "network" && namespace.get("path").is_none())
}

fn namespaces(spec: &Value) -> impl Iterator<Item = &Value> {
    spec.pointer("/linux/namespaces").and_then(Value::as_array).into_iter().flatten()
}

/// Once in the shim's life.
fn enter_own_mounts(dir: &ContainerDir, rootfs: &RootFs) -> Result<()> {
    static ENTERED: OnceLock<()> = OnceLock::new();
    if ENTERED.get().is_some() {
        return Ok(());
    }
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).explain(|| "make a mount namespace".into())?;
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
        .explain(|| "detach from the host's mounts".into())?;
    if matches!(rootfs, RootFs::Overlay { .. }) {
        rootfs.mount(&dir.bundle.join("rootfs"))?;
    }
    let _ = ENTERED.set(());
    Ok(())
}

/// Mounts trees in the shim's own mount namespace and names them in the specification.
fn attach(dir: &ContainerDir, spec: &mut Value, trees: Vec<(PathBuf, OwnedFd)>) -> Result<()> {
    for (number, (target, tree)) in trees.into_iter().enumerate() {
        let place = dir.run.join("trees").join(number.to_string());
        let failed = || format!("mount what belongs at {}", target.display());
        // That of the last run.
        let _ = unmount(&place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let stat = rustix::fs::fstat(&tree).explain(failed)?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        std::fs::create_dir_all(place.parent().unwrap_or(&place)).explain(failed)?;
        if is_directory {
            std::fs::create_dir_all(&place).explain(failed)?;
        } else {
            File::create(&place).explain(failed)?;
        }
        move_mount(&tree, "", CWD, &place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).explain(failed)?;
        let mounts = spec["mounts"].as_array_mut().into_iter().flatten();
        if let Some(mount) =
            mounts.rev().find(|mount| mount["destination"].as_str().map(Path::new) == Some(&*target))
        {
            mount["source"] = place.display().to_string().into();
        }
    }
    Ok(())
}

/// A new network namespace, kept for all runs. The shim itself stays where it is: a runtime takes the namespace it
/// finds itself in for the host's.
fn network_namespace() -> Result<BorrowedFd<'static>> {
    static NETWORK: OnceLock<File> = OnceLock::new();
    if let Some(file) = NETWORK.get() {
        return Ok(file.as_fd());
    }
    let open = || File::open("/proc/self/ns/net").explain(|| "open the network namespace".into());
    let own = open()?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
        .explain(|| "make a network namespace".into())?;
    let made = open()?;
    let up = sys::process::loopback_up().explain(|| "bring up the loopback interface".into());
    nix::sched::setns(&own, nix::sched::CloneFlags::CLONE_NEWNET)
        .explain(|| "go back to the own network namespace".into())?;
    up?;
    Ok(NETWORK.get_or_init(|| made).as_fd())
}

/// The bundle as the other runtime gets it: absolute root, a network namespace that is there already.
fn write_bundle(dir: &ContainerDir, mut spec: Value, network: Option<BorrowedFd<'_>>) -> Result<PathBuf> {
    let root = spec.pointer("/root/path").and_then(Value::as_str).unwrap_or("rootfs");
    let absolute = dir.bundle.join(root).display().to_string();
    if let Some(path) = spec.pointer_mut("/root/path") {
        *path = absolute.into();
    }
    let list = spec.pointer_mut("/linux/namespaces").and_then(Value::as_array_mut);
    for namespace in list.into_iter().flatten() {
        if let Some(fd) = network.filter(|_| namespace["type"] == "network") {
            namespace["path"] = format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into();
        }
    }
    let bundle = dir.run.join("bundle");
    std::fs::create_dir_all(&bundle).explain(|| format!("make directory {}", bundle.display()))?;
    store::atomic::write(&bundle.join("config.json"), spec.to_string().as_bytes(), 0o600)?;
    Ok(bundle)
}

fn console_socket(run: &Path) -> Result<(OwnedFd, OwnedFd)> {
    let _ = std::fs::remove_file(run.join("console.sock"));
    let (directory, _) = shim::address_of(run)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/console.sock", directory.as_raw_fd()))
        .explain(|| "make a socket address".into())?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .explain(|| "make a socket".into())?;
    bind(&socket, &address).explain(|| "bind the console socket".into())?;
    listen(&socket, 1).explain(|| "listen on the console socket".into())?;
    Ok((socket, directory))
}

fn receive_terminal(socket: &OwnedFd) -> Result<OwnedFd> {
    let connection = accept(socket).explain(|| "accept the runtime's connection".into())?;
    let packet = shim::receive(connection.as_fd()).explain(|| "receive the terminal".into())?;
    packet
        .and_then(|packet| packet.fds.into_iter().next())
        .ok_or_else(|| Fault::failed("the runtime sent no terminal"))
}
