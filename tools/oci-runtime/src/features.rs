//! `features` (runtime-spec, features.md).

use crate::call::Call;
use crate::inspect::print;
use fault::{Explain, Result};
use runtime::hooks::Point;
use runtime::scheduling::{MEMORY_FLAGS, MEMORY_MODES};
use runtime::seccomp::Support;
use runtime::spec::OCI_VERSION;
use serde_json::json;

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"];

pub fn features(_: &Call<'_>) -> Result<u8> {
    let capabilities: Vec<String> =
        oci::capabilities::NAMES.iter().map(|name| format!("CAP_{name}")).collect();
    let seccomp = Support::here();
    let features = json!({
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": Point::ALL.map(Point::name),
        "mountOptions": runtime::mounts::OPTIONS.as_slice(),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": capabilities,
            "cgroup": {"v1": true, "v2": true, "systemd": true, "systemdUser": true, "rdma": true},
            "seccomp": {
                "enabled": true,
                "actions": seccomp.actions,
                "operators": seccomp.operators,
                "archs": seccomp.architectures,
                "knownFlags": seccomp.known_flags,
                "supportedFlags": seccomp.flags,
            },
            "apparmor": {"enabled": true},
            "selinux": {"enabled": true},
            "intelRdt": {"enabled": true, "schemata": true, "monitoring": true},
            "memoryPolicy": {"modes": MEMORY_MODES.map(|(name, _)| name), "flags": MEMORY_FLAGS.map(|(name, _)| name)},
            "mountExtensions": {"idmap": {"enabled": true}},
            "netDevices": {"enabled": true},
        },
        "annotations": {
            "org.opencontainers.runc.checkpoint.enabled": "true",
            "dev.staves.oci-runtime.version": env!("CARGO_PKG_VERSION"),
        },
        "potentiallyUnsafeConfigAnnotations": ["org.systemd.property."],
    });
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    serde::Serialize::serialize(&features, &mut writer).explain(|| "print the features".into())?;
    text.push(b'\n');
    print(&String::from_utf8_lossy(&text))?;
    Ok(0)
}
