//! A directory becomes an archive.

use fault::{Explain, Fault, Result};
use layer::archive::sparse::Segment;
use layer::pack::{Member, Packer};
use layer::{ItemKind, Time};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, SeekFrom, Stat, fstat, openat, readlinkat, seek, statat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use volume::{attributes, extents};

/// Deepest directory; a path is no longer than the kernel's anyway.
const MAX_DEPTH: usize = 1000;
/// As many pieces of a file as a reader takes.
const MAX_EXTENTS: usize = 60_000;

/// Writes a directory's content, and how it is itself as `./`. `warn`: what could not be kept as it is, and where.
pub fn pack<W: Write>(root: BorrowedFd<'_>, to: W, warn: &mut dyn FnMut(&Path, &str)) -> Result<W> {
    let mut walk = Walk { packer: Packer::new(to), links: HashMap::new(), warn };
    let stat = fstat(root).explain(|| "look at the volume".into())?;
    walk.directory(root, &mut Vec::new(), &stat, 0)?;
    walk.packer.finish()
}

struct Walk<'a, W> {
    packer: Packer<W>,
    /// Inodes of which not all names were come to: the first one, and how many are to come.
    links: HashMap<(u64, u64), (Vec<u8>, u64)>,
    warn: &'a mut dyn FnMut(&Path, &str),
}

impl<W: Write> Walk<'_, W> {
    fn directory(
        &mut self,
        dir: BorrowedFd<'_>,
        path: &mut Vec<u8>,
        stat: &Stat,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Fault::input("directories are too deep").on(show(path)));
        }
        let xattrs = attributes(dir).map_err(|fault| fault.on(show(path)))?;
        self.packer.begin(&Member { xattrs: &xattrs, ..member(ItemKind::Directory, path, stat) })?;
        let mut names = Vec::new();
        for entry in Dir::read_from(dir).explain(|| format!("read {}", show(path)))? {
            let entry = entry.explain(|| format!("read {}", show(path)))?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push(entry.file_name().to_owned());
            }
        }
        // The same volume gives the same archive.
        names.sort_unstable();
        let length = path.len();
        for name in names {
            if length > 0 {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            match self.entry(dir, &name, path, depth) {
                // Removed while this was at work.
                Err(fault) if fault.os_error() == Some(Errno::NOENT.raw_os_error()) => {}
                other => other?,
            }
            path.truncate(length);
        }
        Ok(())
    }

    fn entry(&mut self, dir: BorrowedFd<'_>, name: &CStr, path: &mut Vec<u8>, depth: usize) -> Result<()> {
        let shown = show(path);
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).explain(|| format!("look at {shown}"))?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = |flags| openat(dir, name, flags, Mode::empty()).explain(|| format!("open {shown}"));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let sub = open(flags | OFlags::DIRECTORY)?;
                return self.directory(sub.as_fd(), path, &stat, depth + 1);
            }
            FileType::RegularFile => ItemKind::File,
            FileType::Symlink => ItemKind::Symlink,
            FileType::CharacterDevice => ItemKind::CharDevice,
            FileType::BlockDevice => ItemKind::BlockDevice,
            FileType::Fifo => ItemKind::Fifo,
            _ => {
                (self.warn)(Path::new(OsStr::from_bytes(path)), "left out: a socket is in no archive");
                return Ok(());
            }
        };
        if let Some(first) = self.seen(&stat, path) {
            let link = Member { link: &first, size: 0, ..member(ItemKind::HardLink, path, &stat) };
            return self.packer.begin(&link);
        }
        match kind {
            ItemKind::File => {
                let file = open(flags)?;
                self.file(&file, path).map_err(|fault| fault.on(shown))
            }
            ItemKind::Symlink => {
                let link: CString =
                    readlinkat(dir, name, Vec::new()).explain(|| format!("read the link {shown}"))?;
                self.packer.begin(&Member { link: link.as_bytes(), ..member(kind, path, &stat) })
            }
            _ => self.packer.begin(&member(kind, path, &stat)),
        }
    }

    /// The name under which an inode is in the archive already.
    fn seen(&mut self, stat: &Stat, path: &[u8]) -> Option<Vec<u8>> {
        // Not as wide on every architecture.
        #[allow(clippy::unnecessary_cast)]
        let names = stat.st_nlink as u64;
        if names < 2 {
            return None;
        }
        let inode = (stat.st_dev, stat.st_ino);
        let Some((first, left)) = self.links.get_mut(&inode) else {
            self.links.insert(inode, (path.to_vec(), names - 1));
            return None;
        };
        let found = first.clone();
        *left -= 1;
        if *left == 0 {
            self.links.remove(&inode);
        }
        Some(found)
    }

    fn file(&mut self, file: &OwnedFd, path: &[u8]) -> Result<()> {
        let stat = fstat(file).explain(|| "look at it".into())?;
        let size = stat.st_size as u64;
        let xattrs = attributes(file.as_fd())?;
        let member = Member { xattrs: &xattrs, size, ..member(ItemKind::File, path, &stat) };
        // What takes less on disk than it is long has holes.
        let extents =
            if (stat.st_blocks as u64) * 512 < size { extents(file.as_fd(), size)? } else { vec![(0, size)] };
        let whole = extents == [(0, size)] || size == 0;
        if whole || extents.len() > MAX_EXTENTS {
            self.packer.begin(&member)?;
            return self.content(file, 0, size, path);
        }
        let segments: Vec<Segment> =
            extents.iter().map(|(start, end)| Segment { offset: *start, length: end - start }).collect();
        self.packer.begin_sparse(&member, &segments)?;
        extents.into_iter().try_for_each(|(start, end)| self.content(file, start, end, path))
    }

    /// Exactly so many bytes were announced.
    fn content(&mut self, file: &OwnedFd, start: u64, end: u64, path: &[u8]) -> Result<()> {
        seek(file, SeekFrom::Start(start)).explain(|| "read it".into())?;
        let mut file = File::from(file.try_clone().explain(|| "read it".into())?);
        let mut buffer = vec![0u8; 128 << 10];
        let mut left = end - start;
        let mut shrunk = false;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let mut read =
                if shrunk { 0 } else { file.read(&mut buffer[..most]).explain(|| "read it".into())? };
            if read == 0 {
                if !shrunk {
                    shrunk = true;
                    (self.warn)(
                        Path::new(OsStr::from_bytes(path)),
                        "it became shorter while it was read; filled up with zeros",
                    );
                }
                buffer[..most].fill(0);
                read = most;
            }
            self.packer.data(&buffer[..read])?;
            left -= read as u64;
        }
        Ok(())
    }
}

fn member<'a>(kind: ItemKind, path: &'a [u8], stat: &Stat) -> Member<'a> {
    let is_device = matches!(kind, ItemKind::CharDevice | ItemKind::BlockDevice);
    let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    Member {
        kind,
        path,
        link: b"",
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        size: 0,
        mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
        device: if is_device { device } else { (0, 0) },
        xattrs: &[],
    }
}

fn show(path: &[u8]) -> String {
    if path.is_empty() { ".".to_owned() } else { String::from_utf8_lossy(path).into_owned() }
}
