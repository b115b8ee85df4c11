//! An image of the store.

use super::Source;
use crate::Raw;
use fault::{Explain, Kind, Result};
use oci::manifest::MAX_MANIFEST_BYTES;
use oci::{Descriptor, Document, Reference};
use std::io::{Read, Seek, SeekFrom};
use store::{Entry, Settle, Store, Subject};

#[derive(Debug)]
pub struct StoreSource<'a> {
    store: &'a Store,
    settle: &'a Settle,
    entry: Entry,
}

impl<'a> StoreSource<'a> {
    pub fn open(store: &'a Store, settle: &'a Settle, name: &str) -> Result<StoreSource<'a>> {
        Self::of(store, settle, &Subject::Name(name.to_owned()))
    }

    /// The image a tool's subject means.
    pub fn of(store: &'a Store, settle: &'a Settle, subject: &Subject) -> Result<StoreSource<'a>> {
        Ok(StoreSource { store, settle, entry: store.find_subject(subject)? })
    }

    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    fn read(&self, digest: &oci::Digest, media_type: &str) -> Result<Raw> {
        let bytes = self.store.read_blob(digest, MAX_MANIFEST_BYTES)?;
        Raw::new(bytes, digest.clone(), Some(media_type))
    }
}

impl Source for StoreSource<'_> {
    /// The index the image was chosen from, if all of it is here; else the image's own manifest.
    fn root(&self) -> Result<Raw> {
        if let Some(index) = self.entry.index_digest() {
            let whole = || -> Result<Option<Raw>> {
                let raw = self.read(&index, "")?;
                let Document::Index(index) = raw.document()? else { return Ok(None) };
                let here = |entry: &Descriptor| self.store.blob_path(&entry.digest).is_file();
                Ok(index.manifests.iter().all(here).then_some(raw))
            };
            match whole() {
                Ok(Some(raw)) => return Ok(raw),
                Ok(None) => {}
                // Other programs' sweeps know nothing of it.
                Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Input) => {}
                Err(fault) => return Err(fault),
            }
        }
        self.read(self.entry.digest(), &self.entry.descriptor.media_type)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        self.read(&descriptor.digest, &descriptor.media_type)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        let mut file = self.store.open_blob(&blob.digest, self.settle)?;
        if from > 0 {
            file.seek(SeekFrom::Start(from)).explain(|| format!("read blob {}", blob.digest))?;
        }
        Ok(Box::new(file))
    }

    fn names(&self) -> Vec<Reference> {
        self.entry.reference().into_iter().collect()
    }
}
