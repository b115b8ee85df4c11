//! `--cache-from`. Of a cache only the list of steps is read; a layer is fetched when its step is found.

use super::{Document, INLINE, Inline, MAX_STEPS, MEDIA_TYPE, Place, VERSION};
use crate::build::lock;
use crate::report::Report;
use cli::{Explain, Fault, Kind, Result};
use image::destination::{Destination, StoreDestination};
use image::source::{LayoutSource, RegistrySource};
use image::{Raw, Source};
use oci::{Descriptor, Digest, ImageConfig, Platform, Reference};
use record::Layer;
use registry::Client;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use store::{Settle, Step, Store};

/// All caches of a build that could be read.
pub struct Imports {
    list: Vec<Import>,
}

struct Import {
    name: String,
    /// Keys of steps that could not be had; each is warned of once.
    broken: Mutex<HashSet<String>>,
    source: Box<dyn Source + Send>,
    listed: Listed,
}

/// What a cache says that it has; all of it can be had, if it is as it says.
#[derive(Debug, Default)]
pub struct Listed {
    /// By key.
    steps: HashMap<String, Step>,
    /// What was copied, by key.
    chosen: HashMap<String, Digest>,
}

/// Of a manifest, what tells a cache from an image.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    artifact_type: Option<String>,
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

/// What a cache, or an image that has one in it, says that it has, by its manifest and configuration.
///
/// # Errors
/// [`Kind::Input`], [`Kind::NotFound`] for an image that has none in it.
pub fn read(manifest: &[u8], config: &[u8]) -> Result<Listed> {
    Manifest::parse(manifest)?.list(config)
}

impl Manifest {
    fn parse(bytes: &[u8]) -> Result<Manifest> {
        serde_json::from_slice(bytes).explain_as(Kind::Input, || "malformed manifest".into())
    }

    fn list(&self, config: &[u8]) -> Result<Listed> {
        let is_cache =
            self.config.media_type == MEDIA_TYPE || self.artifact_type.as_deref() == Some(MEDIA_TYPE);
        if is_cache { of_cache(config, self) } else { of_image(config, self) }
    }
}

impl Listed {
    /// By key; all their layers are layers of the manifest.
    pub fn steps(&self) -> &HashMap<String, Step> {
        &self.steps
    }

    pub fn chosen(&self) -> &HashMap<String, Digest> {
        &self.chosen
    }
}

impl Imports {
    pub fn none() -> Imports {
        Imports { list: Vec::new() }
    }

    /// Those that cannot be read are warned of: a first build has none.
    pub fn open(places: &[Place], client: &Client, platform: &Platform, report: &Report) -> Imports {
        let mut list = Vec::new();
        for place in places {
            match Import::open(place, client, platform) {
                Ok(import) => list.push(import),
                Err(fault) => report.warn(&format!("the cache {} is not used: {fault}", place.name())),
            }
        }
        Imports { list }
    }

    /// Whether a cache says that it has a step.
    pub fn has(&self, key: &Digest) -> bool {
        self.list.iter().any(|import| import.listed.steps.contains_key(key.as_str()))
    }

    /// What a cache says that a step copies.
    pub fn chosen(&self, key: &Digest) -> Option<&Digest> {
        self.list.iter().find_map(|import| import.listed.chosen.get(key.as_str()))
    }

    /// What a cache has for a step; it is in the store then.
    ///
    /// # Errors
    /// When the store cannot be written to. What is wrong with a cache is warned of.
    pub fn find(
        &self,
        key: &Digest,
        store: &Store,
        settle: &Settle,
        report: &Report,
    ) -> Result<Option<Step>> {
        for import in &self.list {
            let Some(step) = import.listed.steps.get(key.as_str()) else { continue };
            if lock(&import.broken).contains(key.as_str()) {
                continue;
            }
            if let Some(layer) = &step.layer
                && let Err(fault) = import.fetch(layer, store, settle)
            {
                lock(&import.broken).insert(key.to_string());
                report.warn(&format!("a step of the cache {} is not used: {fault}", import.name));
                continue;
            }
            store.put_step(key, step)?;
            return Ok(Some(step.clone()));
        }
        Ok(None)
    }
}

impl Import {
    fn open(place: &Place, client: &Client, platform: &Platform) -> Result<Import> {
        let source: Box<dyn Source + Send> = match place {
            Place::Local { dir, tag } => Box::new(LayoutSource::open(dir, Some(tag))?),
            Place::Registry(reference) => Box::new(RegistrySource::new(client, reference)),
            Place::Inline => return Err(Fault::usage("an image that is built has no cache yet")),
        };
        let mut root = source.root()?;
        if let image::Parts::Index(_) = root.parts()? {
            root = child(&*source, &root, platform)?;
        }
        let manifest = Manifest::parse(&root.bytes)?;
        let config = image::config_bytes(&*source, &manifest.config)?;
        let listed = manifest.list(&config)?;
        Ok(Import { name: place.name(), broken: Mutex::default(), source, listed })
    }

    fn fetch(&self, layer: &Layer, store: &Store, settle: &Settle) -> Result<()> {
        let (digest, diff_id) = (Digest::parse(&layer.digest)?, Digest::parse(&layer.diff_id)?);
        let blob = descriptor(layer)?;
        // Blobs have no name, and nothing here is given one.
        let nameless = Reference::parse("cache")?;
        let destination = StoreDestination::new(store, settle, &nameless);
        if !destination.has(&blob)? {
            destination.put(&blob, &*self.source, &mut |_| {})?;
        }
        if !store.has_layer(&diff_id) {
            let file = store.open_blob(&digest, settle)?;
            img_unpack::unpack_stream(store, &diff_id, &digest, file, settle)?;
        }
        Ok(())
    }
}

fn child(source: &dyn Source, root: &Raw, platform: &Platform) -> Result<Raw> {
    match root.document()? {
        oci::Document::Index(index) => source.manifest(index.choose(platform)?),
        oci::Document::Manifest(_) => Err(Fault::input("malformed index")),
    }
}

/// Those whose layers the manifest has; others cannot be had.
fn of_cache(config: &[u8], manifest: &Manifest) -> Result<Listed> {
    let document: Document =
        serde_json::from_slice(config).explain_as(Kind::Input, || "malformed list of steps".into())?;
    check(document.version, document.steps.len().max(document.chosen.len()))?;
    let sizes: HashMap<&str, u64> =
        manifest.layers.iter().map(|layer| (layer.digest.as_str(), layer.size)).collect();
    let is_whole = |step: &Step| match &step.layer {
        None => true,
        Some(layer) => {
            sizes.get(layer.digest.as_str()) == Some(&layer.size)
                && Digest::parse(&layer.diff_id).is_ok()
                && descriptor(layer).is_ok()
        }
    };
    let steps = document.steps.into_iter().filter(|(_, step)| is_whole(step)).collect();
    Ok(Listed { steps, chosen: digests(document.chosen) })
}

/// Those that are digests.
fn digests(chosen: BTreeMap<String, String>) -> HashMap<String, Digest> {
    chosen.into_iter().filter_map(|(key, text)| Some((key, Digest::parse(&text).ok()?))).collect()
}

/// Those the image tells of itself.
fn of_image(config: &[u8], manifest: &Manifest) -> Result<Listed> {
    let value: Value =
        serde_json::from_slice(config).explain_as(Kind::Input, || "malformed configuration".into())?;
    let Some(inline) = value.get(INLINE) else {
        return Err(Fault::not_found("it is an image and has no cache in it")
            .hint("--cache-to type=inline puts one into images"));
    };
    let inline: Inline =
        Inline::deserialize(inline).explain_as(Kind::Input, || format!("malformed member {INLINE}"))?;
    check(inline.version, inline.steps.len().max(inline.chosen.len()))?;
    let parsed = ImageConfig::parse(config)?;
    let mut layers = BTreeMap::new();
    for (blob, diff_id) in manifest.layers.iter().zip(&parsed.diff_ids) {
        let layer = Layer {
            digest: blob.digest.to_string(),
            diff_id: diff_id.to_string(),
            size: blob.size,
            media_type: blob.media_type.clone(),
            ..Layer::default()
        };
        if descriptor(&layer).is_ok() {
            layers.insert(layer.diff_id.clone(), layer);
        }
    }
    let created = value.get("created").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut steps = HashMap::new();
    for (key, diff_id) in inline.steps {
        let step = |layer| Step { instruction: "from an image".to_owned(), created: created.clone(), layer };
        match diff_id {
            None => steps.insert(key, step(None)),
            Some(diff_id) => match layers.get(&diff_id) {
                Some(layer) => steps.insert(key, step(Some(layer.clone()))),
                None => None,
            },
        };
    }
    Ok(Listed { steps, chosen: digests(inline.chosen) })
}

fn check(version: u32, members: usize) -> Result<()> {
    if version != VERSION {
        return Err(Fault::input(format!("it is of version {version}, and {VERSION} is known")));
    }
    if members > MAX_STEPS {
        return Err(Fault::input(format!("it has more than {MAX_STEPS} steps or copies")));
    }
    Ok(())
}

/// # Errors
/// For what is no layer.
fn descriptor(layer: &Layer) -> Result<Descriptor> {
    let blob = Descriptor {
        media_type: layer.media_type.clone(),
        digest: Digest::parse(&layer.digest)?,
        size: layer.size,
        platform: None,
        annotations: None,
        urls: None,
    };
    blob.layer_compression()?;
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci::manifest::media_type as mt;
    use serde_json::json;

    fn manifest(layers: &[(&Digest, u64)], media_type: &str) -> Manifest {
        let blob = |(digest, size): &(&Digest, u64)| json!({"mediaType": media_type, "digest": digest, "size": size});
        let layers: Vec<Value> = layers.iter().map(blob).collect();
        let config = json!({"mediaType": MEDIA_TYPE, "digest": Digest::of(b"c"), "size": 1});
        serde_json::from_value(json!({"config": config, "layers": layers})).unwrap()
    }

    #[test]
    fn steps_whose_layers_cannot_be_had_are_left_out() {
        let (digest, other) = (Digest::of(b"a"), Digest::of(b"b"));
        let step = |digest: &str, diff_id: &str, size: u64, media_type: &str| {
            json!({"instruction": "RUN", "created": "", "layer":
                {"digest": digest, "diff_id": diff_id, "size": size, "media_type": media_type}})
        };
        let (this, that) = (digest.as_str(), other.as_str());
        let steps = json!({
            "good": step(this, that, 3, mt::OCI_LAYER_GZIP),
            "empty": {"instruction": "RUN", "created": "", "layer": null},
            "not in the manifest": step(that, this, 3, mt::OCI_LAYER_GZIP),
            "another size": step(this, that, 4, mt::OCI_LAYER_GZIP),
            "no diff id": step(this, "../../etc", 3, mt::OCI_LAYER_GZIP),
            "no layer": step(this, that, 3, "text/plain"),
        });
        let manifest = manifest(&[(&digest, 3)], mt::OCI_LAYER_GZIP);
        let read = |document: Value| of_cache(document.to_string().as_bytes(), &manifest);
        let found = read(json!({"version": 1, "steps": steps})).unwrap();
        let mut keys: Vec<&String> = found.steps.keys().collect();
        keys.sort();
        assert_eq!(keys, ["empty", "good"]);
        assert!(found.chosen.is_empty());
        let chosen = json!({"a": this, "no digest": "../../etc"});
        let found = read(json!({"version": 1, "steps": {}, "chosen": chosen})).unwrap();
        assert_eq!(found.chosen.into_iter().collect::<Vec<_>>(), [("a".to_owned(), digest.clone())]);
        for wrong in [
            json!({"version": 2, "steps": {}}),
            json!({"version": 1}),
            json!([]),
            json!({"version": 1, "steps": []}),
            json!({"version": 1, "steps": {}, "chosen": {"a": 7}}),
        ] {
            assert_eq!(read(wrong.clone()).unwrap_err().kind(), Kind::Input, "{wrong}");
        }
        let many: serde_json::Map<String, Value> =
            (0..=MAX_STEPS).map(|number| (number.to_string(), steps["empty"].clone())).collect();
        assert_eq!(read(json!({"version": 1, "steps": many})).unwrap_err().kind(), Kind::Input);
    }

    #[test]
    fn an_image_tells_which_steps_made_its_layers() {
        let (digest, diff_id) = (Digest::of(b"a"), Digest::of(b"b"));
        let manifest = manifest(&[(&digest, 3)], mt::OCI_LAYER_GZIP);
        let config = |inline: Value| {
            let rootfs = json!({"type": "layers", "diff_ids": [diff_id]});
            json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs, INLINE: inline}).to_string()
        };
        let steps = json!({"made": diff_id, "empty": null, "elsewhere": digest});
        let inline = json!({"version": 1, "steps": steps, "chosen": {"copied": digest}});
        let Listed { steps: found, chosen } = of_image(config(inline).as_bytes(), &manifest).unwrap();
        assert_eq!(chosen["copied"], digest);
        assert_eq!(found["made"].layer.as_ref().unwrap().digest, digest.as_str());
        assert_eq!((found["empty"].layer.as_ref(), found.len()), (None, 2));
        let none = of_image(br#"{"rootfs":{"diff_ids":[]}}"#, &manifest).unwrap_err();
        assert_eq!(none.kind(), Kind::NotFound);
        assert!(of_image(config(json!(7)).as_bytes(), &manifest).is_err());
        assert!(of_image(b"{", &manifest).is_err());
    }
}
