//! What a specification asks of this machine.

use super::{Spec, namespace_path, sysctl};
use crate::{labels, rdt};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::LinuxNamespaceType;
use std::os::linux::fs::MetadataExt;
use std::path::Path;

impl Spec {
    /// Refuses what this machine does not offer, before anything is made. To be asked outside the container. Looks at nothing
    /// the specification does not mention.
    pub fn check_machine(&self) -> Result<()> {
        if let Some(process) = &self.process {
            labels::check(process)?;
        }
        if self.linux.intel_rdt.is_some() {
            rdt::root()?;
        }
        for (kind, file, name) in [
            (LinuxNamespaceType::User, "user", "user"),
            (LinuxNamespaceType::Time, "time_for_children", "time"),
        ] {
            if self.namespace(kind).is_some() && !Path::new("/proc/self/ns").join(file).exists() {
                return Err(Fault::failed(format!("{name} namespaces aren't enabled in the kernel")));
            }
        }
        self.check_network_sysctls()
    }

    /// The namespace a container joins may be the one this runtime is in.
    fn check_network_sysctls(&self) -> Result<()> {
        let of_network = |name: &String| sysctl::path(name).is_ok_and(|path| path.starts_with("net/"));
        let Some(parameter) = self.linux.sysctl.keys().find(|name| of_network(name)) else { return Ok(()) };
        let Some(path) = self.namespace(LinuxNamespaceType::Network).and_then(namespace_path) else {
            return Ok(());
        };
        let identity = |path: &Path| {
            std::fs::metadata(path)
                .map(|meta| (meta.st_dev(), meta.st_ino()))
                .explain(|| format!("look at the network namespace {}", path.display()))
        };
        if identity(path)? == identity(Path::new("/proc/self/ns/net"))? {
            return Err(Fault::input(format!(
                "linux.sysctl: {parameter:?} not allowed in host network namespace"
            ))
            .hint("give the container a network namespace of its own"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(linux: &serde_json::Value) -> Spec {
        Spec::parse(serde_json::json!({"ociVersion": "1.0.0", "linux": linux}).to_string().as_bytes())
            .unwrap()
    }

    #[test]
    fn the_own_network_namespace_is_not_the_containers() {
        let own = serde_json::json!({
            "namespaces": [{"type": "network", "path": "/proc/self/ns/net"}], "sysctl": {"net.core.somaxconn": "1"}
        });
        let fault = spec(&own).check_machine().unwrap_err().to_string();
        assert!(fault.contains("not allowed in host network namespace"), "{fault}");
        let new =
            serde_json::json!({"namespaces": [{"type": "network"}], "sysctl": {"net.core.somaxconn": "1"}});
        spec(&new).check_machine().unwrap();
    }

    #[test]
    fn labels_need_their_module() {
        let process =
            serde_json::json!({"args": ["x"], "cwd": "/", "selinuxLabel": "a:b:c:d", "apparmorProfile": "p"});
        let text = serde_json::json!({"ociVersion": "1.0.0", "process": process}).to_string();
        let result = Spec::parse(text.as_bytes()).unwrap().check_machine();
        // Not both are active on any machine.
        assert!(result.is_err());
    }
}
