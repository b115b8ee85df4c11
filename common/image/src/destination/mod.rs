//! Where images are written to.

mod archive;
mod directory;
mod files;
mod layout;
mod remote;
mod stored;

pub use archive::ArchiveDestination;
pub use directory::DirectoryDestination;
pub use layout::LayoutDestination;
pub use remote::RegistryDestination;
pub use stored::StoreDestination;

use crate::{Location, Raw, Source};
use fault::{Fault, Result};
use oci::{Descriptor, Platform, Reference};
use std::io::{self, Read};
use store::{Settle, Store};

/// Bytes handed on at a time.
const CHUNK: usize = 128 << 10;

/// A place for an image. Nothing of it is visible under its name before [`Destination::finish`].
pub trait Destination: Sync {
    /// Whether the blob is there already.
    fn has(&self, blob: &Descriptor) -> Result<bool>;

    /// Writes a blob, its size and digest checked.
    fn put(&self, blob: &Descriptor, source: &dyn Source, progress: &mut dyn FnMut(u64)) -> Result<()>;

    /// Writes a manifest or index whose parts are there.
    fn put_manifest(&self, raw: &Raw, place: Place<'_>) -> Result<()>;

    /// How many blobs it takes at once.
    fn lanes(&self) -> usize {
        usize::MAX
    }

    /// Whether a blob can be put again that was wrong: not where it is in the middle of a stream by then.
    fn can_put_again(&self) -> bool {
        true
    }

    /// The image is complete.
    fn finish(&self) -> Result<()> {
        Ok(())
    }

    /// What the image is called there, if that is a reference.
    fn name(&self) -> Option<String> {
        None
    }
}

/// What a manifest is to the image.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The image itself.
    Root {
        /// The index it was chosen from.
        index: Option<&'a Raw>,
    },
    /// One of an index, for a platform.
    Child(Option<&'a Platform>),
}

/// Opens a location for writing. `names` is what the source calls the image.
///
/// # Errors
/// [`fault::Kind::Usage`] when there is no name where one is needed; what the location's own kind of failure is.
pub fn create<'a>(
    location: &Location,
    names: &[Reference],
    store: &'a Store,
    settle: &'a Settle,
    client: &registry::Client,
) -> Result<Box<dyn Destination + 'a>> {
    Ok(match location {
        Location::Registry(reference) => Box::new(RegistryDestination::new(client, reference)?),
        Location::Store(name) => {
            let reference = match (name.as_str(), names.first()) {
                ("", None) => return Err(Fault::usage("the image has no name, and none is given")),
                ("", Some(name)) => name.clone(),
                (name, _) => Reference::parse(name)?,
            };
            Box::new(StoreDestination::new(store, settle, &reference))
        }
        Location::Layout(dir, name) => Box::new(LayoutDestination::create(dir, name.as_deref(), names)?),
        Location::LayoutArchive(file, name) | Location::DockerArchive(file, name) => {
            Box::new(ArchiveDestination::create(file, name.as_deref(), names)?)
        }
        Location::Directory(dir) => Box::new(DirectoryDestination::create(dir)?),
    })
}

/// Hands on a blob's bytes, counted and hashed.
///
/// # Errors
/// [`fault::Kind::Input`] when they are not what the descriptor says.
fn pass(
    blob: &Descriptor,
    source: &dyn Source,
    progress: &mut dyn FnMut(u64),
    mut to: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut reader = source.open(blob, 0)?;
    let mut hasher = oci::digest::Hasher::new(blob.digest.algorithm());
    let mut chunk = vec![0; CHUNK];
    let mut passed = 0;
    loop {
        let length = match reader.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(unreadable(blob, error)),
        };
        passed += length as u64;
        if passed > blob.size {
            break;
        }
        let piece = chunk.get(..length).unwrap_or_default();
        hasher.update(piece);
        to(piece)?;
        progress(passed);
    }
    if passed != blob.size {
        return Err(Fault::input(format!(
            "blob {} has {} bytes where {} were announced",
            blob.digest,
            if passed > blob.size { "more".to_owned() } else { passed.to_string() },
            blob.size
        )));
    }
    let actual = hasher.finish();
    if actual != blob.digest {
        return Err(Fault::input(format!("blob {} has the digest {actual}", blob.digest)));
    }
    Ok(())
}

/// A registry hands its own fault up inside the I/O error.
fn unreadable(blob: &Descriptor, error: io::Error) -> Fault {
    match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) => {
            Fault::new(fault::Kind::of_io(&error), format!("read blob {}", blob.digest)).because(error)
        }
    }
}
