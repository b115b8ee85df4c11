//! The lower layers exchanged for those of another image.

use crate::args::Format;
use crate::edit::Parts;
use crate::manifest::{format_of, put_annotation, translate};
use cli::{Fault, Result};
use serde_json::{Value, json};

const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
const BASE_NAME: &str = "org.opencontainers.image.base.name";

/// What the image's annotations say it stands on, the most exact first (image spec, annotations.md).
pub fn told_base(manifest: &Value) -> Vec<&str> {
    let told = |key: &str| manifest["annotations"][key].as_str();
    [told(BASE_DIGEST), told(BASE_NAME)].into_iter().flatten().collect()
}

/// Puts the layers of `image` that are not `old`'s on those of `new`. `new_name` is noted where the format has a place for it.
///
/// # Errors
/// [`fault::Kind::Conflict`] when the image does not stand on `old`, [`fault::Kind::Input`] when `new` is for another platform.
pub fn rebase(image: &mut Parts, old: &Parts, new: &Parts, new_name: &str) -> Result<()> {
    let count = old.diff_ids()?.len();
    let own = image.diff_ids()?;
    if own.len() < count || own[..count] != *old.diff_ids()? {
        let same = own.iter().zip(old.diff_ids()?).take_while(|(one, other)| one == other).count();
        return Err(Fault::conflict(format!(
            "the image does not stand on the old base: {same} of its {count} layers are the image's lowest"
        )));
    }
    for member in ["os", "architecture"] {
        if image.config[member] != new.config[member] {
            return Err(Fault::input(format!(
                "the image is for {} {}, the new base for {}",
                member, image.config[member], new.config[member]
            )));
        }
    }
    let diff_ids: Vec<Value> = new.diff_ids()?.iter().chain(&own[count..]).cloned().collect();
    let format = format_of(&image.manifest);
    let mut layers = new.layers()?.clone();
    for layer in &mut layers {
        translate(layer, format);
    }
    layers.extend_from_slice(image.layers()?.get(count..).unwrap_or_default());
    let history = history(image, new, count);
    image.config["rootfs"]["diff_ids"] = json!(diff_ids);
    image.manifest["layers"] = json!(layers);
    if let Some(history) = history {
        image.config["history"] = json!(history);
    }
    if format == Format::Oci {
        put_annotation(&mut image.manifest, BASE_DIGEST, new.digest.as_str())?;
        put_annotation(&mut image.manifest, BASE_NAME, new_name)?;
    }
    Ok(())
}

/// The new base's steps, then those of the image after its first `count` layers. `None` when either tells none.
fn history(image: &Parts, new: &Parts, count: usize) -> Option<Vec<Value>> {
    let (own, below) = (image.config["history"].as_array()?, new.config["history"].as_array()?);
    let mut left = count;
    let mut steps = own.iter().peekable();
    let is_empty = |step: &Value| step["empty_layer"].as_bool().unwrap_or(false);
    // The steps of the old base: to its last layer, and those without a layer behind it as far as nobody knows better.
    while left > 0 {
        left -= usize::from(!is_empty(steps.next()?));
    }
    let rest: Vec<Value> = steps.cloned().collect();
    Some(below.iter().cloned().chain(rest).collect())
}
