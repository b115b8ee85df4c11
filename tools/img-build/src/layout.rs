//! `oci-layout://DIR[:TAG|@DIGEST]`: an image in a directory of the user's (image specification, image-layout.md).
//!
//! Its documents are read where they are. Blobs are copied into the store when somebody wants the files, or an image is made that stands on
//! them; they get no name there.

use cli::{Fault, Kind, Result};
use image::destination::{Destination, StoreDestination};
use image::source::LayoutSource;
use image::{Choice, Plan};
use oci::{Descriptor, Digest, Platform, Reference};
use record::{Image, Layer};
use std::path::PathBuf;
use store::{Settle, Store};

const SCHEME: &str = "oci-layout://";
/// The name docker's tools look for where none is given.
const USUAL: &str = "latest";

/// Where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    dir: PathBuf,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Where layers are copied from.
#[derive(Debug)]
pub struct Layout {
    source: LayoutSource,
    blobs: Vec<Descriptor>,
}

impl Place {
    /// `None` for what names something else.
    ///
    /// # Errors
    /// [`Kind::Usage`].
    pub fn parse(text: &str) -> Result<Option<Place>> {
        let Some(rest) = text.strip_prefix(SCHEME) else { return Ok(None) };
        let wrong = |fault: Fault| {
            let fault = Fault::usage(fault.to_string()).on(text);
            fault.hint("oci-layout://DIR, oci-layout://DIR:TAG, oci-layout://DIR@sha256:…")
        };
        let (rest, digest) = match rest.rsplit_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(wrong)?)),
            None => (rest, None),
        };
        let (dir, tag) = match rest.split_once(':') {
            Some((dir, tag)) => (dir, Some(tag.to_owned())),
            None => (rest, None),
        };
        if dir.is_empty() || tag.as_deref() == Some("") {
            return Err(wrong(Fault::usage("the directory or the tag is missing")));
        }
        Ok(Some(Place { dir: PathBuf::from(dir), tag, digest }))
    }

    /// Reads the image's documents.
    ///
    /// # Errors
    /// [`Kind::NotFound`] where it is not, or not for the platform; [`Kind::Input`] for what is no image.
    pub fn open(&self, platform: &Platform) -> Result<(Image, Layout)> {
        self.read(platform).map_err(|fault| fault.on(self.name()))
    }

    fn read(&self, platform: &Platform) -> Result<(Image, Layout)> {
        let source = self.source()?;
        let plan = Plan::of(&source, &Choice::One(platform.clone()), None)?;
        if plan.root.is_artifact() {
            return Err(Fault::input("it is an artifact, and no image"));
        }
        let image = plan.describe(&source, &self.name())?;
        crate::images::check_platform(&image, platform, "the layout")?;
        Ok((image, Layout { source, blobs: plan.blobs }))
    }

    fn source(&self) -> Result<LayoutSource> {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => LayoutSource::of_digest(&self.dir, digest),
            (None, Some(tag)) => LayoutSource::open(&self.dir, Some(tag)),
            (None, None) => match LayoutSource::open(&self.dir, Some(USUAL)) {
                // The only one need have no name.
                Err(fault) if fault.kind() == Kind::NotFound => LayoutSource::open(&self.dir, None),
                other => other,
            },
        }
    }

    fn name(&self) -> String {
        let mut name = format!("{SCHEME}{}", self.dir.display());
        if let Some(tag) = &self.tag {
            name = format!("{name}:{tag}");
        }
        if let Some(digest) = &self.digest {
            name = format!("{name}@{digest}");
        }
        name
    }
}

impl Layout {
    /// Copies those of an image's layers that are wanted and not in the store.
    ///
    /// # Errors
    /// When one is not in the layout, or is not what its digest says.
    pub fn bring(
        &self,
        layers: &[Layer],
        store: &Store,
        settle: &Settle,
        is_wanted: impl Fn(&Layer) -> bool,
    ) -> Result<()> {
        // Nothing here is given a name.
        let nameless = Reference::parse("layout")?;
        let destination = StoreDestination::new(store, settle, &nameless);
        for layer in layers.iter().filter(|layer| is_wanted(layer)) {
            let blob = self.blobs.iter().find(|blob| blob.digest.as_str() == layer.digest);
            let blob = blob.ok_or_else(|| Fault::input(format!("layer {} is not listed", layer.digest)))?;
            if !destination.has(blob)? {
                destination.put(blob, &self.source, &mut |_| {})?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_directory_and_what_of_it() {
        let digest = Digest::of(b"x");
        let parse = |text: &str| Place::parse(text).unwrap();
        let place = |dir: &str, tag: Option<&str>, digest: Option<&Digest>| {
            Some(Place { dir: dir.into(), tag: tag.map(str::to_owned), digest: digest.cloned() })
        };
        for (text, expected) in [
            ("oci-layout://a/b".to_owned(), place("a/b", None, None)),
            ("oci-layout:///a:1".to_owned(), place("/a", Some("1"), None)),
            (
                "oci-layout://a:docker.io/library/x:1".to_owned(),
                place("a", Some("docker.io/library/x:1"), None),
            ),
            (format!("oci-layout://a@{digest}"), place("a", None, Some(&digest))),
            (format!("oci-layout://a:1@{digest}"), place("a", Some("1"), Some(&digest))),
            ("docker-image://a".to_owned(), None),
            ("a".to_owned(), None),
        ] {
            assert_eq!(parse(&text), expected, "{text}");
            if let Some(place) = parse(&text) {
                assert_eq!(place.name(), text);
            }
        }
        for wrong in [
            "oci-layout://",
            "oci-layout://:1",
            "oci-layout://a:",
            "oci-layout://a@",
            "oci-layout://a@sha256:../x",
        ] {
            assert_eq!(Place::parse(wrong).unwrap_err().kind(), Kind::Usage, "{wrong}");
        }
    }
}
