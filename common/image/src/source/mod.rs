//! Where images are read from.

mod archive;
mod directory;
mod layout;
mod remote;
mod stored;

pub use archive::ArchiveSource;
pub use directory::{DirectorySource, file_name};
pub use layout::{LayoutSource, MAX_INDEX_BYTES};
pub use remote::RegistrySource;
pub use stored::StoreSource;

use crate::{Location, Raw};
use fault::{Explain, Fault, Result};
use oci::manifest::{ANNOTATION_REF_NAME, MAX_MANIFEST_BYTES};
use oci::{Descriptor, Digest, Index, Reference};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use store::{Settle, Store};

/// One image, or one for each of several platforms, somewhere. What it hands out is not checked yet but for manifests: who
/// takes a blob computes its digest anyway.
pub trait Source: Sync {
    /// The manifest or index the name stands for.
    fn root(&self) -> Result<Raw>;

    /// A manifest or index that another one points to, its digest checked.
    fn manifest(&self, descriptor: &Descriptor) -> Result<Raw>;

    /// A blob's bytes from `from` on.
    fn open(&self, blob: &Descriptor, from: u64) -> Result<Box<dyn Read + Send + '_>>;

    /// The repository it is in, if it is a registry's: blobs can be mounted from there.
    fn repository(&self) -> Option<&Reference> {
        None
    }

    /// A blob that came was wrong: sees to it that the next one does not come out of a mirror or a cache. False where there is
    /// no other way to it.
    fn ask_anew(&self) -> bool {
        false
    }

    /// What it is called, where it has names.
    fn names(&self) -> Vec<Reference> {
        Vec::new()
    }
}

/// Opens a location for reading.
///
/// # Errors
/// [`fault::Kind::NotFound`] when there is nothing, or nothing of that name; what the location's own kind of failure is.
pub fn open<'a>(
    location: &Location,
    store: &'a Store,
    settle: &'a Settle,
    client: &registry::Client,
) -> Result<Box<dyn Source + 'a>> {
    Ok(match location {
        Location::Registry(reference) => Box::new(RegistrySource::new(client, reference)),
        Location::Store(name) => Box::new(StoreSource::open(store, settle, name)?),
        Location::Layout(dir, name) => Box::new(LayoutSource::open(dir, name.as_deref())?),
        Location::LayoutArchive(file, name) | Location::DockerArchive(file, name) => {
            let prefer_docker = matches!(location, Location::DockerArchive(..));
            Box::new(ArchiveSource::open(file, name.as_deref(), prefer_docker)?)
        }
        Location::Directory(dir) => Box::new(DirectorySource::open(dir)?),
    })
}

/// The entry of a layout's `index.json` that a name means; without a name the only one.
fn choose<'a>(index: &'a Index, name: Option<&str>) -> Result<&'a Descriptor> {
    let called = |entry: &Descriptor| entry.annotation(ANNOTATION_REF_NAME).map(str::to_owned);
    let names: Vec<String> = index.manifests.iter().filter_map(called).collect();
    let hint = |fault: Fault| {
        if names.is_empty() { fault } else { fault.hint(format!("there is {}", names.join(", "))) }
    };
    let Some(name) = name else {
        let mut entries = index.manifests.iter();
        let first = entries.next().ok_or_else(|| Fault::not_found("there is no image in it"))?;
        if entries.any(|other| other.digest != first.digest) {
            return Err(hint(Fault::usage("it has several images, and none is named")));
        }
        return Ok(first);
    };
    let full = Reference::parse(name).ok().map(|name| name.stored_name());
    let exact = |entry: &&Descriptor| called(entry).as_deref() == Some(name);
    let as_reference = |entry: &&Descriptor| called(entry).is_some_and(|own| Some(own) == full);
    let by_digest = |entry: &&Descriptor| entry.digest.as_str() == name;
    let entries = || index.manifests.iter();
    entries()
        .find(exact)
        .or_else(|| entries().find(as_reference))
        .or_else(|| entries().find(by_digest))
        .ok_or_else(|| hint(Fault::not_found(format!("it has no image {name}"))))
}

/// The name an entry of a layout has, if it is a full one.
fn full_name(entry: &Descriptor) -> Option<Reference> {
    let name = entry.annotation(ANNOTATION_REF_NAME)?;
    Reference::parse(name).ok().filter(|_| name.contains([':', '/']))
}

/// Checks that bytes are what a descriptor says.
fn checked(bytes: Vec<u8>, descriptor: &Descriptor) -> Result<Raw> {
    let mut hasher = oci::digest::Hasher::new(descriptor.digest.algorithm());
    hasher.update(&bytes);
    let actual = hasher.finish();
    if actual != descriptor.digest {
        return Err(Fault::input(format!("manifest {} has the digest {actual}", descriptor.digest)));
    }
    if bytes.len() as u64 != descriptor.size {
        return Err(Fault::input(format!(
            "manifest {} has {} bytes where {} were announced",
            descriptor.digest,
            bytes.len(),
            descriptor.size
        )));
    }
    Raw::new(bytes, descriptor.digest.clone(), Some(&descriptor.media_type))
}

/// A regular file of somebody else's: nothing that blocks or leads elsewhere.
fn open_regular(path: &Path) -> Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let open = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    let file = open.map_err(|error| {
        if error.kind() == std::io::ErrorKind::NotFound {
            return Fault::not_found(format!("{} is not there", path.display()));
        }
        Err::<(), _>(error).explain(|| format!("open {}", path.display())).unwrap_err()
    })?;
    if !file.metadata().is_ok_and(|status| status.is_file()) {
        return Err(Fault::input(format!("{} is not a regular file", path.display())));
    }
    Ok(file)
}

/// The whole of a small file.
fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(limit + 1)
        .read_to_end(&mut bytes)
        .explain(|| format!("read {}", path.display()))?;
    if bytes.len() as u64 > limit {
        return Err(Fault::input(format!("{} is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

fn read_manifest(path: &Path, descriptor: &Descriptor) -> Result<Raw> {
    checked(read_small(path, MAX_MANIFEST_BYTES)?, descriptor)
}

fn open_from(path: &Path, from: u64) -> Result<File> {
    use std::io::{Seek, SeekFrom};
    let mut file = open_regular(path)?;
    file.seek(SeekFrom::Start(from)).explain(|| format!("read {}", path.display()))?;
    Ok(file)
}

fn digest_of(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}
