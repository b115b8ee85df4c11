//! The archive becomes a layer in one pass: stored, hashed packed and unpacked, looked through.

use cli::{Fault, Kind, Result};
use image::archive::inflate::{Packing, inflated};
use layer::Limits;
use layer::archive::{Archive, Entry, clean};
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use oci::manifest::media_type;
use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use store::{Settle, Store, UnnamedBlob};

const CHUNK: usize = 128 << 10;

pub struct Layer {
    pub digest: Digest,
    pub diff_id: Digest,
    pub size: u64,
    pub media_type: &'static str,
}

/// # Errors
/// [`Kind::Input`] when it is no tar, or none a layer can be.
pub fn read_layer(
    store: &Store,
    input: Box<dyn Read>,
    settle: &Settle,
    progress: &mut dyn FnMut(u64),
) -> Result<Layer> {
    let mut input = BufReader::with_capacity(CHUNK, input);
    let start = input
        .fill_buf()
        .map_err(|error| Fault::new(Kind::of_io(&error), "read the archive").because(error))?;
    if start.is_empty() {
        return Err(Fault::input("nothing comes: the stage before it failed or printed nothing"));
    }
    let packing = Packing::of(start);
    let blob = RefCell::new(store.unnamed_blob()?);
    let hasher = RefCell::new(Hasher::new(Algorithm::Sha256));
    let packed_as_it_is = matches!(packing, Packing::Gzip | Packing::Zstd);
    {
        // What a layer may be is kept as it comes; else what is inside.
        let outer = Tee { input, blob: packed_as_it_is.then_some(&blob), hasher: None };
        let plain = inflated(BufReader::with_capacity(CHUNK, outer))?;
        let inner = Tee { input: plain, blob: (!packed_as_it_is).then_some(&blob), hasher: Some(&hasher) };
        look_through(BufReader::with_capacity(CHUNK, inner), &mut || progress(blob.borrow().written()))?;
    }
    let (digest, size) = blob.into_inner().commit(settle)?;
    let media_type = match packing {
        Packing::Gzip => media_type::OCI_LAYER_GZIP,
        Packing::Zstd => media_type::OCI_LAYER_ZSTD,
        _ => media_type::OCI_LAYER,
    };
    Ok(Layer { digest, diff_id: hasher.into_inner().finish(), size, media_type })
}

/// To the end: every name is one the unpacker takes.
fn look_through(input: impl BufRead, progress: &mut dyn FnMut()) -> Result<()> {
    let mut archive = Archive::new(input);
    let mut entry = Entry::default();
    let mut path = Vec::new();
    let mut entries = 0u64;
    let limit = Limits::default().entries;
    while archive.next(&mut entry)? {
        clean(&entry.raw_path, &mut path).map_err(|fault| {
            fault.within(String::from_utf8_lossy(&entry.raw_path).chars().take(200).collect::<String>())
        })?;
        entries += 1;
        if entries > limit {
            return Err(Fault::input(format!("the archive has more than {limit} entries")));
        }
        progress();
    }
    if entries == 0 {
        return Err(Fault::input("it is no archive, or an empty one"));
    }
    // What lies behind the end belongs to the layer's digest.
    let mut rest = archive.into_inner();
    loop {
        let length = match rest.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(buffer) => buffer.len(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                return Err(error
                    .downcast::<Fault>()
                    .unwrap_or_else(|error| Fault::input("the archive cannot be read").because(error)));
            }
        };
        rest.consume(length);
        progress();
    }
}

/// Hands bytes on, and to whoever wants to see them.
struct Tee<'a, R> {
    input: R,
    blob: Option<&'a RefCell<UnnamedBlob>>,
    hasher: Option<&'a RefCell<Hasher>>,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        let piece = buffer.get(..length).unwrap_or_default();
        if let Some(blob) = self.blob {
            blob.borrow_mut().write(piece).map_err(io::Error::other)?;
        }
        if let Some(hasher) = self.hasher {
            hasher.borrow_mut().update(piece);
        }
        Ok(length)
    }
}
