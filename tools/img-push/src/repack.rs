//! A layer packed in another way: unpacked, checked and packed again as a stream.

use crate::args::Packing;
use cli::{Fault, Result};
use flate2::bufread::{GzEncoder, MultiGzDecoder};
use oci::Digest;
use oci::digest::Hasher;
use oci::manifest::Compression;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Large enough that a system call or a switch of threads costs little.
const CHUNK: usize = 256 << 10;
/// Packed pieces waiting to be sent.
const IN_FLIGHT: usize = 8;
/// Threads a zstd stream is given at most: each takes some 30 MB at level 3, 60 MB at 9 and 150 MB at 19. The bytes do not depend
/// on how many there are.
const fn threads(level: u8) -> u32 {
    match level {
        0..=9 => 8,
        10..=15 => 4,
        _ => 2,
    }
}

/// Hands the layer in `blob`, packed anew, to `send` as a reader while another thread packs it. Its tar has to have the diff id.
///
/// # Errors
/// What either side says; [`cli::Kind::Input`] for a layer that cannot be unpacked or is another one.
pub fn repack<R>(
    blob: File,
    diff_id: &Digest,
    packing: Packing,
    send: impl FnOnce(&mut dyn Read) -> Result<R>,
) -> Result<R> {
    std::thread::scope(|scope| {
        let (full, coming) = sync_channel(IN_FLIGHT);
        scope.spawn(move || {
            if let Err(error) = pack(blob, diff_id, packing, &full) {
                // Whoever reads has gone, with a reason of their own.
                let _ = full.send(Err(error));
            }
        });
        // Dropped when done, however that went, so that the other thread ends.
        let mut pieces = Pieces { coming, current: Vec::new(), position: 0 };
        send(&mut pieces)
    })
}

type Piece = io::Result<Vec<u8>>;

fn pack(blob: File, diff_id: &Digest, packing: Packing, full: &SyncSender<Piece>) -> io::Result<()> {
    let mut packed = packer(unpacker(blob, diff_id)?, packing)?;
    loop {
        let mut piece = Vec::with_capacity(CHUNK);
        packed.by_ref().take(CHUNK as u64).read_to_end(&mut piece)?;
        if piece.is_empty() || full.send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
}

/// The tar in a blob; the content tells how it is packed, since media types are often wrong.
fn unpacker(blob: File, diff_id: &Digest) -> io::Result<impl BufRead + '_> {
    let mut raw = BufReader::with_capacity(CHUNK, blob);
    let tar: Box<dyn Read> = match raw.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(raw)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            Box::new(zstd::stream::read::Decoder::with_buffer(raw)?)
        }
        _ => Box::new(raw),
    };
    let hasher = Some(Hasher::new(diff_id.algorithm()));
    Ok(BufReader::with_capacity(CHUNK, Checked { tar, hasher, diff_id }))
}

fn packer<'a>(tar: impl BufRead + 'a, packing: Packing) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packing.compression {
        Compression::None => Box::new(tar),
        // No name and no time: the same layer gives the same bytes.
        Compression::Gzip => {
            Box::new(GzEncoder::new(tar, flate2::Compression::new(u32::from(packing.level))))
        }
        Compression::Zstd => {
            let mut encoder = zstd::stream::read::Encoder::with_buffer(tar, i32::from(packing.level))?;
            let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
            encoder.multithread(processors.min(threads(packing.level)))?;
            encoder.include_checksum(true)?;
            Box::new(encoder)
        }
    })
}

/// Hashes a tar while it passes, and fails at its end if it is another one.
struct Checked<'a> {
    tar: Box<dyn Read + 'a>,
    /// Gone once the end was seen.
    hasher: Option<Hasher>,
    diff_id: &'a Digest,
}

impl Read for Checked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.tar.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let fault = Fault::input(format!("layer {} cannot be unpacked", self.diff_id)).because(error);
                return Err(io::Error::other(fault));
            }
            Ok(read) => read,
        };
        if read > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(buffer.get(..read).unwrap_or_default());
            }
            return Ok(read);
        }
        match self.hasher.take().map(Hasher::finish) {
            Some(actual) if actual != *self.diff_id => {
                let diff_id = self.diff_id;
                Err(io::Error::other(Fault::input(format!(
                    "the layer is to have the diff id {diff_id} and has {actual}"
                ))))
            }
            _ => Ok(0),
        }
    }
}

/// The pieces as a reader.
struct Pieces {
    coming: Receiver<Piece>,
    current: Vec<u8>,
    position: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.position >= self.current.len() {
            match self.coming.recv() {
                Ok(piece) => self.current = piece?,
                Err(_) => return Ok(0),
            }
            self.position = 0;
        }
        let rest = self.current.get(self.position..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), rest.get(..count)) {
            to.copy_from_slice(from);
        }
        self.position += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zstd_gives_the_same_bytes_whatever_the_number_of_threads() {
        let tar: Vec<u8> =
            (0..2_500_000u32).flat_map(|number| (number / 3).wrapping_mul(7919).to_le_bytes()).collect();
        let packed = |threads: u32| {
            let mut encoder = zstd::stream::read::Encoder::with_buffer(&tar[..], 1).unwrap();
            encoder.multithread(threads).unwrap();
            let mut bytes = Vec::new();
            encoder.read_to_end(&mut bytes).unwrap();
            bytes
        };
        let one = packed(1);
        assert!(one == packed(2) && one == packed(5));
        assert!(one.len() < tar.len());
    }
}
