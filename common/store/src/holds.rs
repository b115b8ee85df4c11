//! `$STAVES_RUN/holds/<process>`: layers and blobs a build stands on, which sweeps leave alone as long as its process lives.
//!
//! A step that is found in the cache is of no image yet, and may lose its place in the cache while the build goes on; so may the
//! image below. A digest a line, written while the directory's lock is shared; who removes something has the lock alone.

use crate::scratch::{owner_lives, start_time};
use crate::{Lock, Store, make_dirs};
use fault::{Explain, Result};
use oci::Digest;
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// What this process holds, until it is dropped.
#[derive(Debug)]
pub struct Holds {
    directory: PathBuf,
    path: PathBuf,
    written: Mutex<Written>,
}

#[derive(Debug, Default)]
struct Written {
    file: Option<File>,
    digests: HashSet<Digest>,
}

/// Nothing is swept as long as this is there: to look whether something is here, and to hold it then. Not for long.
#[derive(Debug)]
pub struct Holding<'a> {
    holds: &'a Holds,
    _lock: Lock,
}

/// What all processes hold; nobody can hold more as long as this is there.
#[derive(Debug)]
pub(crate) struct Held {
    pub digests: HashSet<Digest>,
    _lock: Lock,
}

impl Holds {
    pub fn new(store: &Store) -> Holds {
        let pid = std::process::id();
        let started = start_time(pid as i32).unwrap_or(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let directory = store.holds();
        let path = directory.join(format!("{pid}-{started}-{number}"));
        Holds { directory, path, written: Mutex::default() }
    }

    /// # Errors
    /// When the lock cannot be had.
    pub fn share(&self) -> Result<Holding<'_>> {
        let lock = match Lock::shared_directory(&self.directory) {
            Err(fault) if fault.kind() == fault::Kind::NotFound => {
                make_dirs(&self.directory)?;
                Lock::shared_directory(&self.directory)?
            }
            other => other?,
        };
        Ok(Holding { holds: self, _lock: lock })
    }
}

impl Drop for Holds {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Holding<'_> {
    /// Holds these, too.
    ///
    /// # Errors
    /// When that cannot be written down.
    pub fn add(&self, digests: impl IntoIterator<Item = Digest>) -> Result<()> {
        let path = &self.holds.path;
        let failed = || format!("write {}", path.display());
        let mut written = self.holds.written.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<Digest> =
            digests.into_iter().filter(|digest| !written.digests.contains(digest)).collect();
        if new.is_empty() {
            return Ok(());
        }
        if written.file.is_none() {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).explain(failed)?;
            written.file = Some(file);
        }
        let text: String = new.iter().flat_map(|digest| [digest.to_string(), "\n".to_owned()]).collect();
        if let Some(file) = &mut written.file {
            file.write_all(text.as_bytes()).explain(failed)?;
        }
        written.digests.extend(new);
        Ok(())
    }
}

impl Store {
    fn holds(&self) -> PathBuf {
        self.run().join("holds")
    }

    /// Waits until nobody is about to hold something. What dead processes held is forgotten.
    pub(crate) fn held(&self) -> Result<Held> {
        let directory = self.holds();
        make_dirs(&directory)?;
        let lock = Lock::directory(&directory)?;
        let mut digests = HashSet::new();
        let entries = std::fs::read_dir(&directory).explain(|| format!("read {}", directory.display()))?;
        for entry in entries.flatten() {
            match owner_lives(&entry.file_name().to_string_lossy()) {
                Some(true) => {
                    let path = entry.path();
                    let text = match std::fs::read_to_string(&path) {
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                        other => other.explain(|| format!("read {}", path.display()))?,
                    };
                    digests.extend(text.lines().filter_map(|line| Digest::parse(line).ok()));
                }
                Some(false) => drop(std::fs::remove_file(entry.path())),
                None => {}
            }
        }
        Ok(Held { digests, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerInfo, Settle};

    fn layer(store: &Store, text: &[u8], settle: &Settle) -> (Digest, Digest) {
        let (diff_id, digest) = (Digest::of(text), store.put_blob(text, settle).unwrap());
        let info = LayerInfo {
            diff_id: diff_id.clone(),
            digest: digest.clone(),
            size: 0,
            entries: 0,
            created: "2026-01-01T00:00:00Z".into(),
            owner: "1-1".into(),
            unset: 0,
        };
        store.new_layer().unwrap().commit(&info, settle).unwrap();
        (diff_id, digest)
    }

    #[test]
    fn what_is_held_is_not_swept() {
        let dir = std::env::temp_dir().join(format!("store-holds-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let settle = Settle::new();
        let (held, _) = layer(&store, b"held", &settle);
        let (lost, _) = layer(&store, b"lost", &settle);
        let holds = Holds::new(&store);
        holds.share().unwrap().add([held.clone()]).unwrap();
        holds.share().unwrap().add([held.clone()]).unwrap();
        // Of a process that is no more.
        std::fs::write(store.holds().join("1-1-0"), format!("{lost}\n")).unwrap();
        // Not even by who names it.
        assert_eq!(store.sweep_layers(Some(&[held.clone(), lost.clone()])).unwrap().layers, 1);
        assert_eq!(store.sweep_blobs().unwrap().blobs, 1);
        assert!(store.has_layer(&held) && store.has_blob(&held, None, &settle).unwrap());
        assert!(!store.has_layer(&lost) && !store.holds().join("1-1-0").exists());
        // Who sweeps waits for who looks.
        let sharing = holds.share().unwrap();
        let sweeping = {
            let store = store.clone();
            std::thread::spawn(move || store.sweep_blobs().unwrap().blobs)
        };
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!sweeping.is_finished());
        let new = store.put_blob(b"new", &settle).unwrap();
        sharing.add([new.clone()]).unwrap();
        drop(sharing);
        assert_eq!(sweeping.join().unwrap(), 0);
        drop(holds);
        assert_eq!(store.sweep_blobs().unwrap().blobs, 2);
        assert_eq!(store.sweep_layers(None).unwrap().layers, 1);
        crate::remove_tree(&dir).unwrap();
    }
}
