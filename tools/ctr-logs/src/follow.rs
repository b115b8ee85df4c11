//! Waiting for more output, and knowing when there will be none.

use cli::{Explain, Result};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use shim::{Client, Waited};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use store::{ContainerDir, Status};

/// Tells of changes of a container's log and of its end.
pub struct Watch {
    changes: OwnedFd,
    shim: Option<Client>,
    until: Option<Timestamp>,
}

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// There may be more to read.
    Changed,
    /// Nobody reads stdout any more.
    Unread,
}

/// How often to look without being told, should a message be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Watch {
    /// Begun before the log is read, so that nothing that comes later is missed.
    pub fn new(dir: &ContainerDir, log: &Path, until: Option<Timestamp>) -> Result<Watch> {
        let changes = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .explain(|| "watch for changes".into())?;
        let events = inotify::WatchFlags::MODIFY
            | inotify::WatchFlags::CREATE
            | inotify::WatchFlags::MOVED_TO
            | inotify::WatchFlags::DELETE_SELF
            | inotify::WatchFlags::MOVE_SELF;
        // The log may be kept elsewhere.
        let parent = log.parent().filter(|parent| **parent != dir.bundle && parent.exists());
        for place in [Some(dir.bundle.as_path()), parent].into_iter().flatten() {
            inotify::add_watch(&changes, place, events).explain(|| format!("watch {}", place.display()))?;
        }
        let mut watch = Watch { changes, shim: None, until };
        watch.connect(dir)?;
        Ok(watch)
    }

    fn connect(&mut self, dir: &ContainerDir) -> Result<()> {
        self.shim = Client::connect(dir)?;
        if let Some(shim) = &self.shim
            && shim.subscribe().is_err()
        {
            // It ended between the two.
            self.shim = None;
        }
        Ok(())
    }

    /// Whether output may still come. Ask before reading: what was written before the answer is then read.
    pub fn may_come(&mut self, dir: &ContainerDir) -> Result<bool> {
        if self.until.is_some_and(|until| Timestamp::now() > until) || !dir.exists() {
            return Ok(false);
        }
        if self.has_ended()? {
            self.shim = None;
        }
        let runs = match dir.status()? {
            Status::Running | Status::Paused | Status::Restarting => true,
            // Set up and about to be started, perhaps by a later stage of the same pipeline.
            Status::Created => dir.has_shim(),
            Status::Exited => false,
        };
        if runs && self.shim.is_none() {
            // It was started again, or the shim is about to let go of its lock.
            self.connect(dir)?;
            // It outlived its shim, and nobody writes down what it prints.
            if self.shim.is_none() && dir.survivor()?.is_some() {
                return Ok(false);
            }
        }
        Ok(runs)
    }

    /// Whether the shim said so, or went away.
    fn has_ended(&self) -> Result<bool> {
        let Some(shim) = &self.shim else { return Ok(false) };
        Ok(matches!(shim.exit_by(Some(Instant::now()))?, Waited::Ended(_)))
    }

    pub fn wait(&mut self) -> Result<Woken> {
        // Without a shim to listen to, it is one that comes or goes just now.
        let patience = if self.shim.is_some() { LOOK_AGAIN } else { Duration::from_millis(5) };
        let timeout = Timespec::try_from(patience.min(self.until_passes())).unwrap_or_default();
        let stdout = rustix::stdio::stdout();
        let mut fds = vec![
            PollFd::new(&self.changes, PollFlags::IN),
            PollFd::from_borrowed_fd(stdout, PollFlags::empty()),
        ];
        if let Some(shim) = &self.shim {
            fds.push(PollFd::from_borrowed_fd(shim.as_fd(), PollFlags::IN));
        }
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).explain(|| "watch for changes".into()),
        }
        if fds[1].revents().contains(PollFlags::ERR) {
            return Ok(Woken::Unread);
        }
        drop(fds);
        self.drain();
        Ok(Woken::Changed)
    }

    fn until_passes(&self) -> Duration {
        let Some(until) = self.until else { return LOOK_AGAIN };
        Duration::try_from(Timestamp::now().duration_until(until)).unwrap_or_default()
    }

    /// What changed is not looked at: everything is read anyway.
    fn drain(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.changes, &mut buffer);
        while reader.next().is_ok() {}
    }
}
