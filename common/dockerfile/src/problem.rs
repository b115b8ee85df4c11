//! What is wrong with a Dockerfile, and where.

use fault::Fault;
use serde::Serialize;
use std::fmt;

/// Lines of the file, counted from 1, the last one included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Lines {
    pub first: u32,
    pub last: u32,
}

impl Lines {
    pub fn one(line: u32) -> Lines {
        Lines { first: line, last: line }
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.last > self.first {
            write!(f, "lines {}-{}", self.first, self.last)
        } else {
            write!(f, "line {}", self.first)
        }
    }
}

/// Why a Dockerfile cannot be built as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `None` where nothing of the file is to blame: a target that does not exist.
    pub lines: Option<Lines>,
    /// The instruction, shortened.
    pub text: Option<String>,
    /// Lower case, no full stop.
    pub what: String,
    pub hint: Option<String>,
}

/// Characters of an instruction that a message repeats.
const SHOWN: usize = 80;

impl Problem {
    pub fn new(what: impl Into<String>) -> Problem {
        Problem { lines: None, text: None, what: what.into(), hint: None }
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Problem {
        self.hint.get_or_insert_with(|| hint.into());
        self
    }

    /// Where it is. Kept if known already: the innermost place is the best one.
    #[must_use]
    pub fn at(mut self, lines: Lines) -> Problem {
        self.lines.get_or_insert(lines);
        self
    }

    /// The instruction it is in.
    #[must_use]
    pub fn of(mut self, text: &str) -> Problem {
        self.text.get_or_insert_with(|| shorten(text));
        self
    }
}

/// The first line of a text, cut to what fits into a message.
pub fn shorten(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(lines) = self.lines {
            write!(f, "{lines}: ")?;
        }
        f.write_str(&self.what)?;
        match &self.text {
            Some(text) => write!(f, ": {text}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

impl From<Problem> for Fault {
    fn from(problem: Problem) -> Fault {
        let fault = Fault::input(problem.to_string());
        match problem.hint {
            Some(hint) => fault.hint(hint),
            None => fault,
        }
    }
}
