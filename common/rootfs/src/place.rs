//! Members put into a directory that exists.

use crate::look::{Content, Sink, Tally, failed, show};
use crate::open::open_in;
use crate::owners::Owners;
use crate::tarball::data_pieces;
use fault::{Explain, Fault, Result};
use layer::ItemKind;
use layer::archive::sparse::{Segment, Sparse};
use layer::pack::Member;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fchmod, fchown, fstat, ftruncate, futimens, linkat, mkdirat, mknodat, openat, openat2, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;

const CHUNK: usize = 128 << 10;
/// Holes of smaller files are not worth two system calls for each of those that have none.
const SPARSE: u64 = 64 << 10;

/// What is kept of what members are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner<'a> {
    /// Their owners; otherwise everything is the user's who runs this, which in containers is root.
    pub owners: bool,
    /// Who they are where they are put; `None`: the same.
    pub mapped: Option<&'a Owners>,
    /// Their extended attributes.
    pub xattrs: bool,
    /// Devices are made; otherwise they are skipped.
    pub devices: bool,
    /// Set-uid, set-gid.
    pub set_id: bool,
    /// Of an archive: a symbolic link where a directory is needed for what lies below is followed, in this root; with the path the base has in
    /// there. Without, it is in the way.
    pub links_in: Option<(BorrowedFd<'a>, &'a [u8])>,
}

struct Frame {
    fd: OwnedFd,
    /// Length of its path.
    length: usize,
    times: Option<Timestamps>,
}

/// Puts members into a directory, which exists. What is there is replaced, directories are merged; a directory never becomes
/// anything else, nor anything else a directory.
pub struct Placer<'a> {
    /// The first is the base.
    frames: Vec<Frame>,
    path: Vec<u8>,
    manner: Manner<'a>,
    buffer: Vec<u8>,
    /// What was put there, and what was not.
    pub tally: Tally,
}

impl<'a> Placer<'a> {
    /// `base`: a directory, open for reading.
    pub fn new(base: OwnedFd, manner: Manner<'a>) -> Placer<'a> {
        let base = Frame { fd: base, length: 0, times: None };
        Placer {
            frames: vec![base],
            path: Vec::new(),
            manner,
            buffer: vec![0; CHUNK],
            tally: Tally::default(),
        }
    }

    /// Leaves all directories; only then do they have their times.
    ///
    /// # Errors
    /// When these cannot be set.
    pub fn finish(mut self) -> Result<Tally> {
        self.leave_to(0)?;
        Ok(self.tally)
    }

    fn top(&self) -> BorrowedFd<'_> {
        // The base is never left.
        self.frames[self.frames.len() - 1].fd.as_fd()
    }

    fn leave_to(&mut self, depth: usize) -> Result<()> {
        while self.frames.len() > depth + 1 {
            if let Some(frame) = self.frames.pop()
                && let Some(times) = &frame.times
            {
                futimens(&frame.fd, times).map_err(|error| failed("set the times of", &self.path, error))?;
            }
            let length = self.frames[self.frames.len() - 1].length;
            self.path.truncate(length);
        }
        Ok(())
    }

    /// Makes a directory, which may have to be made, the last frame.
    fn enter(&mut self, dir: &[u8]) -> Result<()> {
        let mut depth = self.frames.len() - 1;
        while !is_within(&self.path[..self.frames[depth].length], dir) {
            depth -= 1;
        }
        self.leave_to(depth)?;
        let mut at = self.path.len();
        while at < dir.len() {
            let start = if at == 0 { 0 } else { at + 1 };
            let end =
                dir[start..].iter().position(|byte| *byte == b'/').map_or(dir.len(), |length| start + length);
            let fd = self.step(&dir[..end], &dir[start..end])?;
            self.push(fd, &dir[..end], None);
            at = end;
        }
        Ok(())
    }

    fn push(&mut self, fd: OwnedFd, path: &[u8], times: Option<Timestamps>) {
        self.path.clear();
        self.path.extend_from_slice(path);
        self.frames.push(Frame { fd, length: path.len(), times });
    }

    fn step(&self, path: &[u8], name: &[u8]) -> Result<OwnedFd> {
        match sys::fs::open_dir(self.top(), name) {
            Err(Errno::NOENT) => {
                mkdirat(self.top(), name, Mode::from_raw_mode(0o755))
                    .map_err(|error| failed("make the directory", path, error))?;
                let fd = sys::fs::open_dir(self.top(), name).map_err(|error| failed("open", path, error))?;
                fchmod(&fd, Mode::from_raw_mode(0o755))
                    .map_err(|error| failed("set the mode of", path, error))?;
                Ok(fd)
            }
            Err(Errno::NOTDIR | Errno::LOOP) => self.linked(path),
            other => other.map_err(|error| failed("open", path, error)),
        }
    }

    /// The directory a symbolic link leads to, where they are followed.
    fn linked(&self, path: &[u8]) -> Result<OwnedFd> {
        let in_the_way = || {
            Fault::conflict(format!(
                "{} is in the way: it is no directory, but what is copied needs one there",
                show(path)
            ))
        };
        let (root, base) = self.manner.links_in.ok_or_else(in_the_way)?;
        let whole = [base, b"/", path].concat();
        open_in(root, &whole, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| match error {
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => in_the_way(),
            error => failed("open", path, error),
        })
    }

    /// Whether there is a directory at a name of the present one, which nothing but a directory may replace.
    fn is_directory(&self, name: &[u8], path: &[u8]) -> Result<bool> {
        match statat(self.top(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(failed("look at", path, error)),
        }
    }

    fn directory(&mut self, name: &[u8], member: &Member<'_>) -> Result<()> {
        let path = member.path;
        match mkdirat(self.top(), name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.is_directory(name, path)? => {}
            Err(Errno::EXIST) => {
                return Err(Fault::conflict(format!(
                    "{} is there and no directory: it is not replaced by one",
                    show(path)
                )));
            }
            Err(error) => return Err(failed("make the directory", path, error)),
        }
        let fd = sys::fs::open_dir(self.top(), name).map_err(|error| failed("open", path, error))?;
        self.dress(fd.as_fd(), member)?;
        self.push(fd, path, Some(times(member)));
        Ok(())
    }

    /// Makes something at a name, in place of what is there.
    fn replacing<T>(
        &self,
        name: &[u8],
        path: &[u8],
        make: impl Fn(BorrowedFd<'_>) -> rustix::io::Result<T>,
    ) -> Result<T, Replacing> {
        match make(self.top()) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(|error| Replacing::Fault(failed("make", path, error))),
        }
        if self.is_directory(name, path).map_err(Replacing::Fault)? {
            return Err(Replacing::Fault(Fault::conflict(format!(
                "{} is a directory, which nothing but a directory replaces",
                show(path)
            ))));
        }
        // What is mounted on in another mount namespace alone, the kernel does not keep from being removed, and unmounts it there.
        if is_mounted_on(self.top(), name) {
            return Err(Replacing::Mounted);
        }
        match unlinkat(self.top(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::BUSY) => return Err(Replacing::Mounted),
            Err(error) => return Err(Replacing::Fault(failed("replace", path, error))),
        }
        make(self.top()).map_err(|error| Replacing::Fault(failed("make", path, error)))
    }

    fn file(&mut self, name: &[u8], member: &Member<'_>, content: Content<'_>) -> Result<()> {
        let path = member.path;
        let create = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = self.replacing(name, path, |dir| openat(dir, name, create, Mode::from_raw_mode(0o600)));
        let fd = match made {
            // The file is mounted there: it is written to as it is.
            Err(Replacing::Mounted) => {
                let flags =
                    OFlags::RDWR | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                openat(self.top(), name, flags, Mode::empty())
                    .map_err(|error| failed("write to", path, error))?
            }
            other => other.map_err(|error| error.fault(path))?,
        };
        let file = File::from(fd);
        match content {
            Content::Nothing => {}
            Content::File(from) => self.copy(from, &file, member)?,
            Content::Stream(input, sparse) => self.pour(input, sparse, &file, member)?,
        }
        self.dress(file.as_fd(), member)?;
        futimens(&file, &times(member)).map_err(|error| failed("set the times of", path, error))
    }

    /// From file to file, by the kernel where it can, holes left out.
    fn copy(&mut self, from: &File, to: &File, member: &Member<'_>) -> Result<()> {
        let size = member.size;
        if size == 0 {
            // Files of the kernel's own say nothing of their size.
            return self.drain(from, to, member.path);
        }
        let whole = || vec![Segment { offset: 0, length: size }];
        let pieces = if size < SPARSE { None } else { data_pieces(from, size) };
        let (before, is_whole) = (self.tally.shrunk, pieces.is_none());
        let pieces = pieces.unwrap_or_else(whole);
        for piece in pieces {
            self.copy_piece(from, to, piece, member.path)?;
        }
        if is_whole && self.tally.shrunk == before {
            return Ok(());
        }
        let length = fstat(to).map_err(|error| failed("look at", member.path, error))?.st_size as u64;
        if length < size {
            ftruncate(to, size).map_err(|error| failed("write", member.path, error))?;
        }
        Ok(())
    }

    fn copy_piece(&mut self, from: &File, to: &File, piece: Segment, path: &[u8]) -> Result<()> {
        let (mut at, end) = (piece.offset, piece.offset + piece.length);
        let mut by_kernel = true;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(1 << 30);
            if by_kernel {
                let (mut read, mut write) = (at, at);
                match rustix::fs::copy_file_range(from, Some(&mut read), to, Some(&mut write), wanted) {
                    Ok(length) if length > 0 => {
                        at += length as u64;
                        continue;
                    }
                    Err(Errno::INTR) => continue,
                    Err(error @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => {
                        return Err(failed("write", path, error));
                    }
                    // Between file systems, or of a kind, that cannot; or at its end, which reading tells for certain.
                    _ => {}
                }
                by_kernel = false;
            }
            let wanted = wanted.min(CHUNK);
            let length =
                from.read_at(&mut self.buffer[..wanted], at).explain(|| format!("read {}", show(path)))?;
            if length == 0 {
                self.tally.shrunk += 1;
                return Ok(());
            }
            to.write_all_at(&self.buffer[..length], at).explain(|| format!("write {}", show(path)))?;
            at += length as u64;
        }
        Ok(())
    }

    fn drain(&mut self, mut from: &File, mut to: &File, path: &[u8]) -> Result<()> {
        loop {
            let length = match from.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // A file that would have to be waited for, as some in /proc and /sys.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                other => other.explain(|| format!("read {}", show(path)))?,
            };
            to.write_all(&self.buffer[..length]).explain(|| format!("write {}", show(path)))?;
        }
    }

    /// From an archive to a file.
    fn pour(
        &mut self,
        input: &mut dyn Read,
        sparse: Option<&Sparse>,
        to: &File,
        member: &Member<'_>,
    ) -> Result<()> {
        let whole = [Segment { offset: 0, length: member.size }];
        let segments = match sparse {
            Some(sparse) => {
                ftruncate(to, sparse.size).map_err(|error| failed("write", member.path, error))?;
                sparse.segments.as_slice()
            }
            None => &whole,
        };
        for segment in segments {
            let mut done = 0;
            while done < segment.length {
                let wanted = usize::try_from(segment.length - done).unwrap_or(CHUNK).min(CHUNK);
                let length = input.read(&mut self.buffer[..wanted]).map_err(|error| {
                    error
                        .downcast::<Fault>()
                        .unwrap_or_else(|error| Fault::input("read the archive").because(error))
                })?;
                if length == 0 {
                    return Err(Fault::input("the archive is cut short"));
                }
                to.write_all_at(&self.buffer[..length], segment.offset + done)
                    .explain(|| format!("write {}", show(member.path)))?;
                done += length as u64;
            }
        }
        Ok(())
    }

    fn hard_link(&self, name: &[u8], member: &Member<'_>) -> Result<()> {
        let (dir, first) = split(member.link);
        let missing = || {
            Fault::input(format!(
                "{} is a hard link to {}, which was not copied",
                show(member.path),
                show(member.link)
            ))
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let base = self.frames[0].fd.as_fd();
        let dir = if dir.is_empty() { b"." } else { dir };
        let dir = openat2(base, dir, flags, Mode::empty(), how).map_err(|_| missing())?;
        let make = |to: BorrowedFd<'_>| linkat(&dir, first, to, name, AtFlags::empty());
        // Linked already, as when the same is copied once more.
        let same = |a: &rustix::fs::Stat, b: &rustix::fs::Stat| (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        let there = statat(&dir, first, AtFlags::SYMLINK_NOFOLLOW).map_err(|_| missing())?;
        if FileType::from_raw_mode(there.st_mode) == FileType::Directory {
            return Err(missing());
        }
        if statat(self.top(), name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|here| same(&here, &there)) {
            return Ok(());
        }
        self.replacing(name, member.path, make).map_err(|error| error.fault(member.path))
    }

    fn special(&mut self, name: &[u8], member: &Member<'_>) -> Result<()> {
        let path = member.path;
        let kind = match member.kind {
            ItemKind::CharDevice => FileType::CharacterDevice,
            ItemKind::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = rustix::fs::makedev(member.device.0, member.device.1);
        let device = if kind == FileType::Fifo { 0 } else { device };
        self.replacing(name, path, |dir| mknodat(dir, name, kind, Mode::from_raw_mode(0o600), device))
            .map_err(|error| error.fault(path))?;
        self.dress_name(name, member)
    }

    fn symlink(&mut self, name: &[u8], member: &Member<'_>) -> Result<()> {
        if member.link.is_empty() || member.link.contains(&0) {
            return Err(
                Fault::input("it is a symbolic link to nothing a link can point to").on(show(member.path))
            );
        }
        self.replacing(name, member.path, |dir| symlinkat(member.link, dir, name))
            .map_err(|error| error.fault(member.path))?;
        self.dress_name(name, member)
    }

    fn owner(&self, member: &Member<'_>) -> Result<(Uid, Gid)> {
        let (uid, gid) = match self.manner.mapped {
            Some(owners) => {
                owners.outside(member.uid, member.gid).map_err(|fault| fault.on(show(member.path)))?
            }
            None => (member.uid, member.gid),
        };
        Ok((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    /// Owner, mode and attributes of what is open. The owner first: changing it takes set-uid and capabilities away.
    fn dress(&self, fd: BorrowedFd<'_>, member: &Member<'_>) -> Result<()> {
        let path = member.path;
        if self.manner.owners {
            let (uid, gid) = self.owner(member)?;
            fchown(fd, Some(uid), Some(gid)).map_err(|error| failed("set the owner of", path, error))?;
        }
        fchmod(fd, Mode::from_raw_mode(self.mode(member)))
            .map_err(|error| failed("set the mode of", path, error))?;
        for (name, value) in self.xattrs(member) {
            match rustix::fs::fsetxattr(fd, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(failed(&format!("set {} of", show(name)), path, error)),
            }
        }
        Ok(())
    }

    /// The same, and times, of what cannot be opened.
    fn dress_name(&self, name: &[u8], member: &Member<'_>) -> Result<()> {
        let path = member.path;
        if self.manner.owners {
            let (uid, gid) = self.owner(member)?;
            chownat(self.top(), name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed("set the owner of", path, error))?;
        }
        if member.kind != ItemKind::Symlink {
            // By a descriptor of its own: the name could be a link by now.
            let fd =
                openat(self.top(), name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|error| failed("open", path, error))?;
            let is_link =
                fstat(&fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink);
            if !is_link {
                let by_number = format!("/proc/self/fd/{}", fd.as_raw_fd());
                chmodat(
                    rustix::fs::CWD,
                    by_number.as_str(),
                    Mode::from_raw_mode(self.mode(member)),
                    AtFlags::empty(),
                )
                .map_err(|error| failed("set the mode of", path, error))?;
            }
        }
        let mut by_path = format!("/proc/self/fd/{}/", self.top().as_raw_fd()).into_bytes();
        by_path.extend_from_slice(name);
        for (attribute, value) in self.xattrs(member) {
            match rustix::fs::lsetxattr(by_path.as_slice(), attribute.as_slice(), value, XattrFlags::empty())
            {
                // The kernel has no user attributes on these.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
                Err(error) => return Err(failed(&format!("set {} of", show(attribute)), path, error)),
            }
        }
        utimensat(self.top(), name, &times(member), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| failed("set the times of", path, error))
    }

    fn mode(&self, member: &Member<'_>) -> u32 {
        // Of directories the bit is the group of what is in them, and nobody's right.
        let kept = self.manner.set_id || member.kind == ItemKind::Directory;
        if kept { member.mode & 0o7777 } else { member.mode & 0o1777 }
    }

    fn xattrs<'m>(&self, member: &'m Member<'_>) -> impl Iterator<Item = &'m (Vec<u8>, Vec<u8>)> {
        let keep = self.manner.xattrs;
        let is_overlays =
            |name: &[u8]| name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
        member.xattrs.iter().filter(move |(name, _)| keep && !is_overlays(name))
    }
}

impl Sink for Placer<'_> {
    fn add(&mut self, member: &Member<'_>, content: Content<'_>) -> Result<()> {
        let (dir, name) = split(member.path);
        if name.is_empty() {
            return Ok(());
        }
        let is_device = match member.kind {
            ItemKind::CharDevice | ItemKind::BlockDevice => true,
            // To overlayfs that would be a deletion.
            _ => false,
        };
        if is_device && (!self.manner.devices || member.device == (0, 0)) {
            self.tally.skip(member.path);
            return Ok(());
        }
        self.enter(dir)?;
        self.tally.files += 1;
        match member.kind {
            ItemKind::Directory => self.directory(name, member),
            ItemKind::File => {
                self.tally.bytes += member.size;
                self.file(name, member, content)
            }
            ItemKind::HardLink => self.hard_link(name, member),
            ItemKind::Symlink => self.symlink(name, member),
            ItemKind::CharDevice | ItemKind::BlockDevice | ItemKind::Fifo => self.special(name, member),
            ItemKind::Whiteout | ItemKind::Opaque => Err(Fault::failed("a whiteout is no file")),
        }
    }
}

enum Replacing {
    /// Something is mounted there.
    Mounted,
    Fault(Fault),
}

impl Replacing {
    fn fault(self, path: &[u8]) -> Fault {
        match self {
            Replacing::Mounted => {
                Fault::conflict(format!("{} is in use: something is mounted there", show(path)))
            }
            Replacing::Fault(fault) => fault,
        }
    }
}

/// Whether what has a name is the root of a mount (statx(2), `STATX_ATTR_MOUNT_ROOT`).
fn is_mounted_on(dir: BorrowedFd<'_>, name: &[u8]) -> bool {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, rustix::fs::StatxFlags::TYPE)
        .is_ok_and(|found| found.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

fn times(member: &Member<'_>) -> Timestamps {
    let mtime = member.mtime;
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// Whether `path` is `dir` or below it.
fn is_within(dir: &[u8], path: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}
