//! A build's files: where they are (directories, stages' roots, archives, git, HTTP), which of them count, which of them COPY and ADD
//! choose, what those are by digest, and how they get into a layer.
//!
//! All of it is hostile: names, links, sizes, what servers say. Nothing is resolved but by descriptors inside its root, and files are
//! read when something asks for their content.
#![forbid(unsafe_code)]

mod address;
mod archive;
mod chmod;
mod choose;
mod content;
mod files;
pub mod git;
pub mod ignore;
mod login;
mod memory;
mod resolve;
mod select;
mod source;
mod walk;
pub mod web;
mod write;

pub use chmod::Chmod;
pub use files::Context;
pub use ignore::Ignore;
pub use login::Login;
pub use memory::Memory;
pub use resolve::{Resolved, resolve};
pub use select::{Options, Selection};
pub use source::{AddSource, Fetched, Fetching, Source};
pub use write::{Ownership, Target, Times, Written};
