//! `dir:DIR`, see [`crate::source::DirectorySource`].

use super::files::{Pending, has_size, make_dirs, write_small};
use super::{Destination, Place, pass};
use crate::source::file_name;
use crate::{Raw, Source};
use fault::{Fault, Result};
use oci::Descriptor;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// What skopeo writes and wants to see.
const VERSION: &str = "Directory Transport Version: 1.1\n";

#[derive(Debug)]
pub struct DirectoryDestination {
    dir: PathBuf,
    root: Mutex<Option<Vec<u8>>>,
}

impl DirectoryDestination {
    /// # Errors
    /// [`fault::Kind::Conflict`] for a directory with something else in it.
    pub fn create(dir: &Path) -> Result<DirectoryDestination> {
        make_dirs(dir)?;
        let own = std::fs::read_to_string(dir.join("version")).is_ok_and(|text| text == VERSION);
        if !own && std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Fault::conflict(format!("{} is not empty", dir.display()))
                .hint("give a new directory, or one an image was copied to before"));
        }
        write_small(&dir.join("version"), VERSION.as_bytes())?;
        Ok(DirectoryDestination { dir: dir.to_owned(), root: Mutex::default() })
    }
}

impl Destination for DirectoryDestination {
    fn has(&self, blob: &Descriptor) -> Result<bool> {
        // Complete since it has its name.
        Ok(has_size(&self.dir.join(file_name(&blob.digest)), blob.size))
    }

    fn put(&self, blob: &Descriptor, source: &dyn Source, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let mut file = Pending::new(&self.dir.join(file_name(&blob.digest)))?;
        pass(blob, source, progress, |piece| file.write(piece))?;
        file.commit()
    }

    fn put_manifest(&self, raw: &Raw, place: Place<'_>) -> Result<()> {
        if let Place::Root { .. } = place {
            crate::lock(&self.root).replace(raw.bytes.clone());
            return Ok(());
        }
        write_small(&self.dir.join(format!("{}.manifest.json", file_name(&raw.digest))), &raw.bytes)
    }

    fn finish(&self) -> Result<()> {
        match crate::lock(&self.root).as_ref() {
            Some(bytes) => write_small(&self.dir.join("manifest.json"), bytes),
            None => Ok(()),
        }
    }
}
