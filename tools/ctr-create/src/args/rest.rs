//! Devices, control groups' places, hooks, life.

use clap::Args;
use cli::{Fault, Result};
use record::Config;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, Default, Args)]
pub struct RestFlags {
    /// Give GPUs by their CDI names: all, a number, device=0,1
    #[arg(long, value_name = "GPUS", help_heading = "Files")]
    pub gpus: Vec<String>,

    /// Allow devices by number: c 1:3 rwm
    #[arg(long, value_name = "RULE", help_heading = "Files")]
    pub device_cgroup_rule: Vec<String>,

    /// With --read-only: temporary file systems at /run, /tmp and /var/tmp
    #[arg(long, help_heading = "Files")]
    pub read_only_tmpfs: bool,

    /// Limit what can be written to its root file system: size=10g (ext4 and xfs with project quotas)
    #[arg(long, value_name = "NAME=VALUE", help_heading = "Files")]
    pub storage_opt: Vec<String>,

    /// private, host
    #[arg(long, value_name = "MODE", help_heading = "Namespaces")]
    pub cgroupns: Option<String>,

    /// Make its control group in this one
    #[arg(long, value_name = "PATH", help_heading = "Namespaces")]
    pub cgroup_parent: Option<String>,

    /// Whether there are control groups: enabled; no-conmon is the same, as the shim is in none
    #[arg(long, value_name = "HOW", help_heading = "Namespaces")]
    pub cgroups: Option<String>,

    /// Kill it when it has run for so long
    #[arg(long, value_name = "SECONDS", help_heading = "Container")]
    pub timeout: Option<u64>,

    /// Write the number of its first process to a file
    #[arg(long, value_name = "FILE", help_heading = "Container")]
    pub pidfile: Option<PathBuf>,

    /// Take OCI hooks from this directory too
    #[arg(long, value_name = "DIR", help_heading = "Container")]
    pub hooks_dir: Vec<PathBuf>,

    /// Remove a container of that name first
    #[arg(long, requires = "name", help_heading = "Container")]
    pub replace: bool,
}

impl RestFlags {
    pub(super) fn put(&self, absolute: &dyn Fn(&Path) -> Result<String>, config: &mut Config) -> Result<()> {
        match self.cgroups.as_deref() {
            None | Some("enabled" | "no-conmon") => {}
            Some(how @ ("disabled" | "split")) => {
                return Err(Fault::usage(format!(
                    "--cgroups {how} is not supported: every container has control groups"
                )));
            }
            Some(other) => {
                return Err(Fault::usage(format!("--cgroups {other}: there is enabled")));
            }
        }
        for text in &self.gpus {
            config.devices.extend(oci::cdi::gpus(text)?);
        }
        config.device_cgroup_rules.clone_from(&self.device_cgroup_rule);
        config.read_only_tmpfs = self.read_only_tmpfs;
        config.cgroupns.clone_from(&self.cgroupns);
        config.cgroup_parent.clone_from(&self.cgroup_parent);
        config.timeout = self.timeout;
        config.storage_opts = super::pairs("storage option", &self.storage_opt, false)?;
        config.pidfile = self.pidfile.as_deref().map(absolute).transpose()?;
        config.hooks_dir = self.hooks_dir.iter().map(|dir| absolute(dir)).collect::<Result<_>>()?;
        Ok(())
    }
}
