//! From a blob to the bytes of its tar: one thread reads, hashes and inflates, the caller's hashes and writes.
//! A few buffers go round between the two, so memory stays the same however large the layer.

use crate::limits::Limits;
use fault::{Fault, Kind, Result};
use flate2::bufread::MultiGzDecoder;
use oci::digest::{Digest, Hasher};
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender};

/// Large enough that a system call or a switch of threads costs little, small enough for a second-level cache.
const CHUNK: usize = 128 << 10;
/// Buffers on their way in either direction.
pub const IN_FLIGHT: usize = 4;

/// What the reading side saw.
pub struct Decoded {
    /// Of the compressed bytes, if asked for.
    pub digest: Option<Digest>,
    /// Compressed bytes.
    pub bytes: u64,
}

/// Reads a blob to its end and sends the uncompressed bytes in pieces. The receiver going away ends it quietly.
pub fn decode<R: Read>(
    blob: R,
    hasher: Option<Hasher>,
    limits: &Limits,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<Decoded> {
    let mut raw = BufReader::with_capacity(CHUNK, Counted { blob, hasher, bytes: 0, failure: None });
    let outcome = pump(&mut raw, limits, full, empty);
    let counted = raw.into_inner();
    // Reading went wrong: what the decoder made of that is of no interest.
    if let Some(failure) = counted.failure {
        return Err(failure);
    }
    outcome?;
    Ok(Decoded { digest: counted.hasher.map(Hasher::finish), bytes: counted.bytes })
}

type Raw<R> = BufReader<Counted<R>>;

fn pump<R: Read>(
    raw: &mut Raw<R>,
    limits: &Limits,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<()> {
    // The content tells how it is packed, as in docker and containerd: media types are often wrong, and nothing
    // depends on them here, since the tar has to have its own digest.
    let start = raw.fill_buf().map_err(malformed)?;
    let mut decoder = match start {
        [0x1f, 0x8b, ..] => Decoder::Gzip(Box::new(MultiGzDecoder::new(raw))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Decoder::Zstd(
            zstd::stream::read::Decoder::with_buffer(raw)
                .map_err(|e| Fault::failed("start zstd").because(e))?,
        ),
        [b'B', b'Z', b'h', ..] => return Err(unsupported("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => return Err(unsupported("xz")),
        _ => Decoder::Plain(raw),
    };
    let mut total = 0u64;
    loop {
        let mut chunk = empty.try_recv().unwrap_or_else(|_| vec![0; CHUNK]);
        chunk.resize(CHUNK, 0);
        let filled = decoder.fill(&mut chunk)?;
        if filled == 0 {
            return Ok(());
        }
        total = total.saturating_add(filled as u64);
        check_limits(total, decoder.compressed(), limits)?;
        chunk.truncate(filled);
        if full.send(chunk).is_err() {
            return Ok(());
        }
    }
}

fn check_limits(total: u64, compressed: u64, limits: &Limits) -> Result<()> {
    if limits.bytes.is_some_and(|limit| total > limit) {
        return Err(Fault::input(format!(
            "the layer unpacks to more than the limit of {} bytes",
            limits.bytes.unwrap_or(0)
        )));
    }
    let Some(ratio) = limits.ratio else { return Ok(()) };
    if total > Limits::RATIO_FROM && total / ratio.max(1) > compressed {
        return Err(Fault::input(format!(
            "the layer unpacks to more than {ratio} times its size: {compressed} bytes became {total}"
        ))
        .hint("if it is not a zip bomb, img-unpack --max-ratio lifts the limit"));
    }
    Ok(())
}

enum Decoder<'a, R: Read> {
    Plain(&'a mut Raw<R>),
    Gzip(Box<MultiGzDecoder<&'a mut Raw<R>>>),
    Zstd(zstd::stream::read::Decoder<'a, &'a mut Raw<R>>),
}

impl<R: Read> Decoder<'_, R> {
    /// Reads until the buffer is full or the stream ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let read = match self {
                Decoder::Plain(raw) => raw.read(rest),
                Decoder::Gzip(gzip) => gzip.read(rest),
                Decoder::Zstd(zstd) => zstd.read(rest),
            };
            match read {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(malformed(error)),
            }
        }
        Ok(filled)
    }

    fn compressed(&self) -> u64 {
        match self {
            Decoder::Plain(raw) => raw.get_ref().bytes,
            Decoder::Gzip(gzip) => gzip.get_ref().get_ref().bytes,
            Decoder::Zstd(zstd) => zstd.get_ref().get_ref().bytes,
        }
    }
}

fn unsupported(packing: &str) -> Fault {
    Fault::input(format!("the layer is packed with {packing}, which layers may not be"))
        .hint("gzip, zstd and plain tar are supported")
}

fn malformed(error: io::Error) -> Fault {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return Fault::input("the layer is cut short");
    }
    Fault::input("the layer cannot be inflated").because(error)
}

/// Counts and hashes what is read, and keeps the reader's own failure apart from that of the decoder above it.
struct Counted<R> {
    blob: R,
    hasher: Option<Hasher>,
    bytes: u64,
    failure: Option<Fault>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.blob.read(buffer) {
            Ok(read) => {
                self.bytes = self.bytes.saturating_add(read as u64);
                if let Some(hasher) = &mut self.hasher {
                    hasher.update(&buffer[..read]);
                }
                Ok(read)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure.get_or_insert_with(|| own_failure(error));
                Err(kind.into())
            }
        }
    }
}

/// A reader over the network hands its own fault up inside the I/O error.
fn own_failure(error: io::Error) -> Fault {
    match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) => Fault::new(Kind::of_io(&error), "read the layer").because(error),
    }
}

/// The receiving side: the tar as a buffered reader, hashed as it comes in.
pub struct Pieces {
    full: Receiver<Vec<u8>>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    hasher: Option<Hasher>,
    pub bytes: u64,
}

impl Pieces {
    pub fn new(full: Receiver<Vec<u8>>, empty: SyncSender<Vec<u8>>, hasher: Option<Hasher>) -> Pieces {
        Pieces { full, empty, current: Vec::new(), position: 0, hasher, bytes: 0 }
    }

    /// Reads what is left and gives the digest of all.
    pub fn finish(mut self) -> (Option<Digest>, u64) {
        while self.next_piece() {}
        (self.hasher.take().map(Hasher::finish), self.bytes)
    }

    fn next_piece(&mut self) -> bool {
        let Ok(piece) = self.full.recv() else {
            self.current.clear();
            self.position = 0;
            return false;
        };
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&piece);
        }
        self.bytes += piece.len() as u64;
        let used = std::mem::replace(&mut self.current, piece);
        self.position = 0;
        // Nobody there to take it back: the other side is done.
        let _ = self.empty.try_send(used);
        true
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.current.len() {
            self.next_piece();
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position = (self.position + amount).min(self.current.len());
    }
}
