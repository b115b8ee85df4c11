//! The Container Device Interface (cncf-tags/container-device-interface, SPEC.md 0.8): what the files in `/etc/cdi` and
//! `/var/run/cdi` say has to be done to a container that is given `vendor.com/class=name`. Pure: the files come from a
//! [`crate::spec::Lookup`].

use fault::{Fault, Kind, Result};
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// A file of a directory of specifications.
#[derive(Clone, Debug)]
pub struct SpecFile {
    pub path: String,
    /// The place of its directory: of two devices of one name that in the later directory counts.
    pub priority: usize,
    /// The specification as JSON, or why there is none.
    pub json: std::result::Result<String, String>,
}

/// A device node of the container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeviceNode {
    /// In the container.
    pub path: String,
    /// On the host, where it is another one.
    #[serde(deserialize_with = "or_default")]
    pub host_path: String,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    pub major: Option<i64>,
    pub minor: Option<i64>,
    pub file_mode: Option<u32>,
    /// Some of `rwm`; all of them by default.
    #[serde(deserialize_with = "or_default")]
    pub permissions: String,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CdiMount {
    pub host_path: String,
    pub container_path: String,
    #[serde(rename = "type", deserialize_with = "or_default")]
    pub kind: String,
    #[serde(deserialize_with = "or_default")]
    pub options: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CdiHook {
    pub hook_name: String,
    pub path: String,
    #[serde(deserialize_with = "or_default")]
    pub args: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    pub timeout: Option<i64>,
}

/// `containerEdits`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Edits {
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub device_nodes: Vec<DeviceNode>,
    #[serde(deserialize_with = "or_default")]
    pub mounts: Vec<CdiMount>,
    #[serde(deserialize_with = "or_default")]
    pub hooks: Vec<CdiHook>,
    #[serde(rename = "additionalGIDs", alias = "additionalGids", deserialize_with = "or_default")]
    pub additional_gids: Vec<u32>,
    /// What is not done here, and therefore refused: `intelRdt`, `netDevices`, whatever is new.
    #[serde(flatten)]
    pub others: BTreeMap<String, serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default, deserialize_with = "or_default")]
    devices: Vec<Device>,
    #[serde(default, deserialize_with = "or_default")]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    container_edits: Edits,
}

/// What has to be done for these devices: of each specification its own edits once, then those of its devices.
///
/// Fails with not found on a name no specification has, with conflict on one that several of one directory have.
pub fn edits(names: &[String], files: &[SpecFile]) -> Result<Edits> {
    let mut specs: Vec<(&SpecFile, Spec)> = Vec::new();
    let mut broken: Vec<String> = Vec::new();
    for file in files {
        match file.json.as_ref().map_err(String::clone).and_then(|json| parse(json)) {
            Ok(spec) => specs.push((file, spec)),
            // Another vendor's broken file is no reason to refuse this one's devices.
            Err(why) => broken.push(format!("{}: {why}", file.path)),
        }
    }
    let mut all = Edits::default();
    let mut used: Vec<usize> = Vec::new();
    let mut wanted = Vec::new();
    for name in names {
        let (kind, device) = name.split_once('=').unwrap_or((name, ""));
        let found = find(&specs, kind, device)?;
        let (index, device) = found.ok_or_else(|| unknown(name, &specs, &broken))?;
        if !used.contains(&index) {
            used.push(index);
            all.take(&specs[index].1.container_edits);
        }
        wanted.push(device);
    }
    for device in wanted {
        all.take(&device.container_edits);
    }
    all.check()?;
    Ok(all)
}

fn parse(json: &str) -> std::result::Result<Spec, String> {
    let spec: Spec = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let version = spec.cdi_version.trim_start_matches('v');
    let major_minor: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    match major_minor.as_slice() {
        [0, minor, ..] if *minor >= 3 => Ok(spec),
        [1, ..] => Ok(spec),
        _ => Err(format!("the version {:?} is none that is known: 0.3 to 1", spec.cdi_version)),
    }
}

fn find<'a>(specs: &'a [(&SpecFile, Spec)], kind: &str, name: &str) -> Result<Option<(usize, &'a Device)>> {
    let mut best: Option<(usize, &Device)> = None;
    for (index, (file, spec)) in specs.iter().enumerate().filter(|(_, (_, spec))| spec.kind == kind) {
        let Some(device) = spec.devices.iter().find(|device| device.name == name) else { continue };
        match best.map(|(other, _)| specs[other].0) {
            Some(other) if other.priority == file.priority => {
                return Err(Fault::conflict(format!(
                    "the device {kind}={name} is in both {} and {}",
                    other.path, file.path
                )));
            }
            Some(other) if other.priority > file.priority => {}
            _ => best = Some((index, device)),
        }
    }
    Ok(best)
}

fn unknown(name: &str, specs: &[(&SpecFile, Spec)], broken: &[String]) -> Fault {
    let known: Vec<String> = specs
        .iter()
        .flat_map(|(_, spec)| spec.devices.iter().map(|device| format!("{}={}", spec.kind, device.name)))
        .take(16)
        .collect();
    let fault = Fault::not_found(format!("there is no device {name} in /etc/cdi or /var/run/cdi"));
    if let Some(why) = broken.first() {
        return fault.hint(format!("a specification cannot be read: {why}"));
    }
    if known.is_empty() {
        fault.hint("the vendor's tool writes the specification: nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml")
    } else {
        fault.hint(format!("there are: {}", known.join(" ")))
    }
}

impl Edits {
    fn take(&mut self, other: &Edits) {
        self.env.extend(other.env.iter().cloned());
        self.device_nodes.extend(other.device_nodes.iter().cloned());
        self.mounts.extend(other.mounts.iter().cloned());
        self.hooks.extend(other.hooks.iter().cloned());
        self.additional_gids.extend(&other.additional_gids);
        self.others.extend(other.others.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    fn check(&self) -> Result<()> {
        let wrong =
            |what: String| Err(Fault::new(Kind::Input, format!("the device's specification: {what}")));
        if let Some((name, _)) = self.others.iter().find(|(_, value)| !value.is_null()) {
            return wrong(format!("containerEdits.{name} is not supported"));
        }
        if let Some(text) =
            self.env.iter().find(|text| text.find('=').is_none_or(|at| at == 0) || text.contains('\0'))
        {
            return wrong(format!("containerEdits.env: \"{text}\" is not NAME=value"));
        }
        for node in &self.device_nodes {
            let absolute = |path: &str| path.starts_with('/') && !path.contains('\0');
            if !absolute(&node.path) || !(node.host_path.is_empty() || absolute(&node.host_path)) {
                return wrong(format!("deviceNodes: \"{}\" is not an absolute path", node.path));
            }
            if !matches!(node.kind.as_str(), "" | "b" | "c" | "u" | "p") {
                return wrong(format!("deviceNodes: \"{}\" is no type of device", node.kind));
            }
            if !node.permissions.chars().all(|c| "rwm".contains(c)) {
                return wrong(format!(
                    "deviceNodes: \"{}\": permissions are some of r, w and m",
                    node.permissions
                ));
            }
        }
        if let Some(mount) =
            self.mounts.iter().find(|m| !m.container_path.starts_with('/') || m.host_path.is_empty())
        {
            return wrong(format!(
                "mounts: \"{}\" needs hostPath and an absolute containerPath",
                mount.container_path
            ));
        }
        if let Some(hook) = self.hooks.iter().find(|hook| !hook.path.starts_with('/')) {
            return wrong(format!("hooks: \"{}\" is not an absolute path", hook.path));
        }
        if let Some(gid) = self.additional_gids.iter().find(|gid| **gid == 0) {
            return wrong(format!("additionalGIDs: {gid}"));
        }
        Ok(())
    }
}

/// The devices `--gpus` stands for: `all`, a count, `device=0,1`, with docker's `driver=` and `capabilities=`.
pub fn gpus(text: &str) -> Result<Vec<String>> {
    let wrong = |why: &str| {
        Fault::input(format!("\"{text}\" are no GPUs: {why}"))
            .hint("all, a number, or device=0,1 in quotes of their own: '\"device=0,1\"'")
    };
    let name = |device: &str| format!("nvidia.com/gpu={device}");
    let counted = |count: &str| {
        if count == "all" || count == "-1" {
            return Ok(vec![name("all")]);
        }
        let count = count.parse::<u32>().ok().filter(|count| (1..=64).contains(count));
        count
            .map(|count| (0..count).map(|device| name(&device.to_string())).collect())
            .ok_or_else(|| wrong("it is neither all nor a number from 1 to 64"))
    };
    let text = text.trim();
    if !text.contains('=') {
        return counted(text);
    }
    let mut devices = None;
    let mut fields: Vec<String> = Vec::new();
    // docker's fields are those of a line of CSV: quotes around one that holds commas.
    let mut quoted = false;
    let mut field = String::new();
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    let mut in_list = false;
    for field in fields {
        let (key, value) = field.split_once('=').unwrap_or(("", &field));
        match key {
            "device" => {
                in_list = true;
                let plain = value.split(',').filter(|id| !id.is_empty());
                devices.get_or_insert_with(Vec::new).extend(plain.map(name));
            }
            "count" => devices = Some(counted(value)?),
            "driver" if matches!(value, "" | "nvidia") => {}
            "driver" => return Err(wrong("there is only the driver nvidia")),
            // What is mounted of a GPU is the specification's business.
            "capabilities" => {}
            "" if !in_list && (value == "all" || value.bytes().all(|b| b.is_ascii_digit())) => {
                devices = Some(counted(value)?);
            }
            // The second of `device=0,1` without the quotes.
            "" if in_list && !value.is_empty() => devices.get_or_insert_with(Vec::new).push(name(value)),
            other => return Err(wrong(&format!("there is no option \"{other}\""))),
        }
    }
    match devices {
        Some(devices) if !devices.is_empty() => Ok(devices),
        _ => counted("all"),
    }
}

fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> std::result::Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(priority: usize, text: &str) -> SpecFile {
        SpecFile { path: format!("/{priority}/x.json"), priority, json: Ok(text.to_owned()) }
    }

    const LOW: &str = r#"{"cdiVersion":"0.6.0","kind":"v.com/c","containerEdits":{"env":["ALL=1"]},
        "devices":[{"name":"a","containerEdits":{"env":["A=low"],"deviceNodes":[{"path":"/dev/x","hostPath":"/dev/null"}]}},
                   {"name":"b","containerEdits":{"additionalGIDs":[7],"hooks":[{"hookName":"createRuntime","path":"/h"}]}}]}"#;
    const HIGH: &str = r#"{"cdiVersion":"0.8.0","kind":"v.com/c","devices":[{"name":"a","containerEdits":{"env":["A=high"],
        "mounts":[{"hostPath":"/lib","containerPath":"/l","options":["ro"]}]}}]}"#;

    fn of(names: &[&str], files: &[SpecFile]) -> Result<Edits> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        edits(&names, files)
    }

    #[test]
    fn devices_by_name() {
        let both = of(&["v.com/c=a", "v.com/c=b"], &[file(0, LOW)]).unwrap();
        assert_eq!(both.env, ["ALL=1", "A=low"]);
        assert_eq!(
            (both.device_nodes[0].host_path.as_str(), &both.additional_gids[..]),
            ("/dev/null", &[7][..])
        );
        let high = of(&["v.com/c=a"], &[file(0, LOW), file(1, HIGH)]).unwrap();
        assert_eq!((high.env, high.mounts.len()), (vec!["A=high".to_owned()], 1));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let fault = of(&["v.com/c=z"], &[file(0, LOW)]).unwrap_err();
        assert_eq!(fault.kind(), Kind::NotFound);
        assert_eq!(of(&["v.com/c=a"], &[file(0, LOW), file(0, HIGH)]).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(of(&["v.com/c=a"], &[file(0, "{")]).unwrap_err().kind(), Kind::NotFound);
        for edits in [
            r#"{"intelRdt":{"closID":"x"}}"#,
            r#"{"env":["x"]}"#,
            r#"{"deviceNodes":[{"path":"dev"}]}"#,
            r#"{"deviceNodes":[{"path":"/dev/x","permissions":"z"}]}"#,
            r#"{"mounts":[{"hostPath":"/a","containerPath":"b"}]}"#,
            r#"{"hooks":[{"path":"x"}]}"#,
        ] {
            let text = format!(
                r#"{{"cdiVersion":"0.6.0","kind":"v.com/c","devices":[{{"name":"a","containerEdits":{edits}}}]}}"#
            );
            assert_eq!(of(&["v.com/c=a"], &[file(0, &text)]).unwrap_err().kind(), Kind::Input, "{edits}");
        }
    }

    #[test]
    fn gpus_as_docker_names_them() {
        for (text, names) in [
            ("all", &["all"][..]),
            ("2", &["0", "1"]),
            ("device=GPU-1", &["GPU-1"]),
            ("\"device=0,2\"", &["0", "2"]),
            ("device=0,2", &["0", "2"]),
            ("all,capabilities=utility", &["all"]),
            ("count=1,capabilities=utility", &["0"]),
            ("driver=nvidia,\"capabilities=compute,utility\"", &["all"]),
        ] {
            let found = gpus(text).unwrap_or_default();
            let wanted: Vec<String> = names.iter().map(|name| format!("nvidia.com/gpu={name}")).collect();
            assert_eq!(found, wanted, "{text}");
        }
        for wrong in ["", "none", "0", "999", "driver=x", "what=x"] {
            assert!(gpus(wrong).is_err(), "{wrong}");
        }
    }
}
