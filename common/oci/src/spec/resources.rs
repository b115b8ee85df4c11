//! `linux`: limits, devices, kernel parameters, hidden paths.

use super::{Generator, HostDevice};
use crate::wishes::{DeviceRate, unmasks};
use fault::{Fault, Result};
use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Linux, LinuxBlockIo, LinuxCpu, LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxPids,
    LinuxResources, LinuxThrottleDeviceBuilder, LinuxWeightDeviceBuilder,
};
use std::collections::HashMap;
use std::path::PathBuf;

/// Hidden from containers (moby `defaultLinuxMaskedPaths`).
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Character devices every container may use: null, zero, full, random, urandom, tty, console, ptmx.
const DEVICES: [(i64, i64); 8] = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2)];

/// Unix98 pseudo terminals.
const PTS_MAJOR: i64 = 136;

/// Microseconds docker counts CPU time over.
const CPU_PERIOD: u64 = 100_000;
const BILLION: u64 = 1_000_000_000;

impl Generator<'_> {
    pub(super) fn masked_paths(&self) -> Option<Vec<String>> {
        let security = &self.wishes.security;
        if self.config.privileged || security.unconfined_paths {
            return Some(security.mask.clone()).filter(|paths| !paths.is_empty());
        }
        let throttles = (0..self.facts.thermal_throttles)
            .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"));
        let usual = MASKED.iter().map(|path| (*path).to_owned()).chain(throttles);
        let usual = usual.filter(|path| !unmasks(&security.unmask, path));
        Some(usual.chain(security.mask.iter().cloned()).collect())
    }

    pub(super) fn readonly_paths(&self) -> Option<Vec<String>> {
        let security = &self.wishes.security;
        let usual = READ_ONLY.iter().filter(|path| !unmasks(&security.unmask, path));
        (!self.config.privileged && !security.unconfined_paths)
            .then(|| usual.map(|path| (*path).to_owned()).collect())
    }

    /// docker opens ping and low ports to everybody inside a network namespace of the container's own.
    pub(super) fn sysctls(&self) -> Option<HashMap<String, String>> {
        let mut sysctls = HashMap::new();
        if self.wishes.network.is_private() && self.facts.ipv4_sysctls {
            if let Some(range) = self.ping_groups() {
                sysctls.insert("net.ipv4.ping_group_range".to_owned(), range);
            }
            sysctls.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        }
        sysctls.extend(self.wishes.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())));
        (!sysctls.is_empty()).then_some(sysctls)
    }

    pub(super) fn add_resources(&mut self, linux: &mut Linux) -> Result<()> {
        let mut resources = LinuxResources::default();
        resources.set_memory(self.memory()?).set_cpu(self.cpu()?).set_block_io(self.block_io()?);
        if !self.config.cgroup_conf.is_empty() {
            resources.set_unified(Some(self.config.cgroup_conf.clone().into_iter().collect()));
        }
        if let Some(limit) = self.wishes.pids {
            let mut pids = LinuxPids::default();
            pids.set_limit(limit);
            resources.set_pids(Some(pids));
        }
        linux.set_resources(Some(resources));
        Ok(())
    }

    fn memory(&mut self) -> Result<Option<LinuxMemory>> {
        let asked = &self.wishes.resources;
        let limit = self.wishes.memory.and_then(|bytes| i64::try_from(bytes).ok());
        let mut memory = LinuxMemory::default();
        memory
            .set_limit(limit)
            .set_reservation(asked.memory_reservation)
            .set_swappiness(asked.memory_swappiness)
            .set_disable_oom_killer(asked.oom_kill_disable.then_some(true));
        match (asked.memory_swap, limit) {
            (Some(_), _) if !self.facts.swap_accounting => {
                return Err(Fault::failed("memory-swap cannot be set: the kernel does not count swap here")
                    .hint("boot it with swapaccount=1"));
            }
            (Some(both), _) => {
                memory.set_swap(Some(both));
            }
            // docker: as much swap again as memory.
            (None, Some(limit)) if self.facts.swap_accounting => {
                memory.set_swap(Some(limit.saturating_mul(2)));
            }
            _ => {}
        }
        if asked.oom_kill_disable && limit.is_none() {
            self.warnings.push(
                "oom-kill-disable without a memory limit: the container can use up the machine's".to_owned(),
            );
        }
        Ok(Some(memory).filter(|memory| *memory != LinuxMemory::default()))
    }

    fn block_io(&self) -> Result<Option<LinuxBlockIo>> {
        let asked = &self.wishes.resources;
        let mut io = LinuxBlockIo::default();
        io.set_weight(asked.blkio_weight);
        let weight = |(major, minor), rate| {
            let weight = u16::try_from(rate).unwrap_or(u16::MAX);
            LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build()
        };
        let throttle = |(major, minor), rate| {
            LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(rate).build()
        };
        io.set_weight_device(self.block_devices(&asked.blkio_weight_devices, weight)?)
            .set_throttle_read_bps_device(self.block_devices(&asked.read_bps, throttle)?)
            .set_throttle_write_bps_device(self.block_devices(&asked.write_bps, throttle)?)
            .set_throttle_read_iops_device(self.block_devices(&asked.read_iops, throttle)?)
            .set_throttle_write_iops_device(self.block_devices(&asked.write_iops, throttle)?);
        Ok(Some(io).filter(|io| *io != LinuxBlockIo::default()))
    }

    /// By their numbers.
    fn block_devices<T>(
        &self,
        rates: &[DeviceRate],
        make: impl Fn((i64, i64), u64) -> std::result::Result<T, OciSpecError>,
    ) -> Result<Option<Vec<T>>> {
        let mut list = Vec::with_capacity(rates.len());
        for wish in rates {
            match self.lookup.devices_at(&wish.path)?.as_slice() {
                [device] if device.kind == 'b' => list.push(
                    make((device.major, device.minor), wish.rate)
                        .map_err(|error| Fault::failed("write the rates of devices").because(error))?,
                ),
                _ => return Err(Fault::input(format!("{} is not a block device", wish.path))),
            }
        }
        Ok((!list.is_empty()).then_some(list))
    }

    fn cpu(&self) -> Result<Option<LinuxCpu>> {
        let wishes = &self.wishes;
        let asked = &wishes.resources;
        let mut cpu = LinuxCpu::default();
        if let Some(nano) = wishes.nano_cpus {
            let most = u64::from(self.facts.cpus).saturating_mul(BILLION);
            // The kernel's least quota is a millisecond of the period.
            if nano < BILLION / 100 || nano > most {
                return Err(Fault::input(format!(
                    "cpus must be between 0.01 and {}, as there are only {} CPUs",
                    self.facts.cpus, self.facts.cpus
                )));
            }
            cpu.set_period(Some(CPU_PERIOD)).set_quota(i64::try_from(nano / (BILLION / CPU_PERIOD)).ok());
        } else {
            cpu.set_period(asked.cpu_period).set_quota(asked.cpu_quota);
        }
        cpu.set_shares(wishes.cpu_shares)
            .set_cpus(wishes.cpuset_cpus.clone())
            .set_mems(asked.cpuset_mems.clone())
            .set_realtime_period(asked.cpu_rt_period)
            .set_realtime_runtime(asked.cpu_rt_runtime);
        Ok(Some(cpu).filter(|cpu| *cpu != LinuxCpu::default()))
    }

    pub(super) fn add_devices(&mut self, linux: &mut Linux) -> Result<()> {
        let (mut nodes, mut rules) =
            if self.config.privileged { self.every_device()? } else { self.wanted_devices()? };
        for asked in &self.wishes.resources.device_rules {
            let kind = match asked.kind {
                'b' => LinuxDeviceType::B,
                'c' => LinuxDeviceType::C,
                _ => LinuxDeviceType::A,
            };
            rules.push(rule(true, Some(kind), asked.major, asked.minor, &asked.access));
        }
        self.add_injected_devices(&mut nodes, &mut rules)?;
        if let Some(resources) = linux.resources_mut() {
            resources.set_devices(Some(rules));
        }
        linux.set_devices(Some(nodes));
        Ok(())
    }

    fn every_device(&mut self) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>)> {
        let mut nodes: Vec<LinuxDevice> =
            self.lookup.all_devices()?.iter().map(|device| node(device, &device.path)).collect();
        for wish in &self.wishes.devices {
            if wish.permissions != "rwm" {
                self.warnings.push(format!(
                    "{} gets all permissions, as every device of a privileged container",
                    wish.host
                ));
            }
            if wish.host != wish.container {
                nodes.extend(placed(&self.lookup.devices_at(&wish.host)?, &wish.host, &wish.container));
            }
        }
        Ok((nodes, vec![rule(true, None, None, None, "rwm")]))
    }

    fn wanted_devices(&self) -> Result<(Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>)> {
        let mut nodes = Vec::new();
        let mut rules = vec![rule(false, None, None, None, "rwm")];
        // Making a node gives no access to what it stands for.
        rules.extend(
            [LinuxDeviceType::C, LinuxDeviceType::B].map(|kind| rule(true, Some(kind), None, None, "m")),
        );
        rules.extend(
            DEVICES
                .map(|(major, minor)| rule(true, Some(LinuxDeviceType::C), Some(major), Some(minor), "rwm")),
        );
        rules.push(rule(true, Some(LinuxDeviceType::C), Some(PTS_MAJOR), None, "rwm"));
        for wish in &self.wishes.devices {
            let found = self.lookup.devices_at(&wish.host)?;
            if found.is_empty() {
                return Err(Fault::not_found(format!("no device at {}", wish.host)));
            }
            for device in found.iter().filter(|device| device.kind != 'p') {
                rules.push(rule(
                    true,
                    Some(kind(device)),
                    Some(device.major),
                    Some(device.minor),
                    &wish.permissions,
                ));
            }
            nodes.extend(placed(&found, &wish.host, &wish.container));
        }
        Ok((nodes, rules))
    }
}

/// Nodes at their place in the container.
fn placed(devices: &[HostDevice], host: &str, container: &str) -> Vec<LinuxDevice> {
    let place = |device: &HostDevice| {
        let below = device.path.strip_prefix(host).unwrap_or("");
        format!("{container}{below}")
    };
    devices.iter().map(|device| node(device, &place(device))).collect()
}

pub(super) fn kind(device: &HostDevice) -> LinuxDeviceType {
    match device.kind {
        'b' => LinuxDeviceType::B,
        'p' => LinuxDeviceType::P,
        _ => LinuxDeviceType::C,
    }
}

pub(super) fn node(device: &HostDevice, path: &str) -> LinuxDevice {
    let mut node = LinuxDevice::default();
    node.set_path(PathBuf::from(path))
        .set_typ(kind(device))
        .set_major(device.major)
        .set_minor(device.minor)
        .set_file_mode(Some(device.mode & 0o7777))
        .set_uid(Some(device.uid))
        .set_gid(Some(device.gid));
    node
}

pub(super) fn rule(
    allow: bool,
    kind: Option<LinuxDeviceType>,
    major: Option<i64>,
    minor: Option<i64>,
    access: &str,
) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_typ(kind).set_major(major).set_minor(minor).set_access(Some(access.to_owned()));
    rule
}
