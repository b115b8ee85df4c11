//! What names a repository, as docker reads it: `URL#ref:subdir`, `URL?ref=…&subdir=…`.

use crate::address::shown;
use crate::ignore::rules::clean;
use fault::{Fault, Result};

const HINT: &str =
    "ref, tag, branch, subdir, checksum, commit, keep-git-dir, submodules, mtime, fetch-by-commit";

/// A repository and what of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitUrl {
    /// What git is told.
    pub remote: String,
    /// Branch, tag, full reference or commit; `None`: the default branch.
    pub reference: Option<String>,
    /// Relative to the repository's root.
    pub subdir: Option<String>,
    /// Start of the commit's hash that is demanded.
    pub checksum: Option<String>,
    pub keep_git_dir: Option<bool>,
    pub submodules: Option<bool>,
    /// Files are as old as the commit (`mtime=commit`), not as the checkout.
    pub commit_times: bool,
    /// The checksum is fetched without asking what the reference is now.
    pub fetch_by_commit: bool,
}

impl GitUrl {
    /// `None` for what does not mean a repository: of HTTP addresses those do whose path ends in `.git`.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] for one with a query or a reference that is not understood.
    pub fn parse(text: &str) -> Result<Option<GitUrl>> {
        GitUrl::read(text, true)
    }

    /// The same of a whole context, for which `github.com/…` is enough.
    pub(crate) fn of_context(text: &str) -> Result<Option<GitUrl>> {
        match text.strip_prefix("github.com/") {
            Some(rest) => GitUrl::read(&format!("https://github.com/{rest}"), false),
            None => GitUrl::parse(text),
        }
    }

    fn read(text: &str, needs_suffix: bool) -> Result<Option<GitUrl>> {
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (plain, query) = rest.split_once('?').unwrap_or((rest, ""));
        let Some(remote) = remote(plain, needs_suffix) else { return Ok(None) };
        let mut url = GitUrl { remote, ..GitUrl::default() };
        let refused = |fault: Fault| fault.on(shown(text));
        let fragment = text_of(&fragment.replace('+', "%2B"));
        let (reference, subdir) = fragment.split_once(':').unwrap_or((&fragment, ""));
        url.reference = some(reference);
        url.subdir = some(subdir);
        url.read_query(query).map_err(refused)?;
        if let Some(reference) = &url.reference {
            check_reference(reference).map_err(refused)?;
        }
        if let Some(checksum) = &url.checksum {
            check_hash(checksum).map_err(refused)?;
        }
        url.subdir = url.subdir.and_then(|dir| some(&text_of_clean(&dir)));
        Ok(Some(url))
    }

    fn read_query(&mut self, query: &str) -> Result<()> {
        let mut seen: Vec<String> = Vec::new();
        let (mut tag, mut branch) = (None, None);
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (text_of(name), text_of(value));
            if seen.contains(&name) {
                return Err(Fault::input(format!("{name} is given twice")));
            }
            match (name.as_str(), value.is_empty()) {
                ("keep-git-dir", _) => self.keep_git_dir = Some(flag(&name, &value)?),
                ("submodules", _) => self.submodules = Some(flag(&name, &value)?),
                ("fetch-by-commit", _) => self.fetch_by_commit = flag(&name, &value)?,
                ("ref" | "tag" | "branch" | "subdir" | "checksum" | "commit" | "mtime", true) => {
                    return Err(Fault::input(format!("{name} has no value")));
                }
                ("ref", _) => agree(&mut self.reference, "ref", value)?,
                ("subdir", _) => agree(&mut self.subdir, "subdir", value)?,
                ("tag", _) => tag = Some(prefixed("refs/tags/", &value)),
                ("branch", _) => branch = Some(prefixed("refs/heads/", &value)),
                ("checksum" | "commit", _) => agree(&mut self.checksum, "checksum", value)?,
                ("mtime", _) => {
                    self.commit_times = match value.as_str() {
                        "commit" => true,
                        "checkout" => false,
                        _ => return Err(Fault::input(format!("mtime is {value}: checkout or commit"))),
                    };
                }
                _ => return Err(Fault::input(format!("{name} means nothing to a git source")).hint(HINT)),
            }
            seen.push(name);
        }
        if tag.is_some() && branch.is_some() {
            return Err(Fault::input("a tag and a branch are named"));
        }
        tag.or(branch).map_or(Ok(()), |reference| agree(&mut self.reference, "ref", reference))
    }

    /// Whether it names its commit by the whole hash, so that nobody need be asked what it stands for.
    pub fn is_pinned(&self) -> bool {
        self.reference.as_deref().is_some_and(is_commit) || self.fetch_by_commit
    }

    /// For messages: without a password.
    pub fn shown(&self) -> String {
        shown(&self.remote)
    }
}

/// What git is given, if this is a repository.
fn remote(plain: &str, needs_suffix: bool) -> Option<String> {
    if plain.starts_with("./") || plain.starts_with("../") || plain.contains(['\n', '\0', ' ']) {
        return None;
    }
    let Some((scheme, rest)) = plain.split_once("://") else {
        return is_scp(plain).then(|| plain.to_owned());
    };
    let scheme = scheme.to_ascii_lowercase();
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if host.is_empty() || host.starts_with('-') {
        return None;
    }
    let counts = match scheme.as_str() {
        "http" | "https" => !needs_suffix || path.as_bytes().ends_with(b".git"),
        "ssh" | "git" => true,
        _ => false,
    };
    counts.then(|| format!("{scheme}://{rest}"))
}

/// `user@host:path`.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let plain = |text: &str, more: &[u8]| {
        !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || more.contains(&byte))
    };
    plain(user, b"_")
        && plain(host, b".")
        && !host.starts_with('-')
        && !user.starts_with('-')
        && !path.is_empty()
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn text_of(text: &str) -> String {
    String::from_utf8_lossy(&registry::percent_decoded(text.replace('+', " ").as_bytes())).into_owned()
}

fn text_of_clean(dir: &str) -> String {
    String::from_utf8_lossy(&clean(format!("/{dir}").as_bytes())[1..]).into_owned()
}

fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with(prefix) { name.to_owned() } else { format!("{prefix}{name}") }
}

fn agree(there: &mut Option<String>, what: &str, value: String) -> Result<()> {
    match there {
        Some(other) if *other != value => Err(Fault::input(format!("{what} is {other} and {value}"))),
        _ => {
            *there = Some(value);
            Ok(())
        }
    }
}

/// As Go's `strconv.ParseBool`; named alone it is true.
fn flag(name: &str, value: &str) -> Result<bool> {
    match value {
        "" | "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(Fault::input(format!("{name} is {value}: true or false"))),
    }
}

/// What git takes as a name (git-check-ref-format(1)), and never as an option.
fn check_reference(reference: &str) -> Result<()> {
    let bad = |byte: u8| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte);
    let is_bad = reference.starts_with(['-', '/', '+'])
        || reference.ends_with(['/', '.'])
        || reference.contains("..")
        || reference.contains("@{")
        || reference.contains("//")
        || reference.bytes().any(bad);
    if is_bad { Err(Fault::input(format!("{reference:?} is no git reference"))) } else { Ok(()) }
}

pub(super) fn check_hash(hash: &str) -> Result<()> {
    if (1..=64).contains(&hash.len()) && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(Fault::input(format!("{hash:?} is no hash of a commit")))
}

/// A whole hash of a commit.
pub(super) fn is_commit(reference: &str) -> bool {
    matches!(reference.len(), 40 | 64)
        && reference.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remote, reference, subdirectory.
    fn parts(text: &str) -> Option<(String, String, String)> {
        let url = GitUrl::of_context(text).unwrap()?;
        Some((url.remote, url.reference.unwrap_or_default(), url.subdir.unwrap_or_default()))
    }

    #[test]
    fn repositories_are_named_as_for_docker() {
        for (text, remote, reference, subdir) in [
            ("https://h/foo.git", "https://h/foo.git", "", ""),
            ("https://h/foo.git#deadbeef", "https://h/foo.git", "deadbeef", ""),
            ("https://h/foo.git#release/1.2", "https://h/foo.git", "release/1.2", ""),
            ("https://h/foo.git#a/b:c/d", "https://h/foo.git", "a/b", "c/d"),
            ("https://h/foo.git#:sub", "https://h/foo.git", "", "sub"),
            ("https://h/foo.git#:../../sub/../x/", "https://h/foo.git", "", "x"),
            ("https://u:p@h/foo.git", "https://u:p@h/foo.git", "", ""),
            ("HTTPS://h/foo.git", "https://h/foo.git", "", ""),
            ("http://h/foo.git?ref=v1&subdir=/sub", "http://h/foo.git", "v1", "sub"),
            ("https://h/foo.git?subdir=/sub#v1", "https://h/foo.git", "v1", "sub"),
            ("https://h/foo.git?tag=v1", "https://h/foo.git", "refs/tags/v1", ""),
            ("https://h/foo.git?branch=refs/heads/v1", "https://h/foo.git", "refs/heads/v1", ""),
            ("https://h/foo.git?ref=a%2Fb", "https://h/foo.git", "a/b", ""),
            ("git://h/foo", "git://h/foo", "", ""),
            ("ssh://git@h:22/foo#x", "ssh://git@h:22/foo", "x", ""),
            ("git@github.com:a/b", "git@github.com:a/b", "", ""),
            ("git@github.com:a/b.git?subdir=/s#v1", "git@github.com:a/b.git", "v1", "s"),
            ("github.com/a/b", "https://github.com/a/b", "", ""),
            ("github.com/a/b#main:x", "https://github.com/a/b", "main", "x"),
        ] {
            let wanted = (remote.to_owned(), reference.to_owned(), subdir.to_owned());
            assert_eq!(parts(text), Some(wanted), "{text}");
        }
        for other in [
            "",
            "-",
            ".",
            "./a.git",
            "../a.git",
            "/a.git",
            "a.git",
            ".git",
            "https://h/foo",
            "https://h/foo.git/",
            "https://h/foo.git.bar",
            "https://h/docker.git:#branch",
            "custom.xyz/a/b.git",
            "file:///a.git",
            "ftp://h/a.git",
            "ext::sh -c x",
            "git@h",
            "git@-oX:p",
            "ssh://-oProxyCommand=x/y",
            "https:///a.git",
            "a b@h:p",
        ] {
            assert_eq!(parts(other), None, "{other}");
        }
        assert_eq!(GitUrl::parse("github.com/a/b").unwrap(), None);
    }

    #[test]
    fn queries_say_how() {
        let url = GitUrl::parse(
            "https://h/a.git?keep-git-dir&submodules=0&mtime=commit&commit=ABCdef&fetch-by-commit=true",
        );
        let url = url.unwrap().unwrap();
        assert_eq!((url.keep_git_dir, url.submodules), (Some(true), Some(false)));
        assert_eq!(
            (url.commit_times, url.checksum.as_deref(), url.fetch_by_commit),
            (true, Some("ABCdef"), true)
        );
        for bad in [
            "?ref=a#b",
            "?ref=a&tag=b",
            "?tag=a&branch=b",
            "?what=1",
            "?ref=",
            "?ref=a&ref=a",
            "?mtime=x",
            "?submodules=maybe",
            "?checksum=xyz",
            "#-x",
            "#a..b",
            "#a b",
            "?ref=--upload-pack%3Dx",
            "#a^{}",
            "#+a",
        ] {
            let fault = GitUrl::parse(&format!("https://u:secret@h/a.git{bad}")).expect_err(bad);
            assert_eq!(fault.kind(), fault::Kind::Input);
            assert!(!format!("{fault}{:?}", fault.subject()).contains("secret"), "{fault}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in ".{0,80}") {
            let _ = GitUrl::of_context(&text);
            let _ = GitUrl::parse(&format!("https://h/a.git{text}"));
        }
    }
}
