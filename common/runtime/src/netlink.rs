//! As much of rtnetlink(7) as moving an interface takes. The crates for it bring an async runtime or a parser for every
//! attribute there is, into programs whose start is what counts.

use rustix::io::{Errno, Result};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use std::os::fd::OwnedFd;

pub const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
/// A dump that saw a change meanwhile.
const NLM_F_DUMP_INTR: u16 = 0x10;
pub const NLM_F_DUMP: u16 = 0x300;
pub const NLM_F_CREATE: u16 = 0x400;
pub const NLM_F_EXCL: u16 = 0x200;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const HEADER_BYTES: usize = 16;
const ATTRIBUTE_HEADER_BYTES: usize = 4;
/// The kernel fills no more for one datagram of a dump than 32 KiB.
const BUFFER_BYTES: usize = 64 << 10;

/// A socket of the network namespace this thread was in when it was opened.
pub struct Socket(OwnedFd);

/// A request under construction.
pub struct Request {
    bytes: Vec<u8>,
}

/// One message of an answer, without its header.
#[derive(Debug, PartialEq, Eq)]
pub struct Reply {
    pub kind: u16,
    pub body: Vec<u8>,
}

impl Request {
    /// `fixed` is the structure every message of its kind begins with (`struct ifinfomsg`, `struct ifaddrmsg`).
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Request {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_ACK | flags).to_ne_bytes());
        bytes.extend_from_slice(fixed);
        Request { bytes }
    }

    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Request {
        self.bytes.resize(aligned(self.bytes.len()), 0);
        let length = (ATTRIBUTE_HEADER_BYTES + value.len()) as u16;
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes.resize(aligned(self.bytes.len()), 0);
        let length = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

impl Socket {
    pub fn open() -> Result<Socket> {
        // Protocol 0 of the family is NETLINK_ROUTE.
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None).map(Socket)
    }

    /// Sends a request and waits for all of the answer. The kernel's refusal is the error.
    pub fn ask(&self, request: Request) -> Result<Vec<Reply>> {
        let bytes = request.finish();
        loop {
            send(&self.0, &bytes, SendFlags::empty())?;
            // A dump that may lack something is asked for again.
            if let Some(replies) = self.answer()? {
                return Ok(replies);
            }
        }
    }

    fn answer(&self) -> Result<Option<Vec<Reply>>> {
        let mut replies = Vec::new();
        let mut whole = true;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let (length, sent) = match recv(&self.0, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if sent > buffer.len() {
                return Err(Errno::MSGSIZE);
            }
            let mut rest = &buffer[..length];
            while let Some((header, body, next)) = message(rest) {
                rest = next;
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.kind {
                    NLMSG_ERROR => {
                        // Zero is the acknowledgement.
                        return match i32_at(body, 0).ok_or(Errno::BADMSG)? {
                            0 => Ok(Some(replies)),
                            error => Err(Errno::from_raw_os_error(error.saturating_neg())),
                        };
                    }
                    NLMSG_DONE => return Ok(whole.then_some(replies)),
                    kind => replies.push(Reply { kind, body: body.to_vec() }),
                }
            }
        }
    }
}

struct Header {
    kind: u16,
    flags: u16,
}

/// The first message, and what comes after it.
fn message(bytes: &[u8]) -> Option<(Header, &[u8], &[u8])> {
    let length = u32_at(bytes, 0)? as usize;
    let header = Header { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)? };
    let body = bytes.get(HEADER_BYTES..length)?;
    Some((header, body, bytes.get(aligned(length)..).unwrap_or_default()))
}

/// The attributes after the structure of `fixed` bytes.
pub fn attributes(body: &[u8], fixed: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = body.get(aligned(fixed)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(rest, 0)?);
        let kind = u16_at(rest, 2)?;
        let value = rest.get(ATTRIBUTE_HEADER_BYTES..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

pub fn i32_at(bytes: &[u8], at: usize) -> Option<i32> {
    u32_at(bytes, at).map(u32::cast_signed)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bytes =
            Request::new(20, NLM_F_CREATE, &[1; 8]).attribute(3, b"eth0\0").attribute(9, b"").finish();
        let (header, body, rest) = message(&bytes).unwrap();
        assert_eq!((header.kind, header.flags), (20, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE));
        assert!(rest.is_empty());
        let found: Vec<_> = attributes(body, 8).collect();
        assert_eq!(found, [(3, &b"eth0\0"[..]), (9, &b""[..])]);
    }

    #[test]
    fn broken_lengths_end_the_reading() {
        for bytes in [&[][..], &[0; 15], &[0xff; 32], &[3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert!(message(bytes).is_none());
        }
        for bytes in [&[3, 0, 1, 0][..], &[0, 0, 0, 0], &[9, 0, 1, 0, 7]] {
            assert_eq!(attributes(bytes, 0).count(), 0);
        }
    }
}
