//! Limits of control groups beside `--memory`, `--cpus` and `--pids-limit`: their ranges, and what excludes what, as
//! docker has it (moby `daemon/daemon_unix.go`, `verifyPlatformContainerResources`).

use super::{bytes, bytes_of, cpu_list};
use fault::{Fault, Result};
use record::{Config, Quantity};

/// docker's least: with less no container starts.
const LEAST_MEMORY: u64 = 6 << 20;

/// A rate or weight of one block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRate {
    pub path: String,
    /// Bytes or operations per second, or a weight.
    pub rate: u64,
}

/// Who may do what with which devices, beside those that are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// `a`, `b` or `c`.
    pub kind: char,
    /// `None`: any.
    pub major: Option<i64>,
    pub minor: Option<i64>,
    /// Some of `rwm`.
    pub access: String,
}

/// Everything of it, parsed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub memory_reservation: Option<i64>,
    /// Memory and swap together; -1: unlimited.
    pub memory_swap: Option<i64>,
    pub memory_swappiness: Option<u64>,
    pub oom_kill_disable: bool,
    pub oom_score_adj: Option<i32>,
    pub cpu_period: Option<u64>,
    pub cpu_quota: Option<i64>,
    pub cpu_rt_period: Option<u64>,
    pub cpu_rt_runtime: Option<i64>,
    pub cpuset_mems: Option<String>,
    pub blkio_weight: Option<u16>,
    pub blkio_weight_devices: Vec<DeviceRate>,
    pub read_bps: Vec<DeviceRate>,
    pub write_bps: Vec<DeviceRate>,
    pub read_iops: Vec<DeviceRate>,
    pub write_iops: Vec<DeviceRate>,
    pub device_rules: Vec<DeviceRule>,
}

impl Resources {
    /// `memory` and `nano_cpus` as parsed already, for what depends on them.
    pub fn parse(config: &Config, memory: Option<u64>, nano_cpus: Option<u64>) -> Result<Resources> {
        let rates = |name: &str, list: &[String], parse: &dyn Fn(&str) -> Result<u64>| {
            let rate =
                |text: &String| device_rate(text, parse).map_err(|fault| fault.within(name.to_owned()));
            list.iter().map(rate).collect::<Result<Vec<_>>>()
        };
        let resources = Resources {
            memory_reservation: size("memory-reservation", config.memory_reservation.as_ref())?,
            memory_swap: swap(config.memory_swap.as_ref())?,
            memory_swappiness: match config.memory_swappiness {
                None | Some(-1) => None,
                Some(value @ 0..=100) => Some(value as u64),
                Some(value) => return Err(range("memory-swappiness", value, "0 to 100")),
            },
            oom_kill_disable: config.oom_kill_disable,
            oom_score_adj: match config.oom_score_adj {
                Some(value) if !(-1000..=1000).contains(&value) => {
                    return Err(range("oom-score-adj", value, "-1000 to 1000"));
                }
                value => value,
            },
            cpu_period: match config.cpu_period.filter(|period| *period != 0) {
                Some(value) if !(1000..=1_000_000).contains(&value) => {
                    return Err(range("cpu-period", value, "1000 to 1000000 microseconds"));
                }
                value => value,
            },
            cpu_quota: match config.cpu_quota.filter(|quota| *quota != 0) {
                Some(value) if value < 1000 && value != -1 => {
                    return Err(range("cpu-quota", value, "at least 1000 microseconds, or -1 for no limit"));
                }
                value => value,
            },
            cpu_rt_period: config.cpu_rt_period.filter(|period| *period != 0),
            cpu_rt_runtime: match config.cpu_rt_runtime.filter(|runtime| *runtime != 0) {
                Some(value) if value < 0 => return Err(range("cpu-rt-runtime", value, "microseconds")),
                value => value,
            },
            cpuset_mems: config
                .cpuset_mems
                .as_deref()
                .filter(|list| !list.is_empty())
                .map(cpu_list)
                .transpose()?,
            blkio_weight: match config.blkio_weight.filter(|weight| *weight != 0) {
                Some(value) if !(10..=1000).contains(&value) => {
                    return Err(range("blkio-weight", value, "10 to 1000"));
                }
                value => value,
            },
            blkio_weight_devices: rates("blkio-weight-device", &config.blkio_weight_devices, &weight)?,
            read_bps: rates("device-read-bps", &config.device_read_bps, &bytes)?,
            write_bps: rates("device-write-bps", &config.device_write_bps, &bytes)?,
            read_iops: rates("device-read-iops", &config.device_read_iops, &number)?,
            write_iops: rates("device-write-iops", &config.device_write_iops, &number)?,
            device_rules: config
                .device_cgroup_rules
                .iter()
                .map(|text| device_rule(text))
                .collect::<Result<_>>()?,
        };
        resources.check_together(memory, nano_cpus)?;
        Ok(resources)
    }

    fn check_together(&self, memory: Option<u64>, nano_cpus: Option<u64>) -> Result<()> {
        let refuse = |what: &str| Err(Fault::input(what.to_owned()));
        if memory.is_some_and(|bytes| bytes < LEAST_MEMORY) {
            return refuse("the least memory limit is 6m");
        }
        let limit = memory.and_then(|bytes| i64::try_from(bytes).ok());
        match (self.memory_swap, limit) {
            (Some(1..), None) => return refuse("memory-swap needs memory too: it is for both together"),
            (Some(both @ 1..), Some(limit)) if both < limit => {
                return refuse("memory-swap must not be less than memory: it is for both together");
            }
            _ => {}
        }
        if self.memory_reservation.zip(limit).is_some_and(|(reservation, limit)| reservation > limit) {
            return refuse("memory-reservation must not be more than memory");
        }
        if nano_cpus.is_some() && (self.cpu_period.is_some() || self.cpu_quota.is_some()) {
            return refuse("cpus excludes cpu-period and cpu-quota: it says both");
        }
        if self
            .cpu_rt_runtime
            .zip(self.cpu_rt_period)
            .is_some_and(|(runtime, period)| runtime.unsigned_abs() > period)
        {
            return refuse("cpu-rt-runtime must not be more than cpu-rt-period");
        }
        Ok(())
    }
}

fn range(name: &str, value: impl std::fmt::Display, range: &str) -> Fault {
    Fault::input(format!("{name} {value}: it must be {range}"))
}

/// 0 asks for nothing.
fn size(name: &str, quantity: Option<&Quantity>) -> Result<Option<i64>> {
    let Some(quantity) = quantity else { return Ok(None) };
    let bytes = bytes_of(quantity).map_err(|fault| fault.within(name.to_owned()))?;
    Ok(i64::try_from(bytes).ok().filter(|bytes| *bytes > 0))
}

fn swap(quantity: Option<&Quantity>) -> Result<Option<i64>> {
    match quantity {
        Some(Quantity::Integer(-1)) => Ok(Some(-1)),
        Some(Quantity::Text(text)) if text.trim() == "-1" => Ok(Some(-1)),
        quantity => size("memory-swap", quantity),
    }
}

fn number(text: &str) -> Result<u64> {
    text.parse().map_err(|_| Fault::input(format!("\"{text}\" is not a number")))
}

fn weight(text: &str) -> Result<u64> {
    number(text).and_then(|weight| match weight {
        10..=1000 => Ok(weight),
        _ => Err(Fault::input(format!("the weight {weight} is not from 10 to 1000"))),
    })
}

/// `/dev/sda:1mb`.
fn device_rate(text: &str, parse: &dyn Fn(&str) -> Result<u64>) -> Result<DeviceRate> {
    let wrong = || Fault::input(format!("\"{text}\" is not a device and its rate")).hint("as /dev/sda:1mb");
    let (path, rate) = text.rsplit_once(':').ok_or_else(wrong)?;
    if !path.starts_with("/dev/") || path.contains('\0') {
        return Err(wrong());
    }
    Ok(DeviceRate { path: path.to_owned(), rate: parse(rate)? })
}

/// `c 1:3 rwm`, `a *:* m` (moby `opts.ValidateDeviceCgroupRule`).
fn device_rule(text: &str) -> Result<DeviceRule> {
    let wrong = || {
        Fault::input(format!("\"{text}\" is not a device rule"))
            .hint("type, numbers, what is allowed: c 1:3 rwm, b 8:* r")
    };
    let number = |text: &str| match text {
        "*" => Ok(None),
        digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
            digits.parse::<u32>().map(|number| Some(i64::from(number))).map_err(|_| wrong())
        }
        _ => Err(wrong()),
    };
    let [kind @ ("a" | "b" | "c"), numbers, access] = text.split(' ').collect::<Vec<_>>()[..] else {
        return Err(wrong());
    };
    let (major, minor) = numbers.split_once(':').ok_or_else(wrong)?;
    let once = |letter: &str| access.matches(letter).count() <= 1;
    if access.is_empty()
        || !access.chars().all(|c| "rwm".contains(c))
        || !["r", "w", "m"].iter().all(|l| once(l))
    {
        return Err(wrong());
    }
    let kind = kind.chars().next().unwrap_or('a');
    Ok(DeviceRule { kind, major: number(major)?, minor: number(minor)?, access: access.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Resources> {
        let config: Config = serde_json::from_str(json).unwrap();
        let memory = config.memory.as_ref().map(|quantity| bytes_of(quantity).unwrap());
        let cpus = config.cpus.as_ref().map(|quantity| super::super::nano_cpus(quantity).unwrap());
        Resources::parse(&config, memory, cpus)
    }

    #[test]
    fn what_is_right() {
        let all = parse(
            r#"{"memory":"64m","memory_reservation":"32m","memory_swap":-1,"memory_swappiness":10,"oom_score_adj":-5,
            "cpu_period":50000,"cpu_quota":25000,"cpuset_mems":"0","blkio_weight":500,"blkio_weight_devices":["/dev/sda:10"],
            "device_read_bps":["/dev/sda:1mb"],"device_write_iops":["/dev/sda:5"],"device_cgroup_rules":["c 1:* rw"]}"#,
        )
        .unwrap();
        assert_eq!(
            (all.memory_reservation, all.memory_swap, all.memory_swappiness),
            (Some(32 << 20), Some(-1), Some(10))
        );
        assert_eq!(all.read_bps, [DeviceRate { path: "/dev/sda".into(), rate: 1 << 20 }]);
        let rule = DeviceRule { kind: 'c', major: Some(1), minor: None, access: "rw".into() };
        assert_eq!(all.device_rules, [rule]);
        assert_eq!(
            parse(r#"{"memory_swap":0,"memory_swappiness":-1,"cpu_quota":0}"#).unwrap(),
            Resources::default()
        );
    }

    #[test]
    fn what_is_wrong() {
        for wrong in [
            r#"{"memory":"1m"}"#,
            r#"{"memory_swap":"1g"}"#,
            r#"{"memory":"2g","memory_swap":"1g"}"#,
            r#"{"memory":"1g","memory_reservation":"2g"}"#,
            r#"{"memory_swap":-2}"#,
            r#"{"memory_swappiness":101}"#,
            r#"{"oom_score_adj":1001}"#,
            r#"{"cpu_period":10}"#,
            r#"{"cpu_quota":10}"#,
            r#"{"cpus":1,"cpu_quota":10000}"#,
            r#"{"cpu_rt_runtime":2,"cpu_rt_period":1}"#,
            r#"{"cpuset_mems":"x"}"#,
            r#"{"blkio_weight":5}"#,
            r#"{"blkio_weight_devices":["/dev/sda:5"]}"#,
            r#"{"device_read_bps":["sda:1"]}"#,
            r#"{"device_read_iops":["/dev/sda:1mb"]}"#,
            r#"{"device_cgroup_rules":["c 1:3"]}"#,
            r#"{"device_cgroup_rules":["x 1:3 r"]}"#,
            r#"{"device_cgroup_rules":["c 1:3 rr"]}"#,
            r#"{"device_cgroup_rules":["c -1:3 r"]}"#,
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
