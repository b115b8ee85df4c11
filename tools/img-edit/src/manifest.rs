//! The manifest of the edited image: the old one with another configuration.

use crate::args::Format;
use crate::value::key_value;
use cli::{Fault, Result};
use oci::Digest;
use oci::manifest::media_type as mt;
use serde_json::{Value, json};

/// The format a manifest has; one that does not say has the configuration's.
pub fn format_of(manifest: &Value) -> Format {
    let own = manifest["mediaType"].as_str().filter(|text| !text.is_empty());
    match own.or(manifest["config"]["mediaType"].as_str()) {
        Some(mt::DOCKER_MANIFEST | mt::DOCKER_CONFIG) => Format::Docker,
        _ => Format::Oci,
    }
}

/// Points the manifest to another configuration.
pub fn set_config(manifest: &mut Value, digest: &Digest, size: usize) -> Result<()> {
    let config = manifest["config"].as_object_mut();
    let config = config.ok_or_else(|| Fault::input("the manifest's config is no object"))?;
    config.insert("digest".to_owned(), json!(digest));
    config.insert("size".to_owned(), json!(size));
    // The old one's content, and where else that is.
    config.shift_remove("data");
    config.shift_remove("urls");
    Ok(())
}

/// Gives the manifest the media types of a format.
///
/// # Errors
/// [`fault::Kind::Input`] for what docker's cannot hold.
pub fn set_format(manifest: &mut Value, format: Format) -> Result<()> {
    if format == Format::Docker {
        for member in ["annotations", "subject", "artifactType"] {
            if manifest.get(member).is_some() {
                return Err(Fault::input(format!(
                    "docker's manifest has no member {member}, which this one has"
                ))
                .hint("--unset annotation.KEY takes annotations away"));
            }
        }
    }
    let wanted = match format {
        Format::Oci => mt::OCI_MANIFEST,
        Format::Docker => mt::DOCKER_MANIFEST,
    };
    manifest["mediaType"] = json!(wanted);
    translate(&mut manifest["config"], format);
    for layer in manifest["layers"].as_array_mut().into_iter().flatten() {
        translate(layer, format);
    }
    Ok(())
}

/// A descriptor's media type in a format.
pub fn translate(descriptor: &mut Value, format: Format) {
    let Some(own) = descriptor["mediaType"].as_str() else { return };
    let dialect = match format {
        Format::Oci => oci::Format::Oci,
        Format::Docker => oci::Format::Docker,
    };
    descriptor["mediaType"] = json!(dialect.translate(own));
}

/// Sets and takes away annotations.
///
/// # Errors
/// [`fault::Kind::Usage`] when the format has none.
pub fn annotate(manifest: &mut Value, set: &[String], unset: &[String]) -> Result<()> {
    if !set.is_empty() && format_of(manifest) == Format::Docker {
        return Err(
            Fault::usage("docker's manifest has no annotations").hint("--format oci makes it one that has")
        );
    }
    for text in set {
        let (key, value) = key_value(text, "annotation")?;
        put_annotation(manifest, key, value)?;
    }
    for key in unset.iter().filter_map(|member| member.strip_prefix("annotation.")) {
        let Some(annotations) = manifest.get_mut("annotations").and_then(Value::as_object_mut) else {
            continue;
        };
        annotations.shift_remove(key);
        if annotations.is_empty()
            && let Some(manifest) = manifest.as_object_mut()
        {
            manifest.shift_remove("annotations");
        }
    }
    Ok(())
}

pub fn put_annotation(manifest: &mut Value, key: &str, value: &str) -> Result<()> {
    if manifest["annotations"].is_null() {
        manifest["annotations"] = json!({});
    }
    let annotations = manifest["annotations"].as_object_mut();
    let annotations = annotations.ok_or_else(|| Fault::input("the manifest's annotations are no object"))?;
    annotations.insert(key.to_owned(), json!(value));
    Ok(())
}
