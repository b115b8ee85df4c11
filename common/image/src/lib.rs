//! Where images are read from and written to: archives, layouts, directories, the store, registries.
//!
//! Everything that is read is hostile: sizes are bounded and counted, every blob is hashed on its way, names of members are
//! never paths of this machine. No blob is held in memory.
#![forbid(unsafe_code)]

pub mod archive;
mod bars;
mod copy;
pub mod destination;
mod format;
mod load;
mod location;
mod raw;
pub mod source;

pub use bars::Bars;
pub use copy::{Choice, Copied, Copy, Plan, Watch, config_bytes};
pub use destination::Destination;
pub use format::Format;
pub use load::{Loaded, Loader};
pub use location::Location;
pub use raw::{Parts, Raw};
pub use source::Source;

use fault::{Fault, Kind, Result};
use oci::Reference;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A name a user gives to an image. A digest is no name that can be given: it is the content's own.
///
/// # Errors
/// [`Kind::Usage`].
pub fn new_name(text: &str) -> Result<Reference> {
    let reference = Reference::parse(text).map_err(|fault| fault.on(text).as_kind(Kind::Usage))?;
    if reference.digest().is_some() {
        return Err(
            Fault::usage("a name with a digest cannot be given: the digest is the content's").on(text)
        );
    }
    Ok(reference)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
