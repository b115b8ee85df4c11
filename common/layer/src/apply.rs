//! Applying one layer to a directory.

use crate::archive::{Archive, Entry, Kind, clean};
use crate::decode::{IN_FLIGHT, Pieces, decode};
use crate::flat::Written;
use crate::limits::Limits;
use crate::name::{self, Name};
use crate::scan::kind_of;
use crate::tree::{Manner, Metadata, Skipped, Tree, os, show};
use crate::unset::Unset;
use fault::{Fault, Result};
use oci::Digest;
use oci::digest::Hasher;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, Timespec, Timestamps, ftruncate, mknodat, seek, symlinkat};
use rustix::io::Errno;
use std::io::{BufRead, Read};
use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

/// What a layer has to be. What is `None` is not checked and, where that costs time, not computed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected<'a> {
    /// Digest of the blob as it is read.
    pub digest: Option<&'a Digest>,
    /// Digest of the tar inside.
    pub diff_id: Option<&'a Digest>,
}

/// What a layer turned out to be.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    pub entries: u64,
    /// Bytes of file content written.
    pub content_bytes: u64,
    /// Bytes of the uncompressed tar.
    pub tar_bytes: u64,
    /// Bytes of the blob.
    pub blob_bytes: u64,
    pub skipped: Skipped,
    /// Lines about what could not be set.
    pub unset: u64,
}

/// The directory layers are applied to.
pub struct Target {
    tree: Tree,
    /// Only for whiteouts that are carried out: what the present layer wrote, which they spare.
    written: Option<Written>,
    layers: usize,
    /// Names are names: nothing is a whiteout.
    plain: bool,
    /// Whose everything is, whatever the archive says.
    owner: Option<(u32, u32)>,
    /// When everything was modified, whatever the archive says.
    time: Option<Timespec>,
}

impl Target {
    /// One layer for overlayfs: whiteouts become character devices 0:0 and opaque attributes.
    pub fn layer(root: OwnedFd) -> Target {
        Target::new(root, true)
    }

    /// Several layers, one over the other, lowest first: whiteouts remove what they name.
    pub fn flat(root: OwnedFd) -> Target {
        Target::new(root, false)
    }

    /// An archive of files that is no layer: what is named like a whiteout is a file like any other.
    pub fn plain(root: OwnedFd) -> Target {
        Target { plain: true, ..Target::new(root, false) }
    }

    fn new(root: OwnedFd, overlay: bool) -> Target {
        let privileged = rustix::process::geteuid().is_root();
        Target {
            tree: Tree::new(root, Manner { overlay, privileged }),
            written: None,
            layers: 0,
            plain: false,
            owner: None,
            time: None,
        }
    }

    /// Everything belongs to them.
    #[must_use]
    pub fn owned_by(self, uid: u32, gid: u32) -> Target {
        Target { owner: Some((uid, gid)), ..self }
    }

    /// Everything was modified then, in seconds since 1970.
    #[must_use]
    pub fn dated(self, seconds: i64) -> Target {
        Target { time: Some(Timespec { tv_sec: seconds, tv_nsec: 0 }), ..self }
    }

    /// What cannot be set goes into this file, a line of JSON for each entry. It is made when there is something to write.
    #[must_use]
    pub fn recording(mut self, file: PathBuf) -> Target {
        self.tree.record(Unset::at(file));
        self
    }
}

/// Applies a layer: `blob` is its bytes as the registry has them, gzip, zstd or plain.
///
/// # Errors
/// [`fault::Kind::Input`] for anything wrong with the layer, [`fault::Kind::Failed`] for a full disk. The directory is then in
/// no state to be used.
pub fn apply<R: Read + Send>(
    blob: R,
    expected: Expected<'_>,
    limits: &Limits,
    target: &mut Target,
) -> Result<Applied> {
    target.written =
        if target.tree.manner.overlay || target.layers == 0 { None } else { Some(Written::default()) };
    target.layers += 1;
    if target.layers == 1 {
        target.tree.imply_root()?;
    }
    let (full_in, full_out) = sync_channel(IN_FLIGHT);
    let (empty_in, empty_out) = sync_channel(IN_FLIGHT + 2);
    let blob_hasher = expected.digest.map(|digest| Hasher::new(digest.algorithm()));
    let tar_hasher = expected.diff_id.map(|digest| Hasher::new(digest.algorithm()));
    std::thread::scope(|scope| {
        // Owned by the thread, so that its end, however it comes, ends the stream.
        let reader = std::thread::Builder::new()
            .name("inflate".into())
            .spawn_scoped(scope, move || decode(blob, blob_hasher, limits, &full_in, &empty_out))
            .map_err(|e| Fault::failed("start a thread").because(e))?;
        let mut archive = Archive::new(Pieces::new(full_out, empty_in, tar_hasher));
        let mut applied = Applied::default();
        let outcome = write_entries(&mut archive, limits, target, &mut applied);
        let rest = outcome.and_then(|()| {
            target.tree.finish()?;
            Ok(archive.into_inner().finish())
        });
        // Only now: what is not read to its end is dropped, which releases the reader if it waits to send.
        let Ok(decoded) = reader.join() else {
            return Err(Fault::failed("the inflating thread ended early"));
        };
        // A reader that failed is why the archive seemed to be cut short.
        let (decoded, (diff_id, tar_bytes)) = match (decoded, rest) {
            (Err(fault), Ok(_)) => return Err(fault),
            (Err(fault), Err(other)) if other.kind() == fault::Kind::Input => return Err(fault),
            (_, Err(other)) => return Err(other),
            (Ok(decoded), Ok(rest)) => (decoded, rest),
        };
        same("digest", expected.digest, decoded.digest.as_ref())?;
        same("diff id", expected.diff_id, diff_id.as_ref())?;
        applied.tar_bytes = tar_bytes;
        applied.blob_bytes = decoded.bytes;
        applied.skipped = std::mem::take(&mut target.tree.skipped);
        applied.unset = target.tree.recorded();
        Ok(applied)
    })
}

fn same(what: &str, wanted: Option<&Digest>, actual: Option<&Digest>) -> Result<()> {
    match (wanted, actual) {
        (Some(wanted), Some(actual)) if wanted != actual => {
            Err(Fault::input(format!("the layer's {what} is {actual} where {wanted} was promised")))
        }
        _ => Ok(()),
    }
}

fn write_entries<R: BufRead>(
    archive: &mut Archive<R>,
    limits: &Limits,
    target: &mut Target,
    applied: &mut Applied,
) -> Result<()> {
    let mut entry = Entry::default();
    let mut path = Vec::new();
    while archive.next(&mut entry)? {
        applied.entries += 1;
        if applied.entries > limits.entries {
            return Err(Fault::input(format!("the layer has more than {} entries", limits.entries)));
        }
        applied.content_bytes = applied.content_bytes.saturating_add(entry.size);
        clean(&entry.raw_path, &mut path)
            .and_then(|()| one_entry(archive, &entry, &path, target))
            .map_err(|fault| fault.on(show(&entry.raw_path)))?;
    }
    Ok(())
}

fn one_entry<R: BufRead>(
    archive: &mut Archive<R>,
    entry: &Entry,
    path: &[u8],
    target: &mut Target,
) -> Result<()> {
    let name = match name::read(path) {
        _ if target.plain => name::split(path).1,
        read => match read? {
            Name::Plain(name) => name,
            Name::Whiteout { dir, hidden } => return whiteout(dir, hidden, target),
            Name::Opaque { dir } => return opaque(dir, target),
            Name::Ignored => return Ok(()),
        },
    };
    if let Some(written) = &mut target.written {
        written.note(path);
    }
    let metadata = Metadata {
        kind: kind_of(entry.kind),
        device: entry.device,
        mode: entry.mode,
        uid: target.owner.map_or(entry.uid, |(uid, _)| uid),
        gid: target.owner.map_or(entry.gid, |(_, gid)| gid),
        times: Timestamps {
            last_access: target.time.or(entry.atime).unwrap_or(entry.mtime),
            last_modification: target.time.unwrap_or(entry.mtime),
        },
        xattrs: &entry.xattrs,
    };
    if path.is_empty() {
        return match entry.kind {
            Kind::Directory => target.tree.dress_root(&metadata),
            // As docker's ADD: the directory it is unpacked into stays what it is.
            _ if target.plain => Ok(()),
            _ => Err(Fault::input("the root of a layer can only be a directory")),
        };
    }
    let tree = &mut target.tree;
    match entry.kind {
        Kind::Directory => tree.directory(path, &metadata),
        Kind::File => file(archive, entry, path, name, tree, &metadata),
        Kind::Symlink => symlink(&entry.link, path, name, tree, &metadata),
        Kind::HardLink => {
            let mut link = Vec::new();
            clean(&entry.link, &mut link)
                .map_err(|_| Fault::input("its hard link leads out of the layer"))?;
            tree.enter_parent(path)?;
            tree.hard_link(&link, name, path)
        }
        Kind::CharDevice => device(entry, FileType::CharacterDevice, path, name, tree, &metadata),
        Kind::BlockDevice => device(entry, FileType::BlockDevice, path, name, tree, &metadata),
        Kind::Fifo => device(entry, FileType::Fifo, path, name, tree, &metadata),
    }
}

fn opaque(dir: &[u8], target: &mut Target) -> Result<()> {
    match (&mut target.written, target.tree.manner.overlay) {
        (_, true) => target.tree.hide_all(dir),
        (Some(written), false) => crate::flat::empty(&mut target.tree, dir, written),
        // The lowest layer has nothing below it to hide.
        (None, false) => Ok(()),
    }
}

fn whiteout(dir: &[u8], hidden: &[u8], target: &mut Target) -> Result<()> {
    let path = name::join(dir, hidden);
    match (&mut target.written, target.tree.manner.overlay) {
        (_, true) => {
            target.tree.enter_parent(&path)?;
            target.tree.hide(hidden, &path)
        }
        (Some(written), false) => crate::flat::remove(&mut target.tree, &path, written),
        (None, false) => Ok(()),
    }
}

fn file<R: BufRead>(
    archive: &mut Archive<R>,
    entry: &Entry,
    path: &[u8],
    name: &[u8],
    tree: &mut Tree,
    metadata: &Metadata<'_>,
) -> Result<()> {
    tree.enter_parent(path)?;
    let fd = tree.create(name, path, metadata.mode)?;
    let failed = |error| os("write", path, error);
    match &entry.sparse {
        None => copy(archive, fd.as_fd(), u64::MAX).map_err(|e| e.explain(failed))?,
        Some(sparse) => {
            // Holes are what is not written.
            ftruncate(&fd, sparse.size).map_err(failed)?;
            for segment in &sparse.segments {
                seek(&fd, rustix::fs::SeekFrom::Start(segment.offset)).map_err(failed)?;
                copy(archive, fd.as_fd(), segment.length).map_err(|e| e.explain(failed))?;
            }
        }
    }
    tree.dress_file(fd.as_fd(), metadata, path)
}

enum CopyError {
    Archive(Fault),
    Write(Errno),
}

impl CopyError {
    fn explain(self, write: impl FnOnce(Errno) -> Fault) -> Fault {
        match self {
            CopyError::Archive(fault) => fault,
            CopyError::Write(error) => write(error),
        }
    }
}

/// Writes at most `limit` bytes of the entry's data, straight from the buffers they were inflated into.
fn copy<R: BufRead>(archive: &mut Archive<R>, fd: BorrowedFd<'_>, limit: u64) -> Result<(), CopyError> {
    let mut left = limit;
    while left > 0 {
        let data = archive.data().map_err(CopyError::Archive)?;
        let length = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 {
            break;
        }
        let written = match rustix::io::write(fd, &data[..length]) {
            Ok(0) => return Err(CopyError::Write(Errno::NOSPC)),
            Ok(written) => written,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(CopyError::Write(error)),
        };
        archive.consume(written);
        left -= written as u64;
    }
    Ok(())
}

fn symlink(to: &[u8], path: &[u8], name: &[u8], tree: &mut Tree, metadata: &Metadata<'_>) -> Result<()> {
    name::check_symlink(to)?;
    tree.enter_parent(path)?;
    tree.replacing(name, path, "make symbolic link", |dir| symlinkat(to, dir, name))?;
    tree.dress_special(name, metadata, false, path)
}

fn device(
    entry: &Entry,
    kind: FileType,
    path: &[u8],
    name: &[u8],
    tree: &mut Tree,
    metadata: &Metadata<'_>,
) -> Result<()> {
    tree.enter_parent(path)?;
    let (major, minor) = entry.device;
    if kind == FileType::CharacterDevice && (major, minor) == (0, 0) {
        // To overlayfs this is a deletion, which is written as .wh.NAME in a layer.
        tree.skipped.note(|s| &mut s.devices, path, b"");
        return tree.write_absent(metadata, path);
    }
    let device = if kind == FileType::Fifo { 0 } else { rustix::fs::makedev(major, minor) };
    let mode = Mode::from_raw_mode(metadata.mode & 0o777);
    let made = tree.replacing(name, path, "make device", |dir| mknodat(dir, name, kind, mode, device));
    match made {
        // An ordinary user may not make devices, root in some containers neither.
        Err(fault) if kind != FileType::Fifo && fault.kind() == fault::Kind::Denied => {
            if tree.manner.privileged {
                tree.skipped.note(|s| &mut s.devices, path, b"");
                return tree.write_absent(metadata, path);
            }
            tree.skipped.stand_ins += 1;
            let fd = tree.create(name, path, metadata.mode)?;
            tree.dress_file(fd.as_fd(), metadata, path)
        }
        Err(fault) => Err(fault),
        Ok(()) => tree.dress_special(name, metadata, true, path),
    }
}
