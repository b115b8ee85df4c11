//! The file an engine finds a process's number in.

use crate::call::absolute;
use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat, renameat};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Its directory is opened beforehand: afterwards this process may be in the container.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    directory: OwnedFd,
    name: OsString,
}

impl PidFile {
    pub fn open(path: &Path) -> Result<PidFile> {
        let path = absolute(path)?;
        let (directory, name) = path
            .parent()
            .zip(path.file_name())
            .ok_or_else(|| Fault::usage(format!("--pid-file {} is no file", path.display())))?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened =
            openat(CWD, directory, flags, Mode::empty()).explain(|| format!("open {}", path.display()))?;
        Ok(PidFile { directory: opened, name: name.to_owned(), path })
    }

    /// At once and whole: it is waited for.
    pub fn write(&self, pid: i32) -> Result<()> {
        let what = || format!("write {}", self.path.display());
        let mut temporary = OsString::from(".");
        temporary.push(&self.name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&self.directory, &temporary, flags, Mode::from_raw_mode(0o666)).explain(what)?;
        File::from(file).write_all(pid.to_string().as_bytes()).explain(what)?;
        renameat(&self.directory, &temporary, &self.directory, &self.name).explain(what)
    }
}
