//! Thin safe wrappers over system calls that nix and rustix lack, or that are only safe under a condition.
//!
//! The only crate of this project with `unsafe` in it. Every block states the invariant it relies on.

pub mod background;
pub mod bpf;
pub mod descriptor;
pub mod fs;
pub mod mount;
pub mod overlay;
pub mod pipe;
pub mod process;
pub mod quota;
pub mod regex;
pub mod scheduling;
pub mod seccomp;
pub mod socket;
