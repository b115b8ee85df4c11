//! Writing the archive, as a stream.

use crate::{DIFFERENCE, HEAD, Head, IMAGES, LOGS, RECORD, VERSION, directory, file_in, is_image, log_files};
use fault::{Explain, Fault, Kind, Result};
use flate2::write::GzEncoder;
use layer::pack::{Member, Packer};
use layer::{ItemKind, Time};
use record::Record;
use rootfs::{Content, Sink, Tarball};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

const CHUNK: usize = 256 << 10;
/// zstd's own default, which is quicker than gzip's and packs better.
const ZSTD_LEVEL: i32 = 3;

/// How the archive is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
    None,
}

/// What goes into it.
#[derive(Debug)]
pub struct Contents<'a> {
    pub record: &'a Record,
    /// RFC 3339.
    pub created_at: &'a str,
    /// Directory of criu's images.
    pub images: &'a Path,
    /// What [`crate::difference`] made.
    pub difference: Option<&'a File>,
    /// Where the log is.
    pub bundle: &'a Path,
}

/// Writes it.
///
/// # Errors
/// When something cannot be read, or not be written.
pub fn write(to: impl Write, compression: Compression, contents: &Contents<'_>) -> Result<()> {
    let failed = || "write the archive".to_owned();
    let packing = match compression {
        Compression::Gzip => Packing::Gzip(GzEncoder::new(to, flate2::Compression::default())),
        Compression::Zstd => Packing::Zstd(zstd::Encoder::new(to, ZSTD_LEVEL).explain(failed)?),
        Compression::None => Packing::None(to),
    };
    let packer = Packer::new(BufWriter::with_capacity(CHUNK, packing));
    let packing = members(packer, contents)?
        .into_inner()
        .map_err(|error| Fault::failed("write the archive").because(io::Error::from(error)))?;
    packing.finish().and_then(|mut to| to.flush()).explain(failed)
}

fn members<W: Write>(mut packer: Packer<W>, contents: &Contents<'_>) -> Result<W> {
    let (names, logs) = (images(contents.images)?, log_files(contents.bundle)?);
    let head = Head {
        staves_checkpoint: VERSION,
        created_at: contents.created_at.to_owned(),
        rootfs: contents.difference.is_some(),
        images: names.len(),
        logs: logs.len(),
    };
    let head = serde_json::to_string(&head).explain_as(Kind::Failed, || "write the archive's head".into())?;
    for (name, text) in [(HEAD, head), (RECORD, contents.record.to_line())] {
        packer.begin(&member(name, text.len() as u64))?;
        packer.data(text.as_bytes())?;
    }
    let mut tarball = Tarball::continuing(packer);
    let directory = directory(contents.images)?;
    for name in names {
        let file = file_in(&directory, &name)?;
        add(&mut tarball, &format!("{IMAGES}/{name}"), &file)?;
    }
    if let Some(file) = contents.difference {
        add(&mut tarball, DIFFERENCE, file)?;
    }
    for (name, file) in logs {
        add(&mut tarball, &format!("{LOGS}/{name}"), &file)?;
    }
    tarball.finish()
}

/// Names of the images, in byte order.
fn images(path: &Path) -> Result<Vec<String>> {
    let failed = || format!("read {}", path.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).explain(failed)? {
        let name = entry.explain(failed)?.file_name();
        let name = name.into_string().ok().filter(|name| is_image(name));
        names.push(name.ok_or_else(|| Fault::failed(format!("{} holds what is no image", path.display())))?);
    }
    names.sort_unstable();
    Ok(names)
}

fn add<W: Write>(tarball: &mut Tarball<W>, name: &str, file: &File) -> Result<()> {
    let size = file.metadata().explain(|| format!("read {name}"))?.len();
    tarball.add(&member(name, size), Content::File(file))
}

fn member(name: &str, size: u64) -> Member<'_> {
    Member {
        kind: ItemKind::File,
        path: name.as_bytes(),
        link: &[],
        mode: 0o600,
        uid: 0,
        gid: 0,
        size,
        mtime: Time::default(),
        device: (0, 0),
        xattrs: &[],
    }
}

enum Packing<W: Write> {
    Gzip(GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
    None(W),
}

impl<W: Write> Packing<W> {
    fn finish(self) -> io::Result<W> {
        match self {
            Packing::Gzip(encoder) => encoder.finish(),
            Packing::Zstd(encoder) => encoder.finish(),
            Packing::None(to) => Ok(to),
        }
    }
}

impl<W: Write> Write for Packing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Packing::Gzip(encoder) => encoder.write(bytes),
            Packing::Zstd(encoder) => encoder.write(bytes),
            Packing::None(to) => to.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        // Flushed in the middle, it would pack worse.
        Ok(())
    }
}
