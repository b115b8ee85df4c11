//! Archives: plain, or packed with gzip, zstd, xz or bzip2. Their content tells, names may lie.

use fault::{Fault, Result};
use image::archive::Packing;
use layer::archive::{Archive, Entry};
use layer::{Applied, Expected, Limits, Target};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

/// Large enough that a system call costs little, small enough for a second-level cache.
const CHUNK: usize = 128 << 10;
/// What the dictionary of an xz archive may take: `xz -9` needs 65 MiB, and no archive chooses how much memory we use.
const MAX_XZ_MEMORY: u64 = 96 << 20;

/// An archive's stream as [`layer::apply`] takes it.
pub enum Packed<R: Read> {
    /// Plain, gzip, zstd: it knows those itself.
    AsIs(BufReader<R>),
    Xz(Box<liblzma::bufread::XzDecoder<BufReader<R>>>),
    Bzip2(Box<bzip2::bufread::MultiBzDecoder<BufReader<R>>>),
}

impl<R: Read> Packed<R> {
    pub fn new(from: R) -> Result<Packed<R>> {
        let mut from = BufReader::with_capacity(CHUNK, from);
        let start = from.fill_buf().map_err(|error| Fault::failed("read the archive").because(error))?;
        Ok(match Packing::of(start) {
            Packing::Xz => {
                let stream =
                    liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, liblzma::stream::CONCATENATED)
                        .map_err(|error| Fault::failed("start xz").because(error))?;
                Packed::Xz(Box::new(liblzma::bufread::XzDecoder::new_stream(from, stream)))
            }
            Packing::Bzip2 => Packed::Bzip2(Box::new(bzip2::bufread::MultiBzDecoder::new(from))),
            _ => Packed::AsIs(from),
        })
    }

    /// The bytes of the tar inside.
    fn plain<'a>(self) -> Result<Box<dyn Read + 'a>>
    where
        R: 'a,
    {
        Ok(match self {
            Packed::AsIs(from) => Box::new(image::archive::inflated(from)?),
            Packed::Xz(from) => from,
            Packed::Bzip2(from) => from,
        })
    }
}

impl<R: Read + Send> Packed<R> {
    /// Unpacks into a directory.
    pub fn apply(self, target: &mut Target) -> Result<Applied> {
        let (expected, limits) = (Expected::default(), Limits::default());
        let applied = match self {
            Packed::AsIs(from) => layer::apply(from, expected, &limits, target),
            Packed::Xz(from) => layer::apply(from, expected, &limits, target),
            Packed::Bzip2(from) => layer::apply(from, expected, &limits, target),
        };
        applied.map_err(|fault| match fault.hint_text() {
            Some(hint) if hint.contains("--max-ratio") => fault.hint("unpack it by hand if it is not a bomb"),
            _ => fault,
        })
    }
}

/// Whether the first member of an archive can be read. An empty one is a file like any other, as it is for docker.
pub fn is_archive<R: Read + Seek>(from: &mut R) -> bool {
    if from.seek(SeekFrom::Start(0)).is_err() {
        return false;
    }
    let Ok(plain) = Packed::new(from).and_then(Packed::plain) else { return false };
    let mut entry = Entry::default();
    Archive::new(BufReader::new(plain)).next(&mut entry).unwrap_or(false)
}
