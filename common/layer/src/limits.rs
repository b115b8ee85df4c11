//! How much a layer may ask for. The limits are far above real images; they are there for hostile ones.

/// Longest path, without the final NUL of the kernel's `PATH_MAX`.
pub const MAX_PATH: usize = 4095;
/// The PAX headers of one entry together, and with them its extended attributes.
pub const MAX_PAX: u64 = 1 << 20;
/// Extended attributes of one entry; the kernel lists no more than 64 KiB of names (listxattr(2)).
pub const MAX_XATTRS: usize = 4096;
/// GNU long names; longer than any path the kernel takes.
pub const MAX_LONG_NAME: u64 = 64 << 10;
/// Pieces of a sparse file.
pub const MAX_SEGMENTS: usize = 64 << 10;

/// What one layer may unpack to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries of the archive. Each costs an inode.
    pub entries: u64,
    /// Bytes of the uncompressed archive; `None` leaves it to the disk, which when full fails cleanly.
    pub bytes: Option<u64>,
    /// Uncompressed bytes for one compressed byte, looked at from [`Limits::RATIO_FROM`] on. `None` allows any.
    pub ratio: Option<u64>,
}

impl Limits {
    /// Small layers may be packed as tightly as they like: 4 GiB of zeros in a few MiB are what a developer's sparse
    /// database looks like.
    pub const RATIO_FROM: u64 = 4 << 30;
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { entries: 10_000_000, bytes: None, ratio: Some(250) }
    }
}
