//! `dir:DIR`: skopeo's own form (containers-transports(5)): `manifest.json`, `<hex>.manifest.json` for each manifest of an
//! index, every blob in a file named by the digits of its digest.

use super::{Source, digest_of, open_from, read_manifest, read_small};
use crate::Raw;
use fault::{Fault, Result};
use oci::manifest::MAX_MANIFEST_BYTES;
use oci::{Descriptor, Digest};
use std::io::Read;
use std::path::{Path, PathBuf};

#[derive(Debug)]
pub struct DirectorySource {
    dir: PathBuf,
}

impl DirectorySource {
    pub fn open(dir: &Path) -> Result<DirectorySource> {
        if !dir.join("manifest.json").exists() {
            return Err(Fault::not_found(format!("{} has no manifest.json", dir.display())));
        }
        Ok(DirectorySource { dir: dir.to_owned() })
    }
}

/// A blob's file name.
pub fn file_name(digest: &Digest) -> String {
    match digest.algorithm().name() {
        "sha256" => digest.hex().to_owned(),
        other => format!("{other}-{}", digest.hex()),
    }
}

impl Source for DirectorySource {
    fn root(&self) -> Result<Raw> {
        let bytes = read_small(&self.dir.join("manifest.json"), MAX_MANIFEST_BYTES)?;
        let digest = digest_of(&bytes);
        Raw::new(bytes, digest, None)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        let name = format!("{}.manifest.json", file_name(&descriptor.digest));
        read_manifest(&self.dir.join(name), descriptor)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(open_from(&self.dir.join(file_name(&blob.digest)), from)?))
    }
}
