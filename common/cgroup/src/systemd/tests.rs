//! A systemd that is none, at the other end of a socket pair: what it is sent, and what it may send back.

use super::bus::Bus;
use super::message::{Kind, Message, PREFIX};
use super::value::Value;
use super::{start, stop, version_of};
use fault::{Fault, Result};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const UNIT: &str = "p-x.scope";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";
const PATH: &str = "/org/freedesktop/systemd1";
const JOB: &str = "/org/freedesktop/systemd1/job/7";

struct Peer {
    socket: UnixStream,
    serial: u32,
}

impl Peer {
    /// The conversation before the first message.
    fn accept(socket: UnixStream) -> Peer {
        let mut peer = Peer { socket, serial: 100 };
        let said = peer.read(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n".len());
        assert_eq!(said, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        peer.write(b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n");
        peer
    }

    fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// A client that has given up does not listen any more.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.socket.write_all(bytes);
    }

    fn call(&mut self) -> Message {
        let mut bytes = self.read(PREFIX);
        let length = Message::length(bytes.first_chunk().unwrap()).unwrap();
        bytes.extend(self.read(length - PREFIX));
        let call = Message::decode(&bytes, |_| true).unwrap();
        assert_eq!(call.kind, Kind::Call);
        call
    }

    /// The next call, which has to be this one.
    #[track_caller]
    fn expect(&mut self, member: &str) -> Message {
        let call = self.call();
        assert_eq!(call.member, member);
        call
    }

    fn send(&mut self, message: Message) {
        self.serial += 1;
        let bytes = Message { serial: self.serial, ..message }.encode().unwrap();
        self.write(&bytes);
    }

    fn reply(&mut self, call: &Message, body: Vec<Value>) {
        self.send(Message {
            kind: Kind::Reply,
            reply_to: Some(call.serial),
            ..Message::call("", "", "", "", body)
        });
    }

    fn refuse(&mut self, call: &Message, error: &str) {
        let refusal = Message::call("", "", "", "", vec![Value::text("because")]);
        let error = format!("org.freedesktop.systemd1.{error}");
        self.send(Message { kind: Kind::Error, reply_to: Some(call.serial), error, ..refusal });
    }

    fn job_removed(&mut self, job: &str, unit: &str, result: &str) {
        let body = vec![Value::U32(7), Value::Path(job.to_owned()), Value::text(unit), Value::text(result)];
        self.send(Message { kind: Kind::Signal, ..Message::call("", PATH, MANAGER, "JobRemoved", body) });
    }
}

fn at(peer: impl FnOnce(Peer) + Send + 'static) -> (Bus, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let thread = std::thread::spawn(|| peer(Peer::accept(theirs)));
    (Bus::over(ours, false, UNIT, Duration::from_secs(20)).unwrap(), thread)
}

fn list() -> Vec<(String, Value)> {
    vec![("Slice".to_owned(), Value::text("a.slice")), ("TasksMax".to_owned(), Value::U64(5))]
}

#[test]
fn a_unit_is_started_with_its_properties_and_its_job_waited_for() {
    let (mut bus, peer) = at(|mut peer| {
        let call = peer.expect("StartTransientUnit");
        assert_eq!((call.path.as_str(), call.interface.as_str()), (PATH, MANAGER));
        assert_eq!(call.destination, "org.freedesktop.systemd1");
        let property =
            |name: &str, value| Value::Struct(vec![Value::text(name), Value::Variant(Box::new(value))]);
        let properties = vec![property("Slice", Value::text("a.slice")), property("TasksMax", Value::U64(5))];
        assert_eq!(
            call.body,
            [
                Value::text(UNIT),
                Value::text("replace"),
                Value::Array("(sv)".to_owned(), properties),
                Value::Array("(sa(sv))".to_owned(), vec![]),
            ]
        );
        // Others' jobs, and signals of other kinds, come in between; the unit's own may be over before the answer is there.
        peer.job_removed("/org/freedesktop/systemd1/job/6", "other.service", "failed");
        let strange = Message::call("", "/", "a.b", "Strange", vec![Value::texts(["x"])]);
        peer.send(Message { kind: Kind::Signal, ..strange });
        peer.job_removed(JOB, UNIT, "done");
        peer.reply(&call, vec![Value::Path(JOB.to_owned())]);
    });
    start(&mut bus, UNIT, list()).unwrap();
    peer.join().unwrap();
}

#[test]
fn a_job_that_is_not_done_is_a_failure() {
    let (mut bus, peer) = at(|mut peer| {
        let call = peer.expect("StartTransientUnit");
        peer.reply(&call, vec![Value::Path(JOB.to_owned())]);
        peer.job_removed("/org/freedesktop/systemd1/job/6", UNIT, "done");
        peer.job_removed(JOB, UNIT, "canceled");
        let call = peer.expect("ResetFailedUnit");
        assert_eq!(call.body, [Value::text(UNIT)]);
        peer.reply(&call, vec![]);
    });
    let fault = start(&mut bus, UNIT, list()).unwrap_err();
    assert!(fault.to_string().contains("\"canceled\""), "{fault}");
    assert!(fault.hint_text().unwrap().contains(UNIT));
    peer.join().unwrap();
}

#[test]
fn what_a_failed_unit_left_is_reset_and_tried_again() {
    let (mut bus, peer) = at(|mut peer| {
        let call = peer.expect("StartTransientUnit");
        peer.refuse(&call, "UnitExists");
        let call = peer.expect("ResetFailedUnit");
        peer.refuse(&call, "NoSuchUnit");
        let call = peer.expect("StartTransientUnit");
        peer.reply(&call, vec![Value::Path(JOB.to_owned())]);
        peer.job_removed(JOB, UNIT, "done");
    });
    start(&mut bus, UNIT, list()).unwrap();
    peer.join().unwrap();
    let (mut bus, peer) = at(|mut peer| {
        while let Ok(true) = peer.socket.set_read_timeout(None).map(|()| true) {
            let call = peer.call();
            match call.member.as_str() {
                "StartTransientUnit" => peer.refuse(&call, "UnitExists"),
                "ResetFailedUnit" => peer.reply(&call, vec![]),
                _ => return peer.reply(&call, vec![Value::Variant(Box::new(Value::text("v239-1.el8")))]),
            }
        }
    });
    let fault = start(&mut bus, UNIT, list()).unwrap_err();
    assert_eq!(fault.kind(), fault::Kind::Conflict);
    assert!(fault.hint_text().unwrap().contains("systemctl stop"), "{fault:?}");
    assert_eq!(version_of(&mut bus).unwrap(), 239);
    peer.join().unwrap();
}

#[test]
fn a_unit_is_stopped_or_gone_already() {
    let (mut bus, peer) = at(|mut peer| {
        let call = peer.expect("StopUnit");
        assert_eq!(call.body, [Value::text(UNIT), Value::text("replace")]);
        peer.reply(&call, vec![Value::Path(JOB.to_owned())]);
        peer.job_removed(JOB, UNIT, "done");
        let call = peer.expect("ResetFailedUnit");
        peer.refuse(&call, "NoSuchUnit");
        let call = peer.expect("StopUnit");
        peer.refuse(&call, "NoSuchUnit");
        let call = peer.expect("StopUnit");
        peer.refuse(&call, "AccessDenied");
    });
    stop(&mut bus, UNIT).unwrap();
    stop(&mut bus, UNIT).unwrap();
    let fault = stop(&mut bus, UNIT).unwrap_err();
    assert_eq!(fault.kind(), fault::Kind::Denied);
    assert!(format!("{fault}").contains("because"), "{fault}");
    peer.join().unwrap();
}

#[test]
fn a_bus_is_entered_first_and_only_systemd_is_believed() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let peer = std::thread::spawn(|| {
        let mut peer = Peer::accept(theirs);
        let call = peer.expect("Hello");
        peer.reply(&call, vec![Value::text(":1.5")]);
        let call = peer.expect("AddMatch");
        assert!(matches!(&call.body[..], [Value::Text(rule)] if rule.contains("member='JobRemoved'")));
        peer.reply(&call, vec![]);
        assert!(peer.expect("Subscribe").no_reply);
        let call = peer.expect("StartTransientUnit");
        let of = |sender: &str, result: &str| {
            let body =
                vec![Value::U32(7), Value::Path(JOB.to_owned()), Value::text(UNIT), Value::text(result)];
            let signal = Message::call("", PATH, MANAGER, "JobRemoved", body);
            Message { kind: Kind::Signal, sender: sender.to_owned(), ..signal }
        };
        let reply = Message::call("", "", "", "", vec![Value::Path(JOB.to_owned())]);
        let sender = ":1.1".to_owned();
        peer.send(Message { kind: Kind::Reply, reply_to: Some(call.serial), sender, ..reply });
        for _ in 0..100 {
            peer.send(of(":1.9", "done"));
        }
        peer.send(of(":1.1", "timeout"));
        peer.expect("ResetFailedUnit");
    });
    let mut bus = Bus::over(ours, true, UNIT, Duration::from_secs(20)).unwrap();
    let waits = std::thread::spawn(move || start(&mut bus, UNIT, list()));
    peer.join().unwrap();
    let fault = waits.join().unwrap().unwrap_err();
    assert!(fault.to_string().contains("\"timeout\""), "{fault}");
}

/// What comes of an answer that is anything but one.
fn answered(with: impl FnOnce(&mut UnixStream) + Send + 'static, patience: Duration) -> Result<()> {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let peer = std::thread::spawn(move || {
        with(&mut theirs);
        // Only the other side ends this.
        let _ = std::io::copy(&mut theirs, &mut std::io::sink());
    });
    let outcome = Bus::over(ours, false, UNIT, patience).and_then(|mut bus| start(&mut bus, UNIT, list()));
    peer.join().unwrap();
    outcome
}

#[test]
fn a_peer_that_is_not_one_is_an_error_in_bearable_time() {
    const OK: &[u8] = b"DATA\r\nOK 0\r\n";
    let begun = Instant::now();
    let said = |bytes: Vec<u8>| move |socket: &mut UnixStream| drop(socket.write_all(&bytes));
    let short = Duration::from_millis(200);
    let mut answers: Vec<Vec<u8>> = vec![
        b"REJECTED EXTERNAL\r\n".to_vec(),
        vec![b'x'; 100_000],
        b"\r\n".to_vec(),
        Vec::new(),
        [OK, b"HTTP/1.1 400 Bad Request\r\n\r\n"].concat(),
        // 4 GiB of a body.
        [OK, b"l\x02\0\x01\xff\xff\xff\xff\x01\0\0\0\0\0\0\0"].concat(),
        [OK, b"l\x02\0\x01\0\0\0\0\x01\0\0\0\xff\xff\xff\xff"].concat(),
    ];
    let job = Message::call("", "", "", "", vec![Value::U32(1)]);
    answers.push([OK, &Message { kind: Kind::Reply, reply_to: Some(1), ..job }.encode().unwrap()].concat());
    let strange = Message::call("", PATH, MANAGER, "JobRemoved", vec![Value::texts(["x"])]);
    answers.push([OK, &Message { kind: Kind::Signal, ..strange }.encode().unwrap()].concat());
    for answer in answers {
        let fault: Fault = answered(said(answer.clone()), short).unwrap_err();
        assert!(!fault.to_string().is_empty(), "{answer:?}");
    }
    let endless = |socket: &mut UnixStream| {
        let signal = Message::call("", PATH, MANAGER, "JobRemoved", vec![]);
        let signal = Message { kind: Kind::Signal, ..signal }.encode().unwrap();
        let _ = socket.write_all(OK);
        while socket.write_all(&signal).is_ok() {}
    };
    let fault = answered(endless, Duration::from_millis(500)).unwrap_err();
    assert_eq!(fault.kind(), fault::Kind::Retryable, "{fault}");
    let closed = |socket: &mut UnixStream| drop(socket.shutdown(std::net::Shutdown::Both));
    assert!(answered(closed, short).is_err());
    assert!(begun.elapsed() < Duration::from_secs(15));
}
