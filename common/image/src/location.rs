//! Names of places, as containers-transports(5) writes them.

use fault::{Fault, Result};
use oci::Reference;
use std::fmt;
use std::path::{Path, PathBuf};

/// Where an image is or goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// `docker://REF`.
    Registry(Reference),
    /// A name or an id in the store: `store:NAME`, or without a prefix. Empty: what the other side calls it.
    Store(String),
    /// `oci:DIR[:NAME]`: an OCI image layout.
    Layout(PathBuf, Option<String>),
    /// `oci-archive:FILE[:NAME]`: the same in a tar.
    LayoutArchive(PathBuf, Option<String>),
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive(PathBuf, Option<String>),
    /// `dir:DIR`: skopeo's own, a file for each blob.
    Directory(PathBuf),
}

/// Transports of others that have another way here.
const ELSEWHERE: [(&str, &str); 4] = [
    ("docker-daemon:", "docker save REF | img-load, or img-save REF | docker load"),
    ("containers-storage:", "podman save REF | img-load, or img-save REF | podman load"),
    ("sif:", "img-save writes archives that other tools convert"),
    ("ostree:", "img-save writes archives that other tools convert"),
];

impl Location {
    /// # Errors
    /// [`fault::Kind::Usage`].
    pub fn parse(text: &str) -> Result<Location> {
        Self::parse_text(text).map_err(|fault| fault.as_kind(fault::Kind::Usage).on(text))
    }

    fn parse_text(text: &str) -> Result<Location> {
        if let Some((prefix, way)) = ELSEWHERE.iter().find(|(prefix, _)| text.starts_with(prefix)) {
            return Err(Fault::usage(format!("{prefix} is not supported")).hint(*way));
        }
        if let Some(reference) = text.strip_prefix("docker://") {
            return Ok(Location::Registry(Reference::parse(reference)?));
        }
        if let Some(name) = text.strip_prefix("store:") {
            return Ok(Location::Store(name.to_owned()));
        }
        let place = |rest: &str| -> Result<(PathBuf, Option<String>)> {
            let (path, name) = match rest.split_once(':') {
                Some((path, name)) => (path, Some(name.to_owned()).filter(|name| !name.is_empty())),
                None => (rest, None),
            };
            if path.is_empty() {
                return Err(Fault::usage("no path is given"));
            }
            Ok((Path::new(path).to_owned(), name))
        };
        if let Some(rest) = text.strip_prefix("oci:") {
            return place(rest).map(|(dir, name)| Location::Layout(dir, name));
        }
        if let Some(rest) = text.strip_prefix("oci-archive:") {
            return place(rest).map(|(file, name)| Location::LayoutArchive(file, name));
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            return place(rest).map(|(file, name)| Location::DockerArchive(file, name));
        }
        if let Some(rest) = text.strip_prefix("dir:") {
            if rest.is_empty() {
                return Err(Fault::usage("no path is given"));
            }
            return Ok(Location::Directory(PathBuf::from(rest)));
        }
        if text.is_empty() {
            return Err(Fault::usage("no image is given"));
        }
        Ok(Location::Store(text.to_owned()))
    }

    /// Whether one image is what it holds under a name, rather than one for each platform.
    pub fn holds_one_platform(&self) -> bool {
        matches!(self, Location::Store(_) | Location::DockerArchive(..))
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |f: &mut fmt::Formatter<'_>, kind: &str, path: &Path, name: &Option<String>| {
            write!(f, "{kind}:{}", path.display())?;
            name.iter().try_for_each(|name| write!(f, ":{name}"))
        };
        match self {
            Location::Registry(reference) => write!(f, "docker://{reference}"),
            Location::Store(name) => write!(f, "store:{name}"),
            Location::Layout(dir, name) => place(f, "oci", dir, name),
            Location::LayoutArchive(file, name) => place(f, "oci-archive", file, name),
            Location::DockerArchive(file, name) => place(f, "docker-archive", file, name),
            Location::Directory(dir) => write!(f, "dir:{}", dir.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_skopeo_writes_them() {
        let parse = |text: &str| Location::parse(text).unwrap();
        assert_eq!(parse("debian:12"), Location::Store("debian:12".into()));
        assert_eq!(parse("oci:a/b:debian:12"), Location::Layout("a/b".into(), Some("debian:12".into())));
        assert_eq!(parse("oci-archive:/x.tar"), Location::LayoutArchive("/x.tar".into(), None));
        assert_eq!(parse("docker-archive:x.tar:"), Location::DockerArchive("x.tar".into(), None));
        assert_eq!(parse("dir:a:b"), Location::Directory("a:b".into()));
        for text in ["docker://docker.io/library/debian:12", "oci:a:1", "store:x", "dir:x"] {
            assert_eq!(parse(text).to_string(), text);
        }
        for bad in
            ["", "oci:", "dir:", "docker://A", "docker-daemon:x", "containers-storage:x", "oci-archive::x"]
        {
            assert_eq!(Location::parse(bad).unwrap_err().kind(), fault::Kind::Usage, "{bad}");
        }
    }
}
