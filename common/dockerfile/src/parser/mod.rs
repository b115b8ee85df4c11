//! A Dockerfile's syntax: lines, flags, JSON, heredocs. What they mean is [`crate::instruction`]'s.

use crate::instruction::Heredoc;
use crate::{Lines, Problem};

/// The instructions of a file in their order, known or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub nodes: Vec<Node>,
    /// `# escape=`.
    pub escape: char,
    /// `# syntax=`.
    pub syntax: Option<String>,
    /// `# check=`.
    pub check: Option<(String, Lines)>,
    /// Where instructions end that go on over empty lines.
    pub empty_continuations: Vec<u32>,
}

/// An instruction as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The first word in its own letters.
    pub keyword: String,
    /// `--name[=value]`, quotes taken off.
    pub flags: Vec<String>,
    pub arguments: Arguments,
    pub heredocs: Vec<Heredoc>,
    /// Continuation lines joined, contents of heredocs left out.
    pub text: String,
    pub lines: Lines,
    /// The comments right above.
    pub comments: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Words, or the rest of the line as one, by instruction.
    Words(Vec<String>),
    /// A JSON array.
    Json(Vec<String>),
    /// Name, value, and whether `=` was between them.
    Pairs(Vec<(String, String, bool)>),
    /// Another instruction: `ONBUILD`.
    Nested(Box<Node>),
}

/// # Errors
/// A file without instructions, instructions that cannot be taken apart, anything beyond [`crate::limits`].
pub fn parse(text: &[u8]) -> Result<File, Problem> {
    let _ = text;
    todo!()
}
