//! `config.json` (OCI runtime specification 1.3, config.md and config-linux.md).
//!
//! Mounts, devices and resources are oci-spec's types; the frame is our own, so that the seccomp section, by far the longest,
//! stays raw text: a compiled program is found by that text's hash and the section is parsed only when there is none. So is
//! what oci-spec reads otherwise than the specification has it (flags of schedulers) or refuses where a warning is due (names
//! of capabilities).

mod check;
mod linux;
mod machine;
mod process;
pub mod sysctl;

pub use linux::{IntelRdt, MemoryPolicy, NetDevice, Personality, TimeOffset};
pub use process::{
    CapabilityLists, ConsoleSize, CpuAffinity, IoPriority, Process, RESOURCES, Rlimit, Scheduler, User,
};

pub(crate) use check::bad;

use crate::hooks::Hooks;
use fault::{Explain, Fault, Kind, Result};
use oci_spec::runtime::{
    LinuxDevice, LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, LinuxResources, Mount, Root,
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The version of the specification this runtime follows.
pub const OCI_VERSION: &str = "1.3.0";

/// Largest `config.json` read, in bytes.
const MAX_SPEC_BYTES: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub oci_version: String,
    pub root: Option<Root>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub mounts: Vec<Mount>,
    pub process: Option<Process>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub hostname: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub domainname: String,
    #[serde(default, deserialize_with = "null_is_default")]
    pub hooks: Hooks,
    #[serde(default, deserialize_with = "null_is_default")]
    pub linux: Linux,
    #[serde(default, deserialize_with = "null_is_default")]
    pub annotations: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "null_is_default")]
    vm: Foreign,
    #[serde(default, deserialize_with = "null_is_default")]
    windows: Foreign,
    #[serde(default, deserialize_with = "null_is_default")]
    solaris: Foreign,
    #[serde(default, deserialize_with = "null_is_default")]
    freebsd: Foreign,
    #[serde(default, deserialize_with = "null_is_default")]
    zos: Foreign,
}

/// A section for another platform: what is in it does not matter, only whether there is anything.
type Foreign = serde_json::Map<String, serde_json::Value>;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    #[serde(deserialize_with = "null_is_default")]
    pub namespaces: Vec<LinuxNamespace>,
    #[serde(deserialize_with = "null_is_default")]
    pub uid_mappings: Vec<LinuxIdMapping>,
    #[serde(deserialize_with = "null_is_default")]
    pub gid_mappings: Vec<LinuxIdMapping>,
    /// By the name of the clock: `monotonic`, `boottime`.
    #[serde(deserialize_with = "null_is_default")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
    #[serde(deserialize_with = "null_is_default")]
    pub devices: Vec<LinuxDevice>,
    /// By the interface's name outside.
    #[serde(deserialize_with = "null_is_default")]
    pub net_devices: BTreeMap<String, NetDevice>,
    pub cgroups_path: Option<String>,
    pub resources: Option<LinuxResources>,
    pub intel_rdt: Option<IntelRdt>,
    pub memory_policy: Option<MemoryPolicy>,
    /// By names in which dots separate, whatever did in the text.
    #[serde(deserialize_with = "null_is_default")]
    pub sysctl: BTreeMap<String, String>,
    pub seccomp: Option<Box<RawValue>>,
    pub rootfs_propagation: Option<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub masked_paths: Vec<String>,
    #[serde(deserialize_with = "null_is_default")]
    pub readonly_paths: Vec<String>,
    pub mount_label: Option<String>,
    pub personality: Option<Personality>,
}

impl Spec {
    pub fn load(bundle: &Path) -> Result<Spec> {
        let path = bundle.join("config.json");
        let size = std::fs::metadata(&path).explain(|| format!("read {}", path.display()))?.len();
        if size > MAX_SPEC_BYTES {
            return Err(Fault::input(format!("{} is {size} bytes long", path.display())));
        }
        let text = std::fs::read(&path).explain(|| format!("read {}", path.display()))?;
        Spec::parse(&text).map_err(|fault| fault.within(format!("read {}", path.display())))
    }

    /// Reads and checks a specification.
    pub fn parse(text: &[u8]) -> Result<Spec> {
        let mut spec: Spec = from_json(text, "not a runtime specification")?;
        spec.check()?;
        spec.forget_pids_without_limit(text)?;
        let sysctl = std::mem::take(&mut spec.linux.sysctl);
        for (name, value) in sysctl {
            spec.linux.sysctl.insert(sysctl::dotted(&name)?, value);
        }
        Ok(spec)
    }

    /// A limit of 0 is one, none at all is none: the type that is read into cannot tell them apart.
    fn forget_pids_without_limit(&mut self, text: &[u8]) -> Result<()> {
        let resources = self.linux.resources.as_mut();
        let zero = |resources: &&mut LinuxResources| resources.pids().is_some_and(|pids| pids.limit() == 0);
        if let Some(resources) = resources.filter(zero) {
            let value: serde_json::Value = from_json(text, "not a runtime specification")?;
            if value["linux"]["resources"]["pids"]["limit"].is_null() {
                resources.set_pids(None);
            }
        }
        Ok(())
    }

    pub fn namespace(&self, kind: LinuxNamespaceType) -> Option<&LinuxNamespace> {
        self.linux.namespaces.iter().find(|namespace| namespace.typ() == kind)
    }

    /// Whether the container gets a new namespace of the kind.
    pub fn makes_namespace(&self, kind: LinuxNamespaceType) -> bool {
        self.namespace(kind).is_some_and(|namespace| namespace_path(namespace).is_none())
    }

    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().ok_or_else(|| Fault::input("config.json has no process"))
    }

    pub fn terminal(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.terminal)
    }

    pub fn root_path(&self, bundle: &Path) -> Result<PathBuf> {
        let root = self.root.as_ref().ok_or_else(|| Fault::input("config.json has no root"))?;
        Ok(bundle.join(root.path()))
    }

    pub fn root_is_readonly(&self) -> bool {
        self.root.as_ref().and_then(Root::readonly).unwrap_or(false)
    }

    /// What of the specification will be left out here though it is right, in words for a log. The specification asks for a
    /// warning where capabilities are unknown or cannot be granted.
    pub fn warnings(&self) -> Vec<String> {
        let in_user_namespace = self.namespace(LinuxNamespaceType::User).is_some();
        let mut warnings =
            self.process.as_ref().map(|process| process.warnings(in_user_namespace)).unwrap_or_default();
        let rules = self.linux.resources.as_ref().and_then(|resources| resources.devices().as_deref());
        for (index, rule) in rules.into_iter().flatten().enumerate() {
            if let Some(access) = rule.access().as_deref().filter(|access| access.contains('a')) {
                warnings.push(format!(
                    "linux.resources.devices[{index}].access: the a in {access:?} is none of r, w and m, and means nothing"
                ));
            }
        }
        warnings
    }
}

impl Process {
    /// Reads and checks a process by itself, as `exec --process` takes it.
    pub fn parse(text: &[u8]) -> Result<Process> {
        let process: Process = from_json(text, "not a process of the runtime specification")?;
        process.check()?;
        Ok(process)
    }
}

/// The file of a namespace that exists already.
pub fn namespace_path(namespace: &LinuxNamespace) -> Option<&Path> {
    namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())
}

/// Reads JSON. What is wrong with it is told with the member's path.
fn from_json<T: for<'de> Deserialize<'de>>(text: &[u8], what: &str) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| {
        let fault = match record::member::path_of(text, &error) {
            path if path.is_empty() => Fault::new(Kind::Input, what),
            path => Fault::new(Kind::Input, format!("{what}: {path}")),
        };
        fault.because(error)
    })
}

/// Programs written in Go write `null` for what is empty.
pub(crate) fn null_is_default<'de, D, T>(reader: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::<T>::deserialize(reader).map(Option::unwrap_or_default)
}
