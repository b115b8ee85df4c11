//! The loop: one thread, one epoll(7).

mod listen;

use crate::connection::Connection;
use crate::forward::{Asker, Forwarder, Outcome};
use crate::message::{self, LONGEST_QUERY, Responder, Transport, Verdict};
use crate::neighbours::Neighbours;
use crate::resolv::{self, HostServers};
use crate::table::{Key, Table};
use crate::watch::Watch;
use crate::zone::Zone;
use fault::{Explain, Result};
use listen::Listener;
use network::Definition;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use store::{Leases, Store};

/// How long it stays without a lease: a restart of the only container is no reason to end.
const GRACE: Duration = Duration::from_secs(2);

/// TCP connections at once, and one container's share of them.
const MOST_CONNECTIONS: usize = 256;
const MOST_OF_ONE: usize = 32;

/// Name servers a question is passed on to, as many as the C library asks (MAXNS).
const MOST_SERVERS: usize = 3;

/// Packets taken from one socket before the others have their turn.
const BATCH: usize = 64;

// What a source of events is, in the upper byte of its number.
const UDP: u64 = 1 << 56;
const TCP: u64 = 2 << 56;
const CONNECTION: u64 = 3 << 56;
const UPSTREAM: u64 = 4 << 56;
const FILES: u64 = 5 << 56;
const LINKS: u64 = 6 << 56;
const KIND: u64 = 0xff << 56;

pub struct Server<'s> {
    store: &'s Store,
    network: Definition,
    leases: Leases,
    epoll: Rc<OwnedFd>,
    watch: Watch,
    listeners: Vec<Listener>,
    connections: Table<Connection>,
    forwarder: Forwarder,
    zone: Zone,
    responder: Responder,
    host: HostServers,
    neighbours: Neighbours,
    /// Since when there is no lease.
    unused: Option<Instant>,
    over: bool,
    packet: Vec<u8>,
    reply: Vec<u8>,
    outcomes: Vec<Outcome>,
}

impl<'s> Server<'s> {
    /// Everything open and bound: from now on questions are kept for it by the kernel.
    pub fn open(store: &'s Store, network: Definition) -> Result<Server<'s>> {
        let leases = store.leases(&network.name)?;
        let dir = store.network_dir(&network.name);
        store.make_dir(&dir.join("leases"))?;
        // Before they are read, so that nothing between the two is missed.
        let watch = Watch::new(&dir, &dir.join("leases"))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC).explain(|| "prepare for events".into())?;
        let listeners =
            network.pools.iter().map(|pool| Listener::bind(pool.gateway)).collect::<Result<Vec<_>>>()?;
        let add = |source: &dyn AsFd, number| {
            epoll::add(&epoll, source.as_fd(), EventData::new_u64(number), EventFlags::IN)
                .explain(|| "prepare for events".into())
        };
        for (index, listener) in (0..).zip(&listeners) {
            add(&listener.udp, UDP | index)?;
            add(&listener.tcp, TCP | index)?;
        }
        add(&watch.files, FILES)?;
        add(&watch.links, LINKS)?;
        let epoll = Rc::new(epoll);
        let mut server = Server {
            store,
            zone: Zone::new(&network),
            leases,
            watch,
            listeners,
            connections: Table::new(MOST_CONNECTIONS),
            forwarder: Forwarder::new(Rc::clone(&epoll), UPSTREAM),
            epoll,
            network,
            responder: Responder::default(),
            host: HostServers::new("/etc/resolv.conf"),
            neighbours: Neighbours::default(),
            unused: None,
            over: false,
            packet: vec![0; LONGEST_QUERY + 1],
            reply: Vec::new(),
            outcomes: Vec::new(),
        };
        server.read_leases();
        Ok(server)
    }

    /// Answers until there is nobody left to answer to, or everything has to be opened anew.
    pub fn run(&mut self) -> Result<()> {
        let mut events: Vec<Event> = Vec::with_capacity(64);
        while !self.over {
            let timeout = self.timeout();
            events.clear();
            match epoll::wait(&*self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error).explain(|| "wait for events".into()),
            }
            // Changes first: a name is asked for as soon as it is there.
            if events.iter().any(|event| event.data.u64() == FILES) {
                self.take_changes();
            }
            for event in &events {
                let number = event.data.u64();
                let index = (number & !KIND) as usize;
                match number & KIND {
                    UDP => self.receive(index),
                    TCP => self.accept(index),
                    CONNECTION => self.serve(Key::from_bits(number)),
                    UPSTREAM => self.forwarder.ready(Key::from_bits(number), &mut self.outcomes),
                    LINKS => {
                        self.watch.forget_links();
                        self.over |= resolv::index_of(&self.network.device).is_none();
                    }
                    _ => {}
                }
            }
            self.expire();
            self.deliver();
        }
        Ok(())
    }

    /// Until the first thing that happens by itself.
    fn timeout(&self) -> Option<Timespec> {
        if !self.outcomes.is_empty() {
            return Some(Timespec::default());
        }
        let idle = self.connections.iter().filter(|(_, connection)| connection.waiting == 0);
        let connections = idle.map(|(_, connection)| connection.deadline).min();
        let end = self.unused.map(|since| since + GRACE);
        let first = [self.forwarder.deadline(), connections, end].into_iter().flatten().min()?;
        // A millisecond more, as the kernel counts in them and it would be too early.
        let left = first.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        Timespec::try_from(left).ok()
    }

    fn expire(&mut self) {
        if self.forwarder.deadline().is_none() && self.connections.len() == 0 && self.unused.is_none() {
            return;
        }
        let now = Instant::now();
        self.forwarder.expire(now, &mut self.outcomes);
        let silent = |connection: &Connection| connection.deadline <= now && connection.waiting == 0;
        let late: Vec<Key> =
            self.connections.iter().filter(|(_, one)| silent(one)).map(|(key, _)| key).collect();
        for key in late {
            self.close(key);
        }
        self.over |= self.unused.is_some_and(|since| now >= since + GRACE);
    }

    fn read_leases(&mut self) {
        self.zone.clear();
        for address in self.leases.addresses().unwrap_or_default() {
            self.read_lease(address);
        }
        self.note_use();
    }

    fn read_lease(&mut self, address: IpAddr) {
        // One that cannot be read has no names.
        let lease = self.leases.read(address).ok().flatten();
        self.zone.set(address, lease.as_ref());
    }

    fn note_use(&mut self) {
        self.unused =
            if self.zone.is_empty() { Some(self.unused.unwrap_or_else(Instant::now)) } else { None };
    }

    /// Whether anything was another than before.
    fn take_changes(&mut self) -> bool {
        let changes = self.watch.changes();
        self.over |= changes.lost;
        if changes.all {
            self.read_leases();
        }
        for address in &changes.addresses {
            self.read_lease(*address);
        }
        if !changes.addresses.is_empty() {
            self.note_use();
        }
        if changes.definition {
            self.read_definition();
        }
        changes.all || changes.definition || !changes.addresses.is_empty()
    }

    fn read_definition(&mut self) {
        match crate::definition(self.store, &self.network.name) {
            Ok(Some(network)) => {
                // Other addresses: everything is opened anew.
                self.over |= network.pools != self.network.pools || network.device != self.network.device;
                self.zone.describe(&network);
                self.network = network;
            }
            Ok(None) => self.over = true,
            // Half of what an editor writes, or a mistake: the network is what it was, as its bridge is.
            Err(_) => {}
        }
    }

    /// Questions over UDP.
    fn receive(&mut self, index: usize) {
        let mut packet = std::mem::take(&mut self.packet);
        for _ in 0..BATCH {
            let Some(listener) = self.listeners.get(index) else { break };
            match listener.udp.recv_from(&mut packet) {
                Ok((length, from)) => {
                    let query = packet.get(..length).unwrap_or_default();
                    self.question(query, Asker::Udp { listener: index, from }, from);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                // An earlier answer met nobody (ICMP).
                Err(_) => {}
            }
        }
        self.packet = packet;
    }

    /// Who is on the network, and the host. What that sends to itself bears its address on the network, or another of its own
    /// where the firewall masquerades; nobody else's packets do, as the kernel drops those (accept_local in ip-sysctl).
    fn serves(&self, from: IpAddr) -> bool {
        self.zone.contains(from) || listen::is_local(from)
    }

    fn question(&mut self, query: &[u8], asker: Asker, from: SocketAddr) {
        // Only who is on the network, and the host.
        if !self.serves(from.ip()) {
            return;
        }
        let transport = if matches!(asker, Asker::Udp { .. }) { Transport::Udp } else { Transport::Tcp };
        let mut reply = std::mem::take(&mut self.reply);
        let mut verdict = self.responder.respond(&self.zone, query, transport, &mut reply);
        // A name nobody has may have come a moment ago.
        let unknown = match verdict {
            Verdict::Forward { .. } => true,
            Verdict::Reply => message::is_unknown(&reply),
            Verdict::Drop => false,
        };
        if unknown && self.take_changes() {
            verdict = self.responder.respond(&self.zone, query, transport, &mut reply);
        }
        if let Verdict::Forward { question_end } = verdict {
            verdict = self.forward(query, question_end, asker, from.ip(), &mut reply);
        }
        if verdict == Verdict::Reply {
            self.send(asker, &reply);
        }
        self.reply = reply;
    }

    /// Asks others, or says why not.
    fn forward(
        &mut self,
        query: &[u8],
        end: usize,
        asker: Asker,
        from: IpAddr,
        reply: &mut Vec<u8>,
    ) -> Verdict {
        // It comes from the host, perhaps from this very process: passed on it could come back for ever.
        if !self.zone.contains(from) || self.zone.is_gateway(from) {
            return message::refused(query, reply);
        }
        // Those who refuse what they do not know, then those who know everything.
        let container = self.zone.container_at(from).unwrap_or_default();
        let mut servers = self.neighbours.of(self.store, &self.network.name, container).to_vec();
        // Whoever is on an internal network reaches nobody outside, not by names either (CVE-2024-29018).
        if !self.network.internal {
            let own = self.zone.servers_of(from);
            let others: Vec<SocketAddr> = if !own.is_empty() {
                own.to_vec()
            } else if !self.network.dns.servers.is_empty() {
                self.network.dns.servers.iter().map(|server| SocketAddr::from((*server, 53))).collect()
            } else {
                self.host.current().to_vec()
            };
            servers
                .extend(others.into_iter().filter(|one| !self.zone.is_gateway(one.ip())).take(MOST_SERVERS));
        }
        if servers.is_empty() {
            return message::server_failure(query, reply);
        }
        let taken = self.forwarder.ask(asker, query, end, servers, &mut self.outcomes);
        if let Asker::Tcp { connection, .. } = asker
            && taken
            && let Some(connection) = self.connections.get_mut(connection)
        {
            connection.waiting += 1;
        }
        if taken { Verdict::Drop } else { message::refused(query, reply) }
    }

    /// The answers of others. What this leads to is for the next turn: whoever asks without end is not alone.
    fn deliver(&mut self) {
        for outcome in std::mem::take(&mut self.outcomes) {
            let reply = outcome.reply.or_else(|| {
                let mut failure = Vec::new();
                let verdict = message::server_failure(&outcome.query, &mut failure);
                (verdict == Verdict::Reply).then_some(failure)
            });
            if let Asker::Tcp { connection, .. } = outcome.asker
                && let Some(connection) = self.connections.get_mut(connection)
            {
                connection.waiting = connection.waiting.saturating_sub(1);
            }
            self.send(outcome.asker, &reply.unwrap_or_default());
            if let Asker::Tcp { connection, .. } = outcome.asker {
                self.serve(connection);
            }
        }
    }

    fn send(&mut self, asker: Asker, reply: &[u8]) {
        if reply.is_empty() {
            return;
        }
        match asker {
            // Lost if there is no room: who asked asks again.
            Asker::Udp { listener, from } => {
                if let Some(listener) = self.listeners.get(listener) {
                    let _ = listener.udp.send_to(reply, from);
                }
            }
            Asker::Tcp { connection, .. } => {
                if let Some(connection) = self.connections.get_mut(connection) {
                    connection.push(reply);
                }
            }
        }
    }

    fn accept(&mut self, index: usize) {
        for _ in 0..BATCH {
            let Some(listener) = self.listeners.get(index) else { return };
            let Ok((socket, from)) = listener.tcp.accept() else { return };
            let of_one = self.connections.iter().filter(|(_, other)| other.from.ip() == from.ip()).count();
            // Closed by being dropped.
            if !self.serves(from.ip())
                || of_one >= MOST_OF_ONE
                || socket.set_nonblocking(true).is_err()
                || socket.set_nodelay(true).is_err()
            {
                continue;
            }
            let Some(key) = self.connections.insert(|_| Connection::new(socket.into(), from)) else {
                continue;
            };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            let number = EventData::new_u64(CONNECTION | key.to_bits());
            if epoll::add(&*self.epoll, connection, number, EventFlags::IN).is_err() {
                self.close(key);
            }
        }
    }

    /// Questions over TCP, as many as there are; the answers are sent together.
    fn serve(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let asker = Asker::Tcp { connection: key, from: connection.from };
        let from = connection.from;
        let mut filled = connection.fill();
        for _ in 0..BATCH {
            let Some(connection) = self.connections.get_mut(key) else { return };
            match connection.next() {
                Ok(Some(query)) => self.question(&query, asker, from),
                Ok(None) => break,
                Err(error) => {
                    filled = Err(error);
                    break;
                }
            }
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let settled = filled.and_then(|()| connection.settle(&self.epoll, CONNECTION, key));
        if !settled.unwrap_or(false) {
            self.close(key);
        }
    }

    fn close(&mut self, key: Key) {
        if self.connections.remove(key).is_some_and(|connection| connection.waiting > 0) {
            self.forwarder.forget(key);
        }
    }
}
