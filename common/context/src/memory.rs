//! Fingerprints of files that have been read once, so that what has not changed is not read again.
//!
//! A file is known by device, inode, change time and size. The change time is the kernel's and cannot be set, but its clock ticks: what was
//! changed a moment before it was read could be changed again in the same tick. So nothing is remembered that had not rested for a
//! second, as git does with the files of its index.
//!
//! The file has records of one length, sorted, so that it is searched as it is read, and a checksum. What is damaged is no memory.

use crate::walk::Facts;
use fault::Result;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use store::{Store, atomic};

const MAGIC: &[u8; 16] = b"staves files 1\n\0";
const HEAD: usize = MAGIC.len() + 4;
const RECORD: usize = 72;
const KEY: usize = 36;
/// More are not kept: 36 MiB.
const MAX_RECORDS: usize = 500_000;
/// What nobody asked for so long is forgotten, in days.
const UNUSED_DAYS: u32 = 30;
/// A file has to have rested so long before it was read, in seconds; longer where times are in whole seconds.
const REST: i64 = 1;
const REST_COARSE: i64 = 3;

/// What identifies a file's content and attributes.
pub type Fingerprint = [u8; 32];

type Key = [u8; KEY];

/// What is known of a directory's files.
#[derive(Debug, Default)]
pub struct Memory {
    path: Option<PathBuf>,
    /// Records as they were read.
    old: Vec<u8>,
    learnt: Mutex<Learnt>,
}

#[derive(Debug, Default)]
struct Learnt {
    new: HashMap<Key, Fingerprint>,
    /// Numbers of old records that were asked for.
    used: Vec<usize>,
}

impl Memory {
    /// Nothing is known, and nothing kept.
    pub fn none() -> Memory {
        Memory::default()
    }

    /// What the store's `cache/` knows of a directory's files.
    pub fn of(store: &Store, directory: &Path) -> Memory {
        let directory = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let name = oci::Digest::of(directory.as_os_str().as_bytes());
        let path = store.root().join("cache/files").join(&name.hex()[..32]);
        // What cannot be read is not known.
        let old = load(&path).unwrap_or_default();
        Memory { path: Some(path), old, learnt: Mutex::default() }
    }

    /// What a file was when it was read, if it is still the same.
    pub(crate) fn recall(&self, facts: &Facts) -> Option<Fingerprint> {
        let key = key(facts);
        if let Some(number) = find(&self.old, &key) {
            let record = &self.old[number * RECORD..][..RECORD];
            self.learnt().used.push(number);
            return record[RECORD - 32..].try_into().ok();
        }
        self.learnt().new.get(&key).copied()
    }

    /// Notes what a file is. `read_at` is [`now`], from before it was opened.
    pub(crate) fn learn(&self, facts: &Facts, fingerprint: Fingerprint, read_at: i64) {
        if self.path.is_some() && has_rested(facts, read_at) {
            self.learnt().new.insert(key(facts), fingerprint);
        }
    }

    fn learnt(&self) -> MutexGuard<'_, Learnt> {
        self.learnt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what was learnt, if anything was, beside what others have written meanwhile.
    pub(crate) fn save(&self) -> Result<()> {
        let mut learnt = self.learnt();
        let Some(path) = self.path.as_ref().filter(|_| !learnt.new.is_empty()) else { return Ok(()) };
        let today = today();
        let mut all: BTreeMap<Key, (u32, Fingerprint)> = BTreeMap::new();
        // Another build may have written since.
        let theirs = load(path).unwrap_or_default();
        for records in [self.old.as_slice(), theirs.as_slice()] {
            for record in records.chunks_exact(RECORD) {
                let (key, used, fingerprint) = parts(record);
                if today.saturating_sub(used) <= UNUSED_DAYS {
                    all.insert(key, (used, fingerprint));
                }
            }
        }
        for number in learnt.used.drain(..) {
            let (key, _, fingerprint) = parts(&self.old[number * RECORD..][..RECORD]);
            all.insert(key, (today, fingerprint));
        }
        for (key, fingerprint) in learnt.new.drain() {
            all.insert(key, (today, fingerprint));
        }
        if all.len() > MAX_RECORDS {
            all.retain(|_, (used, _)| *used == today);
        }
        let mut body = Vec::with_capacity(all.len().min(MAX_RECORDS) * RECORD);
        for (key, (used, fingerprint)) in all.iter().take(MAX_RECORDS) {
            body.extend_from_slice(key);
            body.extend_from_slice(&used.to_le_bytes());
            body.extend_from_slice(fingerprint);
        }
        let mut file = MAGIC.to_vec();
        file.extend_from_slice(&checksum(&body).to_le_bytes());
        file.extend_from_slice(&body);
        if let Some(dir) = path.parent()
            && !dir.is_dir()
        {
            use std::os::unix::fs::DirBuilderExt;
            // Whatever keeps it from being made is told by the writing.
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        }
        atomic::write_unflushed(path, &file, 0o600)
    }
}

/// Seconds since 1970, by the clock that files' times are of.
pub fn now() -> i64 {
    clock_gettime(ClockId::RealtimeCoarse).tv_sec
}

fn today() -> u32 {
    u32::try_from(now() / 86_400).unwrap_or(0)
}

/// Whether no change after the reading can have the time of one before it.
fn has_rested(facts: &Facts, read_at: i64) -> bool {
    let rest = if facts.ctime.nanoseconds == 0 { REST_COARSE } else { REST };
    facts.ctime.seconds.saturating_add(rest) < read_at
}

fn key(facts: &Facts) -> Key {
    let mut key = [0; KEY];
    key[..8].copy_from_slice(&facts.device.to_be_bytes());
    key[8..16].copy_from_slice(&facts.inode.to_be_bytes());
    key[16..24].copy_from_slice(&facts.ctime.seconds.to_be_bytes());
    key[24..28].copy_from_slice(&facts.ctime.nanoseconds.to_be_bytes());
    key[28..].copy_from_slice(&facts.size.to_be_bytes());
    key
}

/// The records of a file that is whole.
fn load(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = std::fs::read(path).ok()?;
    let body = bytes.get(HEAD..)?;
    let promised = u32::from_le_bytes(bytes.get(MAGIC.len()..HEAD)?.try_into().ok()?);
    let whole = bytes.starts_with(MAGIC)
        && body.len().is_multiple_of(RECORD)
        && body.len() <= MAX_RECORDS * RECORD
        && checksum(body) == promised;
    whole.then(|| {
        bytes.drain(..HEAD);
        bytes
    })
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

fn find(records: &[u8], wanted: &Key) -> Option<usize> {
    let (mut low, mut high) = (0, records.len() / RECORD);
    while low < high {
        let middle = usize::midpoint(low, high);
        match records[middle * RECORD..][..KEY].cmp(wanted) {
            std::cmp::Ordering::Less => low = middle + 1,
            std::cmp::Ordering::Greater => high = middle,
            std::cmp::Ordering::Equal => return Some(middle),
        }
    }
    None
}

fn parts(record: &[u8]) -> (Key, u32, Fingerprint) {
    let mut key = [0; KEY];
    let mut used = [0; 4];
    let mut fingerprint = [0; 32];
    key.copy_from_slice(&record[..KEY]);
    used.copy_from_slice(&record[KEY..KEY + 4]);
    fingerprint.copy_from_slice(&record[KEY + 4..RECORD]);
    (key, u32::from_le_bytes(used), fingerprint)
}
