//! Writing an archive: POSIX pax headers ("pax Interchange Format"), extended ones where a plain one cannot say it.

use crate::archive::sparse::Segment;
use crate::scan::{ItemKind, Time, Xattr};
use fault::{Fault, Kind, Result};
use std::fmt::Write as _;
use std::io::{ErrorKind, Write};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Readers of tapes want whole records, as tar writes them.
const RECORD: u64 = 20 * BLOCK as u64;
/// What seven octal digits hold.
const MAX_ID: u32 = 0o777_7777;
/// What eleven octal digits hold.
const MAX_OCTAL: u64 = 0o777_7777_7777;

/// The head of an archive's member.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// A file, link, directory, device or pipe.
    pub kind: ItemKind,
    /// Without a slash in front or at its end.
    pub path: &'a [u8],
    /// Of links.
    pub link: &'a [u8],
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Bytes of content that follow; of everything but files 0.
    pub size: u64,
    pub mtime: Time,
    pub device: (u32, u32),
    pub xattrs: &'a [Xattr],
}

/// Writes members one after the other: [`Packer::begin`], then of a file exactly its bytes by [`Packer::data`].
#[derive(Debug)]
pub struct Packer<W> {
    to: W,
    written: u64,
    /// Of the present member's content.
    left: u64,
    padding: usize,
}

impl<W: Write> Packer<W> {
    pub fn new(to: W) -> Packer<W> {
        Packer { to, written: 0, left: 0, padding: 0 }
    }

    pub fn begin(&mut self, member: &Member<'_>) -> Result<()> {
        self.head(member, member.path, Vec::new())
    }

    /// A file with holes: only the bytes of its segments, which lie in order within its size, follow. (GNU tar's manual, "PAX Format, Version
    /// 1.0": a map in front of the data.) Readers that do not know the format find a file of the map and the data, in a directory
    /// named `GNUSparseFile.0`.
    pub fn begin_sparse(&mut self, member: &Member<'_>, segments: &[Segment]) -> Result<()> {
        let mut segments = segments.to_vec();
        let end = segments.last().map_or(0, |last| last.offset + last.length);
        if end < member.size {
            // The size is told by what is last.
            segments.push(Segment { offset: member.size, length: 0 });
        }
        let mut map = format!("{}\n", segments.len());
        for Segment { offset, length } in &segments {
            let _ = writeln!(map, "{offset}\n{length}");
        }
        let mut map = map.into_bytes();
        map.resize(map.len().next_multiple_of(BLOCK), 0);
        let data: u64 = segments.iter().map(|segment| segment.length).sum();
        let mut extended = Vec::new();
        record(b"GNU.sparse.major", b"1", &mut extended);
        record(b"GNU.sparse.minor", b"0", &mut extended);
        record(b"GNU.sparse.name", member.path, &mut extended);
        record(b"GNU.sparse.realsize", member.size.to_string().as_bytes(), &mut extended);
        let (dir, name) = crate::name::split(member.path);
        let shown = crate::name::join(&crate::name::join(dir, b"GNUSparseFile.0"), name);
        let stored = Member { size: map.len() as u64 + data, ..*member };
        self.head(&stored, &shown, extended)?;
        self.data(&map)
    }

    fn head(&mut self, member: &Member<'_>, path: &[u8], mut extended: Vec<u8>) -> Result<()> {
        self.end()?;
        let kind = match member.kind {
            ItemKind::File => EntryType::Regular,
            ItemKind::HardLink => EntryType::Link,
            ItemKind::Symlink => EntryType::Symlink,
            ItemKind::CharDevice => EntryType::Char,
            ItemKind::BlockDevice => EntryType::Block,
            ItemKind::Directory => EntryType::Directory,
            ItemKind::Fifo => EntryType::Fifo,
            ItemKind::Whiteout | ItemKind::Opaque => {
                return Err(Fault::failed("a whiteout is no member of an archive of files"));
            }
        };
        let mut path = if path.is_empty() { b".".to_vec() } else { path.to_vec() };
        if kind == EntryType::Directory {
            path.push(b'/');
        }
        let mut header = Header::new_ustar();
        put_text(&mut header.as_old_mut().name, &path, b"path", &mut extended);
        put_text(&mut header.as_old_mut().linkname, member.link, b"linkpath", &mut extended);
        put_number(member.uid.into(), MAX_ID.into(), b"uid", &mut extended, |n| header.set_uid(n));
        put_number(member.gid.into(), MAX_ID.into(), b"gid", &mut extended, |n| header.set_gid(n));
        put_number(member.size, MAX_OCTAL, b"size", &mut extended, |n| header.set_size(n));
        put_time(member.mtime, &mut extended, &mut header);
        for (name, value) in member.xattrs {
            record(&[b"SCHILY.xattr.", name.as_slice()].concat(), value, &mut extended);
        }
        header.set_entry_type(kind);
        header.set_mode(member.mode);
        if matches!(kind, EntryType::Char | EntryType::Block) {
            let (major, minor) = member.device;
            header
                .set_device_major(major)
                .and_then(|()| header.set_device_minor(minor))
                .map_err(|e| Fault::failed("write a device's numbers").because(e))?;
        }
        header.set_cksum();
        if !extended.is_empty() {
            self.extension(&extended)?;
        }
        self.put(header.as_bytes())?;
        self.left = member.size;
        self.padding = (BLOCK - (member.size % BLOCK as u64) as usize) % BLOCK;
        Ok(())
    }

    fn extension(&mut self, records: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        header.as_old_mut().name[..9].copy_from_slice(b"PaxHeader");
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        header.set_cksum();
        self.put(header.as_bytes())?;
        self.put(records)?;
        self.put(&[0; BLOCK][..(BLOCK - records.len() % BLOCK) % BLOCK])
    }

    /// A part of the present member's content.
    ///
    /// # Errors
    /// When it is more than was announced.
    pub fn data(&mut self, bytes: &[u8]) -> Result<()> {
        let left = self.left.checked_sub(bytes.len() as u64);
        self.left = left.ok_or_else(|| Fault::failed("write the archive: a file is longer than it was"))?;
        self.put(bytes)
    }

    fn end(&mut self) -> Result<()> {
        if self.left > 0 {
            return Err(Fault::failed("write the archive: a file is shorter than it was"));
        }
        let padding = std::mem::take(&mut self.padding);
        self.put(&[0; BLOCK][..padding])
    }

    /// Two empty blocks and what makes the last record whole.
    pub fn finish(mut self) -> Result<W> {
        self.end()?;
        let end = self.written + 2 * BLOCK as u64;
        let rest = end.next_multiple_of(RECORD) - self.written;
        self.put(&vec![0; rest as usize])?;
        self.to.flush().map_err(failed)?;
        Ok(self.to)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.to.write_all(bytes).map_err(failed)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn failed(error: std::io::Error) -> Fault {
    match error.kind() {
        ErrorKind::BrokenPipe => Fault::failed("write the archive: its reader has gone").because(error),
        _ => Fault::new(Kind::of_io(&error), "write the archive").because(error),
    }
}

/// What does not fit into the field goes into the extended header, as much as fits into the field.
fn put_text(field: &mut [u8; 100], text: &[u8], key: &[u8], extended: &mut Vec<u8>) {
    let short = &text[..text.len().min(field.len())];
    field[..short.len()].copy_from_slice(short);
    if text.len() > field.len() {
        record(key, text, extended);
    }
}

fn put_number(value: u64, max: u64, key: &[u8], extended: &mut Vec<u8>, set: impl FnOnce(u64)) {
    if value > max {
        record(key, value.to_string().as_bytes(), extended);
    }
    set(if value > max { 0 } else { value });
}

fn put_time(time: Time, extended: &mut Vec<u8>, header: &mut Header) {
    let plain = u64::try_from(time.seconds).ok().filter(|seconds| *seconds <= MAX_OCTAL);
    header.set_mtime(plain.unwrap_or(0));
    if plain.is_none() || time.nanoseconds > 0 {
        record(b"mtime", seconds(time).as_bytes(), extended);
    }
}

/// Decimal seconds: a time before 1970 counts its fraction towards the past.
fn seconds(time: Time) -> String {
    let text = match (time.seconds, time.nanoseconds) {
        (seconds, 0) => seconds.to_string(),
        (seconds, nanoseconds) if seconds >= 0 => format!("{seconds}.{nanoseconds:09}"),
        (seconds, nanoseconds) => {
            format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - u64::from(nanoseconds))
        }
    };
    if text.contains('.') { text.trim_end_matches('0').to_owned() } else { text }
}

/// `LENGTH KEY=VALUE\n`, the length counting itself.
fn record(key: &[u8], value: &[u8], to: &mut Vec<u8>) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    to.extend_from_slice(length.to_string().as_bytes());
    to.push(b' ');
    to.extend_from_slice(key);
    to.push(b'=');
    to.extend_from_slice(value);
    to.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_spelt_as_they_are_read() {
        for (time, wanted) in [
            ((1, 0), "1"),
            ((1, 500_000_000), "1.5"),
            ((-1, 0), "-1"),
            ((-2, 750_000_000), "-1.25"),
            ((-1, 999_999_999), "-0.000000001"),
            ((100, 10), "100.00000001"),
        ] {
            assert_eq!(seconds(Time { seconds: time.0, nanoseconds: time.1 }), wanted);
        }
    }

    #[test]
    fn sparse_files_are_read_as_they_were_written() {
        use crate::archive::{Archive, Entry};
        let long = [b"dir/".as_slice(), &b"n".repeat(150)].concat();
        for (segments, data) in [
            (vec![Segment { offset: 0, length: 3 }, Segment { offset: 5000, length: 2 }], &b"abcde"[..]),
            (vec![Segment { offset: 99_998, length: 2 }], b"yz"),
            (vec![], b""),
        ] {
            for path in [b"a/b".as_slice(), &long] {
                let member = Member {
                    kind: ItemKind::File,
                    path,
                    link: b"",
                    mode: 0o640,
                    uid: 1,
                    gid: 2,
                    size: 100_000,
                    mtime: Time { seconds: 7, nanoseconds: 5 },
                    device: (0, 0),
                    xattrs: &[],
                };
                let mut packer = Packer::new(Vec::new());
                packer.begin_sparse(&member, &segments).unwrap();
                packer.data(data).unwrap();
                packer.begin(&Member { path: b"next", size: 0, ..member }).unwrap();
                let packed = packer.finish().unwrap();
                let (mut archive, mut entry) = (Archive::new(packed.as_slice()), Entry::default());
                assert!(archive.next(&mut entry).unwrap());
                assert_eq!((entry.raw_path.as_slice(), entry.mode), (path, 0o640));
                let sparse = entry.sparse.clone().unwrap();
                assert_eq!(sparse.size, 100_000);
                let told: Vec<Segment> =
                    sparse.segments.into_iter().filter(|segment| segment.length > 0).collect();
                assert_eq!(told, segments);
                assert_eq!(archive.data().unwrap(), data);
                assert!(archive.next(&mut entry).unwrap());
                assert_eq!(entry.raw_path, b"next");
                assert!(!archive.next(&mut entry).unwrap());
            }
        }
    }
}
