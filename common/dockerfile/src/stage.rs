//! A Dockerfile as stages of typed instructions.

use crate::instruction::{self, Arg, Instruction};
use crate::{File, Lines, Problem, parse};
use serde::Serialize;

/// A whole Dockerfile, every instruction read; nothing is expanded yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Dockerfile {
    /// What continues lines and takes the meaning off characters: `\` or `` ` ``.
    pub escape: char,
    /// `# syntax=…`, the frontend docker would fetch. It is read and not followed: this one is built in.
    pub syntax: Option<String>,
    /// The `ARG`s before the first `FROM`.
    pub global_args: Vec<Located<Vec<Arg>>>,
    pub stages: Vec<Stage>,
}

/// A `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// As written: variables are expanded by [`crate::plan()`].
    pub base: String,
    pub platform: Option<String>,
    /// In lower case: names are the same in any.
    pub name: Option<String>,
    /// From the comment right above, `# NAME what it is for`.
    pub description: Option<String>,
    /// The lines of the `FROM`.
    pub lines: Lines,
    /// The `FROM` as written.
    pub text: String,
    /// `FROM` in its own letters.
    pub keyword: String,
    /// `AS` and the name in their own letters.
    pub named: Option<(String, String)>,
    pub comments: Vec<String>,
    pub instructions: Vec<Located<Instruction>>,
}

/// Something and where it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located<T> {
    pub lines: Lines,
    /// The instruction as written, continuation lines joined, contents of heredocs left out.
    pub text: String,
    /// Its first word in its own letters.
    pub keyword: String,
    /// The comments right above.
    pub comments: Vec<String>,
    pub value: T,
}

impl Dockerfile {
    /// [`parse`] and [`Dockerfile::of`].
    ///
    /// # Errors
    /// What docker would refuse before it builds anything.
    pub fn parse(text: &[u8]) -> Result<Dockerfile, Problem> {
        Dockerfile::of(&parse(text)?)
    }

    /// # Errors
    /// Unknown instructions and flags, arguments that are missing or malformed, instructions outside a stage.
    pub fn of(file: &File) -> Result<Dockerfile, Problem> {
        instruction::stages(file)
    }
}
