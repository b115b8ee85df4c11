//! Clients of the socket, and the bytes between them and the container.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes a slow reader may be behind before the container's output is not read any further, for as long as [`Client::patience`]
/// lasts. The log is written first, so it never lacks any.
const MOST_BEHIND: usize = 256 << 10;

/// One connection.
pub struct Client {
    pub socket: OwnedFd,
    /// Asked to be told how the container ends.
    pub waits: bool,
    /// Asked for another run, and is told when that has begun.
    pub awaits_restart: bool,
    /// Is saving the container's processes.
    pub checkpoints: bool,
    /// From the client to the container's stdin.
    pub input: Option<OwnedFd>,
    /// From the container's stdout and stderr to the client.
    pub outputs: [Option<Sink>; 2],
    /// How long the container waits for it without its taking anything; `None`: for ever.
    pub patience: Option<Duration>,
    pub gone: bool,
}

impl Client {
    pub fn new(socket: OwnedFd) -> Client {
        Client {
            socket,
            waits: false,
            awaits_restart: false,
            checkpoints: false,
            input: None,
            outputs: [None, None],
            patience: None,
            gone: false,
        }
    }

    /// Whether everything meant for it has been taken.
    pub fn is_drained(&self) -> bool {
        self.gone || self.outputs.iter().flatten().all(|sink| sink.pending.is_empty())
    }

    /// When the container has waited for it long enough.
    pub fn let_go_at(&self) -> Option<Instant> {
        let patience = self.patience?;
        let behind = self.outputs.iter().flatten().filter(|sink| sink.is_behind());
        behind.filter_map(|sink| sink.taken.checked_add(patience)).min()
    }
}

/// A pipe to a client, and what it has not taken yet.
pub struct Sink {
    pub fd: OwnedFd,
    pending: Vec<u8>,
    sent: usize,
    /// When it took something last.
    taken: Instant,
}

impl Sink {
    pub fn new(fd: OwnedFd) -> Sink {
        Sink { fd, pending: Vec::new(), sent: 0, taken: Instant::now() }
    }

    pub fn is_behind(&self) -> bool {
        self.pending.len() - self.sent >= MOST_BEHIND
    }

    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether nobody reads it any more.
    pub fn is_closed(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::empty())];
        // Errors and hang-ups are told unasked.
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1..))
    }

    /// Takes bytes; what the pipe does not hold waits. `false` when nobody reads any more.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        if self.has_pending() {
            self.pending.extend_from_slice(bytes);
            return self.flush();
        }
        match write_some(&self.fd, bytes) {
            Ok(count) => {
                self.pending.extend_from_slice(&bytes[count..]);
                self.taken = Instant::now();
                true
            }
            Err(_) => false,
        }
    }

    pub fn flush(&mut self) -> bool {
        match write_some(&self.fd, &self.pending[self.sent..]) {
            Ok(count) => {
                if count > 0 {
                    self.taken = Instant::now();
                }
                self.sent += count;
                if self.sent == self.pending.len() {
                    self.pending.clear();
                    self.pending.shrink_to(MOST_BEHIND / 4);
                    self.sent = 0;
                }
                true
            }
            Err(_) => false,
        }
    }
}

/// As much as the descriptor takes without waiting.
pub fn write_some(fd: impl AsFd, bytes: &[u8]) -> Result<usize, Errno> {
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::write(&fd, &bytes[written..]) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
