//! Who decides on system calls a filter leaves to somebody else (`SCMP_ACT_NOTIFY`): listening at `linux.seccomp.listenerPath`,
//! told of each process that loads the filter (config-linux.md, "The Container Process State").

use super::Filter;
use super::profile::Profile;
use crate::gate;
use crate::message::{Message, receive, send};
use crate::spec::{OCI_VERSION, bad};
use crate::state::State;
use fault::{Explain, Fault, Result};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use serde::Serialize;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Agent {
    path: PathBuf,
    metadata: Option<String>,
}

/// One per process, for one message.
#[derive(Debug)]
pub struct Connection<'a> {
    socket: OwnedFd,
    agent: &'a Agent,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    state: &'a State,
}

impl Agent {
    /// For a section with a filter that has a part of its own for it ([`Filter::notify`]).
    pub fn of(section: &str) -> Result<Agent> {
        let profile = Profile::parse(section)?;
        let path = profile.listener_path.ok_or_else(|| bad("linux.seccomp.listenerPath", "is missing"))?;
        Ok(Agent { path, metadata: profile.listener_metadata })
    }

    /// In the mount namespace of whoever wrote the path, never in the container's: what is there is the container's own.
    pub fn connect(&self) -> Result<Connection<'_>> {
        let what = || {
            format!(
                "failed to connect with seccomp agent at {} (linux.seccomp.listenerPath)",
                self.path.display()
            )
        };
        let hint = |fault: Fault| {
            fault.hint("the agent listens there on a stream socket before the container is made")
        };
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .explain(|| "make a socket".into())?;
        let connected = match SocketAddrUnix::new(&self.path) {
            Ok(address) => connect(&socket, &address),
            Err(Errno::NAMETOOLONG) => {
                let (_directory, address) = gate::address(&self.path).map_err(hint)?;
                connect(&socket, &address)
            }
            Err(error) => Err(error),
        };
        connected.explain(what).map_err(hint)?;
        Ok(Connection { socket, agent: self })
    }
}

impl Connection<'_> {
    /// Tells of a process and gives its listener away. `pid`: as this process sees it; `state`: the container's.
    pub fn send(self, pid: i32, state: &State, listener: BorrowedFd<'_>) -> Result<()> {
        let what = || format!("tell the seccomp agent at {}", self.agent.path.display());
        let state = ProcessState {
            oci_version: OCI_VERSION,
            fds: ["seccompFd"],
            pid,
            metadata: self.agent.metadata.as_deref(),
            state,
        };
        let text = serde_json::to_vec(&state).map_err(|error| Fault::failed(what()).because(error))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [listener];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        let mut sent = 0;
        while sent < text.len() {
            match sendmsg(&self.socket, &[IoSlice::new(&text[sent..])], &mut ancillary, SendFlags::NOSIGNAL) {
                Ok(count) => {
                    // Only with the first part.
                    ancillary.clear();
                    sent += count;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error)).explain(what),
            }
        }
        Ok(())
    }
}

/// Loads the part of a filter that leaves calls to somebody else, and sends the listener to the parent, which gives it to the
/// agent.
///
/// From the moment it is loaded, this process may have to wait for an answer to any call, by an agent that has not got the
/// listener: so a thread sends it that was there before and is not filtered, and nothing but memory passes to it.
pub fn load_notify(filter: &Filter, parent: &OwnedFd) -> Result<()> {
    let Some(program) = &filter.notify else { return Ok(()) };
    match load_beside_a_thread(program, filter.flags, parent) {
        // The container may have no more processes than this one (`pids.limit`).
        Err(fault) if fault.os_error() == Some(libc::EAGAIN) => load_alone(program, filter.flags, parent),
        done => done,
    }
}

fn load_beside_a_thread(program: &[u8], flags: u32, parent: &OwnedFd) -> Result<()> {
    let loaded: OnceLock<Option<OwnedFd>> = OnceLock::new();
    std::thread::scope(|scope| {
        let sender = std::thread::Builder::new()
            .stack_size(256 << 10)
            .spawn_scoped(scope, || {
                let listener = loop {
                    match loaded.get() {
                        Some(listener) => break listener,
                        None => std::thread::sleep(Duration::from_micros(50)),
                    }
                };
                match listener {
                    Some(listener) => {
                        send(parent, &Message::Listener { number: None }, Some(listener.as_fd()))
                    }
                    None => Ok(()),
                }
            })
            .explain(|| "make a thread to give the seccomp listener away".into())?;
        let (listener, failure) = match load_one(program, flags) {
            Ok(listener) => (Some(listener), Ok(())),
            Err(fault) => (None, Err(fault)),
        };
        let _ = loaded.set(listener);
        let sent = sender.join().unwrap_or_else(|_| Err(Fault::failed("give the seccomp listener away")));
        failure.and(sent)
    })
}

/// Tells the parent the listener's number by write(2), which is left to no agent, for it to take it (pidfd_getfd(2)): that takes
/// privileges a parent need not have. All other calls may have to wait for the agent, which has the listener before the answer comes.
fn load_alone(program: &[u8], flags: u32, parent: &OwnedFd) -> Result<()> {
    // The next descriptor has the lowest number that is free, and so has this one.
    let number = parent.try_clone().explain(|| "copy a descriptor".into())?.as_raw_fd();
    let text = serde_json::to_vec(&Message::Listener { number: Some(number) })
        .map_err(|error| Fault::failed("write a message").because(error))?;
    let listener = load_one(program, flags)?;
    if listener.as_raw_fd() != number {
        return Err(Fault::failed(format!("the seccomp listener is descriptor {}", listener.as_raw_fd()))
            .hint(format!("it should be {number}")));
    }
    rustix::io::write(parent, &text)
        .map_err(std::io::Error::from)
        .explain(|| "give the seccomp listener away".into())?;
    match receive(parent)? {
        Some((Message::ListenerTaken, _)) => Ok(()),
        _ => Err(Fault::failed("nobody has taken the seccomp listener")),
    }
}

fn load_one(program: &[u8], flags: u32) -> Result<OwnedFd> {
    let loaded = sys::seccomp::load_with_listener(program, flags);
    loaded.explain(|| "load the seccomp filter with its listener".into()).map_err(|fault| {
        match fault.os_error() {
            Some(libc::EBUSY) => {
                fault.hint("this process has a seccomp listener already; the kernel takes one")
            }
            _ => fault,
        }
    })
}
