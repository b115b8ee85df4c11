//! The tools' side of the socket.

use crate::{Exit, LET_GO, Reply, Request, address_of, receive, send};
use fault::{Explain, Fault, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use store::ContainerDir;

/// How long what a killed shim left may take to die.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to one container's shim.
#[derive(Debug)]
pub struct Client {
    socket: OwnedFd,
    id: String,
}

impl Client {
    /// `None` when the container has no shim: it was never set up, has ended, or its shim was killed.
    pub fn connect(dir: &ContainerDir) -> Result<Option<Client>> {
        if !dir.run.exists() {
            return Ok(None);
        }
        let (_dir, address) = address_of(&dir.run)?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .explain(|| "make a socket".into())?;
        match connect(&socket, &address) {
            Ok(()) => Ok(Some(Client { socket, id: dir.id.clone() })),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(error) => Err(std::io::Error::from(error))
                .explain(|| "connect to the container's shim".into())
                .map_err(|fault| fault.on(dir.id.as_str())),
        }
    }

    /// Sends a request and waits for its reply. A failure on the other side comes back as its fault.
    pub fn request(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        let reply = self.request_raw(request, fds)?;
        match reply.error {
            Some(failure) => Err(failure.into_fault().on(self.id.as_str())),
            None => Ok(reply),
        }
    }

    /// Like [`Client::request`], with a failure of the other side left in the reply.
    pub fn request_raw(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Reply> {
        send(&self.socket, request, fds).map_err(|fault| fault.on(self.id.as_str()))?;
        let packet = self.packet()?.ok_or_else(|| {
            Fault::retryable("the container's shim went away without an answer").on(self.id.as_str())
        })?;
        serde_json::from_slice(&packet)
            .explain(|| "read the shim's answer".into())
            .map_err(|fault| fault.on(self.id.as_str()))
    }

    /// Sends [`Request::Wait`] and blocks until the container ends. `None` when the shim was killed.
    pub fn wait(&self) -> Result<Option<Exit>> {
        send(&self.socket, &Request::Wait, &[])?;
        self.exit()
    }

    /// Blocks until the exit event of an attached or waiting connection.
    pub fn exit(&self) -> Result<Option<Exit>> {
        while let Some(packet) = self.packet()? {
            if let Ok(exit) = serde_json::from_slice::<Exit>(&packet)
                && matches!(exit.event.as_str(), "exit" | LET_GO)
            {
                return Ok(Some(exit));
            }
        }
        Ok(None)
    }

    fn packet(&self) -> Result<Option<Vec<u8>>> {
        match receive(&self.socket) {
            Ok(packet) => Ok(packet.map(|packet| packet.bytes)),
            Err(Errno::CONNRESET) => Ok(None),
            Err(error) => {
                Err(Fault::failed("listen to the container's shim").because(std::io::Error::from(error)))
            }
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A `ctr-shim` that waits to be told that its container's bundle is written.
///
/// Started early, it gets ready while its caller waits for something else. Dropped, it ends.
#[derive(Debug)]
pub struct Prepared {
    dir: ContainerDir,
    // Closed before the process is waited for.
    socket: Option<OwnedFd>,
    child: Child,
    /// Held, because letting go of a mount makes the kernel wait for all processors.
    _protected: OwnedFd,
}

impl Prepared {
    pub fn start(dir: &ContainerDir) -> Result<Prepared> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .explain(|| "make a socket pair".into())?;
        let program = sys::process::sibling("ctr-shim")?;
        // From a read-only mount: what runs in the container was started by this very program, and may try to write to it.
        let protected =
            sys::mount::readonly_executable(&program).explain(|| format!("open {}", program.display()))?;
        let mut command = Command::new(format!("/proc/self/fd/{}", protected.as_raw_fd()));
        command.arg0("ctr-shim").arg(&dir.bundle).arg(&dir.run);
        command.arg(program.parent().unwrap_or(Path::new("/")));
        // Messages for people go through the socket; stderr is kept for a shim that cannot even do that.
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null());
        let child = command.spawn().explain(|| format!("start {}", program.display()))?;
        Ok(Prepared { dir: dir.clone(), socket: Some(ours), child, _protected: protected })
    }

    pub fn dir(&self) -> &ContainerDir {
        &self.dir
    }

    /// Lets it make the container and waits until that has its namespaces and control groups. What fails there is the
    /// result here; what fails later, while the root file system is built, is [`Request::Ready`]'s and
    /// [`Request::Start`]'s.
    pub fn set_up(&mut self) -> Result<Reply> {
        let id = self.dir.id.as_str();
        let Some(socket) = self.socket.take() else { return Err(Fault::failed("the shim is in use")) };
        // One that has ended already is told by the answer.
        let _ = send(&socket, &Request::Recreate, &[]);
        let packet = receive(&socket).explain(|| "listen to the container's shim".into())?;
        let Some(packet) = packet else {
            let status = self.child.wait().explain(|| "wait for the container's shim".into())?;
            return Err(Fault::failed(format!("the container's shim ended: {status}")).on(id));
        };
        let reply: Reply =
            serde_json::from_slice(&packet.bytes).explain(|| "read the shim's answer".into())?;
        match reply.error {
            Some(failure) => {
                // Reaped, so that no zombie outlives the failure in a long-lived caller.
                let _ = self.child.wait();
                Err(failure.into_fault().on(id))
            }
            None => Ok(reply),
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        if self.socket.take().is_some() {
            let _ = self.child.wait();
        }
    }
}

/// Starts `ctr-shim` for a container whose bundle is written. See [`Prepared::set_up`].
pub fn start_shim(dir: &ContainerDir) -> Result<Reply> {
    crate::clear(dir, PATIENCE)?;
    Prepared::start(dir)?.set_up()
}
