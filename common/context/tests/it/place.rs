//! Directories of one test, and what is in them in words.

use context::{Chmod, Context, Ignore, Memory, Options, Ownership, Selection, Target, Times, Written};
use fault::Result;
use rustix::fd::AsFd;
use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

pub struct Place {
    pub dir: tempfile::TempDir,
}

/// How [`Place::write`] writes.
#[derive(Default)]
pub struct How<'a> {
    pub ownership: Ownership,
    pub chmod: Option<&'a str>,
    pub times: Times,
    pub unpack: bool,
}

impl Place {
    /// A context and a root, both empty.
    pub fn new() -> Place {
        Place::below(&std::env::temp_dir())
    }

    /// The same in a directory, if that can be written to.
    pub fn below(parent: &Path) -> Place {
        let place = Place { dir: tempfile::tempdir_in(parent).or_else(|_| tempfile::tempdir()).unwrap() };
        std::fs::create_dir(place.context()).unwrap();
        std::fs::create_dir(place.root()).unwrap();
        place
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub fn open(&self) -> Context {
        self.open_ignoring("")
    }

    pub fn open_ignoring(&self, ignore: &str) -> Context {
        let ignore = Ignore::parse(ignore.as_bytes(), ".dockerignore").unwrap();
        Context::directory(&self.context(), ignore, Memory::none()).unwrap()
    }

    pub fn select(&self, sources: &[&str]) -> Result<Selection> {
        self.open().select(sources, &copy())
    }

    pub fn write(&self, chosen: &Selection, destination: &str, how: &How<'_>) -> Result<Written> {
        write_to(&self.root(), chosen, destination, how)
    }

    /// `COPY sources… destination`.
    pub fn copy(&self, sources: &[&str], destination: &str) -> Result<Written> {
        self.write(&self.select(sources)?, destination, &How::default())
    }
}

pub fn write_to(root: &Path, chosen: &Selection, destination: &str, how: &How<'_>) -> Result<Written> {
    let root = File::open(root).unwrap();
    let chmod = how.chmod.map(Chmod::parse).transpose()?;
    chosen.write(&Target {
        root: root.as_fd(),
        destination: destination.as_bytes(),
        ownership: how.ownership,
        chmod: chmod.as_ref(),
        times: how.times,
        unpack: how.unpack,
    })
}

/// COPY's way to choose.
pub fn copy() -> Options {
    Options { wildcards: true, ..Options::default() }
}

/// Makes files: `a/b` holds its name, `a/` is a directory, `a -> b` a link.
pub fn fill(dir: &Path, files: &[&str]) {
    for text in files {
        if let Some((name, to)) = text.split_once(" -> ") {
            std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
            symlink(to, dir.join(name)).unwrap();
        } else if let Some(name) = text.strip_suffix('/') {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        } else {
            std::fs::create_dir_all(dir.join(text).parent().unwrap()).unwrap();
            std::fs::write(dir.join(text), text).unwrap();
        }
    }
}

pub fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// Everything below, by name: `a/`, `a/b=content`, `c -> d`.
pub fn list(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    gather(dir, "", &mut found);
    found
}

fn gather(dir: &Path, before: &str, found: &mut Vec<String>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = format!("{before}{}", entry.file_name().to_string_lossy());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.push(format!("{name}/"));
            gather(&entry.path(), &format!("{name}/"), found);
        } else if kind.is_symlink() {
            found.push(format!("{name} -> {}", std::fs::read_link(entry.path()).unwrap().display()));
        } else if kind.is_file() {
            let content = std::fs::read(entry.path()).unwrap();
            found.push(format!("{name}={}", String::from_utf8_lossy(&content)));
        } else {
            found.push(format!("{name} ?"));
        }
    }
}

pub fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().mode() & 0o7777
}

pub fn owner(path: &Path) -> (u32, u32) {
    let status = path.symlink_metadata().unwrap();
    (status.uid(), status.gid())
}
