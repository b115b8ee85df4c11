//! Messages over TCP, each with its length in front (RFC 1035, section 4.2.2; RFC 7766), on sockets that never wait.

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes read at once.
const CHUNK: usize = 4096;

#[derive(Debug)]
pub struct Framed {
    socket: OwnedFd,
    /// Longest message that is taken.
    longest: usize,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that are gone.
    written: usize,
    /// The other side has no more to say.
    pub ended: bool,
}

impl Framed {
    pub fn new(socket: OwnedFd, longest: usize) -> Framed {
        Framed { socket, longest, input: Vec::new(), output: Vec::new(), written: 0, ended: false }
    }

    /// Takes what has come, up to one message and a bit. Fails when the connection is broken.
    pub fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        while !self.ended && self.input.len() < self.longest + 2 {
            match rustix::net::recv(&self.socket, &mut chunk, RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.ended = true,
                Ok((count, _)) => self.input.extend_from_slice(chunk.get(..count).unwrap_or_default()),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next message that is here whole. Fails on one that is too long.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(length) = self.input.get(..2) else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([length[0], length[1]]));
        if length > self.longest {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let Some(message) = self.input.get(2..2 + length) else { return Ok(None) };
        let message = message.to_vec();
        self.input.drain(..2 + length);
        Ok(Some(message))
    }

    /// Puts a message at the end of what is to be sent.
    pub fn push(&mut self, message: &[u8]) {
        // Longer ones than there can be are cut by nobody: a message is never longer than its length can say.
        let Ok(length) = u16::try_from(message.len()) else { return };
        self.output.extend(length.to_be_bytes());
        self.output.extend_from_slice(message);
    }

    /// Sends what can be sent now.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.output.get(self.written..).filter(|rest| !rest.is_empty()) {
            match rustix::net::send(&self.socket, rest, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => self.written += count,
                // Not connected yet, for the latter.
                Err(Errno::AGAIN | Errno::NOTCONN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Bytes that wait for the other side.
    pub fn unsent(&self) -> usize {
        self.output.len() - self.written
    }
}

impl AsFd for Framed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    #[test]
    fn messages_are_put_together_and_taken_apart() {
        let (mut other, ours) = UnixStream::pair().unwrap();
        let mut framed = Framed::new(ours.into(), 10);
        other.write_all(&[0, 3, b'a', b'b']).unwrap();
        framed.fill().unwrap();
        assert_eq!(framed.next().unwrap(), None);
        other.write_all(&[b'c', 0, 0, 0, 1, b'd']).unwrap();
        framed.fill().unwrap();
        let mut next = || framed.next().unwrap().map(|message| String::from_utf8(message).unwrap());
        assert_eq!(
            [next(), next(), next(), next()],
            [Some("abc".into()), Some(String::new()), Some("d".into()), None]
        );
        framed.push(b"xyz");
        framed.flush().unwrap();
        assert_eq!(framed.unsent(), 0);
        let mut got = [0; 5];
        other.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"\0\x03xyz");
        other.write_all(&[0, 11]).unwrap();
        drop(other);
        framed.fill().unwrap();
        assert!(framed.ended && framed.next().is_err());
    }
}
