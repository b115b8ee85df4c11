//! Layers: tar archives applied to directories, or looked into without that (OCI image spec, `layer.md`).
//!
//! One streaming pass does everything: read, hash the blob, inflate, hash the tar, write. A layer is never held in
//! memory nor written out as a tar first. Everything in it is hostile; see [`Tree`](tree) for how paths are kept inside.
#![forbid(unsafe_code)]

mod apply;
pub mod archive;
mod decode;
mod flat;
mod limits;
mod name;
pub mod output;
pub mod pack;
pub mod scan;
mod tree;
mod unset;
pub mod view;

pub use apply::{Applied, Expected, Target, apply};
pub use limits::Limits;
pub use scan::{Budget, Item, ItemKind, Time};
pub use tree::{Skipped, opaque_attribute};
pub use unset::OVERRIDE;
pub use view::{Node, View};
