//! Where images are read from and written to: archives, layouts, directories, the store, registries.
//!
//! Everything that is read is hostile: sizes are bounded and counted, every blob is hashed on its way, names of members are
//! never paths of this machine. No blob is held in memory.
#![forbid(unsafe_code)]

pub mod archive;
mod load;

pub use load::{Loaded, Loader};
