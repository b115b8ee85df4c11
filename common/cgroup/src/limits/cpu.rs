//! `linux.resources.cpu`, but for the processors.

use super::{Setting, or_max, push_linked, unsupported};
use fault::{Fault, Result};
use oci_spec::runtime::LinuxCpu;
use std::fmt::Write;

/// What the kernel keeps version 1's shares within (`MIN_SHARES`, `MAX_SHARES`), without a word.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

pub fn version_1(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<()> {
    let shares = cpu.shares().filter(|shares| *shares != 0);
    if let Some(shares) = shares.filter(|shares| !SHARES.contains(shares)) {
        let (word, bound) =
            if shares < *SHARES.start() { ("minimum", SHARES.start()) } else { ("maximum", SHARES.end()) };
        return Err(Fault::input(format!(
            "linux.resources.cpu.shares: {shares}: the {word} allowed cpu-shares is {bound}"
        )));
    }
    with_idle(cpu, shares.map(|shares| Setting::new("cpu.shares", "cpu.shares", shares)), list)?;
    let quota = cpu.quota().filter(|quota| *quota != 0);
    let period = cpu.period().filter(|period| *period != 0);
    let bandwidth = [
        period.map(|period| Setting::new("cpu.period", "cpu.cfs_period_us", period)),
        quota.map(|quota| Setting::new("cpu.quota", "cpu.cfs_quota_us", quota)),
        burst(cpu, "cpu.cfs_burst_us")?,
    ];
    push_linked(list, bandwidth.into_iter().flatten());
    let runtime = cpu.realtime_runtime().filter(|runtime| *runtime != 0);
    let period = cpu.realtime_period().filter(|period| *period != 0);
    let realtime = [
        period.map(|period| Setting::new("cpu.realtimePeriod", "cpu.rt_period_us", period)),
        runtime.map(|runtime| Setting::new("cpu.realtimeRuntime", "cpu.rt_runtime_us", runtime)),
    ];
    push_linked(list, realtime.into_iter().flatten());
    Ok(())
}

pub fn version_2(cpu: &LinuxCpu, list: &mut Vec<Setting>) -> Result<()> {
    let shares = cpu.shares().filter(|shares| *shares != 0);
    let weight = shares.map(|shares| Setting::new("cpu.shares", "cpu.weight", weight_of_shares(shares)));
    with_idle(cpu, weight, list)?;
    let (quota, period) =
        (cpu.quota().filter(|quota| *quota != 0), cpu.period().filter(|period| *period != 0));
    let bandwidth = (quota.is_some() || period.is_some()).then(|| {
        // The quota alone keeps the period.
        let mut value = quota.map_or_else(|| "max".to_owned(), or_max);
        if let Some(period) = period {
            let _ = write!(value, " {period}");
        }
        Setting::new(if quota.is_some() { "cpu.quota" } else { "cpu.period" }, "cpu.max", value)
    });
    push_linked(list, bandwidth.into_iter().chain(burst(cpu, "cpu.max.burst")?));
    if cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)
        || cpu.realtime_period().is_some_and(|period| period != 0)
    {
        return unsupported("cpu.realtimeRuntime, cpu.realtimePeriod", 2);
    }
    Ok(())
}

/// An idle group has no weight to set, and one that no longer is gets the default: so `idle` goes first when it is taken away and
/// last when it is given.
fn with_idle(cpu: &LinuxCpu, weight: Option<Setting>, list: &mut Vec<Setting>) -> Result<()> {
    let idle = match cpu.idle() {
        None => None,
        // Kernels before 5.15 know of nothing else than 0.
        Some(idle @ (0 | 1)) => Some(Setting::new("cpu.idle", "cpu.idle", idle).optional_if(idle == 0)),
        Some(other) => {
            return Err(Fault::input(format!("linux.resources.cpu.idle: {other} is neither 0 nor 1")));
        }
    };
    if cpu.idle() == Some(0) {
        list.extend(idle.into_iter().chain(weight));
    } else {
        list.extend(weight.into_iter().chain(idle));
    }
    Ok(())
}

/// Kernels before 5.14 have none.
fn burst(cpu: &LinuxCpu, file: &str) -> Result<Option<Setting>> {
    let Some(burst) = cpu.burst() else { return Ok(None) };
    if let Some(quota) = cpu.quota().and_then(|quota| u64::try_from(quota).ok())
        && quota != 0
        && burst > quota
    {
        return Err(Fault::input(format!(
            "linux.resources.cpu.burst: {burst} is more than the quota of {quota}"
        )));
    }
    Ok(Some(Setting::new("cpu.burst", file, burst).optional_if(burst == 0)))
}

/// Version 1's 2 to 262144 mapped onto 1 to 10000, so that the default of one is the default of the other
/// (1024 gives 100), as the OCI runtimes agreed on in 2025: a quadratic in the logarithms.
pub fn weight_of_shares(shares: u64) -> u64 {
    if shares <= *SHARES.start() {
        return 1;
    }
    if shares >= *SHARES.end() {
        return 10_000;
    }
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    (10f64.powf(exponent)).ceil() as u64
}
