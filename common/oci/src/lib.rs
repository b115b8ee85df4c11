//! References, digests, platforms, manifests as views over original bytes; wishes and image to runtime
//! specification. Pure: nothing here touches the system.
#![forbid(unsafe_code)]

pub mod artifact;
pub mod capabilities;
pub mod cdi;
pub mod digest;
pub mod format;
pub mod manifest;
pub mod platform;
pub mod reference;
pub mod seccomp;
pub mod spec;
pub mod users;
pub mod wishes;

pub use artifact::Artifact;
pub use digest::Digest;
pub use format::Format;
pub use manifest::{Descriptor, Document, ImageConfig, Index, Manifest};
pub use platform::Platform;
pub use reference::Reference;
