//! `oci-archive:FILE[:NAME]` and `docker-archive:FILE[:REF]`: a tar that can be read at any place.
//!
//! One look through it finds out where everything is. A packed one, or one that comes through a pipe, is put into a file
//! without a name first.

use super::{Source, checked, choose, full_name};
use crate::Raw;
use crate::archive::inflate::{Packing, inflated};
use crate::archive::{ArchivedImage, Contents, Keeper, blob_path};
use fault::{Explain, Fault, Kind, Result};
use oci::digest::{Algorithm, Hasher};
use oci::manifest::{Document, media_type};
use oci::{Descriptor, Digest, Reference};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

const CHUNK: usize = 128 << 10;

pub struct ArchiveSource {
    file: File,
    contents: Contents,
    places: HashMap<Digest, (u64, u64)>,
    chosen: Chosen,
}

enum Chosen {
    Entry(Box<Descriptor>),
    Made(Box<ArchivedImage>),
}

impl ArchiveSource {
    /// `prefer_docker` reads `manifest.json` even where there is an `index.json` too.
    pub fn open(path: &Path, name: Option<&str>, prefer_docker: bool) -> Result<ArchiveSource> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Fault::not_found(format!("{} is not there", path.display())));
            }
            other => other.explain(|| format!("open {}", path.display()))?,
        };
        let file = random_access(file, path)?;
        let mut places = Places::default();
        let contents = Contents::read(BufReader::with_capacity(CHUNK, &file), &mut places)?;
        let chosen = choose_in(&contents, name, prefer_docker)?;
        Ok(ArchiveSource { file, contents, places: places.found, chosen })
    }
}

fn choose_in(contents: &Contents, name: Option<&str>, prefer_docker: bool) -> Result<Chosen> {
    let index = contents.document("index.json");
    if let Some(index) = index.filter(|_| !(prefer_docker && contents.document("manifest.json").is_some())) {
        let document =
            Document::parse(index, Some(media_type::OCI_INDEX)).map_err(|fault| fault.on("index.json"))?;
        let Document::Index(index) = document else {
            return Err(Fault::input("index.json is a manifest, not an index"));
        };
        return Ok(Chosen::Entry(Box::new(choose(&index, name)?.clone())));
    }
    let images = crate::archive::images::dockers(contents)?;
    let wanted = name.map(Reference::parse).transpose()?;
    let mut fitting = images.into_iter().filter(|image| match (&wanted, image) {
        (Some(wanted), Ok(image)) => image.names.contains(wanted),
        (Some(_), Err(_)) => false,
        (None, _) => true,
    });
    let first = fitting.next().ok_or_else(|| match name {
        Some(name) => Fault::not_found(format!("it has no image {name}")),
        None => Fault::not_found("there is no image in it"),
    })?;
    if fitting.next().is_some() {
        return Err(Fault::usage("it has several images, and none is named"));
    }
    Ok(Chosen::Made(Box::new(first?)))
}

/// As it is, or its content in a file that vanishes with this process.
fn random_access(file: File, path: &Path) -> Result<File> {
    let says = || format!("read {}", path.display());
    let mut start = [0; 6];
    let is_file = file.metadata().explain(says)?.is_file();
    if is_file {
        let length = file.read_at(&mut start, 0).explain(says)?;
        if Packing::of(&start[..length]) == Packing::None {
            return Ok(file);
        }
    }
    let folder = std::env::temp_dir();
    let mut copy = unnamed(&folder).explain(|| format!("make a file in {}", folder.display()))?;
    let mut input = inflated(BufReader::with_capacity(CHUNK, file))?;
    io::copy(&mut input, &mut copy).map_err(|error| match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) => Fault::new(Kind::of_io(&error), says()).because(error),
    })?;
    copy.flush().explain(says)?;
    io::Seek::rewind(&mut copy).explain(says)?;
    Ok(copy)
}

fn unnamed(folder: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let flags = rustix::fs::OFlags::TMPFILE.bits() as i32;
    if let Ok(file) = options.clone().custom_flags(flags).open(folder) {
        return Ok(file);
    }
    // A file system without such files: one whose name is taken away again at once.
    let path = folder.join(format!("staves-archive-{}", std::process::id()));
    let file = options.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// Notes where blobs are. Those whose name does not promise a digest are hashed.
#[derive(Default)]
struct Places {
    found: HashMap<Digest, (u64, u64)>,
    current: Option<(Hasher, u64, u64)>,
}

impl Keeper for Places {
    fn has(&mut self, digest: &Digest, size: u64, offset: u64) -> Result<bool> {
        self.found.insert(digest.clone(), (offset, size));
        Ok(true)
    }

    fn begin(&mut self, _: &str, _: Option<&Digest>, size: u64, offset: u64) -> Result<()> {
        self.current = Some((Hasher::new(Algorithm::Sha256), size, offset));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some((hasher, ..)) = &mut self.current {
            hasher.update(bytes);
        }
        Ok(())
    }

    fn end(&mut self) -> Result<Digest> {
        let (hasher, size, offset) =
            self.current.take().ok_or_else(|| Fault::failed("no member has begun"))?;
        let digest = hasher.finish();
        self.found.insert(digest.clone(), (offset, size));
        Ok(digest)
    }
}

impl Source for ArchiveSource {
    fn root(&self) -> Result<Raw> {
        match &self.chosen {
            Chosen::Entry(entry) => self.manifest(entry),
            Chosen::Made(image) => Ok(image.text.clone()),
        }
    }

    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw> {
        let bytes = self.contents.document(&blob_path(&descriptor.digest)).ok_or_else(|| {
            Fault::not_found(format!("manifest {} is not in the archive", descriptor.digest))
        })?;
        checked(bytes.to_vec(), descriptor)
    }

    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>> {
        if let Some(&(offset, size)) = self.places.get(&blob.digest) {
            let from = from.min(size);
            return Ok(Box::new(Slice { file: &self.file, at: offset + from, left: size - from }));
        }
        // Docker's configurations have names of their own.
        let mut documents = self.contents.documents();
        let fits = |bytes: &&[u8]| bytes.len() as u64 == blob.size && Digest::of(bytes) == blob.digest;
        let bytes = documents
            .find(fits)
            .ok_or_else(|| Fault::not_found(format!("blob {} is not in the archive", blob.digest)))?;
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(bytes.len());
        Ok(Box::new(&bytes[from..]))
    }

    fn names(&self) -> Vec<Reference> {
        match &self.chosen {
            Chosen::Entry(entry) => full_name(entry).into_iter().collect(),
            Chosen::Made(image) => image.names.clone(),
        }
    }
}

/// A piece of a file, read without moving the file's own position, which threads share.
struct Slice<'a> {
    file: &'a File,
    at: u64,
    left: u64,
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += read as u64;
        self.left -= read as u64;
        Ok(read)
    }
}
