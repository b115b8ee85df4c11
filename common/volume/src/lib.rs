//! Volumes: `$STAVES_ROOT/volumes/<name>/{volume.json,_data}`, who uses them, how they are filled, and how they come into a
//! container. The rules are in ARCHITECTURE.md, "Volumes and mounts".
#![forbid(unsafe_code)]

mod copy;
mod info;
mod open;
pub mod options;
mod plugin;
mod secret;
mod shelf;
pub mod trees;

pub use copy::{attributes, copy_tree, extents};
pub use info::{Info, LOCAL, check_name};
pub use open::Opened;
pub use shelf::{
    Found, Held, User, Users, check_unused, create, find, hold, list, names_in, remove, remove_unless, users,
    volume_dir,
};
