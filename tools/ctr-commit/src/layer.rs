//! The new layer: an archive that is packed, hashed and stored as it is written.

use crate::Compression;
use cli::{Explain, Fault, Result};
use flate2::write::GzEncoder;
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use oci::manifest::media_type as mt;
use rootfs::{Changes, LayerTarball, Root, Tally, Walk};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use store::{Settle, UnnamedBlob};

const CHUNK: usize = 256 << 10;
/// zstd's own default, which is quicker than gzip's and packs better.
const ZSTD_LEVEL: i32 = 3;

/// A layer in the store that belongs to no image yet.
pub struct NewLayer {
    pub digest: Digest,
    pub diff_id: Digest,
    pub size: u64,
    pub media_type: &'static str,
    /// Members of the archive.
    pub members: u64,
    /// Bytes of the files' content.
    pub bytes: u64,
    /// Files that no layer can hold.
    pub misnamed: u64,
}

/// Takes changes, or all files.
pub struct Writer<'p> {
    tarball: LayerTarball<BufWriter<Hashing<'p>>>,
    media_type: &'static str,
}

impl<'p> Writer<'p> {
    pub fn new(
        blob: UnnamedBlob,
        compression: Compression,
        progress: &'p mut dyn FnMut(u64),
    ) -> Result<Writer<'p>> {
        let blob = Blob { blob, progress };
        let (packer, media_type) = match compression {
            Compression::Gzip => {
                (Packer::Gzip(GzEncoder::new(blob, flate2::Compression::default())), mt::OCI_LAYER_GZIP)
            }
            Compression::Zstd => {
                let encoder = zstd::Encoder::new(blob, ZSTD_LEVEL).explain(|| "begin to pack".into())?;
                (Packer::Zstd(encoder), mt::OCI_LAYER_ZSTD)
            }
            Compression::None => (Packer::None(blob), mt::OCI_LAYER),
        };
        let hashing = Hashing { packer, hasher: Hasher::new(Algorithm::Sha256) };
        let tarball = LayerTarball::new(BufWriter::with_capacity(CHUNK, hashing));
        Ok(Writer { tarball, media_type })
    }

    /// All files of a root directory, itself included.
    pub fn whole(&mut self, root: &Root) -> Result<()> {
        rootfs::walk(
            root.as_fd(),
            Walk { owners: root.owners(), ..Walk::default() },
            &mut self.tarball,
            &mut Tally::default(),
        )
    }

    /// What a container has changed.
    pub fn changes(&mut self, changes: &Changes) -> Result<()> {
        changes.visit(&mut self.tarball)
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.tarball.members == 0
    }

    /// The blob gets its name.
    pub fn finish(self, settle: &Settle) -> Result<NewLayer> {
        let (members, bytes, misnamed) = (self.tarball.members, self.tarball.bytes, self.tarball.misnamed);
        let hashing = self
            .tarball
            .finish()?
            .into_inner()
            .map_err(|error| Fault::failed("write the layer").because(io::Error::from(error)))?;
        let diff_id = hashing.hasher.finish();
        let blob = match hashing.packer {
            Packer::Gzip(encoder) => encoder.finish(),
            Packer::Zstd(encoder) => encoder.finish(),
            Packer::None(blob) => Ok(blob),
        };
        let (digest, size) = blob.explain(|| "write the layer".into())?.blob.commit(settle)?;
        Ok(NewLayer { digest, diff_id, size, media_type: self.media_type, members, bytes, misnamed })
    }
}

struct Blob<'p> {
    blob: UnnamedBlob,
    progress: &'p mut dyn FnMut(u64),
}

impl Write for Blob<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.blob.write(bytes).map_err(io::Error::other)?;
        (self.progress)(self.blob.written());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Packer<'p> {
    Gzip(GzEncoder<Blob<'p>>),
    Zstd(zstd::Encoder<'static, Blob<'p>>),
    None(Blob<'p>),
}

/// Hashes what goes in; the blob hashes what comes out.
struct Hashing<'p> {
    packer: Packer<'p>,
    hasher: Hasher,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = match &mut self.packer {
            Packer::Gzip(encoder) => encoder.write(bytes)?,
            Packer::Zstd(encoder) => encoder.write(bytes)?,
            Packer::None(blob) => blob.write(bytes)?,
        };
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushed in the middle, it would pack worse.
        Ok(())
    }
}
