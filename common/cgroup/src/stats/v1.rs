//! From version 1's files.

use super::{
    Blkio, BlkioEntry, Counter, Cpu, CpuUsage, Cpuset, Hugetlb, Memory, Stats, Throttling, of, text,
};
use crate::Cgroup;

impl Cgroup {
    pub(super) fn stats_1(&self) -> Stats {
        Stats {
            cpu: self.cpu_1(),
            cpuset: self.cpuset_1(),
            memory: self.memory_1(),
            pids: self.pids(),
            blkio: self.blkio_1(),
            hugetlb: self.hugetlb("usage_in_bytes", |files, _| Hugetlb {
                usage: self.number("hugetlb", &format!("{files}usage_in_bytes")),
                max: self.number("hugetlb", &format!("{files}max_usage_in_bytes")),
                failcnt: self.number("hugetlb", &format!("{files}failcnt")),
            }),
            rdma: self.rdma(),
        }
    }

    fn cpu_1(&self) -> Cpu {
        /// USER_HZ of every architecture Linux has had for twenty years.
        const NANOSECONDS_A_TICK: u64 = 10_000_000;
        let ticks = self.table("cpuacct", "cpuacct.stat");
        let time = |name: &str| of(&ticks, name).saturating_mul(NANOSECONDS_A_TICK);
        let throttled = self.table("cpu", "cpu.stat");
        let percpu = self.read("cpuacct", "cpuacct.usage_percpu").unwrap_or_default();
        let modes = self.read("cpuacct", "cpuacct.usage_all").unwrap_or_default();
        let (percpu_kernel, percpu_user) = text::usage_all(&modes);
        Cpu {
            usage: CpuUsage {
                total: self.number("cpuacct", "cpuacct.usage"),
                percpu: percpu.split_whitespace().filter_map(|word| word.parse().ok()).collect(),
                percpu_kernel,
                percpu_user,
                kernel: time("system"),
                user: time("user"),
            },
            throttling: Throttling {
                periods: of(&throttled, "nr_periods"),
                throttled_periods: of(&throttled, "nr_throttled"),
                throttled_time: of(&throttled, "throttled_time"),
            },
            psi: None,
        }
    }

    fn cpuset_1(&self) -> Cpuset {
        let number = |name: &str| self.number("cpuset", &format!("cpuset.{name}"));
        let level = self.read("cpuset", "cpuset.sched_relax_domain_level");
        Cpuset {
            cpus: self.list("cpuset.cpus"),
            cpu_exclusive: number("cpu_exclusive"),
            mems: self.list("cpuset.mems"),
            mem_hardwall: number("mem_hardwall"),
            mem_exclusive: number("mem_exclusive"),
            memory_migrate: number("memory_migrate"),
            memory_spread_page: number("memory_spread_page"),
            memory_spread_slab: number("memory_spread_slab"),
            memory_pressure: number("memory_pressure"),
            sched_load_balance: number("sched_load_balance"),
            // -1 is the kernel's own choice.
            sched_relax_domain_level: level.and_then(|text| text.trim().parse().ok()).unwrap_or(0),
        }
    }

    fn memory_1(&self) -> Memory {
        let counter = |name: &str| Counter {
            limit: self.number("memory", &format!("{name}limit_in_bytes")),
            usage: self.number("memory", &format!("{name}usage_in_bytes")),
            max: self.number("memory", &format!("{name}max_usage_in_bytes")),
            failcnt: self.number("memory", &format!("{name}failcnt")),
        };
        let raw = self.table("memory", "memory.stat");
        Memory {
            cache: of(&raw, "cache"),
            usage: counter("memory."),
            swap: counter("memory.memsw."),
            kernel: counter("memory.kmem."),
            kernel_tcp: counter("memory.kmem.tcp."),
            raw,
            events: self.table("memory", "memory.oom_control"),
            psi: None,
        }
    }

    /// The scheduler that counts is bfq, cfq in older kernels; without either, what goes through the throttle is counted.
    pub(super) fn blkio_1(&self) -> Blkio {
        let table = |file: &str| -> Vec<BlkioEntry> {
            self.read("blkio", file).map(|text| text::blkio(&text)).unwrap_or_default()
        };
        for scheduler in ["blkio.bfq.", "blkio."] {
            let of = |name: &str| table(&format!("{scheduler}{name}_recursive"));
            let io_serviced_recursive = of("io_serviced");
            if !io_serviced_recursive.is_empty() {
                return Blkio {
                    io_service_bytes_recursive: of("io_service_bytes"),
                    io_serviced_recursive,
                    io_queue_recursive: of("io_queued"),
                    io_service_time_recursive: of("io_service_time"),
                    io_wait_time_recursive: of("io_wait_time"),
                    io_merged_recursive: of("io_merged"),
                    io_time_recursive: of("time"),
                    sectors_recursive: of("sectors"),
                    psi: None,
                };
            }
        }
        // Kernels before 4.18 count in groups by themselves only.
        let throttle = |name: &str| {
            let recursive = table(&format!("blkio.throttle.{name}_recursive"));
            if recursive.is_empty() { table(&format!("blkio.throttle.{name}")) } else { recursive }
        };
        Blkio {
            io_service_bytes_recursive: throttle("io_service_bytes"),
            io_serviced_recursive: throttle("io_serviced"),
            ..Blkio::default()
        }
    }
}
