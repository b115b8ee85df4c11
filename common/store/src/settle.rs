//! Which objects (blobs, `layer.json` of layers) can be trusted, and how they come to be trusted for good
//! (ARCHITECTURE, "Trusting blobs and layers after a crash").
//!
//! To commit an object: write it in a [`Scratch`](crate::Scratch), [`Settle::mark`] it, rename it to its place,
//! and hand the [`Settle`] to [`Settle::finish`] when the tool's result is printed.

use crate::{Store, make_dirs};
use fault::{Explain, Fault, Result};
use std::ffi::CString;
use std::fs::{File, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Permission bits of an object that is on disk for certain.
const SETTLED: u32 = 0o444;
/// Permission bits of an object that may not be.
pub const FRESH: u32 = 0o644;

/// The objects this process has committed and nobody has yet made durable. Shared between threads.
#[derive(Debug, Default)]
pub struct Settle {
    objects: Mutex<Vec<sys::background::Finished>>,
}

impl Settle {
    pub fn new() -> Settle {
        Settle::default()
    }

    /// Lets the complete file `unfinished` be trusted until the next boot once it is renamed to `object`. To be
    /// called before the rename: a marker without an object is harmless, an object without one is work.
    pub fn mark(&self, store: &Store, unfinished: &File, object: &Path) -> Result<()> {
        let status = unfinished.metadata().explain(|| format!("look at {}", object.display()))?;
        let marker = store.marker(object, &status)?;
        let made = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&marker);
        if made.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            make_dirs(marker.parent().unwrap_or(&marker))?;
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&marker)
        } else {
            made
        }
        .explain(|| format!("mark {} as complete", object.display()))?;
        let finished = sys::background::Finished {
            path: c_string(object)?,
            marker: c_string(&marker)?,
            device: status.dev(),
            inode: status.ino(),
            modified: (status.mtime(), status.mtime_nsec()),
        };
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).push(finished);
        Ok(())
    }

    /// Starts the detached process that makes everything marked durable. Never waits for a disk. That it cannot be
    /// started is no failure: the objects are trusted until the next boot, then checked again.
    pub fn finish(self) {
        let objects = self.objects.into_inner().unwrap_or_else(PoisonError::into_inner);
        let _ = sys::background::settle(&objects);
    }
}

impl Store {
    /// Whether the object's content can be used unread: it is durable, or was completed since boot.
    pub fn is_trusted(&self, object: &Path, status: &Metadata) -> bool {
        if status.mode() & 0o777 == SETTLED {
            return true;
        }
        self.marker(object, status).is_ok_and(|marker| marker.symlink_metadata().is_ok())
    }

    /// Named after the object's path below the root, its inode and when it was last written: neither another root that
    /// shares `$STAVES_RUN` nor a file another program puts in the object's place finds a marker that is not its own.
    /// The time because file systems hand out the inode of a removed file again at once.
    fn marker(&self, object: &Path, status: &Metadata) -> Result<PathBuf> {
        let below = object.strip_prefix(self.root()).unwrap_or(object);
        let name = below.to_string_lossy().replace('/', "-");
        let directory = self.run().join(format!("fresh-{}", boot_id()?));
        let written = (status.mtime(), status.mtime_nsec());
        Ok(directory.join(format!(
            "{name}.{:x}-{:x}-{:x}-{:x}",
            status.dev(),
            status.ino(),
            written.0,
            written.1
        )))
    }
}

/// The kernel's name for this boot (random(4), `/proc/sys/kernel/random/boot_id`).
pub fn boot_id() -> Result<&'static str> {
    static ID: OnceLock<String> = OnceLock::new();
    if let Some(id) = ID.get() {
        return Ok(id);
    }
    let path = "/proc/sys/kernel/random/boot_id";
    let id = std::fs::read_to_string(path).explain(|| format!("read {path}"))?;
    Ok(ID.get_or_init(|| id.trim().to_owned()))
}

fn c_string(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Fault::failed(format!("the path {} has a NUL byte in it", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_object_is_trusted_by_its_marker_then_by_its_mode() {
        let dir = std::env::temp_dir().join(format!("store-settle-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let object = store.root().join("layers/sha256-00/layer.json");
        make_dirs(object.parent().unwrap()).unwrap();
        std::fs::write(&object, b"{}").unwrap();
        std::fs::set_permissions(&object, std::fs::Permissions::from_mode(FRESH)).unwrap();
        let trusted = || store.is_trusted(&object, &std::fs::metadata(&object).unwrap());
        assert!(!trusted());
        let settle = Settle::new();
        settle.mark(&store, &File::open(&object).unwrap(), &object).unwrap();
        assert!(trusted());
        settle.finish();
        let marker = store.marker(&object, &std::fs::metadata(&object).unwrap()).unwrap();
        assert!(marker.file_name().unwrap().len() < 255);
        for _ in 0..3000 {
            if !marker.exists() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(!marker.exists() && trusted());
        // Another program's file under the same name.
        std::fs::write(dir.join("other"), b"{ }").unwrap();
        std::fs::rename(dir.join("other"), &object).unwrap();
        assert!(!trusted());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
