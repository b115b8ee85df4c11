//! One instruction taken apart, each in the way of its kind.

use super::{Arguments, Node};
use crate::{Lines, Problem, limits};
use serde_json::Value;

/// White space between an instruction's words.
const BLANKS: [char; 5] = ['\t', '\u{b}', '\u{c}', '\r', ' '];

pub fn node(text: &str, escape: char, depth: usize) -> Result<Node, Problem> {
    let (keyword, rest) = split_blank(text.trim());
    let (flags, rest) = flags(rest.unwrap_or_default(), escape);
    let arguments = arguments(&keyword.to_ascii_lowercase(), rest.trim(), escape, depth)?;
    Ok(Node {
        keyword: keyword.to_owned(),
        flags,
        arguments,
        heredocs: Vec::new(),
        text: text.to_owned(),
        lines: Lines::default(),
        comments: Vec::new(),
    })
}

fn arguments(keyword: &str, rest: &str, escape: char, depth: usize) -> Result<Arguments, Problem> {
    let one = |text: &str| if text.is_empty() { Vec::new() } else { vec![text.to_owned()] };
    Ok(match keyword {
        "add" | "copy" | "volume" => match json(rest)? {
            Some(words) => Arguments::Json(words),
            None => Arguments::Words(blank_words(rest)),
        },
        "expose" | "from" => Arguments::Words(blank_words(rest)),
        "arg" => Arguments::Words(words(rest, escape)),
        "cmd" | "entrypoint" | "run" | "shell" => match json(rest)? {
            Some(words) => Arguments::Json(words),
            None => Arguments::Words(one(rest)),
        },
        "env" | "label" => Arguments::Pairs(pairs(rest, &keyword.to_ascii_uppercase(), escape)?),
        "healthcheck" => health(rest)?,
        "onbuild" if rest.is_empty() => Arguments::Words(Vec::new()),
        "onbuild" if depth >= limits::ONBUILD_DEPTH => {
            return Err(Problem::new("ONBUILD is nested too deep"));
        }
        "onbuild" => Arguments::Nested(Box::new(node(rest, escape, depth + 1)?)),
        "maintainer" | "stopsignal" | "user" | "workdir" => Arguments::Words(one(rest)),
        // Not known: that is said where instructions are read.
        _ => Arguments::Words(vec![String::new()]),
    })
}

/// The first word, and what follows the blanks after it.
fn split_blank(text: &str) -> (&str, Option<&str>) {
    match text.split_once(BLANKS) {
        Some((word, rest)) => (word, Some(rest.trim_start_matches(BLANKS))),
        None => (text, None),
    }
}

fn blank_words(text: &str) -> Vec<String> {
    text.split(BLANKS).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// An array of strings. What is no array, or no JSON at all, is words; an array of anything else is an error.
fn json(text: &str) -> Result<Option<Vec<String>>, Problem> {
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        _ => Err(Problem::new("the JSON array has something in it that is not a string")),
    });
    strings.collect::<Result<_, _>>().map(Some)
}

/// A kind, `CMD` or `NONE`, and a command.
fn health(rest: &str) -> Result<Arguments, Problem> {
    let (kind, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let command = command.trim_start();
    let kind = if kind.is_empty() { Vec::new() } else { vec![kind.to_owned()] };
    Ok(match json(command)? {
        Some(words) => Arguments::Json([kind, words].concat()),
        None if command.is_empty() => Arguments::Words(kind),
        None => Arguments::Words([kind, vec![command.to_owned()]].concat()),
    })
}

/// `name=value …`, or `name value` where the first word has no `=`.
fn pairs(rest: &str, keyword: &str, escape: char) -> Result<Vec<(String, String, bool)>, Problem> {
    let words = words(rest, escape);
    let Some(first) = words.first() else { return Ok(Vec::new()) };
    if !first.contains('=') {
        return match split_blank(rest) {
            (name, Some(value)) => Ok(vec![(name.to_owned(), value.to_owned(), false)]),
            (_, None) => Err(Problem::new(format!("{keyword} must have two arguments"))
                .hint(format!("{keyword} name=value"))),
        };
    }
    let pair = |word: &String| match word.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned(), true)),
        None => Err(Problem::new(format!("there is no = in {:?}", crate::problem::shorten(word)))
            .hint(format!("{keyword} takes name=value; a value with white space is quoted"))),
    };
    words.iter().map(pair).collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Between,
    Word,
    Quote(char),
}

/// Words as a shell would divide them, quotes and escapes left in.
pub fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut phase = Phase::Between;
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match phase {
            Phase::Between | Phase::Word if c.is_whitespace() => {
                if phase == Phase::Word && !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                phase = Phase::Between;
                continue;
            }
            Phase::Between | Phase::Word => {
                phase = if matches!(c, '\'' | '"') { Phase::Quote(c) } else { Phase::Word };
            }
            Phase::Quote(quote) if c == quote => phase = Phase::Word,
            Phase::Quote(_) => {}
        }
        // Between single quotes nothing is escaped.
        if c == escape && phase != Phase::Quote('\'') {
            // At the end of the line an escape is dropped.
            let Some(next) = rest.next() else { break };
            word.push(c);
            word.push(next);
        } else {
            word.push(c);
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// The words at the beginning that are flags, up to one that is none or is `--`, and what is left.
fn flags(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut flags = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (flags, rest);
        }
        let (flag, is_quoted, after) = flag(rest, escape);
        rest = after;
        if flag == "--" {
            return (flags, rest);
        }
        if is_quoted || !flag.is_empty() {
            flags.push(flag);
        }
    }
}

/// One word without its quotes and escapes, whether it had quotes, and what follows.
fn flag(text: &str, escape: char) -> (String, bool, &str) {
    let mut word = String::new();
    let mut quote = None;
    let mut is_quoted = false;
    let mut rest = text.char_indices();
    while let Some((position, c)) = rest.next() {
        match quote {
            None if c.is_whitespace() => return (word, is_quoted, &text[position..]),
            None if matches!(c, '\'' | '"') => {
                quote = Some(c);
                is_quoted = true;
            }
            Some(end) if c == end => quote = None,
            _ if c == escape => word.extend(rest.next().map(|(_, c)| c)),
            _ => word.push(c),
        }
    }
    (word, is_quoted, "")
}
