//! `.dockerignore`: what a context leaves out.

#[cfg(test)]
mod corpora;
pub(crate) mod pattern;
pub(crate) mod rules;
#[cfg(test)]
mod tests;

use fault::{Explain, Fault, Result};
use rules::{Rules, clean};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Longest ignore file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// In the order they are looked for: podman's goes before docker's.
const NAMES: [&str; 2] = [".containerignore", ".dockerignore"];

/// What a context leaves out.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    name: String,
    pub(crate) rules: Rules,
}

impl Ignore {
    /// Nothing is left out.
    pub fn none() -> Ignore {
        Ignore::default()
    }

    /// From the text of an ignore file; `name` is what messages call it.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] for a pattern that is none.
    pub fn parse(text: &[u8], name: &str) -> Result<Ignore> {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let patterns: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').filter_map(line).collect();
        let rules = Rules::new(&patterns).map_err(|fault| fault.within(name))?;
        Ok(Ignore { name: name.to_owned(), rules })
    }

    /// The ignore file of a context: `DOCKERFILE.containerignore` or `DOCKERFILE.dockerignore` beside the Dockerfile, else the context's
    /// `.containerignore`, else its `.dockerignore`, else nothing is left out.
    ///
    /// # Errors
    /// When one is there and cannot be read or understood.
    pub fn find(context: &Path, dockerfile: Option<&Path>) -> Result<Ignore> {
        for path in candidates(context, dockerfile) {
            if let Some(text) = read(&path)? {
                let name = path.strip_prefix(context).unwrap_or(&path);
                return Ignore::parse(&text, &name.display().to_string());
            }
        }
        Ok(Ignore::none())
    }

    /// The file the rules are from, for messages; empty if there is none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pattern that leaves a path of the context out, if one does: for messages and `CopyIgnoredFile`.
    pub fn pattern_for(&self, path: &[u8]) -> Option<&[u8]> {
        let path = clean(path);
        self.rules.find(path.strip_prefix(b"/").unwrap_or(&path))
    }
}

fn candidates(context: &Path, dockerfile: Option<&Path>) -> Vec<PathBuf> {
    let beside = dockerfile.into_iter().flat_map(|file| {
        NAMES.map(|name| {
            let mut whole = file.as_os_str().to_owned();
            whole.push(name);
            PathBuf::from(whole)
        })
    });
    beside.chain(NAMES.map(|name| context.join(name))).collect()
}

fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let what = || format!("read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error).explain(what),
    };
    // Of a pipe nobody might write into.
    if !file.metadata().explain(what)?.is_file() {
        return Err(Fault::input(format!("{} is no file", path.display())));
    }
    let mut text = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut text).explain(what)?;
    if text.len() as u64 > MAX_FILE {
        return Err(Fault::input(format!("{} is longer than {MAX_FILE} bytes", path.display())));
    }
    Ok(Some(text))
}

/// A line's pattern: relative to the context, in its shortest form.
fn line(line: &[u8]) -> Option<Vec<u8>> {
    if line.starts_with(b"#") {
        return None;
    }
    let text = line.trim_ascii();
    let (mark, text) = match text.strip_prefix(b"!") {
        Some(rest) => (b"!".as_slice(), rest.trim_ascii()),
        None => (b"".as_slice(), text),
    };
    if text.is_empty() {
        return (!mark.is_empty()).then(|| mark.to_vec());
    }
    let text = clean(text);
    let text = if text.len() > 1 { text.strip_prefix(b"/").unwrap_or(&text) } else { &text };
    Some([mark, text].concat())
}
