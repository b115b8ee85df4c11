//! Volumes a container uses: made if they are not there, filled from the image if they are empty.

use fault::{Explain, Fault, Result};
use oci::spec::{BindUse, VolumeUse};
use record::Rootfs;
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timestamps, Uid, XattrFlags, chmodat,
    chownat, fgetxattr, flistxattr, fsetxattr, mkdirat, mknodat, openat, openat2, readlinkat, statat,
    symlinkat, utimensat,
};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use store::{Lock, Scratch, Store};

/// Deepest directory copied; deeper ones are no image's.
const MAX_DEPTH: usize = 1000;

/// Makes sure that what is bound from the host is there.
pub fn prepare_binds(binds: &[BindUse]) -> Result<()> {
    for bind in binds {
        if std::fs::symlink_metadata(&bind.source).is_ok() {
            continue;
        }
        if !bind.create {
            return Err(Fault::not_found(format!(
                "bind mount source {} does not exist",
                bind.source.display()
            ))
            .hint("make it, or use -v, which makes a missing directory"));
        }
        std::fs::create_dir_all(&bind.source)
            .explain(|| format!("make the bind mount source {}", bind.source.display()))?;
    }
    Ok(())
}

/// Makes the volumes that are missing. A volume appears whole: made and filled in scratch, then renamed.
pub fn prepare(store: &Store, volumes: &[VolumeUse], rootfs: &Rootfs, created_at: &str) -> Result<()> {
    for volume in volumes {
        let dir = volume.path.parent().map(Path::to_path_buf).unwrap_or_default();
        if dir.join("volume.json").exists() {
            if volume.populate {
                fill_if_empty(&dir, volume, rootfs)?;
            }
            continue;
        }
        make(store, &dir, volume, rootfs, created_at)
            .map_err(|fault| fault.within(format!("make volume {}", volume.name)))?;
    }
    Ok(())
}

fn make(store: &Store, dir: &Path, volume: &VolumeUse, rootfs: &Rootfs, created_at: &str) -> Result<()> {
    if let Some(parent) = dir.parent() {
        store.make_dir(parent)?;
    }
    let scratch = Scratch::new(store)?;
    let data = scratch.path().join("_data");
    store.make_dir(&data)?;
    chmodat(CWD, &data, Mode::from_raw_mode(0o755), AtFlags::empty())
        .explain(|| format!("set the mode of {}", data.display()))?;
    if volume.populate {
        fill(&data, volume, rootfs)?;
    }
    let about = serde_json::json!({
        "name": volume.name,
        "driver": "local",
        "anonymous": volume.anonymous,
        "created_at": created_at,
        "labels": {},
    });
    store::atomic::write(&scratch.path().join("volume.json"), format!("{about}\n").as_bytes(), 0o600)?;
    match std::fs::rename(scratch.path(), dir) {
        Ok(()) => {
            scratch.keep();
            Ok(())
        }
        // Somebody else made it meanwhile.
        Err(_) if dir.join("volume.json").exists() => Ok(()),
        Err(error) => Err(error).explain(|| format!("put it at {}", dir.display())),
    }
}

fn fill_if_empty(dir: &Path, volume: &VolumeUse, rootfs: &Rootfs) -> Result<()> {
    let is_empty = || std::fs::read_dir(&volume.path).is_ok_and(|mut entries| entries.next().is_none());
    if !is_empty() {
        return Ok(());
    }
    // One at a time; whoever comes second finds it filled.
    let _lock = Lock::directory(dir)?;
    if is_empty() { fill(&volume.path, volume, rootfs) } else { Ok(()) }
}

/// Copies what the image has at the volume's target.
fn fill(data: &Path, volume: &VolumeUse, rootfs: &Rootfs) -> Result<()> {
    let Some(root) = image_root(rootfs)? else { return Ok(()) };
    let inside = Path::new(&volume.target).strip_prefix("/").unwrap_or(Path::new(&volume.target));
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let source = match openat2(&root, inside, flags, Mode::empty(), resolve) {
        Ok(source) => source,
        // Nothing there, or no directory.
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        Err(error) => {
            return Err(std::io::Error::from(error))
                .explain(|| format!("open {} in the image", volume.target));
        }
    };
    let target = openat(CWD, data, flags, Mode::empty()).explain(|| format!("open {}", data.display()))?;
    let mut copy = Copy { links: HashMap::new(), root: data.to_path_buf() };
    copy.directory(source.as_fd(), target.as_fd(), Path::new(""), 0)
        .map_err(|fault| fault.within(format!("copy {} from the image", volume.target)))
}

/// The image's root, read-only: a layer by itself, or several as an overlay that is mounted nowhere.
fn image_root(rootfs: &Rootfs) -> Result<Option<OwnedFd>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match (rootfs.layers.as_slice(), &rootfs.path) {
        ([], None) => Ok(None),
        ([], Some(path)) => {
            openat(CWD, path, flags, Mode::empty()).map(Some).explain(|| format!("open {path}"))
        }
        ([layer], _) => {
            openat(CWD, layer, flags, Mode::empty()).map(Some).explain(|| format!("open {layer}"))
        }
        (layers, _) => {
            let layers: Vec<PathBuf> = layers.iter().map(PathBuf::from).collect();
            sys::overlay::mount(&layers, None).map(Some)
        }
    }
}

struct Copy {
    /// Inodes with several names that were copied, and where.
    links: HashMap<(u64, u64), PathBuf>,
    root: PathBuf,
}

impl Copy {
    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: &Path,
        depth: usize,
    ) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Fault::input("directories are too deep"));
        }
        let entries = Dir::read_from(from).explain(|| format!("read {}", path.display()))?;
        for entry in entries {
            let entry = entry.explain(|| format!("read {}", path.display()))?;
            let name = entry.file_name();
            if name != c"." && name != c".." {
                let inside = path.join(std::ffi::OsStr::new(&*name.to_string_lossy()));
                self.entry(from, to, name, &inside, depth)
                    .map_err(|fault| fault.on(inside.display().to_string()))?;
            }
        }
        copy_attributes(from, to)?;
        let stat = rustix::fs::fstat(from).explain(|| "look at it".into())?;
        set_owner_mode_times(to, c".", &stat)
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: &Path,
        depth: usize,
    ) -> Result<()> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW).explain(|| "look at it".into())?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::Directory && stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let first = self.root.join(first);
                return rustix::fs::linkat(CWD, &first, to, name, AtFlags::empty())
                    .explain(|| "link it".into());
            }
            self.links.insert(inode, path.to_path_buf());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        match kind {
            FileType::Directory => {
                mkdirat(to, name, Mode::from_raw_mode(0o700)).explain(|| "make it".into())?;
                let source = openat(from, name, flags | OFlags::DIRECTORY, Mode::empty())
                    .explain(|| "open it".into())?;
                let target = openat(to, name, flags | OFlags::DIRECTORY, Mode::empty())
                    .explain(|| "open it".into())?;
                return self.directory(source.as_fd(), target.as_fd(), path, depth + 1);
            }
            FileType::RegularFile => {
                let source = openat(from, name, flags, Mode::empty()).explain(|| "open it".into())?;
                let create =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let target =
                    openat(to, name, create, Mode::from_raw_mode(0o600)).explain(|| "make it".into())?;
                let (mut source, mut target) = (std::fs::File::from(source), std::fs::File::from(target));
                std::io::copy(&mut source, &mut target).explain(|| "copy it".into())?;
                let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
                rustix::fs::fchown(&target, Some(owner.0), Some(owner.1))
                    .explain(|| "set its owner".into())?;
                // After the owner: changing that clears file capabilities.
                copy_attributes(source.as_fd(), target.as_fd())?;
            }
            FileType::Symlink => {
                let link: CString = readlinkat(from, name, Vec::new()).explain(|| "read the link".into())?;
                symlinkat(&link, to, name).explain(|| "make the link".into())?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                mknodat(to, name, kind, Mode::from_raw_mode(0o600), stat.st_rdev)
                    .explain(|| "make it".into())?;
            }
            // A socket has no life without the process that made it.
            _ => return Ok(()),
        }
        set_owner_mode_times(to, name, &stat)
    }
}

fn set_owner_mode_times(dir: BorrowedFd<'_>, name: &CStr, stat: &rustix::fs::Stat) -> Result<()> {
    let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !is_file {
        let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        chownat(dir, name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW)
            .explain(|| "set its owner".into())?;
    }
    if !is_link {
        // After the owner: changing that clears the set-uid bit.
        chmodat(dir, name, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())
            .explain(|| "set its mode".into())?;
    }
    let times = Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: rustix::fs::Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    };
    utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).explain(|| "set its times".into())
}

/// Extended attributes, but for overlayfs's own.
fn copy_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let mut names = vec![0u8; 64 << 10];
    let length = match flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::NOTSUP) => return Ok(()),
        Err(error) => return Err(std::io::Error::from(error)).explain(|| "list extended attributes".into()),
    };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
            continue;
        }
        let Ok(name) = CString::new(name) else { continue };
        let mut value = vec![0u8; 64 << 10];
        let length =
            fgetxattr(from, &name, &mut value[..]).explain(|| "read an extended attribute".into())?;
        fsetxattr(to, &name, &value[..length], XattrFlags::empty())
            .explain(|| format!("set extended attribute {}", name.to_string_lossy()))?;
    }
    Ok(())
}
