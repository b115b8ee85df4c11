//! What the two ends of a pipe can tell each other without a byte in it: a lock on a byte of the pipe, which is never read
//! or written there. It is gone with the end that holds it.

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};

/// What the reader of a pipe says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// It unpacks the layers of the images it is told of, into the store.
    Unpacks,
}

impl Reader {
    /// Which byte: numbers nobody comes upon by chance.
    const fn byte(self) -> i64 {
        match self {
            Reader::Unpacks => 0x7374_6176_6573,
        }
    }
}

/// Tells the writers of the pipe `end` reads from. Nothing if it is no pipe.
///
/// # Errors
/// When the kernel keeps no locks for pipes, or no more of them; the writers then know nothing.
pub fn announce(end: impl AsFd, reader: Reader) -> io::Result<()> {
    if !is_pipe(&end) {
        return Ok(());
    }
    lock(end, libc::F_OFD_SETLK, libc::F_RDLCK, reader).map(drop)
}

/// Whether a reader of the pipe `end` writes to has said so of itself ([`announce`]).
pub fn is_announced(end: impl AsFd, reader: Reader) -> bool {
    is_pipe(&end)
        && lock(end, libc::F_OFD_GETLK, libc::F_WRLCK, reader)
            .is_ok_and(|found| i32::from(found.l_type) == libc::F_RDLCK)
}

fn is_pipe(end: &impl AsFd) -> bool {
    rustix::fs::fstat(end).is_ok_and(|status| status.st_mode & libc::S_IFMT == libc::S_IFIFO)
}

/// An open file description's lock (Linux 3.15, fcntl_locking(2)).
fn lock(end: impl AsFd, command: i32, kind: i32, reader: Reader) -> io::Result<libc::flock> {
    // SAFETY: all zeroes is a valid `flock`.
    let mut lock: libc::flock = unsafe { mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = reader.byte();
    lock.l_len = 1;
    // SAFETY: the descriptor is open; these commands read and write one `flock`, which outlives the call.
    if unsafe { libc::fcntl(end.as_fd().as_raw_fd(), command, &raw mut lock) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_as_long_as_the_reader() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!is_announced(&writer, Reader::Unpacks));
        announce(&reader, Reader::Unpacks).unwrap();
        assert!(is_announced(&writer, Reader::Unpacks));
        let (_, other) = io::pipe().unwrap();
        assert!(!is_announced(&other, Reader::Unpacks), "another pipe");
        drop(reader);
        assert!(!is_announced(&writer, Reader::Unpacks));
    }

    #[test]
    fn what_is_no_pipe_says_nothing() {
        let file = std::fs::File::open("/dev/null").unwrap();
        announce(&file, Reader::Unpacks).unwrap();
        assert!(!is_announced(&file, Reader::Unpacks));
    }
}
