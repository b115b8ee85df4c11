//! What BuildKit warns of.

use crate::{File, Lines, Plan, Problem, Request};
use oci::{Platform, Reference};
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// BuildKit's name for it: `StageNameCasing`.
    pub rule: &'static str,
    pub description: &'static str,
    pub message: String,
    pub lines: Lines,
}

/// What a check cannot know from the file alone.
pub struct Facts<'a> {
    /// Whether the context's ignore file hides a path, so that `COPY` cannot find it. Never true where exceptions
    /// (`!pattern`) make that undecidable.
    pub is_ignored: &'a dyn Fn(&str) -> bool,
    /// `Env` of an image. Where it is not known, variables are not said to be undefined.
    pub env_of: &'a dyn Fn(&Reference, &Platform) -> Option<Vec<String>>,
}

/// What a check came to.
#[derive(Clone, Debug, Serialize)]
pub struct Checked {
    pub findings: Vec<Finding>,
    /// Why it cannot be built at all.
    pub problem: Option<Problem>,
    /// `# check=error=true`: findings fail the build.
    pub error: bool,
}

/// All stages are checked if the request has no target.
pub fn check(file: &File, request: &Request, facts: &Facts<'_>) -> Checked {
    let _ = (file, request, facts, None::<Plan>);
    todo!()
}
