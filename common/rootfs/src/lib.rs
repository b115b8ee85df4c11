//! Containers' root file systems, of running and of ended ones: opened from outside, walked through, changed.
//!
//! Everything in them is hostile, and while a container runs it changes under one's hands. Nothing of a container's is ever executed, and no
//! path in it is given to the kernel but relative to a descriptor of its root (`openat2`, `RESOLVE_IN_ROOT`) or of a directory below that
//! (`O_NOFOLLOW`): CVE-2018-15664, CVE-2019-14271.
#![forbid(unsafe_code)]

mod changes;
mod layer_tarball;
mod look;
mod open;
mod owners;
mod place;
mod tarball;
mod unpack;
mod walk;

pub use changes::{Change, Changes, Upper, Visitor};
pub use layer_tarball::LayerTarball;
pub use look::{Content, MAX_PATH, Sink, Tally, failed, kind_of, names, open_at, show, xattrs_of};
pub use open::{Access, Root};
pub use owners::Owners;
pub use place::{Manner, Placer};
pub use tarball::Tarball;
pub use unpack::unpack;
pub use walk::{Walk, walk};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Lets this process open as many files as it may: a directory on the way to a file costs one, and paths can be 2000 directories deep.
pub fn allow_many_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // What cannot be had is missed, if ever, by an error that says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
