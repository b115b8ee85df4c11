//! Layers of an image from the store's blobs to `layers/`, several at a time.

use crate::reader::{Interrupt, Stop, Watched};
use cli::{Explain, Fault, Kind, Progress, Result};
use layer::{Expected, Limits, Skipped, Target};
use oci::Digest;
use oci::manifest::MAX_LAYERS;
use record::{Image, Layer, Rootfs};
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use store::{LayerInfo, Lock, NewLayer, Settle, Store};

/// How to unpack.
#[derive(Debug, Default)]
pub struct Options<'a> {
    pub limits: Limits,
    pub progress: Option<&'a Progress>,
    /// Signals that end the work cleanly.
    pub interrupt: Option<&'a Interrupt>,
    /// For a plain directory: where to write down what of the entries' metadata could not be set.
    pub unset: Option<&'a Path>,
}

/// What unpacking came to.
#[derive(Debug)]
pub struct Unpacked {
    pub rootfs: Rootfs,
    /// What was left out of the layers that were unpacked just now.
    pub skipped: Skipped,
}

/// Unpacks what is not unpacked yet and returns where the layers are. With everything there this costs two system calls a
/// layer and reads nothing.
///
/// # Errors
/// [`Kind::NotFound`] when a layer's blob is not in the store, [`Kind::Input`] for a bad layer, [`Kind::Failed`] for a full
/// disk. Layers that were complete stay, nothing else does.
pub fn unpack(store: &Store, image: &Image) -> Result<Rootfs> {
    let settle = Settle::new();
    let unpacked = unpack_with(store, image, &Options::default(), &settle);
    settle.finish();
    unpacked.map(|unpacked| unpacked.rootfs)
}

/// As [`unpack`]; what was committed is handed to `settle`, for after the result is printed.
pub fn unpack_with(store: &Store, image: &Image, options: &Options<'_>, settle: &Settle) -> Result<Unpacked> {
    let diff_ids = diff_ids(image)?;
    let mut seen = HashSet::new();
    let mut missing: Vec<(&Layer, &Digest)> = image
        .layers
        .iter()
        .zip(&diff_ids)
        .filter(|(_, diff_id)| !store.has_layer(diff_id) && seen.insert(*diff_id))
        .collect();
    if let Some(progress) = options.progress {
        for diff_id in diff_ids.iter().filter(|diff_id| !seen.contains(diff_id)) {
            progress.present(&image.reference, diff_id.as_str());
        }
    }
    // The largest first, so that no lane is left with it at the end.
    missing.sort_by_key(|(layer, _)| std::cmp::Reverse(layer.size));
    let work = Work { store, image, options, settle, missing };
    let skipped = work.run()?;
    let mut rootfs = rootfs(store, &diff_ids)?;
    if diff_ids.is_empty() {
        rootfs.layers.push(empty_layer(store, settle)?);
    }
    Ok(Unpacked { rootfs, skipped })
}

/// Unpacks one layer from a stream, which may still be growing. The layer counts when it has its diff id, whatever its blob proves
/// to be.
///
/// # Errors
/// As [`unpack`]; nothing of the layer stays.
pub fn unpack_stream(
    store: &Store,
    diff_id: &Digest,
    digest: &Digest,
    blob: impl std::io::Read + Send,
    settle: &Settle,
) -> Result<()> {
    let _lock = store.lock_layer(diff_id)?;
    if store.has_layer(diff_id) {
        return Ok(());
    }
    let new = store.new_layer()?;
    let mut target = Target::layer(new.open_fs()?).recording(new.unset());
    let expected = Expected { digest: None, diff_id: Some(diff_id) };
    let applied = layer::apply(blob, expected, &Limits::default(), &mut target)?;
    drop(target);
    commit(new, diff_id, digest, &applied, settle)?;
    store.unlock_layer(diff_id);
    Ok(())
}

/// What [`unpack`] will have to do: the layers not there yet.
pub fn plan<'a>(store: &Store, image: &'a Image) -> Result<Vec<&'a Layer>> {
    let diff_ids = diff_ids(image)?;
    let mut seen = HashSet::new();
    let layers = image.layers.iter().zip(&diff_ids);
    Ok(layers
        .filter(|(_, diff_id)| !store.has_layer(diff_id) && seen.insert(*diff_id))
        .map(|(layer, _)| layer)
        .collect())
}

fn diff_ids(image: &Image) -> Result<Vec<Digest>> {
    if image.layers.len() > MAX_LAYERS {
        return Err(Fault::input(format!("{} layers are more than {MAX_LAYERS}", image.layers.len())));
    }
    image.layers.iter().map(|layer| Digest::parse(&layer.diff_id)).collect()
}

fn rootfs(store: &Store, diff_ids: &[Digest]) -> Result<Rootfs> {
    let mut layers = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let path = store.layer_fs(diff_id);
        // Overlayfs takes no notice of an opaque root, so what such a layer hides is left out here.
        if hides_everything_below(&path) {
            layers.clear();
        }
        layers.push(text(&path)?);
    }
    Ok(Rootfs { layers, driver: "overlay".to_owned(), ..Rootfs::default() })
}

fn hides_everything_below(fs: &Path) -> bool {
    let mut value = [0u8; 4];
    let name = layer::opaque_attribute(rustix::process::geteuid().is_root());
    rustix::fs::lgetxattr(fs, name, &mut value[..]) == Ok(1) && value[0] == b'y'
}

pub fn text(path: &Path) -> Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Fault::failed(format!("the path {} is not UTF-8, which records are", path.display())))
}

/// An overlay needs a lower layer; an image without any gets one with nothing in it.
fn empty_layer(store: &Store, settle: &Settle) -> Result<String> {
    let tar = [0u8; 1024];
    let diff_id = Digest::of(&tar);
    if !store.has_layer(&diff_id) {
        let layer = store.new_layer()?;
        commit(layer, &diff_id, &diff_id, &layer::Applied::default(), settle)?;
    }
    text(&store.layer_fs(&diff_id))
}

struct Work<'a> {
    store: &'a Store,
    image: &'a Image,
    options: &'a Options<'a>,
    settle: &'a Settle,
    missing: Vec<(&'a Layer, &'a Digest)>,
}

/// What the lanes share.
struct Shared<'a> {
    next: AtomicUsize,
    /// One failed: the others need not go on.
    stop: Stop<'a>,
    failure: Mutex<Option<Fault>>,
    skipped: Mutex<Skipped>,
}

impl Work<'_> {
    fn run(&self) -> Result<Skipped> {
        if self.missing.is_empty() {
            return Ok(Skipped::default());
        }
        // Each lane has a second thread that inflates, which fills the gaps of the first.
        let lanes = std::thread::available_parallelism().map_or(1, usize::from).min(self.missing.len());
        let shared = Shared {
            next: AtomicUsize::new(0),
            stop: Stop::new(self.options.interrupt),
            failure: Mutex::default(),
            skipped: Mutex::default(),
        };
        std::thread::scope(|scope| {
            for _ in 1..lanes {
                // One lane less where a thread cannot be had.
                let _ = std::thread::Builder::new().spawn_scoped(scope, || self.lane(&shared));
            }
            self.lane(&shared);
        });
        match shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(fault) => Err(fault),
            None if shared.stop.was_interrupted() => Err(shared.stop.fault()),
            None => Ok(shared.skipped.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }

    fn lane(&self, shared: &Shared<'_>) {
        while !shared.stop.is_stopped() {
            let Some((layer, diff_id)) = self.missing.get(shared.next.fetch_add(1, Ordering::Relaxed)) else {
                return;
            };
            match self.one(layer, diff_id, &shared.stop) {
                Ok(skipped) => shared.skipped.lock().unwrap_or_else(PoisonError::into_inner).add(&skipped),
                Err(fault) => {
                    // The first failure is the cause; those after it were told to stop.
                    let mut failure = shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
                    if shared.stop.stop() {
                        *failure = Some(fault.within(format!("layer {}", layer.digest)));
                    }
                }
            }
        }
    }

    /// Another process may be making the layer, which can take long: signals have to be seen meanwhile.
    fn lock(&self, diff_id: &Digest, stop: &Stop<'_>) -> Result<Lock> {
        if self.options.interrupt.is_none() {
            return self.store.lock_layer(diff_id);
        }
        loop {
            if let Some(lock) = self.store.try_lock_layer(diff_id)? {
                return Ok(lock);
            }
            if stop.is_stopped() {
                return Err(stop.fault());
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    fn one(&self, layer: &Layer, diff_id: &Digest, stop: &Stop<'_>) -> Result<Skipped> {
        let _lock = self.lock(diff_id, stop)?;
        // Another process had the lock before and has made it.
        if self.store.has_layer(diff_id) {
            return Ok(Skipped::default());
        }
        let item = self.options.progress.map(|progress| {
            progress.start(&self.image.reference, diff_id.as_str(), "unpack", Some(layer.size))
        });
        let digest = Digest::parse(&layer.digest)?;
        let blob = open_blob(self.store, self.image, layer, &digest, self.settle)?;
        let new = self.store.new_layer()?;
        let mut target = Target::layer(new.open_fs()?).recording(new.unset());
        let expected = Expected { digest: None, diff_id: Some(diff_id) };
        let mut watched = Watched::new(blob, stop, item);
        let applied = layer::apply(&mut watched, expected, &self.options.limits, &mut target)?;
        drop(target);
        commit(new, diff_id, &digest, &applied, self.settle)?;
        self.store.unlock_layer(diff_id);
        watched.done();
        Ok(applied.skipped)
    }
}

fn commit(
    new: NewLayer,
    diff_id: &Digest,
    digest: &Digest,
    applied: &layer::Applied,
    settle: &Settle,
) -> Result<()> {
    let info = LayerInfo {
        diff_id: diff_id.clone(),
        digest: digest.clone(),
        size: applied.content_bytes,
        entries: applied.entries,
        created: jiff::Timestamp::now().to_string(),
        owner: NewLayer::owner(),
        unset: applied.unset,
    };
    new.commit(&info, settle)
}

/// The blob of a layer, known to have its digest.
pub fn open_blob(
    store: &Store,
    image: &Image,
    layer: &Layer,
    digest: &Digest,
    settle: &Settle,
) -> Result<std::fs::File> {
    if layer.media_type.ends_with("+encrypted") {
        return Err(Fault::input("encrypted layers are not supported"));
    }
    let blob = store.open_blob(digest, settle).map_err(|fault| match fault.kind() {
        Kind::NotFound => Fault::not_found("its blob is not in the store")
            .hint(format!("img-pull {} fetches it", image.reference)),
        _ => fault,
    })?;
    let size = blob.metadata().explain(|| "look at its blob".into())?.len();
    if size != layer.size {
        return Err(Fault::input(format!("its blob has {size} bytes, not the {} of the record", layer.size)));
    }
    Ok(blob)
}
