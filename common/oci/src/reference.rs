//! Names of images: docker's grammar and its normalisation (distribution/reference, `reference.go` and
//! `normalize.go` describe both).

use crate::Digest;
use crate::digest::{is_hex, shorten};
use fault::{Fault, Kind, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// The registry of names that do not say one.
pub const DEFAULT_DOMAIN: &str = "docker.io";
/// What docker.io was called before.
const LEGACY_DEFAULT_DOMAIN: &str = "index.docker.io";
/// Where names of a single component live on docker.io.
const OFFICIAL_PREFIX: &str = "library/";
/// The tag of names with neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Longest repository name, with or without its domain.
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A full reference: domain, repository, and a tag, a digest or both. Always valid.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// A name a user gives to an image. A digest is no name that can be given: it is the content's own.
///
/// # Errors
/// [`Kind::Usage`].
pub fn new_name(text: &str) -> Result<Reference> {
    let reference = Reference::parse(text).map_err(|fault| fault.on(text).as_kind(Kind::Usage))?;
    if reference.digest().is_some() {
        return Err(
            Fault::usage("a name with a digest cannot be given: the digest is the content's").on(text)
        );
    }
    Ok(reference)
}

impl Reference {
    /// Parses what people type (`debian`, `ghcr.io/a/b:c`, `x@sha256:…`) and completes it as docker does.
    ///
    /// # Errors
    /// [`fault::Kind::Input`] saying which part is wrong.
    pub fn parse(text: &str) -> Result<Reference> {
        parse(text).map_err(|fault| fault.on(shorten(text).trim_matches('"')))
    }

    /// The registry, port included: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository on that registry: `library/debian`.
    pub fn path(&self) -> &str {
        &self.path
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// What a registry is asked for: the digest if there is one, else the tag.
    pub fn identifier(&self) -> &str {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.as_str(),
            (None, Some(tag)) => tag,
            (None, None) => DEFAULT_TAG,
        }
    }

    /// The shortest text that means the same to people: `debian:12`.
    pub fn familiar(&self) -> String {
        let mut text = match self.domain.as_str() {
            DEFAULT_DOMAIN => match self.path.strip_prefix(OFFICIAL_PREFIX) {
                // `library/a/b` is not an official image: the prefix must stay.
                Some(official) if !official.contains('/') => official.to_owned(),
                _ if needs_domain(&self.path) => self.name(),
                _ => self.path.clone(),
            },
            _ => self.name(),
        };
        self.push_identifiers(&mut text);
        text
    }

    /// The text an image is stored under: the full reference, without the tag where there is a digest, which says
    /// more.
    pub fn stored_name(&self) -> String {
        match &self.digest {
            Some(digest) => format!("{}@{digest}", self.name()),
            None => self.to_string(),
        }
    }

    /// The same repository at a digest, without a tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { domain: self.domain.clone(), path: self.path.clone(), tag: None, digest: Some(digest) }
    }

    /// The same repository with another tag, without a digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference> {
        check_tag(tag)?;
        Ok(Reference {
            domain: self.domain.clone(),
            path: self.path.clone(),
            tag: Some(tag.to_owned()),
            digest: None,
        })
    }

    fn push_identifiers(&self, text: &mut String) {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.name();
        self.push_identifiers(&mut text);
        f.write_str(&text)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Reference {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Reference> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Reference::parse(&text).map_err(serde::de::Error::custom)
    }
}

fn parse(text: &str) -> Result<Reference> {
    if text.is_empty() {
        return Err(Fault::input("an image reference may not be empty"));
    }
    // Before anything is looked at closely: nothing longer can be valid.
    if text.len() > 2 * MAX_NAME + MAX_TAG + 160 {
        return Err(Fault::input("not an image reference: too long"));
    }
    if text.len() == 64 && is_hex(text) {
        return Err(Fault::input("not an image reference: 64 hexadecimal digits are an image id")
            .hint(format!("to name a digest, write sha256:{text}")));
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest)?)),
        None => (text, None),
    };
    // A colon before the last slash belongs to a port.
    let after_slash = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[after_slash..].find(':') {
        Some(colon) => (&rest[..after_slash + colon], Some(&rest[after_slash + colon + 1..])),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (domain, path) = split_domain(name);
    check_domain(domain)?;
    let path = if domain == DEFAULT_DOMAIN && !path.contains('/') {
        format!("{OFFICIAL_PREFIX}{path}")
    } else {
        path.to_owned()
    };
    check_path(&path)?;
    let tag = match (tag, &digest) {
        (None, None) => Some(DEFAULT_TAG),
        (tag, _) => tag,
    };
    Ok(Reference { domain: domain.to_owned(), path, tag: tag.map(str::to_owned), digest })
}

/// The first component is a registry if it could not be a docker.io user: it has a dot, a colon or an upper-case
/// letter, or is `localhost`.
fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((LEGACY_DEFAULT_DOMAIN, path)) => (DEFAULT_DOMAIN, path),
        Some((first, path)) if looks_like_domain(first) => (first, path),
        _ => (DEFAULT_DOMAIN, name),
    }
}

fn looks_like_domain(component: &str) -> bool {
    component == "localhost"
        || component.contains(['.', ':', '['])
        || component.bytes().any(|b| b.is_ascii_uppercase())
}

fn needs_domain(path: &str) -> bool {
    path.starts_with(OFFICIAL_PREFIX)
        || path.split_once('/').is_some_and(|(first, _)| looks_like_domain(first))
}

/// `host[:port]`, host a domain name, an IPv4 address or an IPv6 address in brackets.
fn check_domain(domain: &str) -> Result<()> {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, "")) => (address, None),
            Some((address, port)) if port.starts_with(':') => (address, port.get(1..)),
            _ => return Err(bad_domain(domain)),
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let host_valid = if domain.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        host.split('.').all(is_domain_component)
    };
    let port_valid = port.is_none_or(|p| p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok());
    if host_valid && port_valid && domain.len() <= MAX_NAME { Ok(()) } else { Err(bad_domain(domain)) }
}

fn is_domain_component(component: &str) -> bool {
    !component.is_empty()
        && component.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !component.starts_with('-')
        && !component.ends_with('-')
}

fn bad_domain(domain: &str) -> Fault {
    Fault::input(format!("not an image reference: {} is not a registry's host[:port]", shorten(domain)))
}

fn check_path(path: &str) -> Result<()> {
    if path.len() > MAX_NAME {
        return Err(Fault::input(format!(
            "not an image reference: the repository name is longer than {MAX_NAME}"
        )));
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        let fault = Fault::input("not an image reference: the repository name must be lower case");
        let lower = path.to_ascii_lowercase();
        return Err(if check_path(&lower).is_ok() { fault.hint(lower) } else { fault });
    }
    match path.split('/').find(|component| !is_path_component(component)) {
        None => Ok(()),
        Some(bad) => {
            Err(Fault::input(format!("not an image reference: {} cannot be part of a name", shorten(bad)))
                .hint("a-z and 0-9, between them one of . _ __ or any number of -"))
        }
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !component.starts_with(is_word) || !component.ends_with(is_word) {
        return false;
    }
    component
        .split(is_word)
        .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|b| b == b'-'))
}

/// `\w[\w.-]{0,127}`
fn check_tag(tag: &str) -> Result<()> {
    let is_word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let valid = tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(is_word)
        && tag.bytes().all(|b| is_word(b) || b == b'.' || b == b'-');
    if valid {
        return Ok(());
    }
    Err(Fault::input(format!("not an image reference: {} is not a tag", shorten(tag)))
        .hint(format!("letters, digits and _, after the first also . and -, at most {MAX_TAG} of them")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{HEX}");
        let rows = [
            // typed, full, familiar
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("library/debian:12", "docker.io/library/debian:12", "debian:12"),
            ("docker.io/debian:12", "docker.io/library/debian:12", "debian:12"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest"),
            ("user/app:v1.2-rc_3", "docker.io/user/app:v1.2-rc_3", "user/app:v1.2-rc_3"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "docker.io/library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("127.0.0.1:5000/a/b/c:t", "127.0.0.1:5000/a/b/c:t", "127.0.0.1:5000/a/b/c:t"),
            ("[::1]:5000/x:1", "[::1]:5000/x:1", "[::1]:5000/x:1"),
            ("[2001:db8::1]/x", "[2001:db8::1]/x:latest", "[2001:db8::1]/x:latest"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest", "ghcr.io/a/b:latest"),
            ("Upper/x", "Upper/x:latest", "Upper/x:latest"),
            ("a.b/c__d--e.f", "a.b/c__d--e.f:latest", "a.b/c__d--e.f:latest"),
            ("xn--n3h.com/myimage", "xn--n3h.com/myimage:latest", "xn--n3h.com/myimage:latest"),
            ("foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080", "foo/foo_bar.com:8080"),
            ("x:UPPER_Tag", "docker.io/library/x:UPPER_Tag", "x:UPPER_Tag"),
        ];
        for (typed, full, familiar) in rows {
            let reference = Reference::parse(typed).unwrap();
            assert_eq!(reference.to_string(), full, "{typed}");
            assert_eq!(reference.familiar(), familiar, "{typed}");
        }
        let both = Reference::parse(&format!("debian:12@{digest}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/debian:12@{digest}"));
        assert_eq!((both.tag(), both.identifier()), (Some("12"), digest.as_str()));
        let only = Reference::parse(&format!("localhost:5000/x@{digest}")).unwrap();
        assert_eq!((only.tag(), only.domain(), only.path()), (None, "localhost:5000", "x"));
        assert_eq!(only.familiar(), format!("localhost:5000/x@{digest}"));
    }

    #[test]
    fn what_docker_refuses_is_refused() {
        let long_path = format!("a/{}", "b".repeat(255));
        let long_tag = format!("a:{}", "t".repeat(129));
        let rows = [
            "",
            ":",
            ":tag",
            "@",
            "@sha256:abc",
            "a@sha256:abc",
            "a:",
            "a@",
            "repo@sha256:ffff",
            "validname@invaliddigest:ffff",
            "Uppercase:tag",
            "test:5000/Uppercase/lowercase:tag",
            "lowercase:Upper case",
            HEX,
            "aa/asdf$$^/aa",
            "-foo",
            "foo-",
            "foo/-bar",
            "a//b",
            "/a",
            "a/",
            "a___b",
            "a..b",
            "a._b",
            "_a",
            "a_",
            "a b",
            "-foo.com/x",
            "foo-.com/x",
            "foo..com/x",
            "foo.com:x/y",
            "foo.com:99999/y",
            "foo.com:/y:z:w",
            "[::1/x",
            "[::1]x/y",
            "[fe80::1%eth0]/x",
            "[nonsense]/x",
            "a:-tag",
            "a:.tag",
            "a:t/g:",
            "é",
            "a:é",
            "a\n",
            "http://a/b",
            "docker://debian",
            "../../etc/passwd",
            "a/../b",
            ".",
            "..",
            long_path.as_str(),
            long_tag.as_str(),
        ];
        for row in rows {
            match Reference::parse(row) {
                Err(error) => assert_eq!(error.kind(), fault::Kind::Input, "{row:?}"),
                Ok(reference) => panic!("{row:?} became {reference}"),
            }
        }
        assert!(Reference::parse(&format!("a:{}", "t".repeat(128))).is_ok());
        assert!(Reference::parse(&format!("x.y/{}", "b".repeat(255))).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_parses_is_stable(text in ".{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                let full = reference.to_string();
                prop_assert_eq!(Reference::parse(&full).unwrap(), reference);
            }
        }

        #[test]
        fn valid_names_survive_both_spellings(
            domain in "(localhost:[0-9]{1,4}/|[a-z]{1,5}\\.[a-z]{2}/|)",
            path in "[a-z0-9]{1,8}([_-][a-z0-9]{1,4}){0,2}(/[a-z0-9]{1,8}(__[a-z0-9]{1,4})?){0,3}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,10})?",
            digest in proptest::bool::ANY,
        ) {
            let digest = if digest { format!("@sha256:{HEX}") } else { String::new() };
            let reference = Reference::parse(&format!("{domain}{path}{tag}{digest}")).unwrap();
            prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
            prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
        }
    }
}
