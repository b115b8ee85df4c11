//! Who reaches whom, and as whom it is seen: servers that say a word and who calls, and callers at many places at once.
//!
//! Threads in the namespaces of others: a test makes hundreds of calls, and a shell for each would be most of its time.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testkit::{OtherHost, Ran, die_with_parent};

/// Who is to answer gets the time a busy machine takes.
const LONG: Duration = Duration::from_secs(20);
/// What is dropped is not heard of however long one waits.
const SHORT: Duration = Duration::from_millis(500);

/// Where something runs.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    Host,
    Outside(&'a OtherHost),
    /// In the network namespace of this process.
    Inside(u32),
}

impl At<'_> {
    /// Runs a shell script there.
    pub fn sh(&self, script: &str) -> Ran {
        let mut command = match self {
            At::Host => Command::new("bash"),
            At::Outside(host) => host.command("bash"),
            At::Inside(pid) => {
                let mut command = die_with_parent("nsenter");
                command.arg("-t").arg(pid.to_string()).args(["-n", "bash"]);
                command
            }
        };
        Ran::of(command.args(["-c", script]))
    }

    fn process(&self) -> Option<u32> {
        match self {
            At::Host => None,
            At::Outside(host) => Some(host.pid()),
            At::Inside(pid) => Some(*pid),
        }
    }
}

/// Moves the calling thread, which must be nobody else's, into the network namespace of a process.
fn enter(process: Option<u32>) {
    let Some(pid) = process else { return };
    let namespace = File::open(format!("/proc/{pid}/ns/net")).expect("open a network namespace");
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("enter a network namespace");
}

/// Servers, as long as this lives.
#[derive(Debug, Default)]
pub struct Servers {
    threads: Vec<JoinHandle<()>>,
    done: Arc<AtomicBool>,
}

impl Servers {
    pub fn new() -> Servers {
        Servers::default()
    }

    /// Tells whoever calls this word and by which address it is seen, over TCP, UDP and both families. Returns when it listens.
    #[track_caller]
    pub fn serve(&mut self, at: At<'_>, port: u16, word: &str) {
        let (process, word, done) = (at.process(), word.to_owned(), Arc::clone(&self.done));
        let (ready, listens) = channel();
        self.threads.push(std::thread::spawn(move || serve(process, port, &word, &done, &ready)));
        assert!(listens.recv().is_ok(), "cannot listen on port {port} of {at:?}");
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(process: Option<u32>, port: u16, word: &str, done: &AtomicBool, ready: &Sender<()>) {
    enter(process);
    let (tcp, udp) = (TcpListener::bind(("::", port)), UdpSocket::bind(("::", port)));
    let (tcp, udp) = (tcp.expect("listen"), udp.expect("listen"));
    tcp.set_nonblocking(true).expect("set up a socket");
    udp.set_nonblocking(true).expect("set up a socket");
    ready.send(()).expect("somebody waits for it");
    let say = |who: SocketAddr| format!("{word} {}\n", who.ip().to_canonical());
    let wait = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    while !done.load(Ordering::SeqCst) {
        let mut both = [PollFd::new(&tcp, PollFlags::IN), PollFd::new(&udp, PollFlags::IN)];
        let _ = poll(&mut both, Some(&wait));
        while let Ok((mut stream, who)) = tcp.accept() {
            let _ = stream.write_all(say(who).as_bytes());
        }
        while let Ok((_, who)) = udp.recv_from(&mut [0; 16]) {
            let _ = udp.send_to(say(who).as_bytes(), who);
        }
    }
}

/// One call and what is to come of it.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub from: At<'a>,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Address and port, IPv6 in brackets.
    pub to: String,
    /// The word and who is seen; nothing if nobody is to answer.
    pub answer: String,
}

impl<'a> Call<'a> {
    pub fn new(from: At<'a>, protocol: &'static str, to: &str, answer: &str) -> Call<'a> {
        Call { from, protocol, to: to.to_owned(), answer: answer.to_owned() }
    }

    /// What is answered.
    fn make(&self) -> String {
        let to: SocketAddr = self.to.parse().expect("an address and a port");
        let long = if self.answer.is_empty() { SHORT } else { LONG };
        enter(self.from.process());
        let told = if self.protocol == "udp" { by_udp(to, long) } else { by_tcp(to, long) };
        told.unwrap_or_default().trim().to_owned()
    }
}

fn by_tcp(to: SocketAddr, long: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, long)?;
    stream.set_read_timeout(Some(LONG))?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told)
}

fn by_udp(to: SocketAddr, long: Duration) -> std::io::Result<String> {
    let socket = UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(SHORT))?;
    let begin = Instant::now();
    loop {
        // Once more after a while: what is lost nobody else sends again.
        socket.send(b"?")?;
        let mut told = [0; 100];
        match socket.recv(&mut told) {
            Ok(length) => return Ok(String::from_utf8_lossy(&told[..length]).into_owned()),
            Err(error) if begin.elapsed() >= long => return Err(error),
            Err(_) => {}
        }
    }
}

/// Makes all of the calls at once. What came otherwise than it was to, a line for each.
pub fn wrong(calls: &[Call<'_>]) -> Vec<String> {
    let told: Vec<String> = std::thread::scope(|scope| {
        let threads: Vec<_> = calls.iter().map(|call| scope.spawn(|| call.make())).collect();
        threads.into_iter().map(|thread| thread.join().expect("a caller does not panic")).collect()
    });
    let all = calls.iter().zip(told).filter(|(call, told)| call.answer != *told);
    all.map(|(call, told)| {
        let Call { from, protocol, to, answer } = call;
        format!("{protocol} {to} from {from:?}: {told:?}, not {answer:?}")
    })
    .collect()
}

/// Makes sure that all of the calls come to what they are to.
#[track_caller]
pub fn check(what: &str, calls: &[Call<'_>]) {
    let wrong = wrong(calls);
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}
