//! `partial/`: blobs on their way here. A download that was cut, or whose process was killed, goes on where it was, in whichever
//! process wants the blob next; of several that want it at once one fetches it and the others wait for it.
//!
//! The lock on an unfinished file is held across the network: it guards the download itself, and nobody needs it who does not
//! want this very blob.

use crate::settle::FRESH;
use crate::{Lock, Settle, Store, make_dirs};
use fault::{Explain, Fault, Result};
use oci::Digest;
use oci::digest::Hasher;
use rustix::fs::{FlockOperation, OFlags, flock};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;

/// Bytes hashed at a time.
const CHUNK: usize = 128 << 10;

/// A blob being downloaded: hashed as the bytes pass, never a byte longer than it was said to be, committed only if it is right.
/// Dropped before that, what has come stays for whoever goes on.
#[derive(Debug)]
pub struct Download {
    store: Store,
    path: PathBuf,
    /// Its lock says whose the download is.
    file: File,
    hasher: Hasher,
    digest: Digest,
    size: u64,
    written: u64,
    resumed: bool,
    committed: bool,
}

impl Store {
    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root().join("partial").join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// Begins or goes on with the download of a blob of `size` bytes; `None` when another process or thread is at it.
    ///
    /// What was there is hashed now. The caller looks whether the blob has come meanwhile.
    pub fn claim_download(&self, digest: &Digest, size: u64) -> Result<Option<Download>> {
        let path = self.partial_path(digest);
        let says = || format!("write {}", path.display());
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FRESH);
        options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32);
        loop {
            let file = match options.open(&path) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    make_dirs(path.parent().unwrap_or(&path))?;
                    options.open(&path)
                }
                other => other,
            }
            .explain(says)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(std::io::Error::from(error)).explain(says),
            }
            let own = file.metadata().explain(says)?;
            if !own.is_file() {
                return Err(Fault::failed(format!("{} is not a regular file", path.display())));
            }
            // Whoever had it may have finished, and given it another name, between the two calls.
            if !path.symlink_metadata().is_ok_and(|now| now.ino() == own.ino() && now.dev() == own.dev()) {
                continue;
            }
            let mut download = Download {
                store: self.clone(),
                path,
                file,
                hasher: Hasher::new(digest.algorithm()),
                digest: digest.clone(),
                size,
                written: 0,
                resumed: false,
                committed: false,
            };
            download.take_up(own.len())?;
            return Ok(Some(download));
        }
    }

    /// Waits until nobody is at the download of a blob any more, however it ended.
    pub fn await_download(&self, digest: &Digest) -> Result<()> {
        let path = self.partial_path(digest);
        let Ok(file) = File::open(&path) else { return Ok(()) };
        flock(&file, FlockOperation::LockShared)
            .map_err(std::io::Error::from)
            .explain(|| format!("wait for {}", path.display()))
    }

    /// Removes what downloads that nobody is at have left; returns how many and how many bytes.
    pub fn sweep_downloads(&self) -> Result<(u64, u64)> {
        let folder = self.root().join("partial");
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, 0)),
            Err(error) => return Err(error).explain(|| format!("read {}", folder.display())),
        };
        let mut removed = (0, 0);
        for entry in entries.flatten() {
            let path = entry.path();
            let Some(_lock) = Lock::try_exclusive(&path)? else { continue };
            let bytes = entry.metadata().map_or(0, |status| status.len());
            if std::fs::remove_file(&path).is_ok() {
                removed = (removed.0 + 1, removed.1 + bytes);
            }
        }
        Ok(removed)
    }
}

impl Download {
    fn take_up(&mut self, length: u64) -> Result<()> {
        if length == 0 {
            return Ok(());
        }
        if length > self.size {
            return self.restart();
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            let read = self.file.read(&mut chunk).explain(|| format!("read {}", self.path.display()))?;
            if read == 0 {
                break;
            }
            self.hasher.update(chunk.get(..read).unwrap_or_default());
            self.written += read as u64;
        }
        self.resumed = self.written > 0;
        Ok(())
    }

    /// Bytes so far; where it goes on.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Whether bytes of an earlier process are in it.
    pub fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// # Errors
    /// [`fault::Kind::Input`] when there are more bytes than were announced; what has come is thrown away then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.size - self.written {
            self.restart()?;
            return Err(Fault::input(format!(
                "blob {} is longer than the {} bytes it was said to have",
                self.digest, self.size
            )));
        }
        self.file.write_all(bytes).explain(|| format!("write blob {}", self.digest))?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Back to nothing: the source cannot go on where it was cut, or what was there proved wrong.
    pub fn restart(&mut self) -> Result<()> {
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .explain(|| format!("write blob {}", self.digest))?;
        self.hasher = Hasher::new(self.digest.algorithm());
        self.written = 0;
        self.resumed = false;
        Ok(())
    }

    /// Whether all bytes are there and have the digest.
    pub fn is_right(&self) -> bool {
        self.written == self.size && self.hasher.clone().finish() == self.digest
    }

    /// The same file, to read behind the writer by offsets.
    pub fn reader(&self) -> Result<File> {
        self.file.try_clone().explain(|| format!("read blob {}", self.digest))
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] when the size or the digest is not the announced one; what has come is thrown away then.
    pub fn commit(mut self, settle: &Settle) -> Result<()> {
        if self.written != self.size {
            // The source says that this is all: nothing to go on with.
            let written = self.written;
            self.restart()?;
            return Err(Fault::input(format!(
                "blob {} has {written} bytes where {} were announced",
                self.digest, self.size
            )));
        }
        let actual = self.hasher.clone().finish();
        if actual != self.digest {
            self.restart()?;
            return Err(Fault::input(format!("blob {} has the digest {actual}", self.digest)));
        }
        let path = self.store.blob_path(&self.digest);
        if let Some(parent) = path.parent() {
            make_dirs(parent)?;
        }
        settle.mark(&self.store, &self.file, &path)?;
        std::fs::rename(&self.path, &path).explain(|| format!("store blob {}", self.digest))?;
        self.committed = true;
        Ok(())
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        if !self.committed && self.written == 0 {
            // Nothing to go on with.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture(PathBuf);

    impl Fixture {
        fn new(name: &str) -> (Fixture, Store) {
            let dir = std::env::temp_dir().join(format!("store-download-{name}-{}", std::process::id()));
            let store = Store::at(dir.join("root"), dir.join("run"));
            (Fixture(dir), store)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn left(store: &Store) -> usize {
        std::fs::read_dir(store.root().join("partial")).map_or(0, Iterator::count)
    }

    #[test]
    fn a_download_goes_on_where_another_ended() {
        let (_fixture, store) = Fixture::new("resume");
        let settle = Settle::new();
        let digest = Digest::of(b"hello world");
        let mut first = store.claim_download(&digest, 11).unwrap().unwrap();
        first.write(b"hello ").unwrap();
        drop(first);
        let mut second = store.claim_download(&digest, 11).unwrap().unwrap();
        assert!(second.is_resumed());
        assert_eq!(second.written(), 6);
        second.write(b"world").unwrap();
        assert!(second.is_right());
        second.commit(&settle).unwrap();
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"hello world");
        assert_eq!(left(&store), 0);
    }

    #[test]
    fn what_is_wrong_does_not_stay() {
        let (_fixture, store) = Fixture::new("wrong");
        let digest = Digest::of(b"hello");
        let mut download = store.claim_download(&digest, 5).unwrap().unwrap();
        download.write(b"hexxo").unwrap();
        assert!(!download.is_right());
        assert_eq!(download.commit(&Settle::new()).unwrap_err().kind(), fault::Kind::Input);
        assert_eq!(left(&store), 0);
        // Nor what is longer or shorter than it was said to be.
        let mut download = store.claim_download(&digest, 5).unwrap().unwrap();
        download.write(b"hello").unwrap();
        assert_eq!(download.write(b"!").unwrap_err().kind(), fault::Kind::Input);
        drop(download);
        assert_eq!(left(&store), 0);
        let mut download = store.claim_download(&digest, 6).unwrap().unwrap();
        download.write(b"hello").unwrap();
        assert_eq!(download.commit(&Settle::new()).unwrap_err().kind(), fault::Kind::Input);
        assert_eq!(left(&store), 0);
        // What is longer than the blob cannot be its beginning; an untouched claim leaves nothing.
        std::fs::write(store.partial_path(&digest), b"hello hello").unwrap();
        let download = store.claim_download(&digest, 5).unwrap().unwrap();
        assert!(download.written() == 0 && !download.is_resumed());
        drop(download);
        assert_eq!(left(&store), 0);
        std::os::unix::fs::symlink("/etc/passwd", store.partial_path(&digest)).unwrap();
        assert!(store.claim_download(&digest, 5).is_err());
    }

    #[test]
    fn one_downloads_and_the_others_wait() {
        let (_fixture, store) = Fixture::new("wait");
        let settle = Settle::new();
        let digest = Digest::of(b"hello");
        let mut mine = store.claim_download(&digest, 5).unwrap().unwrap();
        assert!(store.claim_download(&digest, 5).unwrap().is_none());
        assert_eq!(store.sweep_downloads().unwrap(), (0, 0));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                store.await_download(&digest).unwrap();
                store.has_blob(&digest, Some(5), &settle).unwrap()
            });
            mine.write(b"hello").unwrap();
            mine.commit(&settle).unwrap();
            assert!(waiter.join().unwrap());
        });
        let mut cut = store.claim_download(&Digest::of(b"other"), 5).unwrap().unwrap();
        cut.write(b"oth").unwrap();
        drop(cut);
        assert_eq!(store.sweep_downloads().unwrap(), (1, 3));
        assert_eq!(left(&store), 0);
    }
}
