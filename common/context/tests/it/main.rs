//! Contexts on disk: what is chosen, what it is by digest, what is written.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr)]

mod archives;
mod contexts;
mod copy;
mod digest;
mod git;
mod hostile;
mod memory;
mod place;
mod server;
mod web;
