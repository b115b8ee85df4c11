//! `flock` on the object it guards: held briefly, never across the network.

use fault::{Explain, Result};
use rustix::fs::{FlockOperation, flock};
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
