//! `flock` on the object it guards: held briefly, never across the network but for downloads (`partial/`).

use fault::{Explain, Fault, Kind, Result};
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Let go when dropped, or when the process ends.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Waits for it. The file is made if need be; a directory that exists can be locked too.
    pub fn exclusive(path: &Path) -> Result<Lock> {
        let file = open(path)?;
        flock(&file, FlockOperation::LockExclusive).explain(|| format!("lock {}", path.display()))?;
        Ok(Lock(file))
    }

    /// `None` if somebody else holds it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Lock>> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(std::io::Error::from(error)).explain(|| format!("lock {}", path.display())),
        }
    }

    /// Waits for the lock of a directory, and makes nothing if there is none: not found.
    pub fn directory(path: &Path) -> Result<Lock> {
        let file = open_directory(path)?;
        flock(&file, FlockOperation::LockExclusive).explain(|| format!("lock {}", path.display()))?;
        Ok(Lock(file))
    }

    /// `None` if somebody else holds it; not found if there is no such directory.
    pub fn try_directory(path: &Path) -> Result<Option<Lock>> {
        let file = open_directory(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(std::io::Error::from(error)).explain(|| format!("lock {}", path.display())),
        }
    }

    /// Waits until nobody holds the directory's lock alone, and then shares it; not found if there is no such directory.
    pub fn shared_directory(path: &Path) -> Result<Lock> {
        let file = open_directory(path)?;
        flock(&file, FlockOperation::LockShared).explain(|| format!("lock {}", path.display()))?;
        Ok(Lock(file))
    }

    /// Whether somebody holds it. A file that is not there is held by nobody.
    pub fn is_held(path: &Path) -> bool {
        let Ok(file) = File::open(path) else { return false };
        flock(&file, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// The open file, to hand the lock to a child process.
    pub fn file(&self) -> &File {
        &self.0
    }
}

fn open(path: &Path) -> Result<File> {
    if path.is_dir() {
        return File::open(path).explain(|| format!("open {}", path.display()));
    }
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .explain(|| format!("open {}", path.display()))
}

fn open_directory(path: &Path) -> Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits() as i32).open(path).map_err(|error| {
        let kind =
            if error.kind() == std::io::ErrorKind::NotFound { Kind::NotFound } else { Kind::of_io(&error) };
        Fault::new(kind, format!("open {}", path.display())).because(error)
    })
}
