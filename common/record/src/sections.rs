//! The sections of a record this project defines. Every struct keeps members it does not know in `extra`,
//! so that what `jq` added, or a later version of a tool, survives every stage.

mod config;
mod wishes;

pub use config::*;

use serde::{Deserialize, Serialize};

/// Members a struct does not know, in order.
pub type Extra = serde_json::Map<String, serde_json::Value>;

/// `image`: what `img-pull` found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Image {
    /// Full reference, `docker.io/library/debian:12`.
    pub reference: String,
    /// Digest of the image manifest. Missing where nobody has asked for it yet, as in a list of a registry's tags.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub digest: String,
    /// Digest of the index the manifest was chosen from, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The OCI image configuration, whole, as JSON; docker's own members included.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub config: serde_json::Value,
    /// Lowest layer first.
    #[serde(default)]
    pub layers: Vec<Layer>,
    #[serde(flatten)]
    pub extra: Extra,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Platform {
    pub os: String,
    pub architecture: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// One layer of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Layer {
    /// Digest of the blob as the registry has it.
    pub digest: String,
    /// Digest of the uncompressed tar.
    pub diff_id: String,
    /// Bytes of the blob.
    pub size: u64,
    pub media_type: String,
    #[serde(flatten)]
    pub extra: Extra,
}

/// `rootfs`: what `img-unpack` made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Rootfs {
    /// Absolute paths of unpacked layers (`…/layers/sha256-…/fs`), lowest first.
    #[serde(default)]
    pub layers: Vec<String>,
    /// `overlay`: the layers under a read-write layer of the container's own. `directory`: `path` as it is.
    pub driver: String,
    /// The root directory, with driver `directory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// `container`: what `ctr-create` made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Container {
    /// 64 hexadecimal digits.
    pub id: String,
    pub name: String,
    /// `created`, `running`, `paused`, `restarting`, `exited` or `dead`. As of the moment it was printed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Process id of the container's init on the host, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Absolute path of the OCI bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundle: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<String>,
    /// Exit status of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why the last run could not start or ended oddly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The last run lacked memory: its limit, or the machine's end of it, had a process of it killed. Absent otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// How often the restart policy started it again, since it was last started otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_count: Option<u32>,
    /// Its processes were saved and ended by `ctr-checkpoint`; `ctr-restore` has them go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointed: Option<bool>,
    /// RFC 3339: when its processes were saved last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointed_at: Option<String>,
    /// RFC 3339: when they went on last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_at: Option<String>,
    /// What its health check has found out; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// `container.health`: what the checks since the last start have found out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// Failures since the last success that count.
    #[serde(default)]
    pub failing_streak: u32,
    /// The last five checks, the newest last.
    #[serde(default)]
    pub log: Vec<HealthResult>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// One check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct HealthResult {
    /// RFC 3339.
    pub start: String,
    /// RFC 3339.
    pub end: String,
    /// 0: healthy. -1: it took too long. 125 to 127: it could not be run.
    pub exit_code: i32,
    /// The first 4096 bytes of what it printed, or why it could not be run.
    #[serde(default)]
    pub output: String,
    #[serde(flatten)]
    pub extra: Extra,
}

/// One member of `networks`: what `net-attach` made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Attachment {
    /// The network's name, `bridge` for the default one.
    pub name: String,
    /// Interface name inside the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Interface name on the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_interface: Option<String>,
    /// With prefix length, `10.89.0.2/16`.
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// The way out for IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway6: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Further names of the container on this network.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Of a network of CNI plugins: what they said of the attachment (CNI specification, section 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cni: Option<serde_json::Value>,
    #[serde(flatten)]
    pub extra: Extra,
}

impl Attachment {
    /// The addresses of the host one of its ports leads here from, as docker tells them: every one of a family is `0.0.0.0` or `::`, and
    /// a port without an address has both, as far as the container has addresses of them.
    pub fn host_addresses<'a>(&self, port: &'a Port) -> Vec<&'a str> {
        if let Some(address) = &port.ip {
            return vec![address];
        }
        let has = |ipv6: bool| self.addresses.iter().any(|address| address.contains(':') == ipv6);
        match (has(false), has(true)) {
            (true, true) => vec!["0.0.0.0", "::"],
            (false, true) => vec!["::"],
            // Of plugins that say nothing of addresses.
            _ => vec!["0.0.0.0"],
        }
    }
}

/// A published port, or a range of `count` of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Port {
    /// Host address; absent means every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// First port on the host; absent means any free one (in a request).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<u16>,
    /// In a request with `host`, for one port: any free one from `host` to this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_last: Option<u16>,
    /// First port in the container.
    pub container: u16,
    /// `tcp`, `udp` or `sctp`.
    #[serde(default = "tcp")]
    pub protocol: String,
    /// Length of the range; absent means one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u16>,
    #[serde(flatten)]
    pub extra: Extra,
}

/// One member of `volumes`: a volume `ctr-create` made for the container or found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Volume {
    pub name: String,
    /// Made for this container alone; removed with it by `ctr-rm -v`.
    #[serde(default)]
    pub anonymous: bool,
    /// Where in the container.
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
    #[serde(flatten)]
    pub extra: Extra,
}

fn tcp() -> String {
    "tcp".to_owned()
}
