//! A service in a container telling systemd that it is ready (sd_notify(3)): `$NOTIFY_SOCKET` of the caller becomes one of the
//! container, and what comes there is passed on with the number the process has outside.

use crate::log::Log;
use crate::place::Place;
use fault::{Explain, Fault, Result};
use oci_spec::runtime::MountBuilder;
use runtime::Spec;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, chmodat, mkdirat, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, connect, recv, sendmsg, socket_with,
};
use rustix::pipe::{PipeFlags, pipe_with};
use std::ffi::OsString;
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

/// Below the container's state, and where it shows inside.
const DIRECTORY: &str = "notify";
const SOCKET: &str = "notify.sock";
const INSIDE: &str = "/run/notify";

/// How long systemd may take to acknowledge.
const PATIENCE: Timespec = Timespec { tv_sec: 30, tv_nsec: 0 };

/// Whom to tell.
#[derive(Debug)]
pub struct Notify {
    host: OsString,
}

impl Notify {
    pub fn from_env() -> Option<Notify> {
        let host = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty())?;
        Some(Notify { host })
    }

    /// Shows the container a directory for the socket, and tells it where that is. The mount is read-only: sockets can be
    /// written to all the same.
    pub fn show(spec: &mut Spec, place: &Place) -> Result<()> {
        let what = || "make a directory for the notification socket".to_owned();
        let directory = place.path.join(DIRECTORY);
        mkdirat(CWD, &directory, Mode::RWXU).explain(what)?;
        // Whatever the umask: the container's user looks into it.
        chmodat(CWD, &directory, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty()).explain(what)?;
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned);
        let mount =
            MountBuilder::default().destination(INSIDE).source(directory).options(options).typ("bind");
        spec.mounts.push(mount.build().explain(what)?);
        if let Some(process) = &mut spec.process {
            process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
        }
        Ok(())
    }

    /// Before the container's process may use it. `None` where the container was made without.
    pub fn listen(self, place: &Place) -> Result<Option<Listener>> {
        let directory = place.path.join(DIRECTORY);
        let what = || format!("listen on {}", directory.join(SOCKET).display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory_fd = match openat(CWD, &directory, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(std::io::Error::from(error)).explain(what),
        };
        let socket = datagram_socket()?;
        // Addresses are short (unix(7)), paths are not.
        let path = format!("/proc/self/fd/{}/{SOCKET}", directory_fd.as_raw_fd());
        let address = SocketAddrUnix::new(path.as_str()).explain(what)?;
        bind(&socket, &address).explain(what)?;
        chmodat(&directory_fd, SOCKET, Mode::from_raw_mode(0o777), rustix::fs::AtFlags::empty())
            .explain(what)?;
        Ok(Some(Listener { socket, notify: self }))
    }

    fn connect(&self) -> Result<OwnedFd> {
        let what = || format!("connect to {}", self.host.display());
        let socket = datagram_socket()?;
        let address = match self.host.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddrUnix::new_abstract_name(name),
            None => SocketAddrUnix::new(self.host.as_os_str()),
        };
        connect(&socket, &address.explain(what)?).explain(what)?;
        Ok(socket)
    }
}

fn datagram_socket() -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .explain(|| "make a socket".into())
}

#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    notify: Notify,
}

impl Listener {
    /// Waits until the container says that it is ready, or ends, and passes it on. Failures are warnings: the container runs.
    pub fn pass_on(&self, pid: i32, pidfd: &OwnedFd, log: &Log) {
        let passed = self.wait(pidfd).and_then(|ready| match ready {
            Some(line) => self.tell(&line, pid),
            None => Ok(()),
        });
        if let Err(fault) = passed {
            log.warn_of(&fault.within("sd_notify"));
        }
    }

    /// The line that says so.
    fn wait(&self, pidfd: &OwnedFd) -> Result<Option<Vec<u8>>> {
        let mut buffer = [0; 4096];
        loop {
            let mut fds = [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(pidfd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error)).explain(|| "wait".into()),
            }
            if !fds[0].revents().is_empty() {
                let (count, _) =
                    recv(&self.socket, &mut buffer, RecvFlags::DONTWAIT).explain(|| "receive".into())?;
                let line =
                    buffer[..count].split(|byte| *byte == b'\n').find(|line| line.starts_with(b"READY="));
                if let Some(line) = line {
                    return Ok(Some(line.to_vec()));
                }
            } else if !fds[1].revents().is_empty() {
                return Ok(None);
            }
        }
    }

    fn tell(&self, ready: &[u8], pid: i32) -> Result<()> {
        let socket = self.notify.connect()?;
        send(&socket, &[ready, b"\n"].concat(), None)?;
        send(&socket, format!("MAINPID={pid}\n").as_bytes(), None)?;
        // Closed by systemd when it has read what came before (sd_notify_barrier(3)).
        let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).explain(|| "make a pipe".into())?;
        send(&socket, b"BARRIER=1", Some(theirs.as_fd()))?;
        drop(theirs);
        match poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&PATIENCE)) {
            Ok(0) => Err(Fault::new(fault::Kind::Retryable, "no acknowledgement within 30 s")),
            _ => Ok(()),
        }
    }
}

fn send(socket: &OwnedFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    }
    sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)
        .map(drop)
        .explain(|| "send".into())
}
