//! Seccomp sections compiled to filter programs, once: a program is kept under the hash of the section's text.

use crate::message::Failure;
use crate::process::Filter;
use fault::{Explain, Fault, Result};
use libseccomp::{
    ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, ScmpVersion,
};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::catch_unwind;
use std::path::Path;
use sys::process::{Fork, clone3, exit_now, pidfd_send_signal};

/// Raised when the way programs are compiled changes.
const FORMAT: &str = "staves seccomp 1";
const MAGIC: &[u8; 8] = b"stvscmp1";

/// Linux's numbers for the errors used when a profile names none.
const EPERM: i32 = libc::EPERM;

/// What libseccomp makes of rules that compare several arguments grows beyond all bounds with their number: sixteen of six
/// comparisons each take it a quarter of a minute. Real profiles take it milliseconds.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// BPF_MAXINSNS (linux/bpf_common.h).
const MAX_INSTRUCTIONS: usize = 4096;

/// The program for a seccomp section, from `cache` if it was compiled before. A cache that cannot be written to costs
/// time, nothing else.
pub fn filter(section: &str, cache: &Path) -> Result<Filter> {
    let version = ScmpVersion::current().explain(|| "ask libseccomp for its version".into())?;
    let mut hash = Sha256::new();
    hash.update(format!("{FORMAT} {version:?} {}\n", std::env::consts::ARCH));
    hash.update(section);
    let name: String = hash.finalize().iter().fold(String::new(), |name, byte| name + &format!("{byte:02x}"));
    let path = cache.join(name);
    if let Ok(stored) = std::fs::read(&path)
        && let Some(filter) = decode(&stored)
    {
        return Ok(filter);
    }
    let filter = compile_apart(section)?;
    let _ = std::fs::create_dir_all(cache);
    let temporary = path.with_extension(std::process::id().to_string());
    if std::fs::write(&temporary, encode(&filter)).is_err() || std::fs::rename(&temporary, &path).is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    Ok(filter)
}

fn encode(filter: &Filter) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(filter.flags.to_le_bytes());
    bytes.extend((filter.program.len() as u32).to_le_bytes());
    bytes.extend(&filter.program);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Filter> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (flags, rest) = rest.split_first_chunk::<4>()?;
    let (length, program) = rest.split_first_chunk::<4>()?;
    // A file cut short by a crash is no program.
    (program.len() == u32::from_le_bytes(*length) as usize)
        .then(|| Filter { program: program.to_vec(), flags: u32::from_le_bytes(*flags) })
}

/// [`compile`] in a process of its own, which can be ended when it takes too long. A process with several threads cannot make
/// one, and waits.
fn compile_apart(section: &str) -> Result<Filter> {
    let memory = memory_file()?;
    match clone3(0, None) {
        Ok(Fork::Child) => {
            // Not a step further up, where the caller's work would be done, or undone, twice.
            let answer = catch_unwind(|| match compile(section) {
                Ok(filter) => encode(&filter),
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
            decode(&answer).ok_or_else(|| match serde_json::from_slice::<Failure>(&answer) {
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

/// Compiles a section, however long that takes.
pub fn compile(section: &str) -> Result<Filter> {
    let profile: LinuxSeccomp =
        serde_json::from_str(section).explain_as(fault::Kind::Input, || "linux.seccomp".into())?;
    if profile.listener_path().is_some() {
        return Err(Fault::input("linux.seccomp.listenerPath is not supported"));
    }
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let mut context = ScmpFilterContext::new(default).explain(|| "start a seccomp filter".into())?;
    let architectures: Vec<ScmpArch> =
        profile.architectures().iter().flatten().map(|a| architecture(*a)).collect::<Result<_>>()?;
    for one in &architectures {
        if !context.is_arch_present(*one).unwrap_or(false) {
            context.add_arch(*one).explain(|| format!("add architecture {one:?} to the seccomp filter"))?;
        }
    }
    // no_new_privs is the runtime's business.
    context.set_ctl_nnp(false).explain(|| "set up the seccomp filter".into())?;
    // A binary tree over the numbers; libseccomp before 2.5 has only the list.
    let _ = context.set_ctl_optimize(2);
    for syscall in profile.syscalls().iter().flatten() {
        let wanted = action(syscall.action(), syscall.errno_ret())?;
        if wanted == default {
            continue;
        }
        for name in syscall.names() {
            // A call libseccomp does not know cannot be named in a filter; see `answer_enosys`.
            let Ok(number) = ScmpSyscall::from_name(name) else { continue };
            add_rules(&mut context, wanted, number, syscall.args().as_deref().unwrap_or_default())
                .map_err(|fault| fault.within(format!("seccomp rule for {name}")))?;
        }
    }
    let flags = flags(&profile)?;
    let program = export(&context)?;
    let program = if matches!(default, ScmpAction::Errno(_)) {
        answer_enosys(&program, &newest_numbers(&profile, &architectures))
    } else {
        program
    };
    let count = program.len() / sys::seccomp::INSTRUCTION_BYTES;
    if count > MAX_INSTRUCTIONS {
        return Err(Fault::input(format!(
            "linux.seccomp: its filter has {count} instructions, and the kernel takes {MAX_INSTRUCTIONS}"
        ))
        .hint("fewer rules, or fewer that compare arguments"));
    }
    Ok(Filter { program, flags })
}

/// libseccomp before 2.6 writes to descriptors only.
fn export(context: &ScmpFilterContext) -> Result<Vec<u8>> {
    let memory = memory_file()?;
    context.export_bpf(&memory).explain(|| "compile the seccomp filter".into())?;
    read_whole(memory)
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

/// The conditions of one rule must all hold; several on one argument, which libseccomp does not take, become rules of
/// their own, as the other runtimes do it.
fn add_rules(
    context: &mut ScmpFilterContext,
    action: ScmpAction,
    syscall: ScmpSyscall,
    arguments: &[LinuxSeccompArg],
) -> Result<()> {
    let mut compares = Vec::new();
    let mut per_index: BTreeMap<usize, usize> = BTreeMap::new();
    for argument in arguments {
        *per_index.entry(argument.index()).or_default() += 1;
        compares.push(compare(argument)?);
    }
    if per_index.values().all(|count| *count == 1) {
        return context
            .add_rule_conditional(action, syscall, &compares)
            .map(|_| ())
            .explain(|| "add it".into());
    }
    for one in compares {
        context.add_rule_conditional(action, syscall, &[one]).explain(|| "add it".into())?;
    }
    Ok(())
}

fn compare(argument: &LinuxSeccompArg) -> Result<ScmpArgCompare> {
    let index = u32::try_from(argument.index())
        .ok()
        .filter(|index| *index < 6)
        .ok_or_else(|| Fault::input(format!("system calls have no argument {}", argument.index())))?;
    let (operator, datum) = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        LinuxSeccompOperator::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        LinuxSeccompOperator::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        LinuxSeccompOperator::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (ScmpCompareOp::MaskedEqual(argument.value()), argument.value_two().unwrap_or(0))
        }
    };
    Ok(ScmpArgCompare::new(index, operator, datum))
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<ScmpAction> {
    let number = errno.map_or(EPERM, |errno| errno as i32);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => ScmpAction::KillThread,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => ScmpAction::Trap,
        LinuxSeccompAction::ScmpActErrno => ScmpAction::Errno(number),
        LinuxSeccompAction::ScmpActTrace => ScmpAction::Trace(number as u16),
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActNotify => {
            return Err(Fault::input("seccomp action SCMP_ACT_NOTIFY is not supported"));
        }
    })
}

fn flags(profile: &LinuxSeccomp) -> Result<u32> {
    let mut flags = 0;
    for flag in profile.flags().iter().flatten() {
        flags |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => sys::seccomp::FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => sys::seccomp::FLAG_SPEC_ALLOW,
            // The process that loads the filter has one thread.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                return Err(Fault::input(
                    "seccomp flag SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is not supported",
                ));
            }
        };
    }
    Ok(flags)
}

fn architecture(arch: Arch) -> Result<ScmpArch> {
    Ok(match arch {
        Arch::ScmpArchNative => ScmpArch::Native,
        Arch::ScmpArchX86 => ScmpArch::X86,
        Arch::ScmpArchX86_64 => ScmpArch::X8664,
        Arch::ScmpArchX32 => ScmpArch::X32,
        Arch::ScmpArchArm => ScmpArch::Arm,
        Arch::ScmpArchAarch64 => ScmpArch::Aarch64,
        Arch::ScmpArchMips => ScmpArch::Mips,
        Arch::ScmpArchMips64 => ScmpArch::Mips64,
        Arch::ScmpArchMips64n32 => ScmpArch::Mips64N32,
        Arch::ScmpArchMipsel => ScmpArch::Mipsel,
        Arch::ScmpArchMipsel64 => ScmpArch::Mipsel64,
        Arch::ScmpArchMipsel64n32 => ScmpArch::Mipsel64N32,
        Arch::ScmpArchPpc => ScmpArch::Ppc,
        Arch::ScmpArchPpc64 => ScmpArch::Ppc64,
        Arch::ScmpArchPpc64le => ScmpArch::Ppc64Le,
        Arch::ScmpArchS390 => ScmpArch::S390,
        Arch::ScmpArchS390x => ScmpArch::S390X,
        Arch::ScmpArchRiscv64 => ScmpArch::Riscv64,
        other => return Err(Fault::input(format!("seccomp architecture {other:?} is not supported"))),
    })
}

/// `AUDIT_ARCH_*` (linux/audit.h) of the architectures for which [`answer_enosys`] works.
fn audit_architecture(arch: ScmpArch) -> Option<u32> {
    match arch {
        ScmpArch::X8664 => Some(0xc000_003e),
        ScmpArch::X86 => Some(0x4000_0003),
        ScmpArch::Aarch64 => Some(0xc000_00b7),
        ScmpArch::Arm => Some(0x4000_0028),
        ScmpArch::Riscv64 => Some(0xc000_00f3),
        ScmpArch::S390X => Some(0x8000_0016),
        ScmpArch::Ppc64Le => Some(0xc000_0015),
        ScmpArch::Loongarch64 => Some(0xc000_0102),
        _ => None,
    }
}

/// For each architecture the highest number of a system call the profile speaks of.
fn newest_numbers(profile: &LinuxSeccomp, architectures: &[ScmpArch]) -> Vec<(u32, u32)> {
    let native = ScmpArch::native();
    let mut all: Vec<ScmpArch> = Vec::new();
    for arch in architectures.iter().chain([&native]) {
        let arch = if *arch == ScmpArch::Native { native } else { *arch };
        if !all.contains(&arch) {
            all.push(arch);
        }
    }
    all.into_iter()
        .filter_map(|arch| {
            let audit = audit_architecture(arch)?;
            let newest = profile
                .syscalls()
                .iter()
                .flatten()
                .flat_map(oci_spec::runtime::LinuxSyscall::names)
                .filter_map(|name| ScmpSyscall::from_name_by_arch(name, arch).ok())
                .map(i32::from)
                // ARM's private calls are far above the common ones.
                .filter(|number| (0..0xf_0000).contains(number))
                .max()?;
            Some((audit, newest as u32))
        })
        .collect()
}

/// Puts a test before the program: a call newer than every call of the profile is answered with `ENOSYS`, as a kernel
/// without it would, so that the C library falls back to an older one. The profile's own answer, `EPERM`, would
/// make programs fail that know how to do without.
fn answer_enosys(program: &[u8], newest: &[(u32, u32)]) -> Vec<u8> {
    const LOAD_WORD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    const RET_ERRNO: u32 = 0x0005_0000;
    // Offsets in struct seccomp_data.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    /// x32's calls carry this bit on x86-64's architecture.
    const X32_BIT: u32 = 0x4000_0000;

    let mut out = Vec::with_capacity(program.len() + newest.len() * 48);
    let mut emit = |code: u16, jump_true: u8, jump_false: u8, k: u32| {
        out.extend(code.to_ne_bytes());
        out.extend([jump_true, jump_false]);
        out.extend(k.to_ne_bytes());
    };
    for (audit, highest) in newest {
        emit(LOAD_WORD, 0, 0, ARCHITECTURE);
        emit(JUMP_EQUAL, 0, 4, *audit);
        emit(LOAD_WORD, 0, 0, NUMBER);
        emit(JUMP_GREATER, 2, 0, X32_BIT - 1);
        emit(JUMP_GREATER, 0, 1, *highest);
        emit(RETURN, 0, 0, RET_ERRNO | libc::ENOSYS as u32);
    }
    out.extend(program);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_file_cut_short_is_no_program() {
        let whole = encode(&Filter { program: vec![1; 16], flags: 2 });
        assert_eq!(decode(&whole).unwrap().flags, 2);
        assert!(decode(&whole[..whole.len() - 1]).is_none());
        assert!(decode(b"").is_none());
    }

    #[test]
    fn what_is_not_supported_is_refused() {
        for bad in [
            r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/x"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#,
            "[]",
        ] {
            assert!(compile(bad).is_err(), "{bad}");
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
