//! Directories of one run, gone at its end.

use rustix::fs::CWD;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static COUNTER: AtomicU32 = AtomicU32::new(0);

pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("surface-{name}-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).expect("make a directory");
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Not the standard library's: a tree a layer made may be deeper than there are descriptors.
        sys::fs::remove_tree(CWD, self.0.as_path()).expect("remove what was made");
    }
}
