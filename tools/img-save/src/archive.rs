//! A plan as a tar stream.
//!
//! Times, owners and order depend on nothing but the images: the same ones give the same bytes.

use crate::plan::{Plan, path_of};
use cli::progress::Progress;
use cli::{Explain, Fault, Result};
use std::fs::File;
use std::io::{Read, Write};
use store::{Settle, Store};

const BLOCK: u64 = 512;
/// As tar writes it: readers of tapes want whole records.
const RECORD: u64 = 20 * BLOCK;
/// Bytes between two steps of a progress bar.
const STRIDE: u64 = 8 << 20;

/// # Errors
/// When a blob has gone meanwhile or `to` cannot be written.
pub fn write(plan: &Plan, store: &Store, settle: &Settle, to: &File, progress: &Progress) -> Result<()> {
    let mut written = 0;
    for (path, text) in plan.documents() {
        written += begin(to, path, text.len() as u64)?;
        put(to, text.as_bytes())?;
        written += text.len() as u64 + pad(to, text.len() as u64)?;
    }
    for (digest, size) in plan.blobs() {
        written += begin(to, &path_of(digest), *size)?;
        let blob = store.open_blob(digest, settle)?;
        let mut item = progress.start("", digest.as_str(), "save", Some(*size));
        let mut copied = 0;
        while copied < *size {
            // From file to file or pipe in the kernel, without a look at the bytes: a blob that is open is what it is called.
            let count =
                std::io::copy(&mut (&blob).take(STRIDE.min(*size - copied)), &mut &*to).map_err(failed)?;
            if count == 0 {
                return Err(Fault::failed(format!("blob {digest} ended after {copied} of {size} bytes")));
            }
            copied += count;
            item.set(copied);
        }
        item.done();
        written += size + pad(to, *size)?;
    }
    // Two empty blocks end an archive (POSIX pax, ustar Interchange Format).
    written += 2 * BLOCK;
    let end = 2 * BLOCK + (RECORD - written % RECORD) % RECORD;
    put(to, &vec![0; end as usize])
}

/// A member's header; returns the bytes it took.
fn begin(to: &File, path: &str, size: u64) -> Result<u64> {
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
    put(to, &bytes)?;
    Ok(bytes.len() as u64)
}

/// Fills the last block of a member; returns the bytes it took.
fn pad(to: &File, size: u64) -> Result<u64> {
    let missing = (BLOCK - size % BLOCK) % BLOCK;
    put(to, &[0; BLOCK as usize][..missing as usize])?;
    Ok(missing)
}

fn put(mut to: &File, bytes: &[u8]) -> Result<()> {
    to.write_all(bytes).map_err(failed)
}

fn failed(error: std::io::Error) -> Fault {
    if error.kind() == std::io::ErrorKind::BrokenPipe {
        return Fault::failed("write the archive: its reader has gone").because(error);
    }
    Err::<(), _>(error).explain(|| "write the archive".into()).unwrap_err()
}
