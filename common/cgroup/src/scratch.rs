//! A directory that stands for a version 2 group, for the unit tests.

use crate::{Cgroup, Version};
use std::path::{Path, PathBuf};

pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("cgroup-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn group(&self, files: &[(&str, &str)]) -> Cgroup {
        for (name, text) in files {
            std::fs::write(self.0.join(name), text).unwrap();
        }
        Cgroup::at(Version::V2, vec![self.0.clone()])
    }

    pub fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.0.join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
