//! Compiled programs in files, by the hash of what they were compiled from.
//!
//! A file is believed only if it is this user's, nobody else may write to it, it says which section it is of, and its checksum
//! is right: a program is loaded on its word.

use super::Filter;
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use sys::seccomp::{INSTRUCTION_BYTES, MAX_INSTRUCTIONS};

const MAGIC: &[u8; 8] = b"stvscmp2";
const HEADER: usize = 8 + 32 + 3 * 4 + 8;
const MAX_BYTES: usize = HEADER + 2 * MAX_INSTRUCTIONS * INSTRUCTION_BYTES;

/// In place of the length of a program that is not there.
const NONE: u32 = u32::MAX;

/// Programs kept. A machine has a handful of profiles; one that makes new ones all the time shall not fill its disk.
const MAX_FILES: usize = 128;

/// Stands for the code that compiles: a program compiled by other code is another one.
const BUILD: u64 = {
    let mut hash = 0;
    hash = fnv(hash, include_bytes!("compile.rs"));
    hash = fnv(hash, include_bytes!("instructions.rs"));
    fnv(hash, include_bytes!("profile.rs"))
};

const fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut index = 0;
    while index < bytes.len() {
        hash = (hash ^ bytes[index] as u64).wrapping_mul(0x0000_0100_0000_01b3);
        index += 1;
    }
    hash
}

/// What a program depends on.
pub(super) struct Key([u8; 32]);

impl Key {
    /// `compiler`: libseccomp's version.
    pub fn of(section: &str, compiler: &str) -> Key {
        let mut hash = Sha256::new();
        hash.update(format!(
            "staves seccomp {BUILD:x} {} {compiler} {}\n",
            env!("CARGO_PKG_VERSION"),
            std::env::consts::ARCH
        ));
        hash.update(section);
        Key(hash.finalize().into())
    }

    fn path(&self, directory: &Path) -> PathBuf {
        directory.join(self.0.iter().fold(String::new(), |name, byte| name + &format!("{byte:02x}")))
    }
}

/// `None`: there is none, or none to be trusted.
pub(super) fn read(directory: &Path, key: &Key) -> Option<Filter> {
    // A FIFO in the file's place shall not hold this up.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, key.path(directory), flags, Mode::empty()).ok()?;
    let stat = fstat(&file).ok()?;
    let own = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & 0o022 == 0;
    let size = usize::try_from(stat.st_size).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || !own || size > MAX_BYTES {
        return None;
    }
    let mut bytes = vec![0; size];
    File::from(file).read_exact(&mut bytes).ok()?;
    decode(&bytes, key)
}

/// A cache that cannot be written to costs time, nothing else.
pub(super) fn store(directory: &Path, key: &Key, filter: &Filter) {
    let path = key.path(directory);
    let temporary = path.with_extension(std::process::id().to_string());
    if write(directory, &temporary, &encode(filter, key))
        .and_then(|()| std::fs::rename(&temporary, &path))
        .is_err()
    {
        let _ = std::fs::remove_file(&temporary);
    }
}

fn write(directory: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    make_room(directory)?;
    // Of a process that had this number, and crashed.
    let _ = std::fs::remove_file(path);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)
}

/// Removes the oldest files until there is room for one more.
fn make_room(directory: &Path) -> io::Result<()> {
    let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if let Ok(modified) = entry.metadata().and_then(|data| data.modified()) {
            files.push((modified, entry.path()));
        }
    }
    if files.len() >= MAX_FILES {
        files.sort();
        for (_, path) in &files[..=files.len() - MAX_FILES] {
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(())
}

/// Against files cut short or damaged; nobody else can write them.
fn checksum(parts: [&[u8]; 2]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for chunk in part.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            hash ^= hash >> 29;
        }
    }
    hash
}

fn encode(filter: &Filter, key: &Key) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(key.0);
    bytes.extend(filter.flags.to_le_bytes());
    bytes.extend((filter.program.len() as u32).to_le_bytes());
    bytes.extend(filter.notify.as_ref().map_or(NONE, |notify| notify.len() as u32).to_le_bytes());
    let programs = [filter.program.as_slice(), filter.notify.as_deref().unwrap_or_default()].concat();
    let sum = checksum([&bytes, &programs]);
    bytes.extend(sum.to_le_bytes());
    bytes.extend(programs);
    bytes
}

fn decode(bytes: &[u8], key: &Key) -> Option<Filter> {
    let (header, programs) = bytes.split_at_checked(HEADER)?;
    let (fields, sum) = header.split_at(HEADER - 8);
    let numbers = fields.strip_prefix(MAGIC)?.strip_prefix(&key.0)?;
    if checksum([fields, programs]).to_le_bytes() != sum {
        return None;
    }
    let number = |index: usize| {
        numbers
            .chunks_exact(4)
            .nth(index)
            .map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]]))
    };
    let (program, notify) = programs.split_at_checked(number(1)? as usize)?;
    let notify = match number(2)? {
        NONE if notify.is_empty() => None,
        length if length as usize == notify.len() => Some(notify.to_vec()),
        _ => return None,
    };
    Some(Filter { program: program.to_vec(), flags: number(0)?, notify })
}

/// The same for a process that compiles for this one.
pub(super) fn to_message(filter: &Filter) -> Vec<u8> {
    encode(filter, &Key([0; 32]))
}

pub(super) fn from_message(bytes: &[u8]) -> Option<Filter> {
    decode(bytes, &Key([0; 32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(notify: Option<Vec<u8>>) -> Filter {
        Filter { program: (0..24).collect(), flags: 2, notify }
    }

    #[test]
    fn what_is_written_is_read() {
        let key = Key::of("section", "2.5.4");
        for notify in [None, Some(vec![7; 8])] {
            let filter = filter(notify);
            assert_eq!(decode(&encode(&filter, &key), &key).unwrap(), filter);
        }
    }

    #[test]
    fn a_file_that_differs_in_one_bit_or_is_cut_short_is_no_program() {
        let key = Key::of("section", "2.5.4");
        let whole = encode(&filter(Some(vec![7; 16])), &key);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length], &key).is_none(), "{length}");
        }
        for bit in 0..whole.len() * 8 {
            let mut other = whole.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&other, &key).is_none(), "{bit}");
        }
        assert!(decode(&[whole.as_slice(), b"x"].concat(), &key).is_none());
    }

    #[test]
    fn every_section_and_compiler_has_programs_of_its_own() {
        let whole = encode(&filter(None), &Key::of("section", "2.5.4"));
        for (section, compiler) in [("section ", "2.5.4"), ("section", "2.5.5")] {
            assert!(decode(&whole, &Key::of(section, compiler)).is_none());
        }
    }

    #[test]
    fn the_directory_stays_small() {
        let directory = std::env::temp_dir().join(format!("seccomp-cache-{}", std::process::id()));
        let keys: Vec<Key> = (0..MAX_FILES + 20).map(|number| Key::of(&number.to_string(), "")).collect();
        for key in &keys {
            store(&directory, key, &filter(None));
        }
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), MAX_FILES);
        assert!(read(&directory, keys.last().unwrap()).is_some());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
