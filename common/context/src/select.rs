//! What COPY chooses.

use crate::choose::Chooser;
use crate::content::{self, Known, digest_of};
use crate::files::{Bytes, Context, Given, Inner, Place};
use crate::ignore::rules::{Rules, clean};
use crate::resolve::split;
use crate::walk::{Entry, Facts};
use fault::{Fault, Result};
use layer::ItemKind;
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use rootfs::show;
use std::sync::{Arc, OnceLock};

/// How sources are understood.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--parents`: directories on the way are made at the destination, from the pivot `/./` on.
    pub parents: bool,
    /// `--exclude`, each a pattern as in an ignore file, relative to the source.
    pub exclude: Vec<String>,
    /// Sources may be patterns (Go's `filepath.Match`): COPY and ADD have it on, heredocs off.
    pub wildcards: bool,
}

/// Files that were chosen, as they were then.
#[derive(Clone, Debug)]
pub struct Selection {
    pub(crate) picks: Vec<Pick>,
    pub(crate) place: Option<Arc<Inner>>,
    /// What files were when they were read, pick by pick.
    pub(crate) read: OnceLock<Vec<Vec<Known>>>,
}

/// What one source, or one file that a pattern fits, stands for.
#[derive(Clone, Debug)]
pub(crate) struct Pick {
    /// Its name at the destination, unless that is another; of a directory, whose contents are copied, it has no meaning.
    pub name: Vec<u8>,
    /// Where it is in the root, without links.
    pub path: Vec<u8>,
    /// A directory and what is in it, or one file, whose path is empty.
    pub entries: Vec<Entry>,
    pub given: Option<Given>,
}

impl Pick {
    pub fn is_directory(&self) -> bool {
        self.entries.first().is_some_and(|top| top.kind == Some(ItemKind::Directory))
    }

    /// Path of an entry in the root.
    pub fn whole(&self, entry: &Entry) -> Vec<u8> {
        match (self.path.is_empty(), entry.path.is_empty()) {
            (true, _) => entry.path.to_vec(),
            (false, true) => self.path.clone(),
            (false, false) => [self.path.as_slice(), b"/", &entry.path].concat(),
        }
    }
}

impl Selection {
    pub(crate) fn of<S: AsRef<[u8]>>(
        context: &Context,
        sources: &[S],
        options: &Options,
    ) -> Result<Selection> {
        let mut picks = Vec::new();
        let place = match &context.0 {
            Place::Given(files) => {
                for source in sources {
                    picks.push(pick_given(files, source.as_ref())?);
                }
                None
            }
            Place::Tree(inner) => {
                let exclude = Rules::new(&options.exclude).map_err(|fault| fault.within("--exclude"))?;
                let chooser = Chooser { inner, exclude, options };
                for source in sources {
                    chooser.choose(source.as_ref(), &mut picks)?;
                }
                Some(Arc::clone(inner))
            }
        };
        Ok(Selection { picks, place, read: OnceLock::new() })
    }

    /// What the result of copying depends on: names as far as they are kept, kinds, permissions, link targets, attributes, contents; owners
    /// only where they are kept. No times, and nothing of this machine.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn digest(&self) -> Result<Digest> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let read = self.read()?;
        for (pick, read) in self.picks.iter().zip(read) {
            // Contents of a directory are the same by whatever name it has.
            text(&mut hasher, if pick.is_directory() { b"/" } else { &pick.name });
            hasher.update(&(pick.entries.len() as u64).to_be_bytes());
            for (entry, read) in pick.entries.iter().zip(read) {
                self.add(&mut hasher, entry, read);
            }
        }
        Ok(hasher.finish())
    }

    fn add(&self, hasher: &mut Hasher, entry: &Entry, read: &Known) {
        let is_top = entry.path.is_empty();
        let kind = match entry.kind {
            Some(ItemKind::Directory) if is_top => return,
            Some(ItemKind::Directory) => b'd',
            Some(ItemKind::Symlink) => b'l',
            Some(ItemKind::CharDevice) => b'c',
            Some(ItemKind::BlockDevice) => b'b',
            Some(ItemKind::Fifo) => b'p',
            Some(_) => b'f',
            // Not copied.
            None => return,
        };
        text(hasher, &entry.path);
        hasher.update(&[kind]);
        let facts = &read.facts;
        if kind != b'l' {
            hasher.update(&facts.mode.to_be_bytes());
        }
        if self.place.as_ref().is_some_and(|inner| !inner.is_local) {
            hasher.update(&facts.uid.to_be_bytes());
            hasher.update(&facts.gid.to_be_bytes());
        }
        match kind {
            b'l' => text(hasher, &entry.link),
            b'c' | b'b' => {
                hasher.update(&facts.number.0.to_be_bytes());
                hasher.update(&facts.number.1.to_be_bytes());
            }
            b'f' | b'd' => hasher.update(&read.fingerprint),
            _ => {}
        }
    }

    /// Reads what has not been read yet.
    fn read(&self) -> Result<&Vec<Vec<Known>>> {
        if let Some(read) = self.read.get() {
            return Ok(read);
        }
        let read = self.picks.iter().map(|pick| self.read_pick(pick)).collect::<Result<Vec<_>>>()?;
        Ok(self.read.get_or_init(|| read))
    }

    fn read_pick(&self, pick: &Pick) -> Result<Vec<Known>> {
        match (&pick.given, &self.place) {
            (Some(given), _) => {
                let fingerprint = match &given.bytes {
                    Bytes::Here(bytes) => digest_of(bytes),
                    Bytes::File(_, digest, _) => *digest,
                };
                Ok(pick.entries.iter().map(|entry| Known { fingerprint, facts: entry.facts }).collect())
            }
            (None, Some(inner)) => content::fingerprints(inner, pick),
            (None, None) => Ok(Vec::new()),
        }
    }

    /// Whether nothing was chosen, as when nothing fits a pattern.
    pub fn is_empty(&self) -> bool {
        self.picks.is_empty()
    }

    /// How many things are copied, directories included.
    pub fn count(&self) -> usize {
        self.copied().count()
    }

    /// Bytes of content.
    pub fn bytes(&self) -> u64 {
        let files = self.copied().filter(|entry| entry.kind == Some(ItemKind::File));
        files.fold(0, |sum, entry| sum.saturating_add(entry.facts.size))
    }

    fn copied(&self) -> impl Iterator<Item = &Entry> {
        self.picks
            .iter()
            .flat_map(|pick| &pick.entries)
            .filter(|entry| entry.kind != Some(ItemKind::Directory) || !entry.path.is_empty())
    }
}

fn text(hasher: &mut Hasher, text: &[u8]) {
    hasher.update(&(text.len() as u64).to_be_bytes());
    hasher.update(text);
}

fn pick_given(files: &[Given], source: &[u8]) -> Result<Pick> {
    let path = clean(&[b"/", source].concat())[1..].to_vec();
    let file = files
        .iter()
        .find(|file| file.name == path)
        .ok_or_else(|| Fault::not_found(format!("{} is not there", show(source))))?;
    let size = match &file.bytes {
        Bytes::Here(bytes) => bytes.len() as u64,
        Bytes::File(_, _, size) => *size,
    };
    let facts = Facts {
        device: 0,
        inode: 0,
        links: 1,
        mode: file.mode,
        uid: 0,
        gid: 0,
        size,
        mtime: file.mtime,
        ctime: file.mtime,
        number: (0, 0),
    };
    let entry = Entry { path: Box::default(), kind: Some(ItemKind::File), facts, link: Box::default() };
    Ok(Pick { name: split(&path).1.to_vec(), path, entries: vec![entry], given: Some(file.clone()) })
}
