//! `docker://REF`: a repository of a registry.

use super::{Destination, Place};
use crate::{Raw, Source};
use fault::{Fault, Result};
use oci::{Descriptor, Reference};
use registry::{Client, Mount, Repository};
use std::io::Read;

#[derive(Debug)]
pub struct RegistryDestination {
    repository: Repository,
    reference: Reference,
}

impl RegistryDestination {
    pub fn new(client: &Client, reference: &Reference) -> Result<RegistryDestination> {
        let repository = client.repository(reference).for_writing();
        Ok(RegistryDestination { repository, reference: reference.clone() })
    }
}

impl Destination for RegistryDestination {
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        self.repository.has_blob(blob)
    }

    fn put(&self, blob: &Descriptor, source: &dyn Source, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let mut session = None;
        // From another repository of the same registry it need not pass through here.
        if let Some(from) = source.repository()
            && from.domain() == self.reference.domain()
            && from.path() != self.reference.path()
        {
            match self.repository.mount_blob(&blob.digest, from.path())? {
                Mount::Done => {
                    progress(blob.size);
                    return Ok(());
                }
                Mount::Open(open) => session = Some(open),
                Mount::Refused => {}
            }
        }
        let mut open = |from: u64| -> Result<Box<dyn Read + Send + '_>> { source.open(blob, from) };
        self.repository.put_blob(blob, session, &mut open, progress)
    }

    fn put_manifest(&self, raw: &Raw, place: Place<'_>) -> Result<()> {
        let identifier = match place {
            Place::Root { .. } => self.reference.identifier(),
            Place::Child(_) => raw.digest.as_str(),
        };
        if matches!(place, Place::Root { .. })
            && let Some(digest) = self.reference.digest()
            && *digest != raw.digest
        {
            return Err(Fault::input(format!("the image's digest is {}, not the destination's", raw.digest)));
        }
        self.repository.put_manifest(&raw.bytes, &raw.media_type, identifier).map(drop)
    }

    fn name(&self) -> Option<String> {
        Some(self.reference.stored_name())
    }
}
