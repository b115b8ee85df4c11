//! Archives as people send them: plain, or packed with gzip, zstd or xz. The content tells, a name may lie.

use fault::{Fault, Result};
use flate2::bufread::MultiGzDecoder;
use std::io::{self, BufRead, BufReader, Read};

/// Large enough that a system call costs little, small enough for a second-level cache.
const CHUNK: usize = 128 << 10;
/// What the dictionary of an xz archive may take: `xz -9` needs 65 MiB, and no archive chooses how much memory we use.
const MAX_XZ_MEMORY: u64 = 96 << 20;

/// How a stream is packed, from its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    None,
    Gzip,
    Zstd,
    Xz,
    Bzip2,
}

impl Packing {
    /// `start` should have six bytes, if there are as many.
    pub fn of(start: &[u8]) -> Packing {
        match start {
            [0x1f, 0x8b, ..] => Packing::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Packing::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Packing::Xz,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Packing::Bzip2,
            _ => Packing::None,
        }
    }
}

/// The stream unpacked.
///
/// # Errors
/// [`fault::Kind::Input`] for packings that are not supported, and when it cannot be read.
pub fn inflated<'a, R: BufRead + 'a>(mut raw: R) -> Result<Box<dyn BufRead + 'a>> {
    let start = loop {
        match raw.fill_buf() {
            Ok(start) => break start,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::failed("read the archive").because(error)),
        }
    };
    let buffered = |reader: Box<dyn Read + 'a>| -> Box<dyn BufRead + 'a> {
        Box::new(BufReader::with_capacity(CHUNK, reader))
    };
    Ok(match Packing::of(start) {
        Packing::None => Box::new(raw),
        Packing::Gzip => buffered(Box::new(MultiGzDecoder::new(raw))),
        Packing::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(raw);
            buffered(Box::new(decoder.map_err(|error| Fault::failed("start zstd").because(error))?))
        }
        Packing::Xz => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(MAX_XZ_MEMORY, liblzma::stream::CONCATENATED);
            let stream = stream.map_err(|error| Fault::failed("start xz").because(error))?;
            buffered(Box::new(liblzma::bufread::XzDecoder::new_stream(raw, stream)))
        }
        Packing::Bzip2 => {
            return Err(Fault::input("the archive is packed with bzip2, which is not supported")
                .hint("bunzip2 <FILE | …"));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        inflated(bytes).map_err(io::Error::other)?.read_to_end(&mut out)?;
        Ok(out)
    }

    #[test]
    fn content_tells_the_packing() {
        let text = b"staves ".repeat(30_000);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 6);
        xz.write_all(&text).unwrap();
        let zstd = zstd::encode_all(&text[..], 3).unwrap();
        for packed in [text.clone(), gzip.finish().unwrap(), xz.finish().unwrap(), zstd] {
            assert_eq!(read(&packed).unwrap(), text);
            let cut = &packed[..packed.len() / 2];
            assert!(Packing::of(&packed) == Packing::None || read(cut).is_err());
        }
        assert!(read(b"BZh91AY").is_err());
        assert_eq!(read(b"").unwrap(), b"");
    }
}
