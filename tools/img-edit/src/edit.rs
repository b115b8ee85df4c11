//! An image taken apart, changed, and put together again.

use crate::args::{Args, Format};
use crate::{config, manifest, rebase, value};
use cli::{Explain, Fault, Kind, Result};
use oci::manifest::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES};
use oci::{Descriptor, Digest, Document, Platform};
use serde_json::{Value, json};
use std::io::Read;
use store::{Entry, Store, Subject};

/// An image's two documents.
#[derive(Clone, Debug)]
pub struct Parts {
    /// Of the manifest.
    pub digest: Digest,
    pub manifest: Value,
    pub config: Value,
}

/// What came of it: the new documents' own bytes.
#[derive(Clone, Debug)]
pub struct Edited {
    pub manifest: String,
    pub config: String,
    /// Members that changed with their new values.
    pub changes: Vec<(String, Value)>,
}

impl Parts {
    /// Reads the image of an entry; of an index another program put into the store, the one for this machine.
    pub fn of(store: &Store, entry: &Entry) -> Result<Parts> {
        let chosen: Descriptor = match store.read_document(&entry.descriptor)? {
            Document::Manifest(_) => entry.descriptor.clone(),
            Document::Index(index) => index.choose(&Platform::host())?.clone(),
        };
        // Read as what it is first: a document that is something else to somebody else is refused.
        let parsed = store.read_manifest(&chosen)?;
        store.read_config(&parsed)?;
        let json = |digest: &Digest, limit: u64| -> Result<Value> {
            serde_json::from_slice(&store.read_blob(digest, limit)?)
                .explain_as(Kind::Input, || format!("malformed document {digest}"))
        };
        Ok(Parts {
            manifest: json(&chosen.digest, MAX_MANIFEST_BYTES)?,
            config: json(&parsed.config.digest, MAX_CONFIG_BYTES)?,
            digest: chosen.digest,
        })
    }

    pub fn diff_ids(&self) -> Result<&Vec<Value>> {
        self.config["rootfs"]["diff_ids"]
            .as_array()
            .ok_or_else(|| Fault::input("the image configuration has no list rootfs.diff_ids"))
    }

    pub fn layers(&self) -> Result<&Vec<Value>> {
        self.manifest["layers"].as_array().ok_or_else(|| Fault::input("the manifest has no list of layers"))
    }
}

/// The configuration that is edited further: that of `--config`, the record's, or the image's own. `None`: its own.
fn given_config(args: &Args, subject: &Subject) -> Result<Option<Value>> {
    if let Some(path) = &args.config {
        let mut bytes = Vec::new();
        let says = || format!("read {}", path.display());
        let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(std::io::stdin())
        } else {
            Box::new(std::fs::File::open(path).explain(says)?)
        };
        input.by_ref().take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes).explain(says)?;
        if bytes.len() as u64 > MAX_CONFIG_BYTES {
            return Err(Fault::input(format!("{} is larger than {MAX_CONFIG_BYTES} bytes", path.display())));
        }
        return serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| Fault::input(format!("{} is malformed", path.display())).because(error));
    }
    let Subject::Record(record) = subject else { return Ok(None) };
    let image: record::Image = record.require("image")?;
    Ok(Some(image.config).filter(|config| !config.is_null()))
}

/// Applies everything that is asked for. `None` when nothing changes.
pub fn edit(args: &Args, store: &Store, subject: &Subject, before: &Parts) -> Result<Option<Edited>> {
    let mut after = before.clone();
    if let Some(mut config) = given_config(args, subject)? {
        let root = config::root(&mut config)?;
        // One written by hand need not tell what is known.
        if root.get("rootfs").is_none_or(Value::is_null) {
            root.insert("rootfs".to_owned(), before.config["rootfs"].clone());
        }
        if config["rootfs"] != before.config["rootfs"] {
            return Err(Fault::input(
                "the configuration's rootfs is not the image's, but the layers stay as they are",
            )
            .hint("rootfs has to stay as img-inspect prints it"));
        }
        check_history(&config, before)?;
        after.config = config;
    }
    if let Some(new_base) = &args.new_base {
        stand_on(args, store, new_base, &mut after)?;
    }
    config::apply(args, &mut after.config)?;
    if let Some(format) = args.format.filter(|format| *format == Format::Oci) {
        manifest::set_format(&mut after.manifest, format)?;
    }
    manifest::annotate(&mut after.manifest, &args.annotation, &args.unset)?;
    if let Some(format) = args.format {
        manifest::set_format(&mut after.manifest, format)?;
    }
    if after.config == before.config && after.manifest == before.manifest {
        return Ok(None);
    }
    if after.config != before.config {
        note(args, &mut after.config, &before.config)?;
    }
    let mut changes = Vec::new();
    differences("", &before.config, &after.config, &mut changes);
    let config = after.config.to_string();
    manifest::set_config(&mut after.manifest, &Digest::of(config.as_bytes()), config.len())?;
    differences("manifest", &before.manifest, &after.manifest, &mut changes);
    let manifest = after.manifest.to_string();
    if manifest.len() as u64 > MAX_MANIFEST_BYTES || config.len() as u64 > MAX_CONFIG_BYTES {
        return Err(Fault::input("the image's documents become larger than anybody accepts"));
    }
    Ok(Some(Edited { manifest, config, changes }))
}

/// A history that tells of more layers than there are is refused by docker when the image is used.
fn check_history(config: &Value, before: &Parts) -> Result<()> {
    let Some(steps) = config["history"].as_array().filter(|_| config["history"] != before.config["history"])
    else {
        return Ok(());
    };
    let told = steps.iter().filter(|step| !step["empty_layer"].as_bool().unwrap_or(false)).count();
    let layers = before.layers()?.len();
    if told <= layers {
        return Ok(());
    }
    Err(Fault::input(format!("the history tells of {told} layers where there are {layers}"))
        .hint("a step without a layer has \"empty_layer\": true"))
}

fn stand_on(args: &Args, store: &Store, new_base: &str, image: &mut Parts) -> Result<()> {
    let new_entry = store.find_image(new_base)?;
    let new = Parts::of(store, &new_entry)?;
    let old_entry = if let Some(old) = &args.old_base {
        store.find_image(old)?
    } else {
        let told = rebase::told_base(&image.manifest);
        let found = told.iter().find_map(|name| store.find_image(name).ok());
        found.ok_or_else(|| {
            let why = if told.is_empty() {
                "the image does not tell"
            } else {
                "what the image tells is not in the store"
            };
            Fault::usage(format!("what it stands on now is not known: {why}"))
                .hint("--old-base IMAGE says it")
        })?
    };
    let name = new_entry.name().unwrap_or(new_base).to_owned();
    rebase::rebase(image, &Parts::of(store, &old_entry)?, &new, &name)
}

/// The time of the change, and a step in the history.
fn note(args: &Args, config: &mut Value, before: &Value) -> Result<()> {
    let now = match &args.created {
        Some(text) => value::time(text)?,
        None => value::now()?,
    };
    // Unless whoever edited it said otherwise.
    if args.created.is_none() && config["created"] == before["created"] {
        config::root(config)?.insert("created".to_owned(), json!(now));
    }
    // A history that tells of no layers would be made to tell of none.
    if let Some(history) = config.get_mut("history").and_then(Value::as_array_mut)
        && !args.no_history
    {
        history.push(json!({"created": now, "created_by": args.words(), "empty_layer": true}));
    }
    Ok(())
}

/// Members that differ, of objects one by one.
fn differences(path: &str, before: &Value, after: &Value, changes: &mut Vec<(String, Value)>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            for name in old.keys().chain(new.keys().filter(|name| !old.contains_key(*name))) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                let (old, new) = (old.get(name), new.get(name));
                if old != new {
                    differences(&path, old.unwrap_or(&Value::Null), new.unwrap_or(&Value::Null), changes);
                }
            }
        }
        _ => changes.push((path.to_owned(), after.clone())),
    }
}
