//! Words with variables in them, as BuildKit expands them: like a shell's, with differences of its own.

use crate::Problem;
use std::collections::BTreeSet;

/// Where variables come from.
pub trait Variables {
    fn value(&self, name: &str) -> Option<&str>;
}

/// How words are read.
#[derive(Clone, Copy, Debug)]
pub struct Lex {
    /// Takes the meaning off the next character.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escapes stay in the result.
    pub raw_escapes: bool,
    /// Quotes mean nothing.
    pub skip_quotes: bool,
    /// `$x` stays as it is where `x` has no value.
    pub skip_unset: bool,
}

/// A word, and the variables in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    pub used: BTreeSet<String>,
    pub unset: BTreeSet<String>,
}

impl Lex {
    pub fn new(escape: char) -> Lex {
        Lex { escape, raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }

    /// As one word, white space and all.
    pub fn word(&self, word: &str, variables: &dyn Variables) -> Result<Expanded, Problem> {
        let _ = (word, variables);
        todo!()
    }

    /// As the words it falls into after expansion.
    pub fn words(&self, word: &str, variables: &dyn Variables) -> Result<Vec<String>, Problem> {
        let _ = (word, variables);
        todo!()
    }
}
