//! Where an archive goes: stdout, or a file that is there when it is complete.

use fault::{Explain, Result};
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// Something written as a whole, or not at all.
#[derive(Debug)]
pub struct Output {
    file: File,
    /// The temporary name and the one it is to have. Removed if it never gets there.
    pending: Option<(PathBuf, PathBuf)>,
}

impl Output {
    /// A name that is there and no regular file (a pipe, `/dev/null`) is written to as it is.
    pub fn open(into: Option<&Path>) -> Result<Output> {
        let Some(into) = into else {
            let stdout = std::io::stdout().as_fd().try_clone_to_owned().explain(|| "use stdout".into())?;
            return Ok(Output { file: stdout.into(), pending: None });
        };
        let says = || format!("write {}", into.display());
        if into.metadata().is_ok_and(|status| !status.is_file()) {
            let file = OpenOptions::new().write(true).open(into).explain(says)?;
            return Ok(Output { file, pending: None });
        }
        // Of what a link leads to, so that the link stays.
        let target = into.canonicalize().unwrap_or_else(|_| into.to_owned());
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.part", std::process::id()));
        let part = target.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).open(&part).explain(says)?;
        Ok(Output { file, pending: Some((part, target)) })
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name.
    pub fn finish(&mut self) -> Result<()> {
        if let Some((part, target)) = &self.pending {
            std::fs::rename(part, target).explain(|| format!("write {}", target.display()))?;
            self.pending = None;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.pending {
            // Nobody is left to tell.
            let _ = std::fs::remove_file(part);
        }
    }
}
