//! The store.

use super::{CHUNK, Destination, Place, unreadable};
use crate::{Raw, Source};
use fault::{Fault, Result};
use oci::manifest::{Document, MAX_CONFIG_BYTES};
use oci::{Artifact, Descriptor, Digest, ImageConfig, Reference};
use std::io::{self, Read};
use std::sync::Mutex;
use store::{Download, NewEntry, Settle, Store};

#[derive(Debug)]
pub struct StoreDestination<'a> {
    store: &'a Store,
    settle: &'a Settle,
    reference: Reference,
    root: Mutex<Option<(Raw, Option<Digest>)>>,
}

impl<'a> StoreDestination<'a> {
    pub fn new(store: &'a Store, settle: &'a Settle, reference: &Reference) -> StoreDestination<'a> {
        StoreDestination { store, settle, reference: reference.clone(), root: Mutex::default() }
    }
}

impl StoreDestination<'_> {
    fn put_reference(&self, entry: &NewEntry<'_>, blobs: &[&Digest]) -> Result<()> {
        if self.store.put_reference(entry, blobs)?.is_empty() {
            return Ok(());
        }
        Err(Fault::conflict("its blobs were swept away while it was copied")
            .hint("copy it again when the sweep is over"))
    }

    fn name_artifact(&self, raw: &Raw) -> Result<()> {
        let artifact = Artifact::parse(&raw.bytes, Some(&raw.media_type))?;
        let mut blobs: Vec<&Digest> = artifact.blobs.iter().map(|blob| &blob.digest).collect();
        blobs.push(&raw.digest);
        let entry = NewEntry {
            reference: &self.reference,
            media_type: &raw.media_type,
            digest: &raw.digest,
            size: raw.bytes.len() as u64,
            platform: None,
            index_digest: None,
            // The first of its blobs is its configuration, mostly the empty one.
            config_digest: artifact.blobs.first().map_or(&raw.digest, |config| &config.digest),
        };
        self.put_reference(&entry, &blobs)
    }
}

/// The download computes the digest itself.
fn fetch(
    blob: &Descriptor,
    source: &dyn Source,
    download: &mut Download,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut reader = source.open(blob, download.written())?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(length) => {
                download.write(chunk.get(..length).unwrap_or_default())?;
                progress(download.written());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(unreadable(blob, error)),
        }
    }
}

impl Destination for StoreDestination<'_> {
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        self.store.has_blob(&blob.digest, Some(blob.size), self.settle)
    }

    fn put(&self, blob: &Descriptor, source: &dyn Source, progress: &mut dyn FnMut(u64)) -> Result<()> {
        loop {
            // Another process or thread may be fetching it; what one left is gone on with.
            let Some(mut download) = self.store.claim_download(&blob.digest, blob.size)? else {
                self.store.await_download(&blob.digest)?;
                continue;
            };
            if self.has(blob)? {
                return Ok(());
            }
            fetch(blob, source, &mut download, progress)?;
            if download.is_resumed() && !download.is_right() {
                // What was left was not the blob's beginning.
                download.restart()?;
                fetch(blob, source, &mut download, progress)?;
            }
            return download.commit(self.settle);
        }
    }

    fn put_manifest(&self, raw: &Raw, place: Place<'_>) -> Result<()> {
        self.store.put_blob_as(&raw.digest, &raw.bytes, self.settle)?;
        if let Place::Root { index } = place {
            if let Some(index) = index {
                self.store.put_blob_as(&index.digest, &index.bytes, self.settle)?;
            }
            crate::lock(&self.root).replace((raw.clone(), index.map(|index| index.digest.clone())));
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let Some((raw, index)) = crate::lock(&self.root).take() else { return Ok(()) };
        if raw.is_artifact() {
            return self.name_artifact(&raw);
        }
        // The image of an index that suits this machine stands for all.
        let mut parts = Vec::new();
        let (digest, manifest, platform) = match raw.document()? {
            Document::Manifest(manifest) => (raw.digest.clone(), manifest, None),
            Document::Index(list) => {
                let chosen =
                    list.choose(&oci::Platform::host()).or_else(|fault| list.first_image().ok_or(fault))?;
                parts.extend(list.manifests.iter().map(|child| child.digest.clone()));
                (chosen.digest.clone(), self.store.read_manifest(chosen)?, chosen.platform.clone())
            }
        };
        let config = ImageConfig::parse(&self.store.read_blob(&manifest.config.digest, MAX_CONFIG_BYTES)?)?;
        let platform = platform.unwrap_or_else(|| config.platform.clone());
        let mut blobs: Vec<&Digest> = manifest.layers.iter().map(|layer| &layer.digest).collect();
        blobs.extend(&parts);
        blobs.extend([&manifest.config.digest, &digest, &raw.digest]);
        let is_index = digest != raw.digest;
        let entry = NewEntry {
            reference: &self.reference,
            media_type: &raw.media_type,
            digest: &raw.digest,
            size: raw.bytes.len() as u64,
            platform: (!is_index).then_some(&platform),
            index_digest: index.as_ref(),
            config_digest: &manifest.config.digest,
        };
        self.put_reference(&entry, &blobs)
    }

    fn name(&self) -> Option<String> {
        Some(self.reference.stored_name())
    }
}
