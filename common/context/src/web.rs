//! Files of HTTP servers, and what is kept of them: their contents by digest, and by address what the server called the version it sent.
//! An address that was asked before is asked whether that is still what it has.

use crate::address::{disposition, name_of, shown};
use crate::files::{Bytes, Given};
use crate::{Context, Login};
use fault::{Explain, Fault, Kind, Result};
use layer::Time;
use oci::Digest;
use oci::digest::{Algorithm, Hasher};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use store::{Scratch, Store, atomic};

const CHUNK: usize = 128 << 10;
/// Longest file that is fetched.
const MAX_BYTES: u64 = 64 << 30;
/// Longest thing a server may call a version.
const MAX_TAG: usize = 1024;
/// How often a download that is cut is begun again.
const ATTEMPTS: u32 = 3;
/// What docker calls a file of an address without a name.
const UNNAMED: &str = "__unnamed__";

/// Servers, and what was got from them before (`cache/http`).
#[derive(Clone, Debug)]
pub struct Web {
    client: registry::Client,
    store: Store,
    limit: u64,
}

/// A file that was fetched.
#[derive(Clone, Debug)]
pub struct Page {
    /// The name it has for ADD: the last of the address's path, else that of Content-Disposition.
    pub name: String,
    pub digest: Digest,
    /// Last-Modified, in seconds since 1970.
    pub modified: Option<i64>,
    pub size: u64,
    content: Arc<File>,
}

/// What is known of an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    digest: String,
    size: u64,
    etag: String,
    /// As the server writes it.
    modified: String,
    /// Of Content-Disposition.
    name: String,
}

impl Web {
    pub fn new(store: &Store, client: registry::Client) -> Web {
        Web { client, store: store.clone(), limit: MAX_BYTES }
    }

    /// The same, for files of no more bytes.
    #[must_use]
    pub fn with_limit(self, bytes: u64) -> Web {
        Web { limit: bytes.min(MAX_BYTES), ..self }
    }

    /// Fetches a URL, or finds that what was fetched before is what it still has. With a checksum, that of before is good without asking.
    ///
    /// # Errors
    /// [`Kind::Input`] if it has another digest than demanded or is too long, [`Kind::NotFound`] and the like as the server says.
    pub fn fetch(&self, url: &str, checksum: Option<&Digest>) -> Result<Page> {
        self.fetch_as(url, checksum, None)
    }

    /// The same as somebody the server knows.
    ///
    /// # Errors
    /// As [`Web::fetch`].
    pub fn fetch_as(&self, url: &str, checksum: Option<&Digest>, login: Option<&Login>) -> Result<Page> {
        let known = self.recall(url);
        let before = known.as_ref().and_then(|known| self.open(known));
        if let (Some(known), Some(file), Some(wanted)) = (&known, &before, checksum)
            && same_digest(file, wanted)?
        {
            return page(url, known, Arc::clone(file));
        }
        let conditions = before.as_ref().and(known.as_ref()).map(Known::conditions).unwrap_or_default();
        let (known, file) = self.ask(url, login, &conditions, known, before)?;
        if let Some(wanted) = checksum
            && !same_digest(&file, wanted)?
        {
            return Err(
                Fault::input(format!("it is {} where {wanted} was demanded", known.digest)).on(shown(url))
            );
        }
        page(url, &known, file)
    }

    fn ask(
        &self,
        url: &str,
        login: Option<&Login>,
        conditions: &[(&'static str, String)],
        known: Option<Known>,
        before: Option<Arc<File>>,
    ) -> Result<(Known, Arc<File>)> {
        let mut attempt = 1;
        loop {
            let page = self.client.get_as(url, conditions, login.map(Login::bearer))?;
            if page.is_unchanged() {
                let both = known.zip(before);
                return both.ok_or_else(|| {
                    Fault::input("the server says that what was never fetched is unchanged").on(shown(url))
                });
            }
            match self.download(page) {
                Ok((known, file)) => {
                    self.note(url, &known);
                    return Ok((known, file));
                }
                Err(fault) if fault.kind() == Kind::Retryable && attempt < ATTEMPTS => attempt += 1,
                Err(fault) => return Err(fault.on(shown(url))),
            }
        }
    }

    fn download(&self, page: registry::Page) -> Result<(Known, Arc<File>)> {
        let text = |name: &str| {
            page.header(name).filter(|text| text.len() <= MAX_TAG).unwrap_or_default().to_owned()
        };
        let mut known = Known {
            etag: text("etag"),
            modified: text("last-modified"),
            name: disposition(&text("content-disposition")).unwrap_or_default(),
            ..Known::default()
        };
        let promised = page.header("content-length").and_then(|text| text.trim().parse::<u64>().ok());
        let too_long = || Fault::input(format!("it is longer than {} bytes", self.limit));
        if promised.is_some_and(|length| length > self.limit) {
            return Err(too_long());
        }
        let scratch = Scratch::new(&self.store)?;
        let says = || format!("write {}", scratch.path().display());
        let mut to = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(scratch.path())
            .explain(says)?;
        let mut from = page.into_reader();
        let mut hasher = Hasher::new(Algorithm::Sha256);
        let mut buffer = vec![0; CHUNK];
        loop {
            let length = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Fault::retryable("the connection was cut").because(error)),
            };
            known.size += length as u64;
            if known.size > self.limit {
                return Err(too_long());
            }
            hasher.update(&buffer[..length]);
            to.write_all(&buffer[..length]).explain(says)?;
        }
        if promised.is_some_and(|length| length != known.size) {
            return Err(Fault::retryable("the connection was cut"));
        }
        let digest = hasher.finish();
        known.digest = digest.to_string();
        let dir = self.dir();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .explain(|| format!("make {}", dir.display()))?;
        let path = self.path(&digest);
        std::fs::rename(scratch.path(), &path).explain(|| format!("write {}", path.display()))?;
        drop(scratch.keep());
        Ok((known, Arc::new(to)))
    }

    fn dir(&self) -> PathBuf {
        self.store.root().join("cache/http")
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir().join(format!("sha256-{}", digest.hex()))
    }

    fn note_path(&self, url: &str) -> PathBuf {
        self.dir().join(&Digest::of(url.as_bytes()).hex()[..32])
    }

    /// What cannot be noted is asked for again.
    fn note(&self, url: &str, known: &Known) {
        let _ = atomic::write_unflushed(&self.note_path(url), known.to_text().as_bytes(), 0o600);
    }

    fn recall(&self, url: &str) -> Option<Known> {
        let text = std::fs::read(self.note_path(url)).ok()?;
        Known::of_text(std::str::from_utf8(&text).ok()?)
    }

    /// The content that was kept, if it is what it was: a crash of the machine may have come between.
    fn open(&self, known: &Known) -> Option<Arc<File>> {
        let digest = Digest::parse(&known.digest).ok()?;
        let file = File::open(self.path(&digest)).ok()?;
        let is_whole = file.metadata().is_ok_and(|status| status.is_file() && status.len() == known.size)
            && same_digest(&file, &digest).unwrap_or(false);
        is_whole.then(|| Arc::new(file))
    }
}

impl Known {
    fn conditions(&self) -> Vec<(&'static str, String)> {
        let mut conditions = Vec::new();
        if !self.etag.is_empty() {
            conditions.push(("if-none-match", self.etag.clone()));
        }
        if !self.modified.is_empty() {
            conditions.push(("if-modified-since", self.modified.clone()));
        }
        conditions
    }

    fn to_text(&self) -> String {
        [&self.digest, &self.size.to_string(), &self.etag, &self.modified, &self.name]
            .map(|line| format!("{line}\n"))
            .concat()
    }

    fn of_text(text: &str) -> Option<Known> {
        let mut lines = text.split('\n').map(str::to_owned);
        let mut next = || lines.next();
        let known = Known {
            digest: next()?,
            size: next()?.parse().ok()?,
            etag: next()?,
            modified: next()?,
            name: next()?,
        };
        // Whole, and nothing behind it.
        (next()?.is_empty() && next().is_none()).then_some(known)
    }
}

impl Page {
    /// As a context of this one file, mode 0600: what ADD copies. Its source is [`Page::name`].
    ///
    /// # Errors
    /// None today.
    pub fn context(&self) -> Result<Context> {
        let digest: Vec<u8> = (0..32)
            .filter_map(|at| u8::from_str_radix(self.digest.hex().get(at * 2..at * 2 + 2)?, 16).ok())
            .collect();
        Ok(Context::given(Given {
            name: self.name.clone().into_bytes(),
            mode: 0o600,
            mtime: Time { seconds: self.modified.unwrap_or(0), nanoseconds: 0 },
            bytes: Bytes::File(Arc::clone(&self.content), digest.try_into().unwrap_or([0; 32]), self.size),
        }))
    }

    /// Its content, from the beginning.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(&self) -> Result<File> {
        crate::files::reopen(&self.content)
    }
}

fn page(url: &str, known: &Known, content: Arc<File>) -> Result<Page> {
    let name = name_of(url).or_else(|| (!known.name.is_empty()).then(|| known.name.clone()));
    let modified = httpdate::parse_http_date(&known.modified).ok();
    Ok(Page {
        name: name.unwrap_or_else(|| UNNAMED.to_owned()),
        digest: Digest::parse(&known.digest)?,
        modified: modified
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .and_then(|since| since.as_secs().try_into().ok()),
        size: known.size,
        content,
    })
}

fn same_digest(file: &File, wanted: &Digest) -> Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut hasher = Hasher::new(wanted.algorithm());
    let (mut buffer, mut at) = (vec![0; CHUNK], 0);
    loop {
        let length = file.read_at(&mut buffer, at).explain(|| "read what was fetched".into())?;
        if length == 0 {
            return Ok(hasher.finish() == *wanted);
        }
        hasher.update(&buffer[..length]);
        at += length as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_written_or_not_at_all() {
        let known = Known {
            digest: Digest::of(b"x").to_string(),
            size: 1,
            etag: "W/\"1\"".into(),
            modified: String::new(),
            name: "x".into(),
        };
        let text = known.to_text();
        assert_eq!(Known::of_text(&text), Some(known));
        for end in 0..text.len() {
            assert_eq!(Known::of_text(&text[..end]), None, "{end}");
        }
        assert_eq!(Known::of_text(&(text + "more\n")), None);
    }
}
