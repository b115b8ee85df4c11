//! What has to be sent: reads the store, asks the registry, changes nothing.

use crate::args::{Packing, Wanted};
use crate::lanes::lanes;
use crate::rewrite::{layer_type, needs_oci};
use crate::{Push, sources};
use cli::{Fault, Kind, Result};
use oci::manifest::{MAX_MANIFEST_BYTES, media_type};
use oci::{Artifact, Descriptor, Digest, Document, Manifest, Platform, Reference};
use registry::Repository;
use serde_json::json;
use std::collections::HashMap;
use store::Entry;

/// Of all manifests of an index, which are in memory at once.
const MAX_TOTAL_BYTES: usize = 64 << 20;

/// An image on its way to a registry.
pub struct Plan {
    pub repository: Repository,
    pub to: Reference,
    /// The first one is the record's.
    pub parts: Vec<Part>,
    /// What the destination is going to name where it is not the first part.
    pub index: Option<Source>,
    /// Each once. Empty when the registry has all of it under that name.
    pub blobs: Vec<Blob>,
    /// The registry has the very thing under that name.
    pub is_there: bool,
}

/// A document as the store has it.
pub struct Source {
    pub descriptor: Descriptor,
    pub media_type: String,
    pub bytes: Vec<u8>,
}

/// A manifest and what is in it.
pub struct Part {
    pub source: Source,
    pub artifact: Artifact,
    /// `None` for what an index lists beside images.
    pub image: Option<Manifest>,
    pub to_oci: bool,
}

pub struct Blob {
    pub descriptor: Descriptor,
    pub action: Action,
}

pub enum Action {
    /// The registry has it.
    Keep,
    /// Repositories of the same registry that may have it.
    Send {
        mount: Vec<String>,
    },
    Repack {
        diff_id: Digest,
        packing: Packing,
        media_type: &'static str,
    },
}

pub fn plan(push: &Push<'_>, entry: &Entry, to: &Reference) -> Result<Plan> {
    let (mut parts, index) = choose(push, entry)?;
    if push.packing.is_some() && parts.iter().all(|part| part.image.is_none()) {
        return Err(Fault::usage("it is an artifact, whose layers are what they are and not packed anew")
            .hint("without --compression it is pushed"));
    }
    let mut repack = HashMap::new();
    if let Some(packing) = push.packing {
        for part in &mut parts {
            add_repacks(push, part, packing, &mut repack)?;
        }
    }
    let top = index.as_ref().or(parts.first().map(|part| &part.source));
    let digest = top.map(|top| top.descriptor.digest.clone());
    if let Some(asked) = to.digest()
        && (digest.as_ref() != Some(asked) || !repack.is_empty())
    {
        return Err(Fault::usage(format!("what would be pushed does not have the digest {asked}")));
    }
    let repository = push.client.repository(to).for_writing();
    let there = current_digest(&repository, to)?;
    // What is about another manifest may be there and not be listed: that was cut.
    let is_listed = parts.iter().all(|part| part.artifact.subject.is_none());
    if is_listed && there.is_some() && there == digest && repack.is_empty() {
        return Ok(Plan { repository, to: to.clone(), parts, index, blobs: Vec::new(), is_there: true });
    }
    let blobs = blobs(push, &repository, &parts, repack)?;
    Ok(Plan { repository, to: to.clone(), parts, index, blobs, is_there: false })
}

/// What the destination stands for now, if it stands for anything and the registry tells.
fn current_digest(repository: &Repository, to: &Reference) -> Result<Option<Digest>> {
    match repository.manifest_digest(to.identifier()) {
        Ok(digest) => Ok(digest),
        Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Input | Kind::Failed) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn choose(push: &Push<'_>, entry: &Entry) -> Result<(Vec<Part>, Option<Source>)> {
    let own = source(push, &entry.descriptor)?;
    let is_index = Artifact::parse(&own.bytes, Some(&own.media_type))?.is_index();
    let index = if is_index {
        Some(own.descriptor.clone())
    } else {
        entry.index_digest().map(|digest| Descriptor {
            media_type: String::new(),
            digest,
            size: 0,
            platform: None,
            annotations: None,
            urls: None,
        })
    };
    match (&push.wanted, index) {
        (Wanted::Named, Some(index)) if is_index => one_of(push, &source(push, &index)?, &Platform::host()),
        (Wanted::Named, _) => Ok((vec![part(own)?], None)),
        (Wanted::Platform(platform), Some(index)) => one_of(push, &source(push, &index)?, platform),
        (Wanted::Platform(platform), None) => {
            let part = part(own)?;
            check_platform(push, &part, platform)?;
            Ok((vec![part], None))
        }
        (Wanted::All, Some(index)) => all_of(push, source(push, &index)?, entry.digest()),
        (Wanted::All, None) => Err(Fault::not_found("the store has no index of it, only the one image")
            .hint("without --all-platforms that image is pushed")),
    }
}

/// `first` is the image the record tells of.
fn all_of(push: &Push<'_>, index: Source, first: &Digest) -> Result<(Vec<Part>, Option<Source>)> {
    let listed = Artifact::parse(&index.bytes, Some(&index.media_type))?;
    let mut parts: Vec<Part> = Vec::with_capacity(listed.manifests.len());
    let mut total = 0;
    for entry in &listed.manifests {
        if parts.iter().any(|part| part.source.descriptor.digest == entry.digest) {
            continue;
        }
        let source = source(push, entry).map_err(|fault| not_here(fault, entry))?;
        total += source.bytes.len();
        if total > MAX_TOTAL_BYTES {
            return Err(Fault::input(format!("the manifests are larger than {MAX_TOTAL_BYTES} bytes")));
        }
        parts.push(part(source)?);
    }
    let at = parts.iter().position(|part| part.image.is_some() && part.source.descriptor.digest == *first);
    let at = at.or_else(|| parts.iter().position(|part| part.image.is_some()));
    parts.swap(0, at.ok_or_else(|| Fault::input("the index lists no image"))?);
    Ok((parts, Some(index)))
}

fn one_of(push: &Push<'_>, index: &Source, platform: &Platform) -> Result<(Vec<Part>, Option<Source>)> {
    let Document::Index(listed) = Document::parse(&index.bytes, Some(&index.media_type))? else {
        return Err(Fault::input("a manifest where an index was expected"));
    };
    let chosen = listed.choose(platform)?;
    let source = source(push, chosen).map_err(|fault| not_here(fault, chosen))?;
    Ok((vec![part(source)?], None))
}

fn not_here(fault: Fault, entry: &Descriptor) -> Fault {
    if fault.kind() != Kind::NotFound {
        return fault;
    }
    let platform = entry.platform.as_ref().map(Platform::to_string).unwrap_or_default();
    Fault::not_found(format!("the store does not have the image for {platform}, {}", entry.digest))
        .hint(format!("img-pull --platform {platform} gets it"))
}

fn check_platform(push: &Push<'_>, part: &Part, wanted: &Platform) -> Result<()> {
    let Some(image) = &part.image else {
        return Err(Fault::usage("it is an artifact, which is for no platform")
            .hint("without --platform it is pushed"));
    };
    match store::index::unsuitable_platform(wanted, &push.store.read_config(image)?) {
        Some(why) => Err(Fault::not_found(why)),
        None => Ok(()),
    }
}

fn source(push: &Push<'_>, descriptor: &Descriptor) -> Result<Source> {
    let bytes = push.store.read_blob(&descriptor.digest, MAX_MANIFEST_BYTES)?;
    let claimed = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
    let media_type = Artifact::parse(&bytes, claimed)?.media_type;
    let mut descriptor = descriptor.clone();
    descriptor.size = bytes.len() as u64;
    Ok(Source { descriptor, media_type, bytes })
}

fn part(source: Source) -> Result<Part> {
    let artifact = Artifact::parse(&source.bytes, Some(&source.media_type))?;
    if artifact.is_index() {
        return Err(Fault::input("an index in an index is not supported"));
    }
    let is_image = artifact.blobs.first().is_some_and(|config| {
        matches!(config.media_type.as_str(), media_type::OCI_CONFIG | media_type::DOCKER_CONFIG)
    });
    // Attestations have the configuration of an image, and layers that are none.
    let is_attestation = source.descriptor.platform.as_ref().is_some_and(|platform| platform.os == "unknown");
    let image = if is_image && !is_attestation {
        match Document::parse(&source.bytes, Some(&source.media_type))? {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) => None,
        }
    } else {
        None
    };
    Ok(Part { source, artifact, image, to_oci: false })
}

/// Notes which layers of a part are packed anew.
fn add_repacks(
    push: &Push<'_>,
    part: &mut Part,
    packing: Packing,
    repack: &mut HashMap<Digest, Action>,
) -> Result<()> {
    let Some(image) = &part.image else { return Ok(()) };
    let config = push.store.read_config(image)?;
    let layers = image.layers_with_diff_ids(&config)?;
    let to_oci = needs_oci(&image.media_type, packing.compression);
    let is_docker = image.media_type == media_type::DOCKER_MANIFEST && !to_oci;
    for (descriptor, layer) in image.layers.iter().zip(&layers) {
        if descriptor.layer_compression()? == packing.compression && !packing.all {
            continue;
        }
        part.to_oci |= to_oci;
        let diff_id = Digest::parse(&layer.diff_id)?;
        let media_type = layer_type(is_docker, packing.compression);
        repack.insert(descriptor.digest.clone(), Action::Repack { diff_id, packing, media_type });
    }
    Ok(())
}

/// Every blob of every part once, and what is to be done about it.
fn blobs(
    push: &Push<'_>,
    repository: &Repository,
    parts: &[Part],
    mut repack: HashMap<Digest, Action>,
) -> Result<Vec<Blob>> {
    let mut all: Vec<&Descriptor> = Vec::new();
    let mut sizes: HashMap<&Digest, u64> = HashMap::new();
    for blob in parts.iter().flat_map(|part| &part.artifact.blobs) {
        match sizes.insert(&blob.digest, blob.size) {
            None => all.push(blob),
            Some(size) if size != blob.size => {
                return Err(Fault::input(format!("the manifest gives blob {} two sizes", blob.digest)));
            }
            Some(_) => {}
        }
    }
    let is_there = lanes(&all, push.parallel, |blob, _| {
        if repack.contains_key(&blob.digest) { Ok(false) } else { repository.has_blob(blob) }
    })?;
    let lacking: Vec<&Digest> =
        all.iter().zip(&is_there).filter(|(_, there)| !**there).map(|(blob, _)| &blob.digest).collect();
    let mut mounts = sources::of(push.store, repository, &lacking)?;
    all.iter()
        .zip(is_there)
        .map(|(blob, is_there)| {
            let action = if is_there {
                Action::Keep
            } else {
                let mount = mounts.remove(&blob.digest).unwrap_or_default();
                repack.remove(&blob.digest).unwrap_or(Action::Send { mount })
            };
            // Before anything is sent.
            let is_repack = matches!(action, Action::Repack { .. });
            if (is_repack || matches!(&action, Action::Send { mount } if mount.is_empty()))
                && !push.store.has_blob(&blob.digest, Some(blob.size), push.settle)?
            {
                return Err(Fault::not_found(format!("blob {} is not in the store", blob.digest))
                    .hint("pull the image again"));
            }
            Ok(Blob { descriptor: (*blob).clone(), action })
        })
        .collect()
}

impl Plan {
    /// The steps, for `--dry-run`.
    pub fn steps(&self) -> Vec<serde_json::Value> {
        if self.is_there {
            return Vec::new();
        }
        let to = self.to.stored_name();
        let blob = |blob: &Blob| {
            let (digest, size) = (&blob.descriptor.digest, blob.descriptor.size);
            match &blob.action {
                Action::Keep => None,
                Action::Send { mount } if mount.is_empty() => {
                    Some(json!({"step": "send", "reference": to, "digest": digest, "size": size}))
                }
                Action::Send { mount } => Some(
                    json!({"step": "mount", "reference": to, "digest": digest, "size": size, "from": mount}),
                ),
                Action::Repack { media_type, .. } => Some(
                    json!({"step": "repack", "reference": to, "digest": digest, "size": size, "media_type": media_type}),
                ),
            }
        };
        let repacks = self.blobs.iter().any(|blob| matches!(blob.action, Action::Repack { .. }));
        // The digest of what is made anew is not known before that is.
        let name = |step: &str, source: &Source| {
            let digest = (!repacks).then_some(&source.descriptor.digest);
            json!({"step": step, "reference": to, "digest": digest})
        };
        let others = self.parts.iter().filter(|_| self.index.is_some()).map(|part| name("put", &part.source));
        let top = self.index.as_ref().or(self.parts.first().map(|part| &part.source));
        let last = top.map(|top| name("name", top));
        self.blobs.iter().filter_map(blob).chain(others).chain(last).collect()
    }
}
