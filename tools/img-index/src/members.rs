//! Images that are put into an index: found wherever they are, their platforms read.

use crate::{Args, list};
use cli::{Fault, Result};
use contents::{Found, Places};
use image::{Choice, Destination, Parts, Plan, Raw};
use oci::manifest::{ANNOTATION_CONFIG_DIGEST, ANNOTATION_INDEX_DIGEST, ANNOTATION_REF_NAME};
use oci::{Descriptor, Document, ImageConfig, Platform};
use serde_json::{Value, json};
use std::collections::HashMap;
use store::Subject;

/// An image, or several of one index, and what has to be copied for them.
pub struct Source<'a> {
    pub found: Found<'a>,
    pub plans: Vec<Plan>,
    /// As the index lists them.
    pub entries: Vec<Value>,
    /// Their manifests.
    pub manifests: Vec<Raw>,
}

/// Reads manifests and configurations; nothing is copied yet.
///
/// # Errors
/// [`cli::Kind::NotFound`] when there is no such image or none for a platform asked for; [`cli::Kind::Input`] when it is no image.
pub fn find<'a>(args: &Args, places: &'a Places, subject: &Subject) -> Result<Source<'a>> {
    let found = places.find(subject)?;
    let name = found.location.clone().unwrap_or_else(|| found.name.clone());
    of(args, found).map_err(|fault| fault.on(name))
}

fn of<'a>(args: &Args, found: Found<'a>) -> Result<Source<'a>> {
    let wanted = args.platforms()?;
    let is_index = matches!(found.root.parts()?, Parts::Index(_));
    let choices = match wanted.as_slice() {
        _ if args.all_platforms => vec![Choice::All],
        [] => vec![Choice::One(Platform::host())],
        some => some.iter().cloned().map(Choice::One).collect(),
    };
    let mut source = Source { found, plans: Vec::new(), entries: Vec::new(), manifests: Vec::new() };
    for choice in if is_index { choices.as_slice() } else { &choices[..1] } {
        let at = Root { found: &source.found, root: &source.found.root };
        let plan = Plan::of(&at, choice, None)?;
        let mut listed = HashMap::new();
        let indexes = plan.children.iter().map(|(raw, _)| raw).chain([&source.found.root]);
        indexes.for_each(|raw| note(raw, &mut listed));
        let leaves: Vec<Raw> = if is_index && args.all_platforms {
            plan.children.iter().map(|(raw, _)| raw.clone()).filter(is_leaf).collect()
        } else {
            vec![plan.root.clone()]
        };
        for raw in leaves {
            let mut entry = entry(&source.found, &raw, listed.get(raw.digest.as_str()))?;
            if !is_index && !wanted.is_empty() {
                check_wanted(&entry, &wanted)?;
            }
            if args.annotate.is_empty() && args.describes_entries() {
                list::describe(&mut entry, args)?;
            }
            list::check_platform(&entry)?;
            source.entries.push(entry);
            source.manifests.push(raw);
        }
        source.plans.push(plan);
    }
    Ok(source)
}

/// The source of a plan, with the document its name was found to stand for.
struct Root<'a> {
    found: &'a Found<'a>,
    root: &'a Raw,
}

impl image::Source for Root<'_> {
    fn root(&self) -> Result<Raw> {
        Ok(self.root.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        self.found.source.manifest(descriptor)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn std::io::Read + Send + '_>> {
        self.found.source.open(blob, from)
    }
}

fn is_leaf(raw: &Raw) -> bool {
    matches!(raw.parts(), Ok(Parts::Manifest(_)))
}

/// The words of an index about what is in it, by digest.
fn note(raw: &Raw, listed: &mut HashMap<String, Value>) {
    let Ok(json) = serde_json::from_slice::<Value>(&raw.bytes) else { return };
    for entry in json.get("manifests").and_then(Value::as_array).into_iter().flatten() {
        if let Some(digest) = entry.get("digest").and_then(Value::as_str) {
            listed.entry(digest.to_owned()).or_insert_with(|| entry.clone());
        }
    }
}

fn entry(found: &Found<'_>, raw: &Raw, listed: Option<&Value>) -> Result<Value> {
    let mut entry = json!({"mediaType": raw.media_type, "digest": raw.digest, "size": raw.bytes.len()});
    let own = |member: &str| listed.and_then(|entry| entry.get(member)).filter(|value| !value.is_null());
    if let Some(platform) = own("platform") {
        entry["platform"] = platform.clone();
    } else {
        let Document::Manifest(manifest) = raw.document()? else {
            return Err(Fault::input("an index where an image was expected"));
        };
        let config = ImageConfig::parse(&image::config_bytes(&*found.source, &manifest.config)?)?;
        entry["platform"] = platform_of(&config);
    }
    for member in ["artifactType", "annotations"] {
        if let Some(value) = own(member) {
            entry[member] = value.clone();
        }
    }
    // What a layout calls it is no matter of the index.
    if let Some(annotations) = entry.get_mut("annotations").and_then(Value::as_object_mut) {
        for own in [ANNOTATION_REF_NAME, ANNOTATION_CONFIG_DIGEST, ANNOTATION_INDEX_DIGEST] {
            annotations.shift_remove(own);
        }
        if annotations.is_empty()
            && let Some(entry) = entry.as_object_mut()
        {
            entry.shift_remove("annotations");
        }
    }
    Ok(entry)
}

/// In the order of the specification (image-index.md).
fn platform_of(config: &ImageConfig) -> Value {
    let mut platform = json!({});
    for member in ["architecture", "os", "os.version", "os.features", "variant"] {
        let value = config.json.get(member).filter(|value| !value.is_null() && **value != "");
        if let Some(value) = value {
            platform[member] = value.clone();
        }
    }
    platform
}

fn check_wanted(entry: &Value, wanted: &[Platform]) -> Result<()> {
    let own: Platform = serde_json::from_value(entry["platform"].clone()).unwrap_or_default();
    if wanted.iter().any(|wanted| wanted.rank(&own).is_some()) {
        return Ok(());
    }
    Err(Fault::not_found(format!("the image is for {own}")))
}

/// The store without a name: manifests are kept, and the index that they came from is not.
pub struct Nameless<'a>(pub image::destination::StoreDestination<'a>);

impl Destination for Nameless<'_> {
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        self.0.has(blob)
    }

    fn put(
        &self,
        blob: &Descriptor,
        source: &dyn image::Source,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        self.0.put(blob, source, progress)
    }

    fn put_manifest(&self, raw: &Raw, _: image::destination::Place<'_>) -> Result<()> {
        if !is_leaf(raw) {
            return Ok(());
        }
        self.0.put_manifest(raw, image::destination::Place::Child(None))
    }
}
