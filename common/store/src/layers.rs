//! `layers/sha256-<diff id>/{fs,layer.json,unset.ndjson}`: layers unpacked once, ready to lie under an overlay, shared by all
//! images that have them.
//!
//! A layer is made in `tmp/` and renamed to its place when it is complete; `layer.json` is the object that is
//! trusted or not (ARCHITECTURE, "Trusting blobs and layers after a crash").

use crate::holds::Held;
use crate::settle::FRESH;
use crate::{Lock, Scratch, Settle, Store, make_dirs, scratch};
use fault::{Explain, Fault, Kind, Result};
use oci::{Digest, Platform};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What of the entries' metadata could not be set, a line of JSON each; absent if all could.
pub const UNSET: &str = "unset.ndjson";

/// `layer.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LayerInfo {
    pub diff_id: Digest,
    /// Digest of the blob it was unpacked from.
    pub digest: Digest,
    /// Bytes of the files' content.
    pub size: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// RFC 3339, when it was unpacked.
    pub created: String,
    /// Process that made it, as in the names in `tmp/`. While it lives the layer is not swept: the image it belongs
    /// to may not be in `index.json` yet.
    pub owner: String,
    /// Lines of `unset.ndjson`, which tell what of the entries' metadata could not be set.
    #[serde(default)]
    pub unset: u64,
}

/// A layer being made. Dropped before [`NewLayer::commit`], nothing is left of it.
#[derive(Debug)]
pub struct NewLayer {
    store: Store,
    scratch: Scratch,
}

/// What removing layers gave back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SweptLayers {
    pub layers: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

/// An image that a container has mounted: a member of its `container.mounted_images`.
#[derive(Debug, serde::Deserialize)]
pub(crate) struct MountedImage {
    #[serde(default)]
    pub digest: String,
    #[serde(default)]
    pub layers: Vec<String>,
}

pub(crate) fn mounted_images(record: &record::Record) -> Result<Vec<MountedImage>> {
    let container = record.container()?.unwrap_or_default();
    let Some(list) = container.extra.get("mounted_images") else { return Ok(Vec::new()) };
    serde::Deserialize::deserialize(list)
        .map_err(|error: serde_json::Error| Fault::input("container.mounted_images").because(error))
}

impl Store {
    /// `$STAVES_ROOT/layers/sha256-<hex>`, whether or not it is there.
    pub fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.root().join("layers").join(format!("{}-{}", diff_id.algorithm().name(), diff_id.hex()))
    }

    /// What of the metadata of the layer's entries could not be set, if there was anything.
    pub fn layer_unset(&self, diff_id: &Digest) -> PathBuf {
        self.layer_dir(diff_id).join(UNSET)
    }

    /// The tree itself, what `rootfs.layers` of a record holds.
    pub fn layer_fs(&self, diff_id: &Digest) -> PathBuf {
        self.layer_dir(diff_id).join("fs")
    }

    /// Whether the layer is unpacked and can be trusted. One system call for layers that are on disk for certain.
    pub fn has_layer(&self, diff_id: &Digest) -> bool {
        let object = self.layer_dir(diff_id).join("layer.json");
        object.symlink_metadata().is_ok_and(|status| status.is_file() && self.is_trusted(&object, &status))
    }

    /// Held while a layer is made or removed, so that of several that want it one makes it and the others find it.
    pub fn lock_layer(&self, diff_id: &Digest) -> Result<Lock> {
        Lock::exclusive(&self.layer_lock(diff_id)?)
    }

    /// `None` if somebody else holds it.
    pub fn try_lock_layer(&self, diff_id: &Digest) -> Result<Option<Lock>> {
        Lock::try_exclusive(&self.layer_lock(diff_id)?)
    }

    /// Removes the lock's file when the layer is there and nobody needs the lock any more. Those who wait for it find the layer.
    pub fn unlock_layer(&self, diff_id: &Digest) {
        if let Ok(path) = self.layer_lock(diff_id) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn layer_lock(&self, diff_id: &Digest) -> Result<PathBuf> {
        let dir = self.run().join("layers");
        make_dirs(&dir)?;
        Ok(dir.join(format!("{}-{}", diff_id.algorithm().name(), diff_id.hex())))
    }

    /// Begins a layer: an empty `fs` with mode 0755.
    pub fn new_layer(&self) -> Result<NewLayer> {
        let scratch = Scratch::new(self)?;
        make_dirs(scratch.path())?;
        let layer = NewLayer { store: self.clone(), scratch };
        let fs = layer.fs();
        rustix::fs::mkdir(&fs, Mode::RWXU)
            .and_then(|()| rustix::fs::chmod(&fs, Mode::from_raw_mode(0o755)))
            .map_err(std::io::Error::from)
            .explain(|| format!("make directory {}", fs.display()))?;
        Ok(layer)
    }

    pub fn layer_info(&self, diff_id: &Digest) -> Result<Option<LayerInfo>> {
        let path = self.layer_dir(diff_id).join("layer.json");
        let Some(content) = crate::atomic::read(&path)? else { return Ok(None) };
        serde_json::from_slice(&content).map(Some).explain(|| format!("read {}", path.display()))
    }

    /// Diff ids of what lies in `layers/`, trusted or not.
    pub fn layers(&self) -> Result<Vec<Digest>> {
        let dir = self.root().join("layers");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).explain(|| format!("read {}", dir.display())),
        };
        let name = |entry: std::fs::DirEntry| entry.file_name().into_string().ok();
        Ok(entries.flatten().filter_map(name).filter_map(|name| diff_id_of(&name)).collect())
    }

    /// Diff ids of layers that containers stand on.
    ///
    /// # Errors
    /// When a container's record cannot be read: what it needs is unknown then.
    pub fn layers_of_containers(&self) -> Result<HashSet<Digest>> {
        let mut used = HashSet::new();
        for container in self.containers()? {
            let record = match container.load() {
                // Removed meanwhile.
                Err(fault) if fault.kind() == Kind::NotFound => continue,
                other => other?,
            };
            let layers = record.rootfs()?.map(|rootfs| rootfs.layers).unwrap_or_default();
            used.extend(layers.iter().filter_map(|path| Self::diff_id_of_path(Path::new(path))));
            for image in mounted_images(&record)? {
                used.extend(image.layers.iter().filter_map(|path| Self::diff_id_of_path(Path::new(path))));
            }
        }
        Ok(used)
    }

    /// `…/layers/sha256-<hex>/fs` of this store. Only the name counts, as the root may have been reached by another
    /// path when the record was made.
    pub fn diff_id_of_path(path: &Path) -> Option<Digest> {
        path.components().rev().take(2).find_map(|component| diff_id_of(component.as_os_str().to_str()?))
    }

    /// Diff ids of layers that images in `index.json` have.
    ///
    /// # Errors
    /// When an image cannot be understood. One that lacks its manifest or configuration has no layers.
    pub fn layers_of_images(&self) -> Result<HashSet<Digest>> {
        let mut used = HashSet::new();
        for entry in self.images()? {
            match self.load_image(&entry, &Platform::host()) {
                Ok(image) => {
                    used.extend(image.layers.iter().filter_map(|layer| Digest::parse(&layer.diff_id).ok()));
                }
                Err(fault) if matches!(fault.kind(), Kind::NotFound | Kind::Input) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(used)
    }

    /// Removes layers that no image, no container, no step of a build and no build that goes on needs, of all or of `among` only.
    pub fn sweep_layers(&self, among: Option<&[Digest]>) -> Result<SweptLayers> {
        let candidates = match among {
            Some(layers) => layers.to_vec(),
            None => self.layers()?,
        };
        let mut swept = SweptLayers::default();
        if candidates.is_empty() {
            return Ok(swept);
        }
        // Images first: a container made between the two looks has its image in the index, or the one who
        // removed that image is us.
        let mut used = self.layers_of_images()?;
        used.extend(self.layers_of_containers()?);
        used.extend(self.layers_of_steps()?.iter().filter_map(|layer| Digest::parse(&layer.diff_id).ok()));
        for diff_id in candidates.iter().filter(|diff_id| !used.contains(diff_id)) {
            let at_work = among.is_none()
                && self
                    .layer_info(diff_id)
                    .ok()
                    .flatten()
                    .is_some_and(|info| scratch::owner_lives(&info.owner) == Some(true));
            if at_work {
                continue;
            }
            let held = self.held()?;
            if !held.digests.contains(diff_id)
                && let Some(bytes) = self.remove_layer(diff_id, false, Some(held))?
            {
                swept.layers += 1;
                swept.bytes += bytes;
            }
        }
        Ok(swept)
    }

    /// Removes a layer; `None` if there is none or somebody is making it right now. Whether it is needed is for the
    /// caller to know. `held`: nobody can begin to hold it until it is out of its place.
    pub(crate) fn remove_layer(
        &self,
        diff_id: &Digest,
        only_untrusted: bool,
        held: Option<Held>,
    ) -> Result<Option<u64>> {
        let path = self.layer_lock(diff_id)?;
        let Some(_lock) = Lock::try_exclusive(&path)? else { return Ok(None) };
        if only_untrusted && self.has_layer(diff_id) {
            return Ok(None);
        }
        let aside = self.put_aside(diff_id)?;
        drop(held);
        // Those who wait for the lock on the file without a name find out that the layer is gone.
        let _ = std::fs::remove_file(&path);
        aside.map(|scratch| crate::remove_tree(scratch.path())).transpose()
    }

    /// Takes a layer from its place in one step; what is left to remove has the name of unfinished work.
    fn put_aside(&self, diff_id: &Digest) -> Result<Option<Scratch>> {
        let scratch = Scratch::new(self)?;
        let dir = self.layer_dir(diff_id);
        match std::fs::rename(&dir, scratch.path()) {
            Ok(()) => Ok(Some(scratch)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).explain(|| format!("remove {}", dir.display())),
        }
    }
}

impl NewLayer {
    pub fn fs(&self) -> PathBuf {
        self.scratch.path().join("fs")
    }

    /// Where it is written down what of the entries' metadata cannot be set.
    pub fn unset(&self) -> PathBuf {
        self.scratch.path().join(UNSET)
    }

    pub fn open_fs(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, self.fs(), flags, Mode::empty())
            .map_err(std::io::Error::from)
            .explain(|| format!("open {}", self.fs().display()))
    }

    /// The process that makes it, for [`LayerInfo::owner`].
    pub fn owner() -> String {
        let pid = std::process::id();
        format!("{pid}-{}", scratch::start_time(pid as i32).unwrap_or(0))
    }

    /// Puts the complete layer in its place. If another process was first, its layer stays and this one goes.
    pub fn commit(self, info: &LayerInfo, settle: &Settle) -> Result<()> {
        let place = self.store.layer_dir(&info.diff_id);
        let path = self.scratch.path().join("layer.json");
        let mut content = serde_json::to_vec(info).explain(|| "write layer.json".into())?;
        content.push(b'\n');
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(FRESH)
            .open(&path)
            .explain(|| format!("make {}", path.display()))?;
        file.write_all(&content).explain(|| format!("write {}", path.display()))?;
        settle.mark(&self.store, &file, &place.join("layer.json"))?;
        if let Some(parent) = place.parent() {
            make_dirs(parent)?;
        }
        for _ in 0..3 {
            match rustix::fs::rename(self.scratch.path(), &place) {
                Ok(()) => {
                    self.scratch.keep();
                    return Ok(());
                }
                Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => {
                    if self.store.has_layer(&info.diff_id) {
                        return Ok(());
                    }
                    // From before a crash: nobody knows what is in it.
                    drop(self.store.put_aside(&info.diff_id)?);
                }
                Err(error) => {
                    return Err(std::io::Error::from(error))
                        .explain(|| format!("store layer {}", place.display()));
                }
            }
        }
        Err(Fault::conflict(format!("{} keeps being replaced", place.display())))
    }
}

pub(crate) fn diff_id_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    Digest::parse(&format!("{algorithm}:{hex}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixture(PathBuf);

    impl Fixture {
        fn new(name: &str) -> (Fixture, Store) {
            let dir = std::env::temp_dir().join(format!("store-layers-{name}-{}", std::process::id()));
            let store = Store::at(dir.join("root"), dir.join("run"));
            (Fixture(dir), store)
        }
    }

    impl Drop for Fixture {
        fn drop(&mut self) {
            let _ = crate::remove_tree(&self.0);
        }
    }

    fn info(diff_id: &Digest, owner: String) -> LayerInfo {
        LayerInfo {
            diff_id: diff_id.clone(),
            digest: diff_id.clone(),
            size: 0,
            entries: 0,
            created: "2026-01-01T00:00:00Z".into(),
            owner,
            unset: 0,
        }
    }

    fn make(store: &Store, text: &[u8], owner: String) -> Digest {
        let diff_id = Digest::of(text);
        let layer = store.new_layer().unwrap();
        std::fs::write(layer.fs().join("file"), text).unwrap();
        layer.commit(&info(&diff_id, owner), &Settle::new()).unwrap();
        diff_id
    }

    #[test]
    fn a_layer_is_there_when_it_is_committed() {
        let (_fixture, store) = Fixture::new("commit");
        let diff_id = make(&store, b"one", "1-1".into());
        assert!(store.has_layer(&diff_id));
        assert_eq!(store.layers().unwrap(), std::slice::from_ref(&diff_id));
        assert_eq!(store.layer_info(&diff_id).unwrap().unwrap().diff_id, diff_id);
        // The second to come keeps the first one's.
        let file = store.layer_fs(&diff_id).join("file");
        let before = std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap());
        make(&store, b"one", "1-1".into());
        assert_eq!(std::os::unix::fs::MetadataExt::ino(&file.metadata().unwrap()), before);
        // Half of one, or one from before a crash, is replaced.
        let stale = Digest::of(b"stale");
        std::fs::create_dir_all(store.layer_fs(&stale).join("rubbish")).unwrap();
        assert!(!store.has_layer(&stale));
        make(&store, b"stale", "1-1".into());
        assert!(store.has_layer(&stale) && !store.layer_fs(&stale).join("rubbish").exists());
        assert_eq!(std::fs::read_dir(store.root().join("tmp")).unwrap().count(), 0);
    }

    #[test]
    fn layers_of_containers_and_of_those_at_work_stay() {
        let (_fixture, store) = Fixture::new("sweep");
        let used = make(&store, b"used", "1-1".into());
        let lost = make(&store, b"lost", "1-1".into());
        let young = make(&store, b"young", NewLayer::owner());
        let dir = store.container_dir(&"a".repeat(64));
        make_dirs(&dir.bundle).unwrap();
        let mut record = record::Record::new();
        let path = store.layer_fs(&used).display().to_string();
        let rootfs = record::Rootfs { layers: vec![path], driver: "overlay".into(), ..Default::default() };
        record.set("rootfs", &rootfs).unwrap();
        dir.save(&record).unwrap();
        assert_eq!(store.sweep_layers(None).unwrap().layers, 1);
        assert!(store.has_layer(&used) && store.has_layer(&young) && !store.has_layer(&lost));
        // Named outright, by who removes the image, it goes, but never from under a container.
        let named = [used.clone(), young.clone()];
        assert_eq!(store.sweep_layers(Some(&named)).unwrap().layers, 1);
        assert!(store.has_layer(&used) && !store.has_layer(&young));
        // A layer somebody is making is left alone.
        let stale = make(&store, b"stale", "1-1".into());
        let lock = store.lock_layer(&stale).unwrap();
        assert_eq!(store.sweep_layers(None).unwrap().layers, 0);
        drop(lock);
        assert_eq!(store.sweep_layers(None).unwrap().layers, 1);
    }
}
