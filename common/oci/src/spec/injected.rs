//! What devices of the Container Device Interface bring along: nodes, mounts, hooks, groups. Their variables are put in where
//! the environment is made.

use super::mounts::{Mounts, new_mount};
use super::resources::{kind, node, rule};
use super::{Generator, HostDevice};
use crate::cdi::DeviceNode;
use crate::users;
use fault::{Fault, Result};
use oci_spec::runtime::{Hook, Hooks, LinuxDevice, LinuxDeviceCgroup};
use std::path::PathBuf;

/// Members of the specification's `hooks`.
const POINTS: [&str; 6] =
    ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];

impl Generator<'_> {
    pub(super) fn add_groups(&self, user: &mut users::Identity) {
        for gid in &self.injected.additional_gids {
            if !user.groups.contains(gid) {
                user.groups.push(*gid);
            }
        }
    }

    pub(super) fn add_injected_devices(
        &self,
        nodes: &mut Vec<LinuxDevice>,
        rules: &mut Vec<LinuxDeviceCgroup>,
    ) -> Result<()> {
        for wanted in &self.injected.device_nodes {
            let device = self.device_of(wanted)?;
            nodes.retain(|present| present.path().as_os_str() != wanted.path.as_str());
            nodes.push(node(&device, &wanted.path));
            if device.kind != 'p' {
                let access = if wanted.permissions.is_empty() { "rwm" } else { &wanted.permissions };
                rules.push(rule(true, Some(kind(&device)), Some(device.major), Some(device.minor), access));
            }
        }
        Ok(())
    }

    /// What the specification does not say is the host's.
    fn device_of(&self, wanted: &DeviceNode) -> Result<HostDevice> {
        let path = if wanted.host_path.is_empty() { &wanted.path } else { &wanted.host_path };
        let kind = wanted.kind.chars().next().map(|kind| if kind == 'u' { 'c' } else { kind });
        let complete = kind.zip(wanted.major).zip(wanted.minor);
        let mut device = match complete {
            Some(((kind, major), minor)) => {
                HostDevice { path: path.clone(), kind, major, minor, mode: 0o666, uid: 0, gid: 0 }
            }
            None => match self.lookup.devices_at(path)?.as_slice() {
                [device] => device.clone(),
                _ => return Err(Fault::input(format!("{path} is not a device"))),
            },
        };
        device.mode = wanted.file_mode.map_or(device.mode, |mode| mode & 0o7777);
        device.uid = wanted.uid.unwrap_or(device.uid);
        device.gid = wanted.gid.unwrap_or(device.gid);
        Ok(device)
    }

    pub(super) fn add_injected_mounts(&self, mounts: &mut Mounts) {
        for mount in &self.injected.mounts {
            let kind = if mount.kind.is_empty() { "bind" } else { &mount.kind };
            let mut options: Vec<&str> = mount.options.iter().map(String::as_str).collect();
            if kind == "bind" && !options.iter().any(|option| matches!(*option, "bind" | "rbind")) {
                options.push("rbind");
            }
            mounts.list.push(new_mount(&mount.container_path, kind, &mount.host_path, &options));
        }
    }

    pub(super) fn hooks(&self) -> Result<Option<Hooks>> {
        if self.injected.hooks.is_empty() {
            return Ok(None);
        }
        let at = |name: &str| {
            let hooks = self.injected.hooks.iter().filter(|hook| hook.hook_name == name);
            let hooks: Vec<Hook> = hooks
                .map(|wanted| {
                    let mut hook = Hook::default();
                    hook.set_path(PathBuf::from(&wanted.path))
                        .set_args((!wanted.args.is_empty()).then(|| wanted.args.clone()))
                        .set_env((!wanted.env.is_empty()).then(|| wanted.env.clone()))
                        .set_timeout(wanted.timeout);
                    hook
                })
                .collect();
            (!hooks.is_empty()).then_some(hooks)
        };
        if let Some(hook) = self.injected.hooks.iter().find(|hook| !POINTS.contains(&hook.hook_name.as_str()))
        {
            return Err(Fault::input(format!(
                "the device's specification: there is no hook \"{}\"",
                hook.hook_name
            )));
        }
        let mut hooks = Hooks::default();
        hooks
            .set_create_runtime(at("createRuntime"))
            .set_create_container(at("createContainer"))
            .set_start_container(at("startContainer"))
            .set_poststart(at("poststart"))
            .set_poststop(at("poststop"));
        // What nvidia's older specifications use.
        #[allow(deprecated)]
        hooks.set_prestart(at("prestart"));
        Ok(Some(hooks))
    }
}
