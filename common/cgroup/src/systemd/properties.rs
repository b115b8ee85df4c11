//! Limits as properties of a unit (systemd.resource-control(5)), so that systemd does not undo them when it sets up its units
//! again. What it has no property for is in the group's files alone: those have the last word anyway.

use super::value::Value;
use crate::Version;
use crate::limits::Setting;

pub type Property = (String, Value);

/// The kernel's period where none is asked for, in microseconds.
const PERIOD_US: u64 = 100_000;
/// More processors and memory nodes than any kernel is built for.
const MOST_BITS: usize = 1 << 16;

// The first versions that know them.
const CPU_QUOTA_PERIOD: u32 = 242;
const ALLOWED_CPUS: u32 = 244;
const IDLE_CPU_WEIGHT: u32 = 252;
const OOM_POLICY_OF_SCOPES: u32 = 253;

/// Accounting is on for whatever limits and statistics need it.
pub fn accounting(version: Version) -> Vec<Property> {
    let io = match version {
        Version::V1 => "BlockIOAccounting",
        Version::V2 => "IOAccounting",
    };
    ["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"]
        .map(|name| (name.to_owned(), Value::Bool(true)))
        .to_vec()
}

/// `systemd`: its version.
pub fn of_limits(settings: &[Setting], systemd: u32) -> Vec<Property> {
    let mut list = Vec::new();
    let (mut quota, mut period, mut idle) = (None, None, false);
    for setting in settings {
        let value = setting.value.trim();
        let limit = |name: &str| number(value).map(|number| (name.to_owned(), Value::U64(number)));
        let property = match setting.file.as_str() {
            "memory.max" => limit("MemoryMax"),
            "memory.high" => limit("MemoryHigh"),
            "memory.low" => limit("MemoryLow"),
            "memory.min" => limit("MemoryMin"),
            "memory.swap.max" => limit("MemorySwapMax"),
            "memory.limit_in_bytes" => limit("MemoryLimit"),
            "cpu.weight" => limit("CPUWeight"),
            "cpu.shares" => limit("CPUShares"),
            "blkio.weight" => limit("BlockIOWeight"),
            // systemd does not take 0.
            "pids.max" => number(value).map(|number| ("TasksMax".to_owned(), Value::U64(number.max(1)))),
            "cpuset.cpus" => bits("AllowedCPUs", value).filter(|_| systemd >= ALLOWED_CPUS),
            "cpuset.mems" => bits("AllowedMemoryNodes", value).filter(|_| systemd >= ALLOWED_CPUS),
            "io.weight" => limit("IOWeight"),
            // The kernel's own weight, where bfq's is not to be had.
            "io.bfq.weight" => io_weight(setting),
            "cpu.idle" => {
                idle = value == "1" && systemd >= IDLE_CPU_WEIGHT;
                None
            }
            "cpu.cfs_quota_us" => {
                quota = number(value);
                None
            }
            "cpu.cfs_period_us" => {
                period = number(value);
                None
            }
            "cpu.max" => {
                let mut words = value.split_whitespace();
                quota = words.next().and_then(number);
                period = words.next().and_then(number);
                None
            }
            _ => None,
        };
        list.extend(property);
    }
    list.extend(cpu_time(quota, period, systemd));
    if idle {
        set(&mut list, "CPUWeight", Value::U64(0));
    }
    last_ones(list)
}

/// What can only be said of a unit that is made.
pub fn of_new(settings: &[Setting], systemd: u32) -> Option<Property> {
    let setting = settings.iter().rev().find(|setting| setting.file == "memory.oom.group")?;
    let policy = match setting.value.trim() {
        "0" => "continue",
        "1" => "kill",
        _ => return None,
    };
    (systemd >= OOM_POLICY_OF_SCOPES).then(|| ("OOMPolicy".to_owned(), Value::text(policy)))
}

fn cpu_time(quota: Option<u64>, period: Option<u64>, systemd: u32) -> Vec<Property> {
    let mut list = Vec::new();
    if quota.is_none() && period.is_none() {
        return list;
    }
    if let Some(period) = period
        && systemd >= CPU_QUOTA_PERIOD
    {
        list.push(("CPUQuotaPeriodUSec".to_owned(), Value::U64(period)));
    }
    let period = period.filter(|period| *period > 0).unwrap_or(PERIOD_US);
    let per_second = match quota {
        None | Some(u64::MAX) => u64::MAX,
        Some(quota) => u64::try_from(u128::from(quota) * 1_000_000 / u128::from(period)).unwrap_or(u64::MAX),
    };
    // It does not take 0, which less than a microsecond would be.
    list.push(("CPUQuotaPerSecUSec".to_owned(), Value::U64(per_second.max(1))));
    list
}

/// Not those of single devices: they are no property's.
fn io_weight(setting: &Setting) -> Option<Property> {
    let (_, value) = setting.instead.as_ref()?;
    Some(("IOWeight".to_owned(), Value::U64(number(value)?)))
}

/// A number, or none at all: `max` and everything below 0.
fn number(text: &str) -> Option<u64> {
    match text {
        "max" => Some(u64::MAX),
        negative if negative.starts_with('-') => negative.parse::<i64>().ok().map(|_| u64::MAX),
        text => text.parse().ok(),
    }
}

/// A list such as `0-3,7` as a set: bit 0 of the first byte is number 0.
fn bits(name: &str, list: &str) -> Option<Property> {
    let mut set = Vec::new();
    for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MOST_BITS {
            return None;
        }
        set.resize(set.len().max(last / 8 + 1), 0u8);
        for bit in first..=last {
            set[bit / 8] |= 1 << (bit % 8);
        }
    }
    let set = Value::Array("y".to_owned(), set.into_iter().map(Value::Byte).collect());
    Some((name.to_owned(), set))
}

fn set(list: &mut Vec<Property>, name: &str, value: Value) {
    list.retain(|(there, _)| there != name);
    list.push((name.to_owned(), value));
}

/// Of those named twice the last, as with files.
fn last_ones(list: Vec<Property>) -> Vec<Property> {
    let mut once = Vec::new();
    for (name, value) in list {
        set(&mut once, &name, value);
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{version_1, version_2};

    fn lines(json: &str, version: Version, systemd: u32) -> Vec<String> {
        let resources = serde_json::from_str(json).unwrap();
        let settings = match version {
            Version::V1 => version_1(&resources),
            Version::V2 => version_2(&resources),
        };
        let show = |(name, value): Property| match value {
            Value::U64(u64::MAX) => format!("{name}=infinity"),
            Value::U64(number) => format!("{name}={number}"),
            Value::Array(_, values) => {
                let bytes: Vec<String> =
                    values
                        .iter()
                        .map(|value| {
                            if let Value::Byte(byte) = value { format!("{byte:02x}") } else { "?".to_owned() }
                        })
                        .collect();
                format!("{name}={}", bytes.join(" "))
            }
            other => format!("{name}={other:?}"),
        };
        of_limits(&settings.unwrap(), systemd).into_iter().map(show).collect()
    }

    const ALL: &str = r#"{"memory": {"limit": 1000, "swap": 1500, "reservation": 500}, "pids": {"limit": 7},
        "cpu": {"shares": 1024, "quota": 5000, "period": 20000, "cpus": "0-1,9", "mems": "0"},
        "blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}}"#;

    #[test]
    fn version_2_limits() {
        assert_eq!(
            lines(ALL, Version::V2, 252),
            [
                "MemorySwapMax=500",
                "MemoryMax=1000",
                "MemoryLow=500",
                "CPUWeight=100",
                "IOWeight=910",
                "AllowedCPUs=03 02",
                "AllowedMemoryNodes=01",
                "TasksMax=7",
                "CPUQuotaPeriodUSec=20000",
                "CPUQuotaPerSecUSec=250000",
            ]
        );
        let old = lines(ALL, Version::V2, 239);
        assert!(
            !old.iter().any(|line| line.starts_with("Allowed") || line.starts_with("CPUQuotaPeriod")),
            "{old:?}"
        );
        let none = r#"{"memory": {"limit": -1}, "pids": {"limit": -1}, "cpu": {"quota": -1}}"#;
        assert_eq!(
            lines(none, Version::V2, 252),
            [
                "MemorySwapMax=infinity",
                "MemoryMax=infinity",
                "TasksMax=infinity",
                "CPUQuotaPerSecUSec=infinity"
            ]
        );
    }

    #[test]
    fn version_1_limits() {
        assert_eq!(
            lines(ALL, Version::V1, 252),
            [
                "MemoryLimit=1000",
                "CPUShares=1024",
                "BlockIOWeight=100",
                "AllowedCPUs=03 02",
                "AllowedMemoryNodes=01",
                "TasksMax=7",
                "CPUQuotaPeriodUSec=20000",
                "CPUQuotaPerSecUSec=250000",
            ]
        );
    }

    #[test]
    fn files_by_name_have_the_last_word() {
        let unified = r#"{"memory": {"limit": 5}, "cpu": {"shares": 1024}, "unified": {"memory.max": "max", "memory.high": "77",
            "memory.min": "1", "cpu.max": "max 50000", "cpu.idle": "1", "pids.max": "0", "io.weight": "33",
            "memory.swap.max": "soon", "misc.max": "x 3"}}"#;
        assert_eq!(
            lines(unified, Version::V2, 252),
            [
                "IOWeight=33",
                "MemoryHigh=77",
                "MemoryMax=infinity",
                "MemoryMin=1",
                "TasksMax=1",
                "CPUQuotaPeriodUSec=50000",
                "CPUQuotaPerSecUSec=infinity",
                "CPUWeight=0",
            ]
        );
        assert!(lines(unified, Version::V2, 251).contains(&"CPUWeight=100".to_owned()));
        for bad in ["3-1", "x", "1-", "70000", "1:2"] {
            assert_eq!(bits("x", bad), None, "{bad}");
        }
        assert_eq!(cpu_time(Some(u64::MAX - 1), Some(1), 252).len(), 2);
        assert_eq!(cpu_time(Some(1), Some(0), 252).len(), 2);
        let settings =
            version_2(&serde_json::from_str(r#"{"unified": {"memory.oom.group": "1"}}"#).unwrap()).unwrap();
        assert_eq!(of_new(&settings, 253), Some(("OOMPolicy".to_owned(), Value::text("kill"))));
        assert_eq!(of_new(&settings, 252), None);
    }
}
