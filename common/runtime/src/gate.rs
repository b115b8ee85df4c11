//! The order to execute the command, which a container's first process waits for.

use crate::message::{Message, receive, send};
use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen as listen_on,
    socket_with,
};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

/// Where the order comes from.
#[derive(Clone, Copy, Debug)]
pub enum Gate<'a> {
    /// Whoever made the container, which is over if that ends.
    Caller,
    /// Whoever connects to a socket that is made here ([`start_at`]).
    Socket(&'a Path),
}

/// How starting failed.
pub struct StartFailure {
    pub fault: Fault,
    /// 126 or 127 when it was the command that could not be run.
    pub exit_code: Option<i32>,
}

/// Starts a container made with [`Gate::Socket`]; returns when its command is executed. After a failure the process is ending.
///
/// Fails with not found where nobody waits: it was started before, or has ended. The socket is removed first: what is not
/// there any more has been started.
pub fn start_at(path: &Path) -> Result<(), StartFailure> {
    let failure = |fault| StartFailure { fault, exit_code: None };
    let connection = reach(path).map_err(failure)?;
    std::fs::remove_file(path).explain(|| format!("remove {}", path.display())).map_err(failure)?;
    start(&connection)
}

fn reach(path: &Path) -> Result<OwnedFd> {
    let (_directory, address) = address(path)?;
    let connection = socket()?;
    match connect(&connection, &address) {
        Ok(()) => Ok(connection),
        Err(Errno::NOENT | Errno::CONNREFUSED) => Err(Fault::not_found("no process waits to be started")),
        Err(error) => Err(std::io::Error::from(error)).explain(|| format!("connect to {}", path.display())),
    }
}

pub(crate) fn start(socket: &OwnedFd) -> Result<(), StartFailure> {
    let failure = |fault| StartFailure { fault, exit_code: None };
    send(socket, &Message::Start, None).map_err(failure)?;
    match receive(socket).map_err(failure)? {
        None => Ok(()),
        Some((Message::Failed(reason), _)) => {
            Err(StartFailure { exit_code: reason.exit_code, fault: reason.into_fault() })
        }
        Some(_) => Err(failure(Fault::failed("the container's first process said something unexpected"))),
    }
}

pub(crate) fn listen(path: &Path) -> Result<OwnedFd> {
    let (_directory, address) = address(path)?;
    let listener = socket()?;
    bind(&listener, &address)
        .and_then(|()| listen_on(&listener, 1))
        .explain(|| format!("listen on {}", path.display()))?;
    Ok(listener)
}

/// Whoever gives the order: the first to connect. The others find nobody.
pub(crate) fn wait(listener: &OwnedFd) -> Result<OwnedFd> {
    loop {
        match accept_with(listener, SocketFlags::CLOEXEC) {
            Err(Errno::INTR | Errno::CONNABORTED) => {}
            other => return other.explain(|| "wait for the order to start".into()),
        }
    }
}

fn socket() -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .explain(|| "make a socket".into())
}

/// Addresses are short (unix(7)), paths are not: the name is given below an open directory.
pub(crate) fn address(path: &Path) -> Result<(OwnedFd, SocketAddrUnix)> {
    let wrong = || Fault::input(format!("{} is no path for a socket", path.display()));
    let (directory, name) = path.parent().zip(path.file_name()).ok_or_else(wrong)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory =
        openat(CWD, directory, flags, Mode::empty()).explain(|| format!("open {}", directory.display()))?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    let address = SocketAddrUnix::new(short).map_err(|_| wrong())?;
    Ok((directory, address))
}
