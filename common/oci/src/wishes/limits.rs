//! `--ulimit` and `--sysctl`.

use fault::{Fault, Result};
use oci_spec::runtime::PosixRlimitType;

/// No limit, as the kernel writes it (`RLIM_INFINITY`).
pub const UNLIMITED: u64 = u64::MAX;

/// One resource limit (getrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ulimit {
    pub kind: PosixRlimitType,
    pub soft: u64,
    pub hard: u64,
}

/// docker's names of the resources.
const NAMES: [(&str, PosixRlimitType); 16] = [
    ("as", PosixRlimitType::RlimitAs),
    ("core", PosixRlimitType::RlimitCore),
    ("cpu", PosixRlimitType::RlimitCpu),
    ("data", PosixRlimitType::RlimitData),
    ("fsize", PosixRlimitType::RlimitFsize),
    ("locks", PosixRlimitType::RlimitLocks),
    ("memlock", PosixRlimitType::RlimitMemlock),
    ("msgqueue", PosixRlimitType::RlimitMsgqueue),
    ("nice", PosixRlimitType::RlimitNice),
    ("nofile", PosixRlimitType::RlimitNofile),
    ("nproc", PosixRlimitType::RlimitNproc),
    ("rss", PosixRlimitType::RlimitRss),
    ("rtprio", PosixRlimitType::RlimitRtprio),
    ("rttime", PosixRlimitType::RlimitRttime),
    ("sigpending", PosixRlimitType::RlimitSigpending),
    ("stack", PosixRlimitType::RlimitStack),
];

/// docker's name of a resource.
pub fn ulimit_name(kind: PosixRlimitType) -> &'static str {
    NAMES.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name)
}

/// `name=soft[:hard]`; -1 or `unlimited` means no limit, a missing hard limit is the soft one.
pub fn ulimit(text: &str) -> Result<Ulimit> {
    let wrong = |why: String| {
        Fault::input(format!("\"{text}\" is not a limit: {why}"))
            .hint("name=soft[:hard]: nofile=1024:4096, core=-1")
    };
    let (name, values) = text.split_once('=').ok_or_else(|| wrong("there is no \"=\"".to_owned()))?;
    let kind = NAMES.iter().find(|(known, _)| *known == name).map(|(_, kind)| *kind).ok_or_else(|| {
        wrong(format!("there is no resource \"{name}\"; there are {}", NAMES.map(|(name, _)| name).join(" ")))
    })?;
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let value = |text: &str| match text {
        "-1" | "unlimited" => Some(UNLIMITED),
        digits => digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten(),
    };
    let soft = value(soft).ok_or_else(|| wrong(format!("\"{soft}\" is not a number")))?;
    let hard = value(hard).ok_or_else(|| wrong(format!("\"{hard}\" is not a number")))?;
    if soft > hard {
        return Err(wrong("the soft limit is above the hard one".to_owned()));
    }
    Ok(Ulimit { kind, soft, hard })
}

/// Which namespace a kernel parameter belongs to; those of none would change the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SysctlScope {
    Network,
    Ipc,
}

/// System V limits and shared memory, each IPC namespace has its own.
const IPC_SYSCTLS: [&str; 9] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "kernel.msg_next_id",
];

/// The scope of a kernel parameter.
///
/// Fails on one no namespace holds, and on names that are not plain: they become a path below `/proc/sys`.
pub fn sysctl(name: &str) -> Result<SysctlScope> {
    let plain = name.split(['.', '/']).all(|part| !part.is_empty())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':'));
    if !plain {
        return Err(Fault::input(format!("\"{name}\" is not a kernel parameter"))
            .hint("names as in sysctl(8): net.ipv4.ip_forward"));
    }
    if name.starts_with("net.") {
        Ok(SysctlScope::Network)
    } else if IPC_SYSCTLS.contains(&name) || name.starts_with("fs.mqueue.") {
        Ok(SysctlScope::Ipc)
    } else {
        Err(Fault::input(format!("the kernel parameter {name} is not a container's own"))
            .hint("a container has its own net.*, fs.mqueue.*, kernel.shm*, kernel.msg* and kernel.sem"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits() {
        let parse = |text: &str| ulimit(text).map(|u| (ulimit_name(u.kind), u.soft, u.hard)).ok();
        assert_eq!(parse("nofile=1024:4096"), Some(("nofile", 1024, 4096)));
        assert_eq!(parse("nproc=5"), Some(("nproc", 5, 5)));
        assert_eq!(parse("core=-1"), Some(("core", UNLIMITED, UNLIMITED)));
        assert_eq!(parse("core=0:unlimited"), Some(("core", 0, UNLIMITED)));
        for text in [
            "",
            "nofile",
            "nofile=",
            "nofile=a",
            "nofile=2:1",
            "nofile=-2",
            "files=1",
            "NOFILE=1",
            "core=-1:0",
            "cpu=+1",
        ] {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sysctls() {
        assert_eq!(sysctl("net.ipv4.ip_forward").unwrap(), SysctlScope::Network);
        assert_eq!(sysctl("net.ipv4.conf.eth0/100.forwarding").unwrap(), SysctlScope::Network);
        assert_eq!(sysctl("kernel.shmmax").unwrap(), SysctlScope::Ipc);
        assert_eq!(sysctl("fs.mqueue.msg_max").unwrap(), SysctlScope::Ipc);
        for name in [
            "",
            "vm.swappiness",
            "kernel.hostname",
            "net",
            "net..x",
            "net.../kernel/core_pattern",
            "net./..",
            "net.a b",
            "/etc",
        ] {
            assert!(sysctl(name).is_err(), "{name}");
        }
    }
}
