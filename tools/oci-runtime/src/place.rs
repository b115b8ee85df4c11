//! `ROOT/ID`: the directory of a container's state. Making it takes the id; a lock on it says that whoever did is at work.

use crate::call::Call;
use fault::{Explain, Fault, Result};
use runtime::host_root::HostRoot;
use rustix::fs::{
    Access, AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, accessat, flock, fstat, mkdirat, openat,
    renameat, unlinkat,
};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where the first process of a container waits for `start`; there until it comes.
pub const GATE: &str = "start.sock";

/// What is mounted on the host for a container in its mount namespace.
const MOUNTS: &str = "mounts.json";
const MAX_MOUNTS_BYTES: u64 = 64 << 10;

#[derive(Debug)]
pub struct Place {
    pub path: PathBuf,
    directory: OwnedFd,
}

impl Place {
    /// Takes a free id. Nobody touches what is in it until [`Place::unlock`].
    pub fn take(call: &Call<'_>, id: &str) -> Result<Place> {
        check_id(id)?;
        let path = call.root.join(id);
        let mut made = mkdirat(CWD, &path, Mode::RWXU);
        if made == Err(Errno::NOENT) {
            make_root(call)?;
            made = mkdirat(CWD, &path, Mode::RWXU);
        }
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(Fault::conflict("container with given ID already exists")),
            Err(error) => {
                return Err(std::io::Error::from(error)).explain(|| format!("mkdir {}", path.display()));
            }
        }
        let place = Place::open_path(path)?;
        place.lock(FlockOperation::LockExclusive)?;
        Ok(place)
    }

    pub fn open(root: &Path, id: &str) -> Result<Place> {
        check_id(id)?;
        Place::open_path(root.join(id))
    }

    fn open_path(path: PathBuf) -> Result<Place> {
        // A link is nobody's state: those that may write here need none.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(CWD, &path, flags, Mode::empty()) {
            Ok(directory) => Ok(Place { path, directory }),
            Err(Errno::NOENT) => Err(absent()),
            Err(error) => Err(std::io::Error::from(error)).explain(|| format!("open {}", path.display())),
        }
    }

    /// Whether it could be had.
    fn lock(&self, how: FlockOperation) -> Result<bool> {
        loop {
            match flock(&self.directory, how) {
                Ok(()) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(error) => {
                    return Err(std::io::Error::from(error))
                        .explain(|| format!("lock {}", self.path.display()));
                }
            }
        }
    }

    /// Whether somebody is making the container.
    pub fn is_busy(&self) -> bool {
        let busy = self.lock(FlockOperation::NonBlockingLockShared).is_ok_and(|had| !had);
        if !busy {
            self.unlock();
        }
        busy
    }

    /// Said, because processes made meanwhile have the descriptor too, and closing it would not do.
    pub fn unlock(&self) {
        let _ = flock(&self.directory, FlockOperation::Unlock);
    }

    pub fn has(&self, name: &str) -> bool {
        accessat(&self.directory, name, Access::EXISTS, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// A regular file of bearable length; `None` where there is none.
    pub fn read(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>> {
        let what = || format!("read {}", self.path.join(name).display());
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = match openat(&self.directory, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(std::io::Error::from(error)).explain(what),
        };
        let stat = fstat(&fd).explain(what)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Fault::input(format!("{}: it is no regular file", what())));
        }
        if stat.st_size as u64 > most {
            return Err(Fault::input(format!("{}: it is {} bytes long", what(), stat.st_size)));
        }
        let mut text = Vec::with_capacity(stat.st_size as usize + 1);
        File::from(fd).take(most).read_to_end(&mut text).explain(what)?;
        Ok(Some(text))
    }

    /// Under its name at once and whole.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let temporary = format!(".{name}");
        self.write_new(&temporary, content)?;
        renameat(&self.directory, temporary, &self.directory, name)
            .explain(|| format!("write {}", self.path.join(name).display()))
    }

    /// A file nobody looks for yet.
    pub fn write_new(&self, name: &str, content: &[u8]) -> Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let what = || format!("write {}", self.path.join(name).display());
        let fd = openat(&self.directory, name, flags, Mode::RUSR | Mode::WUSR).explain(what)?;
        File::from(fd).write_all(content).explain(what)
    }

    /// To be removed with this.
    pub fn write_mounts(&self, mounts: &HostRoot) -> Result<()> {
        let text = serde_json::to_vec(mounts).explain(|| format!("write {MOUNTS}"))?;
        self.write(MOUNTS, &text)
    }

    /// Those of the containers beside it.
    pub fn mounts_of_others(&self) -> Vec<HostRoot> {
        let entries = self.path.parent().map(std::fs::read_dir).into_iter().flatten().flatten().flatten();
        let others = entries.map(|entry| entry.path()).filter(|path| *path != self.path);
        others
            .filter_map(|path| {
                let text = Place::open_path(path).ok()?.read(MOUNTS, MAX_MOUNTS_BYTES).ok()??;
                serde_json::from_slice(&text).ok()
            })
            .collect()
    }

    fn remove_mounts(&self) -> Result<()> {
        let Some(text) = self.read(MOUNTS, MAX_MOUNTS_BYTES)? else { return Ok(()) };
        // It was there under its name before anything was mounted: what cannot be read is nothing this program wrote.
        let Ok(mounts) = serde_json::from_slice::<HostRoot>(&text) else { return Ok(()) };
        mounts.remove().map_err(|fault| fault.within("unable to unmount the container's root"))?;
        let _ = unlinkat(&self.directory, MOUNTS, AtFlags::empty());
        Ok(())
    }

    /// With everything in it and what it says is mounted; its id is free then. Links are not followed.
    pub fn remove(&self) -> Result<()> {
        self.remove_mounts()?;
        // What is always there, one by one; what else there may be, the long way.
        for name in ["config.json", "state.json", GATE] {
            let _ = unlinkat(&self.directory, name, AtFlags::empty());
        }
        match rustix::fs::rmdir(&self.path) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(_) => {}
        }
        match std::fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
                .explain(|| format!("unable to remove container state dir: {}", self.path.display())),
            _ => Ok(()),
        }
    }
}

pub fn absent() -> Fault {
    Fault::not_found("container does not exist")
}

fn make_root(call: &Call<'_>) -> Result<()> {
    let what = || format!("mkdir {}", call.root.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&call.root).explain(what)?;
    if call.root_is_sticky {
        rustix::fs::chmod(&call.root, Mode::RWXU | Mode::SVTX).explain(what)?;
    }
    Ok(())
}

/// Letters, digits, `_`, `+`, `-`, `.`; and no name that is another directory's.
pub fn check_id(id: &str) -> Result<()> {
    if is_id(id) { Ok(()) } else { Err(Fault::usage("invalid container ID format")) }
}

pub fn is_id(id: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    !matches!(id, "" | "." | "..") && id.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names() {
        for id in ["a", "A-b_c+d.e", "...", "-x", &"x".repeat(300)] {
            assert!(is_id(id), "{id}");
        }
        for id in ["", ".", "..", "a/b", "a b", "ä", "a\0", "@seccomp", "a\n"] {
            assert!(!is_id(id), "{id:?}");
        }
    }
}
