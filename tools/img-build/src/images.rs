//! Images that stages stand on and copy from: in the store, or fetched by `img-pull`.

use crate::key::Key;
use crate::layout::Layout;
use crate::report::{Form, Report, Vertex};
use crate::tool;
use cli::{Explain, Fault, Kind, Result};
use oci::{Digest, Platform, Reference};
use record::{Image, Layer, Record};
use std::collections::HashMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use store::{Holding, Holds, Settle, Store};

/// When a registry is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Pull {
    /// What is not in the store is fetched
    #[default]
    Missing,
    /// Ask the registry whether there is a newer one
    Always,
    /// Fail if it is not in the store
    Never,
    /// As always, but use what is in the store if the registry cannot be reached
    Newer,
}

/// An image that is here.
#[derive(Debug)]
pub struct Found {
    pub image: Image,
    /// Where its layers are, if they may not be in the store.
    layout: Option<Layout>,
    /// Its layers' directories, lowest first; those that others hide are left out.
    unpacked: OnceLock<std::result::Result<Vec<PathBuf>, String>>,
}

/// All that this build asked for; each is looked for once.
pub struct Images<'a> {
    pub store: &'a Store,
    pub pull: Pull,
    /// Further arguments of img-pull.
    pub words: Vec<String>,
    /// What is found here is not swept.
    holds: Arc<Holds>,
    /// Where it is told what is fetched.
    report: Option<&'a Report>,
    found: Mutex<HashMap<String, Arc<Found>>>,
}

impl<'a> Images<'a> {
    pub fn new(store: &'a Store, pull: Pull, words: Vec<String>, holds: &Arc<Holds>) -> Images<'a> {
        Images { store, pull, words, holds: Arc::clone(holds), report: None, found: Mutex::default() }
    }

    /// The same, told of.
    #[must_use]
    pub fn telling(self, report: Option<&'a Report>) -> Images<'a> {
        Images { report, ..self }
    }

    /// # Errors
    /// When it is nowhere, or may not be fetched.
    pub fn find(&self, reference: &Reference, platform: &Platform) -> Result<Arc<Found>> {
        let name = format!("{platform} {}", reference.stored_name());
        // One at a time: img-pull fetches an image's layers side by side.
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = found.get(&name) {
            return Ok(Arc::clone(image));
        }
        let image = match self.in_store_held(reference, platform) {
            Ok(image) if matches!(self.pull, Pull::Missing | Pull::Never) => image,
            Err(fault) if self.pull == Pull::Never || fault.kind() != Kind::NotFound => return Err(fault),
            _ => {
                let image = self.pull_told(reference, platform)?;
                hold(&self.holds.share()?, &image)?;
                image
            }
        };
        let image = Arc::new(Found { image, layout: None, unpacked: OnceLock::new() });
        found.insert(name, Arc::clone(&image));
        Ok(image)
    }

    /// An image that need not be looked for.
    ///
    /// # Errors
    /// When it cannot be held.
    pub fn at_hand(&self, image: Image) -> Result<Arc<Found>> {
        hold(&self.holds.share()?, &image)?;
        Ok(Arc::new(Found { image, layout: None, unpacked: OnceLock::new() }))
    }

    /// One whose layers are in a layout, and are in the store when somebody wants them.
    ///
    /// # Errors
    /// When it cannot be held.
    pub fn in_layout(&self, image: Image, layout: Layout) -> Result<Arc<Found>> {
        hold(&self.holds.share()?, &image)?;
        Ok(Arc::new(Found { image, layout: Some(layout), unpacked: OnceLock::new() }))
    }

    fn in_store_held(&self, reference: &Reference, platform: &Platform) -> Result<Image> {
        let holding = self.holds.share()?;
        let image = self.in_store(reference, platform)?;
        hold(&holding, &image)?;
        Ok(image)
    }

    fn in_store(&self, reference: &Reference, platform: &Platform) -> Result<Image> {
        let entry = self.store.find_reference(reference)?;
        let image = self.store.load_image(&entry, platform)?;
        check_platform(&image, platform, "the store").map_err(|fault| fault.on(reference.familiar()))?;
        Ok(image)
    }

    fn pull_told(&self, reference: &Reference, platform: &Platform) -> Result<Image> {
        let nobody = Report::new("", Form::Quiet, None);
        let vertex = match self.report {
            Some(report) => report.another(&format!("pull {}", reference.familiar())),
            None => nobody.nobody(),
        };
        let pulled = self.pull(reference, platform, &vertex);
        match &pulled {
            Ok(_) => vertex.done(),
            Err(fault) => vertex.failed(fault),
        }
        pulled
    }

    fn pull(&self, reference: &Reference, platform: &Platform, vertex: &Vertex<'_>) -> Result<Image> {
        let tool = shim::sibling("img-pull")?;
        let mut command = Command::new(&tool);
        command.args(["--output", "json", "--unpack"]).args(tool::progress(vertex));
        if self.pull == Pull::Newer {
            command.args(["--policy", "newer"]);
        }
        if *platform != Platform::host() {
            command.arg("--platform").arg(platform.to_string());
        }
        command.args(&self.words).arg("--").arg(reference.stored_name()).stdout(Stdio::piped());
        let output = tool::run(&mut command, vertex)?;
        if !output.status.success() {
            let kind = match output.status.code() {
                Some(4) => Kind::NotFound,
                Some(6) => Kind::Denied,
                Some(7) => Kind::Retryable,
                _ => Kind::Failed,
            };
            let mut lines = output.said.iter().map(String::as_str);
            let why = lines.next().unwrap_or("img-pull failed").trim_start_matches("img-pull: ").to_owned();
            let fault = Fault::new(kind, why);
            return Err(match lines.next().and_then(|line| line.strip_prefix("hint: ")) {
                Some(hint) => fault.hint(hint),
                None => fault,
            });
        }
        for line in &output.said {
            // Warnings.
            self.report.inspect(|report| report.warn(line.trim_start_matches("img-pull: ")));
        }
        let text = String::from_utf8(output.stdout).explain(|| "read what img-pull printed".into())?;
        let record = Record::parse(&text).map_err(|fault| fault.within("read what img-pull printed"))?;
        record.require("image")
    }
}

/// # Errors
/// [`Kind::NotFound`] for an image of another platform.
pub fn check_platform(image: &Image, platform: &Platform, holder: &str) -> Result<()> {
    let member = |name: &str| image.config.get(name).and_then(serde_json::Value::as_str);
    if let (Some(os), Some(architecture)) = (member("os"), member("architecture")) {
        let has = Platform::of(os, architecture, member("variant"));
        if platform.rank(&has).is_none() {
            return Err(Fault::not_found(format!("{holder} has it for {has}, not for {platform}")));
        }
    }
    Ok(())
}

/// Its layers, packed and unpacked.
fn hold(holding: &Holding<'_>, image: &Image) -> Result<()> {
    let digests = image.layers.iter().flat_map(|layer| [&layer.digest, &layer.diff_id]);
    holding.add(digests.filter_map(|text| Digest::parse(text).ok()))
}

impl Found {
    /// Sees to it that layers are in the store: those that are wanted.
    ///
    /// # Errors
    /// When they cannot be copied there.
    pub fn bring(&self, store: &Store, settle: &Settle, is_wanted: impl Fn(&Layer) -> bool) -> Result<()> {
        let Some(layout) = &self.layout else { return Ok(()) };
        let brought = layout.bring(&self.image.layers, store, settle, is_wanted);
        brought.map_err(|fault| fault.on(self.image.reference.clone()))
    }

    /// The key of its files.
    pub fn key(&self) -> Digest {
        let diff_ids: Vec<&str> = self.image.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        Key::new("image").with_all("layer", &diff_ids).finish()
    }

    /// Its layers' directories, lowest first, as an overlay takes them.
    ///
    /// # Errors
    /// When they cannot be unpacked.
    pub fn unpack(&self, store: &Store, settle: &Settle) -> Result<Vec<PathBuf>> {
        let is_missing = |layer: &Layer| Digest::parse(&layer.diff_id).is_ok_and(|id| !store.has_layer(&id));
        self.bring(store, settle, is_missing)?;
        let done = self.unpacked.get_or_init(|| {
            let options = img_unpack::Options::default();
            let unpacked = img_unpack::unpack_with(store, &self.image, &options, settle);
            let rootfs = unpacked.map_err(|fault| fault.to_string())?.rootfs;
            Ok(rootfs.layers.iter().map(PathBuf::from).collect())
        });
        done.clone().map_err(|why| Fault::failed("unpack").because(why).on(self.image.reference.clone()))
    }
}
