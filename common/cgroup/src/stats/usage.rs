//! The few numbers people watch, without reading everything there is: some ten files where [`Cgroup::stats`] reads fifty.

use super::{of, text};
use crate::{Cgroup, Version};
use serde::Serialize;

/// What cannot be read counts as 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Nanoseconds of processor time.
    pub cpu: u64,
    /// Bytes in use, without the page cache that could be dropped at once (docker's reckoning).
    pub memory: u64,
    /// Bytes; `None` where there is no limit.
    pub memory_limit: Option<u64>,
    /// Bytes read from and written to block devices.
    pub read: u64,
    pub written: u64,
    /// Processes and threads.
    pub pids: u64,
    pub pids_limit: Option<u64>,
}

/// Version 1's "no limit": the largest signed number, rounded down to a page. Pages may be larger than 4 KiB.
const NO_LIMIT: u64 = i64::MAX as u64 - (1 << 20);

impl Cgroup {
    pub fn usage(&self) -> Usage {
        let pids = self.pids();
        let mut usage = match self.version {
            Version::V1 => self.usage_1(),
            Version::V2 => self.usage_2(),
        };
        usage.pids = pids.current;
        usage.pids_limit = Some(pids.limit).filter(|limit| *limit > 0);
        usage
    }

    fn usage_1(&self) -> Usage {
        let stat = self.table("memory", "memory.stat");
        let total = self.number("memory", "memory.usage_in_bytes");
        let limit = self.number("memory", "memory.limit_in_bytes");
        let mut usage = Usage {
            cpu: self.number("cpuacct", "cpuacct.usage"),
            memory: total.saturating_sub(of(&stat, "total_inactive_file")),
            memory_limit: Some(limit).filter(|limit| (1..NO_LIMIT).contains(limit)),
            ..Usage::default()
        };
        for entry in self.blkio_1().io_service_bytes_recursive {
            match entry.op.as_str() {
                "Read" => usage.read = usage.read.saturating_add(entry.value),
                "Write" => usage.written = usage.written.saturating_add(entry.value),
                _ => {}
            }
        }
        usage
    }

    fn usage_2(&self) -> Usage {
        const NANOSECONDS: u64 = 1000;
        let stat = self.table("", "memory.stat");
        let limit = self.number("", "memory.max");
        let mut usage = Usage {
            cpu: of(&self.table("", "cpu.stat"), "usage_usec").saturating_mul(NANOSECONDS),
            memory: self.number("", "memory.current").saturating_sub(of(&stat, "inactive_file")),
            memory_limit: Some(limit).filter(|limit| (1..u64::MAX).contains(limit)),
            ..Usage::default()
        };
        for line in self.read("", "io.stat").unwrap_or_default().lines() {
            let mut words = line.split_whitespace();
            if words.next().and_then(text::device).is_none() {
                continue;
            }
            for (key, value) in words.filter_map(|word| word.split_once('=')) {
                let value: u64 = value.parse().unwrap_or(0);
                match key {
                    "rbytes" => usage.read = usage.read.saturating_add(value),
                    "wbytes" => usage.written = usage.written.saturating_add(value),
                    _ => {}
                }
            }
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn what_people_watch() {
        let scratch = Scratch::new("usage");
        let group = scratch.group(&[
            ("cpu.stat", "usage_usec 3\n"),
            ("memory.stat", "anon 1\ninactive_file 30\n"),
            ("memory.current", "100\n"),
            ("memory.max", "max\n"),
            ("pids.current", "5\n"),
            ("pids.max", "7\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3\n8:16 rbytes=10 wbytes=x\nbad\n"),
        ]);
        let wanted = Usage {
            cpu: 3000,
            memory: 70,
            memory_limit: None,
            read: 11,
            written: 2,
            pids: 5,
            pids_limit: Some(7),
        };
        assert_eq!(group.usage(), wanted);
    }
}
