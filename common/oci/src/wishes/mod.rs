//! What users write, made into types that are right: each module one grammar, [`Wishes`] all of a record's.
//!
//! Every failure here is of kind input; a tool that got the text as an argument says
//! `.map_err(|f| f.as_kind(Kind::Usage))`.

pub mod device;
pub mod env;
pub mod health;
mod limits;
pub mod log;
mod modes;
pub mod mount;
pub mod names;
mod networks;
pub mod port;
mod quantity;
mod resources;
mod secret;
mod security;
mod signal;
mod userns;

pub use device::{DeviceWish, device, is_cdi_name};
pub use health::{HealthPlan, OnFailure};
pub use limits::{SysctlScope, UNLIMITED, Ulimit, sysctl, ulimit, ulimit_name};
pub use log::{LogDriver, LogFiles, LogWish};
pub use modes::{CgroupMode, IpcMode, NetworkMode, PidMode, RestartPolicy, UtsMode};
pub use mount::{MountKind, MountPlan, OverlayPlan, ReadOnly, VolumePlan};
pub use names::{HostAddress, Resolver};
pub use networks::{is_name, network, network_text};
pub use port::port;
pub use quantity::{bytes, bytes_of, nano_cpus};
pub use resources::{DeviceRate, DeviceRule, Resources};
pub use secret::{Secret, SecretGoes, SecretSource, secret};
pub use security::{Seccomp, Security, unmasks};
pub use signal::{signal, signal_name};
pub use userns::{AutoWish, IdMap, Ids, UserMode, around};

use crate::Platform;
use crate::capabilities::CapWish;
use fault::{Fault, Kind, Result};
use record::{Config, Port};
use std::collections::BTreeMap;

/// Every member of a record's `config` that has a grammar, parsed.
#[derive(Clone, Debug)]
pub struct Wishes {
    pub mounts: Vec<MountPlan>,
    pub secrets: Vec<Secret>,
    pub devices: Vec<DeviceWish>,
    /// Devices by their names of the Container Device Interface.
    pub cdi_devices: Vec<String>,
    pub capabilities: CapWish,
    pub security: Security,
    /// Bytes; `None`: unlimited.
    pub memory: Option<u64>,
    /// Billionths of a CPU; `None`: unlimited.
    pub nano_cpus: Option<u64>,
    pub cpu_shares: Option<u64>,
    pub cpuset_cpus: Option<String>,
    /// Limits beside these.
    pub resources: Resources,
    /// `None`: unlimited.
    pub pids: Option<i64>,
    pub ulimits: Vec<Ulimit>,
    pub sysctls: BTreeMap<String, String>,
    pub network: NetworkMode,
    pub pid: PidMode,
    pub ipc: IpcMode,
    pub uts: UtsMode,
    pub cgroupns: CgroupMode,
    pub users: UserMode,
    /// Absolute, without `..`.
    pub cgroup_parent: Option<String>,
    pub hostname: Option<String>,
    /// Names and the address they are to have in `/etc/hosts`.
    pub hosts: Vec<(Vec<String>, HostAddress)>,
    pub resolver: Resolver,
    /// Beside those the image exposes.
    pub exposed: Vec<(u16, String)>,
    pub time_zone: Option<String>,
    /// Permission bits that new files do not get.
    pub umask: Option<u32>,
    /// Bytes of `/dev/shm`.
    pub shm_size: Option<u64>,
    /// Bytes that can be written to the root file system.
    pub layer_size: Option<u64>,
    /// Whether system calls tell of a 32 bit machine.
    pub personality: Option<Personality>,
    pub ports: Vec<Port>,
    pub stop_signal: Option<i32>,
    /// Seconds before SIGKILL; -1: never.
    pub stop_timeout: Option<i64>,
    pub restart: RestartPolicy,
    /// What of it the user set.
    pub health: health::HealthWish,
    pub log: LogWish,
    /// What the image has to be for.
    pub platform: Option<Platform>,
}

/// personality(2), as far as the runtime specification knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Personality {
    Linux,
    Linux32,
}

impl Wishes {
    /// Checks and parses all of it; what contradicts itself fails too.
    pub fn parse(config: &Config) -> Result<Wishes> {
        let mode = |text: &Option<String>| text.clone().unwrap_or_default();
        for variable in &config.env {
            env::env(variable)?;
        }
        for variable in config.env_host.iter().chain(&config.env_merge) {
            env::env(variable)?;
        }
        let memory = match &config.memory {
            Some(quantity) => {
                Some(bytes_of(quantity).map_err(|f| f.within("memory"))?).filter(|bytes| *bytes > 0)
            }
            None => None,
        };
        let nano_cpus = match &config.cpus {
            Some(quantity) => {
                Some(nano_cpus(quantity).map_err(|f| f.within("cpus"))?).filter(|nano| *nano > 0)
            }
            None => None,
        };
        let (cdi_devices, devices): (Vec<&String>, Vec<&String>) =
            config.devices.iter().partition(|text| is_cdi_name(text));
        let wishes = Wishes {
            mounts: config.mounts.iter().map(mount::mount).collect::<Result<_>>()?,
            secrets: config.secrets.iter().map(|text| absolute_secret(text)).collect::<Result<_>>()?,
            devices: devices.into_iter().map(|text| device(text)).collect::<Result<_>>()?,
            cdi_devices: cdi_devices.into_iter().cloned().collect(),
            capabilities: CapWish::parse(&config.cap_add, &config.cap_drop)?,
            security: Security::parse(&config.security_opt)?,
            memory,
            nano_cpus,
            cpu_shares: config.cpu_shares.filter(|shares| *shares > 0),
            cpuset_cpus: config
                .cpuset_cpus
                .as_deref()
                .filter(|list| !list.is_empty())
                .map(cpu_list)
                .transpose()?,
            resources: Resources::parse(config, memory, nano_cpus)?,
            pids: pids(config.pids_limit)?,
            ulimits: config.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_>>()?,
            sysctls: config.sysctls.clone(),
            network: NetworkMode::of(config)?,
            pid: PidMode::parse(&mode(&config.pid))?,
            ipc: IpcMode::parse(&mode(&config.ipc))?,
            uts: UtsMode::parse(&mode(&config.uts))?,
            hostname: config.hostname.as_deref().filter(|name| !name.is_empty()).map(hostname).transpose()?,
            cgroupns: CgroupMode::parse(&mode(&config.cgroupns))?,
            users: UserMode::parse(config)?,
            cgroup_parent: given(config.cgroup_parent.as_deref()).map(cgroup_parent).transpose()?,
            hosts: config.add_host.iter().map(|text| names::add_host(text)).collect::<Result<_>>()?,
            resolver: Resolver::parse(config)?,
            exposed: config
                .expose
                .iter()
                .map(|text| names::exposed(text))
                .collect::<Result<Vec<_>>>()?
                .concat(),
            time_zone: given(config.tz.as_deref()).map(names::time_zone).transpose()?,
            umask: given(config.umask.as_deref()).map(umask).transpose()?,
            shm_size: match &config.shm_size {
                Some(quantity) => {
                    Some(bytes_of(quantity).map_err(|f| f.within("shm-size"))?).filter(|bytes| *bytes > 0)
                }
                None => None,
            },
            layer_size: layer_size(&config.storage_opts)?,
            personality: given(config.personality.as_deref()).map(personality).transpose()?,
            ports: config.ports.iter().map(port).collect::<Result<_>>()?,
            stop_signal: config
                .stop_signal
                .as_deref()
                .filter(|text| !text.is_empty())
                .map(signal)
                .transpose()?,
            stop_timeout: stop_timeout(config.stop_timeout)?,
            restart: RestartPolicy::parse(&mode(&config.restart))?,
            health: health::HealthWish::parse(config.healthcheck.as_ref())?,
            log: LogWish::parse(config.log_driver.as_deref(), &config.log_opts)?,
            platform: match config.platform.as_deref().filter(|text| !text.is_empty()) {
                Some(text) => Some(Platform::parse(text).map_err(|fault| fault.as_kind(Kind::Input))?),
                None => None,
            },
        };
        for text in &config.volumes_from {
            mount::mounts_from(text)?;
        }
        wishes.check_together(config)?;
        Ok(wishes)
    }

    /// Contradictions between members.
    fn check_together(&self, config: &Config) -> Result<()> {
        let conflict = |what: &str| Err(Fault::input(what.to_owned()));
        if (self.hostname.is_some() || config.domainname.is_some()) && self.uts != UtsMode::Private {
            return conflict(if self.uts == UtsMode::Host {
                "a hostname and uts=host exclude each other"
            } else {
                "a hostname and uts=container: exclude each other: the name is the other container's"
            });
        }
        if config.timeout == Some(0) {
            return conflict("timeout 0: seconds, at least 1");
        }
        if !(self.hosts.is_empty() && self.resolver == Resolver::default())
            && matches!(self.network, NetworkMode::Container(_))
        {
            return conflict(
                "hosts, name servers and network=container: exclude each other: the other container's files are used",
            );
        }
        if config.read_only_tmpfs && !config.read_only {
            return conflict("read-only-tmpfs is for a read-only root file system: give read-only too");
        }
        if self.hostname.is_some() && matches!(self.network, NetworkMode::Container(_)) {
            return conflict(
                "a hostname and network=container: exclude each other: the name is the other container's",
            );
        }
        if !self.ports.is_empty() && matches!(self.network, NetworkMode::Container(_)) {
            return conflict(
                "published ports and network=container: exclude each other: publish them at the other container",
            );
        }
        if config.auto_remove && self.restart != RestartPolicy::No {
            return conflict("rm and a restart policy exclude each other");
        }
        if config.auto_remove && self.health.on_failure == Some(OnFailure::Restart) {
            return conflict("rm and a restart when the container is unhealthy exclude each other");
        }
        for name in self.sysctls.keys() {
            match sysctl(name)? {
                SysctlScope::Network if self.network == NetworkMode::Host => {
                    return Err(Fault::input(format!(
                        "the kernel parameter {name} is the host's with network=host"
                    )));
                }
                SysctlScope::Ipc if self.ipc == IpcMode::Host => {
                    return Err(Fault::input(format!(
                        "the kernel parameter {name} is the host's with ipc=host"
                    )));
                }
                _ => {}
            }
        }
        let mut targets: Vec<&str> = self.mounts.iter().map(|mount| mount.target.as_str()).collect();
        targets.extend(self.secrets.iter().filter_map(|secret| match &secret.goes {
            SecretGoes::File { target, .. } => Some(target.as_str()),
            SecretGoes::Variable(_) => None,
        }));
        targets.sort_unstable();
        if let Some(twice) =
            targets.windows(2).find(|pair| pair.first() == pair.last()).and_then(|pair| pair.first())
        {
            return Err(Fault::input(format!("two mounts at {twice}")));
        }
        Ok(())
    }
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// `/a/b` or `a/b`, both below the root of the hierarchy.
fn cgroup_parent(text: &str) -> Result<String> {
    let trimmed = text.trim_matches('/');
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(char::is_control);
    if text.len() <= 1024 && trimmed.split('/').all(plain) {
        return Ok(format!("/{trimmed}"));
    }
    Err(Fault::input(format!("\"{text}\" is not a control group"))
        .hint("a path below the root of the hierarchy: /batch"))
}

fn umask(text: &str) -> Result<u32> {
    let valid = text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    u32::from_str_radix(text, 8).ok().filter(|mask| valid && *mask <= 0o777).ok_or_else(|| {
        Fault::input(format!("\"{text}\" is not a file creation mask")).hint("octal digits: 0027")
    })
}

fn personality(text: &str) -> Result<Personality> {
    match text.to_ascii_uppercase().as_str() {
        "LINUX" => Ok(Personality::Linux),
        "LINUX32" => Ok(Personality::Linux32),
        _ => Err(Fault::input(format!("there is no personality \"{text}\"")).hint("one of: LINUX, LINUX32")),
    }
}

/// A record is read anywhere, so what it names must not depend on where.
fn absolute_secret(text: &str) -> Result<Secret> {
    let secret = secret(text)?;
    match &secret.source {
        SecretSource::File(path) if !path.starts_with('/') => {
            Err(Fault::input(format!("the secret's source {path} is not an absolute path")))
        }
        _ => Ok(secret),
    }
}

fn pids(limit: Option<i64>) -> Result<Option<i64>> {
    match limit {
        None | Some(-1 | 0) => Ok(None),
        Some(limit) if limit > 0 => Ok(Some(limit)),
        Some(limit) => Err(Fault::input(format!("pids limit {limit}: a number above 0, or -1 for no limit"))),
    }
}

/// docker's `--storage-opt`, as overlay has it.
fn layer_size(options: &BTreeMap<String, String>) -> Result<Option<u64>> {
    let mut size = None;
    for (name, value) in options {
        if name != "size" {
            return Err(Fault::input(format!("there is no storage option \"{name}\""))
                .hint("there is size: size=10g"));
        }
        size = match bytes(value).map_err(|fault| fault.within("storage option size"))? {
            0 => return Err(Fault::input("storage option size: it must be greater than 0")),
            bytes => Some(bytes),
        };
    }
    Ok(size)
}

fn stop_timeout(seconds: Option<i64>) -> Result<Option<i64>> {
    match seconds {
        Some(seconds) if seconds < -1 => {
            Err(Fault::input(format!("stop timeout {seconds}: seconds, or -1 to wait for ever")))
        }
        seconds => Ok(seconds),
    }
}

/// A list of CPUs as the kernel takes it: `0-3,7`.
fn cpu_list(text: &str) -> Result<String> {
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse::<u16>().ok())
            .flatten()
    };
    let valid = text.split(',').all(|part| match part.split_once('-') {
        None => number(part).is_some(),
        Some((first, last)) => {
            matches!((number(first), number(last)), (Some(first), Some(last)) if first <= last)
        }
    });
    if valid {
        Ok(text.to_owned())
    } else {
        Err(Fault::input(format!("\"{text}\" is not a list of CPUs")).hint("numbers and ranges: 0-3,7"))
    }
}

/// A host name the kernel takes (64 bytes) and other programs understand (RFC 1123, with `_`).
fn hostname(text: &str) -> Result<String> {
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if text.len() <= 64 && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(Fault::input(format!("\"{text}\" is not a host name"))
        .hint("letters, digits, inner - and _, parts joined by dots; at most 64"))
}

#[cfg(test)]
mod tests;
