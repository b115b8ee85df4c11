//! Descriptors given away: terminals and pid descriptors.

use crate::{Bench, wait_until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

struct Receiver {
    listener: UnixListener,
    path: PathBuf,
}

impl Receiver {
    fn new(path: &Path) -> Receiver {
        Receiver { listener: UnixListener::bind(path).unwrap(), path: path.to_owned() }
    }

    fn path(&self) -> String {
        self.path.display().to_string()
    }

    /// What comes, and the name it comes with.
    fn receive(&self) -> (OwnedFd, String) {
        let (stream, _) = self.listener.accept().unwrap();
        let mut bytes = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let count =
            recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                .unwrap()
                .bytes;
        let fd = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        (fd.expect("a descriptor"), String::from_utf8_lossy(&bytes[..count]).into_owned())
    }
}

#[test]
fn the_terminal_is_sent() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("console");
    bench.configure(&["sh", "-c", "stty size; read line; echo got $line; sleep 1000"], |config| {
        config["process"]["terminal"] = json!(true);
        config["process"]["consoleSize"] = json!({"height": 44, "width": 99});
    });
    let receiver = Receiver::new(&bench.path().join("console.sock"));
    let bundle = bench.bundle().display().to_string();
    bench.make(&["create", "--bundle", &bundle, "--console-socket", &receiver.path(), &id]);
    let (master, name) = receiver.receive();
    assert_eq!(name, "/dev/ptmx");
    bench.ran(&["start", &id]).expect(0);
    let mut terminal = File::from(master);
    terminal.write_all(b"hello\n").unwrap();
    let mut said = String::new();
    wait_until(
        || {
            let mut bytes = [0; 256];
            let count = terminal.read(&mut bytes).unwrap();
            said += &String::from_utf8_lossy(&bytes[..count]);
            said.contains("got hello")
        },
        "the terminal says nothing",
    );
    assert!(said.contains("44 99"), "{said}");
    bench.make(&["exec", "-t", "-d", "--console-socket", &receiver.path(), &id, "sh", "-c", "echo inside"]);
    let (master, _) = receiver.receive();
    let mut bytes = [0; 256];
    let count = File::from(master).read(&mut bytes).unwrap();
    assert_eq!(&bytes[..count], b"inside\r\n");
}

#[test]
fn pid_descriptors_are_sent() {
    let Some(bench) = Bench::new() else { return };
    let id = bench.id("pidfd");
    // Longer than an address may be.
    let dir = bench.path().join("d".repeat(120));
    std::fs::create_dir(&dir).unwrap();
    std::env::set_current_dir(&dir).unwrap();
    let receiver = Receiver { listener: UnixListener::bind("s").unwrap(), path: dir.join("s") };
    std::env::set_current_dir("/").unwrap();
    let bundle = bench.bundle().display().to_string();
    let pid_of = |fd: &OwnedFd| {
        let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        text.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().to_owned()
    };
    bench.make(&["run", "-d", "--bundle", &bundle, "--pidfd-socket", &receiver.path(), &id]);
    let (pidfd, _) = receiver.receive();
    assert_eq!(pid_of(&pidfd), bench.state(&id)["pid"].to_string());
    let file = bench.path().join("pid").display().to_string();
    bench.make(&[
        "exec",
        "-d",
        "--pid-file",
        &file,
        "--pidfd-socket",
        &receiver.path(),
        &id,
        "sleep",
        "1000",
    ]);
    let (pidfd, _) = receiver.receive();
    assert_eq!(pid_of(&pidfd), std::fs::read_to_string(file).unwrap());
}
