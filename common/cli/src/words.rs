//! Words of the command line that several tools have: pairs, filters, a question.

use crate::{Fault, Result};
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};

/// `name=value` each; the last of one name counts.
///
/// Fails with usage naming `what` a text is that is none.
pub fn pairs(what: &str, texts: &[String], value_may_lack: bool) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for text in texts {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) if !name.is_empty() => (name, value),
            None if value_may_lack && !text.is_empty() => (text.as_str(), ""),
            _ => return Err(Fault::usage(format!("{what} \"{text}\" is not of the form name=value"))),
        };
        map.insert(name.to_owned(), value.to_owned());
    }
    Ok(map)
}

/// A truth value as docker's filters have it (Go's `strconv.ParseBool`).
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "1" | "t" | "T" | "True" | "TRUE" => Some(true),
        "false" | "0" | "f" | "F" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// Whether `part` is in a name; `^` and `$` stand for its beginning and end.
pub fn name_matches(name: &str, part: &str) -> bool {
    let start = part.strip_prefix('^');
    let rest = start.unwrap_or(part);
    match (start.is_some(), rest.strip_suffix('$')) {
        (true, Some(whole)) => name == whole,
        (true, None) => name.starts_with(rest),
        (false, Some(end)) => name.ends_with(end),
        (false, None) => name.contains(rest),
    }
}

/// The filters `label=KEY[=VALUE]` and `label!=KEY[=VALUE]`, of which all must hold.
#[derive(Debug, Default)]
pub struct LabelFilters(Vec<LabelFilter>);

#[derive(Debug)]
struct LabelFilter {
    name: String,
    value: Option<String>,
    there: bool,
}

impl LabelFilters {
    /// `there`: whether the label is to be there.
    pub fn push(&mut self, text: &str, there: bool) {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        self.0.push(LabelFilter { name: name.to_owned(), value, there });
    }

    pub fn hold(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|wanted| {
            let value = labels.get(&wanted.name);
            value.is_some_and(|value| wanted.value.as_ref().is_none_or(|wanted| wanted == value))
                == wanted.there
        })
    }
}

/// Asks on a terminal whether to do what `warning` tells of; programs have decided already.
pub fn confirmed(warning: &str) -> Result<bool> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Ok(true);
    }
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{warning}\nAre you sure you want to continue? [y/N] ")
        .and_then(|()| stderr.flush())
        .map_err(|error| Fault::failed("ask").because(error).hint("--force does not ask"))?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).map_err(|error| Fault::failed("read the answer").because(error))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

/// A word as a POSIX shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_have_names() {
        let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let map = pairs("label", &texts(&["a=1", "a=2=3", "b"]), true).unwrap();
        assert_eq!((map["a"].as_str(), map["b"].as_str()), ("2=3", ""));
        for (wrong, may_lack) in [("b", false), ("=a", true), ("", true)] {
            let fault = pairs("label", &texts(&[wrong]), may_lack).unwrap_err();
            assert_eq!(fault.kind(), crate::Kind::Usage, "{wrong}");
        }
    }

    #[test]
    fn names_and_labels_are_filtered() {
        for (part, holds) in [("eb", true), ("^web$", true), ("^eb", false), ("we$", false), ("b$", true)] {
            assert_eq!(name_matches("web", part), holds, "{part}");
        }
        let labels = [("a".to_owned(), "b".to_owned())].into();
        for (text, there, holds) in [
            ("a", true, true),
            ("a=b", true, true),
            ("a=c", true, false),
            ("a", false, false),
            ("x", false, true),
        ] {
            let mut filters = LabelFilters::default();
            filters.push(text, there);
            assert_eq!(filters.hold(&labels), holds, "{text}");
        }
    }
}
