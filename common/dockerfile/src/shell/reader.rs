//! A word read once from its beginning to its end.

use super::pattern::{Pattern, Work};
use super::{Lex, Variables};
use crate::{Problem, limits};
use std::collections::BTreeSet;
use std::str::Chars;

pub struct Reader<'a, V: ?Sized> {
    lex: Lex,
    rest: Chars<'a>,
    variables: &'a V,
    pub used: BTreeSet<String>,
    pub unset: BTreeSet<String>,
    depth: usize,
    work: &'a mut Work,
}

impl<'a, V: Variables + ?Sized> Reader<'a, V> {
    pub fn new(lex: Lex, word: &'a str, variables: &'a V, work: &'a mut Work) -> Reader<'a, V> {
        Reader {
            lex,
            rest: word.chars(),
            variables,
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
            depth: 0,
            work,
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.clone().next()
    }

    /// Up to `stop`, or to the end.
    pub fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), Problem> {
        let before = std::mem::replace(&mut self.lex.raw_escapes, raw_escapes);
        let done = self.read_until(stop);
        self.lex.raw_escapes = before;
        done
    }

    fn read_until(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), Problem> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(c) = self.peek() {
            if Some(c) == stop {
                self.rest.next();
                return Ok((text, words.finish()));
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    words.split(&value);
                    text.push_str(&value);
                }
                '\'' | '"' if !self.lex.skip_quotes => {
                    let quoted = if c == '"' { self.double_quote()? } else { self.single_quote()? };
                    words.whole(&quoted);
                    text.push_str(&quoted);
                }
                '<' => {
                    let operator = self.heredoc_operator();
                    words.whole(&operator);
                    text.push_str(&operator);
                }
                c => {
                    self.rest.next();
                    if c != self.lex.escape {
                        words.letter(c);
                        text.push(c);
                        continue;
                    }
                    if self.lex.raw_escapes {
                        words.push(c);
                        text.push(c);
                    }
                    // At the end of a word an escape is dropped.
                    let Some(c) = self.rest.next() else { break };
                    words.push(c);
                    text.push(c);
                }
            }
            bounded(text.len())?;
        }
        match stop {
            Some(stop) => Err(Problem::new(format!("it ends where {stop:?} is missing"))),
            None => Ok((text, words.finish())),
        }
    }

    /// Everything up to the next `'` as it is.
    fn single_quote(&mut self) -> Result<String, Problem> {
        let mut text = String::new();
        let quote = self.rest.next();
        text.extend(quote.filter(|_| self.lex.raw_quotes));
        for c in self.rest.by_ref() {
            if Some(c) == quote {
                text.extend(quote.filter(|_| self.lex.raw_quotes));
                return Ok(text);
            }
            text.push(c);
        }
        Err(Problem::new("a single quote has no end"))
    }

    /// Everything up to the next `"`, variables expanded; an escape means something before `"`, `$` and itself only.
    fn double_quote(&mut self) -> Result<String, Problem> {
        let mut text = String::new();
        text.extend(self.rest.next().filter(|_| self.lex.raw_quotes));
        while let Some(c) = self.peek() {
            if c == '$' {
                text.push_str(&self.dollar()?);
                bounded(text.len())?;
                continue;
            }
            self.rest.next();
            if c == '"' {
                text.extend(Some(c).filter(|_| self.lex.raw_quotes));
                return Ok(text);
            }
            if c != self.lex.escape {
                text.push(c);
                continue;
            }
            if self.lex.raw_escapes {
                text.push(c);
            }
            match self.peek() {
                None => {}
                Some(next) if next == '"' || next == '$' || next == self.lex.escape => {
                    self.rest.next();
                    text.push(next);
                }
                Some(_) => text.push(c),
            }
        }
        Err(Problem::new("a double quote has no end"))
    }

    /// `<<` keeps the white space after it, so that the name of a heredoc stays with it.
    fn heredoc_operator(&mut self) -> String {
        let mut text = String::from("<");
        self.rest.next();
        if self.peek() == Some('<') {
            self.rest.next();
            text.push('<');
            while let Some(space) = self.peek().filter(|c| matches!(c, '\t' | '\r' | ' ')) {
                self.rest.next();
                text.push(space);
            }
        }
        text
    }

    fn dollar(&mut self) -> Result<String, Problem> {
        self.rest.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.lookup(&name) {
                None if self.lex.skip_unset => format!("${name}"),
                value => value.unwrap_or_default().to_owned(),
            });
        }
        self.rest.next();
        self.depth += 1;
        if self.depth > limits::EXPANSION_DEPTH {
            return Err(Problem::new(format!(
                "variables are nested more than {} deep",
                limits::EXPANSION_DEPTH
            )));
        }
        let value = self.braces();
        self.depth -= 1;
        value
    }

    /// What is between `${` and `}`.
    fn braces(&mut self) -> Result<String, Problem> {
        match self.peek() {
            None => return Err(no_end()),
            Some('{' | '}' | ':') => return Err(Problem::new("a name is missing after ${")),
            Some(_) => {}
        }
        let name = self.name();
        let modifier = self.rest.next().ok_or_else(no_end)?;
        match modifier {
            '}' => Ok(match self.lookup(&name) {
                None if self.lex.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default().to_owned(),
            }),
            ':' => {
                let modifier = self.rest.next().ok_or_else(no_end)?;
                if !matches!(modifier, '-' | '+' | '?') {
                    return Err(no_modifier(&format!(":{modifier}")));
                }
                self.modified(&name, modifier, true)
            }
            '-' | '+' | '?' | '#' | '%' => self.modified(&name, modifier, false),
            '/' => self.replaced(&name),
            other => Err(no_modifier(&other.to_string())),
        }
    }

    /// `${name-word}` and its like; `empty_is_unset` is the `:` before the modifier.
    fn modified(&mut self, name: &str, modifier: char, empty_is_unset: bool) -> Result<String, Problem> {
        let is_pattern = matches!(modifier, '#' | '%');
        let (word, _) = self.until(Some('}'), is_pattern)?;
        let skip_unset = self.lex.skip_unset;
        let value = self.lookup(name);
        if value.is_none() && skip_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{modifier}{word}}}"));
        }
        let set = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match modifier {
            '-' => Ok(set.map_or(word, str::to_owned)),
            '+' => Ok(if set.is_some() { word } else { String::new() }),
            '?' => match set {
                Some(value) => Ok(value.to_owned()),
                None if !word.is_empty() => Err(Problem::new(format!("{name}: {word}"))),
                None if value.is_some() => Err(Problem::new(format!("{name} may not be empty"))),
                None => Err(Problem::new(format!("{name} has to be set"))),
            },
            _ => {
                let doubled = word.strip_prefix(modifier);
                let pattern = Pattern::parse(doubled.unwrap_or(&word))?;
                let value = value.unwrap_or_default();
                if modifier == '#' {
                    pattern.trim_start(value, doubled.is_some(), self.work)
                } else {
                    pattern.trim_end(value, doubled.is_some(), self.work)
                }
            }
        }
    }

    /// `${name/pattern/replacement}`, `${name//pattern/replacement}`.
    fn replaced(&mut self, name: &str) -> Result<String, Problem> {
        let all = self.peek() == Some('/');
        if all {
            self.rest.next();
        }
        let (pattern, _) = self.until(Some('/'), true)?;
        let (replacement, _) = self.until(Some('}'), true)?;
        let skip_unset = self.lex.skip_unset;
        let value = self.lookup(name);
        if value.is_none() && skip_unset {
            let slash = if all { "//" } else { "/" };
            return Ok(format!("${{{name}{slash}{pattern}/{replacement}}}"));
        }
        let pattern = Pattern::parse(&pattern)?;
        pattern.replace(value.unwrap_or_default(), &replacement, all, self.work)
    }

    /// Letters, digits and `_`; digits alone; or one of the shell's special parameters, none of which ever has a value.
    fn name(&mut self) -> String {
        match self.peek() {
            Some(c) if c.is_numeric() => self.take(char::is_numeric),
            Some(c @ ('@' | '*' | '#' | '?' | '-' | '$' | '!')) => {
                self.rest.next();
                c.to_string()
            }
            _ => self.take(|c| c.is_alphanumeric() || c == '_'),
        }
    }

    fn take(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let mut text = String::new();
        while let Some(c) = self.peek().filter(|c| belongs(*c)) {
            self.rest.next();
            text.push(c);
        }
        text
    }

    /// The value, noted down as used or missed.
    fn lookup<'s>(&mut self, name: &str) -> Option<&'s str>
    where
        Self: 's,
    {
        let value = self.variables.value(name);
        let seen = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !seen.contains(name) {
            seen.insert(name.to_owned());
        }
        value
    }
}

fn bounded(length: usize) -> Result<(), Problem> {
    if length <= limits::WORD_BYTES {
        return Ok(());
    }
    Err(Problem::new(format!("it grows beyond {} bytes", limits::WORD_BYTES)))
}

fn no_end() -> Problem {
    Problem::new("} is missing after ${")
}

fn no_modifier(text: &str) -> Problem {
    Problem::new(format!("there is no modifier {text:?}")).hint(
        "in braces: :- - :+ + :? ? # ## % %% / //; before a $ that means nothing stands the escape character",
    )
}

/// Words as they come to light.
#[derive(Default)]
struct Words {
    done: Vec<String>,
    current: String,
    inside: bool,
}

impl Words {
    /// White space divides.
    fn letter(&mut self, c: char) {
        if !c.is_whitespace() {
            self.push(c);
        } else if self.inside && !self.current.is_empty() {
            self.done.push(std::mem::take(&mut self.current));
            self.inside = false;
        }
    }

    fn push(&mut self, c: char) {
        self.current.push(c);
        self.inside = true;
    }

    fn split(&mut self, text: &str) {
        text.chars().for_each(|c| self.letter(c));
    }

    fn whole(&mut self, text: &str) {
        self.current.push_str(text);
        self.inside = true;
    }

    fn finish(mut self) -> Vec<String> {
        if !self.current.is_empty() {
            self.done.push(self.current);
        }
        self.done
    }
}
