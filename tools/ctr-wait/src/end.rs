//! Waiting for a container's end.

use crate::Waiting;
use crate::patience::{Patience, Turn};
use cli::{Explain, Fault, Kind, Result};
use rustix::fs::inotify;
use shim::{Client, Exit, Orphan, Waited};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use store::{ContainerDir, Status};

/// Looks again without being told: a shim that comes up makes no file in the bundle until its container starts.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// For what nobody tells of, but that is over in a moment.
const MOMENT: Duration = Duration::from_millis(1);

pub fn end_of(dir: &ContainerDir, patience: Patience<'_>) -> Result<Waiting<Exit>> {
    loop {
        // Before looking, so that no start is missed.
        let starts = Changes::watch(dir)?;
        // A connection first: a container that ends between looking and connecting is then told of by its files.
        let client = Client::connect(dir)?;
        if dir.status()? == Status::Exited {
            return shim::outcome(None, dir).map(Waiting::Done);
        }
        if let Some(client) = client {
            match told_by(&client, patience)? {
                Waiting::Done(None) => {}
                Waiting::Done(Some(exit)) => return Ok(Waiting::Done(exit)),
                Waiting::TimedOut => return Ok(Waiting::TimedOut),
                Waiting::Enough => return Ok(Waiting::Enough),
            }
        }
        let turn = match dir.status() {
            // Its shim was killed, or it was discarded before it ever ran.
            Ok(Status::Created) if dir.exists() && !dir.has_shim() => starts.next(patience, LOOK_AGAIN)?,
            Ok(Status::Exited) => return shim::outcome(None, dir).map(Waiting::Done),
            // It outlived its shim.
            Ok(_) if let Some(orphan) = Orphan::of(dir)? => patience.wait(&[orphan.as_fd()], LOOK_AGAIN)?,
            // A lock is let go a moment after the connection, and taken a moment before there is a socket.
            Ok(_) => patience.wait(&[], MOMENT)?,
            Err(fault) => return Err(fault),
        };
        match turn {
            Turn::Look => {}
            Turn::TimedOut => return Ok(Waiting::TimedOut),
            Turn::Enough => return Ok(Waiting::Enough),
        }
        if !dir.exists() {
            return Err(Fault::not_found("it was removed before it ended"));
        }
    }
}

/// What the shim says; nothing if it goes away without a word.
fn told_by(client: &Client, patience: Patience<'_>) -> Result<Waiting<Option<Exit>>> {
    match client.subscribe() {
        // It closed the connection before the request.
        Err(fault) if fault.kind() == Kind::Retryable => return Ok(Waiting::Done(None)),
        other => other?,
    }
    loop {
        match client.exit_by(Some(Instant::now())) {
            Ok(Waited::Ended(exit)) => return Ok(Waiting::Done(exit)),
            Ok(Waited::TimedOut) => {}
            Err(fault) if fault.kind() == Kind::Retryable => return Ok(Waiting::Done(None)),
            Err(fault) => return Err(fault),
        }
        match patience.wait(&[client.as_fd()], Duration::from_hours(1))? {
            Turn::Look => {}
            Turn::TimedOut => return Ok(Waiting::TimedOut),
            Turn::Enough => return Ok(Waiting::Enough),
        }
    }
}

/// Tells of changes of a container: a run begins and ends with one of `last_run.json` in its bundle.
pub struct Changes(OwnedFd);

impl Changes {
    pub fn watch(dir: &ContainerDir) -> Result<Changes> {
        let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .explain(|| "watch for changes".into())?;
        let changes = Changes(fd);
        changes.add(&dir.bundle, inotify::WatchFlags::empty())?;
        Ok(changes)
    }

    /// With its state, its health and its log.
    pub fn watch_all(dir: &ContainerDir) -> Result<Changes> {
        let changes = Changes::watch(dir)?;
        changes.add(&dir.bundle, inotify::WatchFlags::MODIFY)?;
        if dir.run.is_dir() {
            changes.add(&dir.run, inotify::WatchFlags::empty())?;
        }
        Ok(changes)
    }

    fn add(&self, path: &std::path::Path, more: inotify::WatchFlags) -> Result<()> {
        let events = inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::DELETE
            | inotify::WatchFlags::MOVE_SELF
            | inotify::WatchFlags::DELETE_SELF
            | more;
        inotify::add_watch(&self.0, path, events).map(drop).explain(|| format!("watch {}", path.display()))
    }

    /// Waits for a change. What changed is not looked at.
    pub fn next(&self, patience: Patience<'_>, step: Duration) -> Result<Turn> {
        let turn = patience.wait(&[self.0.as_fd()], step)?;
        let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        while reader.next().is_ok() {}
        Ok(turn)
    }
}
