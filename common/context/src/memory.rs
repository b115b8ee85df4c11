//! Digests of files that have been read once.

use std::path::Path;
use store::Store;

/// What is known of files by device, inode, change time and size.
#[derive(Debug, Default)]
pub struct Memory {}

impl Memory {
    /// Nothing is known and nothing kept.
    pub fn none() -> Memory {
        Memory::default()
    }

    /// What the store's `cache/` knows of a directory's files. What is damaged is as if it were not there.
    pub fn of(_store: &Store, _directory: &Path) -> Memory {
        Memory::default()
    }
}
