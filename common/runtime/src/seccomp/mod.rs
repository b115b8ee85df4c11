//! Seccomp sections compiled to filter programs, once: a program is kept under the hash of the section's text.

mod agent;
mod cache;
mod compile;
mod instructions;
mod profile;
mod support;

pub use agent::{Agent, Connection, load_notify};
pub use compile::compile;
pub use support::Support;

use crate::message::Failure;
use fault::{Explain, Fault, Result};
use libseccomp::ScmpVersion;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::catch_unwind;
use std::path::Path;
use sys::process::{Fork, clone3, exit_now, pidfd_send_signal};

/// What libseccomp makes of rules that compare several arguments grows beyond all bounds with their number: sixteen of six
/// comparisons each take it a quarter of a minute. Real profiles take it milliseconds.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A compiled filter and its flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Without `notify`, all of it; with it, everything but that.
    pub program: Vec<u8>,
    /// `SECCOMP_FILTER_FLAG_*` of seccomp(2).
    pub flags: u32,
    /// The calls that are left to an [`Agent`], as a filter of their own: it is loaded as soon as the container is made,
    /// for the agent is told then, and what waits for the order to start needs calls that the rest may forbid.
    pub notify: Option<Vec<u8>>,
}

impl Filter {
    /// Those of [`Filter::load`] and [`load_notify`] together.
    pub fn all_flags(&self) -> u32 {
        self.flags | self.notify.as_ref().map_or(0, |_| sys::seccomp::FLAG_NEW_LISTENER)
    }

    /// Loads all but [`load_notify`]'s part (seccomp(2)).
    pub fn load(&self) -> Result<()> {
        // Only with a listener.
        let flags = self.flags & !sys::seccomp::FLAG_WAIT_KILLABLE_RECV;
        sys::seccomp::load(&self.program, flags).explain(|| "load the seccomp filter".into())
    }
}

/// The program for a seccomp section, from `cache` if it was compiled before. A cache that cannot be written to costs
/// time, nothing else.
pub fn filter(section: &str, cache: &Path) -> Result<Filter> {
    let version = ScmpVersion::current().explain(|| "ask libseccomp for its version".into())?;
    let key = cache::Key::of(section, &format!("{version:?}"));
    if let Some(filter) = cache::read(cache, &key) {
        return Ok(filter);
    }
    let filter = compile_apart(section)?;
    cache::store(cache, &key, &filter);
    Ok(filter)
}

/// [`compile`] in a process of its own, which can be ended when it takes too long. A process with several threads cannot make
/// one, and waits.
fn compile_apart(section: &str) -> Result<Filter> {
    let memory = memory_file()?;
    match clone3(0, None) {
        Ok(Fork::Child) => {
            // Not a step further up, where the caller's work would be done, or undone, twice.
            let answer = catch_unwind(|| match compile(section) {
                Ok(filter) => cache::to_message(&filter),
                Err(fault) => serde_json::to_vec(&Failure::of(&fault, None)).unwrap_or_default(),
            });
            let written = File::from(memory).write_all(&answer.unwrap_or_default());
            exit_now(i32::from(written.is_err()))
        }
        Ok(Fork::Parent { pidfd, .. }) => {
            let ended = ended_in_time(&pidfd);
            if !matches!(ended, Ok(true)) {
                // It may just have ended.
                let _ = pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
            }
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            if !ended.explain(|| "compile the seccomp filter".into())? {
                return Err(Fault::input(format!(
                    "linux.seccomp: its filter is not compiled after {} seconds",
                    PATIENCE.tv_sec
                ))
                .hint("rules that compare several arguments cost most: use fewer of them"));
            }
            let answer = read_whole(memory)?;
            cache::from_message(&answer).ok_or_else(|| match serde_json::from_slice::<Failure>(&answer) {
                Ok(failure) => failure.into_fault(),
                Err(_) => Fault::failed("compile the seccomp filter: the process that did it ended early"),
            })
        }
        Err(error) if error.raw_os_error() == Some(libc::EDEADLK) => compile(section),
        Err(error) => Err(Fault::failed("start a process to compile the seccomp filter in").because(error)),
    }
}

fn ended_in_time(pidfd: &OwnedFd) -> std::io::Result<bool> {
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&PATIENCE)) {
            // By a signal, which comes once; the whole time again is still an end.
            Err(Errno::INTR) => {}
            other => return Ok(other? > 0),
        }
    }
}

fn memory_file() -> Result<OwnedFd> {
    rustix::fs::memfd_create("seccomp", rustix::fs::MemfdFlags::CLOEXEC)
        .explain(|| "make a memory file".into())
}

fn read_whole(memory: OwnedFd) -> Result<Vec<u8>> {
    let mut file = File::from(memory);
    let mut bytes = Vec::new();
    file.rewind().and_then(|()| file.read_to_end(&mut bytes)).explain(|| "read the seccomp filter".into())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const PROFILE: &str = r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,
        "architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
        "syscalls":[{"names":["read","write","exit_group","no_such_call"],"action":"SCMP_ACT_ALLOW"},
                    {"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]}]}"#;

    #[test]
    fn compiles_once() {
        let cache = std::env::temp_dir().join(format!("seccomp-{}", std::process::id()));
        let first = filter(PROFILE, &cache).unwrap();
        assert!(
            first.program.len().is_multiple_of(sys::seccomp::INSTRUCTION_BYTES) && !first.program.is_empty()
        );
        let kept: Vec<_> = std::fs::read_dir(&cache).unwrap().collect();
        assert_eq!(kept.len(), 1);
        assert_eq!(filter(PROFILE, &cache).unwrap().program, first.program);
        std::fs::remove_dir_all(cache).unwrap();
    }

    /// The profile with one member replaced, by its JSON pointer.
    fn with(pointer: &str, value: Value) -> String {
        let mut profile: Value = serde_json::from_str(PROFILE).unwrap();
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        match (profile.pointer_mut(parent).unwrap(), name.parse::<usize>()) {
            (Value::Array(elements), Ok(index)) => elements[index] = value,
            (object, _) => object[name] = value,
        }
        profile.to_string()
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rule = |names: &str, action: &str| json!({"names": [names], "action": action});
        for (pointer, value, words) in [
            (
                "/defaultAction",
                json!("SCMP_ACT_NOTIFY"),
                "linux.seccomp.defaultAction: SCMP_ACT_NOTIFY cannot",
            ),
            (
                "/defaultAction",
                json!("SCMP_ACT_FOO"),
                "linux.seccomp.defaultAction: \"SCMP_ACT_FOO\" is none of",
            ),
            ("/defaultAction", json!("SCMP_ACT_KILL"), "linux.seccomp.defaultErrnoRet: SCMP_ACT_KILL has no"),
            ("/defaultAction", json!(1), "linux.seccomp.defaultAction"),
            ("/defaultErrnoRet", json!(4095), "linux.seccomp.defaultErrnoRet: 4095 is not within 0 to 4094"),
            ("/defaultErrnoRet", json!(-1), "linux.seccomp.defaultErrnoRet"),
            ("/architectures/1", json!("SCMP_ARCH_VAX"), "linux.seccomp.architectures[1]: \"SCMP_ARCH_VAX\""),
            ("/architectures/2", json!("SCMP_ARCH_S390X"), "SCMP_ARCH_S390X"),
            (
                "/flags",
                json!(["SECCOMP_FILTER_FLAG_FOO"]),
                "linux.seccomp.flags[0]: \"SECCOMP_FILTER_FLAG_FOO\"",
            ),
            (
                "/flags",
                json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
                "linux.seccomp.flags[1]",
            ),
            ("/listenerMetadata", json!("x"), "linux.seccomp.listenerMetadata"),
            ("/syscalls/0", rule("mkdir", "SCMP_ACT_NOTIFY"), "linux.seccomp.listenerPath: is missing"),
            ("/syscalls/0/names", json!([]), "linux.seccomp.syscalls[0].names: is empty"),
            ("/syscalls/0/names", json!(["read", ""]), "linux.seccomp.syscalls[0].names[1]"),
            ("/syscalls/0/names", Value::Null, "linux.seccomp.syscalls[0].names"),
            ("/syscalls/0/action", json!("SCMP_ACT_FOO"), "linux.seccomp.syscalls[0].action"),
            ("/syscalls/0/errnoRet", json!(1), "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_ALLOW has no"),
            ("/syscalls/1/args/0/index", json!(6), "linux.seccomp.syscalls[1].args[0].index"),
            ("/syscalls/1/args/0/op", json!("SCMP_CMP_ABOUT"), "linux.seccomp.syscalls[1].args[0].op"),
            ("/syscalls/1/args/0/value", json!(-1), "linux.seccomp.syscalls[1].args[0].value"),
            ("/syscalls", json!({}), "linux.seccomp.syscalls"),
        ] {
            let fault = compile(&with(pointer, value.clone())).expect_err(&format!("{pointer} {value}"));
            assert_eq!(fault.kind(), fault::Kind::Input, "{fault}");
            assert!(fault.to_string().contains(words), "{pointer} {value}: {fault}");
        }
        let section = r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/s",
            "syscalls":[{"names":["write"],"action":"SCMP_ACT_NOTIFY"}]}"#;
        assert!(compile(section).unwrap_err().to_string().contains("cannot be used for the write syscall"));
        assert!(compile("[]").is_err() && compile("").is_err());
    }

    #[test]
    fn what_is_null_or_not_there_is_the_same() {
        let bare = compile(r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#).unwrap();
        let null = r#"{"defaultAction":"SCMP_ACT_ALLOW","defaultErrnoRet":null,"architectures":null,"flags":null,
            "listenerPath":"","listenerMetadata":null,"syscalls":null,"unknown":1}"#;
        assert_eq!(compile(null).unwrap(), bare);
    }

    #[test]
    fn a_listener_is_for_rules_that_notify() {
        let section = |action: &str| {
            format!(
                r#"{{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/s","syscalls":[{{"names":["mkdir"],"action":"{action}"}}]}}"#
            )
        };
        assert!(compile(&section("SCMP_ACT_LOG")).unwrap().notify.is_none());
        let filter = compile(&section("SCMP_ACT_NOTIFY")).unwrap();
        assert_eq!(filter.notify.unwrap().len(), filter.program.len());
    }

    #[test]
    fn every_architecture_is_taken_or_named() {
        for one in profile::all_architectures() {
            let section = with("/architectures", json!([one.name]));
            match compile(&section) {
                Ok(_) => assert!(support::knows_architecture(one)),
                Err(fault) => assert!(fault.to_string().contains(one.name), "{fault}"),
            }
        }
    }

    #[test]
    fn more_than_the_kernel_takes_is_refused() {
        let section = |count: usize| {
            let rule = |value| {
                format!(
                    r#"{{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{{"index":0,"value":{value},"op":"SCMP_CMP_EQ"}}]}}"#
                )
            };
            let rules: Vec<String> = (0..count).map(rule).collect();
            format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{}]}}"#, rules.join(","))
        };
        assert!(compile(&section(1000)).is_ok());
        let fault = compile(&section(4200)).unwrap_err();
        assert_eq!(fault.kind(), fault::Kind::Input);
        assert!(fault.to_string().contains("the kernel takes 4096"), "{fault}");
    }

    #[test]
    fn an_architecture_listed_again_and_again_counts_once() {
        let section =
            |list: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","architectures":[{list}]}}"#);
        let once = compile(&section(r#""SCMP_ARCH_X86_64","SCMP_ARCH_X86""#)).unwrap().program;
        let many = r#""SCMP_ARCH_X86_64","SCMP_ARCH_X86","#.repeat(500) + r#""SCMP_ARCH_NATIVE""#;
        assert_eq!(compile(&section(&many)).unwrap().program.len(), once.len());
    }
}
