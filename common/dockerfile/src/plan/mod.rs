//! Which stages a target needs, in which order, and where their files come from.

use crate::instruction::Instruction;
use crate::{Dockerfile, Lines, Located, Problem};
use oci::{Platform, Reference};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What the user asks for.
#[derive(Clone, Debug)]
pub struct Request {
    /// A stage's name or number; the last stage if not given.
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    /// What the image is for.
    pub platform: Platform,
    /// What the build runs on.
    pub build_platform: Platform,
    /// The names of the `--build-context`s, which come before stages and images of that name.
    pub contexts: BTreeSet<String>,
    /// `OnBuild` of the images that stages are based on, by the stage's [`PlannedStage::index`]. They are known when the images
    /// are: plan, read the images' configurations, and plan again if one of them has any.
    pub triggers: BTreeMap<usize, Vec<String>>,
}

impl Request {
    pub fn new(platform: Platform, build_platform: Platform) -> Request {
        Request {
            target: None,
            build_args: BTreeMap::new(),
            platform,
            build_platform,
            contexts: BTreeSet::new(),
            triggers: BTreeMap::new(),
        }
    }
}

/// The stages that are built, each after those it needs. The last one is the target.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    pub stages: Vec<PlannedStage>,
    /// `SOURCE_DATE_EPOCH`, from a build argument or a global `ARG`.
    pub source_date_epoch: Option<String>,
    /// What is odd and no error: build arguments that nothing declares.
    pub warnings: Vec<String>,
    #[serde(skip)]
    pub(crate) globals: Arc<Globals>,
}

/// What all stages know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    pub escape: char,
}

#[derive(Clone, Debug, Serialize)]
pub struct PlannedStage {
    /// Its place in the Dockerfile.
    pub index: usize,
    /// Its name, or `stage-2`.
    pub name: String,
    pub lines: Lines,
    pub text: String,
    pub base: Base,
    pub platform: Platform,
    /// The triggers of the base first.
    pub instructions: Vec<PlannedInstruction>,
    /// Places in [`Plan::stages`], all lower than its own: base, `COPY --from`, `RUN --mount from=`.
    pub depends_on: Vec<usize>,
}

#[derive(Clone, Debug, Serialize)]
pub struct PlannedInstruction {
    #[serde(flatten)]
    pub located: Located<Instruction>,
    /// From the base, not from this Dockerfile's stage.
    pub trigger: bool,
    /// Of `COPY` one; of `RUN` one for each mount.
    pub sources: Vec<Source>,
}

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Base {
    Scratch,
    /// Its place in [`Plan::stages`].
    Stage(usize),
    Image {
        reference: Reference,
        platform: Platform,
    },
    /// A `--build-context`, named as the user named it.
    Context(String),
}

/// Where `COPY` and mounts take files from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The build's own context.
    Main,
    /// Nothing.
    Scratch,
    /// Its place in [`Plan::stages`].
    Stage(usize),
    Image {
        reference: Reference,
        platform: Platform,
    },
    /// A `--build-context`, named as the user named it.
    Context(String),
}

/// # Errors
/// A target or a base that is not there, stages that need later ones, malformed names and platforms.
pub fn plan(dockerfile: &Dockerfile, request: &Request) -> Result<Plan, Problem> {
    let _ = (dockerfile, request);
    todo!()
}
