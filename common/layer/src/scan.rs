//! What a layer lists, and what is in its files, read out of the archive: nothing is unpacked.
//!
//! An archive is read from its beginning to the last entry that is wanted. Only names and metadata are kept; content is
//! hashed or handed on as it passes.

use crate::archive::{Archive, Entry, Kind, clean};
use crate::decode::{IN_FLIGHT, Pieces, decode};
use crate::limits::Limits;
use crate::name::{self, Name};
use crate::tree::show;
use fault::{Fault, Result};
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use std::io::{BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

/// Bytes of holes that are hashed as the zeros they stand for, in one layer. A hostile file has more holes than anybody could hash.
const HASHED_HOLES: u64 = 4 << 30;

/// What an item costs beside its texts: itself, its place in a tree, allocations.
const ITEM_COST: u64 = 256;

/// Memory that listings may take together. Shared between the layers of an image and the images that are compared.
#[derive(Debug)]
pub struct Budget {
    left: AtomicU64,
}

impl Budget {
    /// Bytes of names and metadata: some four million ordinary files.
    pub const DEFAULT: u64 = 1 << 30;

    pub fn new(bytes: u64) -> Budget {
        Budget { left: AtomicU64::new(bytes) }
    }

    pub(crate) fn charge(&self, bytes: u64) -> Result<()> {
        let taken =
            self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
        taken.map(|_| ()).map_err(|_| Fault::input("the layers list more than a listing may hold in memory"))
    }
}

impl Default for Budget {
    fn default() -> Budget {
        Budget::new(Budget::DEFAULT)
    }
}

/// What an item of a layer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ItemKind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
    /// Hides what lower layers have at the path.
    Whiteout,
    /// Hides what lower layers have in the directory.
    Opaque,
}

impl ItemKind {
    /// The word for it in records.
    pub const fn name(self) -> &'static str {
        match self {
            ItemKind::File => "file",
            ItemKind::HardLink => "hardlink",
            ItemKind::Symlink => "symlink",
            ItemKind::CharDevice => "chardevice",
            ItemKind::BlockDevice => "blockdevice",
            ItemKind::Directory => "directory",
            ItemKind::Fifo => "fifo",
            ItemKind::Whiteout => "whiteout",
            ItemKind::Opaque => "opaque",
        }
    }
}

/// Seconds since 1970, and nanoseconds that come on top of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub seconds: i64,
    pub nanoseconds: u32,
}

/// An extended attribute: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// One entry of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Item {
    pub kind: ItemKind,
    /// In plain form, without a slash in front; the root is empty. Of a whiteout the path it hides.
    pub path: Box<[u8]>,
    /// Of a symbolic link its text, of a hard link the path it links to, in plain form.
    pub link: Box<[u8]>,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of content, holes included.
    pub size: u64,
    pub mtime: Time,
    /// Major, minor.
    pub device: (u32, u32),
    /// By name, without those of overlayfs.
    pub xattrs: Box<[Xattr]>,
    /// Digest of a file's content, where it was asked for.
    pub content: Option<Box<Digest>>,
    /// Which entry of the archive it is, from 0.
    pub number: u64,
}

/// Lists a layer: `blob` is its bytes as the registry has them, gzip, zstd or plain. In the archive's order, and all of it: what
/// was listed twice is in the list twice.
///
/// `hash` asks for the digest of each file's content.
///
/// # Errors
/// [`fault::Kind::Input`] for anything wrong with the layer, by the rules of [`crate::apply`], and when it lists more than the limits
/// and the budget allow.
pub fn scan<R: Read + Send>(blob: R, limits: &Limits, budget: &Budget, hash: bool) -> Result<Vec<Item>> {
    with_archive(
        blob,
        limits,
        |_| true,
        |archive| list(archive, limits, budget, hash, &mut |_, _, _| Ok(false)).map(|(items, _)| items),
    )
}
/// What looking for a file in a layer came to.
#[derive(Debug)]
pub enum Sought {
    /// The content was handed on. The rest of the layer was not read.
    Found,
    /// All the layer lists, as of [`scan`].
    Listed(Vec<Item>),
}

/// Lists a layer until the file that is wanted comes, and hands on its content: nothing after it is read. `is_it` is shown what was listed so
/// far, and says whether the last of it, a file, is the one; that a later entry of the same layer replaces it is not seen.
///
/// # Errors
/// As [`scan`], for as much as was read; what `is_it` and `taker` return.
pub fn seek<R: Read + Send>(
    blob: R,
    limits: &Limits,
    budget: &Budget,
    is_it: &mut dyn FnMut(&[Item]) -> Result<bool>,
    taker: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<Sought> {
    let whole = |sought: &Sought| matches!(sought, Sought::Listed(_));
    with_archive(blob, limits, whole, |archive| {
        let (items, found) = list(archive, limits, budget, false, &mut |archive, entry, items| {
            if !is_it(items)? {
                return Ok(false);
            }
            content(archive, entry, taker)?;
            Ok(true)
        })?;
        Ok(if found { Sought::Found } else { Sought::Listed(items) })
    })
}

/// Told of each item as it comes, the last of the list; ends the listing with `true`.
type Visitor<'a> = dyn FnMut(&mut Archive<Pieces>, &Entry, &[Item]) -> Result<bool> + 'a;

fn list(
    archive: &mut Archive<Pieces>,
    limits: &Limits,
    budget: &Budget,
    hash: bool,
    visitor: &mut Visitor<'_>,
) -> Result<(Vec<Item>, bool)> {
    let mut items = Vec::new();
    let mut entry = Entry::default();
    let mut path = Vec::new();
    let mut holes = HASHED_HOLES;
    let mut number = 0;
    while archive.next(&mut entry)? {
        if number >= limits.entries {
            return Err(Fault::input(format!("the layer has more than {} entries", limits.entries)));
        }
        let item = clean(&entry.raw_path, &mut path).and_then(|()| item(&entry, &path, number));
        let item = item.and_then(|mut item| {
            if let Some(item) = &mut item
                && hash
                && item.kind == ItemKind::File
            {
                item.content = Some(Box::new(digest(archive, &entry, &mut holes)?));
            }
            Ok(item)
        });
        if let Some(item) = item.map_err(|fault| fault.on(show(&entry.raw_path)))? {
            budget.charge(cost(&item))?;
            items.push(item);
            if visitor(archive, &entry, &items)? {
                return Ok((items, true));
            }
        }
        number += 1;
    }
    Ok((items, false))
}

fn cost(item: &Item) -> u64 {
    let xattrs: usize = item.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
    ITEM_COST + (2 * item.path.len() + item.link.len() + xattrs) as u64
}

/// `None` for what is no part of any image's file system.
fn item(entry: &Entry, path: &[u8], number: u64) -> Result<Option<Item>> {
    let (kind, path) = match name::read(path)? {
        Name::Plain(_) => (kind_of(entry.kind), path.to_owned()),
        Name::Whiteout { dir, hidden } => (ItemKind::Whiteout, name::join(dir, hidden)),
        Name::Opaque { dir } => (ItemKind::Opaque, dir.to_owned()),
        Name::Ignored => return Ok(None),
    };
    if path.is_empty() && !matches!(kind, ItemKind::Directory | ItemKind::Opaque) {
        return Err(Fault::input("the root of a layer can only be a directory"));
    }
    let mut link = Vec::new();
    match kind {
        ItemKind::Symlink => {
            name::check_symlink(&entry.link)?;
            link.clone_from(&entry.link);
        }
        ItemKind::HardLink => {
            clean(&entry.link, &mut link)
                .map_err(|_| Fault::input("its hard link leads out of the layer"))?;
        }
        _ => {}
    }
    let size = match (&entry.sparse, kind) {
        (Some(sparse), ItemKind::File) => sparse.size,
        (None, ItemKind::File) => entry.size,
        _ => 0,
    };
    Ok(Some(Item {
        kind,
        path: path.into(),
        link: link.into(),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size,
        mtime: Time { seconds: entry.mtime.tv_sec, nanoseconds: entry.mtime.tv_nsec as u32 },
        device: entry.device,
        xattrs: entry.xattrs.iter().filter(|(name, _)| !name::is_overlays(name)).cloned().collect(),
        content: None,
        number,
    }))
}

pub fn kind_of(kind: Kind) -> ItemKind {
    match kind {
        Kind::File => ItemKind::File,
        Kind::HardLink => ItemKind::HardLink,
        Kind::Symlink => ItemKind::Symlink,
        Kind::CharDevice => ItemKind::CharDevice,
        Kind::BlockDevice => ItemKind::BlockDevice,
        Kind::Directory => ItemKind::Directory,
        Kind::Fifo => ItemKind::Fifo,
    }
}

/// Of the content with its holes as zeros; where these are too many, of the map and the data.
fn digest<R: BufRead>(archive: &mut Archive<R>, entry: &Entry, holes: &mut u64) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let of_this = entry.sparse.as_ref().map_or(0, |sparse| sparse.size - entry.size);
    if let Some(left) = holes.checked_sub(of_this) {
        *holes = left;
        content(archive, entry, &mut |bytes| {
            hasher.update(bytes);
            Ok(())
        })?;
        return Ok(hasher.finish());
    }
    for segment in entry.sparse.iter().flat_map(|sparse| &sparse.segments) {
        hasher.update(&segment.offset.to_le_bytes());
        hasher.update(&segment.length.to_le_bytes());
    }
    data(archive, u64::MAX, &mut |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finish())
}

type Taker<'a> = dyn FnMut(&[u8]) -> Result<()> + 'a;

/// Hands on an entry's content, the holes as zeros.
fn content<R: BufRead>(archive: &mut Archive<R>, entry: &Entry, taker: &mut Taker<'_>) -> Result<()> {
    let Some(sparse) = &entry.sparse else { return data(archive, u64::MAX, taker) };
    let mut at = 0;
    for segment in &sparse.segments {
        zeros(segment.offset - at, taker)?;
        data(archive, segment.length, taker)?;
        at = segment.offset + segment.length;
    }
    zeros(sparse.size - at, taker)
}

fn data<R: BufRead>(archive: &mut Archive<R>, limit: u64, taker: &mut Taker<'_>) -> Result<()> {
    let mut left = limit;
    while left > 0 {
        let bytes = archive.data()?;
        let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if length == 0 {
            break;
        }
        taker(&bytes[..length])?;
        archive.consume(length);
        left -= length as u64;
    }
    Ok(())
}

fn zeros(mut count: u64, taker: &mut Taker<'_>) -> Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while count > 0 {
        let length = count.min(ZEROS.len() as u64);
        taker(&ZEROS[..length as usize])?;
        count -= length;
    }
    Ok(())
}

/// A piece of a file's content.
#[derive(Debug)]
pub enum Piece<'a> {
    Start,
    Data(&'a [u8]),
    End,
}

/// Hands on the content of the files whose numbers ([`Item::number`]) are `wanted`, which is in ascending order. Reads no further
/// than the last of them. `taker` gets the place in `wanted` and the pieces one after the other.
///
/// # Errors
/// [`fault::Kind::Input`] for a layer that is malformed before the end of the last file, and what `taker` returns.
pub fn contents<R: Read + Send>(
    blob: R,
    limits: &Limits,
    wanted: &[u64],
    taker: &mut dyn FnMut(usize, Piece<'_>) -> Result<()>,
) -> Result<()> {
    with_archive(
        blob,
        limits,
        |()| false,
        |archive| {
            let mut entry = Entry::default();
            let mut number = 0;
            for (index, wanted) in wanted.iter().enumerate() {
                loop {
                    if !archive.next(&mut entry)? {
                        return Err(Fault::input("the layer has fewer entries than when it was listed"));
                    }
                    number += 1;
                    if number > *wanted {
                        break;
                    }
                }
                taker(index, Piece::Start)?;
                content(archive, &entry, &mut |bytes| taker(index, Piece::Data(bytes)))?;
                taker(index, Piece::End)?;
            }
            Ok(())
        },
    )
}

/// The first byte in which the archives of two layers differ, once they are inflated; `None` when they are the same.
///
/// # Errors
/// [`fault::Kind::Input`] for a layer that cannot be inflated.
pub fn first_difference<A: Read + Send, B: Read + Send>(a: A, b: B, limits: &Limits) -> Result<Option<u64>> {
    with_archive(
        a,
        limits,
        |_| false,
        |a| {
            with_archive(
                b,
                limits,
                |_| false,
                |b| {
                    let (a, b) = (a.input(), b.input());
                    let mut at = 0;
                    loop {
                        let failed = |e| Fault::failed("read a layer").because(e);
                        let (one, other) = (a.fill_buf().map_err(failed)?, b.fill_buf().map_err(failed)?);
                        let length = one.len().min(other.len());
                        let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
                        at += same as u64;
                        if same < length || length == 0 {
                            return Ok(Some(at).filter(|_| same < length || one.len() != other.len()));
                        }
                        a.consume(length);
                        b.consume(length);
                    }
                },
            )
        },
    )
}

/// Reads a blob's archive; one thread inflates, the caller's reads. `whole`: after this outcome what follows the archive's end is
/// read, too, so that damage there is found.
fn with_archive<R: Read + Send, T>(
    blob: R,
    limits: &Limits,
    whole: impl Fn(&T) -> bool,
    read: impl FnOnce(&mut Archive<Pieces>) -> Result<T>,
) -> Result<T> {
    let (full_in, full_out) = sync_channel(IN_FLIGHT);
    let (empty_in, empty_out) = sync_channel(IN_FLIGHT + 2);
    std::thread::scope(|scope| {
        // Owned by the thread, so that its end, however it comes, ends the stream.
        let reader = std::thread::Builder::new()
            .name("inflate".into())
            .spawn_scoped(scope, move || decode(blob, None, limits, &full_in, &empty_out))
            .map_err(|e| Fault::failed("start a thread").because(e))?;
        let mut archive = Archive::new(Pieces::new(full_out, empty_in, None));
        let outcome = read(&mut archive);
        let pieces = archive.into_inner();
        let whole = outcome.as_ref().is_ok_and(whole);
        if whole {
            pieces.finish();
        } else {
            // What is not read to its end is dropped, which releases the reader if it waits to send.
            drop(pieces);
        }
        let Ok(decoded) = reader.join() else {
            return Err(Fault::failed("the inflating thread ended early"));
        };
        match (decoded, outcome) {
            (Err(fault), Ok(_)) if whole => Err(fault),
            // A reader that failed is why the archive seemed to be cut short.
            (Err(fault), Err(other)) if other.kind() == fault::Kind::Input => Err(fault),
            (_, outcome) => outcome,
        }
    })
}
