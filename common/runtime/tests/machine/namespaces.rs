//! User, time and network namespaces.

use crate::{SKIPPED, Test, root};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};
use runtime::spec::{NetDevice, TimeOffset};
use runtime::{Linux, mappings, netdevices, timens};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::pipe::pipe;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use sys::process::Fork;

pub const TESTS: &[Test] = &[
    ("clocks_are_offset", clocks_are_offset),
    ("clocks_are_offset_in_a_user_namespace", clocks_are_offset_in_a_user_namespace),
    ("root_maps_what_it_likes", root_maps_what_it_likes),
    ("a_user_maps_itself", a_user_maps_itself),
    ("a_user_maps_what_it_was_given", a_user_maps_what_it_was_given),
    ("devices_move_with_their_addresses", devices_move_with_their_addresses),
    ("devices_that_cannot_move_are_an_error", devices_that_cannot_move_are_an_error),
];

/// A process in new namespaces, which waits until this is dropped.
struct Waiting {
    pid: i32,
    pidfd: OwnedFd,
    _end: OwnedFd,
}

impl Waiting {
    /// Does something in it first.
    fn new(namespaces: i32, first: impl FnOnce()) -> Waiting {
        let ((wait, end), (ready, say_ready)) = (pipe().expect("a pipe"), pipe().expect("a pipe"));
        match sys::process::clone3(namespaces as u64, None).expect("a process") {
            Fork::Child => {
                drop((end, ready));
                first();
                drop(say_ready);
                let _ = rustix::io::read(&wait, &mut [0u8]);
                sys::process::exit_now(0)
            }
            Fork::Parent { pid, pidfd } => {
                drop((wait, say_ready));
                let _ = rustix::io::read(&ready, &mut [0u8]);
                Waiting { pid, pidfd, _end: end }
            }
        }
    }

    fn namespace(&self, name: &str) -> OwnedFd {
        let path = format!("/proc/{}/ns/{name}", self.pid);
        openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).expect("a namespace")
    }

    fn read(&self, name: &str) -> String {
        let text = std::fs::read_to_string(format!("/proc/{}/{name}", self.pid)).expect("a file of /proc");
        text.lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = sys::process::pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL);
        let id = rustix::process::WaitId::PidFd(self.pidfd.as_fd());
        let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
    }
}

fn map(entries: &[(u32, u32, u32)]) -> Vec<LinuxIdMapping> {
    let one = |(inside, outside, size): &(u32, u32, u32)| {
        LinuxIdMappingBuilder::default().container_id(*inside).host_id(*outside).size(*size).build()
    };
    entries.iter().map(|entry| one(entry).expect("a mapping")).collect()
}

fn offsets() -> BTreeMap<String, TimeOffset> {
    let offset = |secs, nanosecs| TimeOffset { secs, nanosecs };
    BTreeMap::from([("monotonic".into(), offset(7881, 2_718_281)), ("boottime".into(), offset(100_000, 1))])
}

fn clocks_are_offset() {
    if !root() {
        return;
    }
    let boot = || rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let before = boot();
    timens::enter_new(&offsets()).expect("enter a time namespace");
    let after = boot();
    assert!((100_000..100_060).contains(&(after - before)), "{before} {after}");
    let text = std::fs::read_to_string("/proc/self/timens_offsets").expect("the offsets");
    let lines: Vec<String> =
        text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(lines, ["monotonic 7881 2718281", "boottime 100000 1"]);
    // What is executed stays in it.
    let seen = Command::new("cat").arg("/proc/uptime").output().expect("run cat").stdout;
    let seen: f64 =
        String::from_utf8_lossy(&seen).split(' ').next().expect("a number").parse().expect("a number");
    assert!(seen > 100_000.0);
}

fn clocks_are_offset_in_a_user_namespace() {
    if !root() {
        return;
    }
    let (go, say_go) = pipe().expect("a pipe");
    let (told, tell) = pipe().expect("a pipe");
    match sys::process::clone3((libc::CLONE_NEWUSER) as u64, None).expect("a process") {
        Fork::Child => {
            drop(say_go);
            let _ = rustix::io::read(&go, &mut [0u8]);
            let text = match timens::enter_new(&offsets()) {
                Ok(()) => std::fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default(),
                Err(fault) => fault.to_string(),
            };
            let _ = rustix::io::write(&tell, text.as_bytes());
            sys::process::exit_now(0)
        }
        Fork::Parent { pid, pidfd } => {
            drop((go, tell));
            let all = map(&[(0, 100_000, 65_536)]);
            mappings::write(pid, &all, &all).expect("map");
            drop(say_go);
            let mut text = vec![0; 4096];
            let length = rustix::io::read(&told, &mut text).expect("what the child says");
            let text = String::from_utf8_lossy(&text[..length]).into_owned();
            let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
            let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
            assert!(text.contains("7881"), "{text}");
        }
    }
}

fn root_maps_what_it_likes() {
    if !root() {
        return;
    }
    let waiting = Waiting::new(libc::CLONE_NEWUSER, || {});
    let users = map(&[(0, 100_000, 1000), (1000, 0, 1)]);
    let groups = map(&[(0, 200_000, 65_536)]);
    mappings::write(waiting.pid, &users, &groups).expect("map");
    assert_eq!(waiting.read("uid_map"), "0 100000 1000\n1000 0 1");
    assert_eq!(waiting.read("gid_map"), "0 200000 65536");
    assert_eq!(waiting.read("setgroups"), "allow");
    let namespace = waiting.namespace("user");
    let found = mappings::of_namespace(namespace.as_fd()).expect("its mappings");
    assert_eq!(found, (users.clone(), groups.clone()));
    let mut linux = Linux { uid_mappings: users, gid_mappings: groups, ..Linux::default() };
    mappings::agree(&linux, namespace.as_fd()).expect("the same");
    linux.uid_mappings.pop();
    let fault = mappings::agree(&linux, namespace.as_fd()).expect_err("another");
    assert!(fault.to_string().contains("linux.uidMappings"), "{fault}");
    let other = waiting.namespace("net");
    assert!(mappings::of_namespace(other.as_fd()).is_err());
}

/// This process becomes an ordinary user, whom the machine knows in files of this test's own mount namespace.
fn become_user(subordinate: &str) {
    let dir = std::env::temp_dir().join(format!("runtime-machine-user-{}", std::process::id()));
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).expect("a mount namespace");
    let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).expect("private mounts");
    std::fs::create_dir(&dir).expect("a directory");
    for (name, text) in [
        ("passwd", "root:x:0:0::/root:/bin/sh\nsomebody:x:4242:4242::/:/bin/sh\n"),
        ("subuid", subordinate),
        ("subgid", subordinate),
    ] {
        std::fs::write(dir.join(name), text).expect("a file");
        let target = format!("/etc/{name}");
        if std::path::Path::new(&target).exists() {
            rustix::mount::mount_bind(dir.join(name), &target).expect("bind a file");
        }
    }
    std::fs::remove_dir_all(&dir).expect("remove the directory");
    let (uid, gid) = (rustix::fs::Uid::from_raw(4242), rustix::fs::Gid::from_raw(4242));
    rustix::thread::set_thread_groups(&[]).expect("no groups");
    rustix::thread::set_thread_res_gid(gid, gid, gid).expect("a group");
    rustix::thread::set_thread_res_uid(uid, uid, uid).expect("a user");
    // The change made it undumpable, so that its files in /proc are root's.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).expect("dumpable");
}

fn may_make_user_namespaces() -> bool {
    let text = std::fs::read_to_string("/proc/sys/kernel/unprivileged_userns_clone").unwrap_or("1".into());
    let may = text.trim() == "1";
    if !may {
        println!("{SKIPPED}ordinary users make no user namespaces here");
    }
    may
}

fn a_user_maps_itself() {
    if !root() || !may_make_user_namespaces() {
        return;
    }
    become_user("");
    let waiting = Waiting::new(libc::CLONE_NEWUSER, || {});
    let own = map(&[(0, 4242, 1)]);
    mappings::write(waiting.pid, &own, &own).expect("map");
    assert_eq!(waiting.read("uid_map"), "0 4242 1");
    assert_eq!(waiting.read("gid_map"), "0 4242 1");
    assert_eq!(waiting.read("setgroups"), "deny");
    let waiting = Waiting::new(libc::CLONE_NEWUSER, || {});
    let others = map(&[(0, 4242, 1), (1, 300_000, 10)]);
    let fault = mappings::write(waiting.pid, &others, &own).expect_err("not its own");
    assert!(fault.to_string().contains("newuidmap"), "{fault}");
}

fn a_user_maps_what_it_was_given() {
    if !root() || !may_make_user_namespaces() {
        return;
    }
    if Command::new("newuidmap").output().is_err() || !std::path::Path::new("/etc/subuid").exists() {
        println!("{SKIPPED}newuidmap is not installed");
        return;
    }
    become_user("somebody:300000:65536\n");
    let waiting = Waiting::new(libc::CLONE_NEWUSER, || {});
    let given = map(&[(0, 4242, 1), (1, 300_000, 65_536)]);
    mappings::write(waiting.pid, &given, &given).expect("map");
    assert_eq!(waiting.read("uid_map"), "0 4242 1\n1 300000 65536");
    assert_eq!(waiting.read("gid_map"), "0 4242 1\n1 300000 65536");
    assert_eq!(waiting.read("setgroups"), "allow");
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("run ip");
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What `ip` says in the namespace of a process.
fn ip_in(waiting: &Waiting, arguments: &str) -> String {
    let output = Command::new("nsenter")
        .args(["-t", &waiting.pid.to_string(), "-n", "ip"])
        .args(arguments.split(' '))
        .output()
        .expect("run nsenter");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Takes this process into a network namespace with a pair of devices.
fn own_network() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
    ip("link add name host0 type veth peer name peer0");
}

fn devices(list: &[(&str, &str)]) -> BTreeMap<String, NetDevice> {
    list.iter().map(|(name, inside)| ((*name).to_owned(), NetDevice { name: (*inside).to_owned() })).collect()
}

fn devices_move_with_their_addresses() {
    if !root() {
        return;
    }
    own_network();
    ip("link set host0 mtu 1389 address 02:11:22:33:44:55 up");
    ip("addr add 10.77.0.2/24 brd 10.77.0.255 dev host0");
    ip("addr add 10.78.0.2 peer 10.78.0.9 dev host0 noprefixroute");
    ip("addr add 10.79.0.2/24 dev host0 scope link");
    ip("addr add 10.80.0.2/24 dev host0 valid_lft 1000 preferred_lft 900");
    let ipv6 = std::path::Path::new("/proc/sys/net/ipv6").exists();
    if ipv6 {
        ip("addr add fd00:77::2/64 dev host0 nodad");
    }
    let waiting = Waiting::new(libc::CLONE_NEWNET, || {});
    let namespace = waiting.namespace("net");
    netdevices::move_into(&devices(&[("host0", "inside0")]), namespace.as_fd()).expect("move it");
    let link = ip_in(&waiting, "-o link show dev inside0");
    assert!(link.contains("mtu 1389") && link.contains("02:11:22:33:44:55"), "{link}");
    assert!(link.split(['<', '>']).nth(1).is_some_and(|flags| flags.split(',').any(|f| f == "UP")), "{link}");
    let addresses = ip_in(&waiting, "-o addr show dev inside0");
    for wanted in [
        "inet 10.77.0.2/24 brd 10.77.0.255 scope global inside0",
        "inet 10.78.0.2 peer 10.78.0.9/32 scope global noprefixroute inside0",
    ] {
        assert!(addresses.contains(wanted), "{wanted} in {addresses}");
    }
    assert!(!addresses.contains("10.79") && !addresses.contains("10.80"), "{addresses}");
    assert_eq!(addresses.contains("fd00:77::2/64"), ipv6, "{addresses}");
    let here = Command::new("ip").args(["-o", "link"]).output().expect("run ip").stdout;
    assert!(!String::from_utf8_lossy(&here).contains("host0:"));
    // Another, which the kernel numbers because `inside0` is taken.
    netdevices::move_into(&devices(&[("peer0", "inside%d")]), namespace.as_fd()).expect("move the other");
    let link = ip_in(&waiting, "-o link show dev inside1");
    assert!(link.contains("UP"), "{link}");
}

fn devices_that_cannot_move_are_an_error() {
    if !root() {
        return;
    }
    own_network();
    let waiting = Waiting::new(libc::CLONE_NEWNET, || {
        let _ =
            Command::new("ip").args("link add name taken0 type veth peer name taken1".split(' ')).status();
    });
    let namespace = waiting.namespace("net");
    let attempt = |name, inside| {
        netdevices::move_into(&devices(&[(name, inside)]), namespace.as_fd()).expect_err("it cannot move")
    };
    let fault = attempt("nosuch0", "");
    assert_eq!(fault.kind(), fault::Kind::NotFound, "{fault}");
    let fault = attempt("host0", "taken0");
    assert_eq!(fault.kind(), fault::Kind::Conflict, "{fault}");
    // It stayed where it was.
    ip("link show dev host0");
    let own = std::fs::File::open("/proc/self/ns/net").expect("the own namespace");
    let fault =
        netdevices::move_into(&devices(&[("host0", "other0")]), own.as_fd()).expect_err("it is there");
    assert!(fault.to_string().contains("linux.netDevices"), "{fault}");
    ip("link show dev host0");
    let fault = attempt("lo", "lo7");
    assert!(fault.to_string().starts_with("linux.netDevices: move lo"), "{fault}");
}
