//! What is known of a volume, as `volume.json` keeps it and records show it.

use fault::{Fault, Kind, Result};
use record::{Extra, Record};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The driver that keeps volumes here.
pub const LOCAL: &str = "local";

/// `volume.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    pub name: String,
    /// `local`, or the name of a plugin.
    #[serde(default = "local")]
    pub driver: String,
    /// Made for a container that gave it no name.
    #[serde(default)]
    pub anonymous: bool,
    /// RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The driver's: of `local` `type`, `o` and `device`.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
    #[serde(flatten)]
    pub extra: Extra,
}

fn local() -> String {
    LOCAL.to_owned()
}

impl Info {
    pub fn is_local(&self) -> bool {
        self.driver == LOCAL
    }

    /// Whether it is more than a directory of the store: something is mounted when a container uses it.
    pub fn is_mounted(&self) -> bool {
        !self.is_local() || self.options.contains_key("type")
    }

    /// What a member of a record's `volumes` wishes for, without what is of the moment or of the container it was printed with.
    #[must_use]
    pub fn as_wished(&self) -> Info {
        Info { created_at: None, extra: Extra::new(), ..self.clone() }
    }

    /// A member of a record's `volumes`, put over what a record that came in says of the same volume.
    ///
    /// Passwords among the options stay out of it: records are printed, piped and kept.
    pub fn member(&self, root: &Path, came_in: Option<&serde_json::Value>) -> serde_json::Value {
        let mut member = came_in.and_then(|value| value.as_object()).cloned().unwrap_or_default();
        let mut shown = self.clone();
        if let Some(o) = shown.options.get_mut("o") {
            *o = crate::options::without_passwords(o);
        }
        if let Ok(serde_json::Value::Object(own)) = serde_json::to_value(&shown) {
            member.extend(own);
        }
        if self.is_local() {
            let mountpoint = crate::volume_dir(root, &self.name).join("_data");
            member.insert("mountpoint".into(), mountpoint.display().to_string().into());
        }
        member.entry("scope").or_insert_with(|| "local".into());
        member.into()
    }

    /// What its plugin tells of it: `scope`, and `mountpoint` and `status` where there are any. `None` of a local one.
    pub fn of_plugin(&self) -> Option<Result<Extra>> {
        (!self.is_local()).then(|| {
            let plugin = crate::plugin::Plugin::find(&self.driver)?;
            let mut told = plugin.get(&self.name)?;
            let mut extra = Extra::new();
            extra.insert("scope".into(), plugin.scope().into());
            for (name, key) in [("mountpoint", "Mountpoint"), ("status", "Status")] {
                let value = told[key].take();
                if !value.is_null() && value != "" {
                    extra.insert(name.into(), value);
                }
            }
            Ok(extra)
        })
    }

    /// `record` with this volume as its only one.
    pub fn into_record(&self, root: &Path, mut record: Record) -> Result<Record> {
        let came_in: Option<Vec<serde_json::Value>> = record.get("volumes")?;
        let same = came_in.iter().flatten().find(|member| member["name"] == self.name.as_str());
        record.set("volumes", &[self.member(root, same)])?;
        Ok(record)
    }
}

/// docker's rule, and short enough for a file name.
pub fn check_name(name: &str) -> Result<()> {
    if oci::wishes::mount::is_volume_name(name) {
        return Ok(());
    }
    Err(Fault::new(Kind::Usage, "not a volume's name")
        .on(name)
        .hint("two or more letters, digits, and after the first also _ . -"))
}
