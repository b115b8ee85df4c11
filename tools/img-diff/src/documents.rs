//! Configurations and manifests, member by member.

use crate::Kind;
use crate::print::Printer;
use cli::Result;
use contents::Opened;
use serde_json::{Map, Value};

/// What the configurations say, without the list of layers.
pub fn configs(old: &Opened<'_>, new: &Opened<'_>, printer: &mut Printer<'_>) -> Result<()> {
    let without = |config: &Value| {
        let mut config = config.clone();
        if let Some(config) = config.as_object_mut() {
            config.shift_remove("rootfs");
        }
        config
    };
    compare(Kind::Config, "", &without(&old.image.config), &without(&new.image.config), printer)
}

/// What the manifests say, without the digests and sizes that follow from the rest.
pub fn manifests(old: &Opened<'_>, new: &Opened<'_>, printer: &mut Printer<'_>) -> Result<()> {
    let without = |manifest: &Value| {
        let mut manifest = manifest.clone();
        let Some(members) = manifest.as_object_mut() else { return manifest };
        members.shift_remove("layers");
        if let Some(config) = members.get_mut("config").and_then(Value::as_object_mut) {
            config.shift_remove("digest");
            config.shift_remove("size");
        }
        manifest
    };
    compare(Kind::Manifest, "", &without(&old.manifest), &without(&new.manifest), printer)
}

fn compare(kind: Kind, path: &str, old: &Value, new: &Value, printer: &mut Printer<'_>) -> Result<()> {
    if old == new {
        return Ok(());
    }
    let empty = Value::Object(Map::new());
    let by_name = |value: &Value| members(path, value);
    // What one of them lacks is told member by member, too; but not a step of the history.
    let whole = path.starts_with("history.") && (old.is_null() || new.is_null());
    let (one, other) = match (old, new) {
        _ if whole => (None, None),
        (Value::Null, new) if by_name(new).is_some() => (by_name(&empty), by_name(new)),
        (old, Value::Null) if by_name(old).is_some() => (by_name(old), by_name(&empty)),
        (old, new) => (by_name(old), by_name(new)),
    };
    let (Some(one), Some(other)) = (one, other) else {
        return printer.member(kind, path, old, new);
    };
    for name in one.keys().chain(other.keys().filter(|name| !one.contains_key(*name))) {
        let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let value = |members: &Map<String, Value>| members.get(name).cloned().unwrap_or(Value::Null);
        compare(kind, &below, &value(&one), &value(&other), printer)?;
    }
    Ok(())
}

/// An object's members, an environment's variables, the steps of a history. `None` for what is compared as a whole.
fn members(path: &str, value: &Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(members) => Some(members.clone()),
        Value::Array(all) if path == "config.Env" => {
            let variable = |one: &Value| {
                let (name, value) = one.as_str()?.split_once('=')?;
                Some((name.to_owned(), value.into()))
            };
            let map: Map<String, Value> = all.iter().map(variable).collect::<Option<_>>()?;
            // One that is there twice would be lost.
            (map.len() == all.len()).then_some(map)
        }
        Value::Array(all) if path == "history" => {
            Some(all.iter().enumerate().map(|(index, step)| (index.to_string(), step.clone())).collect())
        }
        _ if path == "config.Env" || path == "history" => value.is_null().then(Map::new),
        _ => None,
    }
}
