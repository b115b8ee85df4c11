//! How long to wait: until the time is up, or until somebody else has what was wanted.

use cli::{Explain, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug)]
pub struct Patience<'a> {
    pub deadline: Option<Instant>,
    /// Hung up when nobody waits any more (`--any`).
    pub enough: BorrowedFd<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something happened, or it is time to look again.
    Look,
    TimedOut,
    Enough,
}

impl Patience<'_> {
    /// Waits for one of the descriptors to be readable, and no longer than `step`.
    pub fn wait(&self, fds: &[BorrowedFd<'_>], step: Duration) -> Result<Turn> {
        let left = self.deadline.map_or(step, |deadline| deadline.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(left.min(step)).unwrap_or_default();
        let mut polled = vec![PollFd::from_borrowed_fd(self.enough.as_fd(), PollFlags::IN)];
        polled.extend(fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).explain(|| "wait".into()),
        }
        let enough = polled.first().is_some_and(|fd| !fd.revents().is_empty());
        Ok(if enough {
            Turn::Enough
        } else if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Turn::TimedOut
        } else {
            Turn::Look
        })
    }
}
