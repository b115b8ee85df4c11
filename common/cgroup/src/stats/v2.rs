//! From version 2's files.

use super::{
    Blkio, BlkioEntry, Counter, Cpu, CpuUsage, Cpuset, Hugetlb, Memory, Psi, Stats, Throttling, of, text,
};
use crate::Cgroup;

impl Cgroup {
    pub(super) fn stats_2(&self) -> Stats {
        Stats {
            cpu: self.cpu_2(),
            // The flags are version 1's.
            cpuset: Cpuset {
                cpus: self.list("cpuset.cpus.effective"),
                mems: self.list("cpuset.mems.effective"),
                ..Cpuset::default()
            },
            memory: self.memory_2(),
            pids: self.pids(),
            blkio: self.blkio_2(),
            hugetlb: self.hugetlb("current", |files, plain| Hugetlb {
                usage: self.number("", &format!("{files}current")),
                max: 0,
                failcnt: of(&self.table("", &format!("{plain}events")), "max"),
            }),
            rdma: self.rdma(),
        }
    }

    fn cpu_2(&self) -> Cpu {
        const NANOSECONDS: u64 = 1000;
        let stat = self.table("", "cpu.stat");
        let time = |name: &str| of(&stat, name).saturating_mul(NANOSECONDS);
        Cpu {
            usage: CpuUsage {
                total: time("usage_usec"),
                kernel: time("system_usec"),
                user: time("user_usec"),
                ..CpuUsage::default()
            },
            throttling: Throttling {
                periods: of(&stat, "nr_periods"),
                throttled_periods: of(&stat, "nr_throttled"),
                throttled_time: time("throttled_usec"),
            },
            psi: self.psi("cpu.pressure"),
        }
    }

    fn memory_2(&self) -> Memory {
        let raw = self.table("", "memory.stat");
        let events = self.table("", "memory.events");
        let usage = Counter {
            limit: self.number("", "memory.max"),
            usage: self.number("", "memory.current"),
            max: self.number("", "memory.peak"),
            failcnt: of(&events, "max"),
        };
        Memory {
            cache: of(&raw, "file"),
            // As version 1 has it: memory and swap together. Of that there is no maximum.
            swap: Counter {
                limit: self.number("", "memory.swap.max").saturating_add(usage.limit),
                usage: self.number("", "memory.swap.current").saturating_add(usage.usage),
                ..Counter::default()
            },
            usage,
            kernel: Counter { usage: of(&raw, "kernel"), ..Counter::default() },
            kernel_tcp: Counter::default(),
            raw,
            events,
            psi: self.psi("memory.pressure"),
        }
    }

    /// `8:0 rbytes=4096 wbytes=0 rios=1 …` a line.
    fn blkio_2(&self) -> Blkio {
        let mut io = Blkio { psi: self.psi("io.pressure"), ..Blkio::default() };
        for line in self.read("", "io.stat").unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            let Some((major, minor)) = words.next().and_then(text::device) else { continue };
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
        self.read("", file).map(|text| text::psi(&text))
    }
}

#[cfg(test)]
mod tests {
    use crate::scratch::Scratch;

    #[test]
    fn everything_there_is_counted() {
        let scratch = Scratch::new("stats");
        let group = scratch.group(&[
            ("cpu.stat", "usage_usec 3\nuser_usec 1\nsystem_usec 2\nnr_throttled 4\nthrottled_usec 5\n"),
            ("cpu.pressure", "some avg10=0.50 avg60=0.00 avg300=0.00 total=9\n"),
            ("cpuset.cpus.effective", "0-1\n"),
            ("cpuset.mems.effective", "0\n"),
            ("memory.stat", "anon 1\nfile 7\nkernel 6\n"),
            ("memory.current", "100\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "200\n"),
            ("memory.events", "low 0\nmax 3\noom_kill 2\n"),
            ("memory.swap.current", "11\n"),
            ("memory.swap.max", "22\n"),
            ("pids.current", "5\n"),
            ("pids.max", "max\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n"),
            ("hugetlb.2MB.current", "1\n"),
            ("hugetlb.2MB.rsvd.current", "2\n"),
            ("hugetlb.2MB.events", "max 8\n"),
            ("hugetlb.1GB.current", "3\n"),
            ("rdma.current", "mlx4_0 hca_handle=1 hca_object=20\n"),
            ("rdma.max", "mlx4_0 hca_handle=2 hca_object=max\n"),
        ]);
        let stats = serde_json::to_value(group.stats()).unwrap();
        for (pointer, wanted) in [
            ("/cpu/usage/total", 3000),
            ("/cpu/usage/kernel", 2000),
            ("/cpu/throttling/throttledTime", 5000),
            ("/cpu/psi/some/total", 9),
            ("/cpuset/cpus/1", 1),
            ("/memory/cache", 7),
            ("/memory/usage/limit", u64::MAX),
            ("/memory/usage/max", 200),
            ("/memory/usage/failcnt", 3),
            ("/memory/swap/usage", 111),
            ("/memory/swap/limit", u64::MAX),
            ("/memory/kernel/usage", 6),
            ("/memory/kernelTCP/usage", 0),
            ("/memory/raw/anon", 1),
            ("/memory/events/oom_kill", 2),
            ("/pids/current", 5),
            ("/pids/limit", 0),
            ("/blkio/ioServiceBytesRecursive/1/value", 2),
            ("/blkio/ioServicedRecursive/0/value", 3),
            ("/hugetlb/2MB/usage", 2),
            ("/hugetlb/2MB/failcnt", 8),
            ("/hugetlb/1GB/usage", 3),
            ("/rdma/rdma_current/0/hca_objects", 20),
            ("/rdma/rdma_limit/0/hca_objects", u32::MAX.into()),
        ] {
            assert_eq!(stats.pointer(pointer).and_then(serde_json::Value::as_u64), Some(wanted), "{pointer}");
        }
    }

    #[test]
    fn what_is_not_there_is_nothing() {
        let scratch = Scratch::new("nothing");
        let stats = serde_json::to_value(scratch.group(&[]).stats()).unwrap();
        assert_eq!(stats["memory"]["usage"]["usage"], 0);
        assert!(stats["cpu"]["psi"].is_null() && stats["rdma"].is_null());
        assert!(stats["blkio"].as_object().unwrap().is_empty());
    }
}
