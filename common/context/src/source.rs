//! What a build's argument, or a source of ADD, means.

use crate::address::{is_url, shown};
use crate::archive::{Packed, is_archive};
use crate::files::read_bounded;
use crate::git::{self, GitUrl};
use crate::web::Web;
use fault::{Explain, Fault, Result};
use rustix::fd::OwnedFd;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use store::{Scratch, Store};

const CHUNK: usize = 128 << 10;
/// Longest archive that is taken from stdin, in bytes.
const MAX_ARCHIVE: u64 = 64 << 30;
/// Longest Dockerfile, in bytes.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// Where a whole context is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `-`: an archive, or a Dockerfile and nothing else.
    Stdin,
    Directory(PathBuf),
    Git(GitUrl),
    /// An archive, or a Dockerfile and nothing else.
    Url(String),
}

impl Source {
    /// What an argument means. A directory that is there goes first, as with docker.
    ///
    /// # Errors
    /// As [`GitUrl::parse`]; [`fault::Kind::NotFound`] for what is none of these.
    pub fn of(argument: &str) -> Result<Source> {
        if argument == "-" {
            return Ok(Source::Stdin);
        }
        let path = Path::new(argument);
        if path.is_dir() {
            return Ok(Source::Directory(path.to_owned()));
        }
        if let Some(url) = GitUrl::of_context(argument)? {
            return Ok(Source::Git(url));
        }
        if is_url(argument) {
            return Ok(Source::Url(argument.to_owned()));
        }
        let fault = match path.try_exists() {
            Ok(true) => {
                Fault::input("the context is a file").hint("an archive is read from stdin: … - <FILE")
            }
            _ => Fault::not_found("there is no such context")
                .hint("a directory, - for stdin, the address of an archive or of a git repository (URL.git)"),
        };
        Err(fault.on(argument))
    }

    /// Brings it here.
    ///
    /// # Errors
    /// When that fails, or it is too large.
    pub fn fetch(&self, with: Fetching<'_>) -> Result<Fetched> {
        let Fetching { store, web, stdin } = with;
        match self {
            Source::Directory(path) => {
                Ok(Fetched::Directory { path: path.clone(), scratch: None, commit: None })
            }
            Source::Git(url) => {
                let git::Checkout { scratch, path, commit } = git::checkout(store, url)?;
                Ok(Fetched::Directory { path, scratch: Some(scratch), commit: Some(commit) })
            }
            Source::Url(url) => {
                let page = web.fetch(url, None)?;
                of_file(store, page.open()?).map_err(|fault| fault.on(shown(url)))
            }
            Source::Stdin => {
                let (file, scratch) = keep(store, stdin)?;
                let fetched = of_file(store, file).map_err(|fault| fault.on("stdin"));
                drop(scratch);
                fetched
            }
        }
    }
}

/// What fetching takes.
pub struct Fetching<'a> {
    pub store: &'a Store,
    pub web: &'a Web,
    pub stdin: &'a mut dyn Read,
}

/// A context that is here.
#[derive(Debug)]
pub enum Fetched {
    /// A directory, which is removed with its scratch if it has one. Ignore files in it count.
    Directory { path: PathBuf, scratch: Option<Scratch>, commit: Option<String> },
    /// A Dockerfile's text; the context is empty.
    Dockerfile(Vec<u8>),
}

/// Writes a stream down, so that it can be read from its beginning again.
fn keep(store: &Store, from: &mut dyn Read) -> Result<(File, Scratch)> {
    let scratch = Scratch::new(store)?;
    let says = || format!("write {}", scratch.path().display());
    let mut options = OpenOptions::new();
    let mut file =
        options.read(true).write(true).create_new(true).mode(0o600).open(scratch.path()).explain(says)?;
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    loop {
        let length = match from.read(&mut buffer) {
            Ok(0) => return Ok((file, scratch)),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            other => other.explain(|| "read the context".into())?,
        };
        total += length as u64;
        if total > MAX_ARCHIVE {
            return Err(Fault::input(format!("the context is longer than {MAX_ARCHIVE} bytes")));
        }
        file.write_all(&buffer[..length]).explain(says)?;
    }
}

/// An archive unpacked, or a Dockerfile.
fn of_file(store: &Store, mut file: File) -> Result<Fetched> {
    let is_archive = is_archive(&mut file);
    file.seek(SeekFrom::Start(0)).explain(|| "read the context".into())?;
    if !is_archive {
        let text = read_bounded(file, MAX_DOCKERFILE, b"the Dockerfile")?;
        if text.is_empty() {
            return Err(Fault::input("the context is empty: the stage before it failed or printed nothing"));
        }
        if text.contains(&0) {
            return Err(Fault::input("the context is neither an archive nor a Dockerfile")
                .hint("tar, alone or packed with gzip, xz, bzip2 or zstd, is what archives are"));
        }
        return Ok(Fetched::Dockerfile(text));
    }
    let scratch = Scratch::new(store)?;
    let path = scratch.path().to_owned();
    std::fs::create_dir(&path).explain(|| format!("make {}", path.display()))?;
    let dir: OwnedFd = File::open(&path).explain(|| format!("open {}", path.display()))?.into();
    let mut target = layer::Target::plain(dir);
    Packed::new(file)?.apply(&mut target).map_err(|fault| fault.within("unpack the context"))?;
    Ok(Fetched::Directory { path, scratch: Some(scratch), commit: None })
}

/// Where a source of ADD is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddSource {
    Local,
    Url,
    Git(GitUrl),
}

impl AddSource {
    /// What a source of ADD means. COPY takes local ones only.
    ///
    /// # Errors
    /// As [`GitUrl::parse`].
    pub fn of(source: &str) -> Result<AddSource> {
        Ok(match GitUrl::parse(source)? {
            Some(url) => AddSource::Git(url),
            None if is_url(source) => AddSource::Url,
            None => AddSource::Local,
        })
    }
}
