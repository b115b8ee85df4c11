//! TCP connections of those who ask.

use crate::framed::Framed;
use crate::message::LONGEST_QUERY;
use crate::table::Key;
use rustix::event::epoll::{self, EventData, EventFlags};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long one may be silent (RFC 7766, section 6.2.3 leaves it to the server).
const PATIENCE: Duration = Duration::from_secs(10);

/// Questions of one connection under way at once, and bytes it may leave unread.
const MOST_WAITING: usize = 32;
const MOST_UNSENT: usize = 256 << 10;

#[derive(Debug)]
pub struct Connection {
    framed: Framed,
    pub from: SocketAddr,
    /// Questions that were passed on.
    pub waiting: usize,
    pub deadline: Instant,
    interest: EventFlags,
}

impl Connection {
    pub fn new(socket: OwnedFd, from: SocketAddr) -> Connection {
        let framed = Framed::new(socket, LONGEST_QUERY);
        let deadline = Instant::now() + PATIENCE;
        Connection { framed, from, waiting: 0, deadline, interest: EventFlags::IN }
    }

    /// Takes what has come.
    pub fn fill(&mut self) -> io::Result<()> {
        if self.is_held_up() { Ok(()) } else { self.framed.fill() }
    }

    /// The next question, unless there is enough to do. Fails on a message that is no question.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.is_held_up() {
            return Ok(None);
        }
        let next = self.framed.next()?;
        if next.is_some() {
            self.deadline = Instant::now() + PATIENCE;
        }
        Ok(next)
    }

    pub fn push(&mut self, message: &[u8]) {
        self.framed.push(message);
        self.deadline = Instant::now() + PATIENCE;
    }

    /// Sends what can be sent, and has the loop tell what comes next. `false` when there is nothing more to come.
    pub fn settle(&mut self, epoll: &OwnedFd, mark: u64, key: Key) -> io::Result<bool> {
        self.framed.flush()?;
        let unsent = self.framed.unsent() > 0;
        if self.framed.ended && self.waiting == 0 && !unsent {
            return Ok(false);
        }
        let mut interest = EventFlags::empty();
        interest.set(EventFlags::IN, !self.framed.ended && !self.is_held_up());
        interest.set(EventFlags::OUT, unsent);
        if interest != self.interest {
            epoll::modify(epoll, &self.framed, EventData::new_u64(mark | key.to_bits()), interest)?;
            self.interest = interest;
        }
        Ok(true)
    }

    fn is_held_up(&self) -> bool {
        self.waiting >= MOST_WAITING || self.framed.unsent() > MOST_UNSENT
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.framed.as_fd()
    }
}
