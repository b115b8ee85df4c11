//! What a specification must be, as far as it can be told without looking at the machine.
//!
//! Errors name the member. What is checked where it is used is not checked here as well: mounts, devices, resources, seccomp.

use super::{Process, Spec, namespace_path, sysctl};
use crate::{mappings, netdevices, rdt, scheduling, timens};
use fault::{Fault, Result};
use oci_spec::runtime::LinuxNamespaceType;
use std::collections::BTreeSet;
use std::path::Path;

/// As mount(8) writes them, with and without the `r` of "recursive".
const PROPAGATIONS: [&str; 8] =
    ["shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"];

pub(crate) fn bad(member: &str, what: impl std::fmt::Display) -> Fault {
    Fault::input(format!("{member}: {what}"))
}

impl Spec {
    /// Refuses what contradicts itself or the runtime specification.
    pub fn check(&self) -> Result<()> {
        check_version(&self.oci_version)?;
        self.check_platform()?;
        if self.root.as_ref().is_some_and(|root| root.path().as_os_str().is_empty()) {
            return Err(bad("root.path", "is empty"));
        }
        if self.annotations.contains_key("") {
            return Err(bad("annotations", "a key is empty"));
        }
        if let Some(process) = &self.process {
            process.check()?;
        }
        self.hooks.check()?;
        self.check_namespaces()?;
        self.check_users()?;
        self.check_time()?;
        self.check_names()?;
        self.check_sysctls()?;
        self.check_paths()?;
        let linux = &self.linux;
        if let Some(propagation) = linux.rootfs_propagation.as_deref().filter(|value| !value.is_empty())
            && !PROPAGATIONS.contains(&propagation)
        {
            return Err(bad(
                "linux.rootfsPropagation",
                format!("{propagation:?} is none of {PROPAGATIONS:?}"),
            ));
        }
        if !linux.net_devices.is_empty() && self.namespace(LinuxNamespaceType::Network).is_none() {
            return Err(bad("linux.netDevices", "needs a network namespace in linux.namespaces"));
        }
        netdevices::check(&linux.net_devices)?;
        linux.intel_rdt.as_ref().map_or(Ok(()), rdt::check)?;
        linux.memory_policy.as_ref().map_or(Ok(()), |policy| scheduling::memory_policy(policy).map(drop))?;
        linux.personality.as_ref().map_or(Ok(()), |value| scheduling::personality(value).map(drop))?;
        // Mounts are not labelled yet.
        if linux.mount_label.as_deref().is_some_and(|label| !label.is_empty()) {
            return Err(bad("linux.mountLabel", "is not supported"));
        }
        Ok(())
    }

    /// Sections for other platforms may only be empty.
    fn check_platform(&self) -> Result<()> {
        for (member, section) in [
            ("vm", &self.vm),
            ("windows", &self.windows),
            ("solaris", &self.solaris),
            ("freebsd", &self.freebsd),
            ("zos", &self.zos),
        ] {
            if !section.is_empty() {
                return Err(bad(member, "is for another platform; this runtime makes Linux containers"));
            }
        }
        Ok(())
    }

    fn check_namespaces(&self) -> Result<()> {
        let namespaces = &self.linux.namespaces;
        for (index, namespace) in namespaces.iter().enumerate() {
            let kind = namespace.typ();
            if namespaces[..index].iter().any(|other| other.typ() == kind) {
                return Err(bad(
                    &format!("linux.namespaces[{index}]"),
                    format!("duplicated namespace {}", name(kind)),
                ));
            }
            if namespace_path(namespace).is_some_and(Path::is_relative) {
                return Err(bad(&format!("linux.namespaces[{index}].path"), "is not absolute"));
            }
        }
        Ok(())
    }

    fn check_users(&self) -> Result<()> {
        let linux = &self.linux;
        mappings::check("linux.uidMappings", &linux.uid_mappings)?;
        mappings::check("linux.gidMappings", &linux.gid_mappings)?;
        let none = linux.uid_mappings.is_empty() && linux.gid_mappings.is_empty();
        let Some(namespace) = self.namespace(LinuxNamespaceType::User) else {
            return if none {
                Ok(())
            } else {
                Err(bad("linux.uidMappings, linux.gidMappings", "need a user namespace in linux.namespaces"))
            };
        };
        // For a namespace that exists they may be there if they are that namespace's own: `mappings::agree` sees.
        if none && namespace_path(namespace).is_some() {
            return Ok(());
        }
        for (member, mappings) in
            [("linux.uidMappings", &linux.uid_mappings), ("linux.gidMappings", &linux.gid_mappings)]
        {
            if mappings.is_empty() {
                return Err(bad(member, "is empty, but the user namespace needs it"));
            }
        }
        let Some(process) = &self.process else { return Ok(()) };
        for (member, id, mappings) in [
            ("process.user.uid", process.user.uid, &linux.uid_mappings),
            ("process.user.gid", process.user.gid, &linux.gid_mappings),
        ] {
            if mappings::outside(mappings, id).is_none() {
                return Err(bad(member, format!("{id} is not mapped in the user namespace")));
            }
        }
        Ok(())
    }

    fn check_time(&self) -> Result<()> {
        let offsets = &self.linux.time_offsets;
        if offsets.is_empty() {
            return Ok(());
        }
        match self.namespace(LinuxNamespaceType::Time) {
            None => return Err(bad("linux.timeOffsets", "needs a time namespace in linux.namespaces")),
            Some(namespace) if namespace_path(namespace).is_some() => {
                return Err(bad(
                    "linux.timeOffsets",
                    "cannot be set in a time namespace that exists already",
                ));
            }
            Some(_) => {}
        }
        timens::check(offsets)
    }

    fn check_names(&self) -> Result<()> {
        for (member, value) in [("hostname", &self.hostname), ("domainname", &self.domainname)] {
            if !value.is_empty() && self.namespace(LinuxNamespaceType::Uts).is_none() {
                return Err(bad(member, "needs a uts namespace in linux.namespaces"));
            }
        }
        Ok(())
    }

    /// A parameter may only be set where the container has it to itself.
    fn check_sysctls(&self) -> Result<()> {
        let mut paths = BTreeSet::new();
        for parameter in self.linux.sysctl.keys() {
            let path = sysctl::path(parameter)?;
            if !paths.insert(path.clone()) {
                return Err(bad(
                    "linux.sysctl",
                    format!("{parameter:?} is there twice, with dots and with slashes"),
                ));
            }
            let Some(kind) = sysctl::namespace(&path) else {
                return Err(bad(
                    "linux.sysctl",
                    format!("{parameter:?} is not in a separate kernel namespace"),
                )
                .hint("it is the whole machine's: set it there, with sysctl(8)"));
            };
            if self.namespace(kind).is_none() {
                return Err(bad(
                    "linux.sysctl",
                    format!("{parameter:?} would be set in the host's {} namespace", name(kind)),
                )
                .hint(format!("give the container a {} namespace of its own", name(kind))));
            }
            for (of, member, value) in [
                ("kernel/hostname", "hostname", &self.hostname),
                ("kernel/domainname", "domainname", &self.domainname),
            ] {
                if path == of && !value.is_empty() {
                    return Err(bad(
                        "linux.sysctl",
                        format!("{parameter:?} conflicts with the member {member}"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn check_paths(&self) -> Result<()> {
        for (member, paths) in [
            ("linux.maskedPaths", &self.linux.masked_paths),
            ("linux.readonlyPaths", &self.linux.readonly_paths),
        ] {
            if let Some(path) = paths.iter().find(|path| !path.starts_with('/')) {
                return Err(bad(member, format!("{path:?} is not absolute")));
            }
            if !paths.is_empty() && self.namespace(LinuxNamespaceType::Mount).is_none() {
                return Err(bad(member, "needs a mount namespace in linux.namespaces"));
            }
        }
        Ok(())
    }
}

impl Process {
    pub fn check(&self) -> Result<()> {
        if self.args.first().is_none_or(String::is_empty) {
            return Err(
                Fault::input("the process has no command").hint("give one, or use an image that has one")
            );
        }
        if self.cwd.as_os_str().is_empty() {
            return Err(bad("process.cwd", "is not given"));
        }
        if !self.cwd.is_absolute() {
            return Err(bad(
                "process.cwd",
                format!("the working directory {} is not absolute", self.cwd.display()),
            ));
        }
        for (member, strings) in [("process.args", &self.args), ("process.env", &self.env)] {
            if let Some(index) = strings.iter().position(|text| text.contains('\0')) {
                return Err(bad(&format!("{member}[{index}]"), "holds a NUL byte"));
            }
        }
        // To setresuid(2) and its like this number says: leave it as it is.
        let groups = self.user.additional_gids.iter().map(|gid| ("process.user.additionalGids", *gid));
        for (member, id) in [("process.user.uid", self.user.uid), ("process.user.gid", self.user.gid)]
            .into_iter()
            .chain(groups)
        {
            if id == u32::MAX {
                return Err(bad(member, format!("{id} is nobody's number")));
            }
        }
        if let Some(umask) = self.user.umask.filter(|umask| *umask > 0o777) {
            return Err(bad("process.user.umask", format!("{umask:#o} has more than permission bits")));
        }
        if self.console_size.is_some() && self.terminal && self.console_size().is_none() {
            return Err(bad("process.consoleSize", "is larger than a terminal can be"));
        }
        self.check_limits()?;
        if let Some(score) = self.oom_score_adj.filter(|score| !(-1000..=1000).contains(score)) {
            return Err(bad("process.oomScoreAdj", format!("{score} is not from -1000 to 1000")));
        }
        self.scheduler.as_ref().map_or(Ok(()), |scheduler| scheduling::attributes(scheduler).map(drop))?;
        self.io_priority.as_ref().map_or(Ok(()), |value| scheduling::io_priority(value).map(drop))?;
        if let Some(affinity) = &self.exec_cpu_affinity {
            scheduling::cpus("process.execCPUAffinity.initial", &affinity.initial)?;
            scheduling::cpus("process.execCPUAffinity.final", &affinity.last)?;
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<()> {
        for (index, limit) in self.rlimits.iter().enumerate() {
            let member = format!("process.rlimits[{index}]");
            if limit.resource().is_none() {
                return Err(bad(&member, format!("{:?} is no resource limit of this system", limit.kind)));
            }
            if self.rlimits[..index].iter().any(|other| other.kind == limit.kind) {
                return Err(bad(&member, format!("{} is there twice", limit.kind)));
            }
            if limit.soft > limit.hard {
                return Err(bad(
                    &member,
                    format!("{}: soft {} is above hard {}", limit.kind, limit.soft, limit.hard),
                ));
            }
        }
        Ok(())
    }
}

/// SemVer 2.0.0. Any minor version will do: members of a newer one are unknown here and have to be left alone.
fn check_version(version: &str) -> Result<()> {
    let malformed = || bad("ociVersion", format!("{version:?} is not a version in SemVer form, as 1.3.0"));
    let (core, build) = version.split_once('+').map_or((version, None), |(core, build)| (core, Some(build)));
    let (core, pre) = core.split_once('-').map_or((core, None), |(core, pre)| (core, Some(pre)));
    let numeric = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let no_leading_zero = |text: &str| text == "0" || !text.starts_with('0');
    let numbers: Vec<&str> = core.split('.').collect();
    if numbers.len() != 3 || !numbers.iter().all(|number| numeric(number) && no_leading_zero(number)) {
        return Err(malformed());
    }
    let identifier = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let pre_ok = |text: &str| identifier(text) && (!numeric(text) || no_leading_zero(text));
    if !pre.is_none_or(|pre| pre.split('.').all(pre_ok))
        || !build.is_none_or(|b| b.split('.').all(identifier))
    {
        return Err(malformed());
    }
    if numbers[0] != "1" {
        return Err(bad("ociVersion", format!("{version:?} is not of major version 1")));
    }
    Ok(())
}

/// A namespace's name as the specification has it.
fn name(kind: LinuxNamespaceType) -> &'static str {
    match kind {
        LinuxNamespaceType::Mount => "mount",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "network",
        LinuxNamespaceType::Time => "time",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn base() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["sh"], "cwd": "/"},
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}
        })
    }

    /// The base with some members replaced, by their paths.
    fn with(changes: &Value) -> Value {
        let mut spec = base();
        for (path, value) in changes.as_object().unwrap() {
            let mut at = &mut spec;
            for part in path.split('.') {
                at = at.as_object_mut().unwrap().entry(part).or_insert_with(|| json!({}));
            }
            *at = value.clone();
        }
        spec
    }

    fn check(changes: &Value) -> Result<()> {
        Spec::parse(with(changes).to_string().as_bytes()).map(drop)
    }

    #[test]
    fn what_is_right_passes() {
        let user = json!([{"type": "mount"}, {"type": "user"}]);
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        for changes in [
            json!({}),
            json!({"ociVersion": "1.0.2-dev+build.7", "mounts": null, "hooks": null, "annotations": null}),
            json!({"process": null, "linux.seccomp": null, "linux.resources": null, "vm": {}, "windows": null}),
            json!({"linux.rootfsPropagation": "rslave", "linux.unknown": {"x": 1}, "unknown": [1]}),
            json!({"linux.namespaces": user, "linux.uidMappings": map, "linux.gidMappings": map,
                   "linux.sysctl": {"user.max_user_namespaces": "1"}}),
            json!({"linux.namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}),
            json!({"linux.namespaces": [{"type": "user", "path": "/proc/1/ns/user"}], "linux.uidMappings": map,
                   "linux.gidMappings": map}),
            json!({"linux.namespaces": [{"type": "time"}], "linux.timeOffsets": {"boottime": {"secs": 1}}}),
            json!({"linux.namespaces": [{"type": "time"}], "linux.timeOffsets": null}),
            json!({"linux.namespaces": [{"type": "network"}, {"type": "ipc"}, {"type": "uts"}],
                   "linux.sysctl": {"net.core.somaxconn": "1", "fs.mqueue.msg_max": "5", "kernel.domainname": "d",
                                    "kernel/sem": "1 2 3 4", "kernel.hostname": "h"},
                   "linux.netDevices": {"eth7": {"name": "eth%d"}}}),
            json!({"process.rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": u64::MAX}],
                   "process.scheduler": {"policy": "SCHED_IDLE"}, "process.consoleSize": {"height": 99999, "width": 1},
                   "process.capabilities": {"bounding": ["CAP_NOBODY_KNOWS"], "ambient": null}}),
        ] {
            check(&changes).unwrap_or_else(|fault| panic!("{changes}: {fault}"));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
        let user = json!([{"type": "user"}]);
        for (changes, member) in [
            (json!({"ociVersion": "1.0"}), "ociVersion"),
            (json!({"ociVersion": "1.01.0"}), "ociVersion"),
            (json!({"ociVersion": "1.0.0-"}), "ociVersion"),
            (json!({"ociVersion": ""}), "ociVersion"),
            (json!({"ociVersion": "2.0.0"}), "ociVersion"),
            (json!({"ociVersion": 1}), "ociVersion"),
            (json!({"root.path": ""}), "root.path"),
            (json!({"annotations": {"": "x"}}), "annotations"),
            (json!({"windows": {"layerFolders": []}}), "windows"),
            (json!({"linux.namespaces": [{"type": "pid"}, {"type": "pid"}]}), "linux.namespaces[1]"),
            (json!({"linux.namespaces": [{"type": "pid"}, {"type": "foo"}]}), "linux.namespaces[1].type"),
            (json!({"linux.namespaces": [{"type": "pid", "path": "ns/pid"}]}), "linux.namespaces[0].path"),
            (json!({"linux.uidMappings": map}), "linux.uidMappings"),
            (json!({"linux.namespaces": user}), "linux.uidMappings"),
            (json!({"linux.namespaces": user, "linux.uidMappings": map}), "linux.gidMappings"),
            (
                json!({"linux.namespaces": user, "linux.uidMappings": map, "linux.gidMappings": map,
                       "process.user.uid": 10}),
                "process.user.uid",
            ),
            (json!({"linux.timeOffsets": {"boottime": {"secs": 1}}}), "linux.timeOffsets"),
            (
                json!({"linux.namespaces": [{"type": "time", "path": "/x"}], "linux.timeOffsets": {"boottime": {}}}),
                "linux.timeOffsets",
            ),
            (
                json!({"linux.namespaces": [{"type": "time"}], "linux.timeOffsets": {"realtime": {}}}),
                "linux.timeOffsets",
            ),
            (json!({"hostname": "h"}), "hostname"),
            (json!({"domainname": "d"}), "domainname"),
            (json!({"linux.sysctl": {"net.core.somaxconn": "1"}}), "linux.sysctl"),
            (json!({"linux.sysctl": {"kernel.shmmax": "1"}}), "linux.sysctl"),
            (json!({"linux.sysctl": {"kernel.domainname": "d"}}), "linux.sysctl"),
            (json!({"linux.sysctl": {"user.max_mnt_namespaces": "1"}}), "linux.sysctl"),
            (json!({"linux.sysctl": {"vm.swappiness": "1"}}), "linux.sysctl"),
            (json!({"linux.sysctl": {"net.../x": "1"}}), "linux.sysctl"),
            (
                json!({"linux.namespaces": [{"type": "ipc"}], "linux.sysctl": {"kernel.sem": "1", "kernel/sem": "2"}}),
                "linux.sysctl",
            ),
            (
                json!({"linux.namespaces": [{"type": "uts"}], "hostname": "a", "linux.sysctl": {"kernel.hostname": "b"}}),
                "linux.sysctl",
            ),
            (json!({"linux.maskedPaths": ["proc/kcore"]}), "linux.maskedPaths"),
            (json!({"linux.namespaces": [], "linux.readonlyPaths": ["/proc/sys"]}), "linux.readonlyPaths"),
            (json!({"linux.rootfsPropagation": "public"}), "linux.rootfsPropagation"),
            (json!({"linux.netDevices": {"eth0": {}}}), "linux.netDevices"),
            (json!({"linux.intelRdt": {"closID": "../x"}}), "linux.intelRdt.closID"),
            (json!({"linux.memoryPolicy": {}}), "linux.memoryPolicy.mode"),
            (json!({"linux.personality": {"domain": "BSD"}}), "linux.personality.domain"),
            (json!({"hooks": {"prestart": [{"path": "x"}]}}), "hooks.prestart[0].path"),
            (json!({"process.args": []}), "command"),
            (json!({"process.args": ["a\u{0}b"]}), "process.args[0]"),
            (json!({"process.env": ["A=1", "B=\u{0}"]}), "process.env[1]"),
            (json!({"process.cwd": "tmp"}), "process.cwd"),
            (json!({"process.cwd": ""}), "process.cwd"),
            (json!({"process.user.umask": 4096}), "process.user.umask"),
            (json!({"process.user.uid": -1}), "process.user.uid"),
            (json!({"process.oomScoreAdj": 1001}), "process.oomScoreAdj"),
            (
                json!({"process.terminal": true, "process.consoleSize": {"height": 70000, "width": 1}}),
                "process.consoleSize",
            ),
            (
                json!({"process.rlimits": [{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]}),
                "process.rlimits[0]",
            ),
            (
                json!({"process.rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}),
                "process.rlimits[0]",
            ),
            (json!({"process.rlimits": [{"type": "RLIMIT_CPU", "hard": 1}]}), "process.rlimits[0]"),
            (
                json!({"process.rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 1},
                                           {"type": "RLIMIT_CPU", "soft": 1, "hard": 1}]}),
                "process.rlimits[1]",
            ),
            (json!({"process.scheduler": {"policy": "SCHED_OTHER", "nice": 30}}), "process.scheduler.nice"),
            (
                json!({"process.ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 9}}),
                "process.ioPriority.priority",
            ),
            (json!({"process.execCPUAffinity": {"final": "a"}}), "process.execCPUAffinity.final"),
        ] {
            let fault = check(&changes).err().unwrap_or_else(|| panic!("{changes} passes"));
            assert_eq!(fault.kind(), fault::Kind::Input, "{changes}: {fault}");
            assert!(fault.to_string().contains(member), "{changes}: {fault}");
        }
    }

    #[test]
    fn text_that_is_no_specification_is_no_panic() {
        for text in
            ["", "null", "[]", "{}", "{\"ociVersion\":", "\u{0}", "{\"ociVersion\":\"1.0.0\",\"linux\":7}"]
        {
            assert_eq!(Spec::parse(text.as_bytes()).unwrap_err().kind(), fault::Kind::Input, "{text:?}");
        }
    }

    #[test]
    fn a_process_by_itself_needs_little() {
        let process =
            Process::parse(br#"{"args": ["/bin/env"], "cwd": "/", "env": null, "user": null}"#).unwrap();
        assert_eq!((process.user.uid, process.terminal), (0, false));
        assert!(Process::parse(br#"{"args": ["/bin/env"]}"#).is_err());
    }
}
