//! Messages to somebody behind a socket, who may be slow, or go away and come back.

use fault::{Explain, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, send, sendmsg};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What is held for a reader that is slow before the container has to wait, in bytes.
const MOST_BEHIND: usize = 256 << 10;
/// How often somebody who went away is looked for.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// How long the container's end waits for the last messages to be taken.
const LONGEST_DRAIN: Duration = Duration::from_secs(2);

/// How messages are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A stream: each ends with a line feed of its own.
    Stream,
    Datagrams,
    /// Datagrams to somebody who may not be there: an error tells of an earlier one.
    Udp,
    /// Datagrams; one that is too large goes as a sealed memory file (systemd's native journal protocol).
    Journal,
}

type Connect = Box<dyn Fn() -> Result<(OwnedFd, Framing)>>;

pub struct Remote {
    connect: Connect,
    /// A socket that does not block; `None` while nobody is there.
    socket: Option<(OwnedFd, Framing)>,
    tried: Instant,
    queue: VecDeque<Vec<u8>>,
    /// Bytes in the queue.
    queued: usize,
    /// Of the first one in the queue.
    sent: usize,
    most_buffered: Option<u64>,
}

impl Remote {
    pub fn open(connect: Connect, most_buffered: Option<u64>) -> Result<Remote> {
        let socket = Some(connect()?);
        let (queue, tried) = (VecDeque::new(), Instant::now());
        Ok(Remote { connect, socket, tried, queue, queued: 0, sent: 0, most_buffered })
    }

    /// Takes a message; [`Remote::flush`] sends it.
    pub fn add(&mut self, message: Vec<u8>) {
        let most = match (self.most_buffered, &self.socket) {
            (Some(most), _) => usize::try_from(most).unwrap_or(usize::MAX),
            // The container waits instead, from one read after that on.
            (None, Some(_)) => usize::MAX,
            (None, None) => MOST_BEHIND,
        };
        // As with docker's ring buffer, what does not fit is dropped, unless it is alone.
        if self.queued + message.len() > most && !self.queue.is_empty() {
            // There is room again by now, perhaps.
            self.flush();
            if self.queued + message.len() > most && !self.queue.is_empty() {
                return;
            }
        }
        self.queued += message.len();
        self.queue.push_back(message);
    }

    pub fn is_behind(&self) -> bool {
        // Nobody waits for somebody who is not there.
        self.most_buffered.is_none() && self.socket.is_some() && self.queued >= MOST_BEHIND
    }

    pub fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().filter(|_| !self.queue.is_empty()).map(|(socket, _)| socket.as_fd())
    }

    /// As much as is taken without waiting.
    pub fn flush(&mut self) {
        while let Some(message) = self.queue.front() {
            let Some((socket, framing)) = &self.socket else {
                if !self.connect_again() {
                    return;
                }
                continue;
            };
            let rest = message.get(self.sent..).unwrap_or_default();
            match send(socket, rest, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) if *framing == Framing::Stream && self.sent + count < message.len() => {
                    self.sent += count;
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(Errno::MSGSIZE | Errno::NOBUFS) if *framing == Framing::Journal => {
                    match send_file(socket, message) {
                        Err(Errno::AGAIN) => return,
                        _ => self.done(),
                    }
                }
                // Sent, or longer than the other side takes at all.
                Ok(_) | Err(Errno::MSGSIZE) => self.done(),
                Err(_) if *framing == Framing::Udp => self.done(),
                Err(_) => {
                    // A message that was sent in part is sent again as a whole to whoever comes next.
                    self.sent = 0;
                    self.socket = None;
                }
            }
        }
    }

    /// Waits for a while until everything is sent.
    pub fn drain(&mut self) {
        let end = Instant::now() + LONGEST_DRAIN;
        loop {
            self.flush();
            let left = end.saturating_duration_since(Instant::now());
            let Some(socket) = self.waits_for().filter(|_| !left.is_zero()) else { return };
            let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::OUT)];
            let left = Timespec::try_from(left).unwrap_or_default();
            if matches!(poll(&mut fds, Some(&left)), Ok(0)) {
                return;
            }
        }
    }

    fn done(&mut self) {
        if let Some(message) = self.queue.pop_front() {
            self.queued -= message.len();
        }
        self.sent = 0;
    }

    fn connect_again(&mut self) -> bool {
        if self.tried.elapsed() < LOOK_AGAIN {
            return false;
        }
        self.tried = Instant::now();
        self.socket = (self.connect)().ok();
        self.socket.is_some()
    }
}

/// A message as a file in memory that can change no more.
fn send_file(socket: &OwnedFd, message: &[u8]) -> rustix::io::Result<()> {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    let file = memfd_create("log", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut rest = message;
    while !rest.is_empty() {
        let count = rustix::io::write(&file, rest)?;
        rest = &rest[count..];
    }
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [file.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(socket, &[IoSlice::new(&[])], &mut ancillary, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).map(drop)
}

/// Made by the standard library, which blocks unless told.
pub fn nonblocking(socket: impl Into<OwnedFd>) -> Result<OwnedFd> {
    let socket = socket.into();
    rustix::io::ioctl_fionbio(&socket, true).explain(|| "set up a socket".into())?;
    Ok(socket)
}
