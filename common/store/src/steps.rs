//! `cache/build/<key>`: what steps of builds have made, by a digest of all they depend on.
//!
//! A file each, written under another name and renamed: of builds that make the same step at once the last one's stays, and
//! both have made the same. Layers a step names are kept by sweeps as long as its file is there.

use crate::{Lock, Settle, Store, atomic, make_dirs};
use fault::{Explain, Result};
use oci::Digest;
use record::Layer;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Longest file that is one.
const MAX_BYTES: usize = 64 << 10;

/// What a step has made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// For people: the instruction, shortened.
    pub instruction: String,
    /// RFC 3339.
    pub created: String,
    /// `None`: it changed no file.
    pub layer: Option<Layer>,
}

impl Store {
    /// The step made with this key, if all of it is still here and can be trusted.
    ///
    /// # Errors
    /// When the state cannot be read. A file that cannot be understood is no step.
    pub fn step(&self, key: &Digest, settle: &Settle) -> Result<Option<Step>> {
        let Some(step) = read_step(&self.step_path(key))? else { return Ok(None) };
        if let Some(layer) = &step.layer {
            let (Ok(diff_id), Ok(digest)) = (Digest::parse(&layer.diff_id), Digest::parse(&layer.digest))
            else {
                return Ok(None);
            };
            if !self.has_layer(&diff_id) || !self.has_blob(&digest, Some(layer.size), settle)? {
                return Ok(None);
            }
        }
        Ok(Some(step))
    }

    /// # Errors
    /// When it cannot be written.
    pub fn put_step(&self, key: &Digest, step: &Step) -> Result<()> {
        let path = self.step_path(key);
        if let Some(dir) = path.parent() {
            make_dirs(dir)?;
        }
        let mut text = serde_json::to_vec(step).explain(|| "write a step of a build".into())?;
        text.push(b'\n');
        atomic::write_unflushed(&path, &text, 0o600)
    }

    /// Held while a step is made, however long that takes, so that of several builds one makes it and the others find it.
    ///
    /// # Errors
    /// When the lock cannot be had.
    pub fn lock_step(&self, key: &Digest) -> Result<Lock> {
        let path = self.step_lock(key);
        if let Some(dir) = path.parent() {
            make_dirs(dir)?;
        }
        Lock::exclusive(&path)
    }

    /// Removes the lock's file when the step is there. Those who wait for it find the step.
    pub fn unlock_step(&self, key: &Digest) {
        let _ = std::fs::remove_file(self.step_lock(key));
    }

    fn step_lock(&self, key: &Digest) -> PathBuf {
        self.run().join("steps").join(key.hex())
    }

    /// All layers that steps name.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn layers_of_steps(&self) -> Result<Vec<Layer>> {
        let dir = self.root().join("cache/build");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).explain(|| format!("read {}", dir.display())),
        };
        let mut layers = Vec::new();
        for entry in entries.flatten() {
            layers.extend(read_step(&entry.path())?.and_then(|step| step.layer));
        }
        Ok(layers)
    }

    fn step_path(&self, key: &Digest) -> PathBuf {
        self.root().join("cache/build").join(key.hex())
    }
}

fn read_step(path: &Path) -> Result<Option<Step>> {
    let content = atomic::read(path)?.filter(|content| content.len() <= MAX_BYTES);
    Ok(content.and_then(|content| serde_json::from_slice(&content).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerInfo, NewLayer};

    #[test]
    fn a_step_is_there_as_long_as_all_of_it_is() {
        let dir = std::env::temp_dir().join(format!("store-steps-{}", std::process::id()));
        let store = Store::at(dir.join("root"), dir.join("run"));
        let settle = Settle::new();
        let (key, other) = (Digest::of(b"key"), Digest::of(b"other"));
        let digest = store.put_blob(b"blob", &settle).unwrap();
        let diff_id = Digest::of(b"files");
        let layer = Layer {
            digest: digest.to_string(),
            diff_id: diff_id.to_string(),
            size: 4,
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
            ..Layer::default()
        };
        let step =
            Step { instruction: "RUN x".into(), created: "2026-01-01T00:00:00Z".into(), layer: Some(layer) };
        store.put_step(&key, &step).unwrap();
        assert_eq!(store.step(&key, &settle).unwrap(), None, "its layer is not here");
        let new = store.new_layer().unwrap();
        let info = LayerInfo {
            diff_id: diff_id.clone(),
            digest: digest.clone(),
            size: 0,
            entries: 0,
            created: step.created.clone(),
            owner: "1-1".into(),
            unset: 0,
        };
        new.commit(&info, &settle).unwrap();
        assert_eq!(store.step(&key, &settle).unwrap().as_ref(), Some(&step));
        assert_eq!(store.step(&other, &settle).unwrap(), None);
        // No image has it, and it stays.
        assert_eq!(store.sweep_blobs().unwrap().blobs, 0);
        assert_eq!(store.sweep_layers(None).unwrap().layers, 0);
        assert!(NewLayer::owner().contains('-'));
        let nothing = Step { layer: None, ..step.clone() };
        store.put_step(&other, &nothing).unwrap();
        assert_eq!(store.step(&other, &settle).unwrap(), Some(nothing));
        for damaged in ["", "{", "[1]", "{\"instruction\":7}"] {
            std::fs::write(store.step_path(&other), damaged).unwrap();
            assert_eq!(store.step(&other, &settle).unwrap(), None, "{damaged}");
        }
        std::fs::remove_file(store.step_path(&key)).unwrap();
        assert_eq!(store.sweep_blobs().unwrap().blobs, 1);
        assert_eq!(store.sweep_layers(None).unwrap().layers, 1);
        crate::remove_tree(&dir).unwrap();
    }
}
