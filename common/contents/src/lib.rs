//! What is in images, without unpacking them: where their layers are read from, their lists, and files as records.
#![forbid(unsafe_code)]

mod file;
mod glob;
mod source;

pub use file::{FileRecord, Text, mode_text, rfc3339, shown};
pub use glob::Pattern;
pub use source::{InStore, Opened, Source, open, scan_layers, view};
