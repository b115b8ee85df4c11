//! What the new image says of how to run it: the image's own configuration, and over it what the container was wished to be, as docker's
//! commit has it.

use cli::{Explain, Fault, Kind, Result};
use oci::wishes;
use oci::{Digest, Format, Platform};
use record::{Config, Layer, Record};
use serde_json::{Map, Value, json};
use std::path::Path;
use store::Store;

/// What the new layer stands on.
pub struct Base {
    /// Lowest first.
    pub layers: Vec<Layer>,
    pub format: Format,
    squash: bool,
}

impl Base {
    /// # Errors
    /// [`Kind::Conflict`] for a container whose root is not made of an image's layers, unless all is to be one layer.
    pub fn of(stored: &Record, squash: bool) -> Result<Base> {
        let image = stored.image()?;
        let is_docker = |layer: &Layer| Format::Docker.translate(&layer.media_type) == layer.media_type;
        let format = match &image {
            Some(image) if !image.layers.is_empty() && image.layers.iter().all(is_docker) => Format::Docker,
            _ => Format::Oci,
        };
        if squash {
            return Ok(Base { layers: Vec::new(), format, squash });
        }
        let no_image = || {
            Fault::conflict("its root file system is not that of an image")
                .hint("--squash makes an image of all of its files")
        };
        let layers = image.ok_or_else(no_image)?.layers;
        let rootfs = stored.rootfs()?.filter(|rootfs| rootfs.driver == "overlay").ok_or_else(no_image)?;
        let below = rootfs.layers.iter().map(|path| Store::diff_id_of_path(Path::new(path)));
        let below: Vec<Digest> = below.collect::<Option<_>>().ok_or_else(no_image)?;
        // Layers that others hide completely are not mounted.
        let skipped = layers.len().checked_sub(below.len()).ok_or_else(no_image)?;
        let same = layers[skipped..].iter().zip(&below).all(|(layer, below)| layer.diff_id == below.as_str());
        if same { Ok(Base { layers, format, squash }) } else { Err(no_image()) }
    }

    /// The configuration, but for its layers and the new step.
    pub fn config(&self, stored: &Record, now: &str) -> Result<Value> {
        let wishes = stored.config()?;
        let image = stored.image()?.map(|image| image.config).filter(|_| wishes.rootfs.is_none());
        let mut config = image.unwrap_or_else(|| json!({}));
        let root =
            config.as_object_mut().ok_or_else(|| Fault::input("the image's configuration is no object"))?;
        root.insert("created".to_owned(), json!(now));
        // Of the build of the image below, in docker's documents.
        for stale in ["container", "container_config", "parent", "id"] {
            root.shift_remove(stale);
        }
        let host = Platform::host();
        for (member, value) in [("architecture", &host.architecture), ("os", &host.os)] {
            if root.get(member).and_then(Value::as_str).is_none_or(str::is_empty) {
                root.insert(member.to_owned(), json!(value));
            }
        }
        if self.squash {
            root.shift_remove("history");
        }
        if !root.get("config").is_some_and(Value::is_object) {
            root.insert("config".to_owned(), json!({}));
        }
        if let Some(process) = root.get_mut("config").and_then(Value::as_object_mut) {
            merge(process, &wishes, stored)?;
        }
        Ok(config)
    }
}

fn merge(process: &mut Map<String, Value>, wishes: &Config, stored: &Record) -> Result<()> {
    if !wishes.env.is_empty() {
        let mut env: Vec<String> = match process.get("Env").filter(|value| !value.is_null()) {
            Some(value) => {
                serde_json::from_value(value.clone()).explain_as(Kind::Input, || "the image's Env".into())?
            }
            None => Vec::new(),
        };
        wishes.env.iter().for_each(|variable| wishes::env::set(&mut env, variable));
        process.insert("Env".to_owned(), json!(env));
    }
    if let Some(entrypoint) = &wishes.entrypoint {
        // The image's command was for the image's entrypoint.
        process.shift_remove("Cmd");
        match entrypoint.as_slice() {
            [] => drop(process.shift_remove("Entrypoint")),
            [only] if only.is_empty() => drop(process.shift_remove("Entrypoint")),
            words => drop(process.insert("Entrypoint".to_owned(), json!(words))),
        }
    }
    let texts =
        [("WorkingDir", &wishes.workdir), ("User", &wishes.user), ("StopSignal", &wishes.stop_signal)];
    for (member, text) in texts {
        if let Some(text) = text {
            process.insert(member.to_owned(), json!(text));
        }
    }
    if let Some(command) = wishes.command.as_ref().filter(|command| !command.is_empty()) {
        process.insert("Cmd".to_owned(), json!(command));
    }
    for (key, value) in &wishes.labels {
        map(process, "Labels")?.insert(key.clone(), json!(value));
    }
    for port in &wishes.ports {
        let port = wishes::port::port(port)?;
        let last = port.container.saturating_add(port.count.unwrap_or(1).max(1) - 1);
        for number in port.container..=last {
            map(process, "ExposedPorts")?.insert(format!("{number}/{}", port.protocol), json!({}));
        }
    }
    let volumes: Vec<record::Volume> = stored.get("volumes")?.unwrap_or_default();
    for volume in volumes.iter().filter(|volume| volume.anonymous) {
        map(process, "Volumes")?.insert(volume.target.clone(), json!({}));
    }
    Ok(())
}

fn map<'a>(process: &'a mut Map<String, Value>, member: &str) -> Result<&'a mut Map<String, Value>> {
    if process.get(member).is_none_or(Value::is_null) {
        process.insert(member.to_owned(), json!({}));
    }
    process
        .get_mut(member)
        .and_then(Value::as_object_mut)
        .ok_or_else(|| Fault::input(format!("the image's {member} is no object")))
}

/// The command, for the history, as docker's commit notes it.
pub fn words(config: &Value) -> String {
    let words = config["config"]["Cmd"].as_array().into_iter().flatten();
    words.filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
}

/// The history has a step for each layer, or says nothing of layers at all: one that lacks them is filled up.
pub fn add_step(config: &mut Value, step: Value, layers_below: usize) {
    let mut history = config["history"].as_array().cloned().unwrap_or_default();
    let made = history.iter().filter(|step| step["empty_layer"] != true).count();
    for _ in made..layers_below {
        history.push(json!({"created_by": "unknown"}));
    }
    history.push(step);
    config["history"] = json!(history);
}
