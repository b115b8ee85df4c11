//! The archive, written while the container's processes stand still: what is in it is of one moment.

use checkpoint::{Compression, Contents};
use cli::Result;
use record::Record;
use shim::{Client, Request};
use std::fs::File;
use store::ContainerDir;

pub struct Export<'a> {
    pub dir: &'a ContainerDir,
    pub record: &'a Record,
    /// RFC 3339.
    pub at: &'a str,
    pub ignore_rootfs: bool,
}

impl Export<'_> {
    /// Returns how many changed files could not be put into it.
    pub fn write(&self, to: &File, compression: Compression) -> Result<u64> {
        // What is in the pipes is to be in the log, and in its copy.
        if let Some(client) = Client::connect(self.dir)? {
            client.request(&Request::Drain, &[])?;
        }
        let difference = if self.ignore_rootfs { None } else { Some(checkpoint::difference(self.dir)?) };
        let (difference, misnamed) = difference.map_or((None, 0), |(file, misnamed)| (Some(file), misnamed));
        let contents = Contents {
            record: self.record,
            created_at: self.at,
            images: &checkpoint::unfinished(self.dir),
            difference: difference.as_ref(),
            bundle: &self.dir.bundle,
        };
        checkpoint::write(to, compression, &contents)?;
        Ok(misnamed)
    }
}
