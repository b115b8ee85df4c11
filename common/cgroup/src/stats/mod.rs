//! What a group has used, under the names runc prints it by (`runc events --stats`), which containerd and others read.

use crate::{Cgroup, Version};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: Blkio,
    pub hugetlb: BTreeMap<String, Counter>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cpu {
    pub usage: CpuUsage,
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

/// Nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuUsage {
    pub total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
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

/// Bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Memory {
    pub cache: u64,
    pub usage: Counter,
    pub swap: Counter,
    pub kernel: Counter,
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: Counter,
    pub raw: BTreeMap<String, u64>,
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

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Blkio {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BlkioEntry {
    pub major: u64,
    pub minor: u64,
    pub op: String,
    pub value: u64,
}

/// Pressure (the kernel's accounting/psi.rst).
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Psi {
    pub some: Pressure,
    pub full: Pressure,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
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
        self.read(controller, file).and_then(|text| number(&text)).unwrap_or(0)
    }

    fn table(&self, controller: &str, file: &str) -> BTreeMap<String, u64> {
        self.read(controller, file).map(|text| table(&text)).unwrap_or_default()
    }

    fn stats_1(&self) -> Stats {
        /// USER_HZ of every architecture Linux has had for twenty years.
        const NANOSECONDS_A_TICK: u64 = 10_000_000;
        let ticks = self.table("cpuacct", "cpuacct.stat");
        let time = |name: &str| ticks.get(name).copied().unwrap_or(0) * NANOSECONDS_A_TICK;
        let throttled = self.table("cpu", "cpu.stat");
        let of = |table: &BTreeMap<String, u64>, name: &str| table.get(name).copied().unwrap_or(0);
        let counter = |controller: &str, name: &str| Counter {
            limit: self.number(controller, &format!("{name}limit_in_bytes")),
            usage: self.number(controller, &format!("{name}usage_in_bytes")),
            max: self.number(controller, &format!("{name}max_usage_in_bytes")),
            failcnt: self.number(controller, &format!("{name}failcnt")),
        };
        let raw = self.table("memory", "memory.stat");
        let percpu = self.read("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
        Stats {
            cpu: Cpu {
                usage: CpuUsage {
                    total: self.number("cpuacct", "cpuacct.usage"),
                    percpu: percpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
                    kernel: time("system"),
                    user: time("user"),
                },
                throttling: Throttling {
                    periods: of(&throttled, "nr_periods"),
                    throttled_periods: of(&throttled, "nr_throttled"),
                    throttled_time: of(&throttled, "throttled_time"),
                },
                psi: None,
            },
            memory: Memory {
                cache: of(&raw, "cache"),
                usage: counter("memory", "memory."),
                swap: counter("memory", "memory.memsw."),
                kernel: counter("memory", "memory.kmem."),
                kernel_tcp: counter("memory", "memory.kmem.tcp."),
                raw,
                psi: None,
            },
            pids: self.pids(),
            blkio: Blkio {
                io_service_bytes_recursive: self.throttled_1("blkio.throttle.io_service_bytes_recursive"),
                io_serviced_recursive: self.throttled_1("blkio.throttle.io_serviced_recursive"),
                psi: None,
            },
            hugetlb: self.hugetlb(|size| counter("hugetlb", &format!("hugetlb.{size}."))),
        }
    }

    fn stats_2(&self) -> Stats {
        const NANOSECONDS: u64 = 1000;
        let cpu = self.table("", "cpu.stat");
        let raw = self.table("", "memory.stat");
        let of = |table: &BTreeMap<String, u64>, name: &str| table.get(name).copied().unwrap_or(0);
        let time = |name: &str| of(&cpu, name) * NANOSECONDS;
        let swap_usage = self.number("", "memory.swap.current");
        let memory_usage = self.number("", "memory.current");
        let limits = (self.number("", "memory.max"), self.number("", "memory.swap.max"));
        Stats {
            cpu: Cpu {
                usage: CpuUsage {
                    total: time("usage_usec"),
                    percpu: Vec::new(),
                    kernel: time("system_usec"),
                    user: time("user_usec"),
                },
                throttling: Throttling {
                    periods: of(&cpu, "nr_periods"),
                    throttled_periods: of(&cpu, "nr_throttled"),
                    throttled_time: time("throttled_usec"),
                },
                psi: self.psi("cpu.pressure"),
            },
            memory: Memory {
                cache: of(&raw, "file"),
                usage: Counter {
                    limit: limits.0,
                    usage: memory_usage,
                    max: self.number("", "memory.peak"),
                    failcnt: of(&self.table("", "memory.events"), "max"),
                },
                // As version 1 has it: memory and swap together.
                swap: Counter {
                    limit: limits.0.saturating_add(limits.1),
                    usage: memory_usage + swap_usage,
                    ..Counter::default()
                },
                raw,
                psi: self.psi("memory.pressure"),
                ..Memory::default()
            },
            pids: self.pids(),
            blkio: self.io_2(),
            hugetlb: self.hugetlb(|size| Counter {
                limit: self.number("", &format!("hugetlb.{size}.max")),
                usage: self.number("", &format!("hugetlb.{size}.current")),
                max: 0,
                failcnt: of(&self.table("", &format!("hugetlb.{size}.events")), "max"),
            }),
        }
    }

    fn pids(&self) -> Pids {
        let limit = self.number("pids", "pids.max");
        Pids {
            current: self.number("pids", "pids.current"),
            limit: if limit == u64::MAX { 0 } else { limit },
        }
    }

    /// `8:0 Read 4096` a line.
    fn throttled_1(&self, file: &str) -> Vec<BlkioEntry> {
        let text = self.read("blkio", file).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                let (major, minor) = device(words.next()?)?;
                let op = words.next()?.to_owned();
                Some(BlkioEntry { major, minor, op, value: words.next()?.parse().ok()? })
            })
            .collect()
    }

    /// `8:0 rbytes=4096 wbytes=0 rios=1 …` a line.
    fn io_2(&self) -> Blkio {
        let mut io = Blkio { psi: self.psi("io.pressure"), ..Blkio::default() };
        for line in self.read("", "io.stat").unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            let Some((major, minor)) = words.next().and_then(device) else { continue };
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let Ok(value) = value.parse() else { continue };
                let entry = |op: &str| BlkioEntry { major, minor, op: op.to_owned(), value };
                match key {
                    "rbytes" => io.io_service_bytes_recursive.push(entry("Read")),
                    "wbytes" => io.io_service_bytes_recursive.push(entry("Write")),
                    "dbytes" => io.io_service_bytes_recursive.push(entry("Discard")),
                    "rios" => io.io_serviced_recursive.push(entry("Read")),
                    "wios" => io.io_serviced_recursive.push(entry("Write")),
                    "dios" => io.io_serviced_recursive.push(entry("Discard")),
                    _ => {}
                }
            }
        }
        io
    }

    fn psi(&self, file: &str) -> Option<Psi> {
        self.read("", file).map(|text| psi(&text))
    }

    fn hugetlb(&self, counter: impl Fn(&str) -> Counter) -> BTreeMap<String, Counter> {
        let Some(directory) = self.directory_of("hugetlb") else { return BTreeMap::new() };
        let Ok(entries) = std::fs::read_dir(directory) else { return BTreeMap::new() };
        let sizes = entries.flatten().filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let (size, what) = name.strip_prefix("hugetlb.")?.split_once('.')?;
            matches!(what, "usage_in_bytes" | "current").then(|| size.to_owned())
        });
        sizes.map(|size| (size.clone(), counter(&size))).collect()
    }
}

fn number(text: &str) -> Option<u64> {
    match text.trim() {
        "max" => Some(u64::MAX),
        text => text.parse().ok(),
    }
}

fn table(text: &str) -> BTreeMap<String, u64> {
    text.lines()
        .filter_map(|line| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and `full …`.
fn psi(text: &str) -> Psi {
    let mut psi = Psi::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let pressure = match words.next() {
            Some("some") => &mut psi.some,
            Some("full") => &mut psi.full,
            _ => continue,
        };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => pressure.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => pressure.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => pressure.avg300 = value.parse().unwrap_or(0.0),
                "total" => pressure.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
    psi
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_texts_are_read() {
        assert_eq!(number("max\n"), Some(u64::MAX));
        assert_eq!(number("12\n"), Some(12));
        assert_eq!(number("-"), None);
        assert_eq!(table("a 1\nbad\nb 2\n").len(), 2);
        assert_eq!(device("8:16"), Some((8, 16)));
        assert_eq!(device("x"), None);
        let psi = psi("some avg10=1.50 avg60=0.00 avg300=0.25 total=77\nfull avg10=0.00 total=5\nnonsense");
        assert_eq!((psi.some.avg10, psi.some.avg300, psi.some.total, psi.full.total), (1.5, 0.25, 77, 5));
    }
}
