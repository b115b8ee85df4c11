//! A connection to systemd: its own socket where that can be had, a bus otherwise (D-Bus specification; systemd's
//! org.freedesktop.systemd1(5)).

use super::Manager;
use super::message::{Kind, LONGEST, Message, PREFIX};
use super::value::{Value, malformed};
use fault::{Explain, Fault, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// How long all that is asked on one connection may take, the jobs included: systemd may be busy with the machine's start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest line of the conversation before the first message, in bytes.
const LONGEST_LINE: usize = 4096;

#[derive(Debug)]
pub struct Bus {
    socket: UnixStream,
    deadline: Instant,
    received: Vec<u8>,
    serial: u32,
    /// The unit whose jobs are listened for.
    unit: String,
    /// Jobs of it that are over: who says so, which, and how it went.
    over: Vec<(String, String, String)>,
}

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Address {
    name: Vec<u8>,
    is_abstract: bool,
    /// Others are at the other end as well.
    is_bus: bool,
}

impl Bus {
    /// Of all there are the first that answers. `unit`: the one that is spoken about.
    pub fn open(manager: Manager, unit: &str) -> Result<Bus> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut why = None;
        for address in addresses(manager, variable) {
            let shown = String::from_utf8_lossy(&address.name).into_owned();
            match address
                .connect()
                .map_err(|error| Fault::failed(format!("connect to {shown}")).because(error))
            {
                Ok(socket) => return Bus::over(socket, address.is_bus, unit, PATIENCE),
                Err(fault) => why = Some(fault),
            }
        }
        Err(why.unwrap_or_else(|| Fault::failed("nothing tells where systemd is")).within("reach systemd").hint(
            match manager {
                Manager::System => "it has to be the machine's init, or leave --systemd-cgroup out",
                Manager::User => {
                    "XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS of a user session say where the user's own is"
                }
            },
        ))
    }

    /// On a connected socket.
    pub fn over(socket: UnixStream, is_bus: bool, unit: &str, patience: Duration) -> Result<Bus> {
        let mut bus = Bus {
            socket,
            deadline: Instant::now() + patience,
            received: Vec::new(),
            serial: 0,
            unit: unit.to_owned(),
            over: Vec::new(),
        };
        bus.authenticate().map_err(|fault| fault.within("reach systemd"))?;
        if is_bus {
            let of_bus = |member, body| {
                Message::call(
                    "org.freedesktop.DBus",
                    "/org/freedesktop/DBus",
                    "org.freedesktop.DBus",
                    member,
                    body,
                )
            };
            bus.ask(of_bus("Hello", vec![]))?.unless_refused("enter the bus")?;
            let rule = format!("type='signal',sender='{NAME}',interface='{MANAGER}',member='JobRemoved'");
            bus.ask(of_bus("AddMatch", vec![Value::Text(rule)]))?.unless_refused("listen on the bus")?;
            // Old versions send signals only once asked to. Whoever asked twice is told so: no answer is wanted.
            let mut subscribe = Message::call(NAME, PATH, MANAGER, "Subscribe", vec![]);
            subscribe.no_reply = true;
            bus.send(subscribe)?;
        }
        Ok(bus)
    }

    /// The mechanism EXTERNAL without a name: the kernel says who the peer is, also across user namespaces.
    fn authenticate(&mut self) -> Result<()> {
        self.write(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
        loop {
            let line = self.line()?;
            match line.split(' ').next().unwrap_or_default() {
                "DATA" => {}
                "OK" => return Ok(()),
                _ => return Err(Fault::denied(format!("systemd refused the connection: {line:?}"))),
            }
        }
    }

    fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if self.received.len() > LONGEST_LINE {
                return Err(malformed("a line does not end"));
            }
            self.fill()?;
        }
    }

    /// A call of the manager's object, and its answer.
    pub fn manager(&mut self, member: &str, body: Vec<Value>) -> Result<Message> {
        self.ask(Message::call(NAME, PATH, MANAGER, member, body))
    }

    /// One of the manager's properties.
    pub fn property(&mut self, name: &str) -> Result<Value> {
        let body = vec![Value::text(MANAGER), Value::text(name)];
        let call = Message::call(NAME, PATH, "org.freedesktop.DBus.Properties", "Get", body);
        let answer = self.ask(call)?.unless_refused(&format!("ask systemd for its {name}"))?;
        match answer.body.into_iter().next() {
            Some(Value::Variant(value)) => Ok(*value),
            _ => Err(malformed("a property is no variant")),
        }
    }

    fn ask(&mut self, call: Message) -> Result<Message> {
        let serial = self.send(call)?;
        loop {
            let message = self.next(Some(serial))?;
            if message.reply_to == Some(serial) && matches!(message.kind, Kind::Reply | Kind::Error) {
                return Ok(message);
            }
            self.note(message);
        }
    }

    /// Waits until a job is over that `answer` is about. Returns how it went, in systemd's words: `done`, or not.
    pub fn job_result(&mut self, answer: &Message) -> Result<String> {
        let Some(Value::Path(job)) = answer.body.first() else {
            return Err(malformed("there is no job in the answer"));
        };
        loop {
            let is_it =
                |(sender, path, _): &&(String, String, String)| *sender == answer.sender && path == job;
            if let Some((_, _, result)) = self.over.iter().find(is_it) {
                return Ok(result.clone());
            }
            let message = self.next(None)?;
            self.note(message);
        }
    }

    /// Keeps what is told about jobs of the unit; whether its sender may be believed shows when somebody asks.
    fn note(&mut self, message: Message) {
        if !is_about_jobs(&message) {
            return;
        }
        if let [_, Value::Path(job), Value::Text(unit), Value::Text(result)] = message.body.as_slice()
            && *unit == self.unit
        {
            // More than a few are nobody's honest work.
            self.over.truncate(15);
            self.over.push((message.sender, job.clone(), result.clone()));
        }
    }

    fn send(&mut self, mut message: Message) -> Result<u32> {
        self.serial += 1;
        message.serial = self.serial;
        self.write(&message.encode()?)?;
        Ok(self.serial)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let left = self.left()?;
        self.socket
            .set_write_timeout(Some(left))
            .and_then(|()| self.socket.write_all(bytes))
            .explain(|| "send to systemd".into())
    }

    /// The next message; of those that are neither about jobs nor the answer waited for the body is left out.
    fn next(&mut self, serial: Option<u32>) -> Result<Message> {
        let length = loop {
            match self.received.first_chunk::<PREFIX>() {
                Some(prefix) => match Message::length(prefix)? {
                    length if length <= self.received.len() => break length,
                    _ => self.fill()?,
                },
                None => self.fill()?,
            }
        };
        let answers = |message: &Message| serial.is_some() && message.reply_to == serial;
        let message =
            Message::decode(&self.received[..length], |message| is_about_jobs(message) || answers(message));
        self.received.drain(..length);
        message
    }

    fn left(&self) -> Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(Fault::retryable("systemd took too long to answer")) } else { Ok(left) }
    }

    /// Waits for what the peer sends next.
    fn fill(&mut self) -> Result<()> {
        loop {
            let left = Timespec::try_from(self.left()?).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 });
            match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&left)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => {
                    return Err(std::io::Error::from(error)).explain(|| "wait for systemd".into());
                }
            }
            let mut buffer = [0; 4096];
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Fault::retryable("systemd closed the connection")),
                Ok(count) => {
                    if self.received.len() + count > LONGEST + buffer.len() {
                        return Err(malformed("it does not end"));
                    }
                    self.received.extend_from_slice(&buffer[..count]);
                    return Ok(());
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).explain(|| "read from systemd".into()),
            }
        }
    }
}

fn is_about_jobs(message: &Message) -> bool {
    message.kind == Kind::Signal
        && message.member == "JobRemoved"
        && message.interface == MANAGER
        && message.path == PATH
}

impl Message {
    /// The last part of the error's name, if the call was refused.
    pub fn refusal(&self) -> Option<&str> {
        (self.kind == Kind::Error).then(|| self.error.rsplit('.').next().unwrap_or_default())
    }

    /// The answer itself, or what systemd has against it.
    pub fn unless_refused(self, what: &str) -> Result<Message> {
        let Some(refusal) = self.refusal() else { return Ok(self) };
        let said = match self.body.first() {
            Some(Value::Text(text)) => format!("{text} ({})", self.error),
            _ => self.error.clone(),
        };
        let fault = match refusal {
            "AccessDenied" | "InteractiveAuthorizationRequired" | "AuthFailed" => Fault::denied(what)
                .hint("only the superuser may ask the machine's systemd; others have one of their own"),
            "NoSuchUnit" => Fault::not_found(what),
            "UnitExists" => Fault::conflict(what),
            "TimedOut" | "Timeout" | "NoReply" | "LimitsExceeded" => Fault::retryable(what),
            "ServiceUnknown" | "NameHasNoOwner" => {
                Fault::failed(what).hint("there is no systemd on this bus; leave --systemd-cgroup out")
            }
            _ => Fault::failed(what),
        };
        Err(fault.because(said))
    }
}

impl Address {
    fn connect(&self) -> std::io::Result<UnixStream> {
        let address = if self.is_abstract {
            SocketAddrUnix::new_abstract_name(&self.name)
        } else {
            SocketAddrUnix::new(self.name.as_slice())
        }?;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // So long also a connection may take that nobody accepts.
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(PATIENCE))?;
        connect(&socket, &address)?;
        Ok(socket.into())
    }
}

/// systemd's own sockets come first: they are there without a bus, and with one they are the shorter way.
fn addresses(manager: Manager, variable: impl Fn(&str) -> Option<String>) -> Vec<Address> {
    let path = |path: String, is_bus| Address { name: path.into_bytes(), is_abstract: false, is_bus };
    match manager {
        Manager::System => match variable("DBUS_SYSTEM_BUS_ADDRESS") {
            Some(text) => parse_addresses(&text),
            None => vec![
                path("/run/systemd/private".to_owned(), false),
                path("/run/dbus/system_bus_socket".to_owned(), true),
            ],
        },
        Manager::User => {
            let directory = variable("XDG_RUNTIME_DIR");
            let own = directory.iter().map(|directory| path(format!("{directory}/systemd/private"), false));
            let named = variable("DBUS_SESSION_BUS_ADDRESS");
            let named = named.iter().flat_map(|text| parse_addresses(text));
            let bus = directory.iter().map(|directory| path(format!("{directory}/bus"), true));
            own.chain(named).chain(bus).collect()
        }
    }
}

/// Those of a list that are UNIX sockets (D-Bus specification, "Server Addresses").
fn parse_addresses(text: &str) -> Vec<Address> {
    let one = |address: &str| {
        let options = address.strip_prefix("unix:")?;
        options.split(',').find_map(|option| {
            let (key, value) = option.split_once('=')?;
            let is_abstract = match key {
                "path" => false,
                "abstract" => true,
                _ => return None,
            };
            Some(Address { name: unescape(value)?, is_abstract, is_bus: true })
        })
    };
    text.split(';').filter_map(one).collect()
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(bytes.next())? * 16 + digit(bytes.next())?) as u8
            }
            other => other,
        });
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_order() {
        let names = |manager, variables: &[(&str, &str)]| -> Vec<String> {
            let variable =
                |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
            let show = |a: Address| {
                format!("{}{}", if a.is_abstract { "@" } else { "" }, String::from_utf8_lossy(&a.name))
            };
            addresses(manager, variable).into_iter().map(show).collect()
        };
        assert_eq!(names(Manager::System, &[]), ["/run/systemd/private", "/run/dbus/system_bus_socket"]);
        assert!(names(Manager::User, &[]).is_empty());
        let variables = [
            ("XDG_RUNTIME_DIR", "/run/user/5"),
            ("DBUS_SESSION_BUS_ADDRESS", "tcp:host=x;unix:guid=1,abstract=/tmp/%62us%2f1,x;unix:path=/a b"),
        ];
        assert_eq!(
            names(Manager::User, &variables),
            ["/run/user/5/systemd/private", "@/tmp/bus/1", "/a b", "/run/user/5/bus"]
        );
        for bad in ["", "unix:", "unix:path=%", "unix:path=%4", "unix:path=%zz", "autolaunch:"] {
            assert!(parse_addresses(bad).is_empty(), "{bad}");
        }
    }
}
