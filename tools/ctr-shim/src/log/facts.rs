//! What is known of a container whose output is logged.

use fault::Result;
use oci::wishes::log::{LogAttributes, TagFields, tag};
use oci::wishes::{LogDriver, LogWish};
use record::Record;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// A wish, and what goes with each message.
#[derive(Debug, Default)]
pub struct Setup {
    pub wish: LogWish,
    pub id: String,
    pub name: String,
    pub image_name: String,
    /// As wished, else the beginning of the id.
    pub tag: String,
    /// Labels, variables and the tag that were asked for, by name.
    pub attributes: BTreeMap<String, String>,
}

impl Setup {
    pub fn of(record: &Record, bundle: &Path) -> Result<Setup> {
        let config = record.config()?;
        let wish = LogWish::parse(config.log_driver.as_deref(), &config.log_opts)?;
        let simple = matches!(wish.driver, LogDriver::Files(_) | LogDriver::None);
        if simple && wish.attributes == LogAttributes::default() {
            // Nothing of the container is in such a log.
            return Ok(Setup { wish, ..Setup::default() });
        }
        let container = record.container()?.unwrap_or_default();
        let image = record.image()?;
        let asked = &wish.attributes;
        let mut attributes = BTreeMap::new();
        for name in &asked.labels {
            let of_image = || image.as_ref().and_then(|image| label(&image.config, name));
            if let Some(value) = config.labels.get(name).cloned().or_else(of_image) {
                attributes.insert(name.clone(), value);
            }
        }
        // Read only where something asks for what is in it.
        let process = if asked.env.is_empty() && asked.tag.is_none() { Value::Null } else { process(bundle) };
        let words = |member: &str| process[member].as_array().into_iter().flatten().filter_map(Value::as_str);
        for variable in words("env") {
            if let Some((name, value)) = variable.split_once('=')
                && asked.env.iter().any(|asked| asked == name)
            {
                attributes.insert(name.to_owned(), value.to_owned());
            }
        }
        let reference = image.as_ref().map(|image| image.reference.clone()).unwrap_or_default();
        let fields = TagFields {
            id: &container.id,
            name: &container.name,
            image_id: image.as_ref().map_or("", |image| &image.digest),
            image_name: &reference,
            command: &words("args").collect::<Vec<_>>().join(" "),
        };
        let filled = tag(asked.tag.as_deref().unwrap_or("{{.ID}}"), &fields)?;
        if asked.tag.is_some() {
            attributes.insert("tag".to_owned(), filled.clone());
        }
        Ok(Setup {
            id: container.id,
            name: container.name,
            image_name: reference,
            tag: filled,
            attributes,
            wish,
        })
    }
}

fn label(config: &Value, name: &str) -> Option<String> {
    config.get("config")?.get("Labels")?.get(name)?.as_str().map(str::to_owned)
}

/// `process` of the specification; what cannot be read is told by whoever runs it.
fn process(bundle: &Path) -> Value {
    let text = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    let mut spec: Value = serde_json::from_slice(&text).unwrap_or_default();
    spec.get_mut("process").map(Value::take).unwrap_or_default()
}
