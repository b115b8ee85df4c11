//! Sockets an engine listens on for a terminal or a pid descriptor, and the terminal this program was started at.

use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Somebody who waits for a descriptor.
#[derive(Debug)]
pub struct Receiver(OwnedFd);

impl Receiver {
    pub fn connect(path: &Path) -> Result<Receiver> {
        let what = || format!("dial unix {}", path.display());
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .explain(|| "make a socket".into())?;
        match SocketAddrUnix::new(path) {
            Ok(address) => connect(&socket, &address).explain(what)?,
            // Longer than an address may be (unix(7)).
            Err(Errno::NAMETOOLONG) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = openat(CWD, path, flags, Mode::empty()).explain(what)?;
                let short = format!("/proc/self/fd/{}", file.as_raw_fd());
                let address = SocketAddrUnix::new(short).explain(what)?;
                connect(&socket, &address).explain(what)?;
            }
            Err(error) => return Err(std::io::Error::from(error)).explain(what),
        }
        Ok(Receiver(socket))
    }

    /// The name goes along as the data there has to be.
    pub fn send(&self, fd: impl AsFd, name: &str) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [fd.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        loop {
            match sendmsg(&self.0, &[IoSlice::new(name.as_bytes())], &mut ancillary, SendFlags::NOSIGNAL) {
                Err(Errno::INTR) => {}
                other => return other.map(drop).explain(|| format!("send {name} to who waits for it")),
            }
        }
    }
}

/// The terminal this program was started at.
#[derive(Debug)]
pub struct HostTerminal(OwnedFd);

impl HostTerminal {
    /// That of a standard stream, whichever is one, or the controlling one.
    pub fn open() -> Result<HostTerminal> {
        for stream in [rustix::stdio::stderr(), rustix::stdio::stdout(), rustix::stdio::stdin()] {
            if isatty(stream) {
                return stream
                    .try_clone_to_owned()
                    .map(HostTerminal)
                    .explain(|| "copy the terminal's descriptor".into());
            }
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let tty = openat(CWD, "/dev/tty", flags, Mode::empty()).explain(|| "open /dev/tty".into());
        tty.map(HostTerminal).map_err(|fault| {
            fault.hint("the process has a terminal, but this program has none; --detach and --console-socket give it away")
        })
    }

    /// Passes its size on; either may be gone.
    pub fn pass_size(&self, to: impl AsFd) {
        if let Ok(size) = tcgetwinsize(&self.0)
            && size.ws_row > 0
        {
            let _ = tcsetwinsize(to, size);
        }
    }

    /// Rows and columns, if it has any.
    pub fn size(&self) -> Option<(u16, u16)> {
        tcgetwinsize(&self.0).ok().filter(|size| size.ws_row > 0).map(|size| (size.ws_row, size.ws_col))
    }

    pub fn make_raw(&self) -> Result<Raw<'_>> {
        let before = tcgetattr(&self.0).explain(|| "read the terminal's settings".into())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&self.0, OptionalActions::Now, &raw)
            .explain(|| "failed to set the terminal from the stdin".into())?;
        Ok(Raw { fd: self.0.as_fd(), before })
    }
}

/// A terminal in raw mode; as it was when dropped.
#[derive(Debug)]
pub struct Raw<'a> {
    fd: BorrowedFd<'a>,
    before: Termios,
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        let _ = tcsetattr(self.fd, OptionalActions::Now, &self.before);
    }
}

/// Whether the terminal and the options that are about it go together.
pub fn check(terminal: bool, detach: bool, socket: Option<&Path>, program: &str) -> Result<()> {
    if detach && terminal && socket.is_none() {
        return Err(Fault::usage(format!(
            "cannot allocate tty if {program} will detach without setting console socket"
        )));
    }
    if socket.is_some() && !(detach && terminal) {
        return Err(Fault::usage(format!(
            "cannot use console socket if {program} will not detach or allocate tty"
        )));
    }
    Ok(())
}
