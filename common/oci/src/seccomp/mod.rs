//! System call filters: the built-in profile and profiles in docker's JSON format, resolved for one container into
//! what the runtime specification holds. The same input always gives the same output, so that a compiled filter can
//! be kept under its hash.

mod builtin;
mod profile;

pub use profile::Profile;

use crate::capabilities::CapSet;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSyscall,
};

/// What a profile's conditions look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The container's bounding set.
    pub capabilities: CapSet,
    pub kernel: (u32, u32),
    pub architecture: Architecture,
}

/// A machine's architecture with its names in docker's profiles (Go's) and in libseccomp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Architecture {
    /// As in `std::env::consts::ARCH`.
    pub name: &'static str,
    docker: &'static str,
    native: Arch,
    /// Others whose programs the kernel runs too.
    others: &'static [Arch],
}

const ARCHITECTURES: [Architecture; 7] = [
    Architecture {
        name: "x86_64",
        docker: "amd64",
        native: Arch::ScmpArchX86_64,
        others: &[Arch::ScmpArchX86, Arch::ScmpArchX32],
    },
    Architecture {
        name: "aarch64",
        docker: "arm64",
        native: Arch::ScmpArchAarch64,
        others: &[Arch::ScmpArchArm],
    },
    Architecture { name: "arm", docker: "arm", native: Arch::ScmpArchArm, others: &[] },
    Architecture { name: "riscv64", docker: "riscv64", native: Arch::ScmpArchRiscv64, others: &[] },
    Architecture {
        name: "s390x",
        docker: "s390x",
        native: Arch::ScmpArchS390x,
        others: &[Arch::ScmpArchS390],
    },
    Architecture { name: "powerpc64", docker: "ppc64le", native: Arch::ScmpArchPpc64le, others: &[] },
    Architecture { name: "loongarch64", docker: "loong64", native: Arch::ScmpArchLoongarch64, others: &[] },
];

impl Architecture {
    /// By the name Rust has for it; `None` for one no profile knows, which then has no filter.
    pub fn by_name(name: &str) -> Option<Architecture> {
        ARCHITECTURES.into_iter().find(|known| known.name == name)
    }

    /// The architecture this program was built for.
    pub fn native() -> Option<Architecture> {
        Architecture::by_name(std::env::consts::ARCH)
    }
}

/// When a rule holds: on one of these architectures and none of those, with all of these capabilities and none of
/// those, from one kernel on and before another. An empty list asks for nothing.
#[derive(Clone, Copy)]
struct Condition<'a, S> {
    arches: &'a [S],
    not_arches: &'a [S],
    caps: &'a [S],
    not_caps: &'a [S],
    kernel: Option<(u32, u32)>,
    not_kernel: Option<(u32, u32)>,
}

impl<S: AsRef<str>> Condition<'_, S> {
    fn holds(&self, target: &Target) -> bool {
        let arch = |list: &[S]| list.iter().any(|name| name.as_ref() == target.architecture.docker);
        let cap = |name: &S| target.capabilities.has(name.as_ref());
        (self.arches.is_empty() || arch(self.arches))
            && !arch(self.not_arches)
            && self.caps.iter().all(cap)
            && !self.not_caps.iter().any(cap)
            && self.kernel.is_none_or(|from| target.kernel >= from)
            && self.not_kernel.is_none_or(|from| target.kernel < from)
    }
}

/// EPERM, for what no rule allows.
const EPERM: u32 = 1;

/// The built-in profile for a container.
pub fn builtin(target: &Target) -> LinuxSeccomp {
    let mut architectures = vec![target.architecture.native];
    architectures.extend(target.architecture.others);
    let always =
        builtin::ALLOWED.iter().flat_map(|names| names.split_ascii_whitespace()).map(str::to_owned).collect();
    let mut syscalls = vec![syscall(always, LinuxSeccompAction::ScmpActAllow, None, Vec::new())];
    for rule in builtin::RULES.iter().filter(|rule| rule.when.holds(target)) {
        let action = match rule.errno {
            None => LinuxSeccompAction::ScmpActAllow,
            Some(_) => LinuxSeccompAction::ScmpActErrno,
        };
        let args = rule.args.iter().map(|arg| argument(arg.index, arg.op, arg.value, None)).collect();
        let names = rule.names.iter().map(|name| (*name).to_owned()).collect();
        syscalls.push(syscall(names, action, rule.errno, args));
    }
    let mut seccomp = LinuxSeccomp::default();
    seccomp
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(architectures))
        .set_syscalls(Some(syscalls));
    seccomp
}

fn syscall(
    names: Vec<String>,
    action: LinuxSeccompAction,
    errno: Option<u32>,
    args: Vec<LinuxSeccompArg>,
) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names)
        .set_action(action)
        .set_errno_ret(errno)
        .set_args(Some(args).filter(|args| !args.is_empty()));
    call
}

fn argument(
    index: usize,
    op: oci_spec::runtime::LinuxSeccompOperator,
    value: u64,
    value_two: Option<u64>,
) -> LinuxSeccompArg {
    let builder = LinuxSeccompArgBuilder::default().index(index).op(op).value(value);
    let builder = match value_two {
        Some(value) => builder.value_two(value),
        None => builder,
    };
    builder.build().expect("every member has a default")
}

#[cfg(test)]
mod tests;
