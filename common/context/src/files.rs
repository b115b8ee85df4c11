//! Contexts: where files are chosen from.

use crate::ignore::rules::clean;
use crate::resolve::{open_plain, resolve};
use crate::select::{Options, Selection};
use crate::{Ignore, Memory};
use fault::{Explain, Fault, Kind, Result};
use layer::Time;
use rootfs::{failed, show};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{FileType, OFlags};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

/// Files to choose from. Cheap to clone: all clones share what is known of them.
#[derive(Clone, Debug)]
pub struct Context(pub(crate) Place);

#[derive(Clone, Debug)]
pub(crate) enum Place {
    Tree(Arc<Inner>),
    /// Files that are in no directory.
    Given(Arc<Vec<Given>>),
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub root: OwnedFd,
    pub ignore: Ignore,
    pub memory: Memory,
    /// A user's directory: everything counts as root's.
    pub is_local: bool,
}

/// One file that is in no directory.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub name: Vec<u8>,
    pub mode: u32,
    pub mtime: Time,
    pub bytes: Bytes,
}

#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    Here(Arc<[u8]>),
    /// A file of ours with this digest and size.
    File(Arc<File>, [u8; 32], u64),
}

impl Context {
    /// A directory of the user's. Everything in it counts as root's, as with docker.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn directory(path: &Path, ignore: Ignore, memory: Memory) -> Result<Context> {
        let mut options = File::options();
        let directory = (OFlags::DIRECTORY | OFlags::CLOEXEC).bits() as i32;
        let root = options.read(true).custom_flags(directory).open(path).map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => Kind::NotFound,
                _ => Kind::of_io(&error),
            };
            Fault::new(kind, format!("open the context {}", path.display())).because(error)
        })?;
        Ok(Context::tree(root.into(), ignore, memory, true))
    }

    /// The root of a stage, an image or a named context: owners are kept.
    pub fn root(root: OwnedFd) -> Context {
        Context::tree(root, Ignore::none(), Memory::none(), false)
    }

    fn tree(root: OwnedFd, ignore: Ignore, memory: Memory, is_local: bool) -> Context {
        Context(Place::Tree(Arc::new(Inner { root, ignore, memory, is_local })))
    }

    /// Files that are given by their names and contents, as heredocs are: root's, mode 0644. Sources are their names.
    pub fn inline(files: Vec<(Vec<u8>, Vec<u8>)>) -> Context {
        let given = files.into_iter().map(|(name, bytes)| Given {
            name: clean(&[b"/", name.as_slice()].concat())[1..].to_vec(),
            mode: 0o644,
            mtime: Time { seconds: crate::memory::now(), nanoseconds: 0 },
            bytes: Bytes::Here(bytes.into()),
        });
        Context(Place::Given(Arc::new(given.collect())))
    }

    pub(crate) fn given(file: Given) -> Context {
        Context(Place::Given(Arc::new(vec![file])))
    }

    /// No files.
    pub fn empty() -> Context {
        Context::inline(Vec::new())
    }

    /// What COPY's sources mean. Paths lead from the context's root, however they begin; links are followed inside it.
    ///
    /// A pattern that nothing fits chooses nothing, without a complaint, as with docker.
    ///
    /// # Errors
    /// [`Kind::NotFound`] for what is not there (told if the ignore file hides it), [`Kind::Input`] for a malformed pattern.
    pub fn select<S: AsRef<[u8]>>(&self, sources: &[S], options: &Options) -> Result<Selection> {
        Selection::of(self, sources, options)
    }

    /// A file's content, resolved in the context, whether ignored or not (Dockerfiles are read so); `None` if there is none.
    ///
    /// # Errors
    /// When it is longer than `limit` bytes, no file, or cannot be read.
    pub fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let inner = match &self.0 {
            Place::Tree(inner) => inner,
            Place::Given(files) => return read_given(files, path.as_bytes(), limit),
        };
        let found = resolve(inner.root.as_fd(), path.as_bytes())?;
        match found.kind {
            _ if found.is_blocked => return Ok(None),
            None => return Ok(None),
            Some(FileType::RegularFile) => {}
            Some(_) => return Err(Fault::input(format!("{path} is no file"))),
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = open_plain(inner.root.as_fd(), &found.path, flags)
            .map_err(|error| failed("open", &found.path, error))?;
        read_bounded(File::from(fd), limit, path.as_bytes()).map(Some)
    }

    /// Keeps what was learnt of the files for later builds. Done when the last clone goes, too, but failures are heard of here only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn remember(&self) -> Result<()> {
        match &self.0 {
            Place::Tree(inner) => inner.memory.save(),
            Place::Given(_) => Ok(()),
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Without it the files are read again.
        let _ = self.memory.save();
    }
}

fn read_given(files: &[Given], path: &[u8], limit: u64) -> Result<Option<Vec<u8>>> {
    let name = clean(&[b"/", path].concat());
    let Some(file) = files.iter().find(|file| file.name == name[1..]) else { return Ok(None) };
    match &file.bytes {
        Bytes::Here(bytes) => read_bounded(&bytes[..], limit, path).map(Some),
        Bytes::File(file, ..) => read_bounded(reopen(file)?, limit, path).map(Some),
    }
}

/// The same file with a position of its own.
pub(crate) fn reopen(file: &File) -> Result<File> {
    let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::open(by_number).explain(|| "open what was fetched".into())
}

pub(crate) fn read_bounded(from: impl Read, limit: u64, path: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(limit.saturating_add(1)).read_to_end(&mut bytes).explain(|| format!("read {}", show(path)))?;
    if bytes.len() as u64 > limit {
        return Err(Fault::input(format!("{} is longer than {limit} bytes", show(path))));
    }
    Ok(bytes)
}
