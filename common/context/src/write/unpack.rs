//! ADD: archives are unpacked. What is one, its content tells.

use super::{Ownership, Times, Writer};
use crate::archive::{Packed, is_archive};
use crate::files::{Bytes, reopen};
use crate::select::Pick;
use fault::{Explain, Result};
use rootfs::{failed, show};
use rustix::fd::AsFd;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};

impl Writer<'_> {
    /// Unpacks a file into the destination; says whether it was an archive.
    pub(super) fn unpack(&mut self, pick: &Pick) -> Result<bool> {
        if let Some(Bytes::Here(bytes)) = pick.given.as_ref().map(|given| &given.bytes) {
            return self.unpack_from(Cursor::new(bytes.clone()), pick);
        }
        let file = match (&self.selection.place, &pick.given) {
            (Some(inner), _) => {
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
                File::from(
                    crate::resolve::open_plain(inner.root.as_fd(), &pick.path, flags)
                        .map_err(|error| failed("open", &pick.path, error))?,
                )
            }
            (None, Some(given)) => match &given.bytes {
                Bytes::File(file, ..) => reopen(file)?,
                Bytes::Here(_) => return Ok(false),
            },
            (None, None) => return Ok(false),
        };
        if !file.metadata().explain(|| format!("look at {}", show(&pick.path)))?.is_file() {
            return Ok(false);
        }
        self.unpack_from(file, pick)
    }

    fn unpack_from<R: Read + Seek + Send>(&mut self, mut from: R, pick: &Pick) -> Result<bool> {
        let name = show(&pick.path);
        if !is_archive(&mut from) {
            return Ok(false);
        }
        from.seek(SeekFrom::Start(0)).explain(|| format!("read {name}"))?;
        let dir = self.destination.directory()?;
        let mut target = layer::Target::plain(dir);
        if let Ownership::To { uid, gid } = self.target.ownership {
            target = target.owned_by(uid, gid);
        }
        if let Times::At(seconds) = self.target.times {
            target = target.dated(seconds);
        }
        let applied =
            Packed::new(from)?.apply(&mut target).map_err(|fault| fault.within(format!("unpack {name}")))?;
        self.written.files += applied.entries;
        self.written.bytes += applied.content_bytes;
        self.written.skipped += applied.skipped.devices;
        if self.written.example.is_none() {
            self.written.example = applied.skipped.example;
        }
        self.written.unpacked += 1;
        Ok(true)
    }
}
