//! Files read for their fingerprints.

use crate::files::Inner;
use crate::memory::{Fingerprint, now};
use crate::resolve::Opener;
use crate::select::Pick;
use crate::walk::{Entry, Facts};
use fault::{Explain, Fault, Result};
use layer::ItemKind;
use layer::scan::Xattr;
use rootfs::{failed, show};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{OFlags, fstat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

const CHUNK: usize = 128 << 10;
/// Files for which another thread is worth starting.
const MANY: usize = 32;
/// How often a file is read again that changes while it is read.
const ATTEMPTS: usize = 3;

/// What a file was when it was read.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    pub fingerprint: Fingerprint,
    pub facts: Facts,
}

/// Fingerprints of files and directories, in the order of a pick's entries. What is neither has zeros.
pub fn fingerprints(inner: &Inner, pick: &Pick) -> Result<Vec<Known>> {
    let entries = &pick.entries;
    let mut found: Vec<Known> =
        entries.iter().map(|entry| Known { fingerprint: [0; 32], facts: entry.facts }).collect();
    let mut unknown = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        if !matches!(entry.kind, Some(ItemKind::File | ItemKind::Directory)) {
            continue;
        }
        match inner.memory.recall(&entry.facts) {
            Some(fingerprint) => found[at].fingerprint = fingerprint,
            None => unknown.push(at),
        }
    }
    let next = AtomicUsize::new(0);
    let work = || -> Result<Vec<(usize, Known)>> {
        let mut opener = Opener::new(inner.root.as_fd());
        let mut buffer = vec![0; CHUNK];
        let mut done = Vec::new();
        while let Some(at) = unknown.get(next.fetch_add(1, Ordering::Relaxed)) {
            let entry = &entries[*at];
            done.push((*at, read(inner, &mut opener, &pick.whole(entry), entry, &mut buffer)?));
        }
        Ok(done)
    };
    let threads = if unknown.len() < MANY {
        1
    } else {
        std::thread::available_parallelism().map_or(1, usize::from).min(4)
    };
    let outcomes: Vec<Result<Vec<(usize, Known)>>> = std::thread::scope(|scope| {
        // Where no thread is to be had, there is this one.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| std::thread::Builder::new().name("hash".into()).spawn_scoped(scope, work).ok())
            .collect();
        let own = work();
        let joined = others.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(Fault::failed("a hashing thread ended early")))
        });
        std::iter::once(own).chain(joined).collect()
    });
    for outcome in outcomes {
        for (at, read) in outcome? {
            found[at] = read;
        }
    }
    Ok(found)
}

fn read(
    inner: &Inner,
    opener: &mut Opener<'_>,
    path: &[u8],
    entry: &Entry,
    buffer: &mut [u8],
) -> Result<Known> {
    let is_file = entry.kind == Some(ItemKind::File);
    // Not waiting for whoever might have put a pipe there since.
    let flags = if is_file {
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY
    } else {
        OFlags::RDONLY | OFlags::DIRECTORY
    };
    let mut attempts = 0;
    loop {
        let read_at = now();
        let fd = opener.open(path, flags).map_err(|error| gone(path, error))?;
        let stat = fstat(&fd).map_err(|error| failed("look at", path, error))?;
        if rootfs::kind_of(&stat) != entry.kind {
            return Err(gone(path, Errno::NOENT));
        }
        let facts = Facts::of(&stat);
        let xattrs = attributes(fd.as_fd(), path)?;
        let file = File::from(fd);
        let content = if is_file { hash(&file, buffer, path)? } else { [0; 32] };
        let after = Facts::of(&fstat(&file).map_err(|error| failed("look at", path, error))?);
        attempts += 1;
        if !after.is_same(&facts) && attempts < ATTEMPTS {
            continue;
        }
        let fingerprint = with_attributes(content, &xattrs);
        if after.is_same(&facts) {
            inner.memory.learn(&facts, fingerprint, read_at);
        }
        return Ok(Known { fingerprint, facts });
    }
}

fn gone(path: &[u8], error: Errno) -> Fault {
    match error {
        Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO => {
            Fault::conflict(format!("{} became something else while it was read", show(path)))
                .hint("build again when nothing writes to the context")
        }
        error => failed("open", path, error),
    }
}

fn hash(mut file: &File, buffer: &mut [u8], path: &[u8]) -> Result<Fingerprint> {
    let mut hasher = Sha256::new();
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).explain(|| format!("read {}", show(path))),
        }
    }
}

/// The extended attributes that are copied.
pub fn attributes(fd: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Xattr>> {
    rootfs::xattrs_of(fd).map_err(|error| failed("read the attributes of", path, error))
}

/// A file's fingerprint is its digest, unless it has attributes.
pub fn with_attributes(content: Fingerprint, xattrs: &[Xattr]) -> Fingerprint {
    if xattrs.is_empty() {
        return content;
    }
    let mut hasher = Sha256::new();
    hasher.update(content);
    for (name, value) in xattrs {
        for text in [name, value] {
            hasher.update((text.len() as u64).to_be_bytes());
            hasher.update(text);
        }
    }
    hasher.finalize().into()
}

pub fn digest_of(bytes: &[u8]) -> Fingerprint {
    Sha256::digest(bytes).into()
}
