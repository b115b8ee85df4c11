//! `--cache-to`.

use super::{Contents, Document, INLINE, Inline, MAX_STEPS, MEDIA_TYPE, Place, To, VERSION, prune};
use crate::build::{Builder, lock};
use cli::{Explain, Fault, Result};
use image::destination::{LayoutDestination, RegistryDestination};
use image::{Copy, Destination, Plan, Raw, Source, Watch};
use oci::manifest::{MAX_CONFIG_BYTES, media_type as mt};
use oci::{Descriptor, Digest};
use registry::Client;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Cursor, Read};
use store::{Settle, Store};

/// Blobs written at once.
const LANES: usize = 4;

/// Writes steps to where they were asked for.
///
/// # Errors
/// When they cannot be written there.
pub fn export(store: &Store, settle: &Settle, to: &To, contents: Contents, client: &Client) -> Result<()> {
    let write = || match &to.place {
        Place::Inline => Ok(()),
        Place::Registry(reference) => {
            Artifact::new(store, settle, contents)?.write(&RegistryDestination::new(client, reference)?)
        }
        Place::Local { dir, tag } => {
            let artifact = Artifact::new(store, settle, contents)?;
            artifact.write(&LayoutDestination::create(dir, Some(tag), &[])?)?;
            prune::prune(dir)
        }
    };
    write().map_err(|fault| fault.within(format!("write the cache to {}", to.place.name())))
}

/// The member for the image's configuration.
///
/// # Errors
/// When the state cannot be read.
pub fn inline(builder: &Builder<'_>) -> Result<(String, Value)> {
    let Contents { steps, chosen } = contents(builder, false)?;
    let steps = steps.into_iter().map(|(key, step)| (key, step.layer.map(|layer| layer.diff_id))).collect();
    let inline = Inline { version: VERSION, steps, chosen };
    let value = serde_json::to_value(&inline).explain(|| "write the cache".into())?;
    Ok((INLINE.to_owned(), value))
}

/// The steps of a build that is done, and what they chose. Of the target those whose layers it has: its own and those of the stages it stands on.
///
/// # Errors
/// When the state cannot be read.
pub fn contents(builder: &Builder<'_>, is_whole: bool) -> Result<Contents> {
    let places = builder.chain();
    let is_wanted = |place: &usize| is_whole || places.contains(place);
    let mut steps = BTreeMap::new();
    for (place, key) in lock(&builder.notes.used).iter() {
        if is_wanted(place)
            && let Some(step) = builder.store.step(key, &builder.finish.settle)?
        {
            steps.insert(key.to_string(), step);
        }
    }
    if steps.len() > MAX_STEPS {
        return Err(Fault::input(format!("{} steps are more than a cache may have", steps.len())));
    }
    let chosen = lock(&builder.notes.chosen);
    let chosen = chosen.iter().filter(|((place, _), _)| is_wanted(place));
    let chosen: BTreeMap<String, String> =
        chosen.map(|((_, key), digest)| (key.clone(), digest.clone())).collect();
    if chosen.len() > MAX_STEPS {
        return Err(Fault::input(format!("{} copies are more than a cache may have", chosen.len())));
    }
    Ok(Contents { steps, chosen })
}

/// A cache as something that can be copied.
struct Artifact<'a> {
    store: &'a Store,
    settle: &'a Settle,
    config: Vec<u8>,
    plan: Plan,
}

impl<'a> Artifact<'a> {
    fn new(store: &'a Store, settle: &'a Settle, contents: Contents) -> Result<Artifact<'a>> {
        let Contents { steps, chosen } = contents;
        let mut layers: Vec<Descriptor> = Vec::new();
        for layer in steps.values().filter_map(|step| step.layer.as_ref()) {
            let digest = Digest::parse(&layer.digest)?;
            if !layers.iter().any(|known| known.digest == digest) {
                layers.push(descriptor(&layer.media_type, digest, layer.size));
            }
        }
        let config = serde_json::to_vec(&Document { version: VERSION, steps, chosen });
        let config = config.explain(|| "write the list of steps".into())?;
        if config.len() as u64 > MAX_CONFIG_BYTES {
            return Err(Fault::input("there are more steps than a cache may have"));
        }
        let head = descriptor(MEDIA_TYPE, Digest::of(&config), config.len() as u64);
        let text = |blob: &Descriptor| json!({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": mt::OCI_MANIFEST,
            "artifactType": MEDIA_TYPE,
            "config": text(&head),
            "layers": layers.iter().map(text).collect::<Vec<_>>(),
        })
        .to_string()
        .into_bytes();
        let digest = Digest::of(&manifest);
        let root = Raw::new(manifest, digest, Some(mt::OCI_MANIFEST))?;
        let blobs = std::iter::once(head).chain(layers).collect();
        let plan = Plan { children: Vec::new(), root, index: None, blobs };
        Ok(Artifact { store, settle, config, plan })
    }

    fn write(&self, destination: &dyn Destination) -> Result<()> {
        Copy { source: self, destination, parallel: LANES, watch: &Silent }.apply(&self.plan)?;
        Ok(())
    }
}

fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        annotations: None,
        urls: None,
    }
}

impl Source for Artifact<'_> {
    fn root(&self) -> Result<Raw> {
        Ok(self.plan.root.clone())
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        Err(Fault::not_found(format!("a cache has no manifest {}", descriptor.digest)))
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        use std::io::{Seek, SeekFrom};
        if blob.media_type == MEDIA_TYPE {
            let rest = usize::try_from(from).ok().and_then(|from| self.config.get(from..));
            return Ok(Box::new(Cursor::new(rest.unwrap_or_default())));
        }
        let mut file = self.store.open_blob(&blob.digest, self.settle)?;
        file.seek(SeekFrom::Start(from)).explain(|| format!("read blob {}", blob.digest))?;
        Ok(Box::new(file))
    }
}

struct Silent;

impl Watch for Silent {
    fn present(&self, _: &Descriptor) {}

    fn start<'a>(&'a self, _: &Descriptor) -> Box<dyn FnMut(u64) + 'a> {
        Box::new(|_| {})
    }
}
