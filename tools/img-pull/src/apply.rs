//! Downloading what is missing and giving the image its name.

use crate::Pull;
use crate::follow::Flow;
use crate::plan::{Fetch, Plan};
use cli::{Fault, Kind, Result};
use oci::{Descriptor, Digest, ImageConfig, Reference};
use registry::{Repository, Sink};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use store::{Download, NewEntry};

/// How often blobs that a sweep took away meanwhile are fetched again.
const SWEPT_RETRIES: usize = 3;

pub fn apply(pull: &Pull<'_>, reference: &Reference, plan: Plan) -> Result<record::Image> {
    match plan {
        Plan::Nothing(image) => Ok(*image),
        Plan::Name(image, entry) => {
            let config = entry.config_digest();
            let digests: Vec<Digest> =
                image.layers.iter().filter_map(|layer| Digest::parse(&layer.digest).ok()).collect();
            let blobs: Vec<&Digest> = digests.iter().chain(&config).chain([entry.digest()]).collect();
            let missing = pull.store.put_reference(
                &NewEntry {
                    reference,
                    media_type: &entry.descriptor.media_type,
                    digest: entry.digest(),
                    size: entry.descriptor.size,
                    platform: entry.descriptor.platform.as_ref(),
                    index_digest: entry.index_digest().as_ref(),
                    config_digest: config.as_ref().unwrap_or(entry.digest()),
                },
                &blobs,
            )?;
            if missing.is_empty() { Ok(*image) } else { Err(swept()) }
        }
        Plan::Fetch(fetch) => fetch_image(pull, reference, &fetch),
    }
}

fn fetch_image(pull: &Pull<'_>, reference: &Reference, fetch: &Fetch) -> Result<record::Image> {
    let name = reference.stored_name();
    for blob in &fetch.present {
        pull.progress.present(&name, blob.digest.as_str());
    }
    let mut missing = fetch.missing.clone();
    let unpack = pull.unpacks_on_the_way();
    for _ in 0..SWEPT_RETRIES {
        // What a layer unpacks to is in the configuration, so that comes first where layers are unpacked on their way.
        if unpack
            && let Some(at) = missing.iter().position(|blob| blob.digest == fetch.manifest.config.digest)
        {
            let config = missing.remove(at);
            download(pull, &fetch.repository, &name, &[config], &HashMap::new())?;
        }
        let unpacking = if unpack { diff_ids(pull, &fetch.manifest)? } else { HashMap::new() };
        download(pull, &fetch.repository, &name, &missing, &unpacking)?;
        let config = pull.store.read_config(&fetch.manifest)?;
        check_platform(pull, reference, fetch, &config)?;
        let index_digest = fetch.index.as_ref().map(|index| &index.digest);
        let platform = fetch.platform.clone().unwrap_or_else(|| config.platform.clone());
        let image =
            store::index::to_record(&name, &fetch.fetched.digest, index_digest, &fetch.manifest, config)?;
        let lost = give_name(pull, reference, fetch, &platform)?;
        if lost.is_empty() {
            return Ok(image);
        }
        let all = fetch.missing.iter().chain(&fetch.present);
        missing = all.filter(|blob| lost.contains(&blob.digest)).cloned().collect();
    }
    Err(swept())
}

/// What layers unpack to, by the digests of their blobs.
fn diff_ids(pull: &Pull<'_>, manifest: &oci::Manifest) -> Result<HashMap<Digest, Digest>> {
    let config = pull.store.read_config(manifest)?;
    let layers = manifest.layers_with_diff_ids(&config)?;
    layers.iter().map(|layer| Ok((Digest::parse(&layer.digest)?, Digest::parse(&layer.diff_id)?))).collect()
}

fn swept() -> Fault {
    Fault::conflict("blobs are being removed while they are downloaded")
        .hint("try again when the sweep is over")
}

/// Stores the manifest and puts the image into the index; returns blobs that are gone again.
fn give_name(
    pull: &Pull<'_>,
    reference: &Reference,
    fetch: &Fetch,
    platform: &oci::Platform,
) -> Result<Vec<Digest>> {
    let fetched = &fetch.fetched;
    pull.store.put_blob_as(&fetched.digest, &fetched.bytes, pull.settle)?;
    if let Some(index) = &fetch.index {
        pull.store.put_blob_as(&index.digest, &index.bytes, pull.settle)?;
    }
    let manifest = &fetch.manifest;
    let blobs: Vec<&Digest> = manifest
        .layers
        .iter()
        .chain([&manifest.config])
        .map(|blob| &blob.digest)
        .chain([&fetched.digest])
        .collect();
    let entry = NewEntry {
        reference,
        media_type: &manifest.media_type,
        digest: &fetched.digest,
        size: fetched.bytes.len() as u64,
        platform: Some(platform),
        index_digest: fetch.index.as_ref().map(|index| &index.digest),
        config_digest: &manifest.config.digest,
    };
    pull.store.put_reference(&entry, &blobs)
}

/// An image that came without a choice may be for another machine.
fn check_platform(pull: &Pull<'_>, reference: &Reference, fetch: &Fetch, config: &ImageConfig) -> Result<()> {
    if fetch.platform.is_some() {
        return Ok(());
    }
    match store::index::unsuitable_platform(&pull.platform, config) {
        Some(why) if pull.platform_asked_for => Err(Fault::not_found(why)),
        Some(why) => {
            pull.warnings.push(reference, why);
            Ok(())
        }
        None => Ok(()),
    }
}

/// Downloads blobs, several at once; the first failure ends all.
fn download(
    pull: &Pull<'_>,
    repository: &Repository,
    name: &str,
    blobs: &[Descriptor],
    unpacking: &HashMap<Digest, Digest>,
) -> Result<()> {
    // Those another process is at come again when there is nothing else to do; then they are waited for.
    let waiting: Mutex<VecDeque<(&Descriptor, bool)>> =
        Mutex::new(blobs.iter().map(|blob| (blob, false)).collect());
    let failure: Mutex<Option<Fault>> = Mutex::new(None);
    let stop = AtomicBool::new(false);
    let lane = || {
        while !stop.load(Ordering::Relaxed) {
            let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some((blob, wait)) = next else { return };
            match download_one(pull, repository, name, blob, unpacking.get(&blob.digest), wait, &stop) {
                Ok(Outcome::Stored) => {}
                Ok(Outcome::Busy) => {
                    waiting.lock().unwrap_or_else(PoisonError::into_inner).push_back((blob, true));
                }
                Err(fault) => {
                    // First the reason, then the others' end, or theirs could be taken for it.
                    failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(fault);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        }
    };
    let lanes = blobs.len().min(pull.parallel);
    std::thread::scope(|scope| {
        for _ in 1..lanes {
            scope.spawn(lane);
        }
        lane();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

enum Outcome {
    Stored,
    /// Somebody else is downloading it.
    Busy,
}

fn download_one(
    pull: &Pull<'_>,
    repository: &Repository,
    name: &str,
    blob: &Descriptor,
    diff_id: Option<&Digest>,
    wait: bool,
    stop: &AtomicBool,
) -> Result<Outcome> {
    let digest = blob.digest.as_str();
    if wait {
        pull.store.await_download(&blob.digest)?;
    }
    let Some(download) = pull.store.claim_download(&blob.digest, blob.size)? else {
        return Ok(Outcome::Busy);
    };
    if pull.store.has_blob(&blob.digest, Some(blob.size), pull.settle)? {
        pull.progress.present(name, digest);
        return Ok(Outcome::Stored);
    }
    let mut item = pull.progress.start(name, digest, blob.digest.short(), Some(blob.size));
    let flow = Flow::new(download.written());
    let behind = diff_id.map(|diff_id| download.reader().map(|file| (diff_id, file))).transpose()?;
    let mut sink = Stoppable { download, stop, flow: &flow };
    let came = std::thread::scope(|scope| {
        if let Some((diff_id, file)) = behind {
            let reader = flow.follower(file);
            // What fails here is tried again when the blob is there, and told then.
            let unpack =
                move || img_unpack::unpack_stream(pull.store, diff_id, &blob.digest, reader, pull.settle);
            let _ = std::thread::Builder::new().spawn_scoped(scope, unpack);
        }
        let came = repository.blob(blob, &mut sink, &mut |bytes| item.set(bytes));
        flow.end(came.is_ok());
        came
    });
    let is_wrong = match &came {
        Ok(()) => !sink.download.is_right(),
        Err(fault) => fault.kind() == Kind::Input,
    };
    if is_wrong {
        // What an earlier process left was not the blob's beginning, or a mirror made it up, or a cache spoilt it.
        repository.ask_anew();
        sink.download.restart()?;
        let again = repository.blob(blob, &mut sink, &mut |bytes| item.set(bytes));
        again.and_then(|()| sink.download.commit(pull.settle)).map_err(registry::still_wrong)?;
    } else {
        came?;
        sink.download.commit(pull.settle)?;
    }
    item.done();
    Ok(Outcome::Stored)
}

/// Ends a download when another one has failed.
struct Stoppable<'a> {
    download: Download,
    stop: &'a AtomicBool,
    flow: &'a Flow,
}

impl Sink for Stoppable<'_> {
    fn written(&self) -> u64 {
        self.download.written()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(Fault::failed("another blob failed"));
        }
        self.download.write(bytes)?;
        self.flow.reached(self.download.written());
        Ok(())
    }
}
