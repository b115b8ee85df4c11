//! A run made of what criu saved of an earlier one.

#[allow(clippy::wildcard_imports)] // A part of one type.
use super::*;
use cgroup::Cgroup;
use runtime::checkpoint::{self, Criu, Images, Joined, Stage, Wishes};
use std::os::fd::AsRawFd;

/// Where ctr-checkpoint and ctr-restore put the images, in the bundle.
const IMAGES: &str = "checkpoint";

pub struct Restored {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub cgroup: Cgroup,
}

/// Makes the processes saved in the bundle again. Nothing may be left of the container's last run but its network namespace.
pub fn restore(
    store: &Store,
    dir: &ContainerDir,
    settings: &Settings,
    kept: Option<&Kept>,
    wishes: Wishes,
) -> Result<Run> {
    if settings.runtime.is_some() {
        return Err(Fault::input("another runtime is to run the container, which it alone can restore"));
    }
    let run = trees::ready(store, dir).and_then(|ready| make(dir, settings, kept, ready, wishes));
    if run.is_err() {
        // Why it failed is what is told.
        let _ = trees::release(dir);
    }
    run
}

fn make(
    dir: &ContainerDir,
    settings: &Settings,
    kept: Option<&Kept>,
    ready: Ready,
    wishes: Wishes,
) -> Result<Run> {
    let mut spec = Spec::load(&dir.bundle)?;
    checkpoint::check(&spec)?;
    let criu = Criu::find()?;
    let images = Images::open(&dir.bundle.join(IMAGES))?;
    let work = Images::open(&dir.bundle)?;
    let trees = lay_out(dir, &mut spec, ready.trees)?;
    if let Some(kept) = kept {
        let number = kept.network.as_raw_fd();
        checkpoint::leave_network_outside(&mut spec, Path::new(&format!("/proc/self/fd/{number}")));
    }
    let (stdio, ends) =
        if settings.terminal { (Stdio::Terminal, Ends::default()) } else { streams(settings)? };
    for fd in ends.outputs.iter().chain([&ends.input]).flatten() {
        set_nonblocking(fd)?;
    }
    let rootfs = spec.root_path(&dir.bundle)?;
    let group = checkpoint::groups(&dir.id, &spec)?;
    let whole = checkpoint::Container {
        spec: &spec,
        bundle: &dir.bundle,
        rootfs: &rootfs,
        root_fs: &settings.rootfs,
        trees: &trees,
        images: &images,
        work: Some(&work),
        wishes,
    };
    match bring_back(dir, &criu, &whole, &group, &stdio) {
        Ok((pid, pidfd, master)) => {
            let mounts = if has_host_mounts(&spec, &dir.bundle) { None } else { namespace_of(pid, "mnt") };
            let hooks = (!spec.hooks.poststop.is_empty()).then_some((spec.hooks, spec.annotations));
            let mut run = Run {
                cgroup: group.directories().to_vec(),
                process: Process::Restored(Box::new(Restored { pid, pidfd, cgroup: group })),
                input: ends.input,
                outputs: ends.outputs,
                terminal: None,
                mounts,
                hooks,
            };
            if let Some(master) = master
                && let Err(fault) = run.take_terminal(master)
            {
                let _ = run.signal(libc::SIGKILL);
                run.clean_up(&dir.id);
                return Err(fault);
            }
            Ok(run)
        }
        Err(fault) => {
            group.kill();
            let _ = group.remove_with_new_parents();
            Err(fault)
        }
    }
}

/// The first process, and the other side of its terminal.
fn bring_back(
    dir: &ContainerDir,
    criu: &Criu,
    whole: &checkpoint::Container<'_>,
    group: &Cgroup,
    stdio: &Stdio,
) -> Result<(i32, OwnedFd, Option<OwnedFd>)> {
    let mut master = None;
    let own = OwnStreams::replace(stdio)?;
    let restored = checkpoint::restore(criu, whole, &mut |_| Ok((group, Joined::No)), &mut |stage| {
        match stage {
            Stage::SetupNamespaces(pid) => return run_hooks(dir, whole.spec, pid),
            Stage::OrphanPtsMaster(fd) => master = Some(fd),
            Stage::PostRestore(_) | Stage::PostDump | Stage::StatusReady => {}
        }
        Ok(())
    });
    drop(own);
    let pid = restored?;
    if matches!(stdio, Stdio::Terminal) && master.is_none() {
        return Err(Fault::failed("criu has restored no terminal"));
    }
    let raw = rustix::process::Pid::from_raw(pid).ok_or_else(|| Fault::failed("process id 0"))?;
    let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())
        .explain(|| format!("open process {pid}"))?;
    Ok((pid, pidfd, master))
}

/// Those that prepare a container outside.
fn run_hooks(dir: &ContainerDir, spec: &Spec, pid: i32) -> Result<()> {
    let state = state(dir, Status::Creating, Some(pid), &spec.annotations);
    let place = Place { directory: Some(&dir.bundle), environment: None };
    hooks::run(&spec.hooks, Point::Prestart, &state, place)?;
    let place = Place { directory: Some(&dir.bundle), environment: None };
    hooks::run(&spec.hooks, Point::CreateRuntime, &state, place)
}

/// A place outside for each mount that has none, which criu is told as the source: it takes paths alone. Nothing is mounted there but in the
/// mount namespace of the restore.
fn lay_out(
    dir: &ContainerDir,
    spec: &mut Spec,
    trees: Vec<(PathBuf, OwnedFd)>,
) -> Result<Vec<(PathBuf, OwnedFd)>> {
    let mut places = Vec::new();
    for (index, tree) in placed(spec, trees)? {
        let place = dir.run.join("trees").join(index.to_string());
        let failed = || format!("make {}", place.display());
        let stat = rustix::fs::fstat(&tree).explain(failed)?;
        std::fs::create_dir_all(dir.run.join("trees")).explain(failed)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
            std::fs::create_dir_all(&place).explain(failed)?;
        } else {
            std::fs::File::create(&place).explain(failed)?;
        }
        if let Some(mount) = spec.mounts.get_mut(index) {
            mount.set_source(Some(place.clone()));
        }
        places.push((place, tree));
    }
    Ok(places)
}

/// The container's streams in place of this process's own, which criu inherits. They have been /dev/null since the shim began, and are
/// that again when this is dropped.
struct OwnStreams;

impl OwnStreams {
    fn replace(stdio: &Stdio) -> Result<OwnStreams> {
        let own = OwnStreams;
        if let Stdio::Streams(streams) = stdio {
            for (number, fd) in (0..).zip(streams) {
                sys::process::duplicate_to(fd.as_fd(), number).explain(|| "set up the streams".into())?;
            }
        }
        Ok(own)
    }
}

impl Drop for OwnStreams {
    fn drop(&mut self) {
        crate::close_streams();
    }
}
