//! `update`'s options as the member `linux.resources` of config.json.

use crate::options::{Opt, Parsed};
use fault::{Fault, Result};
use serde_json::{Map, Value, json};

/// Options that are numbers, and the members they set.
const NUMBERS: [(Opt, &str, &str, &str); 8] = [
    (Opt::CpuPeriod, "cpu-period", "cpu", "period"),
    (Opt::CpuQuota, "cpu-quota", "cpu", "quota"),
    (Opt::CpuBurst, "cpu-burst", "cpu", "burst"),
    (Opt::CpuShare, "cpu-share", "cpu", "shares"),
    (Opt::CpuRtPeriod, "cpu-rt-period", "cpu", "realtimePeriod"),
    (Opt::CpuRtRuntime, "cpu-rt-runtime", "cpu", "realtimeRuntime"),
    (Opt::CpuIdle, "cpu-idle", "cpu", "idle"),
    (Opt::PidsLimit, "pids-limit", "pids", "limit"),
];

const SIZES: [(Opt, &str, &str); 3] = [
    (Opt::Memory, "memory", "limit"),
    (Opt::MemoryReservation, "memory-reservation", "reservation"),
    (Opt::MemorySwap, "memory-swap", "swap"),
];

const TEXTS: [(Opt, &str); 2] = [(Opt::CpusetCpus, "cpus"), (Opt::CpusetMems, "mems")];

pub fn from_options(options: &Parsed) -> Result<Value> {
    let mut resources = json!({});
    for (opt, flag, section, member) in NUMBERS {
        if let Some(text) = options.text(opt)? {
            resources[section][member] = number(text, flag)?;
        }
    }
    for (opt, flag, member) in SIZES {
        if let Some(text) = options.text(opt)? {
            resources["memory"][member] = size(text, flag)?.into();
        }
    }
    for (opt, member) in TEXTS {
        if let Some(text) = options.text(opt)? {
            resources["cpu"][member] = text.into();
        }
    }
    // 0 is none.
    if let Some(weight) = options.number(Opt::BlkioWeight, "blkio-weight")?.filter(|weight| *weight != 0) {
        resources["blockIO"]["weight"] = weight.into();
    }
    Ok(resources)
}

/// Unsigned and signed ones alike: what a member may be is known where it is read.
fn number(text: &str, flag: &str) -> Result<Value> {
    let wrong = || Fault::usage(format!("invalid value for {flag}: {text:?} is no number"));
    match text.parse::<i64>() {
        Ok(number) => Ok(number.into()),
        Err(_) => text.parse::<u64>().map(Value::from).map_err(|_| wrong()),
    }
}

fn size(text: &str, flag: &str) -> Result<i64> {
    if text == "-1" {
        return Ok(-1);
    }
    let bytes = oci::wishes::bytes(text)
        .map_err(|fault| Fault::usage(format!("invalid value for {flag}: {fault}")))?;
    i64::try_from(bytes).map_err(|_| Fault::usage(format!("invalid value for {flag}: {text:?} is too much")))
}

/// What is changed over what there was, section by section; lists of devices grow by what is new in them.
pub fn merge(base: &mut Value, change: &Value) {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => merge_members(base, change),
        (base @ Value::Array(_), Value::Array(change)) => merge_devices(base, change),
        (_, Value::Null) => {}
        (base, change) => *base = change.clone(),
    }
}

fn merge_members(base: &mut Map<String, Value>, change: &Map<String, Value>) {
    for (name, value) in change {
        match base.get_mut(name) {
            Some(there) if !there.is_null() => merge(there, value),
            _ if value.is_null() => {}
            _ => {
                base.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Entries are about a device by its numbers, or a page size, or anything else whole.
fn merge_devices(base: &mut Value, change: &[Value]) {
    let Value::Array(list) = base else { return };
    let same = |one: &Value, other: &Value| {
        ["major", "minor", "pageSize"].iter().all(|key| one.get(key) == other.get(key)) && one.is_object()
    };
    for entry in change {
        match list.iter_mut().find(|there| same(there, entry)) {
            Some(there) => merge(there, entry),
            None => list.push(entry.clone()),
        }
    }
}

/// The change completed by what it is set together with: the kernel's files take both at once, or compare them.
pub fn complete(change: &mut Value, base: &Value) {
    const TOGETHER: [(&str, &[&str]); 3] = [
        ("cpu", &["quota", "period", "burst"]),
        ("cpu", &["realtimeRuntime", "realtimePeriod"]),
        ("memory", &["limit", "swap"]),
    ];
    for (section, members) in TOGETHER {
        let asked = |member: &&&str| !change[section][**member].is_null();
        if !members.iter().any(|member| asked(&member)) {
            continue;
        }
        let missing: Vec<&str> = members.iter().filter(|member| !asked(member)).copied().collect();
        for member in missing {
            let there = &base[section][member];
            if !there.is_null() {
                change[section][member] = there.clone();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_laid_over() {
        let mut base = json!({"memory": {"limit": 10, "swap": 20}, "pids": {"limit": 5}, "unified": {"a": "1"},
            "blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 100, "leafWeight": 7}]}});
        let change = json!({"memory": {"limit": 30, "swap": null}, "cpu": {"quota": 1}, "unified": {"b": "2"}, "pids": null,
            "blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 200}, {"major": 8, "minor": 1, "weight": 3}]}});
        merge(&mut base, &change);
        assert_eq!(
            base,
            json!({"memory": {"limit": 30, "swap": 20}, "pids": {"limit": 5}, "unified": {"a": "1", "b": "2"},
                "blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 200, "leafWeight": 7},
                    {"major": 8, "minor": 1, "weight": 3}]}, "cpu": {"quota": 1}})
        );
    }

    #[test]
    fn what_is_set_together_is_completed() {
        let base = json!({"cpu": {"quota": 5, "period": 10, "shares": 2}, "memory": {"limit": 7}});
        let mut change = json!({"cpu": {"quota": 6}, "memory": {"reservation": 1}});
        complete(&mut change, &base);
        assert_eq!(change, json!({"cpu": {"quota": 6, "period": 10}, "memory": {"reservation": 1}}));
        let mut change = json!({"memory": {"swap": 9}});
        complete(&mut change, &base);
        assert_eq!(change, json!({"memory": {"swap": 9, "limit": 7}}));
    }

    #[test]
    fn sizes_are_dockers() {
        assert_eq!(size("50M", "memory").unwrap(), 50 << 20);
        assert_eq!(size("-1", "memory").unwrap(), -1);
        let fault = size("-2", "memory").unwrap_err().to_string();
        assert!(fault.starts_with("invalid value for memory: "), "{fault}");
        assert_eq!(number("18446744073709551615", "x").unwrap(), json!(u64::MAX));
        assert!(number("1e3", "x").is_err());
    }
}
