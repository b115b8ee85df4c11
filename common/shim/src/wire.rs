//! Packets with file descriptors.

use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, recvmsg, sendmsg,
    socket_with,
};
use serde::Serialize;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Longest packet either side accepts, in bytes.
pub const MAX_PACKET: usize = 64 << 10;
/// Most descriptors in one packet.
const MAX_FDS: usize = 4;

/// One packet as received.
#[derive(Debug)]
pub struct Packet {
    pub bytes: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// The address of `shim.sock` in a directory, reached through an open descriptor, because a socket's path may not be
/// longer than 107 bytes (unix(7)). The descriptor must stay open as long as the address is used.
pub fn address_of(run: &Path) -> Result<(OwnedFd, SocketAddrUnix)> {
    let dir = openat(CWD, run, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .explain(|| format!("open {}", run.display()))?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/shim.sock", dir.as_raw_fd()))
        .explain(|| "make a socket address".into())?;
    Ok((dir, address))
}

/// A listening socket in a container's run directory.
pub fn listen(run: &Path) -> Result<OwnedFd> {
    // What a killed shim left.
    let _ = std::fs::remove_file(run.join("shim.sock"));
    let (_dir, address) = address_of(run)?;
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .explain(|| "make a socket".into())?;
    bind(&socket, &address).explain(|| format!("bind {}/shim.sock", run.display()))?;
    rustix::net::listen(&socket, 64).explain(|| format!("listen on {}/shim.sock", run.display()))?;
    Ok(socket)
}

/// Sends one packet. A peer that has gone away gives a retryable failure, never a signal.
pub fn send(socket: impl AsFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let bytes = serde_json::to_vec(message).explain(|| "write a packet".into())?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Fault::failed("too many descriptors for one packet"));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&bytes)], &mut ancillary, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => {
                return Err(
                    Fault::retryable("talk to the container's shim").because(std::io::Error::from(error))
                );
            }
        }
    }
}

/// Receives one packet; `None` when the peer has closed.
pub fn receive(socket: impl AsFd) -> rustix::io::Result<Option<Packet>> {
    let mut bytes = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        match recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes == 0 {
        return Ok(None);
    }
    bytes.truncate(received.bytes);
    let fds = ancillary
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect();
    Ok(Some(Packet { bytes, fds }))
}
