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
pub use format::{Convert, Format};
pub use load::{Loaded, Loader};
pub use location::Location;
pub use raw::{Parts, Raw};
pub use source::Source;

pub use oci::reference::new_name;

use std::sync::{Mutex, MutexGuard, PoisonError};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
