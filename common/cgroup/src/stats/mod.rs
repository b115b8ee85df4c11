//! What a group has used, under the names runc prints it by (`runc events --stats`), which containerd and others read.

mod text;
mod usage;
mod v1;
mod v2;

pub use usage::Usage;

use crate::{Cgroup, Version};
use serde::Serialize;
use std::collections::BTreeMap;

/// What runc's lacks and this has: `memory.events`, `rdma`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: Blkio,
    /// By page size: `2MB`.
    pub hugetlb: BTreeMap<String, Hugetlb>,
    #[serde(skip_serializing_if = "Rdma::is_empty")]
    pub rdma: Rdma,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Nanoseconds. Version 2 does not count them by processor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    pub periods: u64,
    pub throttled_periods: u64,
    /// Nanoseconds.
    pub throttled_time: u64,
}

/// Processors and nodes of memory the processes may use, and version 1's flags (its cpusets.rst).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

/// Bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    pub cache: u64,
    pub usage: Counter,
    /// Memory and swap together.
    pub swap: Counter,
    pub kernel: Counter,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Counter,
    /// `memory.stat`, under the kernel's names.
    pub raw: BTreeMap<String, u64>,
    /// How often what happened, under the kernel's names: `memory.events`, of version 1 `memory.oom_control`. Written when
    /// something has: people look for "oom" in what `events` of a runtime prints.
    #[serde(skip_serializing_if = "nothing_happened")]
    pub events: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counter {
    /// 2^64 - 1 where there is none.
    pub limit: u64,
    pub usage: u64,
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    pub current: u64,
    /// 0 where there is none.
    pub limit: u64,
}

/// Reserved bytes where the kernel counts those, else bytes in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hugetlb {
    pub usage: u64,
    pub max: u64,
    /// How often the limit was met.
    pub failcnt: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_queue_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    pub major: u64,
    pub minor: u64,
    /// `Read`, `Write` …; empty in tables that make no difference.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    pub value: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rdma {
    pub rdma_limit: Vec<RdmaEntry>,
    pub rdma_current: Vec<RdmaEntry>,
}

impl Rdma {
    fn is_empty(&self) -> bool {
        self.rdma_limit.is_empty() && self.rdma_current.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RdmaEntry {
    pub device: String,
    /// 2^32 - 1 where there is no limit.
    pub hca_handles: u32,
    pub hca_objects: u32,
}

/// Pressure (the kernel's accounting/psi.rst).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Psi {
    pub some: Pressure,
    pub full: Pressure,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Per cent of the time in the last 10 s; 60 s, 300 s.
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    /// Microseconds.
    pub total: u64,
}

impl Cgroup {
    /// What cannot be read counts as 0: not every machine counts everything.
    pub fn stats(&self) -> Stats {
        match self.version {
            Version::V1 => self.stats_1(),
            Version::V2 => self.stats_2(),
        }
    }

    fn number(&self, controller: &str, file: &str) -> u64 {
        self.read(controller, file).and_then(|text| text::number(&text)).unwrap_or(0)
    }

    fn table(&self, controller: &str, file: &str) -> BTreeMap<String, u64> {
        self.read(controller, file).map(|text| text::table(&text)).unwrap_or_default()
    }

    fn list(&self, file: &str) -> Vec<u16> {
        self.read("cpuset", file).map(|text| text::list(&text)).unwrap_or_default()
    }

    fn pids(&self) -> Pids {
        let limit = self.number("pids", "pids.max");
        // Without the controller they can still be counted.
        let current = self.read("pids", "pids.current").and_then(|text| text::number(&text));
        Pids {
            current: current.unwrap_or_else(|| self.processes().len() as u64),
            limit: if limit == u64::MAX { 0 } else { limit },
        }
    }

    /// `of` reads what there is about one size by the beginning of its files' names: those of what is reserved where there are
    /// any (`used` is the name of a file there).
    fn hugetlb(&self, used: &str, of: impl Fn(&str, &str) -> Hugetlb) -> BTreeMap<String, Hugetlb> {
        let Some(directory) = self.directory_of("hugetlb") else { return BTreeMap::new() };
        let Ok(entries) = std::fs::read_dir(directory) else { return BTreeMap::new() };
        let sizes = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (size, what) = name.strip_prefix("hugetlb.")?.split_once('.')?;
            (what == used).then(|| size.to_owned())
        });
        let one = |size: String| {
            let plain = format!("hugetlb.{size}.");
            let reserved = format!("{plain}rsvd.");
            let files = if directory.join(format!("{reserved}{used}")).exists() { &reserved } else { &plain };
            let one = of(files, &plain);
            (size, one)
        };
        sizes.map(one).collect()
    }

    fn rdma(&self) -> Rdma {
        let read = |file| self.read("rdma", file).map(|text| text::rdma(&text)).unwrap_or_default();
        let rdma_current = read("rdma.current");
        // Most machines have none.
        let rdma_limit = if rdma_current.is_empty() { Vec::new() } else { read("rdma.max") };
        Rdma { rdma_limit, rdma_current }
    }
}

fn of(table: &BTreeMap<String, u64>, name: &str) -> u64 {
    table.get(name).copied().unwrap_or(0)
}

fn nothing_happened(events: &BTreeMap<String, u64>) -> bool {
    events.values().all(|count| *count == 0)
}
