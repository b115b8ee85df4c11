//! Which stages a target needs, in which order, and where their files come from.

pub(crate) mod arguments;
pub(crate) mod environment;
mod resolve;
#[cfg(test)]
mod tests;

pub use resolve::plan;
pub(crate) use resolve::plan_all;

use crate::instruction::Instruction;
use crate::{Lines, Located, Problem};
use environment::Environment;
use oci::{Platform, Reference};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

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

    /// Takes a `--build-arg`: `NAME=value`, or `NAME` with the value it has in the environment, if it has any.
    ///
    /// # Errors
    /// No name.
    pub fn build_arg(
        &mut self,
        text: &str,
        environment: impl FnOnce(&str) -> Option<String>,
    ) -> Result<(), Problem> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, environment(text)),
        };
        if name.is_empty() {
            return Err(Problem::new("a build argument has no name").hint("--build-arg NAME=value"));
        }
        match value {
            Some(value) => self.build_args.insert(name.to_owned(), value),
            None => self.build_args.remove(name),
        };
        Ok(())
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

impl Plan {
    /// The images that are needed, each once: those that stages begin with, and those that files are taken from.
    pub fn images(&self) -> Vec<(&Reference, &Platform)> {
        let mut images = Vec::new();
        let mut add = |image| {
            if !images.contains(&image) {
                images.push(image);
            }
        };
        for stage in &self.stages {
            if let Base::Image { reference, platform } = &stage.base {
                add((reference, platform));
            }
            for source in stage.instructions.iter().flat_map(|instruction| &instruction.sources) {
                if let Source::Image { reference, platform } = source {
                    add((reference, platform));
                }
            }
        }
        images
    }
}

/// What all stages know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals {
    pub escape: char,
    /// Those of the platforms, and what the file sets before its first `FROM`.
    pub args: Environment,
    pub build_args: BTreeMap<String, String>,
    /// `NAME=value`.
    pub proxies: Vec<String>,
    /// What is left of [`crate::limits::PATTERN_WORK`].
    pub work: Arc<AtomicUsize>,
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
