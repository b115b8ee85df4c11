//! `--cache-to` and `--cache-from`: the build cache as a thing to carry.
//!
//! It is an artifact (image specification, manifest.md): its configuration lists steps by their keys ([`Document`]), its layers are theirs.
//! So it lies in an OCI layout that a CI system stores as a directory, or in a registry. An image can carry the steps of its own layers
//! in its configuration (`type=inline`).
//!
//! What a cache says is believed as far as the user has named it: under a key it has whatever it likes. All else is checked: digests,
//! diff ids, sizes, counts.

mod export;
mod import;
mod prune;

pub use export::{contents, export, inline};
pub use import::{Imports, Listed, read};

use cli::{Fault, Result};
use oci::Reference;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use store::Step;

/// Type of the artifact and of its configuration.
pub const MEDIA_TYPE: &str = "application/vnd.staves.build.cache.v1+json";
/// The member of an image's configuration that says which steps made its layers.
pub const INLINE: &str = "staves.build.cache";
/// What a cache is called in a layout, if nothing else is said; BuildKit's name.
const TAG: &str = "latest";
const VERSION: u32 = 1;
/// Steps of one cache, and digests of what was copied.
const MAX_STEPS: usize = 20_000;

/// What a cache has in it.
#[derive(Debug, Default)]
pub struct Contents {
    /// By key.
    steps: BTreeMap<String, Step>,
    /// See [`crate::chosen`].
    chosen: BTreeMap<String, String>,
}

impl Contents {
    pub fn extend(&mut self, other: Contents) {
        self.steps.extend(other.steps);
        self.chosen.extend(other.chosen);
    }
}

/// The artifact's configuration.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    version: u32,
    /// By key.
    steps: BTreeMap<String, Step>,
    /// Digests of what was copied from stages and images, by what made it: with them a step that copies is found where there is nothing of the
    /// stage. Caches of before have none.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    chosen: BTreeMap<String, String>,
}

/// What an image says of itself: the diff id of the layer that a step has made, or null where it changed no file.
#[derive(Debug, Serialize, Deserialize)]
struct Inline {
    version: u32,
    steps: BTreeMap<String, Option<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    chosen: BTreeMap<String, String>,
}

/// Where a cache is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Local {
        dir: PathBuf,
        tag: String,
    },
    Registry(Reference),
    /// In the image that is built.
    Inline,
}

/// `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct To {
    pub place: Place,
    /// `mode=max`: the steps of all stages, not only those whose layers the image has.
    pub is_whole: bool,
    pub ignores_errors: bool,
}

impl Place {
    /// For people.
    pub fn name(&self) -> String {
        match self {
            Place::Local { dir, .. } => dir.display().to_string(),
            Place::Registry(reference) => reference.familiar(),
            Place::Inline => "the image".to_owned(),
        }
    }
}

/// `type=local,dest=DIR[,tag=TAG]`, `type=registry,ref=REFERENCE`, `type=inline`, with `mode=min|max`, `ignore-error=BOOL`.
///
/// # Errors
/// [`cli::Kind::Usage`].
pub fn to(text: &str) -> Result<To> {
    let mut fields = Fields::parse("--cache-to", text)?;
    let ignores_errors = match fields.take("ignore-error") {
        None => false,
        Some(value) => {
            cli::words::boolean(value).ok_or_else(|| fields.wrong("ignore-error is true or false"))?
        }
    };
    let mode = fields.take("mode");
    let place = fields.place("dest")?;
    let is_whole = match mode {
        None | Some("min") => false,
        Some("max") if place == Place::Inline => {
            return Err(fields
                .wrong("an image has the steps of its own layers only")
                .hint("type=local and type=registry take mode=max"));
        }
        Some("max") => true,
        Some(_) => return Err(fields.wrong("mode is min or max")),
    };
    fields.finish()?;
    Ok(To { place, is_whole, ignores_errors })
}

/// `type=local,src=DIR[,tag=TAG]`, `type=registry,ref=REFERENCE` or `REFERENCE`: a cache, or an image that has one inline.
///
/// # Errors
/// [`cli::Kind::Usage`].
pub fn from(text: &str) -> Result<Place> {
    if !text.contains('=') {
        return Reference::parse(text).map(Place::Registry).map_err(|fault| fault.within("--cache-from"));
    }
    let mut fields = Fields::parse("--cache-from", text)?;
    let place = match fields.kind() {
        Some("inline") => Place::Registry(fields.reference()?),
        _ => fields.place("src")?,
    };
    fields.finish()?;
    Ok(place)
}

struct Fields<'a> {
    option: &'static str,
    text: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Fields<'a> {
    fn parse(option: &'static str, text: &'a str) -> Result<Fields<'a>> {
        let mut fields = Fields { option, text, pairs: Vec::new() };
        if !text.contains('=') {
            fields.pairs = vec![("type", "registry"), ("ref", text)];
            return Ok(fields);
        }
        for field in text.split(',') {
            let pair =
                field.split_once('=').ok_or_else(|| fields.wrong(&format!("\"{field}\" has no value")))?;
            fields.pairs.push(pair);
        }
        Ok(fields)
    }

    fn wrong(&self, why: &str) -> Fault {
        Fault::usage(format!("{} {}: {why}", self.option, self.text))
    }

    fn kind(&self) -> Option<&'a str> {
        self.pairs.iter().find(|(name, _)| *name == "type").map(|(_, value)| *value)
    }

    fn take(&mut self, name: &str) -> Option<&'a str> {
        let place = self.pairs.iter().position(|(known, _)| *known == name)?;
        Some(self.pairs.remove(place).1).filter(|value| !value.is_empty())
    }

    fn reference(&mut self) -> Result<Reference> {
        self.take("type");
        let text = self.take("ref").ok_or_else(|| self.wrong("ref is missing"))?;
        Reference::parse(text).map_err(|fault| fault.within(self.option))
    }

    fn place(&mut self, directory: &str) -> Result<Place> {
        match self.kind() {
            Some("local") => {
                self.take("type");
                let dir =
                    self.take(directory).ok_or_else(|| self.wrong(&format!("{directory} is missing")))?;
                let tag = self.take("tag").unwrap_or(TAG).to_owned();
                Ok(Place::Local { dir: PathBuf::from(dir), tag })
            }
            Some("registry") => self.reference().map(Place::Registry),
            Some("inline") if self.option == "--cache-to" => {
                self.take("type");
                Ok(Place::Inline)
            }
            other => Err(self
                .wrong(&format!("there is no type {}", other.unwrap_or("(none)")))
                .hint("local, registry, inline")),
        }
    }

    fn finish(&self) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(self.wrong(&format!("there is no \"{name}\" here")).hint(
                "type, dest, src, tag, ref, mode, ignore-error; --compression is an option of its own",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        let local = |tag: &str| Place::Local { dir: "d".into(), tag: tag.to_owned() };
        let registry = || Place::Registry(Reference::parse("r.example/a:b").unwrap());
        for (text, expected) in [
            ("type=local,src=d", local("latest")),
            ("type=local,src=d,tag=main", local("main")),
            ("type=registry,ref=r.example/a:b", registry()),
            ("type=inline,ref=r.example/a:b", registry()),
            ("r.example/a:b", registry()),
        ] {
            assert_eq!(from(text).unwrap(), expected, "{text}");
        }
        for (text, place, is_whole) in [
            ("type=local,dest=d,mode=max", local("latest"), true),
            ("mode=min,dest=d,type=local", local("latest"), false),
            ("type=registry,ref=r.example/a:b", registry(), false),
            ("r.example/a:b", registry(), false),
            ("type=inline", Place::Inline, false),
        ] {
            assert_eq!(to(text).unwrap(), To { place, is_whole, ignores_errors: false }, "{text}");
        }
        assert!(to("type=inline,ignore-error=true").unwrap().ignores_errors);
        for wrong in [
            "type=local",
            "type=local,dest=",
            "type=registry",
            "type=gha",
            "dest=d",
            "type=local,dest=d,mode=most",
            "type=inline,mode=max",
            "type=local,dest=d,compression=zstd",
            "type=local,dest",
            "type=inline,ignore-error=perhaps",
        ] {
            assert_eq!(to(wrong).unwrap_err().kind(), cli::Kind::Usage, "{wrong}");
        }
        for wrong in ["type=local,dest=d", "type=inline", "type=s3,src=d", ""] {
            assert!(from(wrong).is_err(), "{wrong}");
        }
    }
}
