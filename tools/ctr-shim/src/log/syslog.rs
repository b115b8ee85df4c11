//! A syslog daemon, here or elsewhere: RFC 5424, RFC 3164, or as the C library writes.

use super::remote::{Framing, Remote, nonblocking};
use super::{Piece, Setup};
use fault::{Fault, Result};
use jiff::tz::TimeZone;
use oci::wishes::log::{Syslog as Wish, SyslogAddress, SyslogFormat};
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

/// How long the other side may take to accept a connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// Where daemons listen.
const LOCAL: [&str; 3] = ["/dev/log", "/var/run/syslog", "/var/run/log"];

pub struct Syslog {
    pub remote: Remote,
    format: SyslogFormat,
    facility: u8,
    tag: String,
    host: String,
    pid: u32,
    zone: TimeZone,
}

impl Syslog {
    pub fn open(wish: &Wish, setup: &Setup, most_buffered: Option<u64>) -> Result<Syslog> {
        let address = wish.address.clone();
        let connect = move || {
            let (socket, framing) = connect(&address).map_err(|error| {
                Fault::failed(format!("log driver syslog: connect to {}", described(&address)))
                    .because(error)
                    .hint("a syslog daemon has to listen there; see --log-opt syslog-address")
            })?;
            Ok((nonblocking(socket)?, framing))
        };
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Syslog {
            remote: Remote::open(Box::new(connect), most_buffered)?,
            format: wish.format,
            facility: wish.facility,
            // RFC 5424, 6: no spaces or control characters in a header, and a limited length.
            tag: setup.tag.chars().filter(char::is_ascii_graphic).take(48).collect(),
            host: if host.is_empty() { "-".to_owned() } else { host },
            pid: std::process::id(),
            zone: TimeZone::system(),
        })
    }

    pub fn add(&mut self, piece: &Piece<'_>) {
        let priority = self.facility * 8 + piece.severity();
        let time = piece.at.time.to_zoned(self.zone.clone());
        let (host, tag, pid) = (&self.host, &self.tag, self.pid);
        let header = match self.format {
            SyslogFormat::Local => {
                format!("<{priority}>{} {tag}[{pid}]: ", time.strftime("%b %e %H:%M:%S"))
            }
            SyslogFormat::Rfc3164 => {
                format!("<{priority}>{} {host} {tag}[{pid}]: ", time.strftime("%b %e %H:%M:%S"))
            }
            SyslogFormat::Rfc5424 { micro } => {
                let form = if micro { "%Y-%m-%dT%H:%M:%S%.6f%:z" } else { "%Y-%m-%dT%H:%M:%S%:z" };
                // Application name and message id are docker's; an empty name is "-".
                let tag = if tag.is_empty() { "-" } else { tag };
                format!("<{priority}>1 {} {host} {tag} {pid} {tag} - ", time.strftime(form))
            }
        };
        let mut message = header.into_bytes();
        message.extend_from_slice(piece.message());
        message.push(b'\n');
        self.remote.add(message);
    }
}

fn connect(address: &SyslogAddress) -> io::Result<(OwnedFd, Framing)> {
    match address {
        SyslogAddress::Local => {
            let mut last = io::Error::from(io::ErrorKind::NotFound);
            for path in LOCAL.map(Path::new) {
                match datagram(path).or_else(|_| stream(path)) {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = error,
                }
            }
            Err(last)
        }
        SyslogAddress::Unix(path) => stream(path),
        SyslogAddress::UnixDatagram(path) => datagram(path),
        SyslogAddress::Udp(host, port) => each_address(host, *port, |address| {
            let any: SocketAddr =
                if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            let socket = UdpSocket::bind(any)?;
            socket.connect(address)?;
            Ok((socket.into(), Framing::Udp))
        }),
        SyslogAddress::Tcp(host, port) => each_address(host, *port, |address| {
            Ok((TcpStream::connect_timeout(&address, PATIENCE)?.into(), Framing::Stream))
        }),
    }
}

fn datagram(path: &Path) -> io::Result<(OwnedFd, Framing)> {
    let socket = UnixDatagram::unbound()?;
    socket.connect(path)?;
    Ok((socket.into(), Framing::Datagrams))
}

fn stream(path: &Path) -> io::Result<(OwnedFd, Framing)> {
    Ok((UnixStream::connect(path)?.into(), Framing::Stream))
}

fn each_address<T>(host: &str, port: u16, connect: impl Fn(SocketAddr) -> io::Result<T>) -> io::Result<T> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()?.take(4) {
        match connect(address) {
            Ok(done) => return Ok(done),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn described(address: &SyslogAddress) -> String {
    match address {
        SyslogAddress::Local => LOCAL.join(", "),
        SyslogAddress::Udp(host, port) => format!("udp://{host}:{port}"),
        SyslogAddress::Tcp(host, port) => format!("tcp://{host}:{port}"),
        SyslogAddress::Unix(path) => format!("unix://{}", path.display()),
        SyslogAddress::UnixDatagram(path) => format!("unixgram://{}", path.display()),
    }
}
