//! Layers a build makes. A step writes into the directory that becomes the layer; the next step stands on it at once, while
//! a thread packs, hashes and stores it.

use crate::images::Found;
use crate::key::Key;
use crate::normalise;
use cli::{Explain, Fault, Result};
use ctr_commit::Compression;
use ctr_commit::layer::Writer;
use oci::Digest;
use record::Layer;
use rootfs::Changes;
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Uid, chmodat, chownat};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use store::{Holds, LayerInfo, Lock, NewLayer, Scratch, Settle, Step, Store};

/// Of a step's layer in the cache: what files it was made on. See [`Files::stack`].
const BELOW: &str = "below";

/// A layer of a stage.
#[derive(Clone, Debug)]
pub enum Below {
    /// One of the store's, from before.
    Stored {
        layer: Box<Layer>,
        path: PathBuf,
    },
    Made(Arc<Made>),
}

/// A layer this build has made.
#[derive(Debug)]
pub struct Made {
    /// Its directory, which gets another name when it is stored.
    directory: OwnedFd,
    packing: Mutex<Option<JoinHandle<Result<Packed>>>>,
    packed: OnceLock<std::result::Result<Option<Layer>, String>>,
    /// Not stored: nothing is in it, or the store has it already. Others may stand on it as long as the build lasts.
    kept: Mutex<Option<NewLayer>>,
}

struct Packed {
    layer: Option<Layer>,
    unstored: Option<NewLayer>,
}

/// A step's layer while the step writes into it.
pub struct Unfinished {
    new: NewLayer,
    directory: OwnedFd,
    /// overlayfs's own, with all else that goes with the step.
    pub scratch: Scratch,
}

/// The files of a stage so far.
#[derive(Clone, Debug)]
pub struct Files {
    pub base: Option<Arc<Found>>,
    /// What the steps since have made.
    pub made: Vec<Below>,
    /// What all of it depends on.
    pub key: Digest,
    /// Some of it is not made, as nothing is to be made.
    pub is_missing: bool,
}

impl Files {
    /// No files.
    pub fn none() -> Files {
        Files { base: None, made: Vec::new(), key: Key::new("scratch").finish(), is_missing: false }
    }

    /// Those of an image.
    pub fn of(found: Arc<Found>) -> Files {
        Files { key: found.key(), base: Some(found), made: Vec::new(), is_missing: false }
    }

    /// A key of what is in it, whatever made it; `None` as long as a layer is not stored.
    pub fn content(&self) -> Option<Digest> {
        if let (Some(base), []) = (&self.base, self.made.as_slice()) {
            return Some(base.key());
        }
        let layers: Option<Vec<&str>> = self.made.iter().map(Below::diff_id).collect();
        let base = self.base.as_ref().map(|base| base.key().to_string()).unwrap_or_default();
        Some(Key::new("content").with("base", base).with_all("layer", &layers?).finish())
    }

    /// Waits until its layers are stored.
    pub fn store(&self) -> Result<Files> {
        let made = self.made.iter().filter_map(|below| match below {
            Below::Stored { .. } => Some(Ok(below.clone())),
            Below::Made(made) => {
                let stored = |layer| Below::Stored { layer: Box::new(layer), path: below.path() };
                made.layer().map(|layer| layer.map(stored)).transpose()
            }
        });
        Ok(Files { made: made.collect::<Result<_>>()?, ..self.clone() })
    }

    /// The directories of its layers, lowest first; the base's are unpacked if they were not.
    pub fn lower(&self, store: &Store, settle: &Settle) -> Result<Vec<PathBuf>> {
        let mut lower = match &self.base {
            Some(base) => base.unpack(store, settle)?,
            None => Vec::new(),
        };
        lower.extend(self.made.iter().map(Below::path));
        Ok(lower)
    }

    /// All of it for reading, nowhere mounted.
    pub fn open(&self, store: &Store, settle: &Settle) -> Result<OwnedFd> {
        match self.lower(store, settle)?.as_slice() {
            [] => {
                let scratch = Scratch::new(store)?;
                std::fs::create_dir(scratch.path()).explain(|| "make an empty directory".into())?;
                // Empty it stays, and it is gone when nobody has it open.
                normalise::open_directory(scratch.path())
            }
            [only] => normalise::open_directory(only),
            lower => sys::overlay::mount(lower, None),
        }
    }

    /// What its layers have in them, whatever made them; waits until they are stored.
    ///
    /// A key says how files are made. Made anew they may be others (`apt-get update`), and what was made on the old ones does not lie on
    /// these.
    pub fn stack(&self) -> Result<Digest> {
        let layers = self.layers()?;
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        Ok(Key::new("stack").with_all("layer", &diff_ids).finish())
    }

    /// Takes from a layer of the cache what it was made on; whether that is this.
    pub fn carries(&self, layer: &mut Layer) -> Result<bool> {
        // Nothing made means nothing to compare with, and a cache in an image does not tell.
        match layer.extra.shift_remove(BELOW) {
            Some(below) if !self.is_missing => Ok(below == self.stack()?.as_str()),
            _ => Ok(true),
        }
    }

    /// Descriptions of all layers, lowest first; waits until they are stored.
    pub fn layers(&self) -> Result<Vec<Layer>> {
        let mut layers = self.base.as_ref().map(|base| base.image.layers.clone()).unwrap_or_default();
        for below in &self.made {
            layers.extend(below.layer()?);
        }
        Ok(layers)
    }
}

/// How layers are finished.
#[derive(Clone)]
pub struct Finish {
    pub store: Store,
    pub settle: Arc<Settle>,
    /// What this build stands on.
    pub holds: Arc<Holds>,
    pub compression: Compression,
}

impl Below {
    pub fn stored(store: &Store, layer: Layer) -> Result<Below> {
        let diff_id = Digest::parse(&layer.diff_id)?;
        Ok(Below::Stored { path: store.layer_fs(&diff_id), layer: Box::new(layer) })
    }

    /// Where an overlay finds it, in this process and those it starts.
    pub fn path(&self) -> PathBuf {
        match self {
            Below::Stored { path, .. } => path.clone(),
            Below::Made(made) => {
                PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), made.directory.as_raw_fd()))
            }
        }
    }

    /// Of one that was stored before.
    fn diff_id(&self) -> Option<&str> {
        match self {
            Below::Stored { layer, .. } => Some(&layer.diff_id),
            Below::Made(_) => None,
        }
    }

    /// Waits until it is stored. `None`: nothing was changed, so there is no layer.
    pub fn layer(&self) -> Result<Option<Layer>> {
        match self {
            Below::Stored { layer, .. } => Ok(Some((**layer).clone())),
            Below::Made(made) => made.layer(),
        }
    }
}

impl Made {
    fn layer(&self) -> Result<Option<Layer>> {
        let result = self.packed.get_or_init(|| {
            let handle = self.packing.lock().unwrap_or_else(PoisonError::into_inner).take();
            let joined = handle.map(JoinHandle::join);
            match joined {
                Some(Ok(Ok(packed))) => {
                    *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = packed.unstored;
                    Ok(packed.layer)
                }
                Some(Ok(Err(fault))) => Err(fault.to_string()),
                Some(Err(_)) | None => Err("the thread that packed it ended early".to_owned()),
            }
        });
        result.clone().map_err(|why| Fault::failed("store a layer").because(why))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // Whoever did not ask for it lets it finish all the same: it is in the cache then.
        if let Some(handle) = self.packing.lock().unwrap_or_else(PoisonError::into_inner).take() {
            drop(handle.join());
        }
    }
}

impl Unfinished {
    /// `top`: the topmost layer below, whose root directory's owner and mode this one's are.
    pub fn new(store: &Store, top: Option<&Path>) -> Result<Unfinished> {
        let new = store.new_layer()?;
        let directory = new.open_fs()?;
        if let Some(top) = top {
            let status = std::fs::metadata(top).explain(|| format!("look at {}", top.display()))?;
            let (uid, gid) = (Uid::from_raw(status.uid()), Gid::from_raw(status.gid()));
            let path = new.fs();
            chownat(CWD, &path, Some(uid), Some(gid), AtFlags::empty())
                .and_then(|()| {
                    chmodat(CWD, &path, Mode::from_raw_mode(status.mode() & 0o7777), AtFlags::empty())
                })
                .explain(|| format!("set owner and mode of {}", path.display()))?;
        }
        let scratch = Scratch::new(store)?;
        for dir in [scratch.path().to_owned(), scratch.path().join("work")] {
            std::fs::create_dir(&dir).explain(|| format!("make directory {}", dir.display()))?;
        }
        Ok(Unfinished { new, directory, scratch })
    }

    pub fn upper(&self) -> PathBuf {
        self.new.fs()
    }

    pub fn work(&self) -> PathBuf {
        self.scratch.path().join("work")
    }

    /// The root of everything below with this on top, for writing; nowhere mounted.
    pub fn mount(&self, lower: &[PathBuf]) -> Result<OwnedFd> {
        if lower.is_empty() {
            return self.directory.try_clone().explain(|| "copy a descriptor".into());
        }
        let (upper, work) = (self.upper(), self.work());
        let writable = sys::overlay::Writable { upper: &upper, work: &work, volatile: true };
        sys::overlay::mount(lower, Some(writable))
    }

    /// The layer as it is now, on top of `below`. `latest`: no time in it is later. `mounted_on`: what was made for mounts is not in it.
    pub fn finish(
        self,
        below: &Files,
        latest: Option<i64>,
        mounted_on: &[Vec<u8>],
        step: Named<'_>,
        finish: &Finish,
    ) -> Result<Below> {
        let Unfinished { new, directory, scratch } = self;
        drop(scratch);
        if !mounted_on.is_empty() {
            normalise::remove_mount_points(
                directory.as_fd(),
                &below.open(&finish.store, &finish.settle)?,
                mounted_on,
            )?;
        }
        if let Some(latest) = latest {
            normalise::clamp_times(directory.as_fd(), latest)?;
        }
        let kept = directory.try_clone().explain(|| "copy a descriptor".into())?;
        let making = Making {
            finish: finish.clone(),
            key: step.key.clone(),
            instruction: step.instruction.to_owned(),
            below: below.clone(),
            lock: step.lock,
        };
        let packing = std::thread::Builder::new()
            .name("pack".to_owned())
            .spawn(move || making.pack(new, directory))
            .explain(|| "start a thread".into())?;
        Ok(Below::Made(Arc::new(Made {
            directory: kept,
            packing: Mutex::new(Some(packing)),
            packed: OnceLock::new(),
            kept: Mutex::new(None),
        })))
    }
}

/// A step, as the cache knows it.
pub struct Named<'a> {
    pub key: &'a Digest,
    pub instruction: &'a str,
    /// Held until the cache has it.
    pub lock: Option<Lock>,
}

struct Making {
    finish: Finish,
    key: Digest,
    instruction: String,
    /// Held as long as they are compared with.
    below: Files,
    lock: Option<Lock>,
}

impl Making {
    fn pack(mut self, new: NewLayer, upper: OwnedFd) -> Result<Packed> {
        let lock = self.lock.take();
        let packed =
            self.pack_unlocked(new, upper).map_err(|fault| fault.within(self.instruction.clone()))?;
        if lock.is_some() {
            self.finish.store.unlock_step(&self.key);
        }
        Ok(packed)
    }

    fn pack_unlocked(&self, new: NewLayer, upper: OwnedFd) -> Result<Packed> {
        let Finish { store, settle, holds, compression } = &self.finish;
        let mut progress = |_| {};
        let mut writer = Writer::new(store.unnamed_blob()?, *compression, &mut progress)?;
        writer.changes(&Changes::between(self.below.open(store, settle)?, upper))?;
        let created = jiff::Timestamp::now().to_string();
        let step = |layer| Step { instruction: self.instruction.clone(), created: created.clone(), layer };
        if writer.is_empty() {
            store.put_step(&self.key, &step(None))?;
            return Ok(Packed { layer: None, unstored: Some(new) });
        }
        // Nothing names it yet.
        let holding = holds.share()?;
        let packed = writer.finish(settle)?;
        holding.add([packed.diff_id.clone(), packed.digest.clone()])?;
        drop(holding);
        let info = LayerInfo {
            diff_id: packed.diff_id.clone(),
            digest: packed.digest.clone(),
            size: packed.bytes,
            entries: packed.members,
            created: created.clone(),
            owner: NewLayer::owner(),
            unset: 0,
        };
        let lock = store.lock_layer(&packed.diff_id)?;
        let unstored = if store.has_layer(&packed.diff_id) {
            Some(new)
        } else {
            new.commit(&info, settle)?;
            None
        };
        store.unlock_layer(&packed.diff_id);
        drop(lock);
        let layer = Layer {
            digest: packed.digest.to_string(),
            diff_id: packed.diff_id.to_string(),
            size: packed.size,
            media_type: packed.media_type.to_owned(),
            ..Layer::default()
        };
        let mut noted = layer.clone();
        noted.extra.insert(BELOW.to_owned(), self.below.stack()?.as_str().into());
        store.put_step(&self.key, &step(Some(noted)))?;
        Ok(Packed { layer: Some(layer), unstored })
    }
}
