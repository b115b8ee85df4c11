//! Dockerfiles: everything they say, with no system behind it.
//!
//! Bytes become instructions ([`parse`], [`Dockerfile`]), the stages a target needs become a [`Plan`], and a [`Scope`] turns the
//! instructions of a stage into [`Step`]s that can be run without knowing a Dockerfile's rules. [`check`] tells what BuildKit would warn
//! of. Spellings, defaults and what is refused follow BuildKit's `frontend/dockerfile` and the Dockerfile reference.
//!
//! Dockerfiles are written by anybody, and base images bring instructions of their own (`ONBUILD`): sizes, counts, depths and what
//! expansion makes of them are bounded ([`limits`]).
#![forbid(unsafe_code)]

pub mod instruction;
pub mod limits;
pub mod lint;
pub mod mount;
pub mod parser;
pub mod plan;
mod problem;
pub mod scope;
pub mod shell;
mod stage;
mod suggest;
mod text;

#[cfg(test)]
mod corpora;

pub use instruction::{Instruction, triggers};
pub use lint::{Checked, Finding, check};
pub use parser::{File, Node, parse};
pub use plan::{Base, Plan, PlannedInstruction, PlannedStage, Request, Source, plan};
pub use problem::{Lines, Problem};
pub use scope::{Action, Inherited, Scope, Step};
pub use stage::{Dockerfile, Located, Stage};
