//! Control groups, as far as engines leave them to the runtime.

use crate::call::Call;
use crate::options::Opt;
use cgroup::{Cgroup, LinuxResources, MOUNT, Version, systemd::Manager};
use fault::{Explain, Fault, Result};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};
use std::path::{Component, Path, PathBuf};

/// Devices every container may use, by number: the nodes config-linux.md ("Default Devices") has in it, and terminals.
const DEVICES: [(i64, i64); 8] = [
    (1, 3),    // null
    (1, 5),    // zero
    (1, 7),    // full
    (1, 8),    // random
    (1, 9),    // urandom
    (5, 0),    // tty
    (5, 2),    // ptmx
    (136, -1), // pts/*
];

/// The systemd that is to make them, if one is; an ordinary user may ask only their own.
pub fn systemd(call: &Call<'_>) -> Option<Manager> {
    let manager = || if runtime::is_rootless() { Manager::User } else { Manager::System };
    call.options.has(Opt::SystemdCgroup).then(manager)
}

/// Puts the rules for them after those of the specification, which may deny everything; where it has none, everything else
/// is denied, as runc does. Nodes may be made for any device: without a rule they cannot be opened.
pub fn allow_default_devices(resources: &mut LinuxResources) {
    let mut rules = resources.devices().clone().unwrap_or_default();
    if rules.is_empty() {
        rules.extend(rule(false, LinuxDeviceType::A, -1, -1, "rwm"));
    }
    if !allows_everything(&rules) {
        rules.extend(rule(true, LinuxDeviceType::C, -1, -1, "m"));
        rules.extend(rule(true, LinuxDeviceType::B, -1, -1, "m"));
        rules.extend(
            DEVICES.iter().filter_map(|(major, minor)| rule(true, LinuxDeviceType::C, *major, *minor, "rwm")),
        );
    }
    resources.set_devices(Some(rules));
}

/// Of a privileged container: nothing needs to be added to its last rule.
fn allows_everything(rules: &[LinuxDeviceCgroup]) -> bool {
    let wild = |number: Option<i64>| number.is_none_or(|number| number < 0);
    rules.last().is_some_and(|rule| {
        let access = rule.access().as_deref().unwrap_or_default();
        rule.allow()
            && matches!(rule.typ(), None | Some(LinuxDeviceType::A))
            && wild(rule.major())
            && wild(rule.minor())
            && (access.is_empty() || "rwm".chars().all(|letter| access.contains(letter)))
    })
}

fn rule(
    allow: bool,
    kind: LinuxDeviceType,
    major: i64,
    minor: i64,
    access: &str,
) -> Option<LinuxDeviceCgroup> {
    let builder = LinuxDeviceCgroupBuilder::default().allow(allow).typ(kind).major(major).minor(minor);
    builder.access(access).build().ok()
}

/// The group, or those below it that are asked for (`PATH`, `CONTROLLER[,CONTROLLER]:PATH`); they exist already. The words are
/// runc's.
pub fn below(group: Cgroup, asked: &[&str]) -> Result<Cgroup> {
    if asked.is_empty() {
        return Ok(group);
    }
    let mut directories = group.directories().to_vec();
    let mut seen: Vec<&str> = Vec::new();
    for one in asked {
        let Some((controllers, path)) = one.split_once(':') else {
            if asked.len() > 1 {
                let what = format!("invalid --cgroup argument: {one} (missing <controller>: prefix)");
                return Err(Fault::usage(what));
            }
            directories = directories.iter().map(|base| sub_directory(base, one)).collect::<Result<_>>()?;
            continue;
        };
        for controller in controllers.split(',') {
            if seen.contains(&controller) {
                let what =
                    format!("invalid --cgroup argument(s): controller {controller} specified multiple times");
                return Err(Fault::usage(what));
            }
            seen.push(controller);
            let base = if group.version() == Version::V1 { directory(&group, controller) } else { None };
            let base = base
                .ok_or_else(|| Fault::usage(format!("unknown controller {controller} in SubCgroupPaths")))?;
            let sub = sub_directory(base, path)?;
            for there in directories.iter_mut().filter(|there| *there == base) {
                there.clone_from(&sub);
            }
        }
    }
    Ok(Cgroup::open(&directories)?.exactly())
}

fn sub_directory(base: &Path, path: &str) -> Result<PathBuf> {
    let mut sub = base.to_owned();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => sub.push(name),
            Component::RootDir | Component::CurDir => {}
            _ => return Err(Fault::usage(format!("bad sub cgroup path: {path}"))),
        }
    }
    rustix::fs::access(&sub, rustix::fs::Access::EXISTS)
        .explain(|| format!("error adding pid to cgroups: open {}", sub.display()))?;
    Ok(sub)
}

/// The directory of a controller; of version 2 there is only one.
pub fn directory<'a>(group: &'a Cgroup, controller: &str) -> Option<&'a Path> {
    let has = |directory: &&'a Path| {
        let hierarchy = directory.strip_prefix(MOUNT).ok().and_then(|rest| rest.components().next());
        let Some(Component::Normal(name)) = hierarchy else { return false };
        name.to_str().is_some_and(|name| name.split(',').any(|one| one == controller))
    };
    let mut directories = group.directories().iter().map(PathBuf::as_path);
    match group.version() {
        Version::V2 => directories.next(),
        Version::V1 => directories.find(has),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(devices: &str) -> Vec<LinuxDeviceCgroup> {
        let mut resources: LinuxResources =
            serde_json::from_str(&format!("{{\"devices\": {devices}}}")).unwrap();
        allow_default_devices(&mut resources);
        resources.devices().clone().unwrap()
    }

    #[test]
    fn a_container_may_use_its_own_terminal() {
        let rules = completed(r#"[{"allow": false, "access": "rwm"}]"#);
        assert_eq!(rules.len(), 1 + 2 + DEVICES.len());
        assert!(!rules[0].allow() && rules[1..].iter().all(LinuxDeviceCgroup::allow));
        for none in ["[]", "null"] {
            let rules = completed(none);
            assert_eq!((rules.len(), rules[0].allow()), (1 + 2 + DEVICES.len(), false), "{none}");
        }
        for all in [r#"[{"allow": true, "access": "rwm"}]"#, r#"[{"allow": true, "type": "a", "major": -1}]"#]
        {
            assert_eq!(completed(all).len(), 1, "{all}");
        }
        assert!(completed(r#"[{"allow": true, "type": "c", "access": "rwm"}]"#).len() > 1);
    }
}
