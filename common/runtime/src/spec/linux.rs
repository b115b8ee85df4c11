//! Parts of the section `linux` that oci-spec lacks or has otherwise.

use super::null_is_default;
use serde::{Deserialize, Serialize};

/// Offset of a clock in a time namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    #[serde(deserialize_with = "null_is_default")]
    pub secs: i64,
    #[serde(deserialize_with = "null_is_default")]
    pub nanosecs: u32,
}

/// An interface to be moved into the container's network namespace.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name inside, perhaps with `%d` for the kernel to put a number; empty for the one it has.
    #[serde(deserialize_with = "null_is_default")]
    pub name: String,
}

/// Cache and memory bandwidth (the kernel's resctrl).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IntelRdt {
    #[serde(rename = "closID", deserialize_with = "null_is_default")]
    pub clos_id: String,
    #[serde(deserialize_with = "null_is_default")]
    pub l3_cache_schema: String,
    #[serde(deserialize_with = "null_is_default")]
    pub mem_bw_schema: String,
    #[serde(deserialize_with = "null_is_default")]
    pub schemata: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub enable_monitoring: bool,
}

/// set_mempolicy(2).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct MemoryPolicy {
    #[serde(deserialize_with = "null_is_default")]
    pub mode: String,
    /// A list of nodes, as `0-3,7`.
    #[serde(deserialize_with = "null_is_default")]
    pub nodes: String,
    #[serde(deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
}

/// personality(2).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Personality {
    #[serde(deserialize_with = "null_is_default")]
    pub domain: String,
    #[serde(deserialize_with = "null_is_default")]
    pub flags: Vec<String>,
}
