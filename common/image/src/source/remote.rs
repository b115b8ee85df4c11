//! `docker://REF`: a repository of a registry.

use super::Source;
use crate::Raw;
use fault::{Fault, Result};
use oci::{Descriptor, Reference};
use registry::{Client, Fetched, Repository};
use std::io::Read;

#[derive(Debug)]
pub struct RegistrySource {
    repository: Repository,
    reference: Reference,
}

impl RegistrySource {
    pub fn new(client: &Client, reference: &Reference) -> RegistrySource {
        RegistrySource { repository: client.repository(reference), reference: reference.clone() }
    }
}

fn raw(fetched: Fetched) -> Result<Raw> {
    Raw::new(fetched.bytes, fetched.digest, fetched.media_type.as_deref())
}

impl Source for RegistrySource {
    fn root(&self) -> Result<Raw> {
        raw(self.repository.manifest(self.reference.identifier())?)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        let fetched = self.repository.manifest(descriptor.digest.as_str())?;
        if fetched.bytes.len() as u64 != descriptor.size {
            return Err(Fault::input(format!(
                "manifest {} has {} bytes where {} were announced",
                descriptor.digest,
                fetched.bytes.len(),
                descriptor.size
            )));
        }
        raw(fetched)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(self.repository.open_blob_range(blob, from)?))
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.reference)
    }

    fn ask_anew(&self) -> bool {
        self.repository.ask_anew();
        true
    }

    fn names(&self) -> Vec<Reference> {
        vec![self.reference.clone()]
    }
}
