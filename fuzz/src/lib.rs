//! Every place where the project reads what somebody else wrote, as a function of bytes: none may panic, hang or take
//! memory without bound on any, and what it promises beside that is asserted.
//!
//! `fuzz_targets/` hands these functions to libFuzzer, `tests/tests/seeds.rs` replays the committed seeds through them.
#![forbid(unsafe_code)]

pub mod archive;
pub mod bundle;
pub mod cache;
pub mod cdi;
pub mod checkpoint;
pub mod cni;
pub mod context;
pub mod convert;
pub mod dns;
pub mod dockerfile;
pub mod image;
pub mod layer;
pub mod location;
pub mod logs;
pub mod network;
pub mod record;
pub mod reference;
pub mod registry;
mod scratch;
pub mod seccomp;
pub mod shim;
pub mod spec;
pub mod state;
pub mod wishes;

/// Name of target and seed directory, and what reads their bytes.
pub type Surface = (&'static str, fn(&[u8]));

pub const ALL: [Surface; 23] = [
    ("archive", archive::check),
    ("bundle", bundle::check),
    ("cache", cache::check),
    ("cdi", cdi::check),
    ("checkpoint", checkpoint::check),
    ("cni", cni::check),
    ("context", context::check),
    ("convert", convert::check),
    ("dns", dns::check),
    ("dockerfile", dockerfile::check),
    ("image", image::check),
    ("layer", layer::check),
    ("location", location::check),
    ("logs", logs::check),
    ("network", network::check),
    ("record", record::check),
    ("reference", reference::check),
    ("registry", registry::check),
    ("seccomp", seccomp::check),
    ("shim", shim::check),
    ("spec", spec::check),
    ("state", state::check),
    ("wishes", wishes::check),
];
