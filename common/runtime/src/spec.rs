//! `config.json` (OCI runtime specification 1.2, config.md and config-linux.md).
//!
//! The parts are oci-spec's types; the frame is our own, so that the seccomp section, by far the longest, stays raw text: a
//! compiled program is found by that text's hash and the section is parsed only when there is none.

use fault::{Explain, Fault, Result};
use oci_spec::runtime::{
    LinuxDevice, LinuxNamespace, LinuxNamespaceType, LinuxResources, Mount, Process, Root,
};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Largest `config.json` read, in bytes.
const MAX_SPEC_BYTES: u64 = 16 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    pub oci_version: String,
    pub root: Option<Root>,
    #[serde(default)]
    pub mounts: Vec<Mount>,
    pub process: Option<Process>,
    #[serde(default)]
    pub hostname: String,
    #[serde(default)]
    pub domainname: String,
    #[serde(default)]
    pub linux: Linux,
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
    /// Members this version does not act on; [`Spec::check`] refuses those that would change what happens.
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    pub namespaces: Vec<LinuxNamespace>,
    pub devices: Vec<LinuxDevice>,
    pub cgroups_path: Option<String>,
    pub resources: Option<LinuxResources>,
    pub sysctl: BTreeMap<String, String>,
    pub seccomp: Option<Box<RawValue>>,
    pub rootfs_propagation: Option<String>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub uid_mappings: Option<Value>,
    pub gid_mappings: Option<Value>,
    pub mount_label: Option<String>,
    pub intel_rdt: Option<Value>,
    pub memory_policy: Option<Value>,
    pub personality: Option<Value>,
    pub time_offsets: Option<Value>,
    pub net_devices: Option<Value>,
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

    pub fn parse(text: &[u8]) -> Result<Spec> {
        let spec: Spec = serde_json::from_slice(text)
            .explain_as(fault::Kind::Input, || "not a runtime specification".into())?;
        spec.check()?;
        Ok(spec)
    }

    /// Refuses what this runtime would have to leave undone: nothing is skipped in silence.
    fn check(&self) -> Result<()> {
        let unsupported = |member: &str| Err(Fault::input(format!("{member} is not supported")));
        if !self.oci_version.starts_with("1.") {
            return Err(Fault::input(format!("ociVersion {:?} is not of major version 1", self.oci_version)));
        }
        for member in ["hooks", "vm", "windows", "solaris", "zos"] {
            if self.other.get(member).is_some_and(|value| !is_empty(value)) {
                return unsupported(member);
            }
        }
        let linux = &self.linux;
        for (member, value) in [
            ("linux.uidMappings", &linux.uid_mappings),
            ("linux.gidMappings", &linux.gid_mappings),
            ("linux.intelRdt", &linux.intel_rdt),
            ("linux.memoryPolicy", &linux.memory_policy),
            ("linux.personality", &linux.personality),
            ("linux.timeOffsets", &linux.time_offsets),
            ("linux.netDevices", &linux.net_devices),
        ] {
            if value.as_ref().is_some_and(|value| !is_empty(value)) {
                return unsupported(member);
            }
        }
        if linux.mount_label.as_deref().is_some_and(|label| !label.is_empty()) {
            return unsupported("linux.mountLabel");
        }
        for (kind, name) in [(LinuxNamespaceType::User, "user"), (LinuxNamespaceType::Time, "time")] {
            if self.namespace(kind).is_some() {
                return unsupported(&format!("the {name} namespace"));
            }
        }
        if let Some(process) = &self.process {
            if process.selinux_label().as_deref().is_some_and(|label| !label.is_empty()) {
                return unsupported("process.selinuxLabel");
            }
            if process.scheduler().is_some() || process.io_priority().is_some() {
                return unsupported("process.scheduler or process.ioPriority");
            }
            if process.exec_cpu_affinity().is_some() {
                return unsupported("process.execCPUAffinity");
            }
        }
        Ok(())
    }

    pub fn namespace(&self, kind: LinuxNamespaceType) -> Option<&LinuxNamespace> {
        self.linux.namespaces.iter().find(|namespace| namespace.typ() == kind)
    }

    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().ok_or_else(|| Fault::input("config.json has no process"))
    }

    pub fn terminal(&self) -> bool {
        self.process.as_ref().and_then(Process::terminal).unwrap_or(false)
    }

    pub fn root_path(&self, bundle: &Path) -> Result<PathBuf> {
        let root = self.root.as_ref().ok_or_else(|| Fault::input("config.json has no root"))?;
        Ok(bundle.join(root.path()))
    }

    pub fn root_is_readonly(&self) -> bool {
        self.root.as_ref().and_then(Root::readonly).unwrap_or(false)
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}
