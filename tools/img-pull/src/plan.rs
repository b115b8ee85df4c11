//! What has to be done to have an image: asks the registry, changes nothing.

use crate::{Policy, Pull};
use cli::{Fault, Kind, Result};
use oci::manifest::MAX_MANIFEST_BYTES;
use oci::{Descriptor, Digest, Document, Index, Manifest, Platform, Reference};
use registry::{Fetched, Repository};
use serde_json::json;
use store::Entry;

pub enum Plan {
    /// The store has it.
    Nothing(Box<record::Image>),
    /// The store has its content, only not under this name.
    Name(Box<record::Image>, Box<Entry>),
    Fetch(Box<Fetch>),
}

/// An image that is not complete in the store.
pub struct Fetch {
    pub repository: Repository,
    pub manifest: Manifest,
    pub fetched: Fetched,
    /// As the index says, where there is one.
    pub platform: Option<Platform>,
    pub index: Option<Fetched>,
    /// Configuration and layers that are not in the store, each once.
    pub missing: Vec<Descriptor>,
    /// Those that are.
    pub present: Vec<Descriptor>,
}

pub fn plan(pull: &Pull<'_>, reference: &Reference) -> Result<Plan> {
    let local = pull.local(reference)?;
    match (local, pull.policy) {
        (Some((_, image)), Policy::Missing | Policy::Never) => Ok(Plan::Nothing(Box::new(image))),
        // What a digest stands for does not change.
        (Some((_, image)), _) if reference.digest().is_some() => Ok(Plan::Nothing(Box::new(image))),
        (None, policy) => match under_another_name(pull, reference)? {
            Some((entry, image)) => Ok(Plan::Name(Box::new(image), Box::new(entry))),
            None if policy == Policy::Never => {
                Err(Fault::not_found("the image is not in the store").hint("--policy missing would pull it"))
            }
            None => ask(pull, reference, None),
        },
        (Some((entry, image)), policy) => match ask(pull, reference, Some((&entry, &image))) {
            Err(fault) if policy == Policy::Newer && fault.kind() != Kind::Usage => {
                pull.warnings.push(reference, format!("using the image in the store: {fault}"));
                Ok(Plan::Nothing(Box::new(image)))
            }
            other => other,
        },
    }
}

/// For a reference with a digest: the same content, pulled before from elsewhere or by tag.
fn under_another_name(pull: &Pull<'_>, reference: &Reference) -> Result<Option<(Entry, record::Image)>> {
    let Some(digest) = reference.digest() else { return Ok(None) };
    for entry in pull.store.find_digest(digest)? {
        if let Some(mut image) = pull.complete(&entry)? {
            image.reference = reference.stored_name();
            return Ok(Some((entry, image)));
        }
    }
    Ok(None)
}

fn ask(pull: &Pull<'_>, reference: &Reference, local: Option<(&Entry, &record::Image)>) -> Result<Plan> {
    let repository = pull.client.repository(reference);
    if let Some((entry, image)) = local
        && let Some(digest) = current_digest(&repository, reference)?
        && (entry.digest() == &digest || entry.index_digest().as_ref() == Some(&digest))
    {
        return Ok(Plan::Nothing(Box::new(image.clone())));
    }
    let first = repository.manifest(reference.identifier())?;
    let (fetched, manifest, platform, index) =
        match Document::parse(&first.bytes, first.media_type.as_deref())? {
            Document::Manifest(manifest) => (first, manifest, None, None),
            Document::Index(index) => {
                let (fetched, manifest, platform) = chosen(pull, &repository, &index)?;
                (fetched, manifest, platform, Some(first))
            }
        };
    if let Some((_, image)) = local
        && image.digest == fetched.digest.as_str()
        && image.index_digest.as_deref() == index.as_ref().map(|index| index.digest.as_str())
    {
        return Ok(Plan::Nothing(Box::new(image.clone())));
    }
    let (present, missing) = sort_blobs(pull, &manifest)?;
    Ok(Plan::Fetch(Box::new(Fetch { repository, manifest, fetched, platform, index, missing, present })))
}

/// The digest the tag has now, if the registry tells without being asked for the whole.
fn current_digest(repository: &Repository, reference: &Reference) -> Result<Option<Digest>> {
    match repository.manifest_digest(reference.identifier()) {
        Ok(digest) => Ok(digest),
        // Some registries do not know HEAD.
        Err(fault) if matches!(fault.kind(), Kind::Input | Kind::Failed) => Ok(None),
        Err(fault) => Err(fault),
    }
}

fn chosen(
    pull: &Pull<'_>,
    repository: &Repository,
    index: &Index,
) -> Result<(Fetched, Manifest, Option<Platform>)> {
    let entry = index.choose(&pull.platform)?;
    let fetched = match pull.store.read_blob(&entry.digest, MAX_MANIFEST_BYTES) {
        Ok(bytes) => Fetched { bytes, digest: entry.digest.clone(), media_type: None },
        Err(fault) if fault.kind() == Kind::NotFound => repository.manifest(entry.digest.as_str())?,
        Err(fault) => return Err(fault),
    };
    if fetched.bytes.len() as u64 != entry.size {
        let (actual, said) = (fetched.bytes.len(), entry.size);
        return Err(Fault::input(format!(
            "manifest {} has {actual} bytes where {said} were announced",
            entry.digest
        )));
    }
    let claimed =
        fetched.media_type.as_deref().or(Some(entry.media_type.as_str()).filter(|text| !text.is_empty()));
    match Document::parse(&fetched.bytes, claimed)? {
        Document::Manifest(manifest) => Ok((fetched, manifest, entry.platform.clone())),
        Document::Index(_) => Err(Fault::input("an index in an index is not supported")),
    }
}

/// The blobs an image needs, each once: those that are there and those that are not.
fn sort_blobs(pull: &Pull<'_>, manifest: &Manifest) -> Result<(Vec<Descriptor>, Vec<Descriptor>)> {
    let (mut present, mut missing): (Vec<Descriptor>, Vec<Descriptor>) = (Vec::new(), Vec::new());
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if let Some(twin) = present.iter().chain(&missing).find(|other| other.digest == blob.digest) {
            if twin.size != blob.size {
                return Err(Fault::input(format!("the manifest gives blob {} two sizes", blob.digest)));
            }
            continue;
        }
        let list = if pull.store.has_blob(&blob.digest, Some(blob.size), pull.settle)? {
            &mut present
        } else {
            &mut missing
        };
        list.push(blob.clone());
    }
    Ok((present, missing))
}

impl Plan {
    /// The steps, for `--dry-run`.
    pub fn steps(&self, reference: &Reference) -> Vec<serde_json::Value> {
        let name = reference.stored_name();
        match self {
            Plan::Nothing(_) => Vec::new(),
            Plan::Name(image, _) => vec![json!({"step": "name", "reference": name, "digest": image.digest})],
            Plan::Fetch(fetch) => {
                let blob = |blob: &Descriptor| {
                    json!({"step": "fetch", "reference": name, "digest": blob.digest, "size": blob.size,
                           "media_type": blob.media_type})
                };
                let last = json!({"step": "name", "reference": name, "digest": fetch.fetched.digest});
                fetch.missing.iter().map(blob).chain([last]).collect()
            }
        }
    }
}
