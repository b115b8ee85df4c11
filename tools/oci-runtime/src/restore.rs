//! `restore`.

use crate::attend::{Relay, Signals, attend};
use crate::bundle::Bundle;
use crate::call::{Call, absolute};
use crate::checkpoint::{configure, image_path, wishes, work};
use crate::console::{self, HostTerminal, Receiver};
use crate::create::{complete, stored};
use crate::delete::{destroy, end};
use crate::groups;
use crate::options::Opt;
use crate::pidfile::PidFile;
use crate::place::Place;
use crate::state::{self, Container, Stored};
use cgroup::systemd::{Manager, Wanted};
use cgroup::{Cgroup, Unified, Version};
use fault::{Fault, Result};
use runtime::checkpoint::{self, Criu, Images, Joined, Stage};
use runtime::hooks::{self, Point};
use runtime::{RootFs, Spec, Status, rdt};
use std::cell::OnceCell;
use std::os::fd::OwnedFd;

pub fn restore(call: &Call<'_>) -> Result<u8> {
    make(call).map_err(|fault| fault.within(format!("{} restore failed", call.program)))
}

/// What comes from outside the bundle and the images.
struct Wishes<'a> {
    console: Option<Receiver>,
    pid_file: Option<PidFile>,
    terminal: Option<HostTerminal>,
    /// Of who stays.
    signals: Option<Signals>,
    call: &'a Call<'a>,
}

fn make(call: &Call<'_>) -> Result<u8> {
    let id = call.id()?;
    if runtime::is_rootless() {
        call.log.warn("restore takes a superuser's rights, which criu may lack in a user namespace");
    }
    let mut bundle = Bundle::load(call)?;
    let has_terminal = bundle.spec.terminal();
    let detach = call.options.has(Opt::Detach);
    let socket = call.options.path(Opt::ConsoleSocket);
    console::check(has_terminal, detach, socket, call.program)?;
    complete(&mut bundle.spec, call, id);
    let criu = Criu::find()?;
    let images = Images::open(&image_path(call)?)?;
    let work = work(call)?;
    let outside = Wishes {
        console: socket.map(Receiver::connect).transpose()?,
        pid_file: call.options.path(Opt::PidFile).map(PidFile::open).transpose()?,
        terminal: if has_terminal && !detach { Some(HostTerminal::open()?) } else { None },
        signals: if detach { None } else { Some(Signals::block()?) },
        call,
    };
    if !detach && !call.options.has(Opt::NoSubreaper) {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
            .map_err(|error| Fault::failed("become a subreaper").because(std::io::Error::from(error)))?;
    }
    let mut wishes = wishes(call)?;
    configure(&mut wishes, &bundle.spec.annotations);
    let rootfs = absolute(&bundle.spec.root_path(&bundle.path)?)?;
    let place = Place::take(call, id)?;
    let group = OnceCell::new();
    let groups = Groups { spec: &bundle.spec, manager: groups::systemd(call), made: &group };
    let whole = checkpoint::Container {
        spec: &bundle.spec,
        bundle: &bundle.path,
        rootfs: &rootfs,
        root_fs: &RootFs::Directory,
        trees: &[],
        images: &images,
        work: work.as_ref(),
        wishes,
    };
    let restored = groups
        .prepare()
        .and_then(|wanted| bring_back(&criu, &whole, &groups, wanted.as_ref(), &bundle, &place, id));
    match restored {
        Ok((stored, master)) => go_on(&Container { stored, place }, master, &outside),
        Err(fault) => {
            if let Some(group) = group.get() {
                group.kill();
                if let Err(fault) = group.remove_with_new_parents() {
                    call.log.warn_of(&fault);
                }
            }
            let _ = place.remove();
            Err(fault)
        }
    }
}

/// The container's control groups, which systemd makes no sooner than there is a process to be in them.
struct Groups<'a> {
    spec: &'a Spec,
    manager: Option<Manager>,
    made: &'a OnceCell<Cgroup>,
}

impl<'a> Groups<'a> {
    /// Makes them, or says what systemd is to make.
    fn prepare(&self) -> Result<Option<Wanted>> {
        let path = self.spec.linux.cgroups_path.as_deref().unwrap_or_default();
        if let Some(manager) = self.manager {
            return Wanted::parse(manager, path, &self.spec.annotations).map(Some);
        }
        let group = Cgroup::create(path, self.spec.linux.resources.as_ref())?;
        self.made.get_or_init(|| group.with(Unified::make(path)));
        Ok(None)
    }

    /// With criu's process, whose children the container's are.
    fn have(&self, wanted: Option<&Wanted>, pid: i32) -> Result<(&'a Cgroup, Joined)> {
        let Some(wanted) = wanted else {
            let missing = || Fault::failed("the container's control groups are not made");
            return Ok((self.made.get().ok_or_else(missing)?, Joined::No));
        };
        let group = wanted.create(pid, self.spec.linux.resources.as_ref())?;
        let group = self.made.get_or_init(|| group);
        // Of version 1's hierarchies it has put the process into those it has a use for.
        let joined = if group.version() == Version::V2 { Joined::Yes } else { Joined::No };
        Ok((group, joined))
    }
}

/// Has criu restore it. From the moment there is a process the state says what `delete --force` has to end.
fn bring_back(
    criu: &Criu,
    whole: &checkpoint::Container<'_>,
    groups: &Groups<'_>,
    wanted: Option<&Wanted>,
    bundle: &Bundle,
    place: &Place,
    id: &str,
) -> Result<(Stored, Option<OwnedFd>)> {
    let spec = whole.spec;
    let mut master = None;
    let mut group = None;
    let mut begin = |pid| {
        let (made, joined) = groups.have(wanted, pid)?;
        // Not all of these processes would end with criu.
        let stored = Stored { own_pid_namespace: false, ..stored(id, bundle, pid, made, None)? };
        state::save_new(place, &stored, &bundle.text)?;
        Ok((made, joined))
    };
    let mut on = |stage| {
        match stage {
            Stage::SetupNamespaces(pid) => return run_hooks(whole, id, pid),
            Stage::PostRestore(pid) => {
                if let Some(wishes) = &spec.linux.intel_rdt {
                    group = Some(rdt::apply(&rdt::root()?, wishes, id, pid)?);
                }
            }
            Stage::OrphanPtsMaster(fd) => master = Some(fd),
            Stage::StatusReady | Stage::PostDump => {}
        }
        Ok(())
    };
    let restored = checkpoint::restore(criu, whole, &mut begin, &mut on);
    let saved = restored.and_then(|pid| {
        let (made, _) = groups.have(None, pid)?;
        let stored = stored(id, bundle, pid, made, group.clone())?;
        state::save_new(place, &stored, &bundle.text).map(|()| stored)
    });
    match saved {
        Ok(stored) => Ok((stored, master)),
        Err(fault) => {
            if let Some(group) = group {
                let _ = group.remove();
            }
            Err(fault)
        }
    }
}

/// Those that prepare a container outside: engines connect its network by them.
fn run_hooks(whole: &checkpoint::Container<'_>, id: &str, pid: i32) -> Result<()> {
    let hooks = &whole.spec.hooks;
    let state = runtime::State {
        oci_version: whole.spec.oci_version.clone(),
        id: id.to_owned(),
        status: Status::Creating,
        pid: Some(pid),
        bundle: whole.bundle.to_owned(),
        annotations: whole.spec.annotations.clone(),
    };
    let place = hooks::Place { directory: Some(&state.bundle), environment: None };
    hooks::run(hooks, Point::Prestart, &state, place)?;
    hooks::run(hooks, Point::CreateRuntime, &state, place)
}

/// The container runs again: hands out what was asked for, and stays with it if that was wanted.
fn go_on(container: &Container, master: Option<OwnedFd>, outside: &Wishes<'_>) -> Result<u8> {
    let log = outside.call.log;
    let pid = container.stored.pid;
    container.place.unlock();
    let pidfd = container.open_init()?;
    let outcome = (|| {
        if let Some(file) = &outside.pid_file {
            file.write(pid)?;
        }
        if let (Some(receiver), Some(master)) = (&outside.console, &master) {
            receiver.send(master, "/dev/ptmx")?;
        }
        let Some(signals) = &outside.signals else { return Ok(0) };
        let relay = match (master, &outside.terminal) {
            (Some(master), Some(host)) => Some(Relay { master, host }),
            _ => None,
        };
        let pidfd = pidfd.as_ref().ok_or_else(|| Fault::failed("the restored process has ended"))?;
        attend(pid, pidfd, signals, relay, log)
    })();
    if outcome.is_ok() && outside.signals.is_none() {
        return outcome;
    }
    if outcome.is_err()
        && let Some(pidfd) = &pidfd
    {
        end(pidfd);
    }
    if let Err(fault) = destroy(container, log) {
        log.warn_of(&fault);
    }
    outcome
}
