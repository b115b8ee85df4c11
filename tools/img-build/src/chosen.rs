//! `cache/chosen/<key>`: what files a COPY or a mount chooses of a stage or an image, as a digest, by what made those files.

use oci::Digest;
use std::path::PathBuf;
use store::{Store, atomic};

/// Longest file that is one.
const MAX_BYTES: usize = 200;

fn path(store: &Store, key: &Digest) -> PathBuf {
    store.root().join("cache/chosen").join(key.hex())
}

pub fn find(store: &Store, key: &Digest) -> Option<Digest> {
    let content = atomic::read(&path(store, key)).ok()??;
    let text = std::str::from_utf8(&content).ok().filter(|text| text.len() <= MAX_BYTES)?;
    Digest::parse(text.trim_end()).ok()
}

/// What cannot be remembered is worked out again.
pub fn remember(store: &Store, key: &Digest, digest: &Digest) {
    let path = path(store, key);
    if let Some(dir) = path.parent()
        && store.make_dir(dir).is_ok()
    {
        let _ = atomic::write_unflushed(&path, format!("{digest}\n").as_bytes(), 0o600);
    }
}
