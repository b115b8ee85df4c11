//! Members as an archive.

use crate::look::{Content, Sink, show};
use fault::{Explain, Fault, Result};
use layer::archive::sparse::Segment;
use layer::pack::{Member, Packer};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

const CHUNK: usize = 128 << 10;
/// Holes are worth a map of them from this size on, in bytes; readers that know no such maps are spared those of small files.
const WORTHWHILE: u64 = 1 << 20;
/// Files in more pieces are written whole: that is as many as readers take.
const MAX_PIECES: usize = 64 << 10;

/// Writes members into an archive.
#[derive(Debug)]
pub struct Tarball<W> {
    packer: Packer<W>,
    buffer: Vec<u8>,
    sparse: bool,
    /// Files that were shorter at their end than at their beginning, and are filled up with zeros.
    pub shrunk: u64,
}

impl<W: Write> Tarball<W> {
    /// `sparse`: large holes are kept as such (pax format 1.0), else they are written as the zeros they are read as.
    pub fn new(to: W, sparse: bool) -> Tarball<W> {
        Tarball { packer: Packer::new(to), buffer: vec![0; CHUNK], sparse, shrunk: 0 }
    }

    /// Goes on with an archive that was begun.
    pub fn continuing(packer: Packer<W>) -> Tarball<W> {
        Tarball { packer, buffer: vec![0; CHUNK], sparse: false, shrunk: 0 }
    }

    /// # Errors
    /// When it cannot be written.
    pub fn finish(self) -> Result<W> {
        self.packer.finish()
    }

    /// A part of a file, filled up with zeros where it has become shorter.
    fn part(&mut self, file: &File, path: &[u8], at: Segment) -> Result<()> {
        let mut done = 0;
        while done < at.length {
            let wanted = usize::try_from(at.length - done).unwrap_or(CHUNK).min(CHUNK);
            let buffer = &mut self.buffer[..wanted];
            let length = match file.read_at(buffer, at.offset + done) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.explain(|| format!("read {}", show(path)))?,
            };
            if length == 0 {
                self.shrunk += 1;
                return self.zeros(at.length - done);
            }
            self.packer.data(&self.buffer[..length])?;
            done += length as u64;
        }
        Ok(())
    }

    fn zeros(&mut self, mut left: u64) -> Result<()> {
        self.buffer.fill(0);
        while left > 0 {
            let length = left.min(CHUNK as u64);
            self.packer.data(&self.buffer[..length as usize])?;
            left -= length;
        }
        Ok(())
    }
}

impl<W: Write> Sink for Tarball<W> {
    fn add(&mut self, member: &Member<'_>, content: Content<'_>) -> Result<()> {
        match content {
            Content::Nothing => self.packer.begin(member),
            Content::File(file) => {
                let pieces = if self.sparse { pieces(file, member.size) } else { None };
                let Some(pieces) = pieces else {
                    self.packer.begin(member)?;
                    return self.part(file, member.path, Segment { offset: 0, length: member.size });
                };
                self.packer.begin_sparse(member, &pieces)?;
                pieces.iter().try_for_each(|piece| self.part(file, member.path, *piece))
            }
            Content::Stream(input, sparse) => {
                if sparse.is_some() {
                    return Err(Fault::failed("a sparse member cannot be copied from archive to archive"));
                }
                self.packer.begin(member)?;
                let mut left = member.size;
                while left > 0 {
                    let wanted = left.min(CHUNK as u64) as usize;
                    let length =
                        input.read(&mut self.buffer[..wanted]).explain(|| "read the archive".into())?;
                    self.packer.data(&self.buffer[..length])?;
                    left -= length as u64;
                }
                Ok(())
            }
        }
    }
}

/// Where a file has data, if its holes are worth to be told.
fn pieces(file: &File, size: u64) -> Option<Vec<Segment>> {
    if size < WORTHWHILE {
        return None;
    }
    let pieces = data_pieces(file, size)?;
    let data: u64 = pieces.iter().map(|piece| piece.length).sum();
    (size - data >= WORTHWHILE && pieces.len() <= MAX_PIECES).then_some(pieces)
}

/// Where a file has data (lseek(2), `SEEK_DATA`); `None` where the file system does not tell.
pub fn data_pieces(file: &File, size: u64) -> Option<Vec<Segment>> {
    let mut pieces = Vec::new();
    let mut at = 0;
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // Nothing but a hole from here on.
            Err(Errno::NXIO) => break,
            Err(_) => return None,
        };
        let end = seek(file, SeekFrom::Hole(start)).ok()?;
        if start >= size || end <= start {
            break;
        }
        if pieces.len() > MAX_PIECES {
            return None;
        }
        pieces.push(Segment { offset: start, length: end.min(size) - start });
        at = end;
    }
    Some(pieces)
}
