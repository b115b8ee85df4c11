//! The images of an archive, from its documents: `index.json` of an OCI layout, else docker's `manifest.json`.

use super::contents::{Contents, Member, blob_path};
use super::inflate::Packing;
use crate::Raw;
use fault::{Explain, Fault, Kind, Result};
use oci::manifest::{ANNOTATION_REF_NAME, Document, MAX_LAYERS, media_type};
use oci::{Descriptor, Digest, ImageConfig, Manifest, Platform, Reference};
use serde::Deserialize;
use serde_json::json;

/// What containerd and docker take an image's name from.
pub const ANNOTATION_IMAGE_NAME: &str = "io.containerd.image.name";
/// Names of one image, and images of one archive.
const MAX_IMAGES: usize = 10_000;

/// An image an archive has.
#[derive(Clone, Debug)]
pub struct ArchivedImage {
    pub names: Vec<Reference>,
    pub text: Raw,
    pub manifest: Manifest,
    /// The index it was chosen from.
    pub index: Option<Raw>,
}

impl ArchivedImage {
    /// What to call it in an error.
    pub fn subject(&self) -> String {
        self.names.first().map_or_else(|| self.text.digest.to_string(), Reference::familiar)
    }
}

/// One entry of docker's `manifest.json` (moby, image/spec/v1.2, "Combined Image JSON + Filesystem Changeset Format").
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

/// The images, each with what failed about it. `wanted` chooses among those of an index; `present` tells of blobs that need
/// not be in the archive because the reader has them.
///
/// # Errors
/// [`Kind::Input`] when the archive as a whole is not one of images.
pub fn images(
    contents: &Contents,
    wanted: &Platform,
    present: &mut dyn FnMut(&Descriptor) -> Result<bool>,
) -> Result<Vec<Result<ArchivedImage>>> {
    if let Some(index) = contents.document("index.json") {
        let document =
            Document::parse(index, Some(media_type::OCI_INDEX)).map_err(|fault| fault.on("index.json"))?;
        let Document::Index(index) = document else {
            return Err(Fault::input("it is a manifest, not an index").on("index.json"));
        };
        // Podman and dockers since 25 write both; a layout without images leaves it to the other.
        if !index.manifests.is_empty() {
            return Ok(in_layout(contents, &index.manifests, wanted, present));
        }
    }
    dockers(contents)
}

/// The images of docker's `manifest.json`.
///
/// # Errors
/// [`Kind::Input`] when there is none or it is malformed.
pub fn dockers(contents: &Contents) -> Result<Vec<Result<ArchivedImage>>> {
    if let Some(manifest) = contents.document("manifest.json") {
        let images: Vec<DockerImage> = serde_json::from_slice(manifest)
            .explain_as(Kind::Input, || "malformed manifest.json of a docker archive".into())?;
        if images.len() > MAX_IMAGES {
            return Err(Fault::input(format!("the archive has more than {MAX_IMAGES} images")));
        }
        return Ok(images.iter().map(|image| docker_image(contents, image)).collect());
    }
    if contents.document("repositories").is_some() {
        return Err(Fault::input("the archive was written by a docker before 1.10, which is not supported")
            .hint("save the image again with a current tool"));
    }
    Err(Fault::input("there is neither index.json nor manifest.json in the archive: it is not one of images")
        .hint("img-import makes an image of a root file system's archive"))
}

fn in_layout(
    contents: &Contents,
    entries: &[Descriptor],
    wanted: &Platform,
    present: &mut dyn FnMut(&Descriptor) -> Result<bool>,
) -> Vec<Result<ArchivedImage>> {
    let mut images: Vec<Result<ArchivedImage>> = Vec::new();
    for entry in entries {
        let mut found = in_entry(contents, entry, wanted, present);
        if let (Ok(image), Some(name)) = (&mut found, name_of(entry)) {
            // One image under several names is several entries.
            let same = |other: &ArchivedImage| {
                other.text.digest == image.text.digest
                    && other.index.as_ref().map(|index| &index.digest)
                        == image.index.as_ref().map(|index| &index.digest)
            };
            if let Some(known) = images.iter_mut().flatten().find(|other| same(other)) {
                if !known.names.contains(&name) {
                    known.names.push(name);
                }
                continue;
            }
            image.names.push(name);
        }
        images.push(found.map_err(|fault| {
            fault.on(name_of(entry).map_or_else(|| entry.digest.to_string(), |name| name.familiar()))
        }));
    }
    images
}

/// Only what can be nothing but a name: `latest` alone is a tag of something the archive does not tell.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    if let Some(name) = entry.annotation(ANNOTATION_IMAGE_NAME).and_then(|name| Reference::parse(name).ok()) {
        return Some(name);
    }
    let name = entry.annotation(ANNOTATION_REF_NAME)?;
    Reference::parse(name).ok().filter(|_| name.contains([':', '/']))
}

fn in_entry(
    contents: &Contents,
    entry: &Descriptor,
    wanted: &Platform,
    present: &mut dyn FnMut(&Descriptor) -> Result<bool>,
) -> Result<ArchivedImage> {
    let (first, document) = document(contents, entry)?;
    let (text, manifest, index) = match document {
        Document::Manifest(manifest) => (first, manifest, None),
        Document::Index(mut index) => {
            // An archive need not have all platforms.
            index.manifests.retain(|entry| contents.has(&blob_path(&entry.digest)));
            let chosen = index.choose(wanted)?.clone();
            let (text, manifest) = match self::document(contents, &chosen)? {
                (text, Document::Manifest(manifest)) => (text, manifest),
                (_, Document::Index(_)) => return Err(Fault::input("an index in an index is not supported")),
            };
            (text, manifest, Some(first))
        }
    };
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        let here = contents.member(&blob_path(&blob.digest)).is_some_and(|member| member.size == blob.size);
        if !here && !present(blob)? {
            return Err(Fault::input(format!("blob {} is not in the archive", blob.digest)));
        }
    }
    Ok(ArchivedImage { names: Vec::new(), text, manifest, index })
}

fn document(contents: &Contents, descriptor: &Descriptor) -> Result<(Raw, Document)> {
    let path = blob_path(&descriptor.digest);
    let (bytes, member) = contents
        .document(&path)
        .zip(contents.member(&path))
        .ok_or_else(|| Fault::input(format!("manifest {} is not in the archive", descriptor.digest)))?;
    if member.size != descriptor.size {
        return Err(Fault::input(format!(
            "manifest {} has {} bytes where {} were announced",
            descriptor.digest, member.size, descriptor.size
        )));
    }
    let claimed = Some(descriptor.media_type.as_str()).filter(|text| !text.is_empty());
    let document = Document::parse(bytes, claimed)?;
    let media_type = match &document {
        Document::Manifest(manifest) => manifest.media_type.clone(),
        Document::Index(index) => index.media_type.clone(),
    };
    Ok((Raw { bytes: bytes.to_vec(), digest: descriptor.digest.clone(), media_type }, document))
}

/// Docker's archive has no manifest: one is made, the same for the same archive. The configuration stays as it is, and with
/// it the image's id.
fn docker_image(contents: &Contents, image: &DockerImage) -> Result<ArchivedImage> {
    let tags = image.repo_tags.as_deref().unwrap_or_default();
    let subject = tags.first().unwrap_or(&image.config).clone();
    made(contents, image, tags).map_err(|fault| fault.on(subject))
}

fn made(contents: &Contents, image: &DockerImage, tags: &[String]) -> Result<ArchivedImage> {
    let names: Vec<Reference> =
        tags.iter().take(MAX_IMAGES).map(|tag| Reference::parse(tag)).collect::<Result<_>>()?;
    let config = contents
        .document(&image.config)
        .ok_or_else(|| Fault::input(format!("its configuration {:?} is not in the archive", image.config)))?;
    let parsed = ImageConfig::parse(config)?;
    let paths = image.layers.as_deref().unwrap_or_default();
    if paths.len() > MAX_LAYERS {
        return Err(Fault::input(format!("the image has {} layers, more than {MAX_LAYERS}", paths.len())));
    }
    if paths.len() != parsed.diff_ids.len() {
        return Err(Fault::input(format!(
            "it has {} layers but its configuration {} diff ids",
            paths.len(),
            parsed.diff_ids.len()
        )));
    }
    let mut layers = Vec::with_capacity(paths.len());
    for (path, diff_id) in paths.iter().zip(&parsed.diff_ids) {
        let member = contents
            .member(path)
            .ok_or_else(|| Fault::input(format!("layer {path:?} is not in the archive")))?;
        layers.push(layer(member, diff_id)?);
    }
    let config_digest = Digest::of(config);
    let text = json!({
        "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
        "config": {"mediaType": media_type::OCI_CONFIG, "digest": config_digest, "size": config.len()},
        "layers": layers,
    })
    .to_string()
    .into_bytes();
    let Document::Manifest(manifest) = Document::parse(&text, None)? else {
        return Err(Fault::failed("a manifest that is none was made"));
    };
    let text = Raw { digest: Digest::of(&text), bytes: text, media_type: media_type::OCI_MANIFEST.into() };
    Ok(ArchivedImage { names, text, manifest, index: None })
}

fn layer(member: &Member, diff_id: &Digest) -> Result<serde_json::Value> {
    let media_type = match Packing::of(&member.start) {
        Packing::None => media_type::OCI_LAYER,
        Packing::Gzip => media_type::OCI_LAYER_GZIP,
        Packing::Zstd => media_type::OCI_LAYER_ZSTD,
        Packing::Xz | Packing::Bzip2 => {
            return Err(Fault::input(format!("layer {diff_id} is packed as no layer may be")));
        }
    };
    // Of a packed one the diff id is checked when it is unpacked.
    if media_type == media_type::OCI_LAYER && member.digest != *diff_id {
        return Err(Fault::input(format!(
            "a layer has the digest {} where the configuration says {diff_id}",
            member.digest
        )));
    }
    Ok(json!({"mediaType": media_type, "digest": member.digest, "size": member.size}))
}
