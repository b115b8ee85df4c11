//! Finding criu, and talking to it: `criu swrk`, which serves one request on a socket it is given.

use super::request::{Feature, Kind, Response, feature_check, notified, plain};
use fault::{Explain, Fault, Result};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags, SocketType,
    recvmsg, send, socketpair,
};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};

/// Older ones do not tell their version.
const LEAST_VERSION: u64 = 30_000;

/// An installed criu.
#[derive(Debug)]
pub struct Criu {
    path: PathBuf,
}

impl Criu {
    /// The first in `$PATH` that only the superuser can have put there: it is given every right this process has.
    pub fn find() -> Result<Criu> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join("criu"))
            .find(|path| is_trusted(path))
            .map(|path| Criu { path })
            .ok_or_else(|| {
                Fault::not_found("criu is not installed")
                    .hint("install criu (apt-get install criu), owned by root, in a directory of $PATH")
            })
    }

    /// 31701 for 3.17.1. Fails if it is too old to be talked to.
    pub fn version(&self) -> Result<u64> {
        let response = self.ask(&plain(Kind::Version))?;
        if response.version < LEAST_VERSION {
            return Err(Fault::failed(format!(
                "criu version {} is too old: 30000 is needed",
                response.version
            ))
            .hint("install criu 3.0 or later"));
        }
        Ok(response.version)
    }

    /// Fails if it, or the kernel, lacks the feature.
    pub fn need(&self, feature: Feature) -> Result<()> {
        if self.ask(&feature_check(feature))?.features.contains(&(feature as u32)) {
            return Ok(());
        }
        let what = match feature {
            Feature::MemoryTracking => "memory tracking, which --pre-dump takes",
            Feature::LazyPages => "userfaultfd, which --lazy-pages takes",
        };
        Err(Fault::failed(format!("criu and this kernel have no {what}")))
    }

    fn ask(&self, request: &[u8]) -> Result<Response> {
        let session = Session::start(self, &[])?;
        session.send(request)?;
        let (response, _) = session.receive()?;
        session.end()?;
        if response.success { Ok(response) } else { Err(refused(&response)) }
    }
}

fn is_trusted(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|file| {
        file.is_file() && file.uid() == 0 && file.mode() & 0o022 == 0 && file.mode() & 0o111 != 0
    })
}

/// A criu at work.
#[derive(Debug)]
pub struct Session {
    /// `None` once it was waited for.
    child: Option<Child>,
    socket: OwnedFd,
}

impl Session {
    /// Starts it with this process's standard streams. `passed`: descriptors it gets under the same numbers.
    pub fn start(criu: &Criu, passed: &[BorrowedFd<'_>]) -> Result<Session> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .explain(|| "make a socket pair".into())?;
        let mut command = Command::new(&criu.path);
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        let passed: Vec<BorrowedFd<'_>> = passed.iter().copied().chain([theirs.as_fd()]).collect();
        let mark = |flags| {
            passed
                .iter()
                .try_for_each(|fd| fcntl_setfd(fd, flags))
                .explain(|| "pass descriptors to criu".into())
        };
        mark(FdFlags::empty())?;
        let child = sys::process::spawn_with_default_signals(&mut command)
            .explain(|| format!("start {}", criu.path.display()));
        mark(FdFlags::CLOEXEC)?;
        Ok(Session { child: Some(child?), socket: ours })
    }

    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.id() as i32)
    }

    pub fn send(&self, message: &[u8]) -> Result<()> {
        send(&self.socket, message, SendFlags::NOSIGNAL).map(drop).explain(|| "talk to criu".into())
    }

    /// Says that what the last message told is dealt with.
    pub fn confirm(&self) -> Result<()> {
        self.send(&notified())
    }

    /// The next message, with the descriptor that came along.
    pub fn receive(&self) -> Result<(Response, Option<OwnedFd>)> {
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut slices = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.socket, &mut slices, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error)).explain(|| "listen to criu".into()),
                Ok(received) => break received.bytes,
            }
        };
        if received == 0 {
            return Err(Fault::failed("criu ended without an answer"));
        }
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((Response::decode(&bytes[..received])?, fd))
    }

    /// Waits for its end.
    pub fn end(mut self) -> Result<ExitStatus> {
        // After a pre-dump it would wait for another request.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Write);
        match self.child.take() {
            Some(mut child) => child.wait().explain(|| "wait for criu".into()),
            None => Err(Fault::failed("wait for criu")),
        }
    }
}

impl Drop for Session {
    /// Nobody listens any more: it undoes what it has begun, which is more than can be done from here by killing it.
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
            let _ = child.wait();
        }
    }
}

/// Why criu did not do what it was asked.
pub fn refused(response: &Response) -> Fault {
    let mut what = format!("criu failed: type {} errno {}", kind_name(response.kind), response.error);
    if !response.message.is_empty() {
        what = format!("{what}: {}", response.message);
    }
    Fault::failed(what)
}

/// runc's words for it.
fn kind_name(kind: u64) -> &'static str {
    match kind {
        1 => "DUMP",
        2 => "RESTORE",
        4 => "PRE_DUMP",
        6 => "NOTIFY",
        9 => "FEATURE_CHECK",
        10 => "VERSION",
        _ => "EMPTY",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_others_may_write_is_not_executed() {
        let path = std::env::temp_dir().join(format!("runtime-criu-{}", std::process::id()));
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(!is_trusted(&path));
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(!is_trusted(&path));
        std::fs::remove_file(&path).unwrap();
        assert!(!is_trusted(&path) && !is_trusted(&std::env::temp_dir()));
    }
}
