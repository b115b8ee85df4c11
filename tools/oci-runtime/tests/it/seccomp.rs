//! Filters as a program inside meets them, their cache, and agents that decide on calls.

use crate::{Bench, assert_says, wait_until};
use libseccomp::{ScmpNotifReq, ScmpNotifResp, ScmpNotifRespFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use testkit::Ran;

const MKDIR: &str = "83";
const KILLED: i32 = 128 + libc::SIGSYS;

/// What the runtime and a small static program need after the filter is loaded.
const NEEDED: [&str; 36] = [
    "access",
    "arch_prctl",
    "brk",
    "close",
    "close_range",
    "execve",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fstat",
    "futex",
    "getcwd",
    "getrandom",
    "lstat",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "openat",
    "prctl",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sendmsg",
    "set_robust_list",
    "set_tid_address",
    "sigaltstack",
    "stat",
    "statx",
    "write",
    "writev",
];

/// A bench with a program inside that makes system calls by number.
fn bench() -> Option<Bench> {
    if !cfg!(target_arch = "x86_64") {
        testkit::skip("the tests know system calls of x86-64 by number");
        return None;
    }
    let bench = Bench::new()?;
    compile(&bench, "call", include_str!("seccomp.c"), &["-pthread"]).then_some(bench)
}

/// A static C program for the container; `false`, said aloud, where it cannot be made.
fn compile(bench: &Bench, name: &str, source: &str, options: &[&str]) -> bool {
    let path = bench.path().join(format!("{name}.c"));
    std::fs::write(&path, source).unwrap();
    let program = bench.bundle().join("rootfs/bin").join(name);
    let made =
        Command::new("gcc").args(["-static", "-O1"]).args(options).arg("-o").arg(program).arg(path).output();
    let works = made.is_ok_and(|output| output.status.success());
    if !works {
        testkit::skip("there is no gcc with a static C library for this");
    }
    works
}

/// Runs a program in a container with this section.
#[track_caller]
fn run(bench: &Bench, command: &[&str], section: &Value) -> Ran {
    bench.configure(command, |config| config["linux"]["seccomp"] = section.clone());
    bench.run(&bench.id("seccomp"), &[])
}

fn allowing(rules: &Value) -> Value {
    json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"], "syscalls": rules})
}

fn mkdir(action: &str) -> Value {
    json!({"names": ["mkdir"], "action": action})
}

#[test]
fn every_action_has_its_effect() {
    let Some(bench) = bench() else { return };
    let call = ["call", MKDIR, "/made", "0755"];
    let thread = ["call", "thread", MKDIR, "/made", "0755"];
    let mut broken = mkdir("SCMP_ACT_ERRNO");
    broken["errnoRet"] = json!(5);
    for (command, rule, status, said) in [
        (call.as_slice(), mkdir("SCMP_ACT_ERRNO"), 0, "1\n"),
        (&call, broken, 0, "5\n"),
        // Nobody traces.
        (&call, mkdir("SCMP_ACT_TRACE"), 0, "38\n"),
        (&call, mkdir("SCMP_ACT_TRAP"), 77, ""),
        (&call, mkdir("SCMP_ACT_KILL"), KILLED, ""),
        (&thread, mkdir("SCMP_ACT_KILL"), 0, "alive\n"),
        (&thread, mkdir("SCMP_ACT_KILL_THREAD"), 0, "alive\n"),
        (&thread, mkdir("SCMP_ACT_KILL_PROCESS"), KILLED, ""),
        (&call, mkdir("SCMP_ACT_LOG"), 0, "0\n"),
        (&call, mkdir("SCMP_ACT_ALLOW"), 0, "17\n"),
    ] {
        let ran = run(&bench, command, &allowing(&json!([rule]))).expect(status);
        assert_eq!(ran.stdout, said, "{rule}");
    }
}

#[test]
fn arguments_are_compared() {
    let Some(bench) = bench() else { return };
    let compare = |index: u32, op: &str, value: u64| json!({"index": index, "op": op, "value": value});
    let masked = json!([{"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 0o070, "valueTwo": 0o050}]);
    // mkdir's mode is its argument 1, argument 2 is nothing to it.
    for (arguments, calls) in [
        (json!([compare(1, "SCMP_CMP_EQ", 5)]), [("5", "0", true), ("6", "0", false)]),
        (json!([compare(1, "SCMP_CMP_NE", 5)]), [("6", "0", true), ("5", "0", false)]),
        (json!([compare(1, "SCMP_CMP_LT", 5)]), [("4", "0", true), ("5", "0", false)]),
        (json!([compare(1, "SCMP_CMP_LE", 5)]), [("5", "0", true), ("6", "0", false)]),
        (json!([compare(1, "SCMP_CMP_GT", 5)]), [("6", "0", true), ("5", "0", false)]),
        (json!([compare(5, "SCMP_CMP_GE", 0)]), [("6", "0", true), ("5", "0", true)]),
        (masked, [("0757", "0", true), ("0777", "0", false)]),
        // Two arguments must both be so; of two conditions on one, either.
        (
            json!([compare(1, "SCMP_CMP_EQ", 5), compare(2, "SCMP_CMP_EQ", 7)]),
            [("5", "7", true), ("5", "8", false)],
        ),
        (
            json!([compare(1, "SCMP_CMP_EQ", 5), compare(1, "SCMP_CMP_EQ", 6)]),
            [("6", "0", true), ("7", "0", false)],
        ),
    ] {
        let rule =
            json!([{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99, "args": arguments}]);
        for (mode, more, matches) in calls {
            let ran = run(&bench, &["call", MKDIR, "/bin", mode, more], &allowing(&rule)).expect(0);
            assert_eq!(ran.stdout, if matches { "99\n" } else { "17\n" }, "{arguments} {mode} {more}");
        }
    }
}

#[test]
fn calls_newer_than_the_profile_do_not_exist() {
    let Some(bench) = bench() else { return };
    let mut section = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": NEEDED.as_slice(), "action": "SCMP_ACT_ALLOW"}]});
    let said = |section: &Value, call: &[&str]| run(&bench, call, section).expect(0).stdout;
    assert_eq!(said(&section, &["call", "1000"]), "38\n");
    assert_eq!(said(&section, &["call", MKDIR, "/made", "0"]), "1\n");
    section["defaultErrnoRet"] = json!(13);
    assert_eq!(said(&section, &["call", "1000"]), "38\n");
    assert_eq!(said(&section, &["call", MKDIR, "/made", "0"]), "13\n");
    section["defaultErrnoRet"] = Value::Null;
    section["defaultAction"] = json!("SCMP_ACT_KILL");
    assert_eq!(said(&section, &["call", "1000"]), "38\n");
    run(&bench, &["call", MKDIR, "/made", "0"], &section).expect(KILLED);
}

#[test]
fn a_32_bit_program_is_filtered_by_its_own_numbers() {
    let Some(bench) = bench() else { return };
    let options = |number| ["-m32", "-nostdlib", number];
    if !compile(&bench, "mkdir32", include_str!("seccomp32.c"), &options("-DNUMBER=39"))
        || !compile(&bench, "newer32", include_str!("seccomp32.c"), &options("-DNUMBER=1000"))
    {
        return;
    }
    let mut refused = mkdir("SCMP_ACT_ERRNO");
    refused["errnoRet"] = json!(66);
    let mut section = allowing(&json!([refused]));
    run(&bench, &["mkdir32"], &section).expect(KILLED);
    section["architectures"] = json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]);
    run(&bench, &["mkdir32"], &section).expect(66);
    section = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": section["architectures"],
        "syscalls": [{"names": NEEDED.as_slice(), "action": "SCMP_ACT_ALLOW"}]});
    run(&bench, &["newer32"], &section).expect(38);
    run(&bench, &["mkdir32"], &section).expect(1);
}

#[test]
fn what_is_told_is_taken() {
    let Some(bench) = bench() else { return };
    let features: Value = serde_json::from_str(&bench.ran(&["features"]).expect(0).stdout).unwrap();
    let list = |name: &str| features["linux"]["seccomp"][name].as_array().unwrap().clone();
    for name in ["SCMP_ACT_NOTIFY", "SCMP_ACT_KILL", "SCMP_ACT_ERRNO"] {
        assert!(list("actions").contains(&json!(name)), "{name}");
    }
    assert_eq!(list("operators").len(), 7);
    assert_eq!(list("knownFlags").len(), 4);
    let agent = Agent::new(&bench);
    // The operators take turns with the actions.
    let rules: Vec<Value> = list("actions")
        .iter()
        .zip(list("operators").iter().cycle())
        .enumerate()
        .map(|(value, (action, operator))| {
            let argument = json!({"index": 0, "value": value, "valueTwo": value, "op": operator});
            json!({"names": ["vhangup"], "action": action, "args": [argument]})
        })
        .collect();
    let mut section = allowing(&json!(rules));
    section["flags"] = json!(list("supportedFlags"));
    section["listenerPath"] = json!(agent.path);
    run(&bench, &["true"], &section).expect(0);
    agent.told();
    // Architectures of one filter have one byte order.
    let big = [
        "M68K",
        "MIPS",
        "MIPS64",
        "MIPS64N32",
        "PARISC",
        "PARISC64",
        "PPC",
        "PPC64",
        "S390",
        "S390X",
        "SHEB",
    ]
    .map(|name| json!(format!("SCMP_ARCH_{name}")));
    for architecture in list("archs").into_iter().filter(|name| !big.contains(name)) {
        run(&bench, &["true"], &json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [architecture]}))
            .expect(0);
    }
}

#[test]
fn a_cache_is_believed_only_if_it_can_be() {
    let Some(bench) = bench() else { return };
    let cache = bench.root().join("@seccomp");
    let call = ["call", MKDIR, "/bin", "0"];
    let refusing = |errno: u32| {
        let mut rule = mkdir("SCMP_ACT_ERRNO");
        rule["errnoRet"] = json!(errno);
        allowing(&json!([rule]))
    };
    let entries = || -> Vec<PathBuf> {
        std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let said = |errno: u32| run(&bench, &call, &refusing(errno)).expect(0).stdout;
    assert_eq!(said(50), "50\n");
    let [file] = entries().try_into().unwrap();
    let whole = std::fs::read(&file).unwrap();
    assert_eq!(said(51), "51\n");
    let other = entries().into_iter().find(|path| *path != file).unwrap();
    // From the cache.
    let before = std::fs::metadata(&file).unwrap().ino();
    assert_eq!(said(50), "50\n");
    assert_eq!(std::fs::metadata(&file).unwrap().ino(), before);

    let mut damaged = whole.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let write = |bytes: &[u8]| std::fs::write(&file, bytes).unwrap();
    let spoilt: [(&str, &dyn Fn()); 6] = [
        ("cut short", &|| write(&whole[..whole.len() / 2])),
        ("damaged", &|| write(&damaged)),
        ("of another profile", &|| write(&std::fs::read(&other).unwrap())),
        ("writable by others", &|| {
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o666)).unwrap();
        }),
        ("of another user", &|| std::os::unix::fs::chown(&file, Some(1000), None).unwrap()),
        ("a link", &|| {
            std::fs::remove_file(&file).unwrap();
            symlink(&other, &file).unwrap();
        }),
    ];
    for (what, spoil) in spoilt {
        spoil();
        assert_eq!(said(50), "50\n", "{what}");
        let data = std::fs::symlink_metadata(&file).unwrap();
        assert_eq!((data.uid(), data.mode()), (0, libc::S_IFREG | 0o600), "{what}");
        assert_eq!(std::fs::read(&file).unwrap(), whole, "{what}");
    }
    assert_eq!(entries().len(), 2);
}

/// Answers calls: a directory of mode 0711 is refused with `ENOMEDIUM`, everything else goes on.
struct Agent {
    path: PathBuf,
    states: Receiver<Value>,
}

impl Agent {
    fn new(bench: &Bench) -> Agent {
        let path = bench.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let (sender, states) = channel();
        // It ends with the test.
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let (state, notifications) = received(&connection.unwrap());
                std::thread::spawn(move || answer(&notifications));
                sender.send(state).unwrap();
            }
        });
        Agent { path, states }
    }

    #[track_caller]
    fn told(&self) -> Value {
        self.states.recv_timeout(Duration::from_secs(30)).expect("a message to the agent")
    }
}

fn received(connection: &std::os::unix::net::UnixStream) -> (Value, OwnedFd) {
    let mut text = Vec::new();
    let mut listener = None;
    loop {
        let mut bytes = [0; 256];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let count =
            recvmsg(connection, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)
                .unwrap()
                .bytes;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                assert!(listener.replace(fds.collect::<Vec<_>>()).is_none(), "descriptors once");
            }
        }
        if count == 0 {
            break;
        }
        text.extend(&bytes[..count]);
    }
    let [listener] = listener.expect("descriptors").try_into().expect("one descriptor");
    (serde_json::from_slice(&text).unwrap(), listener)
}

fn answer(notifications: &OwnedFd) {
    let fd = notifications.as_raw_fd();
    while let Ok(request) = ScmpNotifReq::receive(fd) {
        let refused = request.data.syscall == libseccomp::ScmpSyscall::from(libc::SYS_mkdir as i32)
            && request.data.args[1] == 0o711;
        let answer = if refused {
            ScmpNotifResp::new_error(request.id, -libc::ENOMEDIUM, ScmpNotifRespFlags::empty())
        } else {
            ScmpNotifResp::new_continue(request.id, ScmpNotifRespFlags::empty())
        };
        // Whoever asked may be gone.
        let _ = answer.respond(fd);
    }
}

/// Leaves to an agent, beside mkdir, what the runtime itself does between loading the filter and the command.
fn asking(agent: &Agent) -> Value {
    let names = [
        "mkdir",
        "accept4",
        "close",
        "close_range",
        "execve",
        "futex",
        "prctl",
        "recvmsg",
        "sendmsg",
        "setresuid",
    ];
    let mut section = allowing(&json!([{"names": names, "action": "SCMP_ACT_NOTIFY"}]));
    section["listenerPath"] = json!(agent.path);
    section["listenerMetadata"] = json!("what=ever");
    section
}

#[test]
fn an_agent_decides() {
    let Some(bench) = bench() else { return };
    let agent = Agent::new(&bench);
    for no_new_privileges in [true, false] {
        let id = bench.id(&format!("notify-{no_new_privileges}"));
        bench.configure(&["sleep", "1000"], |config| {
            config["linux"]["seccomp"] = asking(&agent);
            config["process"]["noNewPrivileges"] = json!(no_new_privileges);
            config["annotations"] = json!({"a": "b".repeat(1000)});
        });
        bench.create(&id);
        let told = agent.told();
        let state = bench.state(&id);
        assert_eq!(told["ociVersion"], "1.3.0");
        assert_eq!(told["fds"], json!(["seccompFd"]));
        assert_eq!(told["pid"], state["pid"]);
        assert_eq!(told["metadata"], "what=ever");
        assert_eq!(told["state"]["id"], json!(id));
        assert_eq!(told["state"]["status"], "creating");
        assert_eq!(told["state"]["pid"], state["pid"]);
        assert_eq!(told["state"]["bundle"], json!(bench.bundle()));
        assert_eq!(told["state"]["annotations"]["a"].as_str().unwrap().len(), 1000);
        bench.ran(&["start", &id]).expect(0);
        bench.wait_for(&id, "running");

        let ran = bench.ran(&["exec", &id, "call", MKDIR, "/refused", "0711"]).expect(0);
        assert_eq!(ran.stdout, format!("{}\n", libc::ENOMEDIUM));
        let told = agent.told();
        assert_eq!(told["state"]["status"], "running");
        assert_eq!(told["state"]["pid"], state["pid"]);
        assert_ne!(told["pid"], state["pid"]);
        assert_eq!(told["metadata"], "what=ever");
        let made = format!("/made-{no_new_privileges}");
        let ran = bench.ran(&["exec", &id, "call", MKDIR, &made, "0755"]).expect(0);
        assert_eq!(ran.stdout, "0\n");
        agent.told();
        bench.ran(&["delete", "--force", &id]).expect(0);
        bench.assert_gone(&id);
    }
}

#[test]
fn an_agent_decides_in_a_user_namespace_and_for_run() {
    let Some(bench) = bench() else { return };
    let agent = Agent::new(&bench);
    std::fs::set_permissions(bench.path(), PermissionsExt::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(bench.bundle().join("rootfs"), Some(100_000), Some(100_000)).unwrap();
    bench.configure(&["call", MKDIR, "/refused", "0711"], |config| {
        config["linux"]["seccomp"] = asking(&agent);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = map.clone();
        config["linux"]["gidMappings"] = map;
        config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
    });
    let ran = bench.run(&bench.id("run"), &[]).expect(0);
    assert_eq!(ran.stdout, format!("{}\n", libc::ENOMEDIUM));
    agent.told();
    bench.configure(&["sleep", "1000"], |_| {});
    let id = bench.id("user");
    bench.start(&id);
    agent.told();
    let ran = bench.ran(&["exec", &id, "call", MKDIR, "/refused", "0711"]).expect(0);
    assert_eq!(ran.stdout, format!("{}\n", libc::ENOMEDIUM));
    agent.told();
}

#[test]
fn an_agent_decides_where_there_may_be_one_process() {
    let Some(bench) = bench() else { return };
    let agent = Agent::new(&bench);
    bench.configure(&["sleep", "1000"], |config| {
        config["linux"]["seccomp"] = asking(&agent);
        config["linux"]["resources"]["pids"] = json!({"limit": 1});
    });
    let id = bench.id("one");
    bench.start(&id);
    agent.told();
    let ran = bench.ran(&["exec", &id, "call", MKDIR, "/refused", "0711"]).expect(0);
    assert_eq!(ran.stdout, format!("{}\n", libc::ENOMEDIUM));
    agent.told();
    bench.ran(&["delete", "--force", &id]).expect(0);
    bench.assert_gone(&id);
}

/// What else the profile says of a call holds as if there were no agent.
#[test]
fn an_agent_changes_nothing_for_other_calls() {
    let Some(bench) = bench() else { return };
    let agent = Agent::new(&bench);
    let mut section = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
    "listenerPath": agent.path, "syscalls": [
        {"names": NEEDED.as_slice(), "action": "SCMP_ACT_ALLOW"},
        {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY", "args": [{"index": 1, "value": 0o711, "op": "SCMP_CMP_EQ"}]},
    ]});
    for (call, errno) in [
        (["call", MKDIR, "/refused", "0711"], libc::ENOMEDIUM),
        (["call", MKDIR, "/refused", "0755"], libc::EPERM),
        // rmdir
        (["call", "84", "/refused", "0"], libc::EPERM),
        (["call", "1000", "0", "0"], libc::ENOSYS),
    ] {
        assert_eq!(run(&bench, &call, &section).expect(0).stdout, format!("{errno}\n"), "{call:?}");
        agent.told();
    }
    section["flags"] = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]);
    assert_eq!(run(&bench, &["call", MKDIR, "/refused", "0711"], &section).expect(0).stdout, "123\n");
}

#[test]
fn an_agent_that_is_not_there_is_told_and_nothing_is_left() {
    let Some(bench) = bench() else { return };
    let id = bench.id("seccomp");
    let path = bench.path().join("nobody.sock");
    let mut section = allowing(&json!([mkdir("SCMP_ACT_NOTIFY")]));
    let ran = run(&bench, &["true"], &section).expect(1);
    assert_says(&ran, "linux.seccomp.listenerPath: is missing");
    section["listenerPath"] = json!(path);
    let ran = run(&bench, &["true"], &section).expect(1);
    assert_says(&ran, "failed to connect with seccomp agent at ");
    assert_says(&ran, "nobody.sock");
    bench.assert_gone(&id);
    // Nobody is told of a filter that asks nobody.
    run(&bench, &["true"], &{
        let mut section = allowing(&json!([mkdir("SCMP_ACT_LOG")]));
        section["listenerPath"] = json!(path);
        section
    })
    .expect(0);
    // Somebody who ends instead of listening.
    let listener = UnixListener::bind(&path).unwrap();
    bench.configure(&["sleep", "1000"], |config| config["linux"]["seccomp"] = section.clone());
    bench.create(&id);
    drop(listener);
    bench.ran(&["start", &id]).expect(0);
    bench.wait_for(&id, "running");
    let ran = bench.ran(&["exec", &id, "true"]).expect(255);
    assert_says(&ran, "failed to connect with seccomp agent at ");
    assert_says(&ran, "nobody.sock");
    wait_until(|| bench.ran(&["ps", &id]).stdout.lines().count() == 2, "a process of exec is left");
}

/// Nothing of the runtime's is left to be done behind a filter but what it takes to become the process.
#[test]
fn a_filter_may_refuse_what_the_runtime_needs() {
    let Some(bench) = Bench::new() else { return };
    bench.configure(&["echo", "there"], |config| {
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["close_range", "rt_sigaction", "rt_sigprocmask"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {"names": ["faccessat2"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]});
    });
    assert_eq!(bench.run(&bench.id("refusing"), &[]).expect(0).stdout, "there\n");
}
