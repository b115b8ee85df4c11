//! What passes between the parent and the child: one packet each.

use fault::{Explain, Fault, Kind, Result};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use serde::{Deserialize, Serialize};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// A failure in the child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub kind: String,
    pub message: String,
    pub hint: Option<String>,
    /// 126 when the command could not be executed, 127 when it was not found.
    pub exit_code: Option<i32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The users and groups of the child's user namespace are there.
    Mapped,
    /// The process in between has made the child, whose descriptor comes along.
    Made,
    /// The root file system is built, and not entered yet: hooks run now.
    Mounted,
    /// They have.
    Proceed,
    /// Map the owners of the tree that comes along, for the mount at this place; answered with `OwnersMapped`.
    MapOwners {
        index: usize,
    },
    OwnersMapped,
    /// The child has loaded the part of its filter that leaves calls to an agent. The listener comes along, or is the child's
    /// descriptor of this number: it waits for `ListenerTaken` then.
    Listener {
        number: Option<i32>,
    },
    ListenerTaken,
    /// The child is set up and waits. The master side of its terminal comes along if it has one.
    Ready,
    /// The control groups are made: join them, unless that is done. Only where the child was not made inside its group.
    Join {
        cgroup: Vec<PathBuf>,
        joined: bool,
    },
    /// Execute the command.
    Start,
    Failed(Failure),
}

impl Failure {
    pub fn of(fault: &Fault, exit_code: Option<i32>) -> Failure {
        Failure {
            kind: fault.kind().name().to_owned(),
            message: fault.to_string(),
            hint: fault.hint_text().map(str::to_owned),
            exit_code,
        }
    }

    pub fn into_fault(self) -> Fault {
        let fault = Fault::new(Kind::from_name(&self.kind), self.message);
        match self.hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}

/// The listener that comes along with [`Message::Listener`], or is taken from the process.
pub fn listener(
    socket: impl AsFd,
    pidfd: impl AsFd,
    number: Option<i32>,
    passed: Option<OwnedFd>,
    give: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    let Some(number) = number else {
        let listener = passed.ok_or_else(|| Fault::failed("the container has sent no seccomp listener"))?;
        return give(listener.as_fd());
    };
    let taken =
        pidfd_getfd(pidfd, number, PidfdGetfdFlags::empty()).map_err(std::io::Error::from).explain(|| {
            "take the seccomp listener from the container, which may have no thread to send it".into()
        })?;
    give(taken.as_fd())?;
    send(socket, &Message::ListenerTaken, None)
}

pub fn send(socket: impl AsFd, message: &Message, fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let bytes = serde_json::to_vec(message).map_err(|e| Fault::failed("write a message").because(e))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        .map(|_| ())
        .map_err(|error| Fault::failed("talk to the container's parent").because(std::io::Error::from(error)))
}

/// `None` when the other side has closed: the child has executed its command, or the parent is gone.
pub fn receive(socket: impl AsFd) -> Result<Option<(Message, Option<OwnedFd>)>> {
    let mut bytes = [0; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            // The second is told once, when the peer died with a message of ours unread: its own last words come after it.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(error) => {
                return Err(Fault::failed("listen to the container").because(std::io::Error::from(error)));
            }
            Ok(received) => break received.bytes,
        }
    };
    if received == 0 {
        return Ok(None);
    }
    let fd = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let message = serde_json::from_slice(&bytes[..received])
        .map_err(|error| Fault::failed("read the container's message").because(error))?;
    Ok(Some((message, fd)))
}
