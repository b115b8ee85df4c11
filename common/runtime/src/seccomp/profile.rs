//! The section `linux.seccomp` of the runtime specification (config-linux.md, "Seccomp"), read strictly: what is wrong is told
//! with the member it is in.

use crate::spec::bad;
use fault::{Fault, Result};
use libseccomp::{ScmpAction, ScmpArch, ScmpArgCompare, ScmpCompareOp};
use serde::Deserialize;
use std::path::PathBuf;

/// The specification's names. The number of an error stands for none yet.
pub(super) const ACTIONS: [(&str, ScmpAction); 9] = [
    ("SCMP_ACT_ALLOW", ScmpAction::Allow),
    ("SCMP_ACT_ERRNO", ScmpAction::Errno(0)),
    ("SCMP_ACT_KILL", ScmpAction::KillThread),
    ("SCMP_ACT_KILL_PROCESS", ScmpAction::KillProcess),
    ("SCMP_ACT_KILL_THREAD", ScmpAction::KillThread),
    ("SCMP_ACT_LOG", ScmpAction::Log),
    ("SCMP_ACT_NOTIFY", ScmpAction::Notify),
    ("SCMP_ACT_TRACE", ScmpAction::Trace(0)),
    ("SCMP_ACT_TRAP", ScmpAction::Trap),
];

/// The mask belongs to a rule.
pub(super) const OPERATORS: [(&str, ScmpCompareOp); 7] = [
    ("SCMP_CMP_EQ", ScmpCompareOp::Equal),
    ("SCMP_CMP_GE", ScmpCompareOp::GreaterEqual),
    ("SCMP_CMP_GT", ScmpCompareOp::Greater),
    ("SCMP_CMP_LE", ScmpCompareOp::LessOrEqual),
    ("SCMP_CMP_LT", ScmpCompareOp::Less),
    ("SCMP_CMP_MASKED_EQ", ScmpCompareOp::MaskedEqual(0)),
    ("SCMP_CMP_NE", ScmpCompareOp::NotEqual),
];

/// With the kernel's numbers, `SECCOMP_FILTER_FLAG_*` (linux/seccomp.h).
pub(super) const FLAGS: [(&str, u32); 4] = [
    ("SECCOMP_FILTER_FLAG_LOG", sys::seccomp::FLAG_LOG),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", sys::seccomp::FLAG_SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_TSYNC", sys::seccomp::FLAG_TSYNC),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", sys::seccomp::FLAG_WAIT_KILLABLE_RECV),
];

/// An architecture as libseccomp has it and as the kernel tells it to filters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Architecture {
    pub name: &'static str,
    pub scmp: ScmpArch,
    /// `AUDIT_ARCH_*` (linux/audit.h).
    pub audit: u32,
}

const fn architecture(name: &'static str, scmp: ScmpArch, audit: u32) -> Architecture {
    Architecture { name, scmp, audit }
}

pub(super) const ARCHITECTURES: [Architecture; 22] = [
    architecture("SCMP_ARCH_AARCH64", ScmpArch::Aarch64, 0xc000_00b7),
    architecture("SCMP_ARCH_ARM", ScmpArch::Arm, 0x4000_0028),
    architecture("SCMP_ARCH_LOONGARCH64", ScmpArch::Loongarch64, 0xc000_0102),
    architecture("SCMP_ARCH_M68K", ScmpArch::M68k, 0x0000_0004),
    architecture("SCMP_ARCH_MIPS", ScmpArch::Mips, 0x0000_0008),
    architecture("SCMP_ARCH_MIPS64", ScmpArch::Mips64, 0x8000_0008),
    architecture("SCMP_ARCH_MIPS64N32", ScmpArch::Mips64N32, 0xa000_0008),
    architecture("SCMP_ARCH_MIPSEL", ScmpArch::Mipsel, 0x4000_0008),
    architecture("SCMP_ARCH_MIPSEL64", ScmpArch::Mipsel64, 0xc000_0008),
    architecture("SCMP_ARCH_MIPSEL64N32", ScmpArch::Mipsel64N32, 0xe000_0008),
    architecture("SCMP_ARCH_PARISC", ScmpArch::Parisc, 0x0000_000f),
    architecture("SCMP_ARCH_PARISC64", ScmpArch::Parisc64, 0x8000_000f),
    architecture("SCMP_ARCH_PPC", ScmpArch::Ppc, 0x0000_0014),
    architecture("SCMP_ARCH_PPC64", ScmpArch::Ppc64, 0x8000_0015),
    architecture("SCMP_ARCH_PPC64LE", ScmpArch::Ppc64Le, 0xc000_0015),
    architecture("SCMP_ARCH_RISCV64", ScmpArch::Riscv64, 0xc000_00f3),
    architecture("SCMP_ARCH_S390", ScmpArch::S390, 0x0000_0016),
    architecture("SCMP_ARCH_S390X", ScmpArch::S390X, 0x8000_0016),
    architecture("SCMP_ARCH_SH", ScmpArch::Sh, 0x4000_002a),
    architecture("SCMP_ARCH_SHEB", ScmpArch::Sheb, 0x0000_002a),
    architecture("SCMP_ARCH_X32", ScmpArch::X32, 0xc000_003e),
    architecture("SCMP_ARCH_X86", ScmpArch::X86, 0x4000_0003),
];

/// The machine's own in most cases, and the only one that shares its number with another.
pub(super) const X86_64: Architecture = architecture("SCMP_ARCH_X86_64", ScmpArch::X8664, 0xc000_003e);

/// Not in the specification's list; libseccomp's name for whatever the machine has.
const NATIVE: &str = "SCMP_ARCH_NATIVE";

pub(super) fn all_architectures() -> impl Iterator<Item = Architecture> {
    ARCHITECTURES.into_iter().chain([X86_64])
}

/// MAX_ERRNO (linux/err.h) is 4095, which libseccomp takes no more.
const MAX_ERRNO: u64 = 4094;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Profile {
    default_action: String,
    default_errno_ret: Option<u64>,
    architectures: Option<Vec<String>>,
    flags: Option<Vec<String>>,
    pub listener_path: Option<PathBuf>,
    pub listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rule {
    pub names: Vec<String>,
    action: String,
    errno_ret: Option<u64>,
    args: Option<Vec<Argument>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u64,
    value: u64,
    value_two: Option<u64>,
    op: String,
}

impl Profile {
    pub fn parse(section: &str) -> Result<Profile> {
        let mut profile: Profile = serde_json::from_str(section).map_err(|error| {
            let member = match record::member::path_of(section.as_bytes(), &error) {
                path if path.is_empty() => "linux.seccomp".to_owned(),
                path => format!("linux.seccomp.{path}"),
            };
            Fault::input(member).because(error)
        })?;
        // Programs written in Go write "" for what is not there.
        profile.listener_path = profile.listener_path.filter(|path| !path.as_os_str().is_empty());
        profile.listener_metadata = profile.listener_metadata.filter(|text| !text.is_empty());
        if profile.listener_metadata.is_some() && profile.listener_path.is_none() {
            return Err(bad("linux.seccomp.listenerMetadata", "is nothing without a listenerPath"));
        }
        Ok(profile)
    }

    pub fn default_action(&self) -> Result<ScmpAction> {
        const MEMBER: &str = "linux.seccomp.defaultAction";
        if self.default_action == "SCMP_ACT_NOTIFY" {
            // Nothing would go on before an agent has answered, nor the container's own making.
            return Err(bad(MEMBER, "SCMP_ACT_NOTIFY cannot be used as default action"));
        }
        action(&self.default_action, self.default_errno_ret, MEMBER, "linux.seccomp.defaultErrnoRet")
    }

    /// Each once, and only such as the libseccomp linked in knows.
    pub fn architectures(&self) -> Result<Vec<Architecture>> {
        let mut found: Vec<Architecture> = Vec::new();
        for (index, name) in self.architectures.iter().flatten().enumerate() {
            let member = || format!("linux.seccomp.architectures[{index}]");
            let wanted = if name == NATIVE {
                native()
            } else {
                all_architectures()
                    .find(|known| known.name == name)
                    .ok_or_else(|| bad(&member(), format!("{name:?} is unknown")))?
            };
            if !super::support::knows_architecture(wanted) {
                return Err(bad(&member(), format!("the libseccomp of this program does not know {name}")));
            }
            if found.iter().all(|other| other.name != wanted.name) {
                found.push(wanted);
            }
        }
        Ok(found)
    }

    /// As the kernel numbers them, if it knows them. Without TSYNC: whoever loads the filter has one thread.
    ///
    /// Where the member is not there, `SPEC_ALLOW`, as runc and crun have it: kernels before 5.16 slow down what has a filter
    /// without it. An empty list is none.
    pub fn flags(&self) -> Result<u32> {
        let Some(names) = &self.flags else {
            let default = sys::seccomp::FLAG_SPEC_ALLOW;
            return Ok(if sys::seccomp::knows_flag(default) { default } else { 0 });
        };
        let mut flags = 0;
        for (index, name) in names.iter().enumerate() {
            let member = || format!("linux.seccomp.flags[{index}]");
            let (_, flag) = FLAGS.iter().find(|(known, _)| known == name).ok_or_else(|| {
                bad(&member(), format!("{name:?} is none of {:?}", FLAGS.map(|(name, _)| name)))
            })?;
            if *flag == sys::seccomp::FLAG_TSYNC {
                continue;
            }
            if !sys::seccomp::knows_flag(*flag) {
                return Err(bad(&member(), format!("the kernel does not know {name}")));
            }
            if *flag == sys::seccomp::FLAG_WAIT_KILLABLE_RECV && !self.notifies() {
                return Err(bad(
                    &member(),
                    format!("{name} is for rules with SCMP_ACT_NOTIFY; there are none"),
                ));
            }
            flags |= flag;
        }
        Ok(flags)
    }

    pub fn rules(&self) -> &[Rule] {
        self.syscalls.as_deref().unwrap_or_default()
    }

    /// Whether some system calls are left to somebody else.
    pub fn notifies(&self) -> bool {
        self.rules().iter().any(|rule| rule.action == "SCMP_ACT_NOTIFY")
    }

    /// Where [`Profile::notifies`], there must be somebody to tell, and a way to: the same rules as runc's.
    pub fn check_listener(&self) -> Result<()> {
        if !self.notifies() {
            return Ok(());
        }
        for (index, rule) in self.rules().iter().enumerate() {
            if rule.action == "SCMP_ACT_NOTIFY" && rule.names.iter().any(|name| name == "write") {
                return Err(bad(
                    &format!("linux.seccomp.syscalls[{index}].names"),
                    "SCMP_ACT_NOTIFY cannot be used for the write syscall",
                ));
            }
        }
        if self.listener_path.is_none() {
            return Err(bad(
                "linux.seccomp.listenerPath",
                "is missing, and there are rules with SCMP_ACT_NOTIFY",
            ));
        }
        Ok(())
    }
}

impl Rule {
    /// `member`: of this rule, for errors.
    pub fn action(&self, member: &str) -> Result<ScmpAction> {
        action(&self.action, self.errno_ret, &format!("{member}.action"), &format!("{member}.errnoRet"))
    }

    pub fn check_names(&self, member: &str) -> Result<()> {
        if self.names.is_empty() {
            return Err(bad(&format!("{member}.names"), "is empty"));
        }
        match self.names.iter().position(String::is_empty) {
            Some(index) => Err(bad(&format!("{member}.names[{index}]"), "an empty string is no system call")),
            None => Ok(()),
        }
    }

    /// Rules, each a list of conditions that must all hold. Several conditions on one argument, which libseccomp does not
    /// take, are a rule each, so that one of all must hold, as the other runtimes do it.
    pub fn conditions(&self, member: &str) -> Result<Vec<Vec<ScmpArgCompare>>> {
        let arguments = self.args.as_deref().unwrap_or_default();
        let compares: Vec<ScmpArgCompare> = arguments
            .iter()
            .enumerate()
            .map(|(index, argument)| argument.compare(&format!("{member}.args[{index}]")))
            .collect::<Result<_>>()?;
        let mut seen = [false; 6];
        let each_once = arguments.iter().all(|one| !std::mem::replace(&mut seen[one.index as usize], true));
        if each_once {
            return Ok(vec![compares]);
        }
        Ok(compares.into_iter().map(|one| vec![one]).collect())
    }
}

impl Argument {
    fn compare(&self, member: &str) -> Result<ScmpArgCompare> {
        if self.index >= 6 {
            return Err(bad(
                &format!("{member}.index"),
                format!("system calls have no argument {}, only 0 to 5", self.index),
            ));
        }
        let (_, operator) = OPERATORS.into_iter().find(|(name, _)| *name == self.op).ok_or_else(|| {
            let known = OPERATORS.map(|(name, _)| name);
            bad(&format!("{member}.op"), format!("{:?} is none of {known:?}", self.op))
        })?;
        let (operator, datum) = match operator {
            ScmpCompareOp::MaskedEqual(_) => {
                (ScmpCompareOp::MaskedEqual(self.value), self.value_two.unwrap_or(0))
            }
            other => (other, self.value),
        };
        Ok(ScmpArgCompare::new(self.index as u32, operator, datum))
    }
}

fn action(name: &str, errno: Option<u64>, member: &str, errno_member: &str) -> Result<ScmpAction> {
    let (_, action) = ACTIONS
        .into_iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| bad(member, format!("{name:?} is none of {:?}", ACTIONS.map(|(name, _)| name))))?;
    let within = |most: u64| {
        let number = errno.unwrap_or(libc::EPERM as u64);
        if number > most {
            Err(bad(errno_member, format!("{number} is not within 0 to {most}")))
        } else {
            Ok(number)
        }
    };
    match action {
        ScmpAction::Errno(_) => Ok(ScmpAction::Errno(within(MAX_ERRNO)? as i32)),
        ScmpAction::Trace(_) => Ok(ScmpAction::Trace(within(u16::MAX.into())? as u16)),
        other if errno.is_none() => Ok(other),
        _ => Err(bad(errno_member, format!("{name} has no number of an error"))),
    }
}

pub(super) fn native() -> Architecture {
    let native = ScmpArch::native();
    all_architectures().find(|known| known.scmp == native).unwrap_or(X86_64)
}
