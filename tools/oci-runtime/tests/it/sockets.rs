//! Descriptors given away: terminals and pid descriptors.

use crate::{Bench, wait_until};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::json;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

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

#[test]
fn systemd_is_told_that_the_service_is_ready() {
    let Some(bench) = Bench::new() else { return };
    let (id, path) = (bench.id("notify"), bench.path().join("systemd.sock"));
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(std::time::Duration::from_secs(30))).unwrap();
    // busybox cannot speak to a socket by itself.
    let say = testkit::find_program("socat");
    let Some(say) = say else { return testkit::skip("there is no socat to speak in a container") };
    let rootfs = bench.bundle().join("rootfs");
    let script = format!(
        "printf 'STATUS=x\\nREADY=1\\n' | {} - UNIX-SENDTO:$NOTIFY_SOCKET; exec sleep 1000",
        say.display()
    );
    bench.configure(&["sh", "-c", &script], |config| {
        config["process"]["env"] = json!(["PATH=/bin:/usr/bin"]);
        for host in ["/usr", "/lib", "/lib64"] {
            std::fs::create_dir_all(rootfs.join(&host[1..])).unwrap();
            let mount =
                json!({"destination": host, "source": host, "type": "bind", "options": ["rbind", "ro"]});
            config["mounts"].as_array_mut().unwrap().push(mount);
        }
    });
    let with = |arguments: &[&str]| {
        let mut command = bench.command(arguments);
        command.env("NOTIFY_SOCKET", &path).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    let bundle = bench.bundle().display().to_string();
    let acknowledge = |pid: &str| {
        let mut buffer = [0; 256];
        for wanted in ["READY=1\n".to_owned(), format!("MAINPID={pid}\n"), "BARRIER=1".to_owned()] {
            let count = systemd.recv(&mut buffer).unwrap();
            assert_eq!(String::from_utf8_lossy(&buffer[..count]), wanted);
        }
    };
    assert!(with(&["create", "--bundle", &bundle, &id]).status().unwrap().success());
    let pid = bench.state(&id)["pid"].to_string();
    // What comes with the last message closes the barrier by not being taken.
    let mut start = with(&["start", &id]).spawn().unwrap();
    acknowledge(&pid);
    assert!(start.wait().unwrap().success());
    bench.ran(&["delete", "--force", &id]).expect(0);
    bench.assert_gone(&id);
    let mut run = with(&["run", "--bundle", &bundle, &id]).spawn().unwrap();
    wait_until(|| bench.ran(&["state", &id]).status == 0, "it does not run");
    acknowledge(&bench.state(&id)["pid"].to_string());
    bench.ran(&["kill", &id, "KILL"]).expect(0);
    assert_eq!(run.wait().unwrap().code(), Some(137));
    bench.assert_gone(&id);
}
