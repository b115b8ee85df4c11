//! What a name or a record means: a registry, a repository, an image.

use cli::{Fault, Result};
use oci::Reference;
use record::{Image, Record};
use serde::{Deserialize, Serialize};

/// The section `repository` of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    /// Host and port: `docker.io`, `localhost:5000`.
    pub registry: String,
    /// `library/debian`.
    pub name: String,
}

/// Where to look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Registry(String),
    Repository(Reference),
    /// With the tag or digest that was given.
    Image(Reference),
}

impl Place {
    /// A text without a slash is a registry if it looks like a host (`localhost`, a dot, a port), and else a repository of
    /// docker.io.
    pub fn parse(text: &str) -> Result<Place> {
        let text = text.strip_suffix('/').unwrap_or(text);
        let is_host = !text.contains(['/', '@'])
            && (text == "localhost" || text.contains(['.', '[']) || has_port(text));
        if is_host {
            // Whatever is a host in a reference is one here.
            let reference = Reference::parse(&format!("{text}/x"))?;
            return Ok(Place::Registry(reference.domain().to_owned()));
        }
        let reference = Reference::parse(text)?;
        let named = reference.digest().is_some()
            || reference.tag().is_some_and(|tag| text.ends_with(&format!(":{tag}")));
        Ok(if named { Place::Image(reference) } else { Place::Repository(reference) })
    }

    /// A record's repository; for `--referrers`, and where there is no such section, its image.
    pub fn of_record(record: &Record, referrers: bool) -> Result<Place> {
        if !referrers && let Some(repository) = record.get::<Repository>("repository")? {
            let name = format!("{}/{}", repository.registry, repository.name);
            return Ok(Place::Repository(Reference::parse(&name)?));
        }
        let image: Image = record.require("image")?;
        let reference = Reference::parse(&image.reference)?;
        if !referrers {
            return Ok(Place::Repository(reference));
        }
        // The record says which image it is, whatever the tag stands for by now.
        match oci::Digest::parse(&image.digest) {
            Ok(digest) => Ok(Place::Image(reference.at(digest))),
            Err(_) if image.digest.is_empty() => Ok(Place::Image(reference)),
            Err(fault) => Err(fault),
        }
    }

    pub fn image(self) -> Result<Reference> {
        match self {
            Place::Image(reference) | Place::Repository(reference) => Ok(reference),
            Place::Registry(_) => Err(Fault::usage("--referrers takes an image, not a registry")),
        }
    }
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_repositories_are_told_apart() {
        for (text, host) in [
            ("localhost", "localhost"),
            ("localhost:5000", "localhost:5000"),
            ("localhost:5000/", "localhost:5000"),
            ("ghcr.io", "ghcr.io"),
            ("docker.io", "docker.io"),
            ("[::1]:5000", "[::1]:5000"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(Place::parse(text).unwrap(), Place::Registry(host.into()), "{text}");
        }
        for (text, name) in [
            ("debian", "docker.io/library/debian"),
            ("team/app", "docker.io/team/app"),
            ("localhost:5000/app", "localhost:5000/app"),
            ("ghcr.io/a/b/", "ghcr.io/a/b"),
        ] {
            let Place::Repository(reference) = Place::parse(text).unwrap() else { panic!("{text}") };
            assert_eq!(reference.name(), name);
        }
        for text in ["debian:trixie", "localhost:5000/app:1", "debian:latest"] {
            assert!(matches!(Place::parse(text).unwrap(), Place::Image(_)), "{text}");
        }
        for bad in ["", "/", "a b", "http://x/y", "x.y:99999", "../..", "a.b:1:2"] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }
}
