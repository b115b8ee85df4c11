//! Files that are there when they are complete.

use fault::{Explain, Result};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A file under a temporary name beside its own; removed unless it is committed.
#[derive(Debug)]
pub struct Pending {
    file: File,
    part: PathBuf,
    target: PathBuf,
}

impl Pending {
    pub fn new(target: &Path) -> Result<Pending> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}-{number}.part", std::process::id()));
        let part = target.with_file_name(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&part)
            .explain(|| format!("write {}", target.display()))?;
        Ok(Pending { file, part, target: target.to_owned() })
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).explain(|| format!("write {}", self.target.display()))
    }

    pub fn commit(mut self) -> Result<()> {
        std::fs::rename(&self.part, &self.target).explain(|| format!("write {}", self.target.display()))?;
        self.part = PathBuf::new();
        Ok(())
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.part.as_os_str().is_empty() {
            // Nobody is left to tell.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}

/// The whole of a small file, at once.
pub fn write_small(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = Pending::new(path)?;
    file.write(bytes)?;
    file.commit()
}

pub fn make_dirs(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).explain(|| format!("make directory {}", path.display()))
}

/// Whether a file has this size.
pub fn has_size(path: &Path, size: u64) -> bool {
    path.symlink_metadata().is_ok_and(|status| status.is_file() && status.len() == size)
}
