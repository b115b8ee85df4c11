//! `--squash`, `--squash-all`: one layer in the place of many. The steps' own stay in the cache, and so does the one they make together.

use crate::args::Args;
use crate::build::{Builder, lock};
use crate::image::{self, Documents, Sayings};
use crate::key::Key;
use crate::layer::Files;
use crate::normalise::open_directory;
use crate::report::Vertex;
use crate::stage::Built;
use cli::{Fault, Result};
use ctr_commit::layer::Writer;
use oci::Digest;
use record::Layer;
use rootfs::{Changes, Upper};
use serde_json::{Value, json};
use store::{Lock, Step, Store};

/// Which layers become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Squash {
    /// Those that are built, as with docker.
    Built,
    /// Those of the base image, too, as with podman's `--squash-all`.
    All,
}

impl Squash {
    pub fn of(args: &Args) -> Option<Squash> {
        match (args.squash, args.squash_all) {
            (_, true) => Some(Squash::All),
            (true, false) => Some(Squash::Built),
            (false, false) => None,
        }
    }
}

/// The image of what was built, with one layer for many. `layers` are all it has.
///
/// Its history is docker's: that of the image with all its layers, whose lines have none any more, then a line that says what was merged.
///
/// # Errors
/// When the layer cannot be made.
pub fn squash(
    builder: &Builder<'_>,
    built: &Built,
    layers: &[Layer],
    sayings: &Sayings,
    what: Squash,
) -> Result<Documents> {
    let base = built.files.base.as_ref().map(|base| &base.image).filter(|_| what == Squash::Built);
    let kept = base.map_or(0, |base| base.layers.len());
    let (below, above) = layers
        .split_at_checked(kept)
        .ok_or_else(|| Fault::failed("the image has fewer layers than its base"))?;
    let vertex = builder.report.start(&format!("squash {} layers", above.len()));
    let merged = Squashing { builder, built, below, above, what }.layer(&vertex).inspect_err(|fault| {
        vertex.failed(fault);
    })?;
    let mut config = image::config(built, layers, sayings)?;
    let whole = Digest::of(image::written(config.clone(), layers, sayings)?.config.as_bytes());
    let comment = match base {
        Some(base) => format!("merge {whole} to {}", base.digest),
        None => format!("create new from {whole}"),
    };
    let mut line = json!({"created": config["created"], "comment": comment});
    if merged.is_none() {
        line["empty_layer"] = json!(true);
    }
    let lines = config["history"].as_array_mut().ok_or_else(|| Fault::failed("there is no history"))?;
    empty(lines, kept);
    lines.push(line);
    let layers: Vec<Layer> = below.iter().cloned().chain(merged).collect();
    image::written(config, &layers, sayings)
}

/// After the lines of so many layers, none has one.
fn empty(lines: &mut [Value], mut kept: usize) {
    for line in lines {
        if line["empty_layer"] == true {
            continue;
        }
        if kept > 0 {
            kept -= 1;
        } else if let Some(members) = line.as_object_mut() {
            members.insert("empty_layer".to_owned(), json!(true));
        } else {
            // A base may say anything there.
            *line = json!({"empty_layer": true});
        }
    }
}

struct Squashing<'a, 'b> {
    builder: &'a Builder<'b>,
    built: &'a Built,
    /// Layers that stay, and those that become one.
    below: &'a [Layer],
    above: &'a [Layer],
    what: Squash,
}

impl Squashing<'_, '_> {
    /// `None` where nothing is left of all that was done.
    fn layer(&self, vertex: &Vertex<'_>) -> Result<Option<Layer>> {
        if let [] | [_] = self.above {
            vertex.done();
            return Ok(self.above.first().cloned());
        }
        let store = self.builder.store;
        let key = self.key();
        let place = self.builder.plan.stages.len().saturating_sub(1);
        lock(&self.builder.notes.used).push((place, key.clone()));
        if let Some(step) = self.find(&key)? {
            vertex.cached();
            return Ok(step.layer);
        }
        let held: Lock = store.lock_step(&key)?;
        if let Some(step) = self.find(&key)? {
            vertex.cached();
            return Ok(step.layer);
        }
        let layer = self.make(store)?;
        let created = jiff::Timestamp::now().to_string();
        store.put_step(&key, &Step { instruction: "squash".to_owned(), created, layer: layer.clone() })?;
        store.unlock_step(&key);
        drop(held);
        vertex.done();
        Ok(layer)
    }

    /// By what the layers are, not by what made them: a step that was done anew (`--no-cache`) may have made something else.
    fn key(&self) -> Digest {
        let ids = |layers: &[Layer]| layers.iter().map(|layer| layer.diff_id.clone()).collect::<Vec<_>>();
        Key::new("squash").with_all("below", &ids(self.below)).with_all("layer", &ids(self.above)).finish()
    }

    fn find(&self, key: &Digest) -> Result<Option<Step>> {
        let is_asked = self.builder.plan.stages.last().is_none_or(|target| self.builder.uses_cache(target));
        if is_asked { self.builder.cached(key, true) } else { Ok(None) }
    }

    fn make(&self, store: &Store) -> Result<Option<Layer>> {
        let settle = &self.builder.finish.settle;
        let files = &self.built.files;
        let mut uppers = Vec::new();
        let below = match self.what {
            Squash::Built => Files { made: Vec::new(), ..files.clone() },
            Squash::All => {
                let base = Files { made: Vec::new(), ..files.clone() };
                for path in base.lower(store, settle)? {
                    uppers.push(Upper::new(open_directory(&path)?));
                }
                Files::none()
            }
        };
        for (place, made) in files.made.iter().enumerate() {
            let lower = Files { made: files.made[..place].to_vec(), ..files.clone() };
            uppers.push(Upper::on(lower.open(store, settle)?, open_directory(&made.path())?)?);
        }
        let changes = Changes::merged(below.open(store, settle)?, uppers);
        let mut progress = |_| {};
        let mut writer = Writer::new(store.unnamed_blob()?, self.builder.finish.compression, &mut progress)?;
        writer.changes(&changes)?;
        if writer.is_empty() {
            return Ok(None);
        }
        let packed = writer.finish(settle)?;
        let blob = store.open_blob(&packed.digest, settle)?;
        img_unpack::unpack_stream(store, &packed.diff_id, &packed.digest, blob, settle)?;
        Ok(Some(Layer {
            digest: packed.digest.to_string(),
            diff_id: packed.diff_id.to_string(),
            size: packed.size,
            media_type: packed.media_type.to_owned(),
            ..Layer::default()
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_what_is_merged_have_no_layer() {
        let mut lines = [
            json!({"created_by": "a"}),
            json!({"created_by": "b", "empty_layer": true}),
            json!({"created_by": "c"}),
            json!({"created_by": "d", "empty_layer": false}),
            json!("e"),
        ];
        let mut all = lines.clone();
        empty(&mut lines, 1);
        let of = |lines: &[Value]| lines.iter().map(|line| line["empty_layer"] == true).collect::<Vec<_>>();
        assert_eq!(of(&lines), [false, true, true, true, true]);
        empty(&mut all, 0);
        assert_eq!(of(&all), [true; 5]);
    }
}
