//! What is in images, without unpacking or pulling them: where they are found and their layers read from, their lists, and files as records.
#![forbid(unsafe_code)]

mod file;
mod glob;
mod place;
mod source;

pub use file::{FileRecord, Text, mode_text, rfc3339, shown};
pub use glob::Pattern;
pub use place::{Chosen, Found, Opened, Places, platforms};
pub use source::{InStore, Source, scan_layers, view};
