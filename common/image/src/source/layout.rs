//! `oci:DIR[:NAME]`: an OCI image layout (image spec, image-layout.md).

use super::{Source, choose, full_name, open_from, read_manifest, read_small};
use crate::Raw;
use crate::archive::blob_path;
use fault::{Fault, Result};
use oci::manifest::{Document, MAX_MANIFEST_BYTES, media_type};
use oci::{Descriptor, Digest, Reference};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Longest `index.json` that is read.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

#[derive(Debug)]
pub struct LayoutSource {
    dir: PathBuf,
    entry: Descriptor,
}

impl LayoutSource {
    pub fn open(dir: &Path, name: Option<&str>) -> Result<LayoutSource> {
        let path = dir.join("index.json");
        let text = read_small(&path, MAX_INDEX_BYTES).map_err(|fault| {
            if fault.kind() == fault::Kind::NotFound {
                return Fault::not_found(format!("{} is no image layout", dir.display())).because(fault);
            }
            fault
        })?;
        match Document::parse(&text, Some(media_type::OCI_INDEX))? {
            Document::Index(index) => {
                Ok(LayoutSource { dir: dir.to_owned(), entry: choose(&index, name)?.clone() })
            }
            Document::Manifest(_) => Err(Fault::input(format!("{} is not an index", path.display()))),
        }
    }
}

impl LayoutSource {
    /// The manifest or index of this digest, whether or not `index.json` lists it.
    ///
    /// # Errors
    /// [`fault::Kind::NotFound`] when there is none.
    pub fn of_digest(dir: &Path, digest: &Digest) -> Result<LayoutSource> {
        let path = dir.join(blob_path(digest));
        let bytes = read_small(&path, MAX_MANIFEST_BYTES)?;
        let entry = Descriptor {
            media_type: String::new(),
            digest: digest.clone(),
            size: bytes.len() as u64,
            platform: None,
            annotations: None,
            urls: None,
        };
        Ok(LayoutSource { dir: dir.to_owned(), entry })
    }
}

impl Source for LayoutSource {
    fn root(&self) -> Result<Raw> {
        self.manifest(&self.entry)
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        read_manifest(&self.dir.join(blob_path(&descriptor.digest)), descriptor)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        Ok(Box::new(open_from(&self.dir.join(blob_path(&blob.digest)), from)?))
    }

    fn names(&self) -> Vec<Reference> {
        full_name(&self.entry).into_iter().collect()
    }
}
