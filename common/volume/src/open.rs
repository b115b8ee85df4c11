//! A volume's files, for tools outside of containers.

use crate::{Held, options};
use fault::{Explain, Fault, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A volume's directory, and what had to be mounted for it: gone again with this.
#[derive(Debug)]
pub struct Opened {
    root: OwnedFd,
}

impl Opened {
    /// Mounts what the volume's options say, if they say so, where nobody else sees it.
    pub fn new(held: &Held) -> Result<Opened> {
        let info = &held.info;
        if !info.is_local() {
            return Err(Fault::input(format!("its files are with the volume driver {}", info.driver))
                .on(info.name.as_str()));
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let data = held.dir.join("_data");
        let root = match options::mount(&info.options)? {
            Some(tree) => openat(&tree, c".", flags, Mode::empty()),
            None => openat(CWD, &data, flags, Mode::empty()),
        };
        Ok(Opened { root: root.explain(|| format!("open {}", data.display()))? })
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The same directory to keep, for what closes it.
    pub fn into_root(self) -> OwnedFd {
        self.root
    }
}
