//! `cache/chosen/<key>`: what files a COPY or a mount chooses of a stage or an image, as a digest, by the content of those files and by
//! what made them.
//!
//! The latter so that a step that copies from a stage can be found without that stage's files, in a store that never had them, too: caches carry these digests.

use crate::build::{Builder, lock};
use crate::key::Key;
use crate::layer::Files;
use crate::stage::Stage;
use oci::Digest;
use std::path::PathBuf;
use store::{Store, atomic};

/// Longest file that is one.
const MAX_BYTES: usize = 200;

fn path(store: &Store, key: &Digest) -> PathBuf {
    store.root().join("cache/chosen").join(key.hex())
}

/// What is remembered of files with a key, and what of them is taken.
pub fn key(files: &Digest, choice: &Digest) -> Digest {
    Key::new("chosen").with("files", files.as_str()).with("choice", choice.as_str()).finish()
}

/// From this store or, if that has none, from a cache of somebody else's.
pub fn find(stage: &Stage<'_, '_>, key: &Digest) -> Option<Digest> {
    let builder = stage.builder;
    if let Some(digest) = read(builder.store, key) {
        return Some(digest);
    }
    let digest = builder.imports.chosen(key).filter(|_| builder.uses_cache(stage.planned))?;
    if stage.makes {
        write(builder.store, key, digest);
    }
    Some(digest.clone())
}

/// What cannot be remembered is worked out again.
pub fn remember(stage: &Stage<'_, '_>, key: &Digest, digest: &Digest) {
    let store = stage.builder.store;
    if read(store, key).as_ref() != Some(digest) {
        write(store, key, digest);
    }
}

/// By the content of files that is known when they are stored; see [`settle`].
pub fn remember_later(stage: &Stage<'_, '_>, choice: Digest, files: Files, digest: &Digest) {
    lock(&stage.builder.notes.later).push((files, choice, digest.clone()));
}

/// When all is done: whoever builds the same again need not read it.
pub fn settle(builder: &Builder<'_>) {
    for (files, choice, digest) in std::mem::take(&mut *lock(&builder.notes.later)) {
        if let Ok(Some(content)) = files.store().map(|files| files.content()) {
            write(builder.store, &key(&content, &choice), &digest);
        }
    }
}

/// Notes that it was asked for, for the cache that this build puts out.
pub fn note(stage: &Stage<'_, '_>, key: &Digest, digest: &Digest) {
    lock(&stage.builder.notes.chosen).insert((stage.place, key.to_string()), digest.to_string());
}

fn read(store: &Store, key: &Digest) -> Option<Digest> {
    let content = atomic::read(&path(store, key)).ok()??;
    let text = std::str::from_utf8(&content).ok().filter(|text| text.len() <= MAX_BYTES)?;
    Digest::parse(text.trim_end()).ok()
}

fn write(store: &Store, key: &Digest, digest: &Digest) {
    let path = path(store, key);
    if let Some(dir) = path.parent()
        && store.make_dir(dir).is_ok()
    {
        let _ = atomic::write_unflushed(&path, format!("{digest}\n").as_bytes(), 0o600);
    }
}
