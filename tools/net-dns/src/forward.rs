//! Questions that others answer. Each goes out under a random number from a socket of its own, so that its port is random too and
//! the kernel lets in nothing from another address (RFC 5452).

use crate::framed::Framed;
use crate::message;
use crate::table::{Key, Table};
use fault::{Explain, Result};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Questions under way at once; docker's limit.
const MOST: usize = 1024;

/// Of these one container's, so that the others have their share.
const MOST_OF_ONE: u32 = 256;

/// Those over TCP, whose answers may be 64 KiB long.
const MOST_TCP: usize = 128;

/// How often a question is sent, and how long each time is waited: the C library gives up after five seconds.
const TRIES: usize = 4;
const PATIENCE: Duration = Duration::from_millis(1200);
const TCP_TRIES: usize = 2;
const TCP_PATIENCE: Duration = Duration::from_millis(2400);

/// Answers looked at in one go; what is false among them is no reason to keep everybody waiting.
const BATCH: usize = 16;

/// Who wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asker {
    /// The socket the question came to, and where from.
    Udp {
        listener: usize,
        from: SocketAddr,
    },
    Tcp {
        connection: Key,
        from: SocketAddr,
    },
}

/// The end of a question.
#[derive(Debug)]
pub struct Outcome {
    pub asker: Asker,
    /// With the asker's number.
    pub query: Vec<u8>,
    /// With the asker's number; `None` when nobody answered.
    pub reply: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Pending {
    asker: Asker,
    query: Vec<u8>,
    question_end: usize,
    /// The number under which it went out.
    id: u16,
    servers: Vec<SocketAddr>,
    /// How often it was sent.
    tries: usize,
    wire: Option<Wire>,
    deadline: Instant,
    /// What a server said that could not answer.
    failure: Option<Vec<u8>>,
}

#[derive(Debug)]
enum Wire {
    Udp(OwnedFd),
    Tcp(Framed),
}

pub struct Forwarder {
    epoll: Rc<OwnedFd>,
    /// Added to a key: what the loop knows these sockets by.
    mark: u64,
    pending: Table<Pending>,
    over_tcp: usize,
    of_each: HashMap<IpAddr, u32>,
    /// Questions asked over UDP, to know one that is asked again.
    asked: HashMap<(SocketAddr, u16), Key>,
    /// No deadline is before this.
    next_deadline: Option<Instant>,
    packet: Vec<u8>,
}

impl Asker {
    fn address(&self) -> SocketAddr {
        match self {
            Asker::Udp { from, .. } | Asker::Tcp { from, .. } => *from,
        }
    }
}

impl Forwarder {
    pub fn new(epoll: Rc<OwnedFd>, mark: u64) -> Forwarder {
        Forwarder {
            epoll,
            mark,
            pending: Table::new(MOST),
            over_tcp: 0,
            of_each: HashMap::new(),
            asked: HashMap::new(),
            next_deadline: None,
            packet: vec![0; 1 << 16],
        }
    }

    /// Asks. What becomes of it is told now, by [`Forwarder::ready`] or by [`Forwarder::expire`]. `false` when there is too much to do.
    pub fn ask(
        &mut self,
        asker: Asker,
        query: &[u8],
        question_end: usize,
        servers: Vec<SocketAddr>,
        outcomes: &mut Vec<Outcome>,
    ) -> bool {
        let client = asker.address();
        let again = matches!(asker, Asker::Udp { .. }).then_some((client, message::id(query)));
        if let Some(key) = again.and_then(|again| self.asked.get(&again).copied())
            && self.pending.get_mut(key).is_some_and(|pending| pending.query == query)
        {
            // Asked again while it is under way: one answer is enough.
            return true;
        }
        let of_one = self.of_each.get(&client.ip()).copied().unwrap_or_default();
        let tcp = matches!(asker, Asker::Tcp { .. });
        if of_one >= MOST_OF_ONE || tcp && self.over_tcp >= MOST_TCP {
            return false;
        }
        let key = self.pending.insert(|_| Pending {
            asker,
            query: query.to_vec(),
            question_end,
            id: 0,
            servers,
            tries: 0,
            wire: None,
            deadline: Instant::now(),
            failure: None,
        });
        let Some(key) = key else { return false };
        *self.of_each.entry(client.ip()).or_default() += 1;
        self.over_tcp += usize::from(tcp);
        if let Some(again) = again {
            self.asked.insert(again, key);
        }
        outcomes.extend(self.send(key));
        true
    }

    /// Sends it to the next server that can be sent to.
    fn send(&mut self, key: Key) -> Option<Outcome> {
        loop {
            let pending = self.pending.get_mut(key)?;
            let tcp = matches!(pending.asker, Asker::Tcp { .. });
            let server = pending.servers.get(pending.tries % pending.servers.len().max(1)).copied();
            let most = if tcp { TCP_TRIES } else { TRIES }.max(pending.servers.len());
            let Some(server) = server.filter(|_| pending.tries < most) else { return self.finish(key, None) };
            let alone = pending.servers.len() == 1;
            pending.tries += 1;
            pending.deadline = Instant::now() + if tcp { TCP_PATIENCE } else { PATIENCE };
            self.next_deadline =
                Some(self.next_deadline.map_or(pending.deadline, |at| at.min(pending.deadline)));
            let data = EventData::new_u64(self.mark | key.to_bits());
            let sent = match &pending.wire {
                // By the same socket: the answer to what was sent first may be on its way.
                Some(Wire::Udp(socket)) if alone => resend(pending, socket),
                _ => pending.open(server, tcp).and_then(|()| {
                    let (socket, flags) = match &pending.wire {
                        Some(Wire::Udp(socket)) => (socket.as_fd(), EventFlags::IN),
                        Some(Wire::Tcp(framed)) => (framed.as_fd(), EventFlags::IN | EventFlags::OUT),
                        None => return Ok(()),
                    };
                    epoll::add(&*self.epoll, socket, data, flags)
                }),
            };
            if sent.is_ok() {
                return None;
            }
        }
    }

    /// Something came on one of the sockets, or can be sent.
    pub fn ready(&mut self, key: Key, outcomes: &mut Vec<Outcome>) {
        let Some(pending) = self.pending.get_mut(key) else { return };
        let came = match &mut pending.wire {
            Some(Wire::Udp(socket)) => {
                let mut came = Came::Nothing;
                for _ in 0..BATCH {
                    match rustix::net::recv(&*socket, &mut *self.packet, RecvFlags::DONTWAIT) {
                        Ok((count, _)) => {
                            let packet = self.packet.get(..count).unwrap_or_default();
                            if message::answers(packet, &pending.query, pending.question_end, pending.id) {
                                came = Came::Answer(packet.to_vec());
                                break;
                            }
                        }
                        Err(Errno::INTR) => {}
                        Err(Errno::AGAIN) => break,
                        // Nobody listens there.
                        Err(_) => {
                            came = Came::End;
                            break;
                        }
                    }
                }
                came
            }
            Some(Wire::Tcp(framed)) => {
                let moved = framed.flush().and_then(|()| framed.fill()).and_then(|()| framed.next());
                let unsent = framed.unsent() > 0;
                match moved {
                    Ok(Some(packet))
                        if message::answers(&packet, &pending.query, pending.question_end, pending.id) =>
                    {
                        Came::Answer(packet)
                    }
                    Ok(None) if !framed.ended => {
                        if !unsent {
                            let data = EventData::new_u64(self.mark | key.to_bits());
                            let _ = epoll::modify(&*self.epoll, framed.as_fd(), data, EventFlags::IN);
                        }
                        Came::Nothing
                    }
                    _ => Came::End,
                }
            }
            None => Came::Nothing,
        };
        outcomes.extend(match came {
            Came::Nothing => None,
            Came::Answer(answer) if !message::is_failure(&answer) => self.finish(key, Some(answer)),
            Came::Answer(answer) => {
                pending.failure = Some(answer);
                self.next_server(key)
            }
            Came::End => self.next_server(key),
        });
    }

    /// A server has said that it cannot: those that were not asked yet may.
    fn next_server(&mut self, key: Key) -> Option<Outcome> {
        let pending = self.pending.get_mut(key)?;
        if pending.tries >= pending.servers.len() {
            return self.finish(key, None);
        }
        self.send(key)
    }

    /// When [`Forwarder::expire`] wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        self.next_deadline
    }

    /// Sends again what was not answered in time, or gives up.
    pub fn expire(&mut self, now: Instant, outcomes: &mut Vec<Outcome>) {
        if self.next_deadline.is_none_or(|at| at > now) {
            return;
        }
        let late: Vec<Key> =
            self.pending.iter().filter(|(_, pending)| pending.deadline <= now).map(|(key, _)| key).collect();
        self.next_deadline = None;
        for key in late {
            outcomes.extend(self.send(key));
        }
        self.next_deadline = self.pending.iter().map(|(_, pending)| pending.deadline).min();
    }

    /// Nobody waits for these any more.
    pub fn forget(&mut self, connection: Key) {
        let theirs = |pending: &Pending| matches!(pending.asker, Asker::Tcp { connection: other, .. } if other == connection);
        let keys: Vec<Key> =
            self.pending.iter().filter(|(_, pending)| theirs(pending)).map(|(key, _)| key).collect();
        for key in keys {
            let _ = self.finish(key, None);
        }
    }

    fn finish(&mut self, key: Key, answer: Option<Vec<u8>>) -> Option<Outcome> {
        let pending = self.pending.remove(key)?;
        let client = pending.asker.address();
        if let Some(count) = self.of_each.get_mut(&client.ip()) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.of_each.remove(&client.ip());
            }
        }
        let id = message::id(&pending.query);
        match pending.asker {
            Asker::Tcp { .. } => self.over_tcp = self.over_tcp.saturating_sub(1),
            Asker::Udp { .. } => {
                if self.asked.get(&(client, id)) == Some(&key) {
                    self.asked.remove(&(client, id));
                }
            }
        }
        let mut reply = answer.or(pending.failure);
        if let Some(reply) = &mut reply {
            message::set_id(reply, id);
        }
        Some(Outcome { asker: pending.asker, query: pending.query, reply })
    }
}

enum Came {
    Nothing,
    Answer(Vec<u8>),
    /// Nothing will.
    End,
}

impl Pending {
    /// A socket to this server, and the question on its way.
    fn open(&mut self, server: SocketAddr, tcp: bool) -> rustix::io::Result<()> {
        self.wire = None;
        self.id = random_id()?;
        let family = if server.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let kind = if tcp { SocketType::STREAM } else { SocketType::DGRAM };
        let socket =
            rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        match rustix::net::connect(&socket, &server) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let mut packet = self.query.clone();
        message::set_id(&mut packet, self.id);
        if tcp {
            let mut framed = Framed::new(socket, u16::MAX.into());
            framed.push(&packet);
            self.wire = Some(Wire::Tcp(framed));
        } else {
            rustix::net::send(&socket, &packet, SendFlags::NOSIGNAL)?;
            self.wire = Some(Wire::Udp(socket));
        }
        Ok(())
    }
}

fn resend(pending: &Pending, socket: &OwnedFd) -> rustix::io::Result<()> {
    let mut packet = pending.query.clone();
    message::set_id(&mut packet, pending.id);
    match rustix::net::send(socket, &packet, SendFlags::NOSIGNAL) {
        Ok(_) => Ok(()),
        Err(error) => Err(error),
    }
}

fn random_id() -> rustix::io::Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(bytes))
}

/// Room for the sockets of all questions and connections, as far as the limit can be raised.
pub fn raise_limit() -> Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const ENOUGH: u64 = 2048;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < ENOUGH) {
        let current = Some(limit.maximum.map_or(ENOUGH, |most| most.min(ENOUGH)));
        setrlimit(Resource::Nofile, Rlimit { current, ..limit })
            .explain(|| "raise the limit of open files".into())?;
    }
    Ok(())
}
