//! ADD: archives are unpacked. What is one, its content tells.

use super::{Ownership, Times, Writer};
use crate::archive::{Packed, is_archive};
use crate::content::Known;
use crate::files::{Bytes, reopen};
use crate::select::Pick;
use crate::walk::Facts;
use fault::{Explain, Result};
use rootfs::{failed, show};
use rustix::fd::AsFd;
use rustix::fs::{OFlags, fstat};
use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};

impl Writer<'_> {
    /// Unpacks a file into the destination; says whether it was an archive.
    pub(super) fn unpack(&mut self, pick: &Pick, known: Option<&[Known]>) -> Result<bool> {
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
        let stat = fstat(&file).map_err(|error| failed("look at", &pick.path, error))?;
        if rootfs::kind_of(&stat) != Some(layer::ItemKind::File) {
            return Ok(false);
        }
        let is_unpacked = self.unpack_from(file, pick)?;
        let is_local = self.selection.place.is_some();
        let promised = known.and_then(|known| known.first()).filter(|_| is_local);
        if is_unpacked && promised.is_some_and(|known| !known.facts.is_same(&Facts::of(&stat))) {
            self.written.changed.push(show(&pick.path));
        }
        Ok(is_unpacked)
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
