//! A Dockerfile's syntax: lines, flags, JSON, heredocs. What they mean is [`crate::instruction`]'s.
//!
//! The quirks are BuildKit's (`frontend/dockerfile/parser`): what is almost JSON is words, a comment ends the directives, an empty line
//! does not end an instruction that goes on.

mod arguments;
mod directive;
mod heredoc;
#[cfg(test)]
mod tests;

pub(crate) use directive::name_and_value;
pub(crate) use heredoc::heredoc;

use crate::instruction::Heredoc;
use crate::{Lines, Problem, limits};
use directive::Directives;
use std::borrow::Cow;

/// The instructions of a file in their order, known or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    pub nodes: Vec<Node>,
    /// `# escape=`.
    pub escape: char,
    /// `# syntax=`, its first word.
    pub syntax: Option<String>,
    /// `# check=`, its first word.
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
    /// The comments before it, since the last empty one.
    pub comments: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arguments {
    /// Words, or the rest of the line as one, by instruction.
    Words(Vec<String>),
    /// A JSON array; of `HEALTHCHECK` with its first word before it.
    Json(Vec<String>),
    /// Name, value, and whether `=` was between them.
    Pairs(Vec<(String, String, bool)>),
    /// Another instruction: `ONBUILD`.
    Nested(Box<Node>),
}

/// # Errors
/// A file without instructions, instructions that cannot be taken apart, anything beyond [`crate::limits`].
pub fn parse(text: &[u8]) -> Result<File, Problem> {
    if text.len() > limits::FILE_BYTES {
        return Err(Problem::new(format!("the Dockerfile is larger than {} bytes", limits::FILE_BYTES)));
    }
    let text = text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text);
    let mut parser = Parser {
        rest: text,
        line: 0,
        directives: Directives::default(),
        comments: Vec::new(),
        file: File {
            nodes: Vec::new(),
            escape: '\\',
            syntax: None,
            check: None,
            empty_continuations: Vec::new(),
        },
    };
    while let Some(line) = parser.next()? {
        parser.instruction(line)?;
    }
    if parser.file.nodes.is_empty() {
        return Err(Problem::new("the Dockerfile has no instructions"));
    }
    Ok(parser.file)
}

struct Parser<'a> {
    rest: &'a [u8],
    /// Of the last line that was read.
    line: u32,
    directives: Directives,
    comments: Vec<String>,
    file: File,
}

impl<'a> Parser<'a> {
    /// The next line with its end.
    fn next(&mut self) -> Result<Option<&'a [u8]>, Problem> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest.len(), |end| end + 1);
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.line += 1;
        if without_end(line).len() > limits::LINE_BYTES {
            let what = format!("the line is longer than {} bytes", limits::LINE_BYTES);
            return Err(Problem::new(what).at(Lines::one(self.line)));
        }
        Ok(Some(line))
    }

    /// What begins at a line: nothing, a comment, a directive, or an instruction with all its lines.
    fn instruction(&mut self, line: &[u8]) -> Result<(), Problem> {
        let start = self.line;
        let mut is_text = Utf8::default();
        let line = is_text.read(without_end(line));
        let line = line.trim_start();
        let here = |problem: Problem| problem.at(Lines::one(start));
        if let Some(directive) = self.directives.read(line).map_err(here)? {
            return self.directive(&directive).map_err(here);
        }
        if let Some(comment) = line.strip_prefix('#') {
            match comment.trim() {
                "" => self.comments.clear(),
                comment => self.comments.push(comment.to_owned()),
            }
            return Ok(());
        }
        let Some(text) = self.joined(line, &mut is_text)? else { return Ok(()) };
        if self.file.nodes.len() >= limits::INSTRUCTIONS {
            return Err(here(Problem::new(format!("more than {} instructions", limits::INSTRUCTIONS))));
        }
        let lines = Lines { first: start, last: self.line };
        let mut node = arguments::node(&text, self.file.escape, 0).map_err(|p| p.at(lines).of(&text))?;
        if heredoc::belongs_to(&node) {
            node.heredocs = self.heredocs(&text, start, &mut is_text)?;
        }
        node.lines = Lines { first: start, last: self.line };
        node.comments = std::mem::take(&mut self.comments);
        is_text.check(&node)?;
        self.file.nodes.push(node);
        Ok(())
    }

    fn directive(&mut self, directive: &directive::Directive) -> Result<(), Problem> {
        let word = directive.value.split(' ').next().unwrap_or_default().to_owned();
        match directive.name.as_str() {
            "escape" => self.file.escape = directive.escape()?,
            "syntax" => self.file.syntax = Some(word),
            _ => self.file.check = Some((word, Lines::one(self.line))),
        }
        Ok(())
    }

    /// The line with those that continue it; `None` if there is nothing in them.
    fn joined(&mut self, first: &str, is_text: &mut Utf8) -> Result<Option<String>, Problem> {
        let (line, mut goes_on) = continued(first, self.file.escape);
        if !goes_on && line.is_empty() {
            return Ok(None);
        }
        let mut text = line.to_owned();
        let mut skipped_empty = false;
        while goes_on {
            let Some(line) = self.next()? else { break };
            let line = is_text.read(without_end(line));
            if line.trim_start().starts_with('#') {
                continue;
            }
            if line.trim_start().is_empty() {
                skipped_empty = true;
                continue;
            }
            let (line, more) = continued(&line, self.file.escape);
            text.push_str(line);
            goes_on = more;
        }
        if skipped_empty {
            self.file.empty_continuations.push(self.line);
        }
        Ok(Some(text))
    }

    /// The contents of the heredocs an instruction names, one after the other.
    fn heredocs(&mut self, text: &str, start: u32, is_text: &mut Utf8) -> Result<Vec<Heredoc>, Problem> {
        let at = |problem: Problem, last| problem.at(Lines { first: start, last }).of(text);
        let mut heredocs = heredoc::named(text).map_err(|problem| at(problem, self.line))?;
        for heredoc in &mut heredocs {
            loop {
                let Some(line) = self.next()? else {
                    let problem = Problem::new(format!("the heredoc has no end: a line {}", heredoc.name));
                    return Err(at(problem, self.line));
                };
                let line = is_text.read(line);
                let end = line.trim_end_matches(['\r', '\n']);
                let end = if heredoc.chomp { end.trim_start_matches('\t') } else { end };
                if end == heredoc.name {
                    break;
                }
                heredoc.content.push_str(&line);
            }
        }
        Ok(heredocs)
    }
}

/// Whether all of an instruction is UTF-8. Comments need not be, and a maintainer's name or a label from other times does not
/// keep an image from being built.
#[derive(Default)]
struct Utf8 {
    broken: bool,
}

impl Utf8 {
    fn read<'a>(&mut self, line: &'a [u8]) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(line);
        self.broken |= matches!(text, Cow::Owned(_)) && !text.trim_start().starts_with('#');
        text
    }

    fn check(&self, node: &Node) -> Result<(), Problem> {
        let may = ["MAINTAINER", "LABEL"].iter().any(|keyword| node.keyword.eq_ignore_ascii_case(keyword));
        if !self.broken || may {
            return Ok(());
        }
        Err(Problem::new("the instruction is not UTF-8").at(node.lines).of(&node.text))
    }
}

fn without_end(line: &[u8]) -> &[u8] {
    let end = line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    &line[..end]
}

/// The line without the escape character at its end, and whether there was one: blanks may follow it, another one before it takes
/// its meaning off.
fn continued(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(before) if !before.ends_with(escape) => (before, true),
        _ => (line, false),
    }
}
