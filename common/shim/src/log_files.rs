//! How a log's files are called and told apart, for the shim that writes them and the tools that read them.
//!
//! `NAME` is written to; `NAME.1` is the newest of those that are not any more, or `NAME.1.gz` when they are compressed.
//! Files only ever move to higher numbers.

use std::ffi::OsString;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// The file with a number; number 0 is the one that is written to.
pub fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 { path.to_path_buf() } else { with_suffix(path, &format!(".{number}")) }
}

pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

/// Which file a compressed one was made from: its inode, when it was made, and its length. Kept as the comment in the
/// header (RFC 1952, 2.3.1), so that somebody who has read the file before does not read it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    inode: u64,
    made_ns: u128,
    length: u64,
}

impl Origin {
    pub fn of(metadata: &Metadata) -> Origin {
        // Not every file system knows when a file was made.
        let made = metadata.created().ok().and_then(|made| made.duration_since(UNIX_EPOCH).ok());
        Origin { inode: metadata.ino(), made_ns: made.unwrap_or_default().as_nanos(), length: metadata.len() }
    }

    pub fn parse(comment: &[u8]) -> Option<Origin> {
        let mut words = std::str::from_utf8(comment).ok()?.split(' ');
        let origin = Origin {
            inode: words.next()?.parse().ok()?,
            made_ns: words.next()?.parse().ok()?,
            length: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(origin)
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} {}", self.inode, self.made_ns, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_origins() {
        assert_eq!(numbered(Path::new("/a/log.json"), 0), Path::new("/a/log.json"));
        assert_eq!(numbered(Path::new("/a/log.json"), 12), Path::new("/a/log.json.12"));
        let origin = Origin::of(&std::fs::metadata("/proc/self/exe").unwrap());
        assert_eq!(Origin::parse(origin.to_string().as_bytes()), Some(origin));
        for wrong in [&b""[..], b"1 2", b"1 2 3 4", b"a b c", b"\xff"] {
            assert_eq!(Origin::parse(wrong), None);
        }
    }
}
