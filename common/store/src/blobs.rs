//! `blobs/`: content by digest. A blob gets its name only when its bytes are what the name says.

use crate::settle::FRESH;
use crate::{Scratch, Settle, Store, make_dirs};
use fault::{Explain, Fault, Result};
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes hashed at a time: large enough to hide the calls, small enough for the cache.
const CHUNK: usize = 128 << 10;

impl Store {
    /// `$STAVES_ROOT/blobs/<algorithm>/<hex>`, whether or not it is there.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.root().join("blobs");
        path.push(digest.algorithm().name());
        path.push(digest.hex());
        path
    }

    /// Whether the blob is there, has `size` bytes (where that is known) and can be trusted. One that cannot be
    /// trusted yet is hashed, once; one that proves corrupt is removed.
    pub fn has_blob(&self, digest: &Digest, size: Option<u64>, settle: &Settle) -> Result<bool> {
        match self.open_blob(digest, settle) {
            Ok(file) => {
                let actual = file.metadata().explain(|| format!("look at blob {digest}"))?.len();
                Ok(size.is_none_or(|size| size == actual))
            }
            Err(fault) if matches!(fault.kind(), fault::Kind::NotFound) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// Opens a blob whose bytes are known to be right, by trust or by hashing them now.
    ///
    /// # Errors
    /// [`fault::Kind::NotFound`] if there is none or it was corrupt, which removes it.
    pub fn open_blob(&self, digest: &Digest, settle: &Settle) -> Result<File> {
        let path = self.blob_path(digest);
        let file = open_regular(&path, digest)?;
        let status = file.metadata().explain(|| format!("look at blob {digest}"))?;
        if self.is_trusted(&path, &status) {
            return Ok(file);
        }
        if hash(&file, digest)? != *digest {
            self.remove_corrupt(digest, &status);
            return Err(missing(digest).because(Fault::input("what was there did not have that digest")));
        }
        // Not being able to say so (another user's store) costs the next one a hashing, nothing else.
        let _ = settle.mark(self, &file, &path);
        // The caller reads from the start, and these very bytes, whatever has the name by now.
        (&file).rewind().explain(|| format!("read blob {digest}"))?;
        Ok(file)
    }

    /// The whole of a small blob, at most `limit` bytes. Always hashed, which for a manifest or a configuration costs less
    /// than finding out whether it has to be.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let file = open_regular(&path, digest)?;
        let status = file.metadata().explain(|| format!("look at blob {digest}"))?;
        if status.len() > limit {
            return Err(Fault::input(format!("blob {digest} is larger than {limit} bytes")));
        }
        let mut bytes = Vec::with_capacity(status.len() as usize + 1);
        (&file).take(limit + 1).read_to_end(&mut bytes).explain(|| format!("read blob {digest}"))?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            self.remove_corrupt(digest, &status);
            return Err(missing(digest).because(Fault::input("what was there did not have that digest")));
        }
        Ok(bytes)
    }

    /// Begins a blob of exactly `size` bytes.
    pub fn blob_writer(&self, digest: &Digest, size: u64) -> Result<BlobWriter> {
        Ok(BlobWriter { unnamed: self.unnamed_blob_of(digest.algorithm())?, digest: digest.clone(), size })
    }

    /// Begins a blob whose digest (SHA-256) is known when its last byte has been written.
    pub fn unnamed_blob(&self) -> Result<UnnamedBlob> {
        self.unnamed_blob_of(Algorithm::Sha256)
    }

    fn unnamed_blob_of(&self, algorithm: Algorithm) -> Result<UnnamedBlob> {
        let scratch = Scratch::new(self)?;
        let (file, named) = open_unfinished(&scratch)?;
        let hasher = Hasher::new(algorithm);
        Ok(UnnamedBlob { store: self.clone(), scratch, file, named, hasher, algorithm, written: 0 })
    }

    /// Stores bytes that are at hand.
    pub fn put_blob(&self, bytes: &[u8], settle: &Settle) -> Result<Digest> {
        let digest = Digest::of(bytes);
        self.put_blob_as(&digest, bytes, settle)?;
        Ok(digest)
    }

    /// Stores bytes that must have this digest.
    pub fn put_blob_as(&self, digest: &Digest, bytes: &[u8], settle: &Settle) -> Result<()> {
        if self.has_blob(digest, Some(bytes.len() as u64), settle)? {
            return Ok(());
        }
        let mut writer = self.blob_writer(digest, bytes.len() as u64)?;
        writer.write(bytes)?;
        writer.commit(settle)
    }

    /// Removes what has the blob's name, unless another process has replaced it since it was looked at.
    fn remove_corrupt(&self, digest: &Digest, seen: &Metadata) {
        let path = self.blob_path(digest);
        if path.symlink_metadata().is_ok_and(|now| now.ino() == seen.ino() && now.dev() == seen.dev()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A blob being written whose digest is not known yet: hashed as the bytes pass, visible only when complete. Dropped before
/// that, nothing is left.
#[derive(Debug)]
pub struct UnnamedBlob {
    store: Store,
    scratch: Scratch,
    file: File,
    /// Whether it lies at the scratch path already; better it has no name before it is complete.
    named: bool,
    hasher: Hasher,
    algorithm: Algorithm,
    written: u64,
}

impl UnnamedBlob {
    /// Bytes so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).explain(|| "write a blob".into())?;
        self.hasher.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Back to nothing.
    pub fn restart(&mut self) -> Result<()> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).explain(|| "write a blob".into())?;
        self.hasher = Hasher::new(self.algorithm);
        self.written = 0;
        Ok(())
    }

    /// Gives it the name its bytes have; returns that and their number.
    pub fn commit(self, settle: &Settle) -> Result<(Digest, u64)> {
        let digest = self.hasher.finish();
        let path = self.store.blob_path(&digest);
        if let Some(parent) = path.parent() {
            make_dirs(parent)?;
        }
        if !self.named {
            give_name(&self.file, self.scratch.path()).explain(|| format!("store blob {digest}"))?;
        }
        settle.mark(&self.store, &self.file, &path)?;
        std::fs::rename(self.scratch.path(), &path).explain(|| format!("store blob {digest}"))?;
        self.scratch.keep();
        Ok((digest, self.written))
    }
}

/// A blob being written that is known beforehand: never a byte longer than it was said to be, committed only if it is right.
#[derive(Debug)]
pub struct BlobWriter {
    unnamed: UnnamedBlob,
    digest: Digest,
    size: u64,
}

impl BlobWriter {
    /// Bytes so far; where a cut download goes on.
    pub fn written(&self) -> u64 {
        self.unnamed.written
    }

    /// Bytes it was said to have.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// # Errors
    /// [`fault::Kind::Input`] when there are more bytes than were announced; none of them is written.
    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() as u64 > self.size - self.unnamed.written {
            return Err(Fault::input(format!(
                "blob {} is longer than the {} bytes it was said to have",
                self.digest, self.size
            )));
        }
        self.unnamed.write(bytes).map_err(|fault| fault.within(self.digest.to_string()))
    }

    /// Back to nothing: the source cannot go on where it was cut.
    pub fn restart(&mut self) -> Result<()> {
        self.unnamed.restart().map_err(|fault| fault.within(self.digest.to_string()))
    }

    /// Gives it its name.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] when the size or the digest is not the announced one.
    pub fn commit(self, settle: &Settle) -> Result<()> {
        let BlobWriter { unnamed, digest, size } = self;
        if unnamed.written != size {
            return Err(Fault::input(format!(
                "blob {digest} has {} bytes where {size} were announced",
                unnamed.written
            )));
        }
        let actual = unnamed.hasher.clone().finish();
        if actual != digest {
            return Err(Fault::input(format!("blob {digest} has the digest {actual}")));
        }
        unnamed.commit(settle).map(drop)
    }
}

/// A file without a name, which vanishes with the process that writes it however that ends; where the file system has no
/// such files, one in `tmp/`. Says which.
fn open_unfinished(scratch: &Scratch) -> Result<(File, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FRESH);
    let unnamed = scratch.path().parent().and_then(|folder| {
        options.clone().custom_flags(rustix::fs::OFlags::TMPFILE.bits() as i32).open(folder).ok()
    });
    if let Some(file) = unnamed {
        return Ok((file, false));
    }
    let file = options.create_new(true).open(scratch.path());
    Ok((file.explain(|| format!("make {}", scratch.path().display()))?, true))
}

/// Names a file that has none yet (open(2), `O_TMPFILE`).
fn give_name(file: &File, path: &Path) -> std::io::Result<()> {
    use rustix::fs::{AtFlags, CWD, linkat};
    let unnamed = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, unnamed, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

fn open_regular(path: &Path, digest: &Digest) -> Result<File> {
    // Anything but a file would let whoever made it choose what is read.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path);
    match file {
        Ok(file) if file.metadata().is_ok_and(|status| status.is_file()) => Ok(file),
        Ok(_) => Err(Fault::input(format!("blob {digest} is not a regular file"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(missing(digest)),
        Err(error) => Err(error).explain(|| format!("open blob {digest}")),
    }
}

fn missing(digest: &Digest) -> Fault {
    Fault::not_found(format!("blob {digest} is not in the store")).hint("pull the image again")
}

fn hash(mut file: &File, digest: &Digest) -> Result<Digest> {
    let mut hasher = Hasher::new(digest.algorithm());
    let mut chunk = vec![0; CHUNK];
    loop {
        let read = file.read(&mut chunk).explain(|| format!("read blob {digest}"))?;
        match chunk.get(..read) {
            Some([]) | None => return Ok(hasher.finish()),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fault::Kind;

    struct Fixture(PathBuf);

    impl Fixture {
        fn new(name: &str) -> (Fixture, Store) {
            let dir = std::env::temp_dir().join(format!("store-blobs-{name}-{}", std::process::id()));
            let store = Store::at(dir.join("root"), dir.join("run"));
            (Fixture(dir), store)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn scratch_entries(store: &Store) -> usize {
        std::fs::read_dir(store.root().join("tmp")).map_or(0, Iterator::count)
    }

    #[test]
    fn a_blob_is_stored_only_if_it_is_what_it_was_said_to_be() {
        let (_fixture, store) = Fixture::new("write");
        let settle = Settle::new();
        let digest = Digest::of(b"hello");
        let try_bytes = |size: u64, chunks: &[&[u8]]| {
            let mut writer = store.blob_writer(&digest, size)?;
            chunks.iter().try_for_each(|chunk| writer.write(chunk))?;
            writer.commit(&settle)
        };
        for (size, chunks) in [
            (5, vec![b"hel".as_slice()]),
            (4, vec![b"hello"]),
            (6, vec![b"hello"]),
            (5, vec![b"hallo"]),
            (0, vec![]),
        ] {
            assert_eq!(try_bytes(size, &chunks).unwrap_err().kind(), Kind::Input);
        }
        assert!(!store.has_blob(&digest, None, &settle).unwrap());
        assert_eq!(scratch_entries(&store), 0);
        try_bytes(5, &[b"hel", b"lo"]).unwrap();
        assert!(store.has_blob(&digest, Some(5), &settle).unwrap());
        assert!(!store.has_blob(&digest, Some(6), &settle).unwrap());
        assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
        assert_eq!(store.read_blob(&digest, 4).unwrap_err().kind(), Kind::Input);
    }

    #[test]
    fn a_cut_download_starts_again() {
        let (_fixture, store) = Fixture::new("restart");
        let digest = Digest::of(b"hello");
        let mut writer = store.blob_writer(&digest, 5).unwrap();
        writer.write(b"hexxx").unwrap();
        writer.restart().unwrap();
        writer.write(b"hello").unwrap();
        writer.commit(&Settle::new()).unwrap();
        assert_eq!(store.read_blob(&digest, 100).unwrap(), b"hello");
    }

    #[test]
    fn what_another_program_wrote_is_hashed_and_thrown_away_if_wrong() {
        let (_fixture, store) = Fixture::new("foreign");
        let settle = Settle::new();
        let digest = Digest::of(b"hello");
        let path = store.blob_path(&digest);
        make_dirs(path.parent().unwrap()).unwrap();
        std::fs::write(&path, b"hello").unwrap();
        assert!(store.open_blob(&digest, &settle).is_ok());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, b"hallo").unwrap();
        let settle = Settle::new();
        std::fs::remove_dir_all(store.run()).unwrap();
        assert_eq!(store.open_blob(&digest, &settle).unwrap_err().kind(), Kind::NotFound);
        assert!(!path.exists());
        std::fs::write(&path, b"hallo").unwrap();
        assert_eq!(store.read_blob(&digest, 10).unwrap_err().kind(), Kind::NotFound);
        std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
        assert_ne!(store.open_blob(&digest, &settle).unwrap_err().kind(), Kind::NotFound);
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert_eq!(store.read_blob(&digest, 10).unwrap_err().kind(), Kind::Input);
    }
}
