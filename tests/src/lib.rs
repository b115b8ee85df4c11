//! Helpers of the whole-pipeline tests in `tests/tests/`.
#![forbid(unsafe_code)]

pub mod calls;
mod criu;
pub mod engine;
pub mod hostile;
mod leftovers;
pub mod nginx;
pub mod programs;
mod terminal;
pub mod tree;

pub use criu::criu_works;
pub use leftovers::{Leftovers, descendants};
pub use terminal::Terminal;
pub use testkit::*;
