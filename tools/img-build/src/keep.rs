//! Files that are kept under a key as a step's layer is, for steps that are no image's. Sweeps know them as they know layers.

use crate::layer::{Files, Finish, Named, Unfinished};
use crate::normalise;
use cli::Result;
use ctr_commit::Compression;
use oci::Digest;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use store::{Holds, Lock, Settle, Store};

/// Keeps what `write` writes into an empty directory. `lock` is that of the key.
///
/// # Errors
/// When it cannot be written; nothing is kept then.
pub fn keep(
    store: &Store,
    key: &Digest,
    instruction: &str,
    lock: Lock,
    settle: &Arc<Settle>,
    write: impl FnOnce(BorrowedFd<'_>) -> Result<()>,
) -> Result<()> {
    let unfinished = Unfinished::new(store, None)?;
    write(normalise::open_directory(&unfinished.upper())?.as_fd())?;
    let finish = Finish {
        store: store.clone(),
        settle: Arc::clone(settle),
        holds: Arc::new(Holds::new(store)),
        compression: Compression::Zstd,
    };
    let named = Named { key, instruction, lock: Some(lock) };
    unfinished.finish(&Files::none(), None, &[], named, &finish)?.layer()?;
    Ok(())
}

/// The directory that was kept, if all of it is still here.
///
/// # Errors
/// When the state cannot be read.
pub fn find_kept(store: &Store, key: &Digest, settle: &Settle) -> Result<Option<OwnedFd>> {
    let Some(layer) = store.step(key, settle)?.and_then(|step| step.layer) else { return Ok(None) };
    normalise::open_directory(&store.layer_fs(&Digest::parse(&layer.diff_id)?)).map(Some)
}
