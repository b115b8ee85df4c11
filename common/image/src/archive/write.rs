//! A tar stream of images. Times, owners and order depend on nothing but what is written: the same images give the same bytes.

use fault::{Explain, Fault, Result};
use layer::output::Output;
use oci::Digest;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

const BLOCK: u64 = 512;
/// As tar writes it: readers of tapes want whole records.
const RECORD: u64 = 20 * BLOCK;
/// Bytes between two steps of a progress bar.
const STRIDE: u64 = 8 << 20;

/// Writes members one after the other; the archive is there when [`Writer::finish`] has returned.
pub struct Writer {
    output: Output,
    written: u64,
}

impl Writer {
    /// To a file, or to stdout.
    pub fn create(into: Option<&Path>) -> Result<Writer> {
        Ok(Writer { output: Output::open(into)?, written: 0 })
    }

    /// A small member.
    pub fn document(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        self.begin(path, bytes.len() as u64)?;
        self.put(bytes)?;
        self.pad(bytes.len() as u64)
    }

    /// A member whose bytes follow by [`Writer::put`]; then [`Writer::pad`].
    pub fn begin(&mut self, path: &str, size: u64) -> Result<()> {
        let mut bytes = Vec::with_capacity(3 * BLOCK as usize);
        let mut header = tar::Header::new_gnu();
        let name = path.as_bytes();
        if header.set_path(path).is_err() {
            // Longer than 100 bytes, as those of SHA-512 are: GNU tar's way, which all readers know.
            let mut long = tar::Header::new_gnu();
            long.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
            long.set_entry_type(tar::EntryType::GNULongName);
            long.set_mode(0o644);
            long.set_size(name.len() as u64 + 1);
            long.set_cksum();
            bytes.extend(long.as_bytes());
            bytes.extend(name);
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
            let short = &name[..name.len().min(100)];
            header.as_old_mut().name[..short.len()].copy_from_slice(short);
        }
        header.set_entry_type(tar::EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        self.put(&bytes)
    }

    /// A blob that is a file, from file to file or pipe in the kernel, without a look at the bytes.
    pub fn file(&mut self, path: &str, size: u64, blob: &File, progress: &mut dyn FnMut(u64)) -> Result<()> {
        self.begin(path, size)?;
        let mut copied = 0;
        while copied < size {
            let piece = &mut { blob }.take(STRIDE.min(size - copied));
            let count = std::io::copy(piece, &mut self.output.file()).map_err(failed)?;
            if count == 0 {
                return Err(Fault::failed(format!("{path} ended after {copied} of {size} bytes")));
            }
            copied += count;
            progress(copied);
        }
        self.written += size;
        self.pad(size)
    }

    pub fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.output.file().write_all(bytes).map_err(failed)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Fills the last block of a member.
    pub fn pad(&mut self, size: u64) -> Result<()> {
        let missing = (BLOCK - size % BLOCK) % BLOCK;
        self.put(&[0; BLOCK as usize][..missing as usize])
    }

    pub fn finish(&mut self) -> Result<()> {
        // Two empty blocks end an archive (POSIX pax, ustar Interchange Format).
        let written = self.written + 2 * BLOCK;
        let end = 2 * BLOCK + (RECORD - written % RECORD) % RECORD;
        self.put(&vec![0; end as usize])?;
        self.output.finish()
    }
}

fn failed(error: std::io::Error) -> Fault {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Fault::failed("write the archive: its reader has gone").because(error);
    }
    Err::<(), _>(error).explain(|| "write the archive".into()).unwrap_err()
}

/// One entry of docker's `manifest.json`; its paths are those of the layout's blobs.
#[must_use]
pub fn docker_entry(config: &Digest, layers: &[Digest], tags: &[String]) -> serde_json::Value {
    let layers: Vec<String> = layers.iter().map(super::blob_path).collect();
    let tags = if tags.is_empty() { serde_json::Value::Null } else { tags.into() };
    serde_json::json!({"Config": super::blob_path(config), "RepoTags": tags, "Layers": layers})
}
