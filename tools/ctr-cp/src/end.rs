//! What the command line calls the two ends of a copy.

use cli::{Fault, Result};
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// One end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// An archive: stdin or stdout.
    Stream,
    /// A path of this machine.
    Here(Vec<u8>),
    /// A path in a container; with an empty name in that of the record on stdin.
    In { container: String, path: Vec<u8> },
}

impl End {
    /// As docker's command line has it: what begins with `/` or `.` is here, whatever colons follow.
    ///
    /// # Errors
    /// [`cli::Kind::Usage`] for an empty path.
    pub fn parse(text: &OsStr) -> Result<End> {
        let bytes = text.as_bytes();
        if bytes == b"-" {
            return Ok(End::Stream);
        }
        if bytes.is_empty() {
            return Err(Fault::usage("a path is empty"));
        }
        let colon = bytes.iter().position(|byte| *byte == b':');
        let Some(colon) = colon.filter(|_| !bytes.starts_with(b"/") && !bytes.starts_with(b".")) else {
            return Ok(End::Here(bytes.to_vec()));
        };
        let container = std::str::from_utf8(&bytes[..colon])
            .map_err(|_| Fault::usage("the container's name is not UTF-8").on(text.to_string_lossy()))?;
        let path = &bytes[colon + 1..];
        if path.is_empty() {
            return Err(Fault::usage("a container's path is empty")
                .on(text.to_string_lossy())
                .hint(format!("{container}:/ is all of it")));
        }
        Ok(End::In { container: container.to_owned(), path: path.to_vec() })
    }

    pub fn container(&self) -> Option<&str> {
        match self {
            End::In { container, .. } => Some(container),
            _ => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |path: &[u8]| OsString::from_vec(path.to_vec()).to_string_lossy().into_owned();
        match self {
            End::Stream => f.write_str("-"),
            End::Here(path) => f.write_str(&shown(path)),
            End::In { container, path } => write!(f, "{container}:{}", shown(path)),
        }
    }
}

/// What the end of a path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tail<'a> {
    /// The path without slashes and `/.` at its end; of the root itself `/`.
    pub plain: &'a [u8],
    /// It ends with a slash or with `/.`, so it has to be a directory.
    pub is_directory: bool,
    /// It ends with `/.`, or is `.`: its contents are meant.
    pub is_contents: bool,
}

impl<'a> Tail<'a> {
    pub fn of(path: &'a [u8]) -> Tail<'a> {
        let is_contents = path == b"." || path.ends_with(b"/.");
        let mut plain = path;
        while plain.len() > 1 {
            match plain.strip_suffix(b"/.").or_else(|| plain.strip_suffix(b"/")) {
                Some(shorter) => plain = shorter,
                None => break,
            }
        }
        if plain.is_empty() {
            plain = b"/";
        }
        Tail { plain, is_directory: is_contents || path.ends_with(b"/"), is_contents }
    }

    /// The last name; `None` for `/`, `.` and `..`, which are none.
    pub fn name(&self) -> Option<&'a [u8]> {
        let name = self.plain.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        (!matches!(name, b"" | b"." | b"..")).then_some(name)
    }

    /// The directory the last name is in; empty for the one that paths begin in.
    pub fn parent(&self) -> &'a [u8] {
        match self.plain.iter().rposition(|byte| *byte == b'/') {
            Some(0) => b"/",
            Some(slash) => &self.plain[..slash],
            None => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colons_divide_what_does_not_begin_like_a_path() {
        let parse = |text: &str| End::parse(OsStr::new(text));
        let inside = |container: &str, path: &str| End::In { container: container.into(), path: path.into() };
        assert_eq!(parse("web:/a:b").unwrap(), inside("web", "/a:b"));
        assert_eq!(parse(":/a").unwrap(), inside("", "/a"));
        assert_eq!(parse("web:a").unwrap(), inside("web", "a"));
        assert_eq!(parse("./a:b").unwrap(), End::Here(b"./a:b".to_vec()));
        assert_eq!(parse("/a:b").unwrap(), End::Here(b"/a:b".to_vec()));
        assert_eq!(parse("a").unwrap(), End::Here(b"a".to_vec()));
        assert_eq!(parse("-").unwrap(), End::Stream);
        assert!(parse("").is_err() && parse("web:").is_err());
    }

    #[test]
    fn the_end_of_a_path_says_what_is_meant() {
        for (path, plain, is_directory, is_contents, name, parent) in [
            ("/a/b", "/a/b", false, false, Some("b"), "/a"),
            ("/a/b/", "/a/b", true, false, Some("b"), "/a"),
            ("/a/b/.", "/a/b", true, true, Some("b"), "/a"),
            ("/a/b/./", "/a/b", true, false, Some("b"), "/a"),
            ("a", "a", false, false, Some("a"), ""),
            ("/a", "/a", false, false, Some("a"), "/"),
            (".", ".", true, true, None, ""),
            ("..", "..", false, false, None, ""),
            ("/", "/", true, false, None, "/"),
            ("/.", "/", true, true, None, "/"),
            ("//", "/", true, false, None, "/"),
            ("a/..", "a/..", false, false, None, "a"),
        ] {
            let tail = Tail::of(path.as_bytes());
            assert_eq!(tail.plain, plain.as_bytes(), "{path}");
            assert_eq!((tail.is_directory, tail.is_contents), (is_directory, is_contents), "{path}");
            assert_eq!(tail.name(), name.map(str::as_bytes), "{path}");
            assert_eq!(tail.parent(), parent.as_bytes(), "{path}");
        }
    }
}
