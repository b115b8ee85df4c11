//! `delete`, and the end of containers in general.

use crate::call::Call;
use crate::kill;
use crate::log::Log;
use crate::options::Opt;
use crate::place::Place;
use crate::process;
use crate::state::Container;
use fault::{Fault, Kind, Result};
use runtime::Status;
use runtime::hooks::{self, Point};
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Control groups of containers whose specification names none are in it.
pub const PARENT_GROUP: &str = "/oci-runtime";

/// How long a killed process may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A command that does next to nothing is about to end when a script deletes its container right after starting it; `start` of
/// other runtimes takes that long.
const GRACE: Duration = Duration::from_millis(100);

fn ends_soon(container: &Container) -> Result<bool> {
    Ok(container.open_init()?.is_none_or(|pidfd| process::wait_for_end(&pidfd, GRACE)))
}

pub fn delete(call: &Call<'_>) -> Result<u8> {
    let id = call.id()?;
    let force = call.options.has(Opt::Force);
    let container = match load(call, id, force) {
        Ok(container) => container,
        Err(fault) if force && fault.kind() == Kind::NotFound => return Ok(0),
        Err(fault) => return Err(fault),
    };
    if force {
        kill_and_wait(&container)?;
    } else {
        match container.status()? {
            Status::Stopped => {}
            Status::Running if ends_soon(&container)? => {}
            Status::Created => kill_and_wait(&container)?,
            status => {
                return Err(Fault::conflict(format!(
                    "cannot delete container {id} that is not stopped: {}",
                    status.name()
                ))
                .hint("kill it first, or --force"));
            }
        }
    }
    destroy(&container, call.log)?;
    Ok(0)
}

/// What never became a container, or is none any more, is removed here; it is not found then.
fn load(call: &Call<'_>, id: &str, force: bool) -> Result<Container> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let place = Place::open(&call.root, id)?;
        let fault = match Container::load_from(place, id) {
            Ok(container) => return Ok(container),
            Err(fault) => fault,
        };
        let place = Place::open(&call.root, id)?;
        if place.is_busy() {
            if !force || Instant::now() > deadline {
                return Err(Fault::conflict(format!(
                    "cannot delete container {id} that is not stopped: {}",
                    Status::Creating.name()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
            continue;
        }
        if fault.kind() == Kind::NotFound {
            place.remove()?;
        } else if force {
            call.log.warn_of(&fault.within("its processes and control groups, if there are any, are left"));
            place.remove()?;
            return Err(crate::place::absent());
        }
        return Err(fault);
    }
}

fn kill_and_wait(container: &Container) -> Result<()> {
    let pidfd = container.open_init()?;
    if let Err(fault) = kill::signal(container, libc::SIGKILL, false) {
        // It had ended, or did so just now, or its groups are gone; what is left shows below.
        if pidfd.as_ref().is_some_and(|pidfd| !process::wait_for_end(pidfd, Duration::ZERO)) {
            return Err(fault);
        }
    }
    match pidfd {
        Some(pidfd) if !process::wait_for_end(&pidfd, PATIENCE) => {
            Err(Fault::new(Kind::Retryable, "container init still running"))
        }
        _ => Ok(()),
    }
}

/// Kills a child of this process and reaps it.
pub fn end(pidfd: &OwnedFd) {
    let _ = sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
}

/// Removes all there is of a container whose first process has ended.
pub fn destroy(container: &Container, log: &Log) -> Result<()> {
    remove(container).map_err(|fault| fault.within("unable to destroy container"))?;
    let hooks = &container.stored.hooks;
    if !hooks.poststop.is_empty() {
        let state = container.oci_state(Status::Stopped);
        let place = hooks::Place { directory: Some(&state.bundle), environment: None };
        for fault in hooks::run_all(hooks, Point::Poststop, &state, place) {
            log.warn_of(&fault);
        }
    }
    Ok(())
}

fn remove(container: &Container) -> Result<()> {
    if let Some(group) = container.cgroup()? {
        // Without a pid namespace of its own, its other processes have outlived the first.
        if !container.stored.own_pid_namespace {
            group.kill();
        }
        group.remove().map_err(|fault| fault.within("unable to remove container's cgroup"))?;
        if is_below_parent_group(container) {
            let _ = cgroup::remove_parent(PARENT_GROUP);
        }
    }
    if let Some(group) = &container.stored.rdt {
        group.remove().map_err(|fault| fault.within("unable to remove container's IntelRDT group"))?;
    }
    container.place.remove()
}

fn is_below_parent_group(container: &Container) -> bool {
    let name = PARENT_GROUP.trim_start_matches('/');
    let parent = container.stored.cgroups.first().and_then(|directory| directory.parent());
    parent.is_some_and(|parent| parent.ends_with(name))
}
