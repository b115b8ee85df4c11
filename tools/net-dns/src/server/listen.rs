//! The sockets a network's resolver listens on.

use fault::{Explain, Fault, Result};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const PORT: u16 = 53;

/// What the kernel keeps of questions until they are read: some 2700 of them, where its own measure is for 270 and a burst of several
/// containers is lost. They are answered within 50 ms.
const WAITING_BYTES: usize = 1 << 20;

/// For so long the resolver of a network that was removed may have its address still. It is told at once, and a busy machine takes a
/// while to let it end.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connections the kernel keeps until they are accepted.
const BACKLOG: i32 = 128;

#[derive(Debug)]
pub struct Listener {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

impl Listener {
    /// On one of the bridge's addresses.
    pub fn bind(address: IpAddr) -> Result<Listener> {
        let address = SocketAddr::from((address, PORT));
        let tcp = socket(address, SocketType::STREAM)?;
        rustix::net::listen(&tcp, BACKLOG).explain(|| format!("listen on {address}"))?;
        Ok(Listener { udp: socket(address, SocketType::DGRAM)?.into(), tcp: tcp.into() })
    }
}

/// Whether an address is the host's own: a socket can be bound to no other.
pub fn is_local(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

fn socket(address: SocketAddr, kind: SocketType) -> Result<OwnedFd> {
    let name = if kind == SocketType::STREAM { "tcp" } else { "udp" };
    open_in_turn(address, kind).map_err(|error| {
        let fault = Fault::new(fault::Kind::of_io(&error.into()), format!("listen on {address} ({name})"));
        let fault = fault.because(std::io::Error::from(error));
        match error {
            Errno::ADDRINUSE => fault.hint(format!(
                "another program has it, perhaps a name server on all addresses (`ss -lnp sport = {PORT}` tells); \
                 have that listen on its own addresses only, or make the network with --no-dns"
            )),
            Errno::ADDRNOTAVAIL => fault.hint("the network's bridge is not there; net-attach makes it"),
            Errno::ACCESS => fault.hint("run it as root"),
            _ => fault,
        }
    })
}

/// Waits for the resolver before, which has this address; not for a name server on all addresses.
fn open_in_turn(address: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let since = Instant::now();
    let loopback = match address {
        SocketAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
        SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let others = || open(SocketAddr::from((loopback, PORT)), kind).is_err();
    loop {
        match open(address, kind) {
            Err(Errno::ADDRINUSE) if since.elapsed() < PATIENCE && !others() => {
                std::thread::sleep(Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

fn open(address: SocketAddr, kind: SocketType) -> rustix::io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if kind == SocketType::STREAM {
        // Connections of an earlier process linger.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    if kind == SocketType::DGRAM {
        // Only root may have more than net.core.rmem_max; less is no reason not to answer.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, WAITING_BYTES)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&socket, WAITING_BYTES));
    }
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
        // The bridge has it, but the kernel may not be sure yet that nobody else does (RFC 4862, section 5.4).
        sockopt::set_ipv6_freebind(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}
