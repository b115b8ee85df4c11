//! What one source of COPY means.

use crate::files::Inner;
use crate::ignore::pattern::{Pattern, Syntax};
use crate::ignore::rules::{Rules, clean};
use crate::resolve::{components, open_dir, push, resolve, split};
use crate::select::{Options, Pick};
use crate::walk::{Entry, Facts, Filter, walk};
use fault::{Fault, Kind, Result};
use layer::ItemKind;
use rootfs::{failed, names, show};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, readlinkat, statat};
use rustix::io::Errno;

pub struct Chooser<'a> {
    pub inner: &'a Inner,
    /// `--exclude`.
    pub exclude: Rules,
    pub options: &'a Options,
}

impl Chooser<'_> {
    /// Takes what a source stands for.
    pub fn choose(&self, source: &[u8], picks: &mut Vec<Pick>) -> Result<()> {
        if source.contains(&0) {
            return Err(Fault::input(format!("{} holds a NUL", show(source))));
        }
        if self.options.parents {
            return self.choose_with_parents(source, picks);
        }
        for path in self.expand(source)? {
            self.take(&path, source, picks)?;
        }
        Ok(())
    }

    /// The paths a source stands for: itself, or those a pattern fits.
    fn expand(&self, source: &[u8]) -> Result<Vec<Vec<u8>>> {
        let path = clean(&[b"/", source].concat())[1..].to_vec();
        let parts: Vec<&[u8]> = components(&path).collect();
        let first = parts.iter().position(|part| has_wildcards(part));
        let Some(first) = first.filter(|_| self.options.wildcards) else { return Ok(vec![path]) };
        let patterns = parts[first..]
            .iter()
            .map(|part| Pattern::new(part, Syntax::Match))
            .collect::<Result<Vec<_>>>()
            .map_err(|fault| fault.on(show(source)))?;
        let found = resolve(self.inner.root.as_fd(), &parts[..first].join(&b'/'))?;
        if found.kind != Some(FileType::Directory) {
            return Ok(Vec::new());
        }
        let mut matches = Vec::new();
        self.fitting(found.path, &patterns, &mut matches)?;
        Ok(matches)
    }

    /// What in a directory, and in those below it, fits one pattern for each level.
    fn fitting(&self, dir: Vec<u8>, patterns: &[Pattern], matches: &mut Vec<Vec<u8>>) -> Result<()> {
        let Some((pattern, rest)) = patterns.split_first() else {
            matches.push(dir);
            return Ok(());
        };
        let fd = match open_dir(self.inner.root.as_fd(), &dir) {
            Ok(fd) => fd,
            // No directory, or none any more.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed("open", &dir, error)),
        };
        let found = names(&fd).map_err(|error| failed("read the directory", &dir, error))?;
        drop(fd);
        for name in found.iter().filter(|name| pattern.fits(name.to_bytes())) {
            let mut path = dir.clone();
            push(&mut path, name.to_bytes())?;
            let rules = &self.inner.ignore.rules;
            if rules.find(&path).is_some() && !rules.excepts_below(&path) {
                continue;
            }
            self.fitting(path, rest, matches)?;
        }
        Ok(())
    }

    /// Takes what a path leads to.
    fn take(&self, path: &[u8], source: &[u8], picks: &mut Vec<Pick>) -> Result<()> {
        let found = resolve(self.inner.root.as_fd(), path).map_err(|fault| fault.on(show(source)))?;
        let rules = &self.inner.ignore.rules;
        if let Some(link) = found.links.iter().find(|link| rules.find(link).is_some()) {
            return Err(self.missing(source, link));
        }
        let Some(kind) = found.kind.filter(|_| !found.is_blocked) else {
            return Err(self.missing(source, path));
        };
        let name = split(path).1;
        if kind == FileType::Directory {
            let entries = self.walk(&found.path, None)?;
            if entries.is_empty() {
                return Err(self.missing(source, &found.path));
            }
            picks.push(Pick { name: name.to_vec(), path: found.path, entries, given: None });
            return Ok(());
        }
        if rules.find(&found.path).is_some() {
            return Err(self.missing(source, &found.path));
        }
        if self.exclude.find(name).is_some() {
            return Ok(());
        }
        let entry = self.look(&found.path)?;
        picks.push(Pick { name: name.to_vec(), path: found.path, entries: vec![entry], given: None });
        Ok(())
    }

    fn walk(&self, path: &[u8], include: Option<&Rules>) -> Result<Vec<Entry>> {
        let filter = Filter { ignore: &self.inner.ignore.rules, exclude: &self.exclude, include };
        walk(self.inner.root.as_fd(), path, &filter).map_err(|fault| {
            let is_closed = self.inner.is_local && fault.kind() == Kind::Denied;
            if is_closed {
                fault.hint("what does not belong to the build, .dockerignore leaves out")
            } else {
                fault
            }
        })
    }

    /// Something that is no directory, nor a link.
    fn look(&self, path: &[u8]) -> Result<Entry> {
        let (dir, name) = split(path);
        let dir = open_dir(self.inner.root.as_fd(), dir).map_err(|error| failed("open", dir, error))?;
        let stat =
            statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| failed("look at", path, error))?;
        let kind = rootfs::kind_of(&stat);
        let link = match kind {
            Some(ItemKind::Symlink) => {
                readlinkat(&dir, name, Vec::new()).map_err(|error| failed("read", path, error))?.into_bytes()
            }
            _ => Vec::new(),
        };
        Ok(Entry { path: Box::default(), kind, facts: Facts::of(&stat), link: link.into() })
    }

    /// Of each source what is below its pivot, by its whole path from there on.
    fn choose_with_parents(&self, source: &[u8], picks: &mut Vec<Pick>) -> Result<()> {
        let pivot = source.windows(3).position(|part| part == b"/./");
        let (base, pattern) = pivot.map_or((&b""[..], source), |at| (&source[..at], &source[at + 3..]));
        let pattern = clean(&[b"/", pattern].concat())[1..].to_vec();
        if pattern.is_empty() {
            return self.expand(base)?.iter().try_for_each(|path| self.take(path, source, picks));
        }
        let include = Rules::new(&[&pattern]).map_err(|fault| fault.on(show(source)))?;
        let before = picks.len();
        for path in self.expand(base)? {
            let found = resolve(self.inner.root.as_fd(), &path).map_err(|fault| fault.on(show(source)))?;
            if found.kind != Some(FileType::Directory) {
                if has_wildcards(base) {
                    continue;
                }
                return Err(self.missing(source, &path));
            }
            let entries = self.walk(&found.path, Some(&include))?;
            if entries.len() > 1 {
                picks.push(Pick { name: split(&path).1.to_vec(), path: found.path, entries, given: None });
            }
        }
        if picks.len() == before && !has_wildcards(base) && !has_wildcards(&pattern) {
            let whole = [base, b"/", &pattern].concat();
            // What is excluded was there.
            if self.exclude.find(&pattern).is_none() {
                return Err(self.missing(source, &clean(&[b"/", whole.as_slice()].concat())[1..]));
            }
        }
        Ok(())
    }

    fn missing(&self, source: &[u8], path: &[u8]) -> Fault {
        let ignore = &self.inner.ignore;
        let place = if self.inner.is_local { "in the context" } else { "there" };
        let fault = Fault::not_found(format!("{} is not {place}", show(source)));
        match ignore.rules.find(path) {
            Some(pattern) => fault.hint(format!("{} leaves it out by {:?}", ignore.name(), show(pattern))),
            None => fault,
        }
    }
}

/// As docker looks for them: what has a `\` in front is none.
fn has_wildcards(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}
