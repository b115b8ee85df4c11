//! Words with variables in them, as BuildKit expands them: like a shell's, with differences of its own.
//!
//! `$name` and `${name}`, and in braces `:-` `-` `:+` `+` `:?` `?` (POSIX, XCU 2.6.2), `#` `##` `%` `%%` with patterns of `*` and `?`,
//! `/` and `//` to replace what matches a pattern.

mod pattern;
mod reader;
#[cfg(test)]
mod tests;

use crate::{Problem, limits};
pub(crate) use pattern::Work;
use reader::Reader;
use std::collections::BTreeSet;

/// Where variables come from.
pub trait Variables {
    fn value(&self, name: &str) -> Option<&str>;
}

/// No variables at all.
pub struct Nothing;

impl Variables for Nothing {
    fn value(&self, _: &str) -> Option<&str> {
        None
    }
}

/// `NAME=value`; the last of a name counts.
impl Variables for [String] {
    fn value(&self, name: &str) -> Option<&str> {
        self.iter().rev().find_map(|variable| {
            let (found, value) = variable.split_once('=').unwrap_or((variable, ""));
            (found == name).then_some(value)
        })
    }
}

impl Variables for Vec<String> {
    fn value(&self, name: &str) -> Option<&str> {
        self.as_slice().value(name)
    }
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
    ///
    /// # Errors
    /// Quotes and braces that do not end, modifiers and patterns there are none of, `?` of a variable without value, and what
    /// grows beyond [`crate::limits`].
    pub fn word<V: Variables + ?Sized>(self, word: &str, variables: &V) -> Result<Expanded, Problem> {
        self.word_within(word, variables, &mut Work(limits::PATTERN_WORK))
    }

    /// [`Lex::word`] with what many words share.
    pub(crate) fn word_within<V: Variables + ?Sized>(
        self,
        word: &str,
        variables: &V,
        work: &mut Work,
    ) -> Result<Expanded, Problem> {
        // Most words are plain, and escapes and quotes are all that could change them.
        let plain = |c: char| c != '$' && c != '\'' && c != '"' && c != self.escape;
        if word.chars().all(plain) {
            return Ok(Expanded { text: word.to_owned(), ..Expanded::default() });
        }
        let (text, _, reader) = self.read(word, variables, work)?;
        Ok(Expanded { text, used: reader.used, unset: reader.unset })
    }

    /// As the words it falls into after expansion.
    ///
    /// # Errors
    /// As [`Lex::word`].
    pub fn words<V: Variables + ?Sized>(
        self,
        word: &str,
        variables: &V,
    ) -> Result<(Vec<String>, BTreeSet<String>), Problem> {
        let mut work = Work(limits::PATTERN_WORK);
        let (_, words, reader) = self.read(word, variables, &mut work)?;
        Ok((words, reader.unset))
    }

    fn read<'a, V: Variables + ?Sized>(
        self,
        word: &'a str,
        variables: &'a V,
        work: &'a mut Work,
    ) -> Result<(String, Vec<String>, Reader<'a, V>), Problem> {
        let mut reader = Reader::new(self, word, variables, work);
        match reader.until(None, self.raw_escapes) {
            Ok((text, words)) => Ok((text, words, reader)),
            Err(mut problem) => {
                problem.what = format!("expand {:?}: {}", crate::problem::shorten(word), problem.what);
                Err(problem)
            }
        }
    }
}
