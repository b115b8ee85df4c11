//! `config`: what the user asks for. Every flag of `ctr-create` and the `-p` of `net-attach`, as data. Members are
//! named after the flags, lists in the plural. Where a flag has a string grammar the member takes the same
//! strings; `mounts` and `ports` take objects too.

use super::{Extra, Port};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Config {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Replaces the image's Cmd.
    #[serde(skip_serializing_if = "Option::is_none", alias = "cmd", alias = "args")]
    pub command: Option<Vec<String>>,
    /// Replaces the image's Entrypoint; `[]` or `[""]` means none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value` each, over the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", alias = "cwd")]
    pub workdir: Option<String>,
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub tty: bool,
    /// Keep the container's stdin open.
    #[serde(skip_serializing_if = "is_false")]
    pub interactive: bool,
    /// Remove the container when it ends (`--rm`).
    #[serde(skip_serializing_if = "is_false", alias = "rm")]
    pub auto_remove: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub init: bool,

    // Files
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountWish>,
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// `/dev/x[:/dev/y[:rwm]]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,

    // Security
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub privileged: bool,
    /// `no-new-privileges[=bool]`, `seccomp=unconfined|builtin|FILE`, `apparmor=PROFILE`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,

    // Limits
    /// Bytes, or a string with a unit (`512m`); at most this much memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Number of CPUs, fractions allowed: `1.5` or `"1.5"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Number of processes and threads; -1 or 0 means unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// `name=soft[:hard]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,

    // Namespaces
    /// `bridge` (default), `none`, `host`, `container:ID`, `private`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// `private` (default), `host`, `container:ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// `private` (default), `host`, `container:ID`, `shareable`, `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    /// `private` (default) or `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,

    // Network
    /// Ports to publish: strings in docker's `-p` grammar, or objects.
    #[serde(skip_serializing_if = "Vec::is_empty", alias = "publish")]
    pub ports: Vec<PortWish>,

    // Metadata and life
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Seconds between the stop signal and SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// `no` (default), `on-failure[:N]`, `always`, `unless-stopped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// `json-file` (default) or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<String>,
    /// For `json-file`: `max-size`, `max-file`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub log_opts: BTreeMap<String, String>,
    /// Name or path of another OCI runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// A directory to use as the root file system instead of an image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// `os/architecture[/variant]`; the image must be of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,

    #[serde(flatten)]
    pub extra: Extra,
}

// serde's `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// A number, or a number with a unit as people write it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum Quantity {
    Integer(i64),
    Float(f64),
    Text(String),
}

/// A mount, as an object or in the grammar of `--volume` (`source:target[:options]`) or `--mount` (`type=…,…`).
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
// A container has a handful; a box would be in the way of everybody who looks inside.
#[allow(clippy::large_enum_variant)]
pub enum MountWish {
    Text(String),
    Mount(Mount),
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mount {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Host path of a bind, name of a volume (absent: a volume without a name).
    #[serde(default, alias = "src", skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Absolute path in the container.
    #[serde(alias = "dst", alias = "destination")]
    pub target: String,
    #[serde(default, alias = "readonly", alias = "ro", skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// `rprivate` (default), `private`, `rshared`, `shared`, `rslave`, `slave`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<String>,
    /// A bind without what is mounted below the source.
    #[serde(default, skip_serializing_if = "is_false")]
    pub non_recursive: bool,
    /// Make the source directory of a bind when it is missing, as `-v` does.
    #[serde(default, skip_serializing_if = "is_false")]
    pub create_source: bool,
    /// A volume is not filled with what the image has at the target.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_copy: bool,
    /// Of a tmpfs: bytes, or with a unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Of a tmpfs: octal permissions, `"1777"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Further mount options: `noexec`, `nosuid`, `nodev`, `uid=…`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum PortWish {
    Text(String),
    Number(u16),
    Port(Port),
}
