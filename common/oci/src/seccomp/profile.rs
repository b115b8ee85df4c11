//! Profiles in docker's JSON format: the runtime specification's `linux.seccomp` with conditions.

use super::{Condition, Target, argument, syscall};
use fault::{Fault, Result};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSeccompOperator,
};
use serde::Deserialize;
use std::path::PathBuf;

/// A parsed profile, not yet resolved for a machine. Unknown members are passed over, as docker does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    #[serde(default)]
    default_action: Option<LinuxSeccompAction>,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<Arch>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    listener_path: Option<PathBuf>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Syscall>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: Arch,
    #[serde(default)]
    sub_architectures: Option<Vec<Arch>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Syscall {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: LinuxSeccompAction,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Arg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Arg {
    #[serde(default)]
    index: usize,
    #[serde(default)]
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: LinuxSeccompOperator,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// seccomp(2) looks at six arguments.
const MAX_ARGUMENTS: usize = 6;

impl Profile {
    /// Fails with input, naming line and column, on what is not a profile.
    pub fn parse(text: &str) -> Result<Profile> {
        // serde would take a list as the members in order.
        if !text.trim_start().starts_with('{') {
            return Err(Fault::input("not a seccomp profile: not a JSON object"));
        }
        serde_json::from_str(text).map_err(|error| Fault::input("not a seccomp profile").because(error))
    }

    /// The filter for one container; `None` when the profile says nothing at all, which docker takes as no filter.
    pub fn resolve(&self, target: &Target) -> Result<Option<LinuxSeccomp>> {
        let calls = self.syscalls.as_deref().unwrap_or_default();
        let Some(default_action) = self.default_action else {
            return if calls.is_empty() {
                Ok(None)
            } else {
                Err(Fault::input("the seccomp profile has no defaultAction"))
            };
        };
        let mut syscalls = Vec::with_capacity(calls.len());
        for call in calls {
            if call.holds(target)? {
                syscalls.push(call.resolve()?);
            }
        }
        let mut seccomp = LinuxSeccomp::default();
        seccomp
            .set_default_action(default_action)
            .set_default_errno_ret(self.default_errno_ret)
            .set_architectures(self.architectures(target)?)
            .set_flags(self.flags.clone().filter(|flags| !flags.is_empty()))
            .set_listener_path(self.listener_path.clone().filter(|path| !path.as_os_str().is_empty()))
            .set_listener_metadata(self.listener_metadata.clone().filter(|text| !text.is_empty()))
            .set_syscalls(Some(syscalls));
        Ok(Some(seccomp))
    }

    fn architectures(&self, target: &Target) -> Result<Option<Vec<Arch>>> {
        let listed = self.architectures.as_deref().unwrap_or_default();
        let map = self.arch_map.as_deref().unwrap_or_default();
        if !listed.is_empty() && !map.is_empty() {
            return Err(Fault::input("the seccomp profile has both architectures and archMap"));
        }
        let mut architectures = listed.to_vec();
        if let Some(entry) = map.iter().find(|entry| entry.architecture == target.architecture.native) {
            architectures.push(entry.architecture);
            architectures.extend(entry.sub_architectures.iter().flatten());
        }
        Ok(Some(architectures).filter(|list| !list.is_empty()))
    }
}

impl Syscall {
    fn holds(&self, target: &Target) -> Result<bool> {
        let none = Filter::default();
        let (includes, excludes) =
            (self.includes.as_ref().unwrap_or(&none), self.excludes.as_ref().unwrap_or(&none));
        let condition = Condition {
            arches: includes.arches.as_deref().unwrap_or_default(),
            not_arches: excludes.arches.as_deref().unwrap_or_default(),
            caps: includes.caps.as_deref().unwrap_or_default(),
            not_caps: excludes.caps.as_deref().unwrap_or_default(),
            kernel: includes.min_kernel.as_deref().map(kernel).transpose()?,
            not_kernel: excludes.min_kernel.as_deref().map(kernel).transpose()?,
        };
        Ok(condition.holds(target))
    }

    fn resolve(&self) -> Result<oci_spec::runtime::LinuxSyscall> {
        let names = match (&self.name, self.names.as_deref().unwrap_or_default()) {
            (Some(name), []) if !name.is_empty() => vec![name.clone()],
            (None, names) if !names.is_empty() => names.to_vec(),
            (Some(name), names) if name.is_empty() && !names.is_empty() => names.to_vec(),
            (Some(_), [_, ..]) => {
                return Err(Fault::input("a rule of the seccomp profile has both name and names"));
            }
            _ => return Err(Fault::input("a rule of the seccomp profile names no system call")),
        };
        let args = self.args.as_deref().unwrap_or_default();
        if let Some(arg) = args.iter().find(|arg| arg.index >= MAX_ARGUMENTS) {
            return Err(Fault::input(format!(
                "the seccomp profile compares argument {} of a system call",
                arg.index
            ))
            .hint("arguments are numbered 0 to 5"));
        }
        let args = args
            .iter()
            .map(|arg| {
                argument(arg.index, arg.op, arg.value, Some(arg.value_two).filter(|value| *value != 0))
            })
            .collect();
        Ok(syscall(names, self.action, self.errno_ret, args))
    }
}

/// `4.8` as numbers.
fn kernel(text: &str) -> Result<(u32, u32)> {
    text.split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| {
            Fault::input(format!("the seccomp profile's minKernel \"{text}\" is not of the form 4.8"))
        })
}
