//! From one place to another: what has to be there, then what is missing, then the names.

use crate::destination::{Destination, Place};
use crate::{Convert, Format, Parts, Raw, Source, lock};
use fault::{Fault, Kind, Result};
use oci::manifest::{Document, MAX_CONFIG_BYTES, MAX_INDEX_ENTRIES};
use oci::{Descriptor, ImageConfig, Platform};
use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// An index may hold indexes; nobody nests them deeper.
const MAX_DEPTH: usize = 4;

/// Which images of an index.
#[derive(Clone, Debug)]
pub enum Choice {
    /// The one for this platform.
    One(Platform),
    All,
}

/// Told how the work goes on. Several threads do it.
pub trait Watch: Sync {
    /// A blob is there already.
    fn present(&self, blob: &Descriptor);
    /// A blob is on its way: what it returns is called with the bytes so far.
    fn start<'a>(&'a self, blob: &Descriptor) -> Box<dyn FnMut(u64) + 'a>;
}

/// What makes an image: from the source, nothing is changed anywhere yet.
#[derive(Debug)]
pub struct Plan {
    /// Parts of an index, lowest first.
    pub children: Vec<(Raw, Option<Platform>)>,
    pub root: Raw,
    /// The index the root was chosen from.
    pub index: Option<Raw>,
    /// Configurations and layers, each once.
    pub blobs: Vec<Descriptor>,
}

impl Plan {
    /// # Errors
    /// What the source's failures are; [`Kind::NotFound`] when it has no image for the platform.
    pub fn of(source: &dyn Source, choice: &Choice, format: Option<Format>) -> Result<Plan> {
        let root = source.root()?;
        let mut plan = Plan { children: Vec::new(), root: root.clone(), index: None, blobs: Vec::new() };
        match (root.parts()?, choice) {
            (Parts::Manifest(blobs), _) => plan.need(blobs)?,
            (Parts::Index(_), Choice::One(platform)) => {
                let Document::Index(index) = root.document()? else {
                    return Err(Fault::input("malformed index"));
                };
                plan.root = source.manifest(index.choose(platform)?)?;
                match plan.root.parts()? {
                    Parts::Manifest(blobs) => plan.need(blobs)?,
                    Parts::Index(_) => return Err(Fault::input("an index in an index has no platform")),
                }
                plan.index = Some(root);
            }
            (Parts::Index(entries), Choice::All) => plan.descend(source, &entries, 1)?,
        }
        if let Some(format) = format {
            plan.convert(format)?;
        }
        Ok(plan)
    }

    fn descend(&mut self, source: &dyn Source, entries: &[Descriptor], depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Fault::input("indexes are nested too deeply"));
        }
        for entry in entries {
            if self.children.iter().any(|(known, _)| known.digest == entry.digest) {
                continue;
            }
            if self.children.len() >= MAX_INDEX_ENTRIES {
                return Err(Fault::input(format!("the index has more than {MAX_INDEX_ENTRIES} entries")));
            }
            let raw = source.manifest(entry)?;
            match raw.parts()? {
                Parts::Manifest(blobs) => self.need(blobs)?,
                Parts::Index(entries) => self.descend(source, &entries, depth + 1)?,
            }
            self.children.push((raw, entry.platform.clone()));
        }
        Ok(())
    }

    fn need(&mut self, blobs: Vec<Descriptor>) -> Result<()> {
        for blob in blobs {
            if blob.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
                return Err(Fault::input(format!(
                    "layer {} is kept outside the registry, which is not supported",
                    blob.digest
                )));
            }
            match self.blobs.iter().find(|known| known.digest == blob.digest) {
                Some(known) if known.size != blob.size => {
                    return Err(Fault::input(format!("the manifest gives blob {} two sizes", blob.digest)));
                }
                Some(_) => {}
                None => self.blobs.push(blob),
            }
        }
        Ok(())
    }

    fn convert(&mut self, format: Format) -> Result<()> {
        let mut known = HashMap::new();
        // Those an index points to come before it.
        for (raw, _) in &mut self.children {
            let converted = format.convert(raw, &known)?;
            known.insert(raw.digest.clone(), converted.clone());
            *raw = converted;
        }
        let root = format.convert(&self.root, &known)?;
        if root.digest != self.root.digest {
            // It is not in that index any more.
            self.index = None;
        }
        self.root = root;
        Ok(())
    }

    /// The `image` section of a record. Of several images it is the one for this machine, or the first.
    ///
    /// # Errors
    /// When the configuration cannot be read.
    pub fn describe(&self, source: &dyn Source, name: &str) -> Result<record::Image> {
        let bare = || record::Image {
            reference: name.to_owned(),
            digest: self.root.digest.to_string(),
            ..record::Image::default()
        };
        let host = Platform::host();
        let rank = |platform: &Option<Platform>| {
            platform.as_ref().and_then(|platform| host.rank(platform)).unwrap_or(u32::MAX)
        };
        let image =
            self.children.iter().filter(|(raw, _)| matches!(raw.document(), Ok(Document::Manifest(_))));
        let chosen = image.min_by_key(|(_, platform)| rank(platform)).map_or(&self.root, |(raw, _)| raw);
        // An artifact is no image, and copied all the same.
        let Ok(Document::Manifest(manifest)) = chosen.document() else { return Ok(bare()) };
        let index = if chosen.digest == self.root.digest {
            self.index.as_ref().map(|index| &index.digest)
        } else {
            Some(&self.root.digest)
        };
        let config = read_config(source, &manifest.config)?;
        store::index::to_record(name, &chosen.digest, index, &manifest, config)
    }
}

fn read_config(source: &dyn Source, config: &Descriptor) -> Result<ImageConfig> {
    ImageConfig::parse(&config_bytes(source, config)?)
}

/// A configuration's own bytes, bounded in number, their digest checked.
///
/// # Errors
/// [`Kind::Input`] when they are not what the descriptor says; what the source's failures are.
pub fn config_bytes(source: &dyn Source, config: &Descriptor) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut reader = source.open(config, 0)?.take(MAX_CONFIG_BYTES + 1);
    reader.read_to_end(&mut bytes).map_err(|error| match error.downcast::<Fault>() {
        // A registry's own.
        Ok(fault) => fault,
        Err(error) => {
            Fault::new(Kind::of_io(&error), format!("read configuration {}", config.digest)).because(error)
        }
    })?;
    let mut hasher = oci::digest::Hasher::new(config.digest.algorithm());
    hasher.update(&bytes);
    if hasher.finish() != config.digest {
        return Err(Fault::input(format!("configuration {} has another digest", config.digest)));
    }
    Ok(bytes)
}

/// A copy to be made.
pub struct Copy<'a> {
    pub source: &'a dyn Source,
    pub destination: &'a dyn Destination,
    /// Blobs at once, at most.
    pub parallel: usize,
    pub watch: &'a dyn Watch,
}

/// What a copy came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub blobs: u64,
    pub bytes: u64,
    /// Blobs that were there already.
    pub present: u64,
}

#[derive(Default)]
struct Counters {
    blobs: AtomicU64,
    bytes: AtomicU64,
    present: AtomicU64,
}

impl Copy<'_> {
    /// Carries a plan out. The destination has the image under its name only when all of it is there.
    ///
    /// # Errors
    /// The first failure; blobs that arrived before it stay.
    pub fn apply(&self, plan: &Plan) -> Result<Copied> {
        let waiting: Mutex<VecDeque<&Descriptor>> = Mutex::new(plan.blobs.iter().collect());
        let failure: Mutex<Option<Fault>> = Mutex::new(None);
        let stop = AtomicBool::new(false);
        let counters = Counters::default();
        let lane = || {
            while !stop.load(Ordering::Relaxed) {
                let Some(blob) = lock(&waiting).pop_front() else { return };
                if let Err(fault) = self.blob(blob, &counters) {
                    lock(&failure).get_or_insert(fault);
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        let lanes = self.parallel.min(self.destination.lanes()).min(plan.blobs.len());
        std::thread::scope(|scope| {
            for _ in 1..lanes {
                scope.spawn(lane);
            }
            lane();
        });
        if let Some(fault) = lock(&failure).take() {
            return Err(fault);
        }
        for (raw, platform) in &plan.children {
            self.destination.put_manifest(raw, Place::Child(platform.as_ref()))?;
        }
        self.destination.put_manifest(&plan.root, Place::Root { index: plan.index.as_ref() })?;
        self.destination.finish()?;
        Ok(Copied {
            blobs: counters.blobs.into_inner(),
            bytes: counters.bytes.into_inner(),
            present: counters.present.into_inner(),
        })
    }

    fn blob(&self, blob: &Descriptor, counters: &Counters) -> Result<()> {
        if self.destination.has(blob)? {
            self.watch.present(blob);
            counters.present.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        let mut progress = self.watch.start(blob);
        match self.destination.put(blob, self.source, &mut *progress) {
            Err(fault)
                if fault.kind() == Kind::Input
                    && self.destination.can_put_again()
                    && self.source.ask_anew() =>
            {
                let again = self.destination.put(blob, self.source, &mut *progress);
                again.map_err(registry::still_wrong)?;
            }
            other => other?,
        }
        counters.blobs.fetch_add(1, Ordering::Relaxed);
        counters.bytes.fetch_add(blob.size, Ordering::Relaxed);
        Ok(())
    }
}
