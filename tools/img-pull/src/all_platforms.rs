//! `--all-platforms`: an index with all its images.

use crate::{Policy, Pull};
use cli::{Fault, Kind, Result};
use image::source::RegistrySource;
use image::{Bars, Choice, Copy, Plan, destination};
use oci::{Document, Platform, Reference};
use serde_json::{Value, json};

pub enum Outcome {
    Steps(Vec<Value>),
    Pulled(Box<record::Image>),
}

/// # Errors
/// As those of pulling one; [`Kind::NotFound`] under `--policy never` when a part is missing.
pub fn pull(pull: &Pull<'_>, reference: &Reference, dry_run: bool) -> Result<Outcome> {
    if pull.policy != Policy::Always
        && let Some(image) = whole(pull, reference)?
    {
        match pull.policy {
            Policy::Newer => return newer(pull, reference, dry_run, image),
            _ => return Ok(done(dry_run, image)),
        }
    }
    if pull.policy == Policy::Never {
        return Err(Fault::not_found("the images for all platforms are not in the store")
            .hint("--policy missing would pull them"));
    }
    fetch(pull, reference, dry_run)
}

fn done(dry_run: bool, image: record::Image) -> Outcome {
    if dry_run { Outcome::Steps(Vec::new()) } else { Outcome::Pulled(Box::new(image)) }
}

fn newer(pull: &Pull<'_>, reference: &Reference, dry_run: bool, image: record::Image) -> Result<Outcome> {
    match fetch(pull, reference, dry_run) {
        Err(fault) if fault.kind() != Kind::Usage => {
            pull.warnings.push(reference, format!("using the image in the store: {fault}"));
            Ok(done(dry_run, image))
        }
        other => other,
    }
}

/// The image in the store, if it is there with all its platforms.
fn whole(pull: &Pull<'_>, reference: &Reference) -> Result<Option<record::Image>> {
    let entry = match pull.store.find_reference(reference) {
        Ok(entry) => entry,
        Err(fault) if fault.kind() == Kind::NotFound => return Ok(None),
        Err(fault) => return Err(fault),
    };
    let parts = || -> Result<Option<record::Image>> {
        let Document::Index(index) = pull.store.read_document(&entry.descriptor)? else { return Ok(None) };
        for child in &index.manifests {
            let Document::Manifest(manifest) = pull.store.read_document(child)? else { return Ok(None) };
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                if !pull.store.has_blob(&blob.digest, Some(blob.size), pull.settle)? {
                    return Ok(None);
                }
            }
        }
        pull.store.load_image(&entry, &Platform::host()).map(Some)
    };
    match parts() {
        // Whatever is wrong with it, pulling it again mends it.
        Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Input) => Ok(None),
        other => other,
    }
}

fn fetch(pull: &Pull<'_>, reference: &Reference, dry_run: bool) -> Result<Outcome> {
    let source = RegistrySource::new(&pull.client, reference);
    let plan = Plan::of(&source, &Choice::All, None)?;
    if dry_run {
        let mut steps = Vec::new();
        for blob in &plan.blobs {
            if !pull.store.has_blob(&blob.digest, Some(blob.size), pull.settle)? {
                steps.push(
                    json!({"step": "fetch", "reference": reference.stored_name(), "digest": blob.digest,
                    "size": blob.size, "media_type": blob.media_type}),
                );
            }
        }
        steps.push(json!({"step": "name", "reference": reference.stored_name(), "digest": plan.root.digest}));
        return Ok(Outcome::Steps(steps));
    }
    let name = reference.stored_name();
    let destination = destination::StoreDestination::new(pull.store, pull.settle, reference);
    let watch = Bars { progress: pull.progress, subject: &name };
    let copy = Copy { source: &source, destination: &destination, parallel: pull.parallel, watch: &watch };
    copy.apply(&plan)?;
    plan.describe(&source, &name).map(Box::new).map(Outcome::Pulled)
}
