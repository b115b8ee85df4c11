//! The image: manifest and configuration of a stage that is built.

use crate::layer::Below;
use crate::stage::Built;
use cli::{Explain, Fault, Result};
use oci::manifest::media_type as mt;
use oci::{Digest, Format, Reference};
use record::Layer;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use store::{ImageDetails, NewImage, Settle, Store};

/// What is said of the image beside what the Dockerfile says.
#[derive(Debug)]
pub struct Sayings {
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub format: Format,
    /// A member of its own for the configuration.
    pub inline: Option<(String, Value)>,
}

/// Its documents, ready to be stored.
pub struct Documents {
    pub manifest: String,
    pub config: String,
}

/// # Errors
/// When a layer could not be stored.
pub fn documents(built: &Built, layers: &[Layer], sayings: &Sayings) -> Result<Documents> {
    written(config(built, layers, sayings)?, layers, sayings)
}

/// The image's configuration.
///
/// # Errors
/// When a layer could not be stored.
pub fn config(built: &Built, layers: &[Layer], sayings: &Sayings) -> Result<Value> {
    let mut config = built.config.clone();
    if !sayings.labels.is_empty() {
        let mut labels = config["config"]["Labels"].as_object().cloned().unwrap_or_default();
        for (name, value) in &sayings.labels {
            labels.insert(name.clone(), json!(value));
        }
        labels.sort_keys();
        config["config"]["Labels"] = Value::Object(labels);
    }
    config["created"] = json!(time(built.clock.now())?);
    config["history"] = Value::Array(history(built, layers.len())?);
    if let Some((member, value)) = &sayings.inline {
        config[member.as_str()] = value.clone();
    }
    Ok(config)
}

/// An image of this configuration and these layers.
///
/// # Errors
/// When the configuration is none.
pub fn written(mut config: Value, layers: &[Layer], sayings: &Sayings) -> Result<Documents> {
    let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
    config["rootfs"] = json!({"type": "layers", "diff_ids": diff_ids});
    let config = ordered(config)?.to_string();
    let format = sayings.format;
    let layers: Vec<Value> = layers
        .iter()
        .map(|layer| {
            json!({"mediaType": format.translate(&layer.media_type), "digest": layer.digest, "size": layer.size})
        })
        .collect();
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": format.translate(mt::OCI_MANIFEST),
        "config": {"mediaType": format.translate(mt::OCI_CONFIG), "digest": Digest::of(config.as_bytes()), "size": config.len()},
        "layers": layers,
    });
    if !sayings.annotations.is_empty() {
        manifest["annotations"] = json!(sayings.annotations);
    }
    Ok(Documents { manifest: manifest.to_string(), config })
}

/// The base's, then a line for each step. It says of as many lines as there are layers that they have one.
fn history(built: &Built, layers: usize) -> Result<Vec<Value>> {
    let of_base = built.files.base.as_ref();
    let mut lines = of_base
        .and_then(|base| base.image.config.get("history"))
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let has_layer = |line: &&Value| line.get("empty_layer").and_then(Value::as_bool) != Some(true);
    let told = lines.iter().filter(has_layer).count();
    let base_layers = of_base.map_or(0, |base| base.image.layers.len());
    // A base whose history tells of other layers than it has would make ours wrong, too.
    if told != base_layers {
        lines = vec![json!({"created_by": "base image"}); base_layers];
    }
    let mut counted = base_layers;
    for past in &built.history {
        let mut line = json!({"created": time(past.created)?, "created_by": past.created_by});
        let layer = match past.layer {
            Some(place) => built.files.made.get(place).map(Below::layer).transpose()?.flatten(),
            None => None,
        };
        if layer.is_none() {
            line["empty_layer"] = json!(true);
        } else {
            counted += 1;
        }
        lines.push(line);
    }
    if counted != layers {
        return Err(Fault::failed(format!("{layers} layers, and a history of {counted}")));
    }
    Ok(lines)
}

/// RFC 3339.
fn time(seconds: i64) -> Result<String> {
    let time = jiff::Timestamp::from_second(seconds).explain(|| format!("the time {seconds}"))?;
    Ok(time.to_string())
}

/// Members as docker and the specification list them, so that the same image has the same digest however it was made.
fn ordered(config: Value) -> Result<Value> {
    let Value::Object(mut rest) = config else { return Err(Fault::input("the configuration is no object")) };
    let mut ordered = Map::new();
    for name in
        ["created", "author", "architecture", "variant", "os", "os.version", "config", "rootfs", "history"]
    {
        if let Some(value) = rest.shift_remove(name) {
            ordered.insert(name.to_owned(), value);
        }
    }
    rest.sort_keys();
    ordered.extend(rest);
    if let Some(process) = ordered.get_mut("config").and_then(Value::as_object_mut) {
        process.sort_keys();
    }
    Ok(Value::Object(ordered))
}

/// Stores the image under its names.
///
/// # Errors
/// When it cannot be stored.
pub fn store(
    store: &Store,
    documents: &Documents,
    names: &[Reference],
    settle: &Settle,
) -> Result<ImageDetails> {
    let new = |name| NewImage {
        manifest: documents.manifest.as_bytes(),
        media_type: None,
        config: Some(documents.config.as_bytes()),
        name,
        index_digest: None,
    };
    let mut entry = store.put_image(&new(names.first()), settle)?;
    for name in names.iter().skip(1) {
        entry = store.put_image(&new(Some(name)), settle)?;
    }
    if let Some(first) = names.first() {
        entry = store.find_reference(first)?;
    }
    store.image_details(&entry)
}
