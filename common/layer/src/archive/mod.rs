//! A tar archive as a stream of entries. Own framing around the `tar` crate's header types, because that crate's reader
//! takes extended headers of any size into memory and allocates for every entry.

pub mod header;
pub mod pax;
pub mod sparse;

use crate::limits::{MAX_LONG_NAME, MAX_PATH, MAX_PAX};
use fault::{Fault, Result};
use header::{BLOCK, Fields};
use pax::Extended;
use rustix::fs::Timespec;
use sparse::{Segment, Sparse};
use std::io::{self, BufRead, Read};
use tar::{GnuExtSparseHeader, Header};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry. Reused from one to the next, so that names cost no allocation.
#[derive(Debug)]
pub struct Entry {
    pub kind: Kind,
    /// As in the archive.
    pub raw_path: Vec<u8>,
    /// Target of a link, as in the archive.
    pub link: Vec<u8>,
    /// Bytes of data that follow in the archive.
    pub size: u64,
    /// Permission bits with set-uid, set-gid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Timespec,
    pub atime: Option<Timespec>,
    /// Major, minor.
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub sparse: Option<Sparse>,
}

const NO_TIME: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

impl Default for Entry {
    fn default() -> Entry {
        Entry {
            kind: Kind::File,
            raw_path: Vec::new(),
            link: Vec::new(),
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: NO_TIME,
            atime: None,
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// Reads entries one after the other; what a caller leaves of an entry's data is skipped.
pub struct Archive<R> {
    input: R,
    /// Of the present entry's data and its padding.
    left: u64,
    padding: u64,
    position: u64,
}

fn cut_short() -> Fault {
    Fault::input("the archive is cut short")
}

/// A reader over the network or of a packed stream hands its own failure up inside the I/O error.
fn unreadable(error: std::io::Error) -> Fault {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return cut_short();
    }
    match error.downcast::<Fault>() {
        Ok(fault) => fault,
        Err(error) => Fault::input("the archive cannot be read").because(error),
    }
}

/// What [`Archive::reader`] gives.
pub struct EntryData<'a, R>(&'a mut Archive<R>);

impl<R: BufRead> Read for EntryData<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let data = self.0.data().map_err(io::Error::other)?;
        let length = data.len().min(buffer.len());
        buffer[..length].copy_from_slice(&data[..length]);
        self.0.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> Archive<R> {
    pub fn new(input: R) -> Archive<R> {
        Archive { input, left: 0, padding: 0, position: 0 }
    }

    /// The bytes themselves, before or between entries.
    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    pub fn into_inner(self) -> R {
        self.input
    }

    /// The next entry; false at the end of the archive, which two blocks of zeros mark, or the end of the stream
    /// (GNU tar accepts that too; a layer cut there does not have its digest).
    pub fn next(&mut self, entry: &mut Entry) -> Result<bool> {
        let mut extended = Extended::default();
        let mut extended_left = MAX_PAX;
        let mut long_name: Option<Vec<u8>> = None;
        let mut long_link: Option<Vec<u8>> = None;
        // A run of headers that only prepare an entry is work for nothing: bounded.
        for _ in 0..64 {
            self.skip()?;
            let mut block = [0u8; BLOCK];
            if !self.read_header(&mut block)? {
                return Ok(false);
            }
            let fields = header::fields(&block)?;
            match fields.kind {
                b'x' | b'X' => {
                    pax::parse(&self.read_small(&fields, extended_left)?, &mut extended)?;
                    extended_left -= fields.size;
                }
                b'L' => long_name = Some(without_nul(self.read_small(&fields, MAX_LONG_NAME)?)),
                b'K' => long_link = Some(without_nul(self.read_small(&fields, MAX_LONG_NAME)?)),
                // Defaults for all later entries, a comment as a rule: not applied, as in docker. And a volume's label.
                b'g' | b'V' => self.start_data(fields.size)?,
                _ => {
                    self.fill(entry, &block, &fields, extended, long_name.as_deref(), long_link.as_deref())?;
                    return Ok(true);
                }
            }
        }
        Err(Fault::input("malformed archive: extended headers without an entry"))
    }

    /// The data of the present entry as a stream, for those who take one.
    pub fn reader(&mut self) -> EntryData<'_, R> {
        EntryData(self)
    }

    /// The data of the present entry that is at hand; empty at its end.
    pub fn data(&mut self) -> Result<&[u8]> {
        if self.left == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf().map_err(unreadable)?;
        if buffer.is_empty() {
            return Err(cut_short());
        }
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..length])
    }

    /// Bytes of the archive read so far; before an entry's data, where that begins.
    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
        self.position += amount as u64;
        self.left = self.left.saturating_sub(amount as u64);
    }

    fn skip(&mut self) -> Result<()> {
        self.left = self.left.saturating_add(std::mem::take(&mut self.padding));
        while self.left > 0 {
            let length = self.data()?.len();
            self.consume(length);
        }
        Ok(())
    }

    fn start_data(&mut self, size: u64) -> Result<()> {
        if size > i64::MAX as u64 {
            return Err(Fault::input("malformed tar header: size"));
        }
        self.left = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn read_header(&mut self, block: &mut [u8; BLOCK]) -> Result<bool> {
        if self.input.fill_buf().map_err(unreadable)?.is_empty() {
            return Ok(false);
        }
        self.input.read_exact(block).map_err(unreadable)?;
        self.position += block.len() as u64;
        // One block of zeros would do for the end; what follows it is not read as entries by anybody.
        Ok(block.iter().any(|b| *b != 0))
    }

    fn read_small(&mut self, fields: &Fields, limit: u64) -> Result<Vec<u8>> {
        if fields.size > limit {
            return Err(Fault::input(format!(
                "an extended header of {} bytes is over the limit of {limit}",
                fields.size
            )));
        }
        self.start_data(fields.size)?;
        let mut content = vec![0; fields.size as usize];
        self.input.read_exact(&mut content).map_err(unreadable)?;
        self.position += fields.size;
        self.left = 0;
        Ok(content)
    }

    fn fill(
        &mut self,
        entry: &mut Entry,
        block: &[u8; BLOCK],
        fields: &Fields,
        extended: Extended,
        long_name: Option<&[u8]>,
        long_link: Option<&[u8]>,
    ) -> Result<()> {
        let header = Header::from_byte_slice(block);
        entry.raw_path.clear();
        let sparse = extended.sparse;
        match sparse.name.as_deref().or(extended.path.as_deref()).or(long_name) {
            Some(path) => entry.raw_path.extend_from_slice(path),
            None => entry.raw_path.extend_from_slice(&header.path_bytes()),
        }
        entry.link.clear();
        match extended.link.as_deref().or(long_link) {
            Some(link) => entry.link.extend_from_slice(link),
            None => entry.link.extend_from_slice(&header.link_name_bytes().unwrap_or_default()),
        }
        entry.kind = kind(fields.kind, &entry.raw_path)?;
        entry.mode = fields.mode;
        entry.uid = id(extended.uid.unwrap_or(fields.uid), "uid")?;
        entry.gid = id(extended.gid.unwrap_or(fields.gid), "gid")?;
        entry.mtime = extended.mtime.unwrap_or(Timespec { tv_sec: fields.mtime, tv_nsec: 0 });
        entry.atime = extended.atime;
        entry.device = fields.device;
        entry.xattrs = extended.xattrs.into_iter().collect();
        entry.sparse = None;
        // Kinds other than files have no data, whatever their size says (so do GNU tar and Go's reader).
        let size = if entry.kind == Kind::File { extended.size.unwrap_or(fields.size) } else { 0 };
        self.start_data(size)?;
        if fields.kind == b'S' {
            let segments = self.old_sparse_map(header)?;
            let real = header.as_gnu().map_or(Ok(size), |gnu| header::natural(&gnu.realsize, "real size"))?;
            entry.sparse = Some(Sparse::new(real, segments, size)?);
        } else if entry.kind == Kind::File && sparse.is_there() {
            let segments = if sparse.map_is_in_data() { self.map_in_data()? } else { sparse.map };
            let real = sparse.real_size.ok_or_else(|| Fault::input("a sparse file without a size"))?;
            entry.sparse = Some(Sparse::new(real, segments, self.left)?);
        }
        entry.size = self.left;
        Ok(())
    }

    fn map_in_data(&mut self) -> Result<Vec<Segment>> {
        let (segments, taken) = sparse::read_map(&mut self.input, self.left)?;
        self.left -= taken;
        self.position += taken;
        Ok(segments)
    }

    /// Four segments fit into the header; more come in blocks between it and the data.
    fn old_sparse_map(&mut self, header: &Header) -> Result<Vec<Segment>> {
        let Some(gnu) = header.as_gnu() else {
            return Err(Fault::input("malformed tar header: a sparse file without GNU's magic"));
        };
        let mut segments = Vec::new();
        sparse::push_slots(&gnu.sparse, &mut segments)?;
        let mut more = gnu.is_extended();
        let mut blocks = 0;
        while more {
            let mut extension = GnuExtSparseHeader::new();
            self.input.read_exact(extension.as_mut_bytes()).map_err(unreadable)?;
            self.position += BLOCK as u64;
            sparse::push_slots(&extension.sparse, &mut segments)?;
            more = extension.isextended[0] == 1;
            blocks += 1;
            if blocks > crate::limits::MAX_SEGMENTS {
                return Err(Fault::input("a sparse file is in too many pieces"));
            }
        }
        Ok(segments)
    }
}

fn kind(flag: u8, path: &[u8]) -> Result<Kind> {
    Ok(match flag {
        // Archives from before 1988 mark directories by their name only.
        0 | b'0' if path.ends_with(b"/") => Kind::Directory,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        other => {
            return Err(Fault::input(format!("unsupported kind of tar entry: {:?}", other as char)));
        }
    })
}

/// The highest number means "no change" to chown(2).
fn id(value: u64, what: &str) -> Result<u32> {
    u32::try_from(value)
        .ok()
        .filter(|id| *id != u32::MAX)
        .ok_or_else(|| Fault::input(format!("malformed tar header: {what} {value}")))
}

fn without_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|b| *b == 0) {
        text.truncate(end);
    }
    text
}

/// Brings a path to its plain form: no leading slash, no empty and no `.` components, `..` taken with what is before it.
/// The root is the empty path.
///
/// Fails when it would leave the root, and for what no path can be.
pub fn clean(raw: &[u8], path: &mut Vec<u8>) -> Result<()> {
    path.clear();
    if raw.contains(&0) {
        return Err(Fault::input("its name holds a NUL"));
    }
    for component in raw.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                if path.is_empty() {
                    return Err(Fault::input("its name leads out of the layer"));
                }
                let parent = path.iter().rposition(|b| *b == b'/').unwrap_or(0);
                path.truncate(parent);
            }
            _ if component.len() > 255 => return Err(Fault::input("its name is longer than 255 bytes")),
            _ => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(component);
            }
        }
    }
    if path.len() > MAX_PATH {
        return Err(Fault::input(format!("its path is longer than {MAX_PATH} bytes")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_brought_to_one_form() {
        let mut out = Vec::new();
        for (raw, wanted) in [
            ("a/b", Some("a/b")),
            ("/a//b/", Some("a/b")),
            ("./a/./b/.", Some("a/b")),
            ("", Some("")),
            ("./", Some("")),
            ("/", Some("")),
            ("a/..", Some("")),
            ("a/../b", Some("b")),
            ("a/b/../../c", Some("c")),
            ("...", Some("...")),
            ("..", None),
            ("a/../..", None),
            ("/../etc", None),
            ("a\0b", None),
        ] {
            assert_eq!(
                clean(raw.as_bytes(), &mut out).ok().map(|()| out.as_slice()),
                wanted.map(str::as_bytes),
                "{raw}"
            );
        }
        assert!(clean(&[b'a'; 256], &mut out).is_err());
        assert!(clean(&b"abc/".repeat(1100), &mut out).is_err());
    }
}
