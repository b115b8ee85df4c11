//! A volume's files, for tools outside of containers.

use crate::plugin::Plugin;
use crate::{Held, options};
use fault::{Explain, Result};
use rustix::fs::{CWD, Mode, OFlags, openat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A volume's directory, and what had to be mounted for it: gone again with this.
#[derive(Debug)]
pub struct Opened {
    root: OwnedFd,
    /// Gives back what a plugin mounted.
    _mounted: Option<Mounted>,
}

#[derive(Debug)]
struct Mounted {
    plugin: Plugin,
    volume: String,
    id: String,
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Best effort: a plugin that fails has its own log.
        let _ = self.plugin.unmount(&self.volume, &self.id);
    }
}

impl Opened {
    /// Mounts what the volume's options say, if they say so, where nobody else sees it.
    pub fn new(held: &Held) -> Result<Opened> {
        let info = &held.info;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut data = held.dir.join("_data");
        let mut mounted = None;
        if !info.is_local() {
            let plugin = Plugin::find(&info.driver)?;
            let id = format!("tool-{}", std::process::id());
            data = plugin.mount(&info.name, &id)?;
            mounted = Some(Mounted { plugin, volume: info.name.clone(), id });
        }
        let tree = if info.is_local() { options::mount(&info.options)? } else { None };
        let root = match tree {
            Some(tree) => openat(&tree, c".", flags, Mode::empty()),
            None => openat(CWD, &data, flags, Mode::empty()),
        };
        Ok(Opened { root: root.explain(|| format!("open {}", data.display()))?, _mounted: mounted })
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Another descriptor of the same directory, for what closes it.
    pub fn copy_root(&self) -> Result<OwnedFd> {
        self.root.try_clone().explain(|| "copy a descriptor".into())
    }
}
