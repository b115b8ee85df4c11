//! Archives of images: OCI image layouts and docker's, in a tar.

pub mod contents;
pub mod images;
pub mod inflate;
pub mod write;

pub use contents::{Contents, Keeper, Member, blob_path};
pub use images::{ArchivedImage, images};
pub use inflate::{Packing, inflated};
pub use write::Writer;
