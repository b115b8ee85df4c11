//! One run of the container: its process and the outer ends of its streams.

mod restored;

pub use restored::restore;

use crate::foreign;
use crate::settings::Settings;
use cgroup::LinuxResources;
use fault::{Explain, Fault, Result};
use runtime::hooks::{self, Hooks, Place, Point};
use runtime::{Created, Gate, Manners, Spec, StartFailure, State, Status, Stdio};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use store::{ContainerDir, Store};
use volume::trees::{self, Ready};

/// Bytes a stream's pipe holds: the larger, the fewer turns of the loop.
const PIPE_BYTES: usize = 1 << 20;

pub struct Run {
    process: Process,
    /// Into the container's stdin; `None` when it has none or it was closed.
    pub input: Option<OwnedFd>,
    /// Out of stdout and stderr; of a terminal only the first.
    pub outputs: [Option<OwnedFd>; 2],
    /// Master side of the terminal; the same as input and first output.
    pub terminal: Option<OwnedFd>,
    pub cgroup: Vec<PathBuf>,
    /// The mount namespace, held so that the kernel takes the mounts down, and syncs the read-write layer's file system, when
    /// everybody has been told of the end. `None` where something of the host's is mounted: that is free when
    /// the container has ended.
    pub mounts: Option<OwnedFd>,
    /// Hooks that are run when it has started and when it has ended, and the specification's annotations for them. Not of
    /// another runtime's containers: that runs them itself.
    hooks: Option<(Hooks, BTreeMap<String, String>)>,
}

enum Process {
    Own(Box<Created>),
    Restored(Box<restored::Restored>),
    Foreign(foreign::Created),
}

/// Makes a container that will wait to be started; [`Run::ready`] tells when it does. `shims_alone`: descriptors its first process
/// is not to hold.
pub fn create(
    store: &Store,
    dir: &ContainerDir,
    settings: &Settings,
    seccomp_cache: &Path,
    kept: Option<Kept>,
    shims_alone: &[BorrowedFd<'_>],
) -> Result<Run> {
    let run = trees::ready(store, dir)
        .and_then(|ready| make(dir, settings, seccomp_cache, kept, ready, shims_alone));
    if run.is_err() {
        // Why it failed is what is told.
        let _ = trees::release(dir);
    }
    run
}

fn make(
    dir: &ContainerDir,
    settings: &Settings,
    seccomp_cache: &Path,
    kept: Option<Kept>,
    ready: Ready,
    shims_alone: &[BorrowedFd<'_>],
) -> Result<Run> {
    let (stdio, ends) =
        if settings.terminal { (Stdio::Terminal, Ends::default()) } else { streams(settings)? };
    let (process, terminal, cgroup, mounts, hooks) = match &settings.runtime {
        None => {
            let mut spec = Spec::load(&dir.bundle)?;
            if let Some(process) = &mut spec.process {
                process.env.extend(ready.env);
            }
            let trees = placed(&spec, ready.trees)?;
            let (network, user) = kept.map_or((None, None), |kept| kept.for_run(&spec));
            let created = runtime::create(runtime::Options {
                id: &dir.id,
                bundle: &dir.bundle,
                spec: &spec,
                rootfs: &settings.rootfs,
                stdio,
                seccomp_cache,
                network_namespace: network,
                user_namespace: user,
                trees,
                gate: Gate::Caller,
                dies_with_parent: true,
                callers_alone: shims_alone,
                manners: Manners::default(),
            })?;
            let cgroup = created.cgroup.directories().to_vec();
            let mounts =
                if has_host_mounts(&spec, &dir.bundle) { None } else { namespace_of(created.pid, "mnt") };
            let later = !(spec.hooks.poststart.is_empty() && spec.hooks.poststop.is_empty());
            let hooks = later.then_some((spec.hooks, spec.annotations));
            (Process::Own(Box::new(created)), None, cgroup, mounts, hooks)
        }
        Some(program) => {
            let (created, terminal) = foreign::create(program, dir, settings, stdio, ready)?;
            (Process::Foreign(created), terminal, Vec::new(), None, None)
        }
    };
    for fd in ends.outputs.iter().chain([&ends.input]).flatten() {
        set_nonblocking(fd)?;
    }
    let mut run =
        Run { process, input: ends.input, outputs: ends.outputs, terminal: None, cgroup, mounts, hooks };
    if let Some(master) = terminal {
        run.take_terminal(master)?;
    }
    Ok(run)
}

/// Trees by the places of their mounts in the specification.
fn placed(spec: &Spec, trees: Vec<(PathBuf, OwnedFd)>) -> Result<Vec<(usize, OwnedFd)>> {
    let place = |(target, tree): (PathBuf, OwnedFd)| {
        let index = spec.mounts.iter().rposition(|mount| *mount.destination() == target);
        let none = || {
            Fault::input(format!("the specification has no mount at {}", target.display()))
                .hint("it was edited; take the mount out of config.mounts, too")
        };
        index.map(|index| (index, tree)).ok_or_else(none)
    };
    trees.into_iter().map(place).collect()
}

/// Anything bound that is not of the container's own files.
fn has_host_mounts(spec: &Spec, bundle: &Path) -> bool {
    spec.mounts.iter().any(|mount| {
        let bound = mount.typ().as_deref() == Some("bind")
            || mount.options().iter().flatten().any(|option| option == "bind" || option == "rbind");
        bound && !mount.source().as_deref().is_some_and(|source| source.starts_with(bundle))
    })
}

/// Namespaces that outlive a run.
pub struct Kept {
    network: OwnedFd,
    /// Owns the network namespace, so that only what runs in it has a say there.
    user: Option<OwnedFd>,
}

impl Kept {
    /// Those of a process that exists: it is the caller's child and not reaped.
    pub fn of(pid: i32) -> Option<Kept> {
        let link = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/user")).ok();
        let is_own = link(&pid.to_string()) == link("self");
        let user = if is_own { None } else { namespace_of(pid, "user") };
        Some(Kept { network: namespace_of(pid, "net")?, user })
    }

    pub fn try_clone(&self) -> std::io::Result<Kept> {
        Ok(Kept {
            network: self.network.try_clone()?,
            user: self.user.as_ref().map(OwnedFd::try_clone).transpose()?,
        })
    }

    /// Where others find the network namespace as long as this process has it open.
    pub fn network_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.network.as_raw_fd())
    }

    /// What a run with this specification takes over: a user namespace only where it would make one like it.
    fn for_run(self, spec: &Spec) -> (Option<OwnedFd>, Option<OwnedFd>) {
        let alike = |user: &OwnedFd| {
            spec.makes_namespace(runtime::NamespaceKind::User)
                && runtime::mappings::agree(&spec.linux, user.as_fd()).is_ok()
        };
        let user = self.user.filter(alike);
        (Some(self.network), user)
    }
}

/// A namespace of a process that exists: it is the caller's child and not reaped.
pub fn namespace_of(pid: i32, kind: &str) -> Option<OwnedFd> {
    std::fs::File::open(format!("/proc/{pid}/ns/{kind}")).ok().map(OwnedFd::from)
}

#[derive(Default)]
struct Ends {
    input: Option<OwnedFd>,
    outputs: [Option<OwnedFd>; 2],
}

/// Pipes for the container, and the ends that stay here.
fn streams(settings: &Settings) -> Result<(Stdio, Ends)> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into());
    let (stdin, input) = if settings.interactive {
        let (read, write) = pipe()?;
        (read, Some(write))
    } else {
        let null = std::fs::File::open("/dev/null").explain(|| "open /dev/null".into())?;
        (null.into(), None)
    };
    let (out, stdout) = pipe()?;
    let (err, stderr) = pipe()?;
    // The user may have used up what all pipes together may hold: the usual size does too.
    let _ = rustix::pipe::fcntl_setpipe_size(&out, PIPE_BYTES);
    Ok((Stdio::Streams([stdin, stdout, stderr]), Ends { input, outputs: [Some(out), Some(err)] }))
}

pub fn set_nonblocking(fd: &OwnedFd) -> Result<()> {
    let flags = fcntl_getfl(fd).explain(|| "look at a descriptor".into())?;
    fcntl_setfl(fd, flags | OFlags::NONBLOCK).explain(|| "set up a descriptor".into())
}

impl Run {
    pub fn pid(&self) -> i32 {
        match &self.process {
            Process::Own(created) => created.pid,
            Process::Restored(restored) => restored.pid,
            Process::Foreign(created) => created.pid,
        }
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        match &self.process {
            Process::Own(created) => created.pidfd.as_fd(),
            Process::Restored(restored) => restored.pidfd.as_fd(),
            Process::Foreign(created) => created.pidfd.as_fd(),
        }
    }

    /// Waits until the container is set up. To be called once; after a failure nothing is left of it.
    pub fn ready(&mut self) -> Result<()> {
        if let Process::Own(created) = &self.process
            && let Some(master) = created.ready()?
        {
            self.take_terminal(master)?;
        }
        Ok(())
    }

    fn take_terminal(&mut self, master: OwnedFd) -> Result<()> {
        let copy = || master.try_clone().explain(|| "copy the terminal".into());
        self.input = Some(copy()?);
        self.outputs = [Some(copy()?), None];
        set_nonblocking(&master)?;
        self.terminal = Some(master);
        Ok(())
    }

    pub fn start(&self, id: &str) -> Result<(), StartFailure> {
        match &self.process {
            Process::Own(created) => created.start(),
            Process::Restored(_) => Ok(()),
            Process::Foreign(created) => created.start(id),
        }
    }

    /// Runs the hooks `poststart`; the first that fails is the result.
    pub fn after_start(&self, dir: &ContainerDir) -> Result<()> {
        let Some((hooks, annotations)) = &self.hooks else { return Ok(()) };
        let state = state(dir, Status::Running, Some(self.pid()), annotations);
        let place = Place { directory: Some(&dir.bundle), environment: None };
        hooks::run(hooks, Point::Poststart, &state, place)
    }

    /// Runs the hooks `poststop`. There is nobody to tell of what fails.
    pub fn after_stop(&self, dir: &ContainerDir) {
        let Some((hooks, annotations)) = &self.hooks else { return };
        let state = state(dir, Status::Stopped, None, annotations);
        let place = Place { directory: Some(&dir.bundle), environment: None };
        drop(hooks::run_all(hooks, Point::Poststop, &state, place));
    }

    pub fn signal(&self, signal: i32) -> std::io::Result<()> {
        sys::process::pidfd_send_signal(self.pidfd(), signal)
    }

    /// Stops every process where it is.
    pub fn freeze(&self, id: &str) -> Result<()> {
        match &self.process {
            Process::Own(created) => created.cgroup.freeze(),
            Process::Restored(restored) => restored.cgroup.freeze(),
            Process::Foreign(created) => created.run("pause", id),
        }
    }

    pub fn thaw(&self, id: &str) -> Result<()> {
        match &self.process {
            Process::Own(created) => created.cgroup.thaw(),
            Process::Restored(restored) => restored.cgroup.thaw(),
            Process::Foreign(created) => created.run("resume", id),
        }
    }

    /// Lets processes run that somebody has stopped who is gone.
    pub fn thaw_if_frozen(&self) {
        let cgroup = match &self.process {
            Process::Own(created) => &created.cgroup,
            Process::Restored(restored) => &restored.cgroup,
            Process::Foreign(_) => return,
        };
        if cgroup.is_to_be_frozen() {
            // There is nobody to tell.
            let _ = cgroup.thaw();
        }
    }

    /// Sets the limits `new` in place of `old`.
    pub fn replace_limits(
        &self,
        dir: &ContainerDir,
        old: &LinuxResources,
        new: &LinuxResources,
    ) -> Result<()> {
        match &self.process {
            Process::Own(created) => created.cgroup.replace(old, new),
            Process::Restored(restored) => restored.cgroup.replace(old, new),
            // Which group the other runtime made is known by the processes in it.
            Process::Foreign(created) => cgroup::Cgroup::of_process(created.pid)
                .and_then(|group| group.replace(old, new))
                .map_err(|fault| fault.on(dir.id.as_str())),
        }
    }

    /// Ends what is left of it and removes its control group. Returns whether the kernel killed one of its processes for want of
    /// memory.
    pub fn clean_up(&self, id: &str) -> bool {
        match &self.process {
            Process::Own(created) => remove_group(&created.cgroup),
            Process::Restored(restored) => remove_group(&restored.cgroup),
            Process::Foreign(created) => {
                created.delete(id);
                false
            }
        }
    }
}

/// Whether processes in it were killed for want of memory.
fn remove_group(group: &cgroup::Cgroup) -> bool {
    let out_of_memory = group.oom_kills() > 0;
    // With a pid namespace of its own every process is gone by now.
    if !group.remove_if_empty() {
        group.kill();
        // What stays is swept by ctr-prune.
        let _ = group.remove();
    }
    out_of_memory
}

/// What hooks are told.
fn state(
    dir: &ContainerDir,
    status: Status,
    pid: Option<i32>,
    annotations: &BTreeMap<String, String>,
) -> State {
    State {
        oci_version: runtime::spec::OCI_VERSION.to_owned(),
        id: dir.id.clone(),
        status,
        pid,
        bundle: dir.bundle.clone(),
        annotations: annotations.clone(),
    }
}
