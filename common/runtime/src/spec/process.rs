//! The process a container is made for (config.md, "Process").

use super::null_is_default;
use crate::capabilities;
use fault::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    #[serde(deserialize_with = "null_is_default")]
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    #[serde(deserialize_with = "null_is_default")]
    pub user: User,
    #[serde(deserialize_with = "null_is_default")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub cwd: PathBuf,
    pub capabilities: Option<CapabilityLists>,
    #[serde(deserialize_with = "null_is_default")]
    pub rlimits: Vec<Rlimit>,
    #[serde(deserialize_with = "null_is_default")]
    pub no_new_privileges: bool,
    #[serde(deserialize_with = "null_is_default")]
    pub apparmor_profile: String,
    #[serde(deserialize_with = "null_is_default")]
    pub selinux_label: String,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    /// Of processes that are executed in a running container; not of its first.
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

impl Process {
    pub fn cwd(&self) -> &Path {
        &self.cwd
    }

    /// Rows and columns, where there is a terminal to have them.
    pub fn console_size(&self) -> Option<(u16, u16)> {
        let size = self.console_size.filter(|_| self.terminal)?;
        Some((u16::try_from(size.height).ok()?, u16::try_from(size.width).ok()?))
    }

    /// Refuses capabilities that contradict each other. Apart from [`Process::check`], so that whoever tells of
    /// [`Process::warnings`] can do so before: a name that is none may be why.
    pub fn check_capabilities(&self) -> Result<()> {
        self.capabilities.as_ref().map_or(Ok(()), capabilities::check)
    }

    /// What will be left out of it here; see [`super::Spec::warnings`].
    pub fn warnings(&self, in_user_namespace: bool) -> Vec<String> {
        let Some(lists) = &self.capabilities else { return Vec::new() };
        capabilities::warnings(lists, if in_user_namespace { None } else { capabilities::held() })
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ConsoleSize {
    pub height: u64,
    pub width: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    #[serde(deserialize_with = "null_is_default")]
    pub uid: u32,
    #[serde(deserialize_with = "null_is_default")]
    pub gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    #[serde(deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<u32>,
}

/// Names as capabilities(7) has them; unknown ones are left out with a warning.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CapabilityLists {
    #[serde(deserialize_with = "null_is_default")]
    pub bounding: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub effective: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub inheritable: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub permitted: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub ambient: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// Resources by name (getrlimit(2)).
pub const RESOURCES: [(&str, u32); 16] = [
    ("RLIMIT_CPU", libc::RLIMIT_CPU),
    ("RLIMIT_FSIZE", libc::RLIMIT_FSIZE),
    ("RLIMIT_DATA", libc::RLIMIT_DATA),
    ("RLIMIT_STACK", libc::RLIMIT_STACK),
    ("RLIMIT_CORE", libc::RLIMIT_CORE),
    ("RLIMIT_RSS", libc::RLIMIT_RSS),
    ("RLIMIT_NPROC", libc::RLIMIT_NPROC),
    ("RLIMIT_NOFILE", libc::RLIMIT_NOFILE),
    ("RLIMIT_MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("RLIMIT_AS", libc::RLIMIT_AS),
    ("RLIMIT_LOCKS", libc::RLIMIT_LOCKS),
    ("RLIMIT_SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("RLIMIT_MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", libc::RLIMIT_NICE),
    ("RLIMIT_RTPRIO", libc::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", libc::RLIMIT_RTTIME),
];

impl Rlimit {
    /// The resource's number; `None` for a name that is none.
    pub fn resource(&self) -> Option<u32> {
        RESOURCES.iter().find(|(name, _)| *name == self.kind).map(|(_, number)| *number)
    }
}

/// sched_setattr(2).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    #[serde(deserialize_with = "null_is_default")]
    pub policy: String,
    #[serde(deserialize_with = "null_is_default")]
    pub nice: i32,
    #[serde(deserialize_with = "null_is_default")]
    pub priority: i32,
    #[serde(deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
    /// Nanoseconds, as are the next two.
    #[serde(deserialize_with = "null_is_default")]
    pub runtime: u64,
    #[serde(deserialize_with = "null_is_default")]
    pub deadline: u64,
    #[serde(deserialize_with = "null_is_default")]
    pub period: u64,
}

/// ioprio_set(2).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    #[serde(deserialize_with = "null_is_default")]
    pub class: String,
    /// 0, the highest, to 7.
    #[serde(deserialize_with = "null_is_default")]
    pub priority: i64,
}

/// Lists of CPUs (`0-3,7`); an empty one changes nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CpuAffinity {
    /// Before the process joins the container's control groups.
    #[serde(deserialize_with = "null_is_default")]
    pub initial: String,
    /// Afterwards.
    #[serde(rename = "final", deserialize_with = "null_is_default")]
    pub last: String,
}
