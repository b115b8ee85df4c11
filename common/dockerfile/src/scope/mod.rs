//! A stage on its way: its variables, its directory and its shell, and what each instruction means under them.

mod step;

pub use step::{
    Action, Add, AddSource, Change, Chmod, Copy, InlineFile, Mount, Placement, Run, Step, Undefined,
};

use crate::plan::Globals;
use crate::{Plan, PlannedInstruction, Problem};
use std::sync::Arc;

/// What a stage has from its base image's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    pub env: Vec<String>,
    pub shell: Vec<String>,
    pub workdir: String,
    pub user: String,
}

impl Inherited {
    /// From a whole image configuration, the object around `config`. `None`: from scratch.
    ///
    /// # Errors
    /// Members that are not what they should be.
    pub fn of(image: Option<&serde_json::Value>) -> Result<Inherited, Problem> {
        let _ = image;
        todo!()
    }
}

/// The state a stage's instructions are read in, one after the other.
#[derive(Clone, Debug)]
pub struct Scope {
    pub(crate) globals: Arc<Globals>,
}

impl Scope {
    /// Of a stage whose base is an image, a context or scratch.
    ///
    /// # Errors
    /// An environment that is too large.
    pub fn new(plan: &Plan, stage: usize, base: &Inherited) -> Result<Scope, Problem> {
        let _ = (plan, stage, base);
        todo!()
    }

    /// Of a stage whose base is another, which `base` has come to the end of.
    pub fn on(plan: &Plan, stage: usize, base: &Scope) -> Scope {
        let _ = (plan, stage, base);
        todo!()
    }

    /// Reads the next instruction. They are taken in order, each once.
    ///
    /// # Errors
    /// What docker finds out when it gets there: expansions that fail, malformed mounts, modes, ports and signals.
    pub fn step(&mut self, instruction: &PlannedInstruction) -> Result<Step, Problem> {
        let _ = instruction;
        todo!()
    }

    /// `Env` of the image: what the base had and `ENV` set, `PATH` in any case. `ARG`s are not in it.
    pub fn env(&self) -> &[String] {
        todo!()
    }

    /// `WorkingDir` of the image.
    pub fn workdir(&self) -> &str {
        todo!()
    }

    /// `User` of the image.
    pub fn user(&self) -> &str {
        todo!()
    }
}
