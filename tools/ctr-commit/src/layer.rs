//! The new layer: an archive that is packed, hashed and stored as it is written.

use crate::Compression;
use cli::{Explain, Fault, Result};
use flate2::write::GzEncoder;
use layer::ItemKind;
use layer::pack::Member;
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use oci::manifest::media_type as mt;
use rootfs::{Change, Content, Root, Sink, Tally, Tarball, Visitor, Walk};
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
    /// Files that no layer can hold.
    pub misnamed: u64,
}

/// Takes changes, or all files.
pub struct Writer<'p> {
    tarball: Tarball<BufWriter<Hashing<'p>>>,
    members: u64,
    misnamed: u64,
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
        // No layer has sparse files: not every engine reads them.
        let tarball = Tarball::new(BufWriter::with_capacity(CHUNK, hashing), false);
        Ok(Writer { tarball, members: 0, misnamed: 0, media_type })
    }

    /// All files of a root directory, itself included.
    pub fn whole(&mut self, root: &Root) -> Result<()> {
        rootfs::walk(
            root.as_fd(),
            Walk { owners: root.owners(), ..Walk::default() },
            self,
            &mut Tally::default(),
        )
    }

    /// The blob gets its name.
    pub fn finish(self, settle: &Settle) -> Result<NewLayer> {
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
        Ok(NewLayer {
            digest,
            diff_id,
            size,
            media_type: self.media_type,
            members: self.members,
            misnamed: self.misnamed,
        })
    }

    /// A mark of a layer (image-spec, layer.md, "Whiteouts"): an empty file, which is nobody's and of no time, so that the same changes
    /// always make the same layer.
    fn mark(&mut self, dir: &[u8], name: &[u8]) -> Result<()> {
        let path = if dir.is_empty() { name.to_vec() } else { [dir, b"/", name].concat() };
        let member = Member {
            kind: ItemKind::File,
            path: &path,
            link: &[],
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: layer::Time::default(),
            device: (0, 0),
            xattrs: &[],
        };
        self.members += 1;
        self.tarball.add(&member, Content::Nothing)
    }

    fn put(&mut self, member: &Member<'_>, content: Content<'_>) -> Result<()> {
        let is_misnamed =
            |path: &[u8]| path.split(|byte| *byte == b'/').any(|name| name.starts_with(b".wh."));
        if is_misnamed(member.path) || (member.kind == ItemKind::HardLink && is_misnamed(member.link)) {
            self.misnamed += 1;
            return Ok(());
        }
        self.members += 1;
        self.tarball.add(member, content)
    }
}

impl Sink for Writer<'_> {
    fn add(&mut self, member: &Member<'_>, content: Content<'_>) -> Result<()> {
        self.put(member, content)
    }
}

impl Visitor for Writer<'_> {
    fn there(&mut self, _: Change, member: &Member<'_>, content: Content<'_>) -> Result<()> {
        self.put(member, content)
    }

    fn deleted(&mut self, path: &[u8], hidden: bool) -> Result<()> {
        if hidden {
            return Ok(());
        }
        let (dir, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&[][..], path),
        };
        self.mark(dir, &[b".wh.", name].concat())
    }

    fn opaque(&mut self, path: &[u8]) -> Result<()> {
        self.mark(path, b".wh..wh..opq")
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
