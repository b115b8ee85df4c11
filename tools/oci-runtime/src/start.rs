//! `start`.

use crate::call::Call;
use crate::log::Log;
use crate::notify::Notify;
use crate::place::GATE;
use crate::process;
use crate::state::Container;
use fault::{Fault, Kind, Result};
use runtime::hooks::{self, Place, Point};
use runtime::{StartFailure, Status};

pub fn start(call: &Call<'_>) -> Result<u8> {
    let container = Container::load(call)?;
    match container.status()? {
        Status::Created => {}
        Status::Stopped => return Err(Fault::conflict("cannot start a container that has stopped")),
        Status::Running => return Err(already_running()),
        status => {
            return Err(Fault::conflict(format!("cannot start a container in the {} state", status.name())));
        }
    }
    let listener = match Notify::from_env() {
        Some(notify) => notify.listen(&container.place)?,
        None => None,
    };
    let pidfd = match &listener {
        Some(_) => container.open_init()?,
        None => None,
    };
    runtime::start_at(&container.place.path.join(GATE)).map_err(|StartFailure { fault, exit_code }| {
        // Somebody was faster, unless it is the command that is not found.
        let nobody_waits = fault.kind() == Kind::NotFound && exit_code.is_none();
        if nobody_waits && container.has_init() { already_running() } else { fault }
    })?;
    run_poststart(&container, call.log)?;
    if let (Some(listener), Some(pidfd)) = (listener, pidfd) {
        listener.pass_on(container.stored.pid, &pidfd, call.log);
    }
    Ok(0)
}

fn already_running() -> Fault {
    Fault::conflict("cannot start an already running container")
}

/// A hook that fails stops the container (runtime.md, "Lifecycle").
pub fn run_poststart(container: &Container, log: &Log) -> Result<()> {
    let hooks = &container.stored.hooks;
    if hooks.poststart.is_empty() {
        return Ok(());
    }
    let state = container.oci_state(Status::Running);
    let place = Place { directory: Some(&state.bundle), environment: None };
    hooks::run(hooks, Point::Poststart, &state, place).inspect_err(|_| {
        let killed = container.open_init().and_then(|pidfd| match pidfd {
            Some(pidfd) => process::signal(&pidfd, libc::SIGKILL),
            None => Ok(()),
        });
        if let Err(fault) = killed {
            log.warn_of(&fault.within("kill after failed poststart"));
        }
    })
}
