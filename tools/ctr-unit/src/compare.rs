//! When two records ask for the same container, whichever of its forms each member has.

use fault::{Explain, Result};
use oci::wishes::{self, mount};
use record::{Config, Quantity};
use serde_json::{Map, Value, json};

/// Every member that is set, in one form each.
///
/// # Errors
/// Input for a member that is wrong.
pub fn canonical(config: &Config) -> Result<Map<String, Value>> {
    let value = serde_json::to_value(config).explain(|| "compare the record's config".into())?;
    let Value::Object(mut members) = value else { return Ok(Map::new()) };
    // The caller's own, whoever that is.
    members.shift_remove("env_host");
    let mut set = |name: &str, value: Value| members.insert(name.to_owned(), value);
    let mut plans = config.mounts.iter().map(mount::mount).collect::<Result<Vec<_>>>()?;
    plans.sort_by(|a, b| a.target.cmp(&b.target));
    set("mounts", plans.iter().map(|plan| format!("{plan:?}")).collect());
    let ports = config.ports.iter().map(wishes::port).collect::<Result<Vec<_>>>()?;
    set("ports", json!(ports));
    set("security_opt", json!(format!("{:?}", wishes::Security::parse(&config.security_opt)?)));
    let sizes = [
        ("memory", &config.memory),
        ("memory_reservation", &config.memory_reservation),
        ("shm_size", &config.shm_size),
    ];
    for (name, size) in sizes {
        if let Some(size) = size {
            set(name, wishes::bytes_of(size)?.into());
        }
    }
    if let Some(swap) = &config.memory_swap {
        set("memory_swap", number(swap)?);
    }
    if let Some(cpus) = &config.cpus {
        set("cpus", wishes::nano_cpus(cpus)?.into());
    }
    if let Some(signal) = config.stop_signal.as_ref().filter(|signal| !signal.is_empty()) {
        set("stop_signal", wishes::signal(signal)?.into());
    }
    if config.entrypoint.as_ref().is_some_and(Vec::is_empty) {
        set("entrypoint", json!([""]));
    }
    if let Some(check) = &config.healthcheck {
        let mut check_members = serde_json::to_value(check).explain(|| "compare the health check".into())?;
        let times = [
            ("interval", &check.interval),
            ("timeout", &check.timeout),
            ("start_period", &check.start_period),
            ("start_interval", &check.start_interval),
        ];
        for (name, time) in times {
            if let Some(time) = time {
                check_members[name] = json!(format!("{:?}", wishes::health::duration_of(time)?));
            }
        }
        set("healthcheck", check_members);
    }
    members.retain(|_, value| !is_unset(value));
    Ok(members)
}

/// -1 has a meaning of its own.
fn number(quantity: &Quantity) -> Result<Value> {
    match quantity {
        Quantity::Integer(-1) => Ok("-1".into()),
        Quantity::Text(text) if text.trim() == "-1" => Ok("-1".into()),
        other => Ok(wishes::bytes_of(other)?.into()),
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}
