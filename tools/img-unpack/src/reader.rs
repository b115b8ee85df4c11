//! A blob being read, watched from outside.

use cli::Fault;
use cli::progress::Item;
use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends early when told to, and says how far it is.
pub struct Watched<'a> {
    blob: File,
    stop: &'a AtomicBool,
    item: Option<Item<'a>>,
    read: u64,
}

impl<'a> Watched<'a> {
    pub fn new(blob: File, stop: &'a AtomicBool, item: Option<Item<'a>>) -> Watched<'a> {
        Watched { blob, stop, item, read: 0 }
    }

    pub fn done(self) {
        if let Some(item) = self.item {
            item.done();
        }
    }
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other(Fault::failed("stopped, because another layer failed")));
        }
        let read = self.blob.read(buffer)?;
        self.read += read as u64;
        if let Some(item) = &mut self.item {
            item.set(self.read);
        }
        Ok(read)
    }
}
