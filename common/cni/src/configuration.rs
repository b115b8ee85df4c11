//! Network configurations (specification, section 1): `.conflist`, and `.conf` or `.json` of a single plugin.

use crate::{Cidr, Version, shown};
use fault::{Explain, Fault, Kind, Result};
use rustix::fs::OFlags;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const LARGEST_FILE_BYTES: u64 = 1 << 20;
const MOST_PLUGINS: usize = 64;
const MOST_FILES: usize = 1024;
/// The longest a file's name can be.
const LONGEST_NAME_BYTES: usize = 255;
/// IFNAMSIZ without the end of the string.
const LONGEST_INTERFACE_BYTES: usize = 15;

/// A network: its plugins, in the order in which `ADD` runs them.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    pub name: String,
    /// Those of the configuration that are known here, ascending; never empty.
    pub(crate) versions: Vec<Version>,
    /// The administrator wants no `CHECK`.
    pub disable_check: bool,
    /// The administrator wants no `GC`.
    pub disable_gc: bool,
    plugins: Vec<Plugin>,
    document: Value,
}

/// One plugin of a network.
#[derive(Clone, Debug, PartialEq)]
pub struct Plugin {
    /// The member `type`: the name of the program.
    pub name: String,
    document: Map<String, Value>,
}

impl Configuration {
    /// A list of plugins, or one plugin. Fails with input for what is neither.
    pub fn parse(text: &[u8]) -> Result<Configuration> {
        if text.len() as u64 > LARGEST_FILE_BYTES {
            return Err(Fault::input("a network configuration of more than 1 MiB"));
        }
        let document = serde_json::from_slice(text)
            .map_err(|error| Fault::input("this is no network configuration").because(error))?;
        Configuration::from_value(document)
    }

    /// The same from JSON that has been read.
    pub fn from_value(document: Value) -> Result<Configuration> {
        Configuration::build(document, Vec::new())
    }

    /// From a file, with what the folder beside it named after the network adds to its plugins.
    pub fn load(path: &Path) -> Result<Configuration> {
        let of_file = |fault: Fault| fault.within(path.display().to_string());
        let document: Value = serde_json::from_slice(&read(path)?)
            .map_err(|error| of_file(Fault::input("this is no network configuration").because(error)))?;
        let added = added(&document, path).map_err(of_file)?;
        Configuration::build(document, added).map_err(of_file)
    }

    /// The network of this name in the first of the folders that has it.
    ///
    /// Fails with not found, and then tells of files that could not be read.
    pub fn find(folders: &[PathBuf], name: &str) -> Result<(PathBuf, Configuration)> {
        let mut unreadable = None;
        for folder in folders {
            for path in files_in(folder)? {
                match Configuration::load(&path) {
                    Ok(found) if found.name == name => return Ok((path, found)),
                    Ok(_) => {}
                    Err(fault) => drop(unreadable.get_or_insert(fault)),
                }
            }
        }
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        let fault = Fault::not_found(format!("no CNI configuration of this name in {}", places.join(", ")))
            .on(shown(name));
        Err(match unreadable {
            Some(other) => fault.hint(format!("one of the files there cannot be used: {other}")),
            None => fault,
        })
    }

    /// A network of one plugin with members of its own, and addresses from `host-local` if there are subnets, each a
    /// list of `subnet`, `gateway`, `rangeStart`, `rangeEnd` as that plugin takes them.
    pub fn of_plugin(
        network: &str,
        plugin: &str,
        members: Map<String, Value>,
        ranges: Vec<Value>,
    ) -> Result<Configuration> {
        let mut document = Map::new();
        document.insert("type".into(), plugin.into());
        let (mut v4, mut v6) = (false, false);
        for range in &ranges {
            let subnet = range.get("subnet").and_then(Value::as_str).unwrap_or_default();
            if subnet.contains(':') { v6 = true } else { v4 = true }
        }
        if !ranges.is_empty() && !members.contains_key("ipam") {
            let routes = [(v4, "0.0.0.0/0"), (v6, "::/0")];
            let routes: Vec<Value> = routes
                .into_iter()
                .filter(|(has, _)| *has)
                .map(|(_, dst)| serde_json::json!({ "dst": dst }))
                .collect();
            let ranges: Vec<Value> = ranges.into_iter().map(|range| Value::Array(vec![range])).collect();
            document.insert(
                "ipam".into(),
                serde_json::json!({"type": "host-local", "ranges": ranges, "routes": routes}),
            );
        }
        document.extend(members);
        // Passed on where the plugin itself, or the one that gives addresses, may listen to them.
        document.entry("capabilities").or_insert_with(|| serde_json::json!({"ips": true, "mac": true}));
        let versions = [Version::V0_3_1, Version::V0_4_0, Version::V1_0_0, Version::V1_1_0];
        Configuration::from_value(serde_json::json!({
            "cniVersion": Version::V0_4_0.name(),
            "cniVersions": versions.map(Version::name),
            "name": network,
            "plugins": [document],
        }))
    }

    fn build(document: Value, added: Vec<Value>) -> Result<Configuration> {
        let Value::Object(members) = &document else {
            return Err(Fault::input("a network configuration is a JSON object"));
        };
        let name = text(members, "name")?.unwrap_or_default();
        check_network(name)?;
        let inlined = match members.get("plugins") {
            None | Some(Value::Null) if members.contains_key("type") => vec![document.clone()],
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(plugins)) => plugins.clone(),
            Some(_) => return Err(Fault::input("plugins is no list").on(name)),
        };
        let plugins: Vec<Value> = inlined.into_iter().chain(added).collect();
        if plugins.is_empty() || plugins.len() > MOST_PLUGINS {
            let count = plugins.len();
            return Err(Fault::input(format!("{count} plugins, where 1 to {MOST_PLUGINS} can be")).on(name));
        }
        let plugins = plugins.into_iter().map(Plugin::new).collect::<Result<Vec<_>>>();
        let on = |fault: Fault| fault.on(name);
        Ok(Configuration {
            name: name.to_owned(),
            versions: versions(members).map_err(on)?,
            disable_check: flag(members, "disableCheck").map_err(on)?,
            disable_gc: flag(members, "disableGC").map_err(on)?,
            plugins: plugins.map_err(on)?,
            document,
        })
    }

    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// With all of its plugins inside, wherever they came from: what can be kept, and read by [`Configuration::from_value`].
    pub fn to_value(&self) -> Value {
        let mut document = Map::new();
        document.insert("cniVersion".into(), self.versions[0].name().into());
        if self.versions.len() > 1 {
            let versions = self.versions.iter().map(|version| Value::from(version.name()));
            document.insert("cniVersions".into(), versions.collect());
        }
        document.insert("name".into(), self.name.as_str().into());
        if let Value::Object(members) = &self.document
            && members.get("plugins").is_some_and(Value::is_array)
        {
            for (name, value) in members {
                if !matches!(
                    name.as_str(),
                    "cniVersion" | "cniVersions" | "plugins" | "loadOnlyInlinedPlugins"
                ) {
                    document.entry(name.as_str()).or_insert_with(|| value.clone());
                }
            }
        }
        document.insert("loadOnlyInlinedPlugins".into(), true.into());
        let plugins = self.plugins.iter().map(|plugin| Value::Object(plugin.document.clone()));
        document.insert("plugins".into(), plugins.collect());
        Value::Object(document)
    }

    /// Whether addresses are given by `static`, which takes them with the lengths of their prefixes alone.
    pub fn is_static(&self) -> bool {
        self.ipams().any(|ipam| ipam.get("type").and_then(Value::as_str) == Some("static"))
    }

    /// The length of the prefix an address has by what the plugins that give addresses are configured with.
    pub fn prefix_of(&self, address: IpAddr) -> Option<u8> {
        let mut subnets = Vec::new();
        self.ipams().for_each(|ipam| gather_subnets(&Value::Object(ipam.clone()), &mut subnets));
        subnets.into_iter().find(|subnet| subnet.contains(address)).map(|subnet| subnet.prefix)
    }

    fn ipams(&self) -> impl Iterator<Item = &Map<String, Value>> {
        self.plugins.iter().filter_map(|plugin| plugin.document.get("ipam")?.as_object())
    }

    /// Whether some plugin takes this capability.
    pub fn has_capability(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin.has_capability(capability))
    }
}

impl Plugin {
    fn new(document: Value) -> Result<Plugin> {
        let Value::Object(document) = document else {
            return Err(Fault::input("a plugin's configuration is a JSON object"));
        };
        let name = text(&document, "type")?.unwrap_or_default().to_owned();
        check_plugin(&name)?;
        if let Some(Value::Object(ipam)) = document.get("ipam")
            && let Some(ipam) = text(ipam, "type")?.filter(|ipam| !ipam.is_empty())
        {
            check_plugin(ipam)?;
        }
        if document.get("capabilities").is_some_and(|value| !value.is_object() && !value.is_null()) {
            return Err(Fault::input(format!("capabilities of plugin {name} is no object")));
        }
        Ok(Plugin { name, document })
    }

    pub fn has_capability(&self, capability: &str) -> bool {
        let capabilities = self.document.get("capabilities").and_then(Value::as_object);
        capabilities.and_then(|all| all.get(capability)).and_then(Value::as_bool).unwrap_or(false)
    }

    /// What is handed to the program (specification, "Deriving request configuration from plugin configuration").
    pub(crate) fn derived(
        &self,
        network: &str,
        version: Version,
        capabilities: &Map<String, Value>,
        previous: Option<&Value>,
    ) -> Map<String, Value> {
        let mut derived = Map::new();
        derived.insert("cniVersion".into(), version.name().into());
        derived.insert("name".into(), network.into());
        for (name, value) in &self.document {
            let generated = matches!(
                name.as_str(),
                "cniVersion" | "cniVersions" | "name" | "capabilities" | "runtimeConfig" | "prevResult"
            );
            if !generated && !name.starts_with("cni.dev/") {
                derived.insert(name.clone(), value.clone());
            }
        }
        let wanted: Map<String, Value> = capabilities
            .iter()
            .filter(|(name, _)| self.has_capability(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !wanted.is_empty() {
            derived.insert("runtimeConfig".into(), wanted.into());
        }
        if let Some(previous) = previous {
            derived.insert("prevResult".into(), previous.clone());
        }
        derived
    }
}

/// `subnet` of host-local, alone and in its `ranges`, and `address` of static's `addresses`.
fn gather_subnets(within: &Value, found: &mut Vec<Cidr>) {
    match within {
        Value::Array(list) => list.iter().for_each(|value| gather_subnets(value, found)),
        Value::Object(members) => {
            let told = ["subnet", "address"].into_iter().filter_map(|name| members.get(name)?.as_str());
            found.extend(told.filter_map(|text| Cidr::parse(text).ok()));
            let lists = ["ranges", "addresses"].into_iter().filter_map(|name| members.get(name));
            lists.for_each(|list| gather_subnets(list, found));
        }
        _ => {}
    }
}

/// Of `cniVersion` and `cniVersions` those that are known, ascending.
fn versions(members: &Map<String, Value>) -> Result<Vec<Version>> {
    let one = text(members, "cniVersion")?;
    let several = match members.get("cniVersions") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) if list.len() <= MOST_FILES => {
            let texts = list.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
            texts.ok_or_else(|| Fault::input("cniVersions is no list of strings"))?
        }
        Some(_) => return Err(Fault::input("cniVersions is no list of strings")),
    };
    let mut named = several.clone();
    if several.is_empty() || one.is_some() {
        named.push(one.unwrap_or_default());
    }
    let mut known: Vec<Version> = named.iter().filter_map(|text| Version::known(text)).collect();
    known.sort_unstable();
    known.dedup();
    match (known.is_empty(), named.first()) {
        (true, Some(unknown)) => Version::parse(unknown).map(|version| vec![version]),
        _ => Ok(known),
    }
}

fn text<'m>(members: &'m Map<String, Value>, name: &str) -> Result<Option<&'m str>> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Fault::input(format!("{name} is no string"))),
    }
}

/// libcni takes the words of a flag too.
fn flag(members: &Map<String, Value>, name: &str) -> Result<bool> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(value)) => Ok(*value),
        Some(Value::String(text)) => {
            text.parse().map_err(|_| Fault::input(format!("{name} is neither true nor false")))
        }
        Some(_) => Err(Fault::input(format!("{name} is neither true nor false"))),
    }
}

fn check_network(name: &str) -> Result<()> {
    if is_identifier(name) {
        return Ok(());
    }
    let what = if name.is_empty() {
        "a network configuration needs a name".to_owned()
    } else {
        format!("\"{}\" cannot be a network's name", shown(name))
    };
    Err(Fault::input(what).hint("letters, digits, \"_\", \".\" and \"-\", a letter or a digit first"))
}

/// A container's id as plugins take it. Fails with input.
pub fn check_container(id: &str) -> Result<()> {
    if is_identifier(id) {
        Ok(())
    } else {
        Err(Fault::input(format!("\"{}\" cannot be a container's id", shown(id))))
    }
}

fn is_identifier(text: &str) -> bool {
    text.len() <= LONGEST_NAME_BYTES
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// An interface's name as the kernel takes it. Fails with input.
pub fn check_interface(name: &str) -> Result<()> {
    let allowed = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':');
    let fits = (1..=LONGEST_INTERFACE_BYTES).contains(&name.len());
    if fits && !matches!(name, "." | "..") && name.chars().all(allowed) {
        Ok(())
    } else {
        Err(Fault::input(format!("\"{}\" cannot be an interface's name", shown(name))))
    }
}

fn check_plugin(name: &str) -> Result<()> {
    if is_plugin_name(name) {
        return Ok(());
    }
    Err(Fault::input(format!("type \"{}\" cannot be a plugin's name", shown(name)))
        .hint("it is the name of a program in the folders of plugins, not a path"))
}

/// Whether a program in a folder can have this name.
pub fn is_plugin_name(name: &str) -> bool {
    let allowed = |c: char| !c.is_control() && !matches!(c, '/' | '\\' | ':');
    (1..=LONGEST_NAME_BYTES).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.chars().all(allowed)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let what = || format!("read {}", path.display());
    // Opening a pipe would wait for who writes to it.
    let mut options = File::options();
    options.read(true).custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default());
    let file = options.open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Fault::not_found(what()).because(error),
        _ => Fault::new(Kind::of_io(&error), what()).because(error),
    })?;
    if !file.metadata().explain(what)?.is_file() {
        return Err(Fault::input(format!("{} is no file", path.display())));
    }
    let mut content = Vec::new();
    file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut content).explain(what)?;
    if content.len() as u64 > LARGEST_FILE_BYTES {
        return Err(Fault::input(format!("{} is larger than 1 MiB", path.display())));
    }
    Ok(content)
}

/// The files a configuration may be in: lists first, each kind in the order of names.
fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = with_ending(folder, &["conflist", "conf", "json"])?;
    files.sort_by_key(|path| (path.extension().is_none_or(|ending| ending != "conflist"), path.clone()));
    Ok(files)
}

fn with_ending(folder: &Path, endings: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound) => return Ok(Vec::new()),
        Err(error) => return Err(error).explain(|| format!("read {}", folder.display())),
    };
    let ends = |path: &PathBuf| {
        path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| endings.contains(&ending))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(ends).collect();
    if files.len() > MOST_FILES {
        return Err(Fault::input(format!("more than {MOST_FILES} configurations in {}", folder.display())));
    }
    files.sort_unstable();
    Ok(files)
}

/// Plugins from the folder beside a configuration's file, unless it wants its own only (specification 1.1.0,
/// `loadOnlyInlinedPlugins`).
fn added(document: &Value, path: &Path) -> Result<Vec<Value>> {
    let Value::Object(members) = document else { return Ok(Vec::new()) };
    let name = text(members, "name")?.unwrap_or_default();
    // What is one plugin has no others.
    if members.contains_key("type") || !is_identifier(name) {
        return Ok(Vec::new());
    }
    if flag(members, "loadOnlyInlinedPlugins")? {
        return match members.get("plugins") {
            Some(Value::Array(_)) => Ok(Vec::new()),
            _ => Err(Fault::input("loadOnlyInlinedPlugins is set, and plugins is missing")),
        };
    }
    let Some(folder) = path.parent() else { return Ok(Vec::new()) };
    with_ending(&folder.join(name), &["conf"])?
        .iter()
        .map(|path| {
            serde_json::from_slice(&read(path)?)
                .map_err(|error| Fault::input(format!("read {}", path.display())).because(error))
        })
        .collect()
}

#[cfg(test)]
mod tests;
