//! `spec`: a config.json to begin with, runc's to the letter but for the host name.

use crate::call::Call;
use crate::options::Opt;
use fault::{Explain, Fault, Result};
use runtime::spec::OCI_VERSION;
use rustix::process::{getegid, geteuid};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

const CAPABILITIES: [&str; 3] = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];

pub fn spec(call: &Call<'_>) -> Result<u8> {
    let bundle = call.options.path(Opt::Bundle).unwrap_or(Path::new("."));
    let rootless = call.options.has(Opt::SpecRootless);
    let mut text = Vec::new();
    let indent = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, indent);
    let spec = specification(rootless);
    serde::Serialize::serialize(&spec, &mut writer).explain(|| "write config.json".into())?;
    let path = bundle.join("config.json");
    match std::fs::File::create_new(&path).and_then(|mut file| file.write_all(&text)) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Fault::conflict("File config.json exists. Remove it first"))
        }
        Err(error) => Err(error).explain(|| format!("write {}", path.display())),
    }
}

fn specification(rootless: bool) -> Value {
    let mut linux = json!({});
    if rootless {
        linux["uidMappings"] = json!([{"containerID": 0, "hostID": geteuid().as_raw(), "size": 1}]);
        linux["gidMappings"] = json!([{"containerID": 0, "hostID": getegid().as_raw(), "size": 1}]);
    } else {
        linux["resources"] = json!({"devices": [{"allow": false, "access": "rwm"}]});
    }
    linux["namespaces"] = namespaces(rootless);
    linux["maskedPaths"] = json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi"
    ]);
    linux["readonlyPaths"] =
        json!(["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]);
    json!({
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "oci-runtime",
        "mounts": mounts(rootless),
        "linux": linux
    })
}

fn namespaces(rootless: bool) -> Value {
    let mut kinds = vec!["pid", "network", "ipc", "uts", "mount"];
    if cgroup::version() == Some(cgroup::Version::V2) {
        kinds.push("cgroup");
    }
    if rootless {
        // The caller's network: an ordinary user could connect one of its own with nothing.
        kinds.retain(|kind| *kind != "network");
        kinds.push("user");
    }
    kinds.into_iter().map(|kind| json!({"type": kind})).collect()
}

fn mounts(rootless: bool) -> Value {
    let mount = |destination: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": destination, "type": kind, "source": source, "options": options});
    // Only one id is mapped for an ordinary user.
    let terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    let terminals = if rootless { &terminals[..5] } else { &terminals };
    json!([
        {"destination": "/proc", "type": "proc", "source": "proc"},
        mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount("/dev/pts", "devpts", "devpts", terminals),
        mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
        mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        if rootless {
            mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"])
        } else {
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
        },
        mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"]),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for rootless in [false, true] {
            let text = specification(rootless).to_string();
            let spec = runtime::Spec::parse(text.as_bytes()).unwrap();
            assert_eq!(spec.namespace(runtime::NamespaceKind::User).is_some(), rootless);
        }
    }
}
