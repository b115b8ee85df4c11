//! From an archive's stream into the store.

use crate::archive::inflate::inflated;
use crate::archive::{ArchivedImage, Contents, Keeper, blob_path, images};
use fault::{Fault, Result};
use oci::{Descriptor, Digest, Platform, Reference};
use std::io::BufRead;
use store::{BlobWriter, NewImage, Settle, Store, UnnamedBlob};

/// An image that is in the store now.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub image: record::Image,
    /// Digest of the configuration, docker's image id.
    pub id: Digest,
}

/// Loads archives into a store.
pub struct Loader<'a> {
    pub store: &'a Store,
    pub settle: &'a Settle,
    pub platform: &'a Platform,
    /// Told of every member: its path and bytes so far.
    pub progress: &'a mut dyn FnMut(&str, u64),
}

impl Loader<'_> {
    /// Reads an archive to its end, however it is packed; its blobs are in the store then. The images are given names by
    /// [`Loader::list`].
    ///
    /// # Errors
    /// [`fault::Kind::Input`] when it is no archive of images. Blobs that came before a failure stay until a sweep.
    pub fn read(&mut self, input: impl BufRead) -> Result<Vec<Result<ArchivedImage>>> {
        let mut keeper = IntoStore {
            store: self.store,
            settle: self.settle,
            writing: None,
            progress: &mut *self.progress,
            path: String::new(),
        };
        let contents = Contents::read(inflated(input)?, &mut keeper)?;
        let (store, settle) = (self.store, self.settle);
        let found = images(&contents, self.platform, &mut |blob: &Descriptor| {
            store.has_blob(&blob.digest, Some(blob.size), settle)
        })?;
        // Docker's configurations are no blobs by their name.
        for image in found.iter().flatten() {
            let config = &image.manifest.config;
            if !store.has_blob(&config.digest, Some(config.size), settle)? {
                self.keep_config(&contents, config)?;
            }
        }
        Ok(found)
    }

    fn keep_config(&self, contents: &Contents, config: &Descriptor) -> Result<()> {
        let known = contents
            .documents()
            .find(|bytes| bytes.len() as u64 == config.size && Digest::of(bytes) == config.digest);
        match known {
            Some(bytes) => self.store.put_blob_as(&config.digest, bytes, self.settle),
            None => Err(Fault::input(format!("{} is not in the archive", blob_path(&config.digest)))),
        }
    }

    /// Puts an image that was read into the index, under its names or the one given; once for each of them.
    ///
    /// # Errors
    /// [`fault::Kind::NotFound`] when its blobs were swept away meanwhile.
    pub fn list(&self, image: &ArchivedImage, name: Option<&Reference>) -> Result<Vec<Loaded>> {
        let store = self.store;
        let manifest = &image.manifest;
        if let Some(index) = &image.index {
            store.put_blob_as(&index.digest, &index.bytes, self.settle)?;
        }
        let config = store.read_config(manifest)?;
        let index_digest = image.index.as_ref().map(|index| &index.digest);
        let names: Vec<Option<&Reference>> = match name {
            Some(name) => vec![Some(name)],
            None if image.names.is_empty() => vec![None],
            None => image.names.iter().map(Some).collect(),
        };
        let mut loaded = Vec::with_capacity(names.len());
        for name in names {
            let new = NewImage {
                manifest: &image.text.bytes,
                media_type: Some(&image.text.media_type),
                config: None,
                name,
                index_digest,
            };
            store.put_image(&new, self.settle)?;
            let called = name.map_or_else(|| image.text.digest.to_string(), Reference::stored_name);
            let record =
                store::index::to_record(&called, &image.text.digest, index_digest, manifest, config.clone())?;
            loaded.push(Loaded { image: record, id: manifest.config.digest.clone() });
        }
        Ok(loaded)
    }
}

struct IntoStore<'a> {
    store: &'a Store,
    settle: &'a Settle,
    writing: Option<Writing>,
    progress: &'a mut dyn FnMut(&str, u64),
    path: String,
}

enum Writing {
    Known(Box<BlobWriter>, Digest),
    Unknown(Box<UnnamedBlob>),
}

impl Keeper for IntoStore<'_> {
    fn has(&mut self, digest: &Digest, size: u64, _: u64) -> Result<bool> {
        self.store.has_blob(digest, Some(size), self.settle)
    }

    fn begin(&mut self, path: &str, digest: Option<&Digest>, size: u64, _: u64) -> Result<()> {
        self.path.clear();
        self.path.push_str(path);
        self.writing = Some(match digest {
            Some(digest) => Writing::Known(Box::new(self.store.blob_writer(digest, size)?), digest.clone()),
            None => Writing::Unknown(Box::new(self.store.unnamed_blob()?)),
        });
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = match &mut self.writing {
            Some(Writing::Known(writer, _)) => {
                writer.write(bytes)?;
                writer.written()
            }
            Some(Writing::Unknown(writer)) => {
                writer.write(bytes)?;
                writer.written()
            }
            None => return Err(Fault::failed("no member has begun")),
        };
        (self.progress)(&self.path, written);
        Ok(())
    }

    fn end(&mut self) -> Result<Digest> {
        match self.writing.take() {
            Some(Writing::Known(writer, digest)) => writer.commit(self.settle).map(|()| digest),
            Some(Writing::Unknown(writer)) => writer.commit(self.settle).map(|(digest, _)| digest),
            None => Err(Fault::failed("no member has begun")),
        }
    }
}
