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
    /// `NAME=value` each, the caller's own variables: under the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_host: Vec<String>,
    /// `NAME=value` each, with `${NAME}` of the image's variables in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env_merge: Vec<String>,
    /// Names of variables that are left out unless `env` has them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unsetenv: Vec<String>,
    /// No variables but those of `env`.
    #[serde(skip_serializing_if = "is_false")]
    pub unsetenv_all: bool,
    #[serde(skip_serializing_if = "Option::is_none", alias = "cwd")]
    pub workdir: Option<String>,
    /// `user[:group]`, names or numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub group_add: Vec<String>,
    /// A line for the container's `/etc/passwd`; `$USERNAME`, `$UID`, `$GID`, `$NAME`, `$HOME` stand for the user's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub passwd_entry: Option<String>,
    /// A line for the container's `/etc/group`; `$GROUPNAME` and `$GID` stand for the group's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_entry: Option<String>,
    /// File creation mask, octal: `"0027"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// NIS domain name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domainname: Option<String>,
    /// `Europe/Paris`: the time zone as this machine's zoneinfo has it; `local`: this machine's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
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
    /// `CONTAINER[:ro|rw]`: the mounts of another container. ctr-create puts them into `mounts` and takes this away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<String>,
    /// Driver of volumes that are made for the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_driver: Option<String>,
    /// Where secrets come from and where they go, never what they are: `NAME[,type=mount|env,target=…,uid=…,gid=…,mode=…]`, with
    /// `src=FILE` or `env=NAME`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub read_only: bool,
    /// `/dev/x[:/dev/y[:rwm]]`, or the name of a CDI device: `vendor.com/class=name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<String>,
    /// `c 1:3 rwm`: type, major and minor number (`*`: any), what is allowed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
    /// Temporary file systems at /run, /tmp and /var/tmp where `read_only`.
    #[serde(skip_serializing_if = "is_false")]
    pub read_only_tmpfs: bool,
    /// Of the read-write layer: `size`, bytes with a unit or not, where its file system has project quotas.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opts: BTreeMap<String, String>,
    /// Size of /dev/shm: bytes, or a string with a unit. 64m by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm_size: Option<Quantity>,

    // Security
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_add: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cap_drop: Vec<String>,
    #[serde(skip_serializing_if = "is_false")]
    pub privileged: bool,
    /// `no-new-privileges[=bool]`, `seccomp=unconfined|builtin|FILE`, `apparmor=PROFILE`, `systempaths=unconfined`,
    /// `mask=PATH:…`, `unmask=PATH:…|ALL`, `proc-opts=OPTION,…`, `writable-cgroups[=bool]`, `label=disable`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub security_opt: Vec<String>,

    // Limits
    /// Bytes, or a string with a unit (`512m`); at most this much memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
    /// Bytes; what it is pushed back to when memory is short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<Quantity>,
    /// Bytes of memory and swap together; -1 means unlimited swap. Twice `memory` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swap: Option<Quantity>,
    /// 0 to 100: how readily anonymous pages are swapped out. Version 1 control groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
    /// What is out of memory waits instead of being killed. Version 1 control groups only.
    #[serde(skip_serializing_if = "is_false")]
    pub oom_kill_disable: bool,
    /// -1000 to 1000: whom the kernel kills first (`/proc/PID/oom_score_adj`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// Number of CPUs, fractions allowed: `1.5` or `"1.5"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Microseconds, 1000 to 1000000: the period of `cpu_quota`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_period: Option<u64>,
    /// Microseconds of CPU time in a period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_quota: Option<i64>,
    /// Microseconds: the period of `cpu_rt_runtime`. Version 1 control groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_rt_period: Option<u64>,
    /// Microseconds of real-time scheduling in a period. Version 1 control groups only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_rt_runtime: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes: `0-3,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpuset_mems: Option<String>,
    /// 10 to 1000: share of block I/O.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blkio_weight: Option<u16>,
    /// `/dev/x:WEIGHT` each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_weight_devices: Vec<String>,
    /// `/dev/x:RATE` each, bytes per second, with a unit or not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_read_bps: Vec<String>,
    /// As `device_read_bps`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_write_bps: Vec<String>,
    /// `/dev/x:RATE` each, operations per second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_read_iops: Vec<String>,
    /// As `device_read_iops`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_write_iops: Vec<String>,
    /// Number of processes and threads; -1 or 0 means unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_limit: Option<i64>,
    /// `name=soft[:hard]`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ulimits: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Files of the version 2 control group and what is written to them: `memory.high`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub cgroup_conf: BTreeMap<String, String>,
    /// Class of the kernel's resctrl.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdt_class: Option<String>,
    /// `LINUX` or `LINUX32` (personality(2)).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<String>,

    // Namespaces
    /// `bridge` (default), `none`, `host`, `container:ID`, `ns:PATH`, `private`, or one network's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Networks to be attached to, in this order, with what is asked for on each. With any of them `network` is absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkWish>,
    /// `private` (default), `host`, `container:ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<String>,
    /// `private` (default), `host`, `container:ID`, `shareable`, `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipc: Option<String>,
    /// `private` (default), `host`, `container:ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uts: Option<String>,
    /// `private` (default with version 2) or `host` (default with version 1).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroupns: Option<String>,
    /// `host` (default), `auto[:size=N,uidmapping=C:H:N,gidmapping=C:H:N]`, `keep-id[:uid=N,gid=N]`, `nomap`, `path:PATH`, `container:ID`,
    /// `private` with maps.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub userns: Option<String>,
    /// `CONTAINER:HOST[:SIZE]` each: users of a user namespace of the container's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uidmap: Vec<String>,
    /// The same of groups; of the two one that is missing is as the other.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gidmap: Vec<String>,
    /// Users are those `/etc/subuid` gives to this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subuidname: Option<String>,
    /// Groups are those `/etc/subgid` gives to this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subgidname: Option<String>,
    /// The control group in which the container's is made; `/staves` by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<String>,

    // Network
    /// Ports to publish: strings in docker's `-p` grammar, or objects.
    #[serde(skip_serializing_if = "Vec::is_empty", alias = "publish")]
    pub ports: Vec<PortWish>,
    /// Publish every exposed port at a free one of the host.
    #[serde(skip_serializing_if = "is_false")]
    pub publish_all: bool,
    /// `PORT[-PORT][/PROTOCOL]` each, beside the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub expose: Vec<String>,
    /// `NAME:ADDRESS` each for `/etc/hosts`; `host-gateway` is the host as seen from the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add_host: Vec<String>,
    /// Name servers instead of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<String>,
    /// Search domains instead of the host's; `.` alone: none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// Options of resolv.conf(5) instead of the host's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_option: Vec<String>,

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
    /// Seconds after which a running container is killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
    /// `no` (default), `on-failure[:N]`, `always`, `unless-stopped`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
    /// How to find out whether it does what it is there for; what is not set is as the image has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// `json-file` (default), `local`, `journald`, `syslog`, `passthrough` or `none`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_driver: Option<String>,
    /// Options of the driver, docker's: `max-size`, `max-file`, `compress`, `tag`, `syslog-address` …
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub log_opts: BTreeMap<String, String>,
    /// Name or path of another OCI runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// Where the number of the container's first process is written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pidfile: Option<String>,
    /// Directories of OCI hooks (oci-hooks(5)) beside those of the machine.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks_dir: Vec<String>,
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

/// A health check as it is asked for (docker's `--health-*`). Times are seconds as numbers, or texts with a unit: `"1m30s"`; 0
/// counts as not set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(default)]
pub struct Healthcheck {
    /// `["CMD", program, …]`, `["CMD-SHELL", text]`, `["NONE"]` for no check at all, or empty for the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between the end of a check and the next one: 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Quantity>,
    /// A check that takes longer is killed and has failed: 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Quantity>,
    /// So many failures one after another make it unhealthy: 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// After the start, failures in this time do not count until a check has succeeded: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_period: Option<Quantity>,
    /// Between checks in that time: 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<Quantity>,
    /// What is done when it becomes unhealthy: `none` (default), `kill`, `restart`, `stop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
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
    /// `bind`, `volume`, `tmpfs` or `image`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Host path of a bind, name of a volume (absent: a volume without a name), reference of an image.
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
    /// Only this directory or file of a volume or an image, from its root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
    /// Driver, its options, and labels of a volume that is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_options: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Give what is mounted, with all in it, to the container's user.
    #[serde(default, skip_serializing_if = "is_false")]
    pub chown: bool,
    /// What is mounted stays as it is: writes go to a layer that is gone at the container's end, or to `upper`.
    #[serde(default, skip_serializing_if = "is_false")]
    pub overlay: bool,
    /// Directories of the host for an overlay's writes; both or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<String>,
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

/// One member of `networks`: `--network NAME:alias=…,ip=…`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkWish {
    pub name: String,
    /// Further names of the container on this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip6: Option<String>,
    /// Hardware address, `02:42:0a:59:00:02`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Name of the interface in the container; `eth0`, `eth1` and so on without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// The network with the highest is the container's way out, the first one of equals; 0 without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw_priority: Option<i32>,
    /// Addresses of the interface beside its own, without a lease.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub link_local_ips: Vec<String>,
    /// Options of the network's driver for this one attachment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
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
