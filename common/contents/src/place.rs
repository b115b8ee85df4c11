//! Where an image is that a tool's user names: in the store, or in a place of others, where it stays.

use crate::source::{InStore, Source, check_readable};
use fault::{Explain, Fault, Kind, Result};
use image::{Location, Raw, source};
use oci::digest::Hasher;
use oci::manifest::Document;
use oci::{Descriptor, Digest, ImageConfig, Manifest, Platform};
use record::{Image, Layer};
use registry::Client;
use serde_json::{Value, json};
use std::io::{self, Read};
use store::{Entry, Settle, Store, Subject};

/// Where images are looked for, and which of several.
#[derive(Debug)]
pub struct Places {
    store: Store,
    settle: Settle,
    client: Client,
    platform: Option<Platform>,
}

impl Places {
    /// `platform` is what the user asked for, `OS/ARCH[/VARIANT]`.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a platform that is none.
    pub fn new(client: Client, platform: Option<&str>) -> Result<Places> {
        let platform = platform.map(Platform::parse).transpose()?;
        Ok(Places { store: Store::from_env()?, settle: Settle::new(), client, platform })
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The one asked for.
    pub fn platform(&self) -> Option<&Platform> {
        self.platform.as_ref()
    }

    /// Finds what a subject means: `docker://REF`, `oci:DIR[:NAME]`, `oci-archive:FILE[:NAME]`, `docker-archive:FILE[:REF]`, `dir:DIR`;
    /// anything else, and a record, is an image of the store. Only its manifest or index is read.
    ///
    /// # Errors
    /// [`Kind::NotFound`], [`Kind::Conflict`] when a beginning fits several; what the place's own failures are.
    pub fn find(&self, subject: &Subject) -> Result<Found<'_>> {
        let location = match subject {
            Subject::Name(text) => Location::parse(text)?,
            Subject::Record(_) => return self.find_in_store(subject),
        };
        if let Location::Store(name) = location {
            return self.find_in_store(&Subject::Name(name));
        }
        let called = location.to_string();
        let find = || -> Result<Found<'_>> {
            let source = source::open(&location, &self.store, &self.settle, &self.client)?;
            let root = source.root()?;
            let name = source.names().first().map_or_else(|| called.clone(), oci::Reference::stored_name);
            Ok(Found { name, location: Some(called.clone()), entry: None, root, source })
        };
        find().map_err(|fault| fault.on(&called))
    }

    fn find_in_store(&self, subject: &Subject) -> Result<Found<'_>> {
        let source = source::StoreSource::of(&self.store, &self.settle, subject)?;
        let entry = source.entry().clone();
        let name = entry.name().map_or_else(|| entry.digest().to_string(), str::to_owned);
        // What was chosen when it was pulled, unless something else is asked for.
        let root = match self.platform {
            Some(_) => image::Source::root(&source),
            None => image::Source::manifest(&source, &entry.descriptor),
        };
        let root = root.map_err(|fault| fault.on(&name))?;
        Ok(Found { name, location: None, entry: Some(entry), root, source: Box::new(source) })
    }

    /// The image for the platform asked for or this machine's, ready for its layers to be read.
    ///
    /// # Errors
    /// As [`Places::find`] and [`Found::choose`].
    pub fn open(&self, subject: &Subject) -> Result<Opened<'_>> {
        let found = self.find(subject)?;
        let chosen = found.choose(self.platform.as_ref(), false)?;
        let manifest = serde_json::from_slice(&chosen.raw.bytes)
            .explain_as(Kind::Input, || "malformed manifest".into())?;
        let source: Box<dyn Source + '_> = match found.location {
            None => Box::new(InStore::new(&self.store)),
            Some(location) => {
                Box::new(InPlace { source: found.source, is_far: location.starts_with("docker://") })
            }
        };
        Ok(Opened { image: chosen.image, manifest, source })
    }
}

/// An image and where its layers are.
pub struct Opened<'a> {
    pub image: Image,
    /// The manifest, whole.
    pub manifest: Value,
    pub source: Box<dyn Source + 'a>,
}

/// An image, or several under one name, of which the manifest or index was read and nothing else.
pub struct Found<'a> {
    /// The full reference where it has one, else its digest in the store or the place as the user wrote it.
    pub name: String,
    /// The place of others it is in.
    pub location: Option<String>,
    /// Its entry in the store.
    pub entry: Option<Entry>,
    /// What the name stands for.
    pub root: Raw,
    pub source: Box<dyn image::Source + 'a>,
}

/// One image of those that were found.
pub struct Chosen {
    pub raw: Raw,
    pub manifest: Manifest,
    /// The configuration's own bytes.
    pub config: Vec<u8>,
    /// The section of the record.
    pub image: Image,
}

impl Found<'_> {
    /// The image for a platform; without one for this machine, or, with `or_any`, whatever there is if there is none for it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when it has no image for the platform, [`Kind::Input`] when it is no image or not what its descriptors say.
    pub fn choose(&self, platform: Option<&Platform>, or_any: bool) -> Result<Chosen> {
        self.try_choose(platform, or_any).map_err(|fault| fault.on(&self.name))
    }

    fn try_choose(&self, platform: Option<&Platform>, or_any: bool) -> Result<Chosen> {
        let (raw, index) = match self.root.document()? {
            Document::Manifest(_) => (self.root.clone(), None),
            Document::Index(index) => {
                let found = index.choose(platform.unwrap_or(&Platform::host()));
                let entry = match (found, index.first_image()) {
                    (Err(_), Some(first)) if or_any && platform.is_none() => first,
                    (found, _) => found?,
                };
                (self.source.manifest(entry)?, Some(&self.root.digest))
            }
        };
        let Document::Manifest(manifest) = raw.document()? else {
            return Err(Fault::input("an index in an index has no platform"));
        };
        let bytes = image::config_bytes(&*self.source, &manifest.config)?;
        let config = ImageConfig::parse(&bytes)?;
        if let Some(why) = platform.and_then(|wanted| store::index::unsuitable_platform(wanted, &config)) {
            return Err(Fault::not_found(why));
        }
        let from_index = self.entry.as_ref().and_then(Entry::index_digest);
        let index = index.or(from_index.as_ref());
        let mut image = store::index::to_record(&self.name, &raw.digest, index, &manifest, config)?;
        let layers = manifest.layers.iter().fold(0u64, |sum, layer| sum.saturating_add(layer.size));
        let size = layers.saturating_add(manifest.config.size).saturating_add(raw.bytes.len() as u64);
        let created = image.config.get("created").and_then(Value::as_str).map(str::to_owned);
        image.extra.insert("id".into(), manifest.config.digest.as_str().into());
        image.extra.insert("size".into(), size.into());
        image.extra.insert("created".into(), created.into());
        if let Some(platforms) = platforms(&self.root)? {
            image.extra.insert("platforms".into(), platforms);
        }
        if let Some(location) = &self.location {
            image.extra.insert("location".into(), location.as_str().into());
        }
        Ok(Chosen { raw, manifest, config: bytes, image })
    }
}

/// What an index lists, as the member `platforms` of a record's `image`; `None` for a manifest.
///
/// # Errors
/// [`Kind::Input`] when it is malformed.
pub fn platforms(raw: &Raw) -> Result<Option<Value>> {
    let Ok(Document::Index(index)) = raw.document() else { return Ok(None) };
    let json: Value =
        serde_json::from_slice(&raw.bytes).explain_as(Kind::Input, || "malformed index".into())?;
    let own = json.get("manifests").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let listed = index.manifests.iter().zip(own).map(|(entry, own)| {
        let mut line = json!({});
        // Its own words: features and versions are in them, too.
        if let Some(platform) = own.get("platform").and_then(Value::as_object) {
            for member in ["os", "architecture"] {
                if let Some(value) = platform.get(member) {
                    line[member] = value.clone();
                }
            }
            for (member, value) in platform.iter().filter(|(_, value)| !value.is_null()) {
                line[member] = value.clone();
            }
        }
        line["digest"] = json!(entry.digest);
        line["size"] = json!(entry.size);
        line["media_type"] = json!(entry.media_type);
        if let Some(annotations) = own.get("annotations").filter(|value| value.is_object()) {
            line["annotations"] = annotations.clone();
        }
        line
    });
    Ok(Some(listed.collect()))
}

/// Layers where others keep them. What is read is hashed, and known to be right at its end.
struct InPlace<'a> {
    source: Box<dyn image::Source + 'a>,
    is_far: bool,
}

impl Source for InPlace<'_> {
    fn open(&self, layer: &Layer) -> Result<Box<dyn Read + Send + '_>> {
        check_readable(layer)?;
        let blob = Descriptor {
            media_type: layer.media_type.clone(),
            digest: Digest::parse(&layer.digest)?,
            size: layer.size,
            platform: None,
            annotations: None,
            urls: None,
        };
        let reader = self.source.open(&blob, 0)?;
        Ok(Box::new(Checked { reader, hasher: Some(Hasher::new(blob.digest.algorithm())), blob, read: 0 }))
    }

    fn is_far(&self) -> bool {
        self.is_far
    }
}

/// Counts and hashes; the end of the blob is a failure when it is not what its descriptor says.
struct Checked<'a> {
    reader: Box<dyn Read + Send + 'a>,
    blob: Descriptor,
    /// Until the end was seen.
    hasher: Option<Hasher>,
    read: u64,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.reader.read(buffer)?;
        self.read += length as u64;
        let Descriptor { digest, size, .. } = &self.blob;
        if self.read > *size {
            return Err(io::Error::other(Fault::input(format!(
                "it is longer than the {size} bytes announced"
            ))));
        }
        if length > 0 || buffer.is_empty() {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(buffer.get(..length).unwrap_or_default());
            }
            return Ok(length);
        }
        if self.read < *size {
            let what = format!("it has {} bytes where {size} were announced", self.read);
            return Err(io::Error::other(Fault::input(what)));
        }
        if let Some(actual) = self.hasher.take().map(Hasher::finish)
            && actual != *digest
        {
            return Err(io::Error::other(Fault::input(format!("it has the digest {actual}"))));
        }
        Ok(0)
    }
}
