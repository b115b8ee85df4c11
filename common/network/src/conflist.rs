//! Configurations of CNI plugins, as networks are made of them (CNI specification, section 1).

use crate::definition::FileSubnet;
use crate::subnet::Subnet;
use fault::{Explain, Fault, Kind, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// Reads a CNI configuration from a file, of bounded size.
pub fn read_cni(path: &Path) -> Result<Value> {
    use std::io::Read;
    let what = || format!("read {}", path.display());
    let mut text = Vec::new();
    let file = std::fs::File::open(path).explain_as(Kind::Usage, what)?;
    file.take((1 << 20) + 1).read_to_end(&mut text).explain(what)?;
    if text.len() > 1 << 20 {
        return Err(Fault::input(format!("{} is longer than a megabyte", path.display())));
    }
    serde_json::from_slice(&text).explain_as(Kind::Input, what)
}

/// A list as it is, one plugin's configuration as a list of one (CNI specification, section 1).
pub fn conflist(given: &Value, name: &str) -> Result<Value> {
    let wrong = |what: &str| Err(Fault::input(format!("the CNI configuration {what}")));
    let Some(members) = given.as_object() else { return wrong("is no JSON object") };
    let mut list = members.clone();
    if !members.contains_key("plugins") {
        let mut plugin = members.clone();
        let version = plugin.remove("cniVersion");
        let called = plugin.remove("name");
        list = [("plugins".to_owned(), json!([plugin]))].into_iter().collect();
        list.extend(version.map(|version| ("cniVersion".to_owned(), version)));
        list.extend(called.map(|called| ("name".to_owned(), called)));
    }
    let plugins = list.get("plugins").and_then(Value::as_array).filter(|plugins| !plugins.is_empty());
    let Some(plugins) = plugins else { return wrong("has no plugins") };
    for plugin in plugins {
        match plugin.get("type").and_then(Value::as_str) {
            None => return wrong("has a plugin without a type"),
            Some(kind) if store::check_name(kind).is_err() => {
                return wrong(&format!("has a plugin of type \"{kind}\", which is no name of a program"));
            }
            Some(_) => {}
        }
    }
    list.entry("cniVersion").or_insert_with(|| "1.0.0".into());
    // Address plugins keep what they gave out under this name.
    list.entry("name").or_insert_with(|| name.into());
    Ok(list.into())
}

/// Fails with usage where there is no plugin of this name.
pub fn find_plugin(name: &str) -> Result<()> {
    if cni::Runtime::from_env().has(name) {
        return Ok(());
    }
    Err(Fault::usage(format!("there is no driver \"{name}\"")).hint(format!(
        "bridge, routed, macvlan, ipvlan, none, or a CNI plugin in $STAVES_CNI_PATH (default {})",
        cni::DEFAULT_PATH
    )))
}

/// Configuration of a plugin that was named with `--driver`. Without an `ipam` of its own it is to get one.
pub fn named(plugin: &str, options: &BTreeMap<String, String>) -> Result<Value> {
    let mut members = json!({"type": plugin, "ipam": null});
    for (name, text) in options {
        if name == "type" {
            return Err(Fault::usage("--opt type: the type is the driver"));
        }
        // Numbers, truth values, lists and objects as JSON has them; all else is a text.
        members[name] = serde_json::from_str(text).unwrap_or_else(|_| text.as_str().into());
    }
    Ok(members)
}

/// The place of the address plugin's configuration, if that is still to be written.
pub fn ipam_to_choose(list: &mut Value) -> Option<&mut Value> {
    list.get_mut("plugins")?.get_mut(0)?.get_mut("ipam").filter(|ipam| ipam.is_null())
}

/// CNI's host-local, with the network's subnets.
pub fn host_local(subnets: &[FileSubnet]) -> Value {
    let range = |subnet: &FileSubnet| {
        let mut range = json!({"subnet": subnet.subnet, "gateway": subnet.gateway});
        if let Some(within) = subnet.ip_range.as_deref().and_then(|text| Subnet::parse(text).ok()) {
            range["rangeStart"] = within.host(0).to_string().into();
            range["rangeEnd"] = within.at(within.hosts()).to_string().into();
        }
        json!([range])
    };
    let everywhere = |subnet: &FileSubnet| if subnet.subnet.contains(':') { "::/0" } else { "0.0.0.0/0" };
    let ranges: Vec<Value> = subnets.iter().map(range).collect();
    let routes: Vec<Value> = subnets.iter().map(|subnet| json!({"dst": everywhere(subnet)})).collect();
    json!({"type": "host-local", "ranges": ranges, "routes": routes})
}
