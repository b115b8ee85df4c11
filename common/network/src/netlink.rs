//! Netlink sockets and messages (netlink(7)).
//!
//! Requests go out several to a packet and are answered before `send` returns, so neither an async runtime nor a
//! wait is needed: the kernel is a function call away.

use fault::{Explain, Result};
use rtnetlink::sys::Socket as RawSocket;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// Of the type of an attribute: it holds attributes.
const NESTED: u16 = 0x8000;

pub const REQUEST: u16 = 0x1;
pub const ACK: u16 = 0x4;
pub const DUMP: u16 = 0x300;
pub const REPLACE: u16 = 0x100;
pub const EXCL: u16 = 0x200;
pub const CREATE: u16 = 0x400;

/// A socket bound to the network namespace it was opened in, whichever the process enters later.
pub struct Socket(RawSocket);

/// One message from the kernel: its type and what follows the header.
pub struct Reply {
    pub kind: u16,
    pub sequence: u32,
    pub body: Vec<u8>,
}

impl Socket {
    pub fn route() -> Result<Socket> {
        Socket::open(rtnetlink::sys::protocols::NETLINK_ROUTE)
    }

    pub fn netfilter() -> Result<Socket> {
        Socket::open(rtnetlink::sys::protocols::NETLINK_NETFILTER)
    }

    fn open(protocol: isize) -> Result<Socket> {
        let socket = RawSocket::new(protocol).explain(|| "open a netlink socket".into())?;
        // An answer that does not come is an error, not a reason to wait.
        socket.set_non_blocking(true).explain(|| "open a netlink socket".into())?;
        Ok(Socket(socket))
    }

    /// Sends requests in one packet. Fails with the error of the first that failed and was not optional; later ones may have
    /// been carried out all the same.
    pub fn request(&self, messages: &Messages) -> io::Result<()> {
        self.send(messages)?;
        let replies = self.replies()?.into_iter();
        let failed = replies
            .filter(|reply| !messages.optional.contains(&reply.sequence))
            .filter_map(|reply| Some((reply.sequence, reply.error()?)));
        failed.min_by_key(|(sequence, _)| *sequence).map_or(Ok(()), |(_, error)| Err(error))
    }

    /// The messages a question is answered with, acknowledgements left out.
    pub fn ask(&self, messages: &Messages) -> io::Result<Vec<Reply>> {
        self.send(messages)?;
        let mut answers = Vec::new();
        for reply in self.replies()? {
            match (reply.kind, reply.error()) {
                (_, Some(error)) => return Err(error),
                (NLMSG_ERROR | NLMSG_DONE, None) => {}
                _ => answers.push(reply),
            }
        }
        Ok(answers)
    }

    fn send(&self, messages: &Messages) -> io::Result<()> {
        let sent = self.0.send(&messages.bytes, 0)?;
        if sent == messages.bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// All that is waiting; a dump is continued by each read.
    fn replies(&self) -> io::Result<Vec<Reply>> {
        let mut replies = Vec::new();
        let mut buffer = vec![0u8; 32 << 10];
        loop {
            let mut free = buffer.as_mut_slice();
            match self.0.recv(&mut free, 0) {
                Ok(length) => split(buffer.get(..length).unwrap_or_default(), &mut replies),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(replies),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Reply {
    /// The failure this tells of; an acknowledgement tells of none.
    fn error(&self) -> Option<io::Error> {
        if !matches!(self.kind, NLMSG_ERROR | NLMSG_DONE) {
            return None;
        }
        let code = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        (code != 0).then(|| io::Error::from_raw_os_error(code.wrapping_neg()))
    }
}

fn split(mut packet: &[u8], into: &mut Vec<Reply>) {
    while let Some(header) = packet.get(..HEADER) {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(body) = packet.get(HEADER..length) else { return };
        into.push(Reply {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            sequence: u32::from_ne_bytes([header[8], header[9], header[10], header[11]]),
            body: body.to_vec(),
        });
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

/// Requests, numbered from 1.
#[derive(Default)]
pub struct Messages {
    bytes: Vec<u8>,
    count: u32,
    optional: Vec<u32>,
}

impl Messages {
    pub fn new() -> Messages {
        Messages::default()
    }

    /// A message of any protocol: a fixed part and attributes.
    pub fn push(&mut self, kind: u16, flags: u16, fixed: &[u8], attributes: &Attributes) -> &mut Messages {
        self.count += 1;
        let length = (HEADER + fixed.len() + attributes.0.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(fixed);
        self.bytes.extend(&attributes.0);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    /// What was pushed last may fail.
    pub fn optional(&mut self) {
        self.optional.push(self.count);
    }

    /// What follows the first message's header.
    #[cfg(test)]
    pub fn body_for_tests(&self) -> Vec<u8> {
        self.bytes.get(HEADER..).unwrap_or_default().to_vec()
    }

    /// A message about links, addresses or routes.
    pub fn push_route(
        &mut self,
        flags: u16,
        message: rtnetlink::packet_route::RouteNetlinkMessage,
    ) -> &mut Messages {
        self.count += 1;
        let mut packet = rtnetlink::packet_core::NetlinkMessage::from(message);
        packet.header.flags = REQUEST | flags;
        packet.header.sequence_number = self.count;
        packet.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + packet.buffer_len(), 0);
        packet.serialize(&mut self.bytes[start..]);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }
}

/// Attributes as the kernel wants them: length, type, value, each at a multiple of four.
#[derive(Clone, Default)]
pub struct Attributes(Vec<u8>);

impl Attributes {
    pub fn new() -> Attributes {
        Attributes::default()
    }

    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Attributes {
        self.0.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// A string with its end.
    #[must_use]
    pub fn with_text(self, kind: u16, text: &str) -> Attributes {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.with(kind, &value)
    }

    #[must_use]
    pub fn with_nested(self, kind: u16, inner: &Attributes) -> Attributes {
        self.with(kind | NESTED, &inner.0)
    }
}

/// The attributes in a piece of a message, as type and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let header = bytes.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & !(NESTED | 0x4000);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a type.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// A string attribute without its end.
pub fn text(value: &[u8]) -> &str {
    std::str::from_utf8(value).unwrap_or_default().trim_end_matches('\0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_went_in() {
        let inner = Attributes::new().with(7, &[1, 2, 3]);
        let all = Attributes::new().with_text(1, "abc").with_nested(2, &inner).with(3, &[9]);
        let list: Vec<_> = attributes(&all.0).collect();
        assert_eq!(list.len(), 3);
        assert_eq!(text(list[0].1), "abc");
        assert_eq!(attribute(attribute(&all.0, 2).unwrap(), 7), Some(&[1u8, 2, 3][..]));
    }

    #[test]
    fn cut_off_replies_are_no_replies() {
        let mut messages = Messages::new();
        messages.push(20, REQUEST, &[0; 8], &Attributes::new().with(1, &[1])).push(
            21,
            0,
            &[],
            &Attributes::new(),
        );
        for length in 0..messages.bytes.len() {
            let mut replies = Vec::new();
            split(&messages.bytes[..length], &mut replies);
            assert!(replies.len() < 2);
            attributes(&messages.bytes[..length]).count();
        }
        let mut replies = Vec::new();
        split(&messages.bytes, &mut replies);
        assert_eq!(replies.iter().map(|r| (r.kind, r.sequence)).collect::<Vec<_>>(), [(20, 1), (21, 2)]);
    }
}
