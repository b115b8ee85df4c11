//! Finding an image without parsing a long `index.json`: its entries again, as lines sorted by what they are
//! looked for by, with the identity of the file they were made from on top.

use super::{Entry, Key, parse_entries, read_open};
use crate::Store;
use fault::{Explain, Result};
use oci::Document;
use oci::manifest::MAX_MANIFEST_BYTES;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parsing this much takes no longer than opening another file.
const WORTH_IT: u64 = 32 << 10;
/// Longest line of the cache; an index with a longer entry has none.
const MAX_LINE: usize = 4096;
/// A file changed twice within one tick of the clock looks unchanged: only one that has rested is cached.
const SETTLED_FOR: Duration = Duration::from_secs(1);

pub(super) fn lookup(store: &Store, key: &Key<'_>) -> Result<Vec<Entry>> {
    let path = store.index_path();
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).explain(|| format!("open {}", path.display())),
    };
    let status = file.metadata().explain(|| format!("look at {}", path.display()))?;
    let header = header(&status);
    if status.len() >= WORTH_IT
        && let Some(found) = search_file(store, &header, key)
    {
        return Ok(found);
    }
    let text = read_open(&file, &path)?;
    let entries = parse_entries(&text)?;
    if status.len() >= WORTH_IT && has_rested(&status) {
        write(store, &header, &entries);
    }
    let matches = |entry: &Entry| match key {
        Key::Name(name) => entry.name() == Some(name),
        Key::Digits(digits) => digests(store, entry).iter().any(|hex| hex.starts_with(digits)),
    };
    Ok(entries.into_iter().map(|(entry, _)| entry).filter(matches).collect())
}

/// The digits an entry is found by. The configuration's digest of entries other programs wrote is in their manifest.
fn digests(store: &Store, entry: &Entry) -> Vec<String> {
    let config = entry.config_digest().or_else(|| {
        let bytes = store.read_blob(entry.digest(), MAX_MANIFEST_BYTES).ok()?;
        match Document::parse(&bytes, None).ok()? {
            Document::Manifest(manifest) => Some(manifest.config.digest),
            Document::Index(_) => None,
        }
    });
    let all = [Some(entry.digest().clone()), config, entry.index_digest()];
    all.into_iter().flatten().map(|digest| digest.hex().to_owned()).collect()
}

fn header(status: &Metadata) -> String {
    format!(
        "staves-images 1 {} {} {} {}.{} {}.{}\n",
        status.dev(),
        status.ino(),
        status.len(),
        status.mtime(),
        status.mtime_nsec(),
        status.ctime(),
        status.ctime_nsec()
    )
}

fn has_rested(status: &Metadata) -> bool {
    let changed = UNIX_EPOCH + Duration::new(status.ctime().max(0) as u64, status.ctime_nsec().max(0) as u32);
    SystemTime::now().duration_since(changed).is_ok_and(|age| age >= SETTLED_FOR)
}

/// Best effort: without a cache everything is found too.
fn write(store: &Store, header: &str, entries: &[(Entry, &str)]) {
    let mut lines = Vec::with_capacity(3 * entries.len());
    for (entry, json) in entries {
        let json = json.replace(['\n', '\r'], " ");
        let names = entry.name().map(|name| format!("n{name}"));
        let keys = names.into_iter().chain(digests(store, entry).into_iter().map(|hex| format!("d{hex}")));
        for key in keys {
            if key.contains(['\t', '\n']) || key.len() + json.len() + 2 > MAX_LINE {
                return;
            }
            lines.push(format!("{key}\t{json}\n"));
        }
    }
    lines.sort_unstable();
    let mut content = String::with_capacity(header.len() + lines.iter().map(String::len).sum::<usize>());
    content.push_str(header);
    content.extend(lines);
    let path = store.root().join("cache/images");
    if path.parent().is_some_and(|parent| crate::make_dirs(parent).is_ok()) {
        let _ = store.replace(&path, content.as_bytes());
    }
}

/// Whether what is cached is of another `index.json` than the one there is, and of no use.
pub(crate) fn is_stale(store: &Store) -> bool {
    let Ok(status) = store.index_path().metadata() else { return true };
    let header = header(&status);
    let mut start = vec![0; header.len()];
    let read =
        File::open(store.root().join("cache/images")).and_then(|file| file.read_exact_at(&mut start, 0));
    read.is_err() || start != header.as_bytes()
}

/// `None` when there is no cache of this very `index.json`.
fn search_file(store: &Store, header: &str, key: &Key<'_>) -> Option<Vec<Entry>> {
    let file = File::open(store.root().join("cache/images")).ok()?;
    let mut start = vec![0; header.len()];
    file.read_exact_at(&mut start, 0).ok()?;
    if start != header.as_bytes() {
        return None;
    }
    let wanted = match key {
        Key::Name(name) => format!("n{name}\t"),
        Key::Digits(digits) => format!("d{digits}"),
    };
    let end = file.metadata().ok()?.len();
    let mut at = lower_bound(&file, header.len() as u64, end, wanted.as_bytes())?;
    let mut found = Vec::new();
    while at < end {
        let line = line_at(&file, at)?;
        if !line.starts_with(wanted.as_bytes()) {
            break;
        }
        let json = line.split(|b| *b == b'\t').nth(1)?;
        found.push(Entry::parse(std::str::from_utf8(json).ok()?)?);
        at += line.len() as u64;
    }
    Some(found)
}

/// Offset of the first line that is not below `wanted`. `low` always is the beginning of a line.
fn lower_bound(file: &File, mut low: u64, end: u64, wanted: &[u8]) -> Option<u64> {
    let mut high = end;
    while low < high {
        let middle = low + (high - low) / 2;
        // The first line that begins after the middle, or, if none does before `high`, the one at `low`.
        let skipped = line_at(file, middle)?.len() as u64;
        let probe = if middle + skipped < high { middle + skipped } else { low };
        let line = line_at(file, probe)?;
        if line.as_slice() < wanted {
            low = probe + line.len() as u64;
        } else if probe == low {
            return Some(low);
        } else {
            high = probe;
        }
    }
    Some(low)
}

/// From an offset to the end of its line, the line break included.
fn line_at(file: &File, offset: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; MAX_LINE];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64).ok()? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    let length = bytes.iter().position(|b| *b == b'\n')? + 1;
    bytes.truncate(length);
    Some(bytes)
}
